package whep

import "sync/atomic"

// Why a session ended other than by the listener's choice, or a packet was not sent.
const (
	droppedProtocol = iota
	droppedHandshake
	droppedLost
	droppedQueue
	nDropped
)

// Why an offer was refused.
const (
	refusedFull = iota
	refusedStopping
	refusedOffer
	nRefused
)

var (
	droppedNames = [nDropped]string{"protocol", "no_handshake", "lost", "queue"}
	refusedNames = [nRefused]string{"full", "stopping", "offer"}
)

// counters are written where things happen and read by Stats.
type counters struct {
	listeners              atomic.Int64
	joined, bytes, skipped atomic.Uint64
	dropped                [nDropped]atomic.Uint64
	refused                [nRefused]atomic.Uint64
}

// Stats is what the engine counted. Reasons stand at zero from the start.
type Stats struct {
	Listeners int64             // connected now
	Joined    uint64            // ever connected
	Bytes     uint64            // of RTP, without SRTP's and UDP's headers
	Skipped   uint64            // frames that slow listeners did not get
	Dropped   map[string]uint64 // protocol, no_handshake, lost: sessions; queue: packets
	Refused   map[string]uint64 // full, stopping, offer
}

// Stats gives the counters.
func (w *Engine) Stats() Stats {
	s := Stats{
		Listeners: w.stats.listeners.Load(), Joined: w.stats.joined.Load(), Bytes: w.stats.bytes.Load(), Skipped: w.stats.skipped.Load(),
		Dropped: make(map[string]uint64, nDropped), Refused: make(map[string]uint64, nRefused),
	}
	for i, name := range droppedNames {
		s.Dropped[name] = w.stats.dropped[i].Load()
	}
	for i, name := range refusedNames {
		s.Refused[name] = w.stats.refused[i].Load()
	}
	return s
}
