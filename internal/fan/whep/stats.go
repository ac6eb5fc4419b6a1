package whep

import (
	"sync/atomic"
	"time"
)

// Why a session ended other than by the listener's choice, or a packet was not sent.
const (
	droppedProtocol = iota
	droppedHandshake
	droppedLost
	droppedQueue
	droppedUnreachable
	droppedCertificate
	nDropped
)

// Why an offer was refused.
const (
	refusedFull = iota
	refusedStopping
	refusedOffer
	nRefused
)

// Why something from a listener was not done.
const (
	inboundForged   = iota // RTCP or DTLS that is not authentic, or came twice
	inboundGarbled         // authentic, but not RTCP
	inboundStrange         // about streams that are not ours
	inboundFlood           // more than anybody needs
	inboundGone            // a retransmission of what is no longer kept
	inboundUnwanted        // media, from who only listens
	inboundPaths           // a check from one address too many
	inboundTaken           // a check from the address of another listener, who plays there
	inboundHost            // a first check from an address that has too many who do not play yet
	inboundReplay          // a check that was seen before, from another address
	inboundLine            // a hello while too many wait for their handshake
	nInbound
)

var (
	droppedNames = [nDropped]string{"protocol", "no_handshake", "lost", "queue", "unreachable", "certificate"}
	refusedNames = [nRefused]string{"full", "stopping", "offer"}
	inboundNames = [nInbound]string{"forged", "garbled", "strange", "flood", "gone", "unwanted", "paths", "taken", "host", "replay", "line"}
)

// latenesses are the upper bounds of the classes in which lateness is counted.
var latenesses = [...]time.Duration{time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond}

// counters are written where things happen and read by Stats.
type counters struct {
	listeners              atomic.Int64
	joined, bytes, skipped atomic.Uint64
	repeated               atomic.Uint64
	dropped                [nDropped]atomic.Uint64
	refused                [nRefused]atomic.Uint64
	inbound                [nInbound]atomic.Uint64
	reports, lost, jitter  atomic.Uint64
	lateness               [len(latenesses) + 1]atomic.Uint64
	latenessSum            atomic.Int64 // ns
}

// late counts a slot that came so many ns after its time.
func (c *counters) late(by int64) {
	i := 0
	for i < len(latenesses) && by > int64(latenesses[i]) {
		i++
	}
	c.lateness[i].Add(1)
	c.latenessSum.Add(by)
}

// Stats is what the engine counted. Reasons stand at zero from the start.
type Stats struct {
	Listeners int64  // connected now
	Pending   int    // answered, not connected yet
	Joined    uint64 // ever connected
	Bytes     uint64 // of RTP, without SRTP's and UDP's headers
	Skipped   uint64 // frames that slow listeners did not get
	Repeated  uint64 // packets sent again

	// Dropped has sessions (protocol, no_handshake, lost, certificate) and packets (queue: no room in a socket; unreachable).
	Dropped map[string]uint64
	Refused map[string]uint64 // offers: full, stopping, offer
	Inbound map[string]uint64 // what listeners sent in vain: see the constants

	// What receivers report (RFC 3550, 6.4.1): how many reports, the mean share of packets lost in them, and the mean jitter.
	Reports uint64
	Loss    float64
	Jitter  time.Duration

	// Late counts slots by how late they were: below 1, 2, 5, 10, 20, 50 ms, and beyond.
	Late    [len(latenesses) + 1]uint64
	LateSum time.Duration // of all slots together

	PacketMS int     // the shortest packets that newcomers get
	Busy     float64 // share of the time that the busiest shard works, over the last two seconds
}

// Stats gives the counters.
func (e *Engine) Stats() Stats {
	c := &e.stats
	s := Stats{
		Listeners: c.listeners.Load(), Joined: c.joined.Load(), Bytes: c.bytes.Load(), Skipped: c.skipped.Load(), Repeated: c.repeated.Load(),
		Dropped: make(map[string]uint64, nDropped), Refused: make(map[string]uint64, nRefused), Inbound: make(map[string]uint64, nInbound),
		Reports: c.reports.Load(),
	}
	for i, name := range droppedNames {
		s.Dropped[name] = c.dropped[i].Load()
	}
	for i, name := range refusedNames {
		s.Refused[name] = c.refused[i].Load()
	}
	for i, name := range inboundNames {
		s.Inbound[name] = c.inbound[i].Load()
	}
	for i := range s.Late {
		s.Late[i] = c.lateness[i].Load()
	}
	s.LateSum = time.Duration(c.latenessSum.Load())
	if s.Reports > 0 {
		s.Loss = float64(c.lost.Load()) / 256 / float64(s.Reports)
		s.Jitter = time.Duration(float64(c.jitter.Load()) / float64(s.Reports) / 48000 * float64(time.Second))
	}
	e.mu.RLock()
	s.Pending = e.pending.size()
	e.mu.RUnlock()
	s.PacketMS, s.Busy = e.pace.state()
	return s
}

// Lateness gives Late as a histogram has it: how many slots there were, and of those how many were at most so many seconds late.
func (s *Stats) Lateness() (slots uint64, atMost map[float64]uint64) {
	atMost = make(map[float64]uint64, len(latenesses))
	for i, n := range s.Late {
		slots += n
		if i < len(latenesses) {
			atMost[latenesses[i].Seconds()] = slots
		}
	}
	return slots, atMost
}
