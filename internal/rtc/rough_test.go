package rtc_test

import (
	"crypto/rand"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"earshot/internal/event"
	"earshot/internal/rig"
	"earshot/internal/rtc"
)

// At 5 % loss and 40 ms of jitter the programme has no hole and is what was said; concealed frames are counted.
func TestBadNetwork(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  rig.PeerConfig
	}{
		{"fec", rig.PeerConfig{Send: true, Receive: true}},
		{"red", rig.PeerConfig{Send: true, Receive: true, RED: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // they mostly wait
			h := newHouse(t)
			relay, err := rig.NewImpair(h.port, 7, rig.Conditions{})
			must(t, err)
			t.Cleanup(func() { _ = relay.Close() })
			said := rig.Chirpy(0.3, -20)
			p, _ := h.enter("ada", c.cfg, said, relay)
			h.wait("first sound", func() bool { return h.stage.State().Programme > -40 })
			relay.Set(rig.Conditions{Loss: 0.05, Jitter: 40 * time.Millisecond, Duplicate: 0.01})
			// What is heard in eight seconds, and how late this machine itself was in each: that is no fault of the server's.
			type second struct {
				pcm   []float32
				begin uint64
				stall time.Duration // in this second and the one before
			}
			var heard []second
			calm := rig.NewCalm()
			defer calm.Close()
			var before time.Duration
			for begin := h.timeline.Head() + 100; len(heard) < 8; begin += 50 {
				h.wait("another second", func() bool { return h.timeline.Head() >= begin+50 })
				now := calm.Worst()
				pcm := decode(t, h.timeline, begin-10, begin+50)[10*960:]
				heard = append(heard, second{pcm, begin, max(before, now)})
				before = now
			}
			// Each window is looked for among what was said in the second before it was due, as the jitter buffer may
			// stretch time a little.
			const window = 4800
			sum, n, worst, tolerated := 0.0, 0, 1.0, 0
			clean := make([]float32, 48000+window)
			for _, s := range heard[2:] { // the jitter buffer has learnt what network it has
				for _, hole := range rig.Holes(s.pcm, -45, 480) {
					if length := time.Duration(hole.Samples) * time.Second / 48000; length > 2*s.stall {
						t.Errorf("the programme has a hole of %v at frame %d; the machine stalled for %v", length, int(s.begin)+hole.From/960, s.stall)
					}
				}
				if s.stall > 40*time.Millisecond { // as much again as the network's jitter
					tolerated++
					continue
				}
				due := h.timeline.Origin().Add(time.Duration(s.begin) * event.FrameDuration).Sub(p.Began())
				for w := 0; w+window <= len(s.pcm); w += window {
					said(int64(due.Seconds()*48000)+int64(w)-48000, clean)
					_, r := rig.Correlate(clean, s.pcm[w:w+window], 48000)
					sum += r
					n++
					worst = min(worst, r)
				}
			}
			t.Logf("%d of 6 seconds were not compared, as the machine stalled in them", tolerated)
			stats, tally := h.stage.Stats(), relay.Tally()
			t.Logf("seed 7: %+v, of the voice: %+v; repaired by RED %v", tally, stats.Voices, h.count("earshot_speaker_repaired_packets_total", ""))
			t.Logf("correlation: mean %.3f, worst window of 100 ms %.3f", sum/float64(n), worst)
			if n > 0 && sum/float64(n) < 0.8 {
				t.Errorf("the programme correlates with the clean signal by %.3f only", sum/float64(n))
			}
			if tally.Lost == 0 || tally.Overtaken == 0 {
				t.Errorf("the network was not bad: %+v", tally)
			}
			if v := stats.Voices; c.name == "fec" && v.Concealed+v.FEC == 0 {
				t.Error("nothing was counted as concealed or restored")
			}
			if n := h.count("earshot_speaker_repaired_packets_total", ""); c.name == "red" && n == 0 {
				t.Error("no packet was repaired by RED")
			}
			if len(p.Heard()) == 0 {
				t.Error("nothing came back")
			}
		})
	}
}

// Where NACK was offered, lost packets are asked for again in time.
func TestNACK(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	relay, err := rig.NewImpair(h.port, 5, rig.Conditions{})
	must(t, err)
	defer relay.Close()
	h.enter("ada", rig.PeerConfig{Send: true, Receive: true, NACK: true}, rig.Tone(440, -20), relay)
	h.wait("first sound", func() bool { return h.stage.State().Programme > -40 })
	relay.Set(rig.Conditions{Loss: 0.1, Ordered: true, Jitter: 5 * time.Millisecond})
	head := h.timeline.Head()
	h.wait("six seconds", func() bool { return h.timeline.Head() > head+300 })
	received, v := h.count("earshot_speaker_received_packets_total", ""), h.stage.Stats().Voices
	t.Logf("seed 5: %+v, received %v, %+v", relay.Tally(), received, v)
	if lost := v.Concealed + v.FEC; lost > 15 {
		t.Errorf("%d frames had to be made up, of about 30 lost", lost)
	}
}

