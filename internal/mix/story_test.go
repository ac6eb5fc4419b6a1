package mix_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/hraban/opus"

	"earshot/internal/mix"
)

// step is the greatest difference between two samples that follow each other.
func step(pcm []float32) (most float64) {
	for i := 1; i < len(pcm); i++ {
		most = max(most, math.Abs(float64(pcm[i]-pcm[i-1])))
	}
	return most
}

// Joining, muting, unmuting, going on and off air and leaving make no click, and what is muted is not heard.
func TestComingAndGoing(t *testing.T) {
	d := newDesk(t)
	var v *mix.Voice
	s := newSender(t, tone(300, -20))
	var sound []float32
	air := true
	spend := func(seconds float64) []float32 {
		from := len(sound)
		for range int(seconds * 50) {
			p := s.next(s.now())
			if v != nil {
				v.Push(p)
			}
			if _, err := d.Mix(p.Arrived, air); err != nil {
				t.Fatal(err)
			}
			sound = append(sound, d.PCM()...)
		}
		return sound[from:]
	}
	quiet := func(what string, pcm []float32) {
		t.Helper()
		if l := rms(pcm[4*mix.Frame:]); l > -90 {
			t.Errorf("%s: %.1f dBFS", what, l)
		}
	}
	heard := func(what string, pcm []float32) {
		t.Helper()
		if l := rms(pcm[8*mix.Frame:]); l < -24 || l > -16 {
			t.Errorf("%s: %.1f dBFS", what, l)
		}
	}
	quiet("nobody there", spend(0.5))
	v = addVoice(t, d, false)
	heard("joined", spend(1))
	if !v.Speaking() || v.Level() < -24 {
		t.Errorf("speaking %v at %.1f dBFS", v.Speaking(), v.Level())
	}
	v.SetMuted(true)
	quiet("muted", spend(1))
	if v.Speaking() || v.Level() != mix.Silence {
		t.Errorf("muted, but speaking %v at %.1f dBFS", v.Speaking(), v.Level())
	}
	if b := v.Stats().BufferMS; b > 60 {
		t.Errorf("a muted voice isn't drained: %.1f ms", b)
	}
	v.SetMuted(false)
	heard("unmuted", spend(1))
	air = false
	quiet("off air", spend(1))
	air = true
	heard("on air", spend(1))
	gone := v
	d.Remove(v)
	quiet("left", spend(0.5))
	gone.Push(s.next(0))
	if n := gone.Stats().Received; n < 200 || n > 300 {
		t.Errorf("%d packets received", n)
	}
	// A tone of 300 Hz moves by 0.0055; the fades of 10 ms add next to nothing.
	if most := step(sound); most > 0.012 {
		t.Errorf("a step of %.4f", most)
	}
}

// Silence of the sender's (DTX) isn't loss, and the voice is back at once after it.
func TestSilentSender(t *testing.T) {
	d := newDesk(t)
	v := addVoice(t, d, false)
	enc, err := opus.NewEncoder(mix.Rate, 1, opus.AppVoIP)
	if err != nil {
		t.Fatal(err)
	}
	if err := enc.SetDTX(true); err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(8, 0))
	say := speech(140, -20)
	pcm, out := make([]float32, mix.Frame), make([]byte, 1276)
	var seq uint16
	sent, unsent, resting := 0, 0, false
	var sound []float32
	for i := range 900 {
		for k := range pcm {
			if pcm[k] = float32(0.00005 * rnd.NormFloat64()); i/150%2 == 1 {
				pcm[k] = float32(say(int64(i*mix.Frame + k)))
			}
		}
		n, err := enc.EncodeFloat32(pcm, out)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Duration(i) * tick
		// One or two bytes need not be sent (RFC 6716, 2.1.9); browsers send the first of them.
		if n > 2 || !resting {
			resting = n <= 2
			v.Push(mix.Packet{Seq: seq, TS: uint32(i * mix.Frame), Payload: out[:n], Arrived: now})
			seq++
			sent++
		} else {
			unsent++
		}
		if _, err := d.Mix(now, true); err != nil {
			t.Fatal(err)
		}
		sound = append(sound, d.PCM()...)
	}
	stats := v.Stats()
	t.Logf("%d sent, %d not: %+v", sent, unsent, stats)
	if unsent < 100 {
		t.Fatalf("the encoder was silent for %d packets only", unsent)
	}
	if stats.Lost != 0 || stats.Late != 0 || stats.Dropped != 0 {
		t.Errorf("silence counts as loss: %+v", stats)
	}
	if stats.Concealed > 60 {
		t.Errorf("%d frames made up", stats.Concealed)
	}
	for _, sec := range []int{4, 5, 10, 11, 16, 17} {
		if l := rms(sound[sec*mix.Rate : (sec+1)*mix.Rate]); l < -26 {
			t.Errorf("second %d of speech is at %.1f dBFS", sec, l)
		}
	}
}

