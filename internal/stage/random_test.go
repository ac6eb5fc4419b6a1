package stage_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"earshot/internal/event"
	"earshot/internal/mix"
	"earshot/internal/stage"
	"earshot/internal/timeline"
)

var seed = flag.Uint64("stage.seed", 0, "replay the random operations of this seed; 0: a new one")

// TestRandomOperations does what comes to mind to a stage and to a plain model of it, and compares them after each step.
// Replay: go test ./internal/stage -run TestRandomOperations -stage.seed N
func TestRandomOperations(t *testing.T) {
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("-stage.seed %d", s)
	synctest.Test(t, func(t *testing.T) {
		h := open(t)
		pass(10 * time.Millisecond) // off the ticks
		m := newModel(h, rand.New(rand.NewPCG(s, 1)))
		for i := range 600 {
			m.step(i)
		}
		m.h.end()
		for id, all := range m.outlets {
			for _, o := range all {
				if o.l.why() == "" {
					t.Errorf("an outlet of %s is open after the end", id)
				}
			}
		}
		for n := range h.tl.Head() {
			if _, err := h.tl.Frame(n); err != nil {
				t.Fatalf("frame %d of %d: %v", n, h.tl.Head(), err)
			}
		}
		if st := h.st.Stats(); st.LateTicks != 0 || st.Gaps != 0 || st.Frames != h.tl.Head() || st.Drops.OutletSlow != 0 {
			t.Errorf("stats %+v, head %d", st, h.tl.Head())
		}
	})
}

type model struct {
	h       *house
	r       *rand.Rand
	pool    []*modelPerson
	stage   []*modelPerson // in the order in which they came
	hands   []*modelPerson
	live    bool
	outlets map[string][]modelOutlet
}

type modelPerson struct {
	event.Person
	on, connected        bool
	hand, admitted       bool
	self, host, silenced bool
	until                time.Time
	seat                 *stage.Seat
	old                  []*stage.Seat
}

type modelOutlet struct {
	l    *listener
	want stage.Reason // "" while it is open
}

func newModel(h *house, r *rand.Rand) *model {
	m := &model{h: h, r: r, outlets: map[string][]modelOutlet{}}
	roles := []event.Role{
		event.Host, event.Cohost, event.Speaker, event.Speaker, event.Listener, event.Listener, event.Listener, event.Producer,
	}
	for i, role := range roles {
		m.pool = append(m.pool, &modelPerson{Person: event.Person{ID: fmt.Sprint("p_", i), Name: fmt.Sprint("N", i), Role: role}})
	}
	return m
}

