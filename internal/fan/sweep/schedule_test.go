package sweep

import (
	"math/rand/v2"
	"testing"
	"time"
)

// Every listener is visited once in each round, a stall makes none wait for more than two, and an announcement reaches everybody once.
func TestSchedule(t *testing.T) {
	for c := range cadences {
		chance := rand.New(rand.NewPCG(7, uint64(c)))
		s := newSchedule(c)
		type place struct{ slot, pos int }
		at := map[uint32]place{}
		for id := range uint32(500) {
			slot, pos := s.add(id, 3)
			at[id] = place{slot, pos}
		}
		for id := range uint32(500) { // half of them leave
			if id%2 == 0 {
				continue
			}
			p := at[id]
			if moved, any := s.remove(p.slot, p.pos); any {
				at[moved] = place{p.slot, p.pos}
			}
			delete(at, id)
		}
		for id, p := range at {
			if s.slots[p.slot][p.pos] != id {
				t.Fatalf("listener %d does not stand at %v", id, p)
			}
		}
		s.notes = s.turn + uint64(len(s.slots))
		visits, told := map[uint32]int{}, map[uint32]int{}
		for step := uint64(0); step < 200; step += 1 + uint64(chance.IntN(30)/29*40) { // now and then the shard is held up for long
			due := s.due(step, 190*time.Millisecond)
			for ; s.turn < due; s.turn++ {
				for _, id := range s.slots[s.turn%uint64(len(s.slots))] {
					visits[id]++
					if s.turn < s.notes {
						told[id]++
					}
				}
			}
		}
		for id := range at {
			if visits[id] < 200/c.Steps()/4 || told[id] != 1 {
				t.Errorf("cadence %v: listener %d was visited %d times and told %d times", c.Duration(), id, visits[id], told[id])
			}
		}
	}
}

// The first slots are filled first, those of the same moment in each step alike.
func TestScheduleFillsTheFirstSlots(t *testing.T) {
	s := newSchedule(Cadence400)
	for id := range uint32(8) {
		s.add(id, 2)
	}
	for slot, at := range s.slots {
		want := 0
		if slot%perStep < 2 {
			want = 2
		}
		if len(at) != want {
			t.Errorf("slot %d has %d", slot, len(at))
		}
	}
	s.remove(0, 0)
	if slot, _ := s.add(9, 2); slot != 0 {
		t.Errorf("the room in slot 0 was not seen: slot %d", slot)
	}
}

// Whoever changes the cadence waits no longer than the slower of the two from one visit to the next, whenever the change comes, and afterwards
// the steps are about equally full.
func TestScheduleChangesOver(t *testing.T) {
	const listeners = 3000
	for from := range cadences {
		for to := range cadences {
			for step := uint64(40); step < 50; step++ {
				old, fresh := newSchedule(from), newSchedule(to)
				for id := range uint32(listeners) {
					old.add(id, 20)
				}
				old.turn = step * uint64(perStep) // all before this step were visited
				fresh.turn = fresh.present(step, 0)
				visits := make([]int64, listeners)
				for n := range uint64(len(old.slots)) {
					slot := int((old.turn + n) % uint64(len(old.slots)))
					for _, id := range old.slots[slot] {
						visits[id] = old.visited(slot)
						if at, _ := fresh.addAfter(id, visits[id], max(len(old.slots), len(fresh.slots))); at%perStep != slot%perStep {
							t.Fatalf("%v to %v: slot %d is at another moment than %d", from.Duration(), to.Duration(), at, slot)
						}
					}
				}
				for turn := fresh.turn; turn < fresh.turn+uint64(len(fresh.slots)); turn++ {
					for _, id := range fresh.slots[turn%uint64(len(fresh.slots))] {
						if waited := int64(turn) - visits[id]; waited > int64(max(len(old.slots), len(fresh.slots))) {
							t.Fatalf("%v to %v: %v from one visit to the next", from.Duration(), to.Duration(), time.Duration(waited)*slotTime)
						}
						visits[id] = int64(turn)
					}
				}
				for k := range fresh.steps {
					n := 0
					for moment := range perStep {
						n += len(fresh.slots[k*perStep+moment])
					}
					if n > listeners*13/fresh.steps/10 {
						t.Errorf("%v to %v at step %d: %d listeners in one step of %d", from.Duration(), to.Duration(), step, n, fresh.steps)
					}
				}
			}
		}
	}
}

