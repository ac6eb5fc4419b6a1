package stage_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"earshot/internal/event"
	"earshot/internal/mix"
	"earshot/internal/stage"
)

const (
	present = -40.0 // dBFS: a tone that is heard
	absent  = -60.0 // one that is not
)

func TestTwoSpeakersHearEachOtherAndTheProgrammeOnlyWhenLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t)
		a, b := h.speak(ada, 500), h.speak(bo, 1300)
		pass(2*time.Second + 10*time.Millisecond)

		for _, c := range []struct {
			who          string
			in           *listener
			hears, spoke float64
		}{{"Ada", a.listener, 1300, 500}, {"Bo", b.listener, 500, 1300}} {
			if got := c.in.tone(c.hears); got < present {
				t.Errorf("%s hears the other at %.1f dBFS", c.who, got)
			}
			if got := c.in.tone(c.spoke); got > absent {
				t.Errorf("%s hears themself at %.1f dBFS", c.who, got)
			}
		}
		head := h.tl.Head()
		for _, f := range []float64{500, 1300} {
			if got := goertzel(h.programme(head-50, head), f); got > absent {
				t.Errorf("the doors are open, and the programme has %.0f Hz at %.1f dBFS", f, got)
			}
		}
		if got := h.cues("levels"); len(got) != 0 {
			t.Errorf("levels %s of a silent programme", got[0].Data)
		}
		if p := h.st.State().Programme; p > -80 {
			t.Errorf("programme level %.1f with only the doors open", p)
		}

		liveAt := time.Now()
		h.must(h.st.Turn(t.Context(), event.Live, liveAt))
		opened := h.tl.Head()
		pass(time.Second)
		head = h.tl.Head()
		for _, f := range []float64{500, 1300} {
			if got := goertzel(h.programme(head-40, head), f); got < present {
				t.Errorf("live, and the programme has %.0f Hz at %.1f dBFS", f, got)
			}
		}
		st := h.st.State()
		if st.Phase != event.Live || !st.LiveAt.Equal(liveAt) || st.Programme < -40 {
			t.Errorf("state %+v", st)
		}
		for _, p := range st.People {
			if p.Level < -40 || !p.Connected || p.Muted != "" {
				t.Errorf("person %+v", p)
			}
		}
		levels := h.st.Levels()
		if len(levels) != 3 || levels[ada.ID] < -40 || levels[""] != st.Programme {
			t.Errorf("levels %v", levels)
		}
		end := last(h.cues("stage"))
		cue := read[stageCue](t, end)
		if cue.Phase != event.Live || cue.LiveFrame == nil || *cue.LiveFrame != opened {
			t.Errorf("stage cue %s, live from frame %d", end.Data, opened)
		}
		cues := h.cues("levels")
		if len(cues) == 0 {
			t.Fatal("no levels")
		}
		for _, c := range cues {
			if got := read[map[string]float64](t, c); len(got) != 2 || got[ada.ID] < -60 || got[bo.ID] < -60 || c.Frame%10 != 9 {
				t.Errorf("levels at frame %d: %s", c.Frame, c.Data)
			}
		}

		a.hush()
		b.hush()
		h.end()
		if a.why() != stage.Ended || b.why() != stage.Ended {
			t.Errorf("outlets were told %q and %q", a.why(), b.why())
		}
		if v := h.st.Stats().Voices; v.Received == 0 || v.Undecodable != 0 || v.Late != 0 || v.Duplicate != 0 {
			t.Errorf("voices %+v", v)
		}
	})
}

func TestAMutedVoiceIsHeardByNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t, live)
		a, b := h.speak(ada, 500), h.speak(bo, 1300)
		pass(time.Second + 10*time.Millisecond)
		h.must(h.st.Mute(t.Context(), bo.ID, stage.ByHost, true))
		pass(time.Second)
		head := h.tl.Head()
		if got := a.tone(1300); got > absent {
			t.Errorf("Ada hears the muted one at %.1f dBFS", got)
		}
		if got := goertzel(h.programme(head-40, head), 1300); got > absent {
			t.Errorf("the programme has the muted one at %.1f dBFS", got)
		}
		if got := b.tone(500); got < present {
			t.Errorf("the muted one hears Ada at %.1f dBFS", got)
		}
		if p, _ := h.person(bo.ID); p.Muted != stage.ByHost || p.Level != -90 || p.Speaking {
			t.Errorf("muted: %+v", p)
		}
		if got := read[map[string]float64](t, last(h.cues("levels"))); len(got) != 1 || got[ada.ID] == 0 {
			t.Errorf("levels %v, want Ada's alone", got)
		}
		h.must(h.st.Mute(t.Context(), bo.ID, stage.ByHost, false))
		pass(time.Second)
		if got := a.tone(1300); got < present {
			t.Errorf("unmuted, Ada hears Bo at %.1f dBFS", got)
		}
		a.hush()
		b.hush()
		h.end()
	})
}

