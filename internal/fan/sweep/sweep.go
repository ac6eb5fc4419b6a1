// Package sweep serves many listeners with streams of shared bytes over HTTP connections: a WebSocket of parts, an Ogg stream, cues.
//
// # The problem
//
// A write to a socket costs 10 µs in the kernel; everything else that a server does for one more listener should vanish beside it. A
// goroutine per listener does not: it has a stack, a bufio, a netpoll entry and a timer, and is scheduled for each write.
//
// # How
//
// A request that was judged is taken over (Hijack): its socket is duplicated and the net.Conn closed, so that the goroutine, the
// buffers and the netpoll entry are gone. What is left is a [listener], 88 bytes in a page of many: a socket and a cursor. A shard
// owns its listeners and walks over them, at each step of a stream: it writes to each what lies between its cursor and the head,
// straight from the chunks that all share. A socket that would block keeps its cursor. One whose cursor falls too far behind continues
// at the head, between two chunks, and is counted; one that takes nothing for half a minute is let go.
//
// Listeners are spread over the time between two steps in slots of 10 ms, of which the first are filled first: few listeners are served at
// once, many leave room between the slots, in which newcomers are let in.
//
// # Under load
//
// How often a listener is written to is its [Cadence]. The [governor] measures what sweeping costs; as it rises, newcomers start with a
// slower cadence, those who are here are told that theirs will slow down, and then it does. Writes are dear and bytes are cheap, so a
// listener at two seconds costs a tenth of one at 200 ms.
//
// # Invariants
//
//   - A listener gets whole chunks, in order, each once; it begins, and resumes after a skip, between two chunks.
//   - Bytes of a chunk are never modified or copied for a listener (TLS's own output aside); a chunk that was sent in part stays
//     alive until the rest of it is.
//   - Only the shard touches a listener; others put into its mailbox.
//
// With TLS the listener keeps its crypto/tls connection over a [Conn] that never blocks. Connections that cannot be taken over (HTTP/2, and
// systems without epoll) are followed by a goroutine each, behind the same methods.
package sweep

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"earshot/internal/observatory"
)

// Limits of a listener.
const (
	keepPlace = 150              // chunks that a slow listener may lag before it continues at the head: 30 s
	resume    = 2                // chunks before the head with which it then continues
	stall     = 30 * time.Second // taking nothing for so long ends the connection
	farewell  = 2 * time.Second  // for the client to close after it was told that it is over
	maxInput  = 64 << 10         // bytes that the client of a plain response may send: nothing is expected
)

// resumeAt is the chunk with which somebody continues who has fallen behind: shortly before the head, and never backwards.
func resumeAt(next, head uint64) uint64 { return max(next+1, head-min(head, resume)) }

// Why somebody is refused.
var (
	ErrFull     = errors.New("sweep: as many listeners as this machine can take")
	ErrStopping = errors.New("sweep: stopping")
)

// Config of an Engine.
type Config struct {
	Shards     int  // goroutines that sweep; default GOMAXPROCS − 1, at least 1
	Max        int  // listeners at once; default: what descriptors allow
	MaxLoose   int  // listeners at once whose connection cannot be taken over (HTTP/2), beside Max; default 2000: a goroutine and 20 KB each
	Goroutines bool // follow every listener with a goroutine, as on systems without epoll

	Elsewhere func() int // descriptors that others hold because of strangers; nil: none

	Now func() time.Time // default time.Now
}

// Engine serves listeners. All methods are safe from any goroutine.
type Engine struct {
	cfg    Config
	begun  time.Time
	shards []*shard
	loose  counts // listeners that have a goroutine each

	dropped [nDropped]atomic.Uint64
	sockets atomic.Int64  // connections that were taken over
	turned  atomic.Uint64 // connections that were turned away by Listener

	handshakes handshakes

	life context.Context // ends with Close
	end  context.CancelFunc
	wg   sync.WaitGroup // shards, the governor, goroutines of listeners

	mu       sync.Mutex
	gov      governor
	load     float64 // as last measured
	late     float64
	starved  bool // memory is short
	closed   bool
	taken    int // places with a socket of their own
	shared   int // and those that share a connection
	streams  map[*Stream]struct{}
	sequence uint64
}

// counts is who has which cadence: by wish, then by what they have.
type counts [cadences][cadences]atomic.Int64

func (c *counts) move(wish, from, to Cadence) {
	c[wish][from].Add(-1)
	c[wish][to].Add(1)
}

// demand is the writes per two seconds that all these ask for.
func (c *counts) demand() (n int64) {
	for w := range c {
		for k := range c[w] {
			n += c[w][k].Load() * int64(10/cadenceSteps[k])
		}
	}
	return n
}

// total is how many they are: the demand, if all had the slowest cadence.
func (c *counts) total() (n int64) {
	for w := range c {
		for k := range c[w] {
			n += c[w][k].Load()
		}
	}
	return n
}

