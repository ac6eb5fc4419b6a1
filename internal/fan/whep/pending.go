package whep

import (
	"container/list"
	"time"
)

// How long one who does not play yet is safe from being given up for a newcomer, when there is no more room. A browser's first check comes
// within a round trip, its hello in the next, and its handshake takes a few; whoever floods sends none of them, or stops half-way.
const (
	idleSafe    = 2 * time.Second // from the offer to the first hello of an address that proved itself
	shakingSafe = 4 * time.Second // from there until it plays
)

// host is a machine, or whatever has one address: of IPv6 the /64, since nobody has less.
type host [16]byte

func hostOf(w where) host {
	h := host(w.ip)
	if !w.is4() {
		clear(h[8:])
	}
	return h
}

// pending are the sessions that do not play yet, in order of age, so that no flood makes anybody search. Engine.mu guards it.
type pending struct {
	idle    list.List    // in order of their offers
	shaking list.List    // in line, or in the handshake; in order of their hellos
	hosts   map[host]int // how many of them come from where, as far as that is known
}

func (p *pending) size() int { return p.idle.Len() + p.shaking.Len() }

func (p *pending) add(s *session) { s.place = p.idle.PushBack(s) }

// shakes notes that a session said hello.
func (p *pending) shakes(s *session, now int64) {
	if s.place == nil || s.greeted != 0 {
		return
	}
	p.idle.Remove(s.place)
	s.greeted, s.place = now, p.shaking.PushBack(s)
}

// comes notes where a session's first check came from. It says no if too many of that host's are pending already.
func (p *pending) comes(s *session, from host, most int) bool {
	if s.place == nil {
		return true
	}
	if p.hosts[from] >= most {
		return false
	}
	p.hosts[from]++
	s.host = from
	return true
}

// remove takes a session out, if it is there.
func (p *pending) remove(s *session) {
	if s.place == nil {
		return
	}
	if s.greeted == 0 {
		p.idle.Remove(s.place)
	} else {
		p.shaking.Remove(s.place)
	}
	s.place = nil
	if n, ok := p.hosts[s.host]; ok {
		if n == 1 {
			delete(p.hosts, s.host)
		} else {
			p.hosts[s.host] = n - 1
		}
	}
}

// oldest gives the one to give up for a newcomer, nil if all are safe.
func (p *pending) oldest(now int64) *session {
	if e := p.idle.Front(); e != nil && now-e.Value.(*session).since > int64(idleSafe) {
		return e.Value.(*session)
	}
	if e := p.shaking.Front(); e != nil && now-e.Value.(*session).greeted > int64(shakingSafe) {
		return e.Value.(*session)
	}
	return nil
}

// late gives those who take longer than anybody may.
func (p *pending) late(now int64) (late []*session) {
	for e := p.idle.Front(); e != nil && now-e.Value.(*session).since > int64(handshake); e = e.Next() {
		late = append(late, e.Value.(*session))
	}
	for e := p.shaking.Front(); e != nil; e = e.Next() {
		if s := e.Value.(*session); now-s.since > int64(handshake) {
			late = append(late, s)
		}
	}
	return late
}
