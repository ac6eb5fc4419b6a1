package stage

import "sync/atomic"

// Reason says why a seat or a monitor came to its end.
type Reason string

// The reasons that outlets are told.
const (
	Left      Reason = "left"      // by its own wish
	Lost      Reason = "lost"      // the connection was lost
	Displaced Reason = "displaced" // the same person came again
	Removed   Reason = "removed"   // by a host or operator
	Ended     Reason = "ended"     // the event is over
	Restart   Reason = "restart"   // the server goes; the person may come back at once when it is there again
)

// Outlet is where a member hears: the mix without them.
type Outlet interface {
	// Hear takes the packet that goes with frame: 20 ms of Opus, borrowed until Hear returns. It is called from one goroutine
	// per outlet. An outlet that blocks misses frames and delays nobody else.
	Hear(frame uint64, packet []byte)
	// Close says that it is over. It is called once, and possibly while a Hear is stuck, which it should then end.
	Close(r Reason)
}

// earQueue is how many frames wait for an outlet that is busy: enough for a burst of two when a tick was late. Older ones are
// dropped, because to a speaker in a conversation late sound is worse than lost sound.
const earQueue = 2

// maxPacket is the longest Opus packet of one frame (RFC 6716, 3.2.1).
const maxPacket = 1275

// ear is an outlet with the goroutine that serves it. A send can block (a speaker on TCP whose window is closed), and the
// stage has no time for that. Calling Hear straight from the stage was rejected for it: with 50 speakers the worst connection
// would set the pace of all. The slots are made once, so that a frame costs a copy of about 80 bytes and no allocation.
type ear struct {
	out     Outlet
	full    chan *heard // room for every slot; the stage is the only sender
	free    chan *heard
	closed  chan struct{} // closed by the stage
	stopped atomic.Bool   // set by a monitor's stop; the stage closes the ear when it sees it
}

type heard struct {
	frame uint64
	n     int
	buf   [maxPacket]byte
}

// listen starts an ear's goroutine, which ends with deafen.
func (s *Stage) listen(out Outlet) *ear {
	e := &ear{
		out:    out,
		full:   make(chan *heard, earQueue+1),
		free:   make(chan *heard, earQueue+1),
		closed: make(chan struct{}),
	}
	for range cap(e.free) {
		e.free <- new(heard)
	}
	s.ears.Go(e.serve)
	return e
}

func (e *ear) serve() {
	for {
		select {
		case <-e.closed:
			return
		case h := <-e.full:
			e.out.Hear(h.frame, h.buf[:h.n])
			e.free <- h
		}
	}
}

// offer queues a packet, in place of the oldest if the outlet is behind. It says whether it dropped one.
func (e *ear) offer(frame uint64, packet []byte) (dropped bool) {
	var h *heard
	select {
	case h = <-e.free:
	default:
		// One slot is with Hear, so two are queued, unless the goroutine took one or gave one back just now.
		select {
		case h = <-e.full:
			dropped = true
		case h = <-e.free:
		}
	}
	h.frame, h.n = frame, copy(h.buf[:], packet)
	e.full <- h // never blocks: it has room for every slot
	return dropped
}

// deafen ends an ear and tells its outlet why, on a goroutine of its own: it may have to break a Hear that is stuck.
func (s *Stage) deafen(e *ear, r Reason) {
	close(e.closed)
	s.ears.Go(func() { e.out.Close(r) })
}
