package stage_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"earshot/internal/event"
	"earshot/internal/mix"
	"earshot/internal/observatory"
	"earshot/internal/stage"
	"earshot/internal/timeline"
)

// house is one running stage over a real desk and a real timeline, in a synctest bubble.
type house struct {
	t   *testing.T
	st  *stage.Stage
	tl  *timeline.Timeline
	aud *observatory.Audience
	cfg stage.Config
	ran chan error
	err error // of Run, once done
}

// open starts a stage whose origin is now. It must be called in a bubble.
func open(t *testing.T, change ...func(*stage.Config)) *house {
	t.Helper()
	h := prepare(t, change...)
	h.run(t.Context())
	return h
}

func prepare(t *testing.T, change ...func(*stage.Config)) *house {
	t.Helper()
	now := time.Now()
	h := &house{t: t, aud: observatory.NewAudience(event.Count{}), ran: make(chan error, 1)}
	h.cfg = stage.Config{
		Event: event.Event{ID: "ev_1", Slug: "hall", Phase: event.Doors, Origin: now, Start: now, IdleEnd: time.Hour},
		Epoch: 1, Audience: h.aud,
	}
	for _, c := range change {
		c(&h.cfg)
	}
	var err error
	h.tl, err = timeline.New(timeline.Config{
		Origin: h.cfg.Event.Origin, First: h.cfg.First, Epoch: h.cfg.Epoch, Keep: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	h.cfg.Timeline = h.tl
	if h.st, err = stage.New(h.cfg); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *house) run(ctx context.Context) {
	go func() { h.ran <- h.st.Run(ctx) }()
}

// live opens the programme.
func live(c *stage.Config) {
	c.Event.Phase, c.Event.LiveAt = event.Live, c.Event.Origin
}

// wait gives the error of Run.
func (h *house) wait() error {
	h.t.Helper()
	select {
	case h.err = <-h.ran:
	case <-time.After(time.Minute):
		h.t.Fatal("Run does not return")
	}
	return h.err
}

// end ends the event and the bubble's last goroutines.
func (h *house) end() {
	h.t.Helper()
	h.must(h.st.Turn(h.t.Context(), event.Ended, time.Now()))
	h.must(h.wait())
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// refused checks the code of an error that people are told.
func refused(t *testing.T, err error, code event.Code) {
	t.Helper()
	var e *event.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("got %v, want an error of code %s", err, code)
	}
}

// pass lets stage time pass; half a frame off the ticks, so that it is clear what has happened when it returns.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// listener is an outlet that decodes what it hears.
type listener struct {
	mu     sync.Mutex
	dec    *mix.Decoder
	pcm    []float32 // the last second
	frames []uint64
	closed []stage.Reason
	block  chan struct{} // not nil: Hear waits for it
}

func newListener(t *testing.T) *listener {
	t.Helper()
	dec, err := mix.NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	return &listener{dec: dec}
}

func (l *listener) Hear(frame uint64, packet []byte) {
	if l.block != nil {
		<-l.block
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.frames = append(l.frames, frame)
	l.pcm = decode(l.dec, packet, l.pcm)
}

func decode(dec *mix.Decoder, packet []byte, onto []float32) []float32 {
	var buf [event.FrameSamples]float32
	n, err := dec.Decode(packet, buf[:])
	if err != nil || n != len(buf) {
		panic(fmt.Sprintf("decode: %d samples, %v", n, err))
	}
	onto = append(onto, buf[:]...)
	return onto[max(0, len(onto)-event.SampleRate):]
}

func (l *listener) Close(r stage.Reason) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = append(l.closed, r)
	if l.block != nil {
		close(l.block)
	}
}

// why gives the reason with which the outlet was closed, "" if it is open.
func (l *listener) why() stage.Reason {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch len(l.closed) {
	case 0:
		return ""
	case 1:
		return l.closed[0]
	}
	panic(fmt.Sprintf("closed %d times: %v", len(l.closed), l.closed))
}

func (l *listener) heard() []uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.frames)
}

// tone is the level in dBFS of a frequency in what was heard in the last half second.
func (l *listener) tone(freq float64) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return goertzel(l.pcm, freq)
}