// The newer connection of a person displaces the older; the seat survives, and the older connection ends.
func TestDisplaced(t *testing.T) {
	h := newHouse(t)
	older, olderID := h.enter("ada", rig.PeerConfig{Send: true, Receive: true}, rig.Tone(440, -20), nil)
	newer, id := h.enter("ada", rig.PeerConfig{Send: true, Receive: true}, rig.Tone(440, -20), nil)
	select {
	case <-older.Down():
	case <-h.ctx.Done():
		t.Fatal("the older connection stays")
	}
	h.wait("the older session is forgotten", func() bool { return h.count("earshot_speaker_connections", "speaker") == 1 })
	if h.gate.End(olderID) {
		t.Error("the older session is still there")
	}
	if n := h.count("earshot_speaker_ended_total", "displaced"); n != 1 {
		t.Errorf("displaced: %v, want 1", n)
	}
	if connected, there := h.onStage("ada"); !connected || !there || len(h.stage.State().People) != 1 {
		t.Errorf("on stage: %+v", h.stage.State().People)
	}
	h.hear(newer, 25)
	if !h.gate.End(id) {
		t.Error("the newer session is unknown")
	}
	<-newer.Down()
	h.wait("nobody on stage", func() bool { _, there := h.onStage("ada"); return !there })
}

// A connection that falls silent is noticed; the place on stage stays, and the same person comes back to it.
func TestLost(t *testing.T) {
	h := newHouse(t, func(c *rtc.Config) { c.Silent = 400 * time.Millisecond })
	relay, err := rig.NewImpair(h.port, 1, rig.Conditions{})
	must(t, err)
	defer relay.Close()
	h.enter("ada", rig.PeerConfig{Send: true, Receive: true}, rig.Tone(440, -20), relay)
	h.wait("on stage", func() bool { connected, _ := h.onStage("ada"); return connected })
	relay.Set(rig.Conditions{Loss: 1})
	h.wait("lost", func() bool { connected, there := h.onStage("ada"); return there && !connected })
	h.wait("forgotten", func() bool { return h.count("earshot_speaker_connections", "speaker") == 0 })
	h.enter("ada", rig.PeerConfig{Send: true, Receive: true}, rig.Tone(440, -20), nil)
	h.wait("back", func() bool { connected, _ := h.onStage("ada"); return connected })
}

// An answer that nobody follows up does not hold its place for ever.
func TestNoHandshake(t *testing.T) {
	h := newHouse(t, func(c *rtc.Config) { c.Handshake = 100 * time.Millisecond })
	_, _, err := h.gate.Speak(h.ctx, h.stage, person("ada"), []byte(browser), false)
	must(t, err)
	h.wait("given up", func() bool {
		return h.count("earshot_speaker_ended_total", "no_handshake") == 1 && h.count("earshot_speaker_connections", "speaker") == 0
	})
}

// A second device hears what the person hears.
func TestMonitor(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.enter("ada", rig.PeerConfig{Send: true}, rig.Tone(440, -20), nil)
	h.enter("bo", rig.PeerConfig{Send: true, Receive: true}, rig.Tone(700, -20), nil)
	ear, err := rig.NewPeer(rig.PeerConfig{Receive: true})
	must(t, err)
	defer ear.Close()
	var id string
	must(t, ear.Dial(h.ctx, func(offer []byte) (answer []byte, err error) {
		id, answer, err = h.gate.Monitor(h.ctx, h.stage, "p_ada", offer)
		return answer, err
	}))
	h.wait("levels settled", func() bool { return h.timeline.Head() > 100+50*3 })
	r := h.hear(ear, 50)
	if other, own := rig.Goertzel(r.PCM[12000:], 700), rig.Goertzel(r.PCM[12000:], 440); other < -40 || own > -60 {
		t.Errorf("the monitor hears the other at %.1f, its owner at %.1f dBFS", other, own)
	}
	if !h.gate.End(id) {
		t.Error("the monitor is unknown")
	}
	<-ear.Down()
	h.wait("forgotten", func() bool { return h.count("earshot_speaker_connections", "monitor") == 0 })
}