func TestANewerSeatDisplacesTheOlder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t, live)
		a, old := h.speak(ada, 500), h.speak(bo, 1300)
		pass(500*time.Millisecond + 10*time.Millisecond)
		h.must(h.st.Mute(t.Context(), bo.ID, stage.BySelf, true))
		pass(200 * time.Millisecond)
		before := h.st.Stats().Voices.Received
		renamed := bo
		renamed.Name = "Bob"
		fresh := h.speak(renamed, 2100)
		pass(800 * time.Millisecond)
		if got := a.tone(2100); got > absent {
			t.Errorf("Ada hears the newer seat of a muted person at %.1f dBFS", got)
		}
		if got := h.st.Stats().Voices.Received; got < before+70 {
			t.Errorf("%d packets were received, and now %d: the older voice's are forgotten", before, got)
		}
		if old.why() != stage.Displaced || fresh.why() != "" {
			t.Errorf("older %q, newer %q", old.why(), fresh.why())
		}
		if p, _ := h.person(bo.ID); p.Muted != stage.BySelf || p.Name != "Bob" || !p.Connected {
			t.Errorf("displaced %+v", p)
		}
		if got := h.ids(); !slices.Equal(got, []string{ada.ID, bo.ID}) {
			t.Errorf("people %v", got)
		}
		h.must(h.st.Mute(t.Context(), bo.ID, stage.BySelf, false))
		pass(time.Second)
		if on, off := a.tone(2100), a.tone(1300); on < present || off > absent {
			t.Errorf("Ada hears the newer seat at %.1f and the older at %.1f dBFS", on, off)
		}
		n := len(old.heard())
		// What the older seat still says is nothing to the newer.
		old.seat.Lost()
		old.seat.Leave(stage.Left)
		pass(time.Second)
		if p, _ := h.person(bo.ID); !p.Connected || fresh.why() != "" {
			t.Errorf("the older seat took the newer one with it: %+v, %q", p, fresh.why())
		}
		if len(old.heard()) != n {
			t.Error("the older outlet still hears")
		}
		for _, v := range []*talker{a, old, fresh} {
			v.hush()
		}
		h.end()
		if h.st.Stats().Drops.VoiceAfter == 0 {
			t.Error("packets of the displaced seat are not counted")
		}
	})
}

func TestALostConnectionKeepsPlaceAndMuteForGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t, live)
		first, l := h.silent(ada, false)
		_, _ = h.silent(bo, false)
		h.must(h.st.Mute(t.Context(), ada.ID, stage.ByHost, true))
		pass(10 * time.Millisecond)
		changed := h.st.Changed()
		first.Lost()
		pass(stage.Grace - time.Second)
		select {
		case <-changed:
		default:
			t.Error("nobody was told")
		}
		if p, ok := h.person(ada.ID); !ok || p.Connected || p.Muted != stage.ByHost || l.why() != stage.Lost {
			t.Fatalf("lost: %+v, outlet %q", p, l.why())
		}
		second, l2 := h.silent(ada, false)
		if got := h.ids(); !slices.Equal(got, []string{ada.ID, bo.ID}) {
			t.Errorf("order %v", got)
		}
		pass(2 * time.Second)
		if p, _ := h.person(ada.ID); !p.Connected || p.Muted != stage.ByHost {
			t.Errorf("back: %+v", p)
		}
		second.Lost()
		pass(stage.Grace - 100*time.Millisecond)
		if !h.st.Has(ada.ID) {
			t.Error("gone before the grace was over")
		}
		pass(200 * time.Millisecond)
		if h.st.Has(ada.ID) || l2.why() != stage.Lost {
			t.Errorf("still there after the grace, outlet %q", l2.why())
		}
		// What a host muted stays so, or leaving would be a way around it.
		_, _ = h.silent(ada, false)
		if p, _ := h.person(ada.ID); p.Muted != stage.ByHost {
			t.Errorf("came back as %+v", p)
		}
		var codes []string
		for _, c := range h.cues("notice") {
			codes = append(codes, read[struct{ Code string }](t, c).Code)
		}
		if !slices.Equal(codes, []string{"host_lost", "host_lost"}) {
			t.Errorf("notices %v", codes)
		}
		h.end()
	})
}

