package rtc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/logging"
	"github.com/prometheus/client_golang/prometheus"

	"earshot/internal/event"
	"earshot/internal/rig"
	"earshot/internal/rtc"
	"earshot/internal/stage"
	"earshot/internal/timeline"
)

// house is a live stage with a gate on a port of its own.
type house struct {
	t        testing.TB
	ctx      context.Context
	stage    *stage.Stage
	timeline *timeline.Timeline
	gate     *rtc.Gate
	port     netip.AddrPort
	reg      *prometheus.Registry
}

func newHouse(t testing.TB, change ...func(*rtc.Config)) *house {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	origin := time.Now().Add(-time.Second)
	tl, err := timeline.New(timeline.Config{Origin: origin, First: 100})
	must(t, err)
	st, err := stage.New(stage.Config{
		Event:    event.Event{Phase: event.Live, Origin: origin, LiveAt: origin, Start: origin},
		Timeline: tl, First: 100,
	})
	must(t, err)
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	quiet := logging.NewDefaultLoggerFactory()
	quiet.Writer = io.Discard
	mux := ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: conn, Logger: quiet.NewLogger("mux")})
	h := &house{
		t: t, ctx: ctx, stage: st, timeline: tl, port: conn.LocalAddr().(*net.UDPAddr).AddrPort(), reg: prometheus.NewRegistry(),
	}
	cfg := rtc.Config{UDPMux: mux, Log: rig.Quiet(), Registerer: h.reg}
	for _, c := range change {
		c(&cfg)
	}
	h.gate, err = rtc.New(cfg)
	must(t, err)
	var running sync.WaitGroup
	running.Go(func() {
		if err := st.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("stage: %v", err)
		}
	})
	t.Cleanup(func() {
		must(t, h.gate.Close(ctx))
		cancel()
		running.Wait()
		_ = mux.Close()
	})
	return h
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// enter connects a speaker who says the signal until the test ends. Relay may be nil.
func (h *house) enter(name string, cfg rig.PeerConfig, signal rig.Signal, relay *rig.Impair) (p *rig.Peer, id string) {
	h.t.Helper()
	p, err := rig.NewPeer(cfg)
	must(h.t, err)
	must(h.t, p.Dial(h.ctx, func(offer []byte) ([]byte, error) {
		var answer []byte
		var err error
		id, answer, err = h.gate.Speak(h.ctx, h.stage, person(name), offer, !cfg.Receive)
		if err == nil && relay != nil {
			answer = relay.Rewrite(answer)
		}
		return answer, err
	}))
	ctx, cancel := context.WithCancel(h.ctx)
	var speaking sync.WaitGroup
	if signal != nil {
		speaking.Go(func() {
			if err := p.Speak(ctx, signal); err != nil {
				h.t.Errorf("%s speaks: %v", name, err)
			}
		})
	}
	h.t.Cleanup(func() {
		cancel()
		speaking.Wait()
		_ = p.Close()
	})
	return p, id
}

func person(name string) event.Person {
	return event.Person{ID: "p_" + name, Name: name, Role: event.Speaker}
}

