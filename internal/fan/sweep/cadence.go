package sweep

import (
	"fmt"
	"time"
)

// framesPerChunk and chunkTime are a timeline's part: what one step of a stream stands for.
const (
	framesPerChunk = 10
	chunkTime      = 200 * time.Millisecond
)

// Cadence is how often a listener is written to.
type Cadence uint8

// The cadences, quickest first.
const (
	Cadence200 Cadence = iota
	Cadence400
	Cadence1000
	Cadence2000
	cadences
)

var cadenceSteps = [cadences]int{1, 2, 5, 10} // in chunks

// ParseCadence reads milliseconds: 200, 400, 1000 or 2000.
func ParseCadence(ms int) (Cadence, error) {
	for c, n := range cadenceSteps {
		if ms == n*int(chunkTime/time.Millisecond) {
			return Cadence(c), nil
		}
	}
	return 0, fmt.Errorf("%d is not a cadence: 200, 400, 1000 or 2000 (milliseconds)", ms)
}

// Steps is how many chunks pass from one write to the next.
func (c Cadence) Steps() int { return cadenceSteps[c] }

// Duration is the time from one write to the next.
func (c Cadence) Duration() time.Duration { return time.Duration(cadenceSteps[c]) * chunkTime }

// notice is how long before a change from one cadence to another it is announced: a slower one long enough that a player which plays
// at 0.88 of its speed has put the difference by, with two seconds to spare, and no less than ten seconds.
func notice(from, to Cadence) time.Duration {
	if to <= from {
		return 2 * time.Second
	}
	saving := (to.Duration() - from.Duration()) * 100 / 12
	return max(10*time.Second, saving+2*time.Second)
}

// plan is an announced change of one stream's cadence. It is immutable.
type plan struct {
	seq    uint64
	to     Cadence // the quickest that is given from then on
	slower bool    // nobody gets quicker by it
	from   uint64  // first frame to which it applies
	notes  [cadences][]byte
}

// cadenceOf is what a listener with this wish, which has this cadence now, gets under the plan.
func (p *plan) cadenceOf(wish, has Cadence) Cadence {
	if p.slower {
		return max(p.to, has)
	}
	return max(p.to, wish)
}

// propose announces a change on this stream.
func (s *Stream) propose(seq uint64, v verdict) {
	to, lead := v.to, v.lead
	next := uint64(0)
	if c := s.at(s.head.Load() - 1); c != nil {
		next = c.frame + framesPerChunk
	}
	p := &plan{seq: seq, to: to, slower: v.slower, from: next + uint64(lead/chunkTime)*framesPerChunk}
	if s.cfg.Announce != nil {
		for c := to; c < cadences; c++ {
			p.notes[c] = s.cfg.Announce(c, next, p.from)
		}
	}
	s.plan.Store(p)
}

// What the governor aims at: shares of one shard's time that sweeping takes.
const (
	startSlow  = 0.50 // newcomers start at a second
	startLast  = 0.65 // newcomers start at two seconds
	stretchAt  = 0.75 // those who are here are stretched by one step
	relaxBelow = 0.45 // what the load would be after going back a step, for relaxAfter
	fullAt     = 0.92 // newcomers are refused, if the load were so with everybody at the slowest cadence
	relaxAfter = 30 * time.Second
	lateShare  = 0.02 // of slots that were visited late: the load is more than it seems
)

// governor decides the cadence from what is measured. It reads no clock.
type governor struct {
	floor Cadence // the operator's: nothing quicker is given
	level Cadence // the load's: nothing quicker can be given

	current   Cadence   // the quickest that is given, announced changes included
	before    Cadence   // the quickest until the announced change takes effect
	effective time.Time // when it does
	settled   time.Time // nothing is decided by load before: the change has to show in what is measured
	calm      time.Time // since when going back would be safe; zero: it would not be
}