func (m *model) step(i int) {
	t, ctx := m.h.t, m.h.t.Context()
	m.expire()
	p := m.pool[m.r.IntN(len(m.pool))]
	var what string
	var got error
	var want event.Code
	switch op := m.r.IntN(20); op {
	case 0, 1, 2, 3, 4:
		what = "join"
		l := newListener(t)
		var seat *stage.Seat
		seat, got = m.h.st.Join(ctx, p.Person, l, m.r.IntN(4) == 0)
		if want = m.join(p); want == "" {
			m.close(p, stage.Displaced)
			m.outlets[p.ID] = append(m.outlets[p.ID], modelOutlet{l: l})
			if p.seat != nil {
				p.old = append(p.old, p.seat)
			}
			p.seat = seat
		}
	case 5, 6:
		what = "lose"
		if p.on && p.connected {
			p.seat.Lost()
			p.connected, p.until = false, time.Now().Add(stage.Grace)
			m.close(p, stage.Lost)
		}
	case 7:
		what = "leave"
		if p.on && p.connected {
			p.seat.Leave(stage.Left)
			m.close(p, stage.Left)
			m.gone(p)
		}
	case 8:
		what = "an older seat goes"
		for _, s := range p.old {
			s.Lost()
			s.Leave(stage.Left)
		}
	case 9, 10:
		what = "raise"
		got, want = m.h.st.RaiseHand(ctx, p.Person, false), m.raise(p)
	case 11:
		what = "lower"
		if got = m.h.st.LowerHand(ctx, p.ID); p.hand {
			m.lower(p)
		} else {
			want = event.CodeNotFound
		}
	case 12, 13:
		what = "admit"
		if got = m.h.st.Admit(ctx, p.ID); p.hand {
			p.admitted = true
		} else {
			want = event.CodeNotFound
		}
	case 14, 15, 16:
		by, muted := stage.BySelf, m.r.IntN(2) == 0
		if m.r.IntN(2) == 0 {
			by = stage.ByHost
		}
		what = fmt.Sprint("mute ", by, " ", muted)
		got, want = m.h.st.Mute(ctx, p.ID, by, muted), m.mute(p, by, muted)
	case 17:
		what = "remove"
		got = m.h.st.Remove(ctx, p.ID)
		if !p.on && !p.hand {
			want = event.CodeNotFound
			break
		}
		m.lower(p)
		if p.on {
			m.close(p, stage.Removed)
			m.gone(p)
		}
	case 18:
		what = "wait"
		time.Sleep(time.Duration(m.r.IntN(300)) * event.FrameDuration)
	case 19:
		what = "live"
		if i > 300 {
			m.live = true
			got = m.h.st.Turn(ctx, event.Live, time.Now())
		}
	}
	what = fmt.Sprintf("step %d: %s %s", i, what, p.ID)
	switch {
	case want == "" && got != nil:
		t.Fatalf("%s: %v", what, got)
	case want != "" && (got == nil || event.CodeOf(got) != want):
		t.Fatalf("%s: got %v, want %s", what, got, want)
	}
	pass(event.FrameDuration)
	m.expire()
	m.compare(what)
	if i%25 == 24 {
		pass(timeline.PartDuration + event.FrameDuration)
		m.expire()
		m.compareCue(what)
	}
}

func (m *model) join(p *modelPerson) event.Code {
	if !p.on {
		if p.Role == event.Producer || p.Role == event.Listener && !p.admitted {
			return event.CodeForbidden
		}
		p.on, p.host = true, p.silenced
		m.stage = append(m.stage, p)
	}
	m.lower(p)
	p.connected = true
	return ""
}

func (m *model) raise(p *modelPerson) event.Code {
	switch {
	case p.Role == event.Producer:
		return event.CodeForbidden
	case p.Role != event.Listener || p.on:
		return event.CodeConflict
	case !p.hand:
		p.hand = true
		m.hands = append(m.hands, p)
	}
	return ""
}

func (m *model) mute(p *modelPerson, by stage.MuteBy, muted bool) event.Code {
	switch {
	case !p.on:
		return event.CodeNotFound
	case by == stage.BySelf && p.host && !muted:
		return event.CodeForbidden
	case by == stage.BySelf:
		p.self = muted
	case !muted && p.self && !p.host:
		return event.CodeConflict
	default:
		p.host, p.silenced = muted, muted
	}
	return ""
}

func (m *model) lower(p *modelPerson) {
	p.hand, p.admitted = false, false
	m.hands = slices.DeleteFunc(m.hands, func(o *modelPerson) bool { return o == p })
}

func (m *model) gone(p *modelPerson) {
	p.on, p.connected, p.self, p.host = false, false, false, false
	m.stage = slices.DeleteFunc(m.stage, func(o *modelPerson) bool { return o == p })
}

// close expects the latest outlet of p, if open, to be told why.
func (m *model) close(p *modelPerson, r stage.Reason) {
	if all := m.outlets[p.ID]; len(all) > 0 && all[len(all)-1].want == "" {
		all[len(all)-1].want = r
	}
}

// expire lets the grace run out, and keeps clear of the tick in which it does.
func (m *model) expire() {
	for slices.ContainsFunc(m.stage, func(p *modelPerson) bool {
		return !p.connected && time.Until(p.until).Abs() <= 3*event.FrameDuration
	}) {
		pass(event.FrameDuration)
	}
	for _, p := range slices.Clone(m.stage) {
		if !p.connected && !time.Now().Before(p.until) {
			m.gone(p)
		}
	}
}