// wait polls until ok, or fails the test.
func (h *house) wait(what string, ok func() bool) {
	h.t.Helper()
	for !ok() {
		select {
		case <-h.ctx.Done():
			h.t.Fatalf("waited in vain: %s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// hear forgets what p heard and gives the next so many frames.
func (h *house) hear(p *rig.Peer, frames int) rig.Recording {
	h.t.Helper()
	p.Forget()
	h.wait("frames heard", func() bool { return len(p.Heard()) >= frames })
	r, err := rig.Decode(p.Heard())
	must(h.t, err)
	return r
}

func (h *house) count(metric, label string) float64 {
	h.t.Helper()
	families, err := h.reg.Gather()
	must(h.t, err)
	for _, f := range families {
		if f.GetName() != metric {
			continue
		}
		for _, m := range f.GetMetric() {
			if label == "" || len(m.GetLabel()) > 0 && m.GetLabel()[0].GetValue() == label {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	h.t.Fatalf("no metric %s %s", metric, label)
	return 0
}

func (h *house) onStage(name string) (connected, there bool) {
	for _, p := range h.stage.State().People {
		if p.ID == "p_"+name {
			return p.Connected, true
		}
	}
	return false, false
}

// Each of three speakers hears the two others and not themself, the programme has all three.
func TestMixMinus(t *testing.T) {
	h := newHouse(t)
	hz := map[string]float64{"ada": 440, "bo": 700, "cy": 1100}
	peers := map[string]*rig.Peer{}
	for name, f := range hz {
		peers[name], _ = h.enter(name, rig.PeerConfig{Send: true, Receive: true, RED: name == "bo", NACK: name == "cy"}, rig.Tone(f, -20), nil)
	}
	// On a busy machine a second may be full of holes, so there are several tries to hear the others. Oneself is never heard.
	for name, p := range peers {
		h.try(10, func() (complaints []string) {
			r := h.hear(p, 50)
			for other, f := range hz {
				level := rig.Goertzel(r.PCM[len(r.PCM)/4:], f)
				if other == name && level > -60 {
					t.Errorf("%s hears themself at %.1f dBFS", name, level)
				}
				if other != name && level < -35 {
					complaints = append(complaints, fmt.Sprintf("%s hears %s at %.1f dBFS", name, other, level))
				}
			}
			if holes := rig.Holes(r.PCM[len(r.PCM)/4:], -50, 480); len(holes) > 0 {
				complaints = append(complaints, fmt.Sprintf("%s hears holes: %v", name, holes))
			}
			return complaints
		})
	}
	h.try(10, func() (complaints []string) {
		programme := h.programme(50)
		for name, f := range hz {
			if level := rig.Goertzel(programme, f); level < -35 {
				complaints = append(complaints, fmt.Sprintf("the programme has %s at %.1f dBFS", name, level))
			}
		}
		return complaints
	})
	if n := h.count("earshot_speaker_connections", "speaker"); n != 3 {
		t.Errorf("%v sessions are open, want 3", n)
	}
}

// try asks up to n times, a second apart, and fails with the last complaints.
func (h *house) try(n int, ask func() (complaints []string)) {
	h.t.Helper()
	for ; ; n-- {
		complaints := ask()
		if len(complaints) == 0 {
			return
		}
		if n == 1 {
			h.t.Error(strings.Join(complaints, "; "))
			return
		}
		head := h.timeline.Head()
		h.wait("another second", func() bool { return h.timeline.Head() >= head+50 })
	}
}

// programme decodes the last so many frames.
func (h *house) programme(frames uint64) []float32 {
	h.t.Helper()
	return decode(h.t, h.timeline, h.timeline.Head()-frames, h.timeline.Head())
}

func decode(t testing.TB, tl *timeline.Timeline, from, to uint64) []float32 {
	t.Helper()
	var heard []rig.Heard
	for n := from; n < to; n++ {
		f, err := tl.Frame(n)
		must(t, err)
		heard = append(heard, rig.Heard{Seq: uint16(n), TS: timeline.RTPTime(n), Payload: f.Packet})
	}
	r, err := rig.Decode(heard)
	must(t, err)
	return r.PCM
}

func TestWHIPAnswersRecvonly(t *testing.T) {
	h := newHouse(t)
	p, err := rig.NewPeer(rig.PeerConfig{Send: true, Video: true})
	must(t, err)
	defer p.Close()
	offer, err := p.Offer(h.ctx)
	must(t, err)
	_, answer, err := h.gate.Speak(h.ctx, h.stage, person("obs"), offer, true)
	must(t, err)
	sdp := string(answer)
	audio, video, ok := strings.Cut(sdp, "m=video")
	if !ok || !strings.HasPrefix(video, " 0 ") {
		t.Fatalf("video is not rejected by port 0:\n%s", sdp)
	}
	for _, want := range []string{
		"a=ice-lite", "a=recvonly", "a=setup:passive", "a=rtcp-mux", "opus/48000/2", "useinbandfec=1", "stereo=0",
		"a=candidate:", "a=end-of-candidates",
	} {
		if !strings.Contains(audio, want) {
			t.Errorf("the answer's audio lacks %q", want)
		}
	}
	for _, no := range []string{"a=sendrecv", "a=sendonly"} {
		if strings.Contains(sdp, no) {
			t.Errorf("the answer says %q", no)
		}
	}
	if t.Failed() {
		t.Log(sdp)
	}
	must(t, p.Accept(h.ctx, answer))
}