// Any duration of packet plays without a gap.
func TestPacketDurations(t *testing.T) {
	for _, ms10 := range []int{25, 50, 100, 200, 400, 600, 1200} {
		enc, err := opus.NewEncoder(mix.Rate, 1, opus.AppRestrictedLowdelay)
		if err != nil {
			t.Fatal(err)
		}
		if ms10 > 200 {
			if enc, err = opus.NewEncoder(mix.Rate, 1, opus.AppVoIP); err != nil {
				t.Fatal(err)
			}
			// SILK has frames of 40 and 60 ms; in other modes libopus puts several frames into a packet by itself.
			if err := errors.Join(enc.SetBitrate(20000), enc.SetMaxBandwidth(opus.Wideband)); err != nil {
				t.Fatal(err)
			}
		}
		d := newDesk(t)
		v := addVoice(t, d, false)
		samples := ms10 * 48 / 10
		signal := tone(500, -20)
		var seq uint16
		n := 0
		var sound []float32
		for i := range 400 {
			now := time.Duration(i) * tick
			for (n+samples)*1000 <= (i+1)*mix.Frame*1000 {
				p := packetOf(t, enc, signal, n, samples)
				n += samples
				v.Push(mix.Packet{Seq: seq, TS: uint32(n), Payload: p, Arrived: time.Duration(n) * time.Second / mix.Rate})
				seq++
			}
			if _, err := d.Mix(now+tick, true); err != nil {
				t.Fatal(err)
			}
			sound = append(sound, d.PCM()...)
		}
		stats := v.Stats()
		if stats.Lost+stats.Late+stats.Concealed+stats.Dropped+stats.Undecodable != 0 {
			t.Errorf("%.1f ms: %+v", float64(ms10)/10, stats)
		}
		if count, least := holes(sound[mix.Rate:]); count > 0 || least < -3 {
			t.Errorf("%.1f ms: %d holes, the least 20 ms is %.1f dB under the whole", float64(ms10)/10, count, least)
		}
	}
}

// packetOf makes a packet of any duration up to 120 ms: beyond 60 ms as two frames of 60 ms (RFC 6716, 3.2.4).
func packetOf(t *testing.T, enc *opus.Encoder, signal func(int64) float64, from, samples int) []byte {
	t.Helper()
	frames := 1
	if samples > 2880 {
		frames = 2
	}
	var packet []byte
	pcm, out := make([]float32, samples/frames), make([]byte, 1276)
	for f := range frames {
		for k := range pcm {
			pcm[k] = float32(signal(int64(from + f*len(pcm) + k)))
		}
		n, err := enc.EncodeFloat32(pcm, out)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case frames == 1:
			return out[:n]
		case out[0]&3 != 0:
			t.Fatalf("libopus made several frames of %d samples", len(pcm))
		case f == 0:
			packet = []byte{out[0] | 2}
			if size := n - 1; size < 252 {
				packet = append(packet, byte(size))
			} else {
				packet = append(packet, byte(252+size&3), byte((size-252-size&3)/4))
			}
		case out[0]|2 != packet[0]:
			t.Fatalf("the TOC changed from %#x to %#x", packet[0], out[0]|2)
		}
		packet = append(packet, out[1:n]...)
	}
	return packet
}

