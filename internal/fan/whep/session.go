package whep

import (
	"container/list"
	"context"
	"crypto"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"earshot/internal/observatory"
)

// ufrag is our half of a check's user name. Speakers' have another length, so the two never meet.
type ufrag [8]byte

// password signs checks; 144 bits.
type password [24]byte

// path is a way to a listener: a UDP address, or a TCP connection.
type path struct {
	tcp *stream
	udp where
}

// at gives the address at the other end.
func (p path) at() where {
	if p.tcp != nil {
		return p.tcp.at
	}
	return p.udp
}

// stage of a session's life.
type life uint8

const (
	waiting life = iota // for its first check, or its first hello
	inLine              // for its turn to shake hands
	shakes
	playing
	over
)

// session is one listener. Its memory is what one more listener costs: no goroutine, no buffer, one cipher.
type session struct {
	// What each packet needs, side by side: sessions are cold when their turn comes. Owned by the shard, keys apart, which do not change.
	base    uint64 // index of packet n of the lane is base+n
	keys    *keyring
	dest    path
	lanePos int
	ssrc    uint32 // fixed
	octets  uint32
	opus    uint8 // fixed, as red: payload types; red 0: none
	red     uint8
	sent    bool // something, since it was last looked after

	// Owned by the shard.
	feed      *feed
	lane      *lane
	allPos    int
	start     uint64 // the first index
	laneStart uint64 // the first on this lane
	ear       *observatory.Listener
	repeated  int64
	reportAt  int64
	reports   uint32

	// Fixed.
	in    *Engine
	ch    *channel
	id    string
	pwd   password
	ufrag ufrag
	nack  bool
	wish  int // frames in a packet, at the least
	since int64

	theirs   string // the client's half of a check's user name
	theirKey []byte // of its password, see shortKey

	heard   atomic.Int64 // when the last authentic check came from where the session is, ns of the engine
	reached atomic.Bool  // there was one, from anywhere

	// Guarded by Engine.mu.
	paths   []where       // answered addresses
	place   *list.Element // in Engine.pending; nil: it is not there
	greeted int64         // when the handshake was first asked for; 0: it was not
	host    host          // where it is counted as pending

	mu        sync.Mutex
	life      life
	nominated bool
	to        path       // which proved that it receives; none at first
	questions []question // about other paths
	streams   []*stream  // its TCP connections
	asks      int64      // what may be asked, see question
	via       *shard
	shaking   *shaking // from its first hello until it plays
	cancel    context.CancelFunc
	hash      crypto.Hash // of the certificate that the offer named
	print     []byte
	records   *recordKeys // next is the shard's
	flight    []byte      // our last one, for a client that did not get it
	flights   uint8       // how often it was sent again
	window    window
	allowance int64 // of RTCP, see believe
	doubts    int64 // of what is not authentic

	checks  [checksKept]uint32 // the beginnings of the latest checks' transactions
	checkAt uint8
}

// checksKept is how many checks are remembered: those of some twenty seconds, or of two while a connection is made.
const checksKept = 8

// attach notes that a TCP connection is the session's, if it may have one more.
func (s *session) attach(t *stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life == over || len(s.streams) >= tcpSession {
		return false
	}
	s.streams = append(s.streams, t)
	return true
}

// detach notes that it is closed.
func (s *session) detach(t *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams = slices.DeleteFunc(s.streams, func(o *stream) bool { return o == t })
}

// hangUp ends the connections of a session that is over, and was told so.
func (s *session) hangUp() {
	s.mu.Lock()
	streams := slices.Clone(s.streams)
	s.mu.Unlock()
	for _, t := range streams {
		t.hangUp()
	}
}

// seen says whether a check came lately, other than from where the session is: somebody may listen on the way and send it again. An
// older one is taken for new; it is answered, and can fill the session's paths, but moves nothing, as its sender cannot answer ours.
func (s *session) seen(transaction uint32, from path) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.checks {
		if t == transaction {
			return from != s.to
		}
	}
	s.checks[s.checkAt] = transaction
	s.checkAt = (s.checkAt + 1) % checksKept
	return false
}

// guarded is how long the address of one who plays is theirs after a check: somewhat longer than the longest pause between checks (RFC
// 7675, 5.1: six seconds).
const guarded = 7 * time.Second

// lives says whether the session, which plays, is at an address and was heard from there just now.
func (s *session) lives(at path) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.to == at && s.in.now()-s.heard.Load() < int64(guarded)
}

