package stage

import (
	"sync"
	"sync/atomic"
	"time"

	"earshot/internal/mix"
)

const (
	// inboxPackets is how many of a seat's packets wait for the next tick: one or two when all is well, and beyond 640 ms the
	// jitter buffer (200 ms) has no use for them. When it is full the oldest is dropped.
	inboxPackets = 32
	// maxPayload is the longest RTP payload taken. What WebRTC sends fits the path's MTU.
	maxPayload = 1500
)

// Seat is one connection of a member, in the hands of whoever carries its packets. All methods are safe from any goroutine
// and never block.
type Seat struct {
	stage  *Stage
	person string
	fate   atomic.Pointer[Reason] // set once, by Lost or Leave; the stage acts when it sees it
	ear    *ear                   // owned by the stage

	mu   sync.Mutex
	in   *inbox // guarded by mu
	gone bool   // guarded by mu: nobody drains any more
	lost drops  // guarded by mu: since the last drain

	out *inbox // owned by the stage; swapped with in, so that the desk is fed without the lock
}

// inbox is a ring of packets whose payload buffers stay.
type inbox struct {
	packets  [inboxPackets]mix.Packet
	first, n int
}

type drops struct{ full, oversize uint64 }

// Push hands the stage a packet of the voice. Payload is borrowed until Push returns; Arrived is set here, by the clock that
// the desk is mixed by. The oldest packet is dropped when inboxPackets wait.
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
		if s.in.add(p) {
			s.lost.full++
		}
	}
}

func (b *inbox) add(p mix.Packet) (dropped bool) {
	if b.n == inboxPackets {
		b.first, b.n, dropped = (b.first+1)%inboxPackets, b.n-1, true
	}
	slot := &b.packets[(b.first+b.n)%inboxPackets]
	p.Payload = append(slot.Payload[:0], p.Payload...)
	*slot = p
	b.n++
	return dropped
}

// drain feeds the desk what arrived since the last tick.
func (s *Seat) drain(v *mix.Voice) {
	s.mu.Lock()
	s.in, s.out = s.out, s.in
	lost := s.lost
	s.lost = drops{}
	s.mu.Unlock()
	s.stage.totals.Drops.VoiceFull += lost.full
	s.stage.totals.Drops.VoiceOversize += lost.oversize
	for ; s.out.n > 0; s.out.n-- {
		v.Push(s.out.packets[s.out.first])
		s.out.first = (s.out.first + 1) % inboxPackets
	}
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

// end closes the seat's inbox and outlet.
func (s *Seat) end(r Reason) {
	s.mu.Lock()
	s.gone = true
	lost := s.lost
	s.mu.Unlock()
	s.stage.totals.Drops.VoiceFull += lost.full
	s.stage.totals.Drops.VoiceOversize += lost.oversize
	s.stage.deafen(s.ear, r)
}