// A new source, a restarted clock, a stall, padding, copies and reordering: the voice goes on.
func TestStrangeSenders(t *testing.T) {
	second := func(s *sender, change func(i int, p mix.Packet) []mix.Packet) []mix.Packet {
		var all []mix.Packet
		for i := range 50 {
			p := s.next(s.now())
			if change == nil {
				all = append(all, p)
			} else {
				all = append(all, change(i, p)...)
			}
		}
		return all
	}
	for name, c := range map[string]struct {
		change func(i int, p mix.Packet) []mix.Packet
		check  func(s mix.VoiceStats) bool
		holes  int // windows of 20 ms, every 10 ms
	}{
		"new source": {
			func(_ int, p mix.Packet) []mix.Packet { p.Seq += 30000; p.TS += 1 << 31; return []mix.Packet{p} },
			func(s mix.VoiceStats) bool { return s.Jumps == 2 && s.Strange == 2 && s.Lost == 0 }, 20,
		},
		"clock restarted": {
			func(_ int, p mix.Packet) []mix.Packet { p.TS += 123456789; return []mix.Packet{p} },
			func(s mix.VoiceStats) bool { return s.Jumps == 2 && s.Lost == 0 && s.Concealed == 0 }, 0,
		},
		"numbers skip": {
			func(_ int, p mix.Packet) []mix.Packet { p.Seq += 400; return []mix.Packet{p} },
			func(s mix.VoiceStats) bool { return s.Received == 149 && s.Lost == 400 && s.Jumps == 1 }, 20,
		},
		"empty payloads": {
			func(i int, p mix.Packet) []mix.Packet {
				if i%5 == 0 {
					p.Payload = nil
				}
				return []mix.Packet{p}
			},
			func(s mix.VoiceStats) bool { return s.Empty == 10 && s.Lost == 0 }, 0,
		},
		"sent twice": {
			func(_ int, p mix.Packet) []mix.Packet { return []mix.Packet{p, p} },
			func(s mix.VoiceStats) bool { return s.Duplicate == 50 && s.Received == 150 && s.Lost == 0 }, 0,
		},
		"in reverse by five": {
			func(i int, p mix.Packet) []mix.Packet {
				p.Arrived += time.Duration(4-i%5*2+i%5) * tick
				return []mix.Packet{p}
			},
			func(s mix.VoiceStats) bool { return s.Received+s.Late == 150 && s.Concealed < 40 }, 12,
		},
		"a stall of half a second": {
			func(i int, p mix.Packet) []mix.Packet {
				if i < 25 {
					p.Arrived += time.Duration(25-i) * tick
				}
				return []mix.Packet{p}
			},
			func(s mix.VoiceStats) bool { return s.BufferMS < 230 && s.BufferMS > 0 }, 60,
		},
		"garbage": {
			func(i int, p mix.Packet) []mix.Packet {
				if i%10 == 0 {
					p.Payload = []byte{0x7b, 0xff, 0xff, 1}
				}
				return []mix.Packet{p}
			},
			func(s mix.VoiceStats) bool { return s.Undecodable == 5 && s.Lost == 5 }, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			v := addVoice(t, d, false)
			s := newSender(t, tone(500, -20))
			n := &network{rnd: rand.New(rand.NewPCG(1, 0))}
			for _, p := range append(append(second(s, nil), second(s, c.change)...), second(s, nil)...) {
				n.send(p)
			}
			var sound []float32
			for i := range 150 {
				now := time.Duration(i)*tick + time.Millisecond
				n.deliver(v, now)
				if _, err := d.Mix(now, true); err != nil {
					t.Fatal(err)
				}
				sound = append(sound, d.PCM()...)
			}
			stats := v.Stats()
			count, least := holes(sound[mix.Rate/2:])
			t.Logf("%d holes, least %.1f dB, step %.3f, %+v", count, least, step(sound), stats)
			if !c.check(stats) {
				t.Errorf("%+v", stats)
			}
			if count > c.holes {
				t.Errorf("%d holes", count)
			}
			if most := step(sound); most > 0.02 { // the tone itself moves by 0.01
				t.Errorf("a step of %.3f", most)
			}
			if l := rms(sound[len(sound)-mix.Rate/4:]); l < -23 {
				t.Errorf("the voice ends at %.1f dBFS", l)
			}
		})
	}
}

// Ten times as many packets as there should be: what is held stays bounded, each is counted, and a frame still takes its time.
func TestFlood(t *testing.T) {
	for name, ts := range map[string]uint32{"times run on": mix.Frame, "times stand still": 0} {
		d := newDesk(t)
		v := addVoice(t, d, false)
		s := newSender(t, tone(500, -20))
		s.loop = 50
		var at uint32
		const frames = 500
		for i := range frames {
			now := time.Duration(i) * tick
			for range 10 {
				p := s.next(now)
				p.TS = at
				at += ts
				v.Push(p)
			}
			if _, err := d.Mix(now, true); err != nil {
				t.Fatal(err)
			}
			if b := v.Stats().BufferMS; b > 1000 && ts > 0 {
				t.Fatalf("%s: the delay is %.0f ms in frame %d", name, b, i)
			}
		}
		stats := v.Stats()
		t.Logf("%s: %+v", name, stats)
		if stats.Received != frames*10 || stats.Dropped < frames*8 {
			t.Errorf("%s: of %d packets %d were received and %d dropped", name, frames*10, stats.Received, stats.Dropped)
		}
	}
}