func TestAMonitorHearsWhatItsPersonHears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t)
		a := h.speak(ada, 500)
		// Bo sends by WHIP, which carries nothing back.
		seat, deaf := h.silent(bo, false)
		mon := newListener(t)
		_, err := h.st.Monitor(t.Context(), "p_nobody", mon)
		refused(t, err, event.CodeNotFound)
		stop, err := h.st.Monitor(t.Context(), bo.ID, mon)
		h.must(err)
		pass(time.Second + 10*time.Millisecond)
		if got := mon.tone(500); got < present {
			t.Errorf("the monitor hears Ada at %.1f dBFS", got)
		}
		if len(deaf.heard()) != 0 {
			t.Error("an outlet that did not want to hear hears")
		}
		// It outlives the connection that it belongs to.
		seat.Lost()
		pass(time.Second)
		seat, _ = h.silent(bo, false)
		pass(time.Second)
		frames := mon.heard()
		for i, n := range frames[1:] {
			if n != frames[i]+1 {
				t.Fatalf("the monitor misses frames between %d and %d", frames[i], n)
			}
		}
		if head := h.tl.Head(); frames[len(frames)-1] != head-1 {
			t.Errorf("the monitor is at frame %d, the head at %d", frames[len(frames)-1], head)
		}
		stop()
		stop()
		pass(20 * time.Millisecond)
		n := len(mon.heard())
		pass(time.Second)
		if mon.why() != stage.Left || len(mon.heard()) != n {
			t.Errorf("stopped: %q", mon.why())
		}

		second := newListener(t)
		_, err = h.st.Monitor(t.Context(), bo.ID, second)
		h.must(err)
		for range stage.MaxMonitors - 1 {
			_, err = h.st.Monitor(t.Context(), bo.ID, newListener(t))
			h.must(err)
		}
		_, err = h.st.Monitor(t.Context(), bo.ID, newListener(t))
		refused(t, err, event.CodeBusy)
		seat.Leave(stage.Left)
		pass(20 * time.Millisecond)
		if second.why() != stage.Left {
			t.Errorf("its person left, and the monitor was told %q", second.why())
		}
		a.hush()
		h.end()
	})
}

func TestAStuckOutletDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t)
		a := h.speak(ada, 500)
		stuck := newListener(t)
		stuck.block = make(chan struct{})
		_, err := h.st.Join(t.Context(), bo, stuck, true)
		h.must(err)
		begin := h.tl.Head()
		pass(2 * time.Second)
		if made := h.tl.Head() - begin; made != 100 {
			t.Errorf("%d frames in two seconds", made)
		}
		if n := len(a.heard()); n < 99 {
			t.Errorf("Ada heard %d frames", n)
		}
		pass(200 * time.Millisecond)
		st := h.st.Stats()
		// Of about 110 frames, one is in the outlet's hands and three at most wait.
		if d := st.Drops.OutletSlow; d < 90 || d > 110 {
			t.Errorf("%d frames were dropped", d)
		}
		if st.LateTicks != 0 || st.Gaps != 0 {
			t.Errorf("stats %+v", st)
		}
		h.must(h.st.Remove(t.Context(), bo.ID))
		pass(20 * time.Millisecond)
		if stuck.why() != stage.Removed {
			t.Errorf("told %q", stuck.why())
		}
		a.hush()
		h.end()
	})
}

func TestASeatDropsTheOldestAndWhatIsNoVoice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t)
		seat, _ := h.silent(ada, false)
		pass(10 * time.Millisecond)
		for i := range 128 + 7 {
			seat.Push(mix.Packet{Seq: uint16(i), TS: uint32(i * 960), Payload: []byte{0xf8, 0xff, 0xfe}})
		}
		seat.Push(mix.Packet{Seq: 900, Payload: make([]byte, 1501)})
		seat.Push(mix.Packet{Seq: 135, TS: 135 * 960})                            // empty, as browsers probe with
		seat.Push(mix.Packet{Seq: 136, TS: 136 * 960, Payload: []byte{0x03}})     // a frame count byte is missing
		seat.Push(mix.Packet{Seq: 137, TS: 137 * 960, Payload: make([]byte, 10)}) // decodes to something
		pass(2 * time.Second)
		st := h.st.Stats()
		if d := st.Drops; d.VoiceFull != 10 || d.VoiceOversize != 1 {
			t.Errorf("drops %+v", d)
		}
		if v := st.Voices; v.Empty != 1 || v.Undecodable != 1 || v.Received == 0 {
			t.Errorf("voices %+v", v)
		}
		sum := uint64(0)
		for reason, n := range st.Drops.All() {
			if reason == "" {
				t.Error("a reason without a name")
			}
			sum += n
		}
		if sum != 11 {
			t.Errorf("all drops are %d", sum)
		}
		h.end()
	})
}

func last[T any](s []T) T { return s[len(s)-1] }