func (m *model) compare(what string) {
	t := m.h.t
	st := m.h.st.State()
	var got, want []string
	for _, p := range st.People {
		got = append(got, fmt.Sprintf("%s %s %q %v", p.ID, p.Role, p.Muted, p.Connected))
	}
	for _, p := range m.stage {
		muted := stage.MuteBy("")
		if p.host {
			muted = stage.ByHost
		} else if p.self {
			muted = stage.BySelf
		}
		want = append(want, fmt.Sprintf("%s %s %q %v", p.ID, p.Role, muted, p.connected))
	}
	for _, x := range st.Hands {
		got = append(got, fmt.Sprint("hand ", x.ID, x.Admitted))
	}
	for _, p := range m.hands {
		want = append(want, fmt.Sprint("hand ", p.ID, p.admitted))
	}
	if !slices.Equal(got, want) || st.Phase == event.Live != m.live {
		t.Fatalf("%s:\ngot  %q %s\nwant %q", what, got, st.Phase, want)
	}
	for _, p := range m.pool {
		if m.h.st.Has(p.ID) != (p.on || p.hand) {
			t.Fatalf("%s: Has(%s) is %v", what, p.ID, !p.on && !p.hand)
		}
		for i, o := range m.outlets[p.ID] {
			if o.l.why() != o.want {
				t.Fatalf("%s: outlet %d of %s was told %q, want %q", what, i, p.ID, o.l.why(), o.want)
			}
		}
	}
}

// compareCue looks at what the audience was told of all this.
func (m *model) compareCue(what string) {
	cues := m.h.tl.Sticky()
	i := slices.IndexFunc(cues, func(c timeline.Cue) bool { return c.Kind == "stage" })
	if i < 0 {
		m.h.t.Fatalf("%s: no stage cue", what)
	}
	cue := read[stageCue](m.h.t, cues[i])
	var got, want []string
	for _, p := range cue.People {
		got = append(got, fmt.Sprint(p.ID, *p.Muted))
	}
	for _, p := range m.stage {
		want = append(want, fmt.Sprint(p.ID, p.self || p.host))
	}
	if !slices.Equal(got, want) || (cue.Phase == event.Live) != m.live || (cue.LiveFrame != nil) != m.live {
		m.h.t.Fatalf("%s: stage cue %s\nwant %q, live %v", what, cues[i].Data, want, m.live)
	}
}

// TestManyAtOnce has everybody do everything at the same time: it is for the race detector, and for what waits for ever.
func TestManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ctx := open(t, live), t.Context()
		packets := voice(t, 10)
		var all sync.WaitGroup
		for i := range 12 {
			p := event.Person{ID: fmt.Sprint("p_", i%8), Name: "N", Role: event.Speaker} // some are displaced by themselves
			all.Go(func() {
				for round := range 6 {
					seat, err := h.st.Join(ctx, p, new(quiet), round%2 == 0)
					if err != nil {
						t.Errorf("join: %v", err)
						return
					}
					stop, err := h.st.Monitor(ctx, p.ID, new(quiet))
					if err != nil && event.CodeOf(err) != event.CodeNotFound && event.CodeOf(err) != event.CodeBusy {
						t.Errorf("monitor: %v", err)
					}
					for n := range 20 {
						seat.Push(mix.Packet{Seq: uint16(n), TS: uint32(n * 960), Payload: packets[n%10]})
						_, _, _ = h.st.State(), h.st.Levels(), h.st.Stats()
						_ = h.st.Mute(ctx, p.ID, stage.BySelf, n%2 == 0)
						select {
						case <-h.st.Changed():
						case <-h.st.LevelsChanged():
						case <-time.After(event.FrameDuration):
						}
					}
					if stop != nil {
						stop()
					}
					if round == 0 {
						time.Sleep(2 * event.FrameDuration) // or it may all have happened within one frame, and nobody was heard
					}
					if round%3 == 0 {
						seat.Lost()
					} else {
						seat.Leave(stage.Left)
					}
				}
			})
		}
		all.Wait()
		pass(stage.Grace)
		if st := h.st.State(); len(st.People) != 0 {
			t.Errorf("still on stage: %+v", st.People)
		}
		if st := h.st.Stats(); st.LateTicks != 0 || st.People != 0 || st.Connected != 0 || st.Voices.Received == 0 {
			t.Errorf("stats %+v", st)
		}
		h.end()
	})
}
