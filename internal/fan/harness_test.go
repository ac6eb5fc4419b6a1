package fan_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"earshot/internal/event"
	"earshot/internal/fan"
	"earshot/internal/mix"
	"earshot/internal/observatory"
	"earshot/internal/radio"
	"earshot/internal/rig"
	"earshot/internal/timeline"
)

// house is a timeline that grows by the clock, with a tone on it, and a fan that serves it over HTTP.
type house struct {
	t        testing.TB
	ctx      context.Context
	halt     chan struct{} // closed by pause
	port     *fan.Port
	fan      *fan.Fan
	timeline *timeline.Timeline
	audience *observatory.Audience
	reg      *prometheus.Registry
	web      *httptest.Server
	packets  [][]byte // one second of the tone, over and over
	next     uint64   // owned by grow
	growing  sync.WaitGroup
}

const toneHz = 440

func newHouse(t testing.TB, change ...func(*fan.Config)) *house {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	port, err := fan.Listen("127.0.0.1:0", rig.Quiet())
	must(t, err)
	h := &house{
		t: t, ctx: ctx, halt: make(chan struct{}), port: port, reg: prometheus.NewRegistry(),
		audience: observatory.NewAudience(event.Count{}), next: 100,
	}
	origin := time.Now().Add(-6 * time.Second)
	h.timeline, err = timeline.New(timeline.Config{Origin: origin, First: 100, Epoch: 3})
	must(t, err)
	cfg := fan.Config{Port: port, Log: rig.Quiet(), Registerer: h.reg}
	for _, c := range change {
		c(&cfg)
	}
	h.fan, err = fan.New(cfg)
	must(t, err)
	src := fan.Source{Slug: "demo", Timeline: h.timeline, Audience: h.audience}
	routes := http.NewServeMux()
	for path, serve := range map[string]func(http.ResponseWriter, *http.Request, fan.Source) error{
		"/live": h.fan.ServeLive, "/live.mp4": h.fan.ServeMP4, "/live.ogg": h.fan.ServeOgg, "/cues": h.fan.ServeCues,
		"/live.aac": h.radio(radio.AAC), "/live.mp3": h.radio(radio.MP3),
	} {
		routes.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if err := serve(w, r, src); err != nil {
				e, _ := errors.AsType[*event.Error](err)
				w.Header().Set("Content-Type", "application/problem+json")
				if e == nil {
					e = event.Unavailable(err.Error(), err)
				}
				w.WriteHeader(map[event.Code]int{event.CodeInvalid: 422, event.CodeConflict: 409, event.CodeBusy: 429, event.CodeUnavailable: 503}[e.Code])
				_ = json.NewEncoder(w).Encode(map[string]string{"code": string(e.Code), "detail": e.Message})
			}
		})
	}
	h.web = httptest.NewServer(routes)
	enc, err := mix.NewEncoder(0)
	must(t, err)
	pcm, buf, tone := make([]float32, 960), make([]byte, 1500), rig.Tone(toneHz, -20)
	for n := range int64(50) { // 440 Hz repeats after a second
		tone(n*960, pcm)
		k, err := enc.Encode(pcm, buf)
		must(t, err)
		h.packets = append(h.packets, append([]byte(nil), buf[:k]...))
	}
	h.append(200) // four seconds are there when listeners come
	h.growing.Go(h.grow)
	t.Cleanup(func() {
		h.stop(true)
		stop, done := context.WithTimeout(context.Background(), 20*time.Second)
		defer done()
		if err := h.fan.Shutdown(stop, 0); err != nil {
			t.Error(err)
		}
		h.web.Close()
		_ = port.Close()
		cancel()
	})
	return h
}

// append makes n frames, each part's first with a cue of levels, each segment's first with the stage.
func (h *house) append(n int) {
	for range n {
		var cues []timeline.Cue
		if h.next%100 == 0 {
			cues = append(cues, timeline.Cue{Kind: "stage", Data: json.RawMessage(`{"phase":"live","people":[{"id":"p_a","name":"Ada"}]}`)})
		}
		if h.next%10 == 0 {
			cues = append(cues, timeline.Cue{Kind: "levels", Data: json.RawMessage(`{"p_a":-20}`)})
		}
		if err := h.timeline.Append(timeline.Frame{Number: h.next, Epoch: 3, Packet: h.packets[h.next%50]}, cues...); err != nil {
			h.t.Error(err)
			return
		}
		h.next++
	}
}

func (h *house) grow() {
	begun, first := time.Now(), h.next
	for {
		select {
		case <-h.halt:
			return
		case <-time.After(time.Until(begun.Add(time.Duration(h.next-first+1) * 20 * time.Millisecond))):
			h.append(1)
		}
	}
}

// pause stops the clock.
func (h *house) pause() {
	select {
	case <-h.halt:
	default:
		close(h.halt)
	}
	h.growing.Wait()
}

// stop ends the growing, and the timeline for good or for now.
func (h *house) stop(ended bool) {
	h.pause()
	if ended {
		h.timeline.End()
	} else {
		h.timeline.Close()
	}
}

func (h *house) wait(what string, ok func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(40 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatalf("waited in vain: %s", what)
		}
	}
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
			if len(m.GetLabel()) > 0 && m.GetLabel()[0].GetValue() == label {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	h.t.Fatalf("no metric %s %s", metric, label)
	return 0
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
