package whep

import (
	"crypto/rand"
	"time"
)

// A check proves who sent it, and not from where: its source can be forged, or it can be overheard and sent on. So to an address that
// has not proved that it receives, and that the client is there, go only answers to checks and, five in a second, checks of ours, none
// longer than what caused it. The proof is the answer to a check of ours, signed with the client's password, which only it and the server
// know and no check gives away. All ICE agents answer (RFC 8445, 7.3). It takes no time: the question goes out beside the answer to the
// client's first check, and is answered before the client's first hello, or beside it. Over a path of 100 ms there and back, Pion's agent
// joins in 411 ms; without the proof it took 510, as it waited for its own next check, and with a cookie of DTLS (RFC 6347, 4.2.1) 614. And
// the cookie says nothing when a listener moves.

// question is a check of ours that waits for its answer.
type question struct {
	to        path
	tid       tid
	sent      int64
	nominated bool // what was asked because of it
}

const (
	questionsMost   = 4                             // of one session, at once
	questionFor     = int64(5 * time.Second)        // so long an answer counts
	questionAgain   = int64(100 * time.Millisecond) // the same question is not sent sooner
	questionsSaved  = 8
	questionEvery   = int64(200 * time.Millisecond) // one more of a session's questions
	helloUnprovedAt = 4096                          // bytes of DTLS that are kept while an address is not proved: a client's first flight, twice

	// deserted is how long nothing may come from where a session is before a check from elsewhere moves it that nominates nothing. An
	// agent whose NAT gave it another address does not know it, and only keeps checking, each two to three seconds.
	deserted = int64(3 * time.Second)
)

// wonder takes note of an authentic check, and says whether to ask the address that it came from, and by which transaction. most
// is the check's length, which no question exceeds. What is sent goes to the first address that answers, then to whichever of those that answer the client nominated last (RFC 8445, 8.1.1).
func (s *session) wonder(from path, nominated bool, most int) (tid, bool) {
	now := s.in.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.life == over:
		return tid{}, false
	case s.to == from:
		s.nominated = s.nominated || nominated
		s.heard.Store(now) // consent is for this path alone (RFC 7675, 5.1)
		return tid{}, false
	case s.to == path{}, nominated, now-s.heard.Load() > deserted:
		return s.question(from, nominated, now, most)
	}
	return tid{}, false
}

// question asks an address whether the client is there, if it was not asked just now. The caller holds mu.
func (s *session) question(to path, nominated bool, now int64, most int) (tid, bool) {
	if askSize(s.theirs) > most {
		return tid{}, false
	}
	at := -1
	for i := range s.questions {
		if s.questions[i].to == to {
			at = i
			s.questions[i].nominated = s.questions[i].nominated || nominated
			break
		}
	}
	if at >= 0 && now-s.questions[at].sent < questionAgain {
		return tid{}, false
	}
	if s.asks = max(s.asks, now-questionsSaved*questionEvery); s.asks > now {
		s.in.stats.inbound[inboundFlood].Add(1)
		return tid{}, false
	}
	s.asks += questionEvery
	if at < 0 {
		if len(s.questions) == questionsMost {
			s.questions = append(s.questions[:0], s.questions[1:]...)
		}
		q := question{to: to, nominated: nominated}
		_, _ = rand.Read(q.tid[:])
		s.questions = append(s.questions, q)
		at = len(s.questions) - 1
	}
	s.questions[at].sent = now
	return s.questions[at].tid, true
}

// proved takes the answer to a question. It says whether it was one.
func (s *session) proved(c *check, h *hmacSHA1, from path) bool {
	now := s.in.now()
	s.mu.Lock()
	at := -1
	for i := range s.questions {
		if q := &s.questions[i]; q.to == from && q.tid == tid(c.raw[8:stunHeader]) && now-q.sent < questionFor {
			at = i
		}
	}
	if s.life == over || at < 0 || !c.authentic(h, s.theirKey) {
		s.mu.Unlock()
		return false
	}
	nominated := s.questions[at].nominated
	// Those before it asked for what is out of date now.
	if s.questions = append(s.questions[:0], s.questions[at+1:]...); len(s.questions) == 0 {
		s.questions = nil
	}
	if s.to != (path{}) && !nominated && now-s.heard.Load() <= deserted {
		s.mu.Unlock()
		return true
	}
	s.to, s.nominated = from, s.nominated || nominated
	s.heard.Store(now)
	begins := false
	switch {
	case s.life == playing:
		s.via.post(order{what: orderMove, s: s, to: from})
	case s.life == waiting && s.shaking != nil: // it said hello already
		s.life, begins = inLine, true
	}
	s.mu.Unlock()
	if begins {
		s.in.queue(s)
	}
	return true
}

// ask writes a question for a session into b and gives its length.
func (e *Engine) ask(b []byte, h *hmacSHA1, s *session, t tid) int {
	return ask(b, h, s.theirs, s.ufrag, s.theirKey, t, e.tie)
}