func goertzel(pcm []float32, freq float64) float64 {
	pcm = pcm[max(0, len(pcm)-event.SampleRate/2):]
	if len(pcm) == 0 {
		return -120
	}
	var s1, s2 float64
	k := 2 * math.Cos(2*math.Pi*freq/event.SampleRate)
	for _, x := range pcm {
		s1, s2 = float64(x)+k*s1-s2, s1
	}
	power := (s1*s1 + s2*s2 - k*s1*s2) / (float64(len(pcm)) * float64(len(pcm)) / 4)
	return max(-120, 10*math.Log10(power+1e-12))
}

// talker is a person whose voice is a tone.
type talker struct {
	*listener
	seat *stage.Seat
	stop chan struct{}
	done chan struct{}
}

// silent joins somebody who sends nothing.
func (h *house) silent(p event.Person, hears bool) (*stage.Seat, *listener) {
	h.t.Helper()
	l := newListener(h.t)
	seat, err := h.st.Join(h.t.Context(), p, l, hears)
	h.must(err)
	return seat, l
}

// speak joins somebody and has them send a tone until hush.
func (h *house) speak(p event.Person, freq float64) *talker {
	h.t.Helper()
	seat, l := h.silent(p, true)
	t := &talker{listener: l, seat: seat, stop: make(chan struct{}), done: make(chan struct{})}
	enc, err := mix.NewEncoder(32000)
	h.must(err)
	go func() {
		defer close(t.done)
		var pcm [event.FrameSamples]float32
		out := make([]byte, 1500)
		tick := time.NewTicker(event.FrameDuration)
		defer tick.Stop()
		for i := 0; ; i++ {
			for j := range pcm {
				pcm[j] = float32(0.2 * math.Sin(2*math.Pi*freq*float64(i*len(pcm)+j)/event.SampleRate))
			}
			n, err := enc.Encode(pcm[:], out)
			if err != nil {
				panic(err)
			}
			t.seat.Push(mix.Packet{Seq: uint16(65530 + i), TS: uint32(i * event.FrameSamples), Payload: out[:n]})
			select {
			case <-t.stop:
				return
			case <-tick.C:
			}
		}
	}()
	return t
}

func (t *talker) hush() {
	close(t.stop)
	<-t.done
}

// programme decodes frames from ≤ n < to.
func (h *house) programme(from, to uint64) []float32 {
	h.t.Helper()
	dec, err := mix.NewDecoder()
	h.must(err)
	var pcm []float32
	for n := from; n < to; n++ {
		f, err := h.tl.Frame(n)
		h.must(err)
		pcm = decode(dec, f.Packet, pcm)
	}
	return pcm
}

// cues gives all cues of a kind in closed parts, in order. Without a kind, all.
func (h *house) cues(kind string) []timeline.Cue {
	h.t.Helper()
	var all []timeline.Cue
	for n := h.tl.First() / timeline.FramesPerPart; ; n++ {
		p, err := h.tl.Part(n)
		if errors.Is(err, timeline.ErrGap) {
			continue
		}
		if err != nil {
			return all
		}
		for _, c := range p.Cues {
			if kind == "" || c.Kind == kind {
				all = append(all, c)
			}
		}
	}
}

type stageCue struct {
	Phase     event.Phase `json:"phase"`
	LiveFrame *uint64     `json:"live_frame"`
	People    []struct {
		ID    string     `json:"id"`
		Name  string     `json:"name"`
		Role  event.Role `json:"role"`
		Muted *bool      `json:"muted"`
	} `json:"people"`
}

func read[T any](t *testing.T, c timeline.Cue) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(c.Data, &v); err != nil {
		t.Fatalf("cue %s at %d: %v", c.Kind, c.Frame, err)
	}
	return v
}

// person gives somebody's entry in the state.
func (h *house) person(id string) (stage.Person, bool) {
	for _, p := range h.st.State().People {
		if p.ID == id {
			return p, true
		}
	}
	return stage.Person{}, false
}

func (h *house) ids() []string {
	ids := []string{}
	for _, p := range h.st.State().People {
		ids = append(ids, p.ID)
	}
	return ids
}

var (
	ada = event.Person{ID: "p_ada", Name: "Ada", Role: event.Host}
	bo  = event.Person{ID: "p_bo", Name: "Bo", Role: event.Speaker}
	cy  = event.Person{ID: "p_cy", Name: "Cy", Role: event.Listener}
)