// What is authentic is paid for like retransmissions: so many packets at once, and one more each tenth of a second. What is not is paid for
// apart, since anybody can send it in the listener's name: a microsecond each, and a quarter of a millisecond in a second.
const (
	rtcpSaved  = 32
	rtcpEvery  = int64(100 * time.Millisecond)
	doubtSaved = 256
	doubtEvery = int64(4 * time.Millisecond)
)

// believe opens a packet, and says why it is not to be heeded: an inbound reason, or -1. The caller holds mu.
func (s *session) believe(open func() ([]byte, error)) (plain []byte, why int) {
	now := s.in.now()
	if s.doubts > now {
		return nil, inboundFlood
	}
	plain, err := open()
	if err != nil {
		s.doubts = max(s.doubts, now-doubtSaved*doubtEvery) + doubtEvery
		return nil, inboundForged
	}
	if s.allowance = max(s.allowance, now-rtcpSaved*rtcpEvery); s.allowance > now {
		return nil, inboundFlood
	}
	s.allowance += rtcpEvery
	return plain, -1
}

// send sends one datagram to where the session is. It is for the handshake; what is played goes through the shard.
func (s *session) send(b []byte) {
	s.mu.Lock()
	to := s.to
	s.mu.Unlock()
	s.in.sendTo(to, b)
}

// hello takes a datagram of DTLS records from one of the session's paths. If no path has proved itself yet, it says whether to ask this
// one, and by which transaction.
func (s *session) hello(b []byte, from path) (t tid, asks bool) {
	s.mu.Lock()
	switch s.life {
	case waiting:
		if s.shaking == nil {
			s.shaking = newShaking(s)
		}
		k := s.shaking
		if s.to == (path{}) { // what is answered to a hello is ten times as long
			if k.bytes.Load()+int64(len(b)) > helloUnprovedAt || !k.push(b) {
				s.in.stats.inbound[inboundFlood].Add(1)
			}
			t, asks = s.question(from, false, s.in.now(), len(b))
			s.mu.Unlock()
			return t, asks
		}
		k.push(b)
		s.life = inLine
		s.mu.Unlock()
		s.in.queue(s)
		return t, false
	case inLine, shakes:
		k := s.shaking
		s.mu.Unlock()
		if k.bytes.Load()+int64(len(b)) > handshakeBytes {
			s.in.stats.inbound[inboundFlood].Add(1)
			s.in.drop(s, droppedProtocol)
		} else if !k.push(b) {
			s.in.stats.inbound[inboundFlood].Add(1)
		}
		return t, false
	case playing:
	default:
		s.mu.Unlock()
		return t, false
	}
	gone := false
	var again []byte
	for r := range records(b) {
		if r.epoch == 0 || r.kind != contentAlert && r.kind != contentHandshake {
			continue // repetitions of the handshake, which only its end proves to be the client's
		}
		text, why := s.believe(func() ([]byte, error) { return s.records.open(r) })
		if why >= 0 {
			s.in.stats.inbound[why].Add(1)
			continue
		}
		switch {
		case r.kind == contentAlert && len(text) == 2 && (text[1] == closeNotify || text[0] == 2):
			gone = true
		case r.kind == contentHandshake && s.flights < 8:
			s.flights++
			again = s.flight
		}
	}
	s.mu.Unlock()
	switch {
	case gone:
		s.in.drop(s, -1)
	case again != nil && len(again) <= len(b):
		s.send(again)
	}
	return t, false
}

// control takes an SRTCP packet from one of the session's paths.
func (s *session) control(b []byte) {
	c := &s.in.stats
	s.mu.Lock()
	if s.life != playing {
		s.mu.Unlock()
		return
	}
	plain, why := s.believe(func() ([]byte, error) { return s.keys.openRTCP(b, &s.window) })
	via := s.via
	s.mu.Unlock()
	if why >= 0 {
		c.inbound[why].Add(1)
		return
	}
	var f feedback
	if !f.read(plain, s.ssrc) {
		c.inbound[inboundGarbled].Add(1)
		return
	}
	c.inbound[inboundStrange].Add(uint64(f.strange))
	if f.report {
		c.reports.Add(1)
		c.lost.Add(uint64(f.lost))
		c.jitter.Add(uint64(f.jitter))
	}
	if f.bye {
		s.in.drop(s, -1)
		return
	}
	if !s.nack {
		return
	}
	for _, n := range f.nack[:f.nacks] {
		via.post(order{what: orderRepeat, s: s, nack: n})
	}
}