// sample is what was measured since the last step.
type sample struct {
	load   float64       // share of a shard's time, of the busiest one
	late   float64       // share of its slots that were visited late
	counts [cadences]int // listeners by the cadence they have
	slower int           // those who have a slower one than their wish and the present one ask for
}

// verdict is what the governor wants.
type verdict struct {
	change bool
	to     Cadence
	slower bool // nobody gets quicker by it
	lead   time.Duration
}

// step looks at a sample taken at now. After a change nothing is decided until it has taken effect.
func (g *governor) step(now time.Time, s sample) verdict {
	load := s.load
	if s.late > lateShare {
		load = max(load, stretchAt+0.01)
	}
	if now.Before(g.settled) {
		return verdict{}
	}
	if load > stretchAt && g.current+1 < cadences && s.quicker(g.current) > 0 {
		g.level = g.current + 1
		return g.turn(now)
	}
	back := g.level
	if back > 0 {
		back--
	}
	if g.level == 0 && s.slower == 0 || s.late > lateShare || s.load*s.growth(back) >= relaxBelow {
		g.calm = time.Time{}
		return verdict{}
	}
	if g.calm.IsZero() {
		g.calm = now
	}
	if now.Sub(g.calm) < relaxAfter {
		return verdict{}
	}
	g.level, g.calm = back, time.Time{}
	if max(g.floor, g.level) == g.current && s.slower == 0 {
		return verdict{} // the operator's hand is heavier
	}
	return g.turn(now)
}

// setFloor is the operator's hand. It gives nobody more than the load allows, nor more than it would then allow by s.
func (g *governor) setFloor(now time.Time, c Cadence, s sample) verdict {
	g.floor = c
	to := max(c, g.level)
	for to < g.current && s.load*s.growth(to) >= startLast {
		to++
	}
	if to > c {
		g.level = max(g.level, to)
	}
	if max(g.floor, g.level) == g.current {
		return verdict{}
	}
	return g.turn(now)
}

// turn announces what floor and level ask for. How long before depends on what is in force now, which need not be what was announced last.
func (g *governor) turn(now time.Time) verdict {
	force, to := g.inForce(now), max(g.floor, g.level)
	v := verdict{change: true, to: to, slower: to > g.current, lead: notice(force, to)}
	g.before, g.current, g.calm = force, to, time.Time{}
	g.effective = now.Add(v.lead)
	g.settled = g.effective.Add(4 * time.Second) // what changed is measured over two
	return v
}

func (g *governor) inForce(now time.Time) Cadence {
	if now.Before(g.effective) {
		return g.before
	}
	return g.current
}

// pending is what was announced and has not taken effect.
func (g *governor) pending(now time.Time) verdict {
	if !now.Before(g.effective) {
		return verdict{}
	}
	return verdict{change: true, to: g.current, slower: g.current > g.before, lead: g.effective.Sub(now)}
}

// quicker is how many listeners a step beyond c would slow down.
func (s sample) quicker(c Cadence) (n int) {
	for k := Cadence(0); k <= c; k++ {
		n += s.counts[k]
	}
	return n
}

// growth is by what the load grows if everybody may have cadence c.
func (s sample) growth(c Cadence) float64 {
	now, then := 0.0, 0.0
	for k, n := range s.counts {
		now += float64(n) / float64(cadenceSteps[k])
		then += float64(n) / float64(cadenceSteps[min(Cadence(k), c)])
	}
	if now == 0 {
		return 1
	}
	return then / now
}

// newcomer is the cadence that somebody who comes now starts with, given the load as it is with everybody who is here, and the least that it
// could be, with everybody at the slowest: those who are quick now can be slowed down, but not at once.
func (g *governor) newcomer(load, least float64) (c Cadence, full bool) {
	switch {
	case least >= fullAt, load >= 1:
		return 0, true
	case load >= startLast:
		return max(g.current, Cadence2000), false
	case load >= startSlow:
		return max(g.current, Cadence1000), false
	}
	return g.current, false
}
