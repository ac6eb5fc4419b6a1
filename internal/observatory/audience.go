// Package observatory knows how an event is doing. Today it counts the audience; it reads no clock and opens no socket: time
// comes in as an argument, so that the same arithmetic serves a live event, a replayed log and a test.
package observatory

import (
	"sync"
	"sync/atomic"
	"time"

	"earshot/internal/event"
)

// Window is how recently a connection must have taken audio to be listening now.
const Window = 10 * time.Second

// maxSeen bounds the players that are told apart by key. Beyond it newcomers by key are not counted, rather than memory
// given to whoever invents keys.
const maxSeen = 1 << 20

// maxNodes bounds the other nodes whose figures are kept; those silent for nodeKept make room.
const (
	maxNodes = 4096
	nodeKept = time.Hour
)

// Rung names a way to listen, for the count's breakdown.
type Rung int

// The ways to listen that are counted apart.
const (
	WHEP Rung = iota
	Push
	HLS
	MP4
	Ogg
	AAC
	MP3
	rungs
)

// Rungs lists all, in order.
var Rungs = [...]Rung{WHEP, Push, HLS, MP4, Ogg, AAC, MP3}

// String is the rung's label in metrics.
func (r Rung) String() string {
	return [...]string{"whep", "push", "hls", "mp4", "ogg", "aac", "mp3"}[r]
}

// Audience counts the listeners of one event. A connection that the server holds is a Listener and marks itself with one
// atomic store; players that only fetch files are Seen by a key. Counting sweeps both, so taking audio never takes a lock on
// the paths that are walked often.
type Audience struct {
	mu    sync.Mutex
	conns map[*Listener]struct{}
	seen  map[string]*Listener
	nodes map[string]*node // others that serve the same event, nil before the first
	count event.Count
	by    [rungs]int // of the last sweep, on this node
}

// node is what another node said last.
type node struct {
	at        time.Time
	listening int
	tunedIn   int
}

// Listener is one connection's mark. Took is safe from any goroutine.
type Listener struct {
	rung    Rung
	last    atomic.Int64 // unix nanoseconds of the last audio taken; 0 before the first
	counted bool         // in TunedIn; guarded by Audience.mu
}

// NewAudience starts from what is known: the figures of before a restart, or zero. Now is not carried over.
func NewAudience(before event.Count) *Audience {
	before.Now = 0
	return &Audience{conns: make(map[*Listener]struct{}), seen: make(map[string]*Listener), count: before}
}

// Join adds a connection. It counts once it took audio, and until it leaves.
func (a *Audience) Join(r Rung) *Listener {
	l := &Listener{rung: r}
	a.mu.Lock()
	a.conns[l] = struct{}{}
	a.mu.Unlock()
	return l
}

// Took says that audio was handed to the connection at now.
func (l *Listener) Took(now time.Time) { l.last.Store(now.UnixNano()) }

// Leave takes the connection out. One that took audio and left between two counts is still in TunedIn.
func (a *Audience) Leave(l *Listener) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tune(l)
	delete(a.conns, l)
}

// Seen says that the player known by key took audio at now. Keys tell players apart only within Window.
func (a *Audience) Seen(key string, r Rung, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.seen[key]
	if l == nil {
		if len(a.seen) >= maxSeen {
			return
		}
		l = &Listener{rung: r}
		a.seen[key] = l
	}
	l.Took(now)
	a.tune(l)
}

func (a *Audience) tune(l *Listener) {
	if !l.counted && l.last.Load() != 0 {
		l.counted = true
		a.count.TunedIn++
	}
}

// Elsewhere says that at now so many listen on another node, and that tunedIn did so since that node began to count. A name is
// that of one run of a node: who begins again from zero has another. What it said counts for Window.
func (a *Audience) Elsewhere(name string, listening, tunedIn int, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.nodes[name]
	if n == nil {
		if len(a.nodes) >= maxNodes {
			for name, old := range a.nodes {
				if now.Sub(old.at) > nodeKept {
					delete(a.nodes, name)
				}
			}
			if len(a.nodes) >= maxNodes {
				return
			}
		}
		if a.nodes == nil {
			a.nodes = make(map[string]*node)
		}
		n = &node{}
		a.nodes[name] = n
	}
	n.at, n.listening = now, listening
	a.count.TunedIn += max(0, tunedIn-n.tunedIn)
	n.tunedIn = max(n.tunedIn, tunedIn) // also of a node that fell silent: it does not begin anew
}

// Sweep counts at now, forgets players by key that went quiet, and gives the figures of all nodes and how many listen on each rung
// of this one.
func (a *Audience) Sweep(now time.Time) (event.Count, [rungs]int) {
	since := now.Add(-Window).UnixNano()
	var by [rungs]int
	a.mu.Lock()
	defer a.mu.Unlock()
	for l := range a.conns {
		a.tune(l)
		if last := l.last.Load(); last != 0 && last >= since {
			by[l.rung]++
		}
	}
	for key, l := range a.seen {
		if l.last.Load() < since {
			delete(a.seen, key)
			continue
		}
		by[l.rung]++
	}
	a.count.Now = 0
	for _, n := range by {
		a.count.Now += n
	}
	for _, n := range a.nodes {
		if now.Sub(n.at) <= Window {
			a.count.Now += n.listening
		}
	}
	a.count.Peak = max(a.count.Peak, a.count.Now)
	a.by = by
	return a.count, by
}

// Rungs gives how many listened on each rung of this node at the last Sweep.
func (a *Audience) Rungs() [rungs]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.by
}

// Count gives the figures of the last Sweep.
func (a *Audience) Count() event.Count {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count
}
