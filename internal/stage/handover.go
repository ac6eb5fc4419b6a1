package stage

import (
	"context"
	"slices"
	"time"

	"earshot/internal/event"
)

// HostGrace is how long a host's connection may be lost before a co-host follows them.
const HostGrace = 60 * time.Second

// askAgain is when OnHostLost is called once more, if nothing came of it.
const askAgain = 10 * time.Second

// Handover is the host's role on its way from one person to another. Whoever gives it away, or lost it, is co-host then.
type Handover struct {
	From string // Person.ID; empty where nobody gives it away: the operator makes another host
	To   string // Person.ID
	Lost bool   // From was lost and is followed
}

// missing is a host whose connection was lost, while no other host is connected. Owned by the stage's goroutine.
type missing struct {
	host  event.Person // nobody, without an ID
	since time.Time
	asked time.Time // when OnHostLost was called last
}

// HandOver applies a handover that the store has already, and has the audience told. Who is not on stage any more gets their role by
// joining, from whoever judges them.
func (s *Stage) HandOver(ctx context.Context, h Handover) error {
	return s.do(ctx, "hand over", func() error { s.handOver(h); return nil })
}

func (s *Stage) handOver(h Handover) {
	if m := s.member(h.From); m != nil {
		m.person.Role = event.Cohost
	}
	s.dirty = true
	m := s.member(h.To)
	if m == nil {
		return
	}
	m.person.Role = event.Host
	s.missing = missing{}
	if !s.hosted() { // lost in the meantime, too
		s.missing = missing{host: m.person, since: time.Now()}
	}
	text := m.person.Name + " is the host now."
	if h.Lost {
		text = "The host's connection was lost. " + text
	}
	_ = s.notice(notice{Code: "host", Text: text}) // lost for want of room only; the stage cue says who is host all the same
}

// hosted says whether a host is connected.
func (s *Stage) hosted() bool {
	return slices.ContainsFunc(s.members, func(m *member) bool { return m.seat != nil && m.person.Role == event.Host })
}

// succeed asks for a co-host to follow a host who was lost for too long: the one who came first of those who are connected. While there is
// none it goes on looking.
func (s *Stage) succeed(now time.Time) {
	lost := &s.missing
	if lost.host.ID == "" || s.phase != event.Live || s.cfg.OnHostLost == nil ||
		now.Sub(lost.since) < HostGrace || !lost.asked.IsZero() && now.Sub(lost.asked) < askAgain {
		return
	}
	for _, m := range s.members {
		if m.seat != nil && m.person.Role == event.Cohost {
			lost.asked = now
			s.cfg.OnHostLost(Handover{From: lost.host.ID, To: m.person.ID, Lost: true})
			return
		}
	}
}
