package whep

import (
	"math"
	"sync"
	"time"

	"earshot/internal/event"
)

// The pace is how long packets are: 20, 60 or 120 ms. Packets are the price of a listener, so longer ones are the first thing that load
// is paid with. Each change is announced, because a page needs some seconds to let its jitter buffer grow before.
const (
	paceEvery = 2 * time.Second // busy shares are means over this
	paceHigh  = 0.75            // above it for two measurements: the next longer
	paceLow   = 0.4             // below it, as it would be with the next shorter, for paceCalm: back
	paceCalm  = 30 * time.Second

	aheadSlower = 10 * time.Second // of programme between the announcement and longer packets
	aheadFaster = 2 * time.Second
)

// framesOf gives a length in frames; 0 ms is the shortest.
func framesOf(ms int) (int, bool) {
	switch ms {
	case 0, 20:
		return 1, true
	case 60:
		return 3, true
	case 120:
		return 6, true
	}
	return 0, false
}

func msOf(frames int) int { return frames * int(event.FrameDuration/time.Millisecond) }

// pace decides, from how busy the shards are. It reads no clock.
type pace struct {
	mu     sync.Mutex
	level  int // index of lengths: what load demands
	floor  int // what the operator demands
	busy   float64
	high   int   // measurements in a row above paceHigh
	calm   int64 // since when it is calm, ns; -1: it is not
	settle int64 // no decision before: the last one has not shown its effect yet
}

func (p *pace) init() { p.calm = -1 }

func (p *pace) state() (ms int, busy float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return msOf(lengths[max(p.level, p.floor)]), p.busy
}

// frames is the length that newcomers get at the least.
func (p *pace) frames() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return lengths[max(p.level, p.floor)]
}

// setFloor sets the operator's wish, and says whether that changes anything.
func (p *pace) setFloor(frames int) (change bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := max(p.level, p.floor)
	for i, f := range lengths {
		if f == frames {
			p.floor = i
		}
	}
	return max(p.level, p.floor) != before
}

// observe takes the busiest shard's share of the time up to now (ns), and says when the length changes. Fixed, it only takes note.
func (p *pace) observe(now int64, busy float64, fixed bool) (change bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy = busy
	if fixed {
		return false
	}
	before := max(p.level, p.floor)
	if busy > paceHigh {
		p.high++
	} else {
		p.high = 0
	}
	projected := math.Inf(1)
	if p.level > 0 {
		projected = busy
		if p.level > p.floor { // else the packets stay as long as they are
			projected *= float64(lengths[p.level]) / float64(lengths[max(p.level-1, p.floor)])
		}
	}
	switch {
	case projected >= paceLow:
		p.calm = -1
	case p.calm < 0:
		p.calm = now
	}
	switch {
	case now < p.settle:
	case p.high >= 2 && before < len(lengths)-1:
		p.level, p.high, p.calm = before+1, 0, -1
		p.settle = now + int64(aheadSlower+2*paceEvery)
	case p.calm >= 0 && now-p.calm >= int64(paceCalm):
		p.level--
		p.calm = -1
		p.settle = now + int64(aheadFaster+2*paceEvery)
	}
	return max(p.level, p.floor) != before
}

// plan says which length an event's packets have from which frame on. It is replaced, never changed.
type plan struct {
	steps []step // oldest first; the first is from frame 0
}

type step struct {
	from   uint64
	frames int
}

func planFrom(frames int) *plan { return &plan{[]step{{0, frames}}} }

// at is the length in force at a frame.
func (p *plan) at(n uint64) int {
	frames := p.steps[0].frames
	for _, s := range p.steps[1:] {
		if n >= s.from {
			frames = s.frames
		}
	}
	return frames
}

// last is the length in the end.
func (p *plan) last() int { return p.steps[len(p.steps)-1].frames }

// then gives the plan with one more step, no sooner than those announced before, and the frame where that begins. It begins where packets
// of every length do.
func (p *plan) then(head uint64, frames int) (*plan, uint64) {
	ahead := uint64(aheadSlower / event.FrameDuration)
	if frames < p.last() {
		ahead = uint64(aheadFaster / event.FrameDuration)
	}
	from := head + ahead
	if last := p.steps[len(p.steps)-1].from; from <= last {
		from = last + 1
	}
	from = (from + longest - 1) / longest * longest
	next := &plan{}
	for i, s := range p.steps {
		if i+1 == len(p.steps) || p.steps[i+1].from > head { // the others are over
			next.steps = append(next.steps, s)
		}
	}
	next.steps[0].from = 0
	next.steps = append(next.steps, step{from, frames})
	return next, from
}

// SetPacket sets how short packets may be, in ms: 20, 60 or 120. Listeners who play hear the change when it was announced for long enough,
// newcomers get longer packets at once. It gives the length in force, which is more where load demands it. Errors are *event.Error.
func (e *Engine) SetPacket(ms int) (int, error) {
	frames, ok := framesOf(ms)
	if !ok || ms == 0 {
		return 0, event.Invalid("packet", "Packets are 20, 60 or 120 ms long.")
	}
	if e.pace.setFloor(frames) {
		e.setFrames()
	}
	return e.Packet(), nil
}

// Packet gives the length in ms that newcomers get at the least.
func (e *Engine) Packet() int {
	ms, _ := e.pace.state()
	return ms
}

// setFrames announces the length that the pace demands to all events.
func (e *Engine) setFrames() {
	type told struct {
		src  Source
		from uint64
	}
	var all []told
	e.mu.Lock()
	frames := e.pace.frames()
	for _, ch := range e.channels {
		old := ch.plan.Load()
		if old.last() == frames {
			continue
		}
		next, from := old.then(ch.src.Timeline.Head(), frames)
		ch.plan.Store(next)
		all = append(all, told{ch.src, from})
	}
	e.mu.Unlock()
	for _, t := range all {
		e.cfg.Announce(t.src, msOf(frames), t.from)
	}
	e.cfg.Log.Info("WebRTC packets change", "ms", msOf(frames), "events", len(all))
}
