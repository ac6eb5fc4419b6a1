package stage

import (
	"slices"
	"time"

	"earshot/internal/event"
	"earshot/internal/mix"
)

// MuteBy says who muted somebody; the empty one, nobody.
type MuteBy string

// Who mutes.
const (
	BySelf MuteBy = "self"
	ByHost MuteBy = "host"
)

// member is a person with a place on stage.
type member struct {
	stage    *Stage
	person   event.Person
	key      []byte     // the ID in JSON
	voice    *mix.Voice // of the latest seat; kept while lost, so that monitors go on hearing
	seat     *Seat      // nil while the connection is lost
	hears    bool       // the seat's outlet wants the mix
	tuned    bool       // the voice has a mix made for it; follows hears, seat and monitors at the next tick
	until    time.Time  // while lost: when the place is given up
	monitors []*ear
	selfMute bool
	hostMute bool
	quality  quality
}

// quality is what a member's State says of the connection; it moves every 2 s.
type quality struct {
	loss   float64
	jitter int
}

// hand is a wish to speak.
type hand struct {
	person   event.Person
	named    bool // all may read the name, not only those who tend the hands
	since    time.Time
	admitted bool
}

func (s *Stage) member(id string) *member {
	for _, m := range s.members {
		if m.person.ID == id {
			return m
		}
	}
	return nil
}

func (s *Stage) hand(id string) int {
	return slices.IndexFunc(s.hands, func(h hand) bool { return h.person.ID == id })
}

// standing is where p stands here.
func (s *Stage) standing(p event.Person) event.Standing {
	at := event.Standing{Role: p.Role, OnStage: s.member(p.ID) != nil}
	if h := s.hand(p.ID); h >= 0 {
		at.Hand, at.Admitted = true, s.hands[h].admitted
	}
	return at
}

// neverHeard refuses those who run or tend the event.
var neverHeard = event.Forbidden("This role runs the event and is never heard.")

func (s *Stage) join(p event.Person, out Outlet, hears bool) (*Seat, error) {
	m, h := s.member(p.ID), s.hand(p.ID)
	if m == nil {
		most := MaxVoices
		if p.Role.May(event.Steer) {
			most += HostVoices
		}
		switch at := s.standing(p); {
		case s.roll.Bans(p.ID):
			return nil, banned
		case at.May(event.Speak):
		case at.May(event.RaiseHand):
			return nil, event.Forbidden("Only speakers may do this. Raise your hand and wait until a host lets you speak.")
		default:
			return nil, neverHeard
		}
		switch {
		case len(s.members) >= most:
			return nil, event.Busy("The stage is full. Try again when somebody has left it.")
		}
	}
	// All that can fail comes before anything is changed.
	voice, err := s.desk.Add(mix.VoiceOptions{})
	if err != nil {
		return nil, event.Unavailable("The stage cannot take another voice now. Try again.", err)
	}
	if m == nil {
		m = &member{stage: s, key: marshal(p.ID)}
		_, m.hostMute = s.silenced[p.ID]
		s.members = append(s.members, m)
	} else {
		if m.seat != nil {
			m.seat.end(Displaced)
		}
		s.retire(m.voice)
	}
	if h >= 0 {
		s.hands = slices.Delete(s.hands, h, h+1)
	}
	seat := &Seat{stage: s, ear: s.listen(out)}
	if p.Role == event.Host {
		s.missing = missing{}
	}
	m.person, m.voice, m.seat, m.hears, m.tuned, m.quality = p, voice, seat, hears, false, quality{}
	voice.SetMuted(m.muted() != "")
	s.dirty = true
	return seat, nil
}

// settle acts on what was flagged since the last look, and on what only time brings about.
func (s *Stage) settle(now time.Time) {
	connected := false
	for i := 0; i < len(s.members); {
		m := s.members[i]
		m.monitors = slices.DeleteFunc(m.monitors, func(e *ear) bool {
			stopped := e.stopped.Load()
			if stopped {
				s.deafen(e, Left)
			}
			return stopped
		})
		m.tune()
		if m.seat != nil {
			if r := m.seat.fate.Load(); r != nil {
				s.depart(m, *r, now)
			}
		} else if !now.Before(m.until) {
			s.drop(m, Lost)
		}
		if i < len(s.members) && s.members[i] == m {
			connected = connected || m.seat != nil
			i++
		}
	}
	s.idle(connected, now)
	s.succeed(now)
}

// depart ends a seat whose holder said so.
func (s *Stage) depart(m *member, r Reason, now time.Time) {
	if r != Lost {
		s.drop(m, r)
		return
	}
	m.seat.end(Lost)
	m.seat, m.until = nil, now.Add(Grace)
	s.dirty = true
	if m.person.Role == event.Host && !s.hosted() {
		s.missing = missing{host: m.person, since: now}
	}
	if m.person.Role.May(event.Steer) && s.phase == event.Live && !slices.ContainsFunc(s.members, func(o *member) bool {
		return o.seat != nil && o.person.Role.May(event.Steer)
	}) {
		// Losing this one for want of room loses nothing: the notices before it are still to be read.
		_ = s.notice(notice{Code: "host_lost", Text: "The host's connection was lost. We wait for them to come back."})
	}
}

