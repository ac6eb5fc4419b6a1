package sweep

import (
	"sync/atomic"
	"time"
)

// figures is what a shard measured since it began.
type figures struct {
	busy      int64 // ns of processor time, for
	visits    int64 // visits
	slots     int64
	lateSlots int64
}

func (f figures) minus(o figures) figures {
	return figures{f.busy - o.busy, f.visits - o.visits, f.slots - o.slots, f.lateSlots - o.lateSlots}
}

func (f figures) plus(o figures) figures {
	return figures{f.busy + o.busy, f.visits + o.visits, f.slots + o.slots, f.lateSlots + o.lateSlots}
}

// gauge is what others may read of a shard at any time.
type gauge struct {
	counts
	cost                           atomic.Int64 // ns of one visit
	busy, visits, slots, lateSlots atomic.Int64
}

// firstCost is assumed until something was measured.
const firstCost = 15 * time.Microsecond

func (g *gauge) figures() figures {
	return figures{g.busy.Load(), g.visits.Load(), g.slots.Load(), g.lateSlots.Load()}
}

// Slots: the time of one step is cut into perStep of them.
const (
	slotTime = 10 * time.Millisecond
	perStep  = int(chunkTime / slotTime)
	slotWork = 4 * time.Millisecond // of a slot, for sweeping; the rest is for those who come
	lateBy   = 100 * time.Millisecond
)

// schedule says which listeners of one cadence are visited when. A cadence of n steps has n × perStep slots; a turn is the visit of one.
// Turn t visits slot t mod n × perStep, and belongs to step t / perStep: it is due slotTime × (t mod perStep) after that step's chunk
// was appended.
type schedule struct {
	steps int
	slots [][]uint32 // listeners by slot
	turn  uint64     // the next
	fill  int        // slots before this one, in the order of filling, are full
	count int
	notes uint64 // turns before this one carry the plan's note
}

func newSchedule(c Cadence) *schedule {
	return &schedule{steps: c.Steps(), slots: make([][]uint32, c.Steps()*perStep)}
}

// present is the turn whose time it is, so long after a step's chunk came.
func (s *schedule) present(step uint64, since time.Duration) uint64 {
	return step*uint64(perStep) + min(uint64(max(0, since)/slotTime), uint64(perStep))
}

// slotAt is the k-th slot in the order of filling: first the first of each step, then the second of each.
func (s *schedule) slotAt(k int) int { return k%s.steps*perStep + k/s.steps }

// add gives a listener the first slot that has room, or, when all are full, the next in turn. It returns its place.
func (s *schedule) add(id uint32, room int) (slot, pos int) {
	k := s.fill
	for ; k < len(s.slots); k++ {
		if len(s.slots[s.slotAt(k)]) < room {
			break
		}
	}
	s.fill = k
	if k == len(s.slots) {
		k = s.count % len(s.slots)
	}
	slot = s.slotAt(k)
	return slot, s.put(id, slot)
}

// addAfter gives a listener that comes from another cadence a slot: at the same moment of a step as its last visit, which was that turn (turns
// are the same for all cadences), and of those that come within so many turns of that visit, the one with the fewest. So it never waits longer
// than the slower of its two cadences, which is what it has put by for.
func (s *schedule) addAfter(id uint32, visited int64, within int) (slot, pos int) {
	turn, round := int64(s.turn), int64(len(s.slots))
	const step = int64(perStep)
	t := visited + step
	if t < turn { // the first that is still to come
		t += (turn - t + step - 1) / step * step
	}
	slot = int(t % round)
	for ; t <= visited+int64(within) && t < turn+round; t += step {
		if k := int(t % round); len(s.slots[k]) < len(s.slots[slot]) {
			slot = k
		}
	}
	return slot, s.put(id, slot)
}

// visited is the turn at which a slot was visited last; below zero, if it never was.
func (s *schedule) visited(slot int) int64 {
	last, round := int64(s.turn)-1, int64(len(s.slots))
	return last - (last+round-int64(slot))%round
}

func (s *schedule) put(id uint32, slot int) (pos int) {
	s.slots[slot] = append(s.slots[slot], id)
	s.count++
	return len(s.slots[slot]) - 1
}

// remove takes out who stands at a place, and says who stands there now instead, if anybody.
func (s *schedule) remove(slot, pos int) (moved uint32, any bool) {
	at := s.slots[slot]
	last := len(at) - 1
	moved, any = at[last], pos != last
	at[pos] = at[last]
	s.slots[slot] = at[:last]
	s.count--
	s.fill = min(s.fill, slot%perStep*s.steps+slot/perStep)
	return moved, any
}

// due is the turn after the last that is due when so much time has passed since the latest step's chunk came. Turns of earlier steps are all
// due. If the schedule is more than two rounds behind, whole rounds are skipped: one visit of each listener makes up for all.
func (s *schedule) due(step uint64, since time.Duration) uint64 {
	target := min(s.present(step, since)+1, (step+1)*uint64(perStep))
	if round := uint64(len(s.slots)); target > s.turn+2*round {
		skip := ((target-s.turn)/round - 1) * round
		if s.turn < s.notes {
			s.notes += skip // nobody is skipped by an announcement
		}
		s.turn += skip
	}
	return target
}

// lateness is how late turn t is visited.
func lateness(t, step uint64, since time.Duration) time.Duration {
	was := time.Duration(step-t/uint64(perStep)) * chunkTime
	return since + was - time.Duration(t%uint64(perStep))*slotTime
}
