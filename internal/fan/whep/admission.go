package whep

import (
	"slices"

	"earshot/internal/event"
)

// maxPaths bounds the addresses from which one session's checks are answered. One is usual; somebody who moves between networks has
// some more. A listener with 64 Ki ports, or with addresses that are not theirs, could fill the memory. Who needs more connects anew.
const maxPaths = 128

func (e *Engine) admit(s *session, src Source) error {
	var gone *session
	defer func() {
		if gone != nil {
			e.end(gone, droppedHandshake)
		}
	}()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		e.stats.refused[refusedStopping].Add(1)
		return event.Unavailable("The server restarts. Try again in a few seconds.", nil)
	}
	full := len(e.sessions) >= e.cfg.Max
	if !full && e.pending.size() >= e.cfg.MaxPending {
		// One who has been half-open for too long gives way.
		if gone = e.pending.oldest(e.now()); gone != nil {
			e.forget(gone)
		}
		full = gone == nil
	}
	if full {
		e.stats.refused[refusedFull].Add(1)
		return event.Unavailable("The server has as many WebRTC listeners as it can take. Listen another way, or try again in a minute.", nil)
	}
	ch := e.channels[src.Timeline]
	if ch == nil {
		ch = newChannel(src, e.pace.frames(), len(e.shards))
		e.channels[src.Timeline] = ch
		e.wg.Go(func() { e.follow(ch) })
	}
	ch.users++
	s.ch = ch
	e.sessions[s.id], e.byUfrag[s.ufrag] = s, s
	e.pending.add(s)
	e.alive.Add(1)
	return nil
}

// forget takes a session out of all maps, and says whether it was there. The caller holds mu.
func (e *Engine) forget(s *session) bool {
	if e.sessions[s.id] != s {
		return false
	}
	delete(e.sessions, s.id)
	delete(e.byUfrag, s.ufrag)
	e.pending.remove(s)
	for _, w := range s.paths {
		if e.byPath[w] == s {
			delete(e.byPath, w)
		}
	}
	s.paths = nil
	if s.ch.users--; s.ch.users == 0 {
		delete(e.channels, s.ch.src.Timeline)
		close(s.ch.stop)
	}
	return true
}

// find gives the session behind a check's user name.
func (e *Engine) find(name []byte) *session {
	if len(name) != len(ufrag{}) {
		return nil
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.byUfrag[ufrag(name)]
}

// at gives the session that an address belongs to.
func (e *Engine) at(from where) *session {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.byPath[from]
}

// checked takes an authentic check, and says whether its address is one of the session's. Whether the session moves there is decided
// elsewhere, see wonder.
func (e *Engine) checked(s *session, transaction uint32, from path) bool {
	known := from.tcp == nil && e.at(from.udp) == s
	if known || from.tcp != nil && s.reached.Load() {
		if s.seen(transaction, from) && !known {
			e.stats.inbound[inboundReplay].Add(1)
			return false
		}
		return true
	}
	why := e.enter(s, transaction, from)
	if why >= 0 {
		e.stats.inbound[why].Add(1)
	}
	return why == entered
}

// What enter answers if it is not a reason.
const (
	entered = -1 - iota
	ended
)

// enter takes a check from an address that is not its session's, and gives the inbound reason why it does not become so.
func (e *Engine) enter(s *session, transaction uint32, from path) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	first := !s.reached.Load()
	owner := e.byPath[from.udp]
	switch {
	case e.sessions[s.id] != s:
		return ended
	case from.tcp == nil && owner != nil && owner.place == nil && owner.lives(from):
		return inboundTaken
	case from.tcp == nil && len(s.paths) >= maxPaths:
		return inboundPaths
	}
	if first {
		most := e.cfg.MaxPending
		if e.pending.size() > e.cfg.MaxPending/2 {
			most = e.cfg.MaxPendingHost
		}
		if !e.pending.comes(s, hostOf(from.at()), most) {
			return inboundHost
		}
		s.reached.Store(true)
	}
	// Only now: a check that is refused for another reason may come again.
	if s.seen(transaction, from) {
		return inboundReplay
	}
	if from.tcp == nil {
		// An address that was another's is this one's now: it has the password, and the other's page was left.
		if !slices.Contains(s.paths, from.udp) {
			if len(s.paths) == 0 {
				s.paths = make([]where, 0, 1) // nearly all have one
			}
			s.paths = append(s.paths, from.udp)
		}
		e.byPath[from.udp] = s
	}
	return entered
}
