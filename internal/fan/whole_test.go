package fan_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"earshot/internal/event"
	"earshot/internal/fan"
	"earshot/internal/observatory"
	"earshot/internal/rig"
	"earshot/internal/rtc"
	"earshot/internal/stage"
	"earshot/internal/timeline"
)

// The whole way: three people speak on a real stage through one port, a WebRTC listener on the same port hears all three, and
// what a push or Ogg listener would read is the same frames.
func TestWholeWay(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	port, err := fan.Listen("127.0.0.1:0", rig.Quiet())
	must(t, err)
	defer port.Close()
	origin := time.Now()
	tl, err := timeline.New(timeline.Config{Origin: origin})
	must(t, err)
	audience := observatory.NewAudience(event.Count{})
	st, err := stage.New(stage.Config{
		Event: event.Event{Phase: event.Live, Origin: origin, LiveAt: origin, Start: origin}, Timeline: tl, Audience: audience,
	})
	must(t, err)
	var running sync.WaitGroup
	running.Go(func() {
		if err := st.Run(ctx); err != nil {
			t.Errorf("stage: %v", err)
		}
	})
	gate, err := rtc.New(rtc.Config{UDPMux: port.UDPMux(), TCPMux: port.TCPMux(), Log: rig.Quiet()})
	must(t, err)
	listeners, err := fan.New(fan.Config{Port: port, Log: rig.Quiet()})
	must(t, err)

	tones := map[string]float64{"ada": 440, "bo": 700, "cy": 1100}
	var speaking sync.WaitGroup
	for name, hz := range tones {
		p, err := rig.NewPeer(rig.PeerConfig{Send: true, Receive: true, RED: true, TCP: name == "cy"})
		must(t, err)
		defer p.Close()
		must(t, p.Dial(ctx, func(offer []byte) (answer []byte, err error) {
			_, answer, err = gate.Speak(ctx, st, event.Person{ID: name, Name: name, Role: event.Speaker}, offer, false)
			return answer, err
		}))
		speaking.Go(func() {
			if err := p.Speak(ctx, rig.Tone(hz, -20)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	ear, err := rig.NewPeer(rig.PeerConfig{RED: true, Receive: true})
	must(t, err)
	defer ear.Close()
	must(t, ear.Dial(ctx, func(offer []byte) (answer []byte, err error) {
		_, answer, err = listeners.WHEP(ctx, fan.Source{Slug: "e", Timeline: tl, Audience: audience}, offer, 0)
		return answer, err
	}))
	all := false
	for try := 0; try < 20 && !all; try++ {
		ear.Forget()
		for len(ear.Heard()) < 100 {
			select {
			case <-ctx.Done():
				t.Fatal("the listener hears nothing")
			case <-time.After(10 * time.Millisecond):
			}
		}
		r, err := rig.Decode(ear.Heard())
		must(t, err)
		all = true
		for name, hz := range tones {
			if level := rig.Goertzel(r.PCM[len(r.PCM)/2:], hz); level < -35 {
				t.Logf("try %d: %s at %.1f dBFS", try, name, level)
				all = false
			}
		}
	}
	if !all {
		t.Error("the listener does not hear all three")
	}
	// An orderly stop: the stage first, then the listeners, who are told.
	must(t, st.Finish(ctx, stage.Restart, time.Second))
	must(t, listeners.Shutdown(ctx, time.Second))
	must(t, gate.Close(ctx))
	running.Wait()
	speaking.Wait()
	select {
	case <-ear.Down():
	case <-ctx.Done():
		t.Error("the listener was not told of the end")
	}
}
