// Package turnstile lets many do expensive work in the time that nobody else wants.
//
// # The problem
//
// A TLS handshake takes half a millisecond of a processor, forty times what serving a listener for a second takes. Left to themselves, ten
// thousand newcomers are ten thousand runnable goroutines, and the one that serves everybody who listens already is one more of them. Go's
// scheduler has no priorities: that one waits seconds for its turn.
//
// # How
//
// Who wants to compute needs a turn, and gives it back whenever it waits for somebody else. There are as many turns as processors, and before
// one is given again, everybody else who is runnable has had the processor: the scheduler takes up a goroutine that yields after all that are
// runnable at that moment. So however many newcomers there are, they add the length of one piece of their work to what the others wait.
package turnstile

import (
	"runtime"
	"sync"
)

// Kind says how far somebody's work is.
type Kind int

// The kinds. Those who go on are served before those who begin, so that what was begun gets finished.
const (
	Begin Kind = iota
	GoOn
	kinds
)

// Gate gives the turns. Its methods are safe from any goroutine.
type Gate struct {
	asks [kinds]chan chan struct{} // taking what was asked with is the turn; what is sent on it ends it
	end  chan struct{}
	wg   sync.WaitGroup
}

// New makes a gate with as many turns as there are processors for the work.
func New(processors int) *Gate {
	g := &Gate{end: make(chan struct{})}
	for i := range g.asks {
		g.asks[i] = make(chan chan struct{})
	}
	for range processors {
		g.wg.Go(g.give)
	}
	return g
}

// give gives one turn after another.
func (g *Gate) give() {
	for {
		var back chan struct{}
		select {
		case back = <-g.asks[GoOn]:
		default:
			select {
			case back = <-g.asks[GoOn]:
			case back = <-g.asks[Begin]:
			case <-g.end:
				return
			}
		}
		<-back
		runtime.Gosched()
	}
}

// Close opens the gate for good: who waits for a turn, or asks for one, goes on without. It waits for the turns that are held.
func (g *Gate) Close() {
	close(g.end)
	g.wg.Wait()
}

// Turn is somebody's at a gate. It is used from one goroutine at a time.
type Turn struct {
	gate *Gate
	back chan struct{}
	held bool
}

// Turn gives a newcomer what it needs to take turns. It has none yet.
func (g *Gate) Turn() *Turn { return &Turn{gate: g, back: make(chan struct{}, 1)} }

// Take waits for a turn.
func (t *Turn) Take(k Kind) {
	select {
	case t.gate.asks[k] <- t.back:
		t.held = true
	case <-t.gate.end:
	}
}

// Give gives the turn back, if it is held.
func (t *Turn) Give() {
	if t.held {
		t.back <- struct{}{}
		t.held = false
	}
}
