package stage

import (
	"sync"
	"sync/atomic"
	"time"

	"earshot/internal/mix"
)

const (
	// inboxPackets is how many of a seat's packets wait for their tick: one or two when all is well, and as many as are spoken
	// while the stage may be late without a jump (2 s of 20 ms), so that a late stage loses no word. The oldest is dropped when
	// it is full: the newest are what a conversation goes on with.
	inboxPackets = 128
	// maxPayload is the longest RTP payload taken. What WebRTC sends fits the path's MTU.
	maxPayload = 1500
	// usualPayload is what a buffer begins with; 20 ms at 64 kbit/s are 160 bytes.
	usualPayload = 256
)

// Seat is one connection of a member, in the hands of whoever carries its packets. All methods are safe from any goroutine
// and never block.
type Seat struct {
	stage *Stage
	fate  atomic.Pointer[Reason] // set once, by Lost or Leave; the stage acts when it sees it

	ear   *ear       // owned by the stage
	taken mix.Packet // owned by the stage: the packet on its way to the desk, whose memory goes back into the inbox with the next

	mu    sync.Mutex
	inbox inbox // guarded by mu
	gone  bool  // guarded by mu: nobody takes any more
	lost  drops // guarded by mu: since the last look
}

// inbox is a ring of packets. Payload buffers that came back lie in spare, the last on top: in good times one or two go round.
type inbox struct {
	packets  [inboxPackets]mix.Packet
	first, n int
	spare    [][]byte
}

type drops struct{ full, oversize uint64 }

// Push hands the stage a packet of the voice. Payload is borrowed until Push returns; Arrived is set here, by the clock that
// the desk is mixed by.
func (s *Seat) Push(p mix.Packet) {
	p.Arrived = time.Since(s.stage.clock.zero)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.gone:
		s.stage.board.afterwards.Add(1)
	case len(p.Payload) > maxPayload:
		s.lost.oversize++
	default:
		if s.inbox.add(p) {
			s.lost.full++
		}
	}
}

func (b *inbox) add(p mix.Packet) (dropped bool) {
	if b.n == inboxPackets {
		b.spare = append(b.spare, b.shift().Payload)
		dropped = true
	}
	var buf []byte
	if i := len(b.spare) - 1; i >= 0 {
		buf, b.spare = b.spare[i], b.spare[:i]
	} else {
		buf = make([]byte, 0, usualPayload)
	}
	p.Payload = append(buf[:0], p.Payload...)
	b.packets[(b.first+b.n)%inboxPackets] = p
	b.n++
	return dropped
}

func (b *inbox) shift() mix.Packet {
	p := b.packets[b.first]
	b.packets[b.first] = mix.Packet{}
	b.first, b.n = (b.first+1)%inboxPackets, b.n-1
	return p
}

// drain feeds the desk what had arrived by until. Later packets stay, so that a late stage mixes each frame of what was there
// when it was due. One is taken at a time, so that
// the desk is not called under the lock.
func (s *Seat) drain(v *mix.Voice, until time.Duration) {
	for s.take(until) {
		v.Push(s.taken)
	}
}

func (s *Seat) take(until time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &s.inbox
	if b.n == 0 || b.packets[b.first].Arrived > until {
		return false
	}
	if s.taken.Payload != nil {
		b.spare = append(b.spare, s.taken.Payload)
	}
	s.taken = b.shift()
	return true
}

// account moves what the seat dropped to the stage's counters.
func (s *Seat) account(last bool) {
	s.mu.Lock()
	lost := s.lost
	s.lost, s.gone = drops{}, s.gone || last
	s.mu.Unlock()
	s.stage.totals.Drops.VoiceFull += lost.full
	s.stage.totals.Drops.VoiceOversize += lost.oversize
}

// end closes the seat's inbox and outlet.
func (s *Seat) end(r Reason) {
	s.account(true)
	s.stage.deafen(s.ear, r)
}

// Lost says that the connection is gone without a word. The outlet is closed; the member's place is kept for Grace, in which a
// new Join brings them back as they were.
func (s *Seat) Lost() { s.flag(Lost) }

// Leave gives up the seat and the place. r is what the outlet is told. It does nothing for a seat that was displaced.
func (s *Seat) Leave(r Reason) { s.flag(r) }

func (s *Seat) flag(r Reason) {
	if s.fate.CompareAndSwap(nil, &r) {
		s.stage.wake()
	}
}

// wake has the stage look at all seats' and ears' flags. One wish in the channel is enough for all.
func (s *Stage) wake() {
	select {
	case s.nudge <- struct{}{}:
	default:
	}
}