// Who changes over at the beginning of a step is visited in it, if it has its first moment: else it would wait a part too long.
func TestScheduleBeginsAtOnce(t *testing.T) {
	for c := range cadences {
		s := newSchedule(c)
		slot, _ := s.addAfter(1, -int64(perStep), len(s.slots))
		const step = 40 // of every cadence's first
		s.turn = s.present(step, 0)
		if due := s.due(step, 0); slot != 0 || s.turn != step*uint64(perStep) || due != s.turn+1 {
			t.Errorf("%v: slot %d, turn %d, due before %d", c.Duration(), slot, s.turn, due)
		}
	}
}

func TestGovernor(t *testing.T) {
	begun := time.Unix(1_800_000_000, 0)
	now := begun
	var g governor
	all := func(load float64) sample {
		s := sample{load: load}
		s.counts[g.current] = 1000
		return s
	}
	if v := g.step(now, all(0.7)); v.change {
		t.Errorf("at 0.7: %+v", v)
	}
	v := g.step(now, all(0.8))
	if !v.change || v.to != Cadence400 || v.lead < 10*time.Second {
		t.Fatalf("at 0.8: %+v", v)
	}
	// Until it has taken effect nothing more is decided.
	for range 20 {
		now = now.Add(500 * time.Millisecond)
		if v := g.step(now, all(0.9)); v.change {
			t.Fatalf("after %v: %+v", now.Sub(begun), v)
		}
	}
	now = now.Add(10 * time.Second)
	if v := g.step(now, all(0.8)); v.to != Cadence1000 {
		t.Errorf("still 0.8: %+v", v)
	}
	now = now.Add(time.Minute)
	// 0.2 at a second would be 0.5 at 400 ms: it stays.
	for range 100 {
		now = now.Add(500 * time.Millisecond)
		if v := g.step(now, all(0.2)); v.change {
			t.Fatalf("back too soon: %+v", v)
		}
	}
	calm := now
	for !v.change || v.to != Cadence400 || now == calm {
		now = now.Add(500 * time.Millisecond)
		v = g.step(now, all(0.1))
		if now.Sub(calm) > time.Minute {
			t.Fatal("never back")
		}
	}
	if d := now.Sub(calm); d < relaxAfter || v.lead < time.Second || v.lead > 5*time.Second {
		t.Errorf("back after %v: %+v", d, v)
	}
	// The operator's hand is obeyed at once, and nothing quicker is given.
	if v := g.setFloor(now, Cadence2000, sample{}); v.to != Cadence2000 || v.lead < 10*time.Second {
		t.Errorf("the operator's floor: %+v", v)
	}
	now = now.Add(10 * time.Minute)
	for range 200 {
		now = now.Add(500 * time.Millisecond)
		if v := g.step(now, all(0)); v.change {
			t.Fatalf("quicker than the floor: %+v", v)
		}
	}
}

// Late slots count as load, and newcomers who were let in slowly get quicker once there is room.
func TestGovernorSeesLateness(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	var g governor
	s := sample{load: 0.3, late: 0.1}
	s.counts[Cadence200] = 10
	if v := g.step(now, s); v.to != Cadence400 {
		t.Errorf("late: %+v", v)
	}
	g = governor{}
	for load, want := range map[float64]Cadence{0.1: Cadence200, 0.55: Cadence1000, 0.7: Cadence2000} {
		if c, full := g.newcomer(load, 0.1); c != want || full {
			t.Errorf("at %v a newcomer gets %v, full %v", load, c.Duration(), full)
		}
	}
	if _, full := g.newcomer(0.95, 0.3); full {
		t.Error("those who are quick can be slowed down, and there is no room")
	}
	if _, full := g.newcomer(0.95, 0.93); !full {
		t.Error("with everybody at the slowest it would be 0.93, and there is room")
	}
	s = sample{load: 0.1, slower: 5}
	s.counts[Cadence2000], s.counts[Cadence200] = 5, 100
	var v verdict
	for i := 0; !v.change && i < 100; i++ {
		v = g.step(now, s)
		now = now.Add(500 * time.Millisecond)
	}
	if !v.change || v.to != Cadence200 {
		t.Errorf("those let in slowly stay slow: %+v", v)
	}
}

func TestNotice(t *testing.T) {
	for from := range cadences {
		for to := range cadences {
			d := notice(from, to)
			if to > from && (d < 10*time.Second || float64(to.Duration()-from.Duration()) > 0.12*float64(d)) {
				t.Errorf("%v to %v is announced %v before", from.Duration(), to.Duration(), d)
			}
		}
	}
}