// Packets that are no voice are counted and harm nobody: empty ones, as Chromium sends at the start, padding, noise that is no
// Opus, foreign payload types.
func TestBadPackets(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	bad, _ := h.enter("bad", rig.PeerConfig{Send: true, Receive: true, RED: true}, nil, nil)
	good, _ := h.enter("good", rig.PeerConfig{Send: true, Receive: true}, rig.Tone(440, -20), nil)
	noise := make([]byte, 300)
	_, _ = rand.Read(noise)
	for i := range uint16(60) {
		head := rtp.Header{SequenceNumber: i, Timestamp: uint32(i) * 960}
		switch i % 6 {
		case 0:
			must(t, bad.Write(head, nil))
		case 1:
			head.Padding, head.PaddingSize = true, 8
			must(t, bad.Write(head, nil))
		case 2:
			head.PayloadType = 111
			must(t, bad.Write(head, noise[:1+int(i)*4]))
		case 3:
			head.PayloadType = 63
			must(t, bad.Write(head, noise[:i]))
		case 4:
			head.PayloadType = 63
			must(t, bad.Write(head, []byte{0x80 | 111, 0xff, 0xff, 0xff, 111, 1, 2, 3}))
		case 5:
			head.PayloadType = 111
			must(t, bad.Write(head, make([]byte, 1200)))
		}
	}
	h.wait("all arrived", func() bool {
		return h.count("earshot_speaker_dropped_packets_total", "empty") >= 20 && h.count("earshot_speaker_dropped_packets_total", "malformed") >= 10
	})
	h.wait("levels settled", func() bool { return h.timeline.Head() > 100+50*3 })
	programme := h.programme(50)
	if level := rig.Goertzel(programme, 440); level < -40 {
		t.Errorf("the good voice is at %.1f dBFS in the programme", level)
	}
	h.hear(good, 10)
	if connected, _ := h.onStage("bad"); !connected {
		t.Error("the bad one lost the connection, which was not asked for")
	}
}

// A speaker whose reports name ever new streams is taken off.
func TestStreamsWithoutEnd(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	bad, _ := h.enter("bad", rig.PeerConfig{Send: true, Receive: true}, nil, nil)
	for n := range uint32(100) {
		if bad.WriteRTCP(&rtcp.PictureLossIndication{SenderSSRC: 1, MediaSSRC: 1000 + n}) != nil {
			break // cut already
		}
	}
	h.wait("taken off", func() bool { _, there := h.onStage("bad"); return !there })
	if n := h.count("earshot_speaker_ended_total", "flood"); n != 1 {
		t.Errorf("counted %v floods", n)
	}
}

func TestRefusals(t *testing.T) {
	h := newHouse(t)
	for name, c := range map[string]struct {
		offer string
		code  event.Code
	}{
		"empty":    {"", event.CodeInvalid},
		"garbage":  {"\x00\xff\x16\x01\x00", event.CodeInvalid},
		"html":     {"<!doctype html><p>hello", event.CodeInvalid},
		"large":    {"v=0\r\n" + strings.Repeat("a=x\r\n", 20000), event.CodeTooLarge},
		"recvonly": {strings.ReplaceAll(browser, "a=sendrecv", "a=recvonly"), event.CodeInvalid},
		"no opus":  {strings.ReplaceAll(browser, "opus/48000/2", "PCMU/8000"), event.CodeInvalid},
		"no key":   {strings.ReplaceAll(browser, "a=fingerprint", "a=nothing"), event.CodeInvalid},
		"bad key":  {strings.ReplaceAll(browser, "sha-256 ", "md4711 "), event.CodeInvalid},
	} {
		_, _, err := h.gate.Speak(h.ctx, h.stage, person("ada"), []byte(c.offer), false)
		if event.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
	if _, _, err := h.gate.Speak(h.ctx, h.stage, event.Person{ID: "p_x", Name: "X", Role: event.Listener}, []byte(browser), false); event.CodeOf(err) != event.CodeForbidden {
		t.Errorf("a listener who was not admitted: %v, want forbidden", err)
	}
	if n := h.count("earshot_speaker_connections", "speaker"); n != 0 || len(h.stage.State().People) != 0 {
		t.Errorf("%v sessions, people %v: a refused offer left something behind", n, h.stage.State().People)
	}
	if h.gate.End("guessed") {
		t.Error("a guessed id ended something")
	}
}

// Offers as other programs send them are answered: those of Chromium were recorded, the others written after what OBS, Firefox
// and ffmpeg send.
func TestForeignOffers(t *testing.T) {
	h := newHouse(t)
	files, err := filepath.Glob("../peer/testdata/offers/*.sdp")
	must(t, err)
	if len(files) < 4 {
		t.Fatalf("only %d offers in testdata", len(files))
	}
	for _, f := range files {
		offer, err := fs.ReadFile(os.DirFS(filepath.Dir(f)), filepath.Base(f))
		must(t, err)
		if !strings.Contains(string(offer), "a=send") {
			continue
		}
		id, answer, err := h.gate.Speak(h.ctx, h.stage, person(filepath.Base(f)), offer, true)
		if err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		if strings.Count(string(answer), "\r\nm=") != strings.Count(string(offer), "\nm=") || !strings.Contains(string(answer), "a=recvonly") {
			t.Errorf("%s: answered\n%s", f, answer)
		}
		if !h.gate.End(id) {
			t.Errorf("%s: no session", f)
		}
	}
}
