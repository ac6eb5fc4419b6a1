package turnstile_test

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"earshot/internal/turnstile"
)

// No more hold a turn at once than there are, everybody gets one, and who goes on is before who begins.
func TestTurns(t *testing.T) {
	const processors, people = 2, 200
	g := turnstile.New(processors)
	var held, most, begun atomic.Int64
	var wg sync.WaitGroup
	work := func() {
		n := held.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		runtime.Gosched()
		held.Add(-1)
	}
	for range people {
		wg.Go(func() {
			turn := g.Turn()
			turn.Take(turnstile.Begin)
			begun.Add(1)
			work()
			turn.Give()
			turn.Give() // it has none
			turn.Take(turnstile.GoOn)
			work()
			turn.Give()
		})
	}
	wg.Wait()
	g.Close()
	g.Turn().Take(turnstile.Begin) // nobody is kept for ever
	if most.Load() > processors || begun.Load() != people {
		t.Errorf("%d had a turn at once, %d began", most.Load(), begun.Load())
	}
}

// What was begun is finished first.
func TestGoOnBeforeBegin(t *testing.T) {
	g := turnstile.New(1)
	defer g.Close()
	first := g.Turn()
	first.Take(turnstile.Begin)
	var order []turnstile.Kind
	var mu sync.Mutex
	var wg sync.WaitGroup
	waiting := func(k turnstile.Kind) {
		turn := g.Turn()
		wg.Go(func() {
			turn.Take(k)
			mu.Lock()
			order = append(order, k)
			mu.Unlock()
			turn.Give()
		})
	}
	for range 20 {
		waiting(turnstile.Begin)
	}
	for range 20 {
		waiting(turnstile.GoOn)
	}
	time.Sleep(50 * time.Millisecond) // for all to stand in line; if some do not, the order below still holds for the others
	first.Give()
	wg.Wait()
	late := 0
	for _, k := range order[:20] {
		if k == turnstile.Begin {
			late++
		}
	}
	if late > 5 {
		t.Errorf("%d of the first 20 were beginners", late)
	}
}

// A thousand with work to do hold up nobody for longer than a few pieces of it, on one processor.
func TestOthersComeFirst(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	g := turnstile.New(1)
	spin := func(d time.Duration) {
		for until := time.Now().Add(d); time.Now().Before(until); {
		}
	}
	var wg sync.WaitGroup
	var done atomic.Int64
	for range 1000 {
		wg.Go(func() {
			turn := g.Turn()
			turn.Take(turnstile.Begin)
			spin(200 * time.Microsecond)
			done.Add(1)
			turn.Give()
		})
	}
	runtime.Gosched() // all of them ask
	var between []int64
	for range 50 {
		before := done.Load()
		runtime.Gosched()
		between = append(between, done.Load()-before)
	}
	wg.Wait()
	g.Close()
	for i, n := range between {
		if n > 50 {
			t.Errorf("while one goroutine yielded for the %d-th time, %d of the thousand worked", i, n)
		}
	}
}