// The operator's hand and the load's: the slower one holds; what was announced and has not come into force counts for how long ahead the
// next change is announced.
func TestGovernorObeysBoth(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	g := governor{level: Cadence1000, current: Cadence1000}
	if v := g.setFloor(now, Cadence200, sample{}); v.change {
		t.Errorf("the operator asks for more than the load allows: %+v", v)
	}
	if v := g.setFloor(now, Cadence2000, sample{}); !v.change || !v.slower || v.to != Cadence2000 {
		t.Errorf("the operator slows down: %+v", v)
	}
	now = now.Add(3 * time.Second) // a second is still in force
	v := g.setFloor(now, Cadence400, sample{})
	if v.to != Cadence1000 || v.slower {
		t.Errorf("back to what the load allows: %+v", v)
	}
	g = governor{}
	g.setFloor(now, Cadence2000, sample{})
	if v := g.setFloor(now.Add(time.Second), Cadence1000, sample{}); v.lead < 10*time.Second {
		t.Errorf("200 ms are in force, 2 s were announced: a second is announced %v before", v.lead)
	}
	if p := g.pending(now.Add(5 * time.Second)); !p.change || p.to != Cadence1000 || p.lead > 10*time.Second {
		t.Errorf("pending: %+v", p)
	}
	if p := g.pending(now.Add(time.Minute)); p.change {
		t.Errorf("pending for ever: %+v", p)
	}
	// Lifting the hand gives no more than what was measured bears.
	g = governor{floor: Cadence2000, current: Cadence2000}
	crowded := sample{load: 0.25}
	crowded.counts[Cadence2000] = 9000
	if v := g.setFloor(now, Cadence200, crowded); v.to != Cadence1000 || g.level != Cadence1000 {
		t.Errorf("2.5 times a processor at 200 ms, 1.25 at 400, a half at a second: %+v", v)
	}
	g = governor{floor: Cadence2000, current: Cadence2000}
	crowded.load = 0.05
	if v := g.setFloor(now, Cadence200, crowded); v.to != Cadence200 || g.level != Cadence200 {
		t.Errorf("half a processor at 200 ms: %+v", v)
	}
}

// A stretch makes nobody quicker, least of all those who were let in slowly because of the load.
func TestPlanMakesNobodyQuickerByAccident(t *testing.T) {
	stretch := &plan{to: Cadence400, slower: true}
	relax := &plan{to: Cadence400}
	for _, c := range []struct {
		p               *plan
		wish, has, want Cadence
	}{
		{stretch, Cadence200, Cadence200, Cadence400},
		{stretch, Cadence200, Cadence2000, Cadence2000},
		{stretch, Cadence1000, Cadence1000, Cadence1000},
		{relax, Cadence200, Cadence2000, Cadence400},
		{relax, Cadence1000, Cadence2000, Cadence1000},
	} {
		if got := c.p.cadenceOf(c.wish, c.has); got != c.want {
			t.Errorf("to %v, slower %v: wish %v, has %v, gets %v, want %v", c.p.to.Duration(), c.p.slower, c.wish.Duration(), c.has.Duration(), got.Duration(), c.want.Duration())
		}
	}
}

func FuzzInbox(f *testing.F) {
	f.Add([]byte{0x89, 0x83, 1, 2, 3, 4, 'a', 'b', 'c'}, 1)
	f.Add([]byte{0x88, 0x80, 1, 2, 3, 4}, 3)
	f.Add([]byte{0x81, 0x05, 'h', 'e', 'l', 'l', 'o'}, 2)
	f.Add([]byte{0x89, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 4)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		now := time.Unix(1_800_000_000, 0)
		whole := inbox{begun: now}
		answer, over, fault := whole.feed(b, now)
		if len(answer) > 131*(freeInput+1) || fault && !over {
			t.Fatalf("%d bytes in answer to %d, over %v, fault %v", len(answer), len(b), over, fault)
		}
		// However it is cut, it comes to the same.
		pieces := inbox{begun: now}
		var over2, fault2 bool
		for rest := b; len(rest) > 0 && !over2; {
			n := min(len(rest), max(1, cut%7))
			_, over2, fault2 = pieces.feed(rest[:n], now)
			rest = rest[n:]
			if len(pieces.part) > 14+125 {
				t.Fatalf("%d bytes are kept", len(pieces.part))
			}
		}
		if over != over2 || fault != fault2 {
			t.Fatalf("whole: over %v, fault %v; in pieces: %v, %v", over, fault, over2, fault2)
		}
	})
}