func (c *counts) into(s *sample, current Cadence) {
	for w := range c {
		for k := range c[w] {
			n := int(c[w][k].Load())
			s.counts[k] += n
			if Cadence(k) > max(Cadence(w), current) {
				s.slower += n
			}
		}
	}
}

// Why a listener was let go, other than by its own choice.
const (
	droppedStalled  = iota // took nothing for half a minute
	droppedProtocol        // sent what no client may
	nDropped
)

// New starts the shards.
func New(cfg Config) (*Engine, error) {
	if cfg.Shards == 0 {
		cfg.Shards = max(1, runtime.GOMAXPROCS(0)-1)
	}
	if cfg.Max == 0 {
		cfg.Max = Descriptors() - reserved
	}
	if cfg.Max <= 0 {
		return nil, fmt.Errorf("sweep: only %d descriptors may be open: raise the limit (ulimit -n)", Descriptors())
	}
	if cfg.MaxLoose == 0 {
		cfg.MaxLoose = 2000
	}
	if cfg.Elsewhere == nil {
		cfg.Elsewhere = func() int { return 0 }
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	e := &Engine{cfg: cfg, begun: time.Now(), streams: make(map[*Stream]struct{})}
	e.life, e.end = context.WithCancel(context.Background())
	if !cfg.Goroutines {
		for range cfg.Shards {
			sh, err := newShard(e)
			if err != nil {
				e.end()
				e.wg.Wait()
				return nil, fmt.Errorf("sweep: %w", err)
			}
			if sh == nil {
				break // this system has no epoll
			}
			e.shards = append(e.shards, sh)
			e.wg.Go(sh.run)
		}
	}
	e.wg.Go(e.govern)
	return e, nil
}

// reserved descriptors are kept from listeners, for the store, speakers, requests and the newcomers who are told that there is no room.
const reserved = 512

// Close waits until all listeners of closed streams are gone, or until ctx ends; then it lets go of the rest.
func (e *Engine) Close(ctx context.Context) error {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var err error
	for e.Listeners() > 0 && err == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			err = fmt.Errorf("sweep: %d listeners still connected: %w", e.Listeners(), ctx.Err())
		}
	}
	e.end()
	for _, sh := range e.shards {
		sh.nudge()
	}
	e.wg.Wait()
	return err
}

// Listeners is how many places are taken.
func (e *Engine) Listeners() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.taken + e.shared
}

// Dropped gives how many listeners were let go, by reason.
func (e *Engine) Dropped() map[string]uint64 {
	return map[string]uint64{
		"stalled":  e.dropped[droppedStalled].Load(),
		"protocol": e.dropped[droppedProtocol].Load(),
	}
}

// TurnedAway is how many connections were refused as they came, because descriptors ran out.
func (e *Engine) TurnedAway() uint64 { return e.turned.Load() }

// Pace is how the engine is doing.
type Pace struct {
	Cadence Cadence // the quickest that is given
	Load    float64 // share of the busiest shard's time
	Late    float64 // share of its slots that were visited late, over the last two seconds
}

// Pace tells the cadence and the load.
func (e *Engine) Pace() Pace {
	e.mu.Lock()
	defer e.mu.Unlock()
	return Pace{Cadence: e.gov.current, Load: e.load, Late: e.late}
}

// SetFloor is the operator's hand: nothing quicker is given from now on. Those who have it are told first.
func (e *Engine) SetFloor(c Cadence) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := sample{load: e.load}
	e.count(&s)
	e.carry(e.gov.setFloor(e.cfg.Now(), c, s))
}

// Way is how a listener's connection is served.
type Way bool

// The ways: a connection of its own, which is taken over, or a stream of one that it shares (HTTP/2).
const (
	Own    Way = false
	Shared Way = true
)

// Admit takes a place for a newcomer who wishes for a cadence, and says which it gets. A place must be used, by Take where it has a connection
// of its own, else by Follow, or given back by Release. Errors: ErrFull, ErrStopping.
func (e *Engine) Admit(wish Cadence, way Way) (Cadence, error) {
	load, least := e.expected()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return 0, ErrStopping
	}
	c, full := e.gov.newcomer(load, least)
	switch {
	case full, e.starved, way == Own && e.taken >= e.cfg.Max, way == Shared && e.shared >= e.cfg.MaxLoose:
		return 0, ErrFull
	case way == Own:
		e.taken++
	default:
		e.shared++
	}
	return max(c, wish), nil
}

// Release gives a place back that was not used.
func (e *Engine) Release(way Way) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if way == Own {
		e.taken--
	} else {
		e.shared--
	}
}

// Join is a newcomer.
type Join struct {
	Stream *Stream
	Next   uint64  // the first chunk it gets, see Stream.Place
	Wish   Cadence // what it asked for
	Given  Cadence // what Admit said
	Head   []byte  // goes before the first chunk
}

