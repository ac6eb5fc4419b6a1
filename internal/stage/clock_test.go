package stage_test

import (
	"errors"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"earshot/internal/event"
	"earshot/internal/stage"
	"earshot/internal/timeline"
)

func TestFramesGoByTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t)
		time.Sleep(10 * time.Millisecond)
		for range 120 {
			synctest.Wait()
			if want := h.cfg.Event.FrameAt(time.Now()) + 1; h.tl.Head() != want {
				t.Fatalf("head %d, want %d", h.tl.Head(), want)
			}
			time.Sleep(event.FrameDuration)
		}
		h.end()
		if st := h.st.Stats(); st.LateTicks != 0 || st.Gaps != 0 || st.Frames != h.tl.Head() {
			t.Errorf("stats %+v, head %d", st, h.tl.Head())
		}
	})
}

func TestAStageThatTakesOverBeginsAtItsBoundary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t, func(c *stage.Config) {
			live(c)
			c.Event.Origin = time.Now().Add(-time.Minute - 300*time.Millisecond)
			c.Event.LiveAt = c.Event.Origin.Add(10 * time.Second)
			c.First, c.Epoch = 3100, 7 // 1.7 s ahead
		})
		// It answers before it makes frames.
		_, l := h.silent(ada, true)
		pass(1690 * time.Millisecond)
		if h.tl.Head() != 3100 {
			t.Fatalf("frame %d was made early", h.tl.Head()-1)
		}
		pass(20 * time.Millisecond)
		if h.tl.Head() != 3101 {
			t.Fatalf("head %d", h.tl.Head())
		}
		pass(time.Second)
		f, err := h.tl.Frame(3100)
		if err != nil || f.Epoch != 7 {
			t.Errorf("frame %+v, %v", f, err)
		}
		cue := read[stageCue](t, h.cues("stage")[0])
		if cue.Phase != event.Live || cue.LiveFrame == nil || *cue.LiveFrame != 500 || len(cue.People) != 1 {
			t.Errorf("stage cue %+v", cue)
		}
		if heard := l.heard(); heard[0] != 3100 {
			t.Errorf("heard from %d", heard[0])
		}
		h.end()
	})
}

// stall is a wall clock whose next reading takes a while: it stops the stage as a starved machine would.
type stall struct {
	next  atomic.Int64
	ahead atomic.Int64
}

func (s *stall) now() time.Time {
	time.Sleep(time.Duration(s.next.Swap(0)))
	return time.Now().Add(time.Duration(s.ahead.Load()))
}

func TestAShortStallLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s stall
		h := open(t, live, func(c *stage.Config) { c.Wall = s.now })
		a := h.speak(ada, 500)
		pass(1990 * time.Millisecond)
		s.next.Store(int64(1500 * time.Millisecond))
		pass(1300 * time.Millisecond)
		if h.tl.Head() != 100 {
			t.Fatalf("head %d in the stall", h.tl.Head())
		}
		pass(time.Second)
		if want := h.cfg.Event.FrameAt(time.Now()) + 1; h.tl.Head() != want {
			t.Fatalf("head %d after the stall, want %d", h.tl.Head(), want)
		}
		// What Ada said in the stall is in the programme, each frame of it.
		for n := uint64(60); n < h.tl.Head()-25; n += 25 {
			if got := goertzel(h.programme(n, n+25), 500); got < present {
				t.Errorf("from frame %d the programme has her at %.1f dBFS", n, got)
			}
		}
		a.hush()
		h.end()
		st := h.st.Stats()
		if st.LateTicks < 50 || st.Gaps+st.Skipped != 0 || st.Drops.VoiceFull+st.Voices.Lost+st.Voices.Dropped != 0 {
			t.Errorf("stats %+v", st)
		}
	})
}

func TestALongStallLeavesAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s stall
		h := open(t, live, func(c *stage.Config) { c.Wall = s.now })
		_, l := h.silent(ada, true)
		pass(1990 * time.Millisecond)
		s.next.Store(int64(10 * time.Minute))
		pass(10 * time.Minute)
		pass(4 * time.Second)
		if want := h.cfg.Event.FrameAt(time.Now()) + 1; h.tl.Head() != want {
			t.Fatalf("head %d after the stall, want %d", h.tl.Head(), want)
		}
		// Frame 100 was due when the clock stood still, 30100 when it went on.
		for n, want := range map[uint64]error{99: nil, 100: timeline.ErrGap, 30199: timeline.ErrGap, 30200: nil} {
			if _, err := h.tl.Frame(n); !errors.Is(err, want) && want != nil || want == nil && n > 100 && err != nil {
				t.Errorf("frame %d: %v, want %v", n, err, want)
			}
		}
		heard := l.heard()
		if i := len(heard) - 1; heard[i]-heard[0] <= uint64(len(heard)) {
			t.Error("the outlet did not hear of the gap")
		}
		h.end()
		if st := h.st.Stats(); st.Gaps != 1 || st.Skipped != 30100 {
			t.Errorf("stats %+v", st)
		}
	})
}

func TestAMachineThatSleptFollowsTheWall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s stall
		h := open(t, func(c *stage.Config) { c.Wall = s.now })
		pass(time.Second + 10*time.Millisecond)
		// A step of less than a segment, or back, is the clock's affair and not the programme's.
		for _, ahead := range []time.Duration{1900 * time.Millisecond, -time.Hour, 0} {
			s.ahead.Store(int64(ahead))
			pass(4 * time.Second)
			if want := h.cfg.Event.FrameAt(time.Now()) + 1; h.tl.Head() != want {
				t.Fatalf("%v ahead: head %d, want %d", ahead, h.tl.Head(), want)
			}
		}
		s.ahead.Store(int64(3 * time.Hour))
		pass(4 * time.Second)
		if want := h.cfg.Event.FrameAt(time.Now().Add(3*time.Hour)) + 1; h.tl.Head() != want {
			t.Errorf("head %d, want %d", h.tl.Head(), want)
		}
		h.end()
		if st := h.st.Stats(); st.Gaps != 1 {
			t.Errorf("stats %+v", st)
		}
	})
}

func TestALateRunCatchesUpOrJumps(t *testing.T) {
	for _, c := range []struct {
		late time.Duration
		gaps uint64
	}{{time.Second, 0}, {time.Minute, 1}} {
		synctest.Test(t, func(t *testing.T) {
			h := prepare(t)
			time.Sleep(c.late)
			h.run(t.Context())
			pass(2010 * time.Millisecond)
			if want := h.cfg.Event.FrameAt(time.Now()) + 1; h.tl.Head() != want {
				t.Errorf("%v late: head %d, want %d", c.late, h.tl.Head(), want)
			}
			h.end()
			if st := h.st.Stats(); st.Gaps != c.gaps {
				t.Errorf("%v late: stats %+v", c.late, st)
			}
		})
	}
}

func TestAStageNeedsItsParts(t *testing.T) {
	now := time.Now()
	tl, err := timeline.New(timeline.Config{Origin: now})
	if err != nil {
		t.Fatal(err)
	}
	doors := event.Event{Phase: event.Doors, Origin: now}
	for name, cfg := range map[string]stage.Config{
		"no timeline":       {Event: doors},
		"no origin":         {Event: event.Event{Phase: event.Live}, Timeline: tl},
		"first not on edge": {Event: doors, Timeline: tl, First: 50},
		"no desk":           {Event: doors, Timeline: tl, First: math.MaxUint64 / 100 * 100, Mix: badMix},
	} {
		if _, err := stage.New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
