package observatory_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"earshot/internal/event"
	"earshot/internal/observatory"
)

var t0 = time.Date(2026, 11, 28, 18, 0, 0, 0, time.UTC)

func TestAudience(t *testing.T) {
	a := observatory.NewAudience(event.Count{Now: 7, Peak: 2, TunedIn: 30})
	check := func(when time.Duration, want event.Count) {
		t.Helper()
		if got, _ := a.Sweep(t0.Add(when)); got != want {
			t.Errorf("after %v: %+v, want %+v", when, got, want)
		}
	}
	check(0, event.Count{Now: 0, Peak: 2, TunedIn: 30})

	attached := a.Join(observatory.Push) // connected, but took nothing
	check(time.Second, event.Count{Now: 0, Peak: 2, TunedIn: 30})

	attached.Took(t0.Add(time.Second))
	web := a.Join(observatory.WHEP)
	web.Took(t0.Add(time.Second))
	a.Seen("player", observatory.HLS, t0.Add(time.Second))
	a.Seen("player", observatory.HLS, t0.Add(2*time.Second))
	check(2*time.Second, event.Count{Now: 3, Peak: 3, TunedIn: 33})

	a.Leave(web)
	check(3*time.Second, event.Count{Now: 2, Peak: 3, TunedIn: 33})

	// Ten seconds without audio, and neither listens; the connection that takes audio again does, and is no newcomer.
	check(13*time.Second, event.Count{Now: 0, Peak: 3, TunedIn: 33})
	attached.Took(t0.Add(14 * time.Second))
	check(14*time.Second, event.Count{Now: 1, Peak: 3, TunedIn: 33})

	// Somebody who came and went between two counts was there.
	brief := a.Join(observatory.Ogg)
	brief.Took(t0.Add(14 * time.Second))
	a.Leave(brief)
	check(14*time.Second, event.Count{Now: 1, Peak: 3, TunedIn: 34})
}

// The listeners of other nodes count while those nodes speak, and tuned in once.
func TestAudienceElsewhere(t *testing.T) {
	a := observatory.NewAudience(event.Count{TunedIn: 100})
	l := a.Join(observatory.Push)
	check := func(when time.Duration, want event.Count) {
		t.Helper()
		now := t0.Add(when)
		l.Took(now)
		got, by := a.Sweep(now)
		if got != want {
			t.Errorf("after %v: %+v, want %+v", when, got, want)
		}
		if sum := by[observatory.Push]; sum != 1 {
			t.Errorf("after %v: %d here", when, sum)
		}
	}
	a.Elsewhere("n_1.a", 20, 25, t0)
	a.Elsewhere("n_2.b", 7, 7, t0.Add(2*time.Second))
	check(2*time.Second, event.Count{Now: 28, Peak: 28, TunedIn: 133})
	a.Elsewhere("n_2.b", 5, 9, t0.Add(4*time.Second))
	check(4*time.Second, event.Count{Now: 26, Peak: 28, TunedIn: 135})
	check(10*time.Second, event.Count{Now: 26, Peak: 28, TunedIn: 135})
	check(11*time.Second, event.Count{Now: 6, Peak: 28, TunedIn: 135}) // n_1 is silent
	a.Elsewhere("n_1.a", 21, 26, t0.Add(12*time.Second))               // and speaks again: one more tuned in meanwhile
	a.Elsewhere("n_2.c", 1, 1, t0.Add(12*time.Second))                 // n_2 was started again, and begins from zero
	check(12*time.Second, event.Count{Now: 28, Peak: 28, TunedIn: 137})
	check(30*time.Second, event.Count{Now: 1, Peak: 28, TunedIn: 137})
}

// Names that somebody makes up are bounded, and make room when they are old.
func TestAudienceElsewhereIsBounded(t *testing.T) {
	a := observatory.NewAudience(event.Count{})
	for i := range 5000 {
		a.Elsewhere(fmt.Sprint(i), 1, 1, t0)
	}
	if n, _ := a.Sweep(t0); n.Now != 4096 {
		t.Errorf("%d nodes are counted", n.Now)
	}
	a.Elsewhere("late", 5, 5, t0.Add(2*time.Hour))
	if n, _ := a.Sweep(t0.Add(2 * time.Hour)); n.Now != 5 {
		t.Errorf("two hours later: %+v", n)
	}
}

func TestAudienceByRung(t *testing.T) {
	a := observatory.NewAudience(event.Count{})
	for i, r := range observatory.Rungs {
		for range i + 1 {
			a.Join(r).Took(t0)
		}
	}
	_, by := a.Sweep(t0)
	for i, r := range observatory.Rungs {
		if by[r] != i+1 {
			t.Errorf("%s: %d, want %d", r, by[r], i+1)
		}
	}
}

func TestAudienceTogether(t *testing.T) {
	a := observatory.NewAudience(event.Count{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 500 {
				l := a.Join(observatory.WHEP)
				l.Took(t0)
				a.Seen(fmt.Sprint(i, j), observatory.HLS, t0)
				a.Sweep(t0)
				a.Leave(l)
			}
		})
	}
	wg.Wait()
	got, _ := a.Sweep(t0)
	if got.TunedIn != 8*500*2 || got.Now != 8*500 {
		t.Errorf("%+v, want 8000 tuned in and 4000 now", got)
	}
}

// Taking audio is on every listener's path: it must stay one store.
func TestTookAllocatesNothing(t *testing.T) {
	l := observatory.NewAudience(event.Count{}).Join(observatory.Push)
	if n := testing.AllocsPerRun(100, func() { l.Took(t0) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