// drop takes a member off the stage.
func (s *Stage) drop(m *member, r Reason) {
	if m.seat != nil {
		m.seat.end(r)
	}
	for _, e := range m.monitors {
		s.deafen(e, r)
	}
	s.retire(m.voice)
	s.members = slices.DeleteFunc(s.members, func(o *member) bool { return o == m })
	s.dirty = true
}

// retire takes a voice off the desk and keeps its figures.
func (s *Stage) retire(v *mix.Voice) {
	s.gone.add(v.Stats())
	s.desk.Remove(v)
}

// idle watches for a stage that stays empty.
func (s *Stage) idle(connected bool, now time.Time) {
	switch {
	case connected:
		s.idleSince, s.idleTold = time.Time{}, false
		return
	case s.idleSince.IsZero():
		s.idleSince = now
	}
	since := s.idleSince
	if s.phase == event.Doors && s.start.After(since) {
		since = s.start
	}
	if !s.idleTold && s.cfg.OnIdle != nil && now.Sub(since) >= s.idleEnd {
		s.idleTold = true
		go s.cfg.OnIdle() // not waited for: see Config
	}
}

func (s *Stage) monitor(id string, out Outlet) (*ear, error) {
	m := s.member(id)
	if m == nil {
		return nil, notOnStage()
	}
	if len(m.monitors) >= MaxMonitors {
		return nil, event.Busy("There are too many monitors already. Close one first.")
	}
	e := s.listen(out)
	m.monitors = append(m.monitors, e)
	return e, nil
}

// tune has the mix without this member made only while somebody hears it: it costs an encoder's work.
func (m *member) tune() {
	if want := m.seat != nil && m.hears || len(m.monitors) > 0; want != m.tuned {
		m.tuned = want
		m.voice.SetHears(want)
	}
}

// hear offers the member's outlets the mix without them.
func (m *member) hear(n uint64) {
	packet := m.voice.Minus()
	if len(packet) == 0 {
		return
	}
	if m.seat != nil && m.hears && m.seat.ear.offer(n, packet) {
		m.stage.totals.Drops.OutletSlow++
	}
	for _, e := range m.monitors {
		if e.offer(n, packet) {
			m.stage.totals.Drops.MonitorSlow++
		}
	}
}

func (m *member) muted() MuteBy {
	switch {
	case m.hostMute:
		return ByHost
	case m.selfMute:
		return BySelf
	}
	return ""
}

func (s *Stage) mute(id string, by MuteBy, muted bool) error {
	m := s.member(id)
	switch {
	case m == nil:
		return notOnStage()
	case by != BySelf && by != ByHost:
		return event.Invalid("by", "Muting is done by oneself or by a host.")
	case by == BySelf && !muted && m.hostMute:
		return event.Forbidden("A host muted you. Only a host can let you speak again.")
	case by == ByHost && !muted && m.selfMute && !m.hostMute:
		return event.Conflict("They muted themself. Ask them to unmute.")
	}
	if by == BySelf {
		m.selfMute = muted
	} else if m.hostMute = muted; muted {
		s.silenced[id] = struct{}{}
	} else {
		delete(s.silenced, id)
	}
	m.voice.SetMuted(m.muted() != "")
	s.dirty = true
	return nil
}

func (s *Stage) remove(id string) error {
	m, h := s.member(id), s.hand(id)
	if m == nil && h < 0 {
		return notOnStage()
	}
	if h >= 0 {
		s.hands = slices.Delete(s.hands, h, h+1)
	}
	if m != nil {
		s.drop(m, Removed)
	}
	s.dirty = true
	return nil
}

var banned = event.Forbidden("You were banned from this event. Only those who run it can take that back.")

func (s *Stage) ban(b event.Banned) {
	s.roll.Unban(b.Person)
	s.roll.Banned = append(s.roll.Banned, b) // the store bounds how many
	for _, m := range slices.Clone(s.members) {
		if b.Means(m.person.ID) {
			s.drop(m, Removed)
		}
	}
	s.hands = slices.DeleteFunc(s.hands, func(h hand) bool { return b.Means(h.person.ID) })
	s.dirty = true
}

func (s *Stage) raise(p event.Person, named bool) error {
	switch {
	case s.roll.Bans(p.ID):
		return banned
	case s.member(p.ID) != nil:
		return event.Conflict("You are on stage already.")
	case p.Role.May(event.Speak):
		return event.Conflict("You may speak already. Join the stage.")
	case !p.Role.May(event.RaiseHand):
		return neverHeard
	}
	if h := s.hand(p.ID); h >= 0 {
		s.hands[h].person, s.hands[h].named = p, named
	} else if len(s.hands) >= MaxHands {
		return event.Busy("Many hands are up already. Try again in a while.")
	} else {
		s.hands = append(s.hands, hand{person: p, named: named, since: time.Now().Round(0).UTC()})
	}
	s.dirty = true
	return nil
}

func (s *Stage) lower(id string) error {
	h := s.hand(id)
	if h < 0 {
		return event.NotFound("This hand is not up any more.")
	}
	s.hands = slices.Delete(s.hands, h, h+1)
	s.dirty = true
	return nil
}

func (s *Stage) admit(id string) error {
	h := s.hand(id)
	if h < 0 {
		return event.NotFound("This hand is not up any more.")
	}
	s.hands[h].admitted = true
	s.dirty = true
	return nil
}

func notOnStage() error { return event.NotFound("This person is not on stage any more.") }