// expected is the load that all who are here ask for, whether they have been written to yet or not, and the least that it could be.
func (e *Engine) expected() (load, least float64) {
	for _, sh := range e.shards {
		cost := float64(sh.cost.Load()) / float64(2*time.Second)
		load = max(load, float64(sh.demand())*cost)
		least = max(least, float64(sh.total())*cost)
	}
	// A goroutine's write costs more, and is spread over all processors.
	cost := looseCost.Seconds() / 2 / float64(runtime.GOMAXPROCS(0))
	return load + float64(e.loose.demand())*cost, least + float64(e.loose.total())*cost
}

const looseCost = 40 * time.Microsecond

// Take serves a connection that was taken over from net/http from now on; input is what the client has sent already. The place is given
// back when the listener is gone. The connection may be a *tls.Conn over a *Conn, a *Conn, or any other, which gets a goroutine.
func (e *Engine) Take(conn net.Conn, input []byte, j Join) {
	ear := e.enter(j)
	e.sockets.Add(1)
	sh := e.quietest()
	var raw *Conn
	var secure *tls.Conn
	switch c := conn.(type) {
	case *tls.Conn:
		raw, _ = c.NetConn().(*Conn)
		secure = c
	case *Conn:
		raw = c
	case *net.TCPConn:
		raw = &Conn{TCPConn: c, fd: -1}
	}
	if sh == nil || raw == nil {
		if raw != nil {
			raw.handOver()
		}
		e.wg.Go(func() {
			defer e.gone(j, ear)
			e.followConn(conn, input, j, ear)
		})
		return
	}
	if err := raw.detach(); err != nil {
		_ = conn.Close()
		e.gone(j, ear)
		return
	}
	raw.handOver()
	sh.put(arrival{join: j, ear: ear, conn: raw, tls: secure, input: input})
}

// quietest is the shard with the least to do.
func (e *Engine) quietest() *shard {
	var best *shard
	least := int64(0)
	for _, sh := range e.shards {
		if d := sh.demand(); best == nil || d < least {
			best, least = sh, d
		}
	}
	return best
}

// enter counts a listener in.
func (e *Engine) enter(j Join) *observatory.Listener {
	t := j.Stream.cfg.Tally
	t.Joined.Add(1)
	t.Listeners.Add(1)
	j.Stream.here.Add(1)
	e.mu.Lock()
	if _, known := e.streams[j.Stream]; !known {
		e.streams[j.Stream] = struct{}{}
		if v := e.gov.pending(e.cfg.Now()); v.change { // announced before anybody was here
			j.Stream.propose(e.sequence, v)
		}
	}
	e.mu.Unlock()
	if a := j.Stream.cfg.Audience; a != nil {
		return a.Join(j.Stream.cfg.Rung)
	}
	return nil
}

// gone counts out a listener that had a connection of its own.
func (e *Engine) gone(j Join, ear *observatory.Listener) {
	e.sockets.Add(-1)
	e.leave(j, ear, Own)
}

// leave counts it out.
func (e *Engine) leave(j Join, ear *observatory.Listener, way Way) {
	if ear != nil {
		j.Stream.cfg.Audience.Leave(ear)
	}
	j.Stream.cfg.Tally.Listeners.Add(-1)
	j.Stream.here.Add(-1)
	e.Release(way)
}

// govern measures twice a second, over two seconds, and lets the governor decide.
func (e *Engine) govern() {
	const every, window = 500 * time.Millisecond, 4
	tick := time.NewTicker(every)
	defer tick.Stop()
	last := make([]figures, len(e.shards))
	history := make([][window]figures, len(e.shards))
	for round := 0; ; round++ {
		select {
		case <-tick.C:
		case <-e.life.Done():
			return
		}
		var s sample
		for i, sh := range e.shards {
			now := sh.figures()
			history[i][round%window] = now.minus(last[i])
			last[i] = now
			var sum figures
			for _, f := range history[i] {
				sum = sum.plus(f)
			}
			if sum.visits >= 100 {
				sh.cost.Store(sum.busy / sum.visits)
			}
			if sum.slots >= fewSlots {
				s.late = max(s.late, float64(sum.lateSlots)/float64(sum.slots))
			}
		}
		s.load, _ = e.expected()
		short := memoryShort()
		e.mu.Lock()
		e.count(&s)
		e.load, e.late, e.starved = s.load, s.late, short
		e.carry(e.gov.step(e.cfg.Now(), s))
		for st := range e.streams {
			if st.Closed() {
				delete(e.streams, st)
			}
		}
		e.mu.Unlock()
	}
}

// count takes down who has which cadence. e.mu is held.
func (e *Engine) count(s *sample) {
	for _, sh := range e.shards {
		sh.counts.into(s, e.gov.current)
	}
	e.loose.into(s, e.gov.current)
}

// fewSlots are too few for their lateness to say something.
const fewSlots = 20

// carry announces what the governor wants. e.mu is held.
func (e *Engine) carry(v verdict) {
	if !v.change {
		return
	}
	e.sequence++
	for s := range e.streams {
		s.propose(e.sequence, v)
	}
}
