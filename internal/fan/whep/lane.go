package whep

import (
	"earshot/internal/event"
	"earshot/internal/peer"
	"earshot/internal/timeline"
)

// The lengths of packets, in frames: 20, 60 and 120 ms.
var lengths = [...]int{1, 3, 6}

const (
	longest    = 6
	payloadMax = 1200      // bytes: what is put together stays below every path's MTU
	maxRepeat  = 1<<10 - 1 // bytes of a repetition: the ten bits of its header (RFC 2198, 3)
	redHeader  = 5         // bytes: of one repetition and of the packet itself
)

// lane makes the packets of one length for the sessions of one event on one shard, once for all of them. Longer packets have a lane for
// each frame at which they may begin: so in every 20 ms a third or a sixth of the sessions is served, and nobody waits for a slot.
type lane struct {
	frames int // in a packet
	phase  int // packets end before frames that leave this remainder

	sessions []*session
	cursor   int   // those before it have got the newest packet
	since    int64 // when that was made, ns of the engine

	made uint64 // packets so far, so the newest is number made-1
	ring []packet

	part  [longest][]byte // frames of the packet that is being filled
	n     int
	bytes int
	first uint64 // number of its first frame
}

// packet is what all sessions of a lane get, but for the seal.
type packet struct {
	first    uint64 // frame
	frames   int
	plain    []byte // Opus
	red      []byte // the same with the packet before it (RFC 2198); nil until somebody needs it
	plainBuf []byte
	redBuf   []byte
}

// kept is how many packets stay for retransmission: 1.3 s at 20 ms, 2 s at more. Later nobody waits for one.
func kept(frames int) int {
	if frames == 1 {
		return 64
	}
	return 32
}

// closes says whether the packet that is being filled must end before this frame.
func (l *lane) closes(n uint64, p []byte) bool {
	return l.n > 0 && (n != l.first+uint64(l.n) || p[0]&^3 != l.part[0][0]&^3 || l.bytes+len(p)+2*l.n+2 > payloadMax)
}

// add takes a frame, and says whether the packet is full.
func (l *lane) add(n uint64, p []byte) bool {
	if l.n == 0 {
		l.first, l.bytes = n, 0
	}
	l.part[l.n] = p
	l.n++
	l.bytes += len(p)
	return l.n == l.frames || (n+1)%uint64(l.frames) == uint64(l.phase)
}

// close makes the packet of what was added. Everybody must have got the one before.
func (l *lane) close(now int64) {
	if l.n == 0 {
		return
	}
	if l.ring == nil {
		l.ring = make([]packet, kept(l.frames))
	}
	p := &l.ring[l.made%uint64(len(l.ring))]
	p.first, p.frames, p.red = l.first, l.n, nil
	if l.n == 1 {
		p.plain = l.part[0]
	} else {
		// Frames of 20 ms with the same TOC always fit, so there is no other case.
		p.plainBuf, _ = timeline.Repack(p.plainBuf[:0], l.part[:l.n]...)
		p.plain = p.plainBuf
	}
	clear(l.part[:l.n])
	l.n = 0
	l.made++
	l.cursor, l.since = 0, now
}

// redundant gives packet number n with the one before it, so that one lost packet in a row is heard by nobody. What is made once stays:
// under one SRTP index there must never be two texts.
func (l *lane) redundant(n uint64, tl *timeline.Timeline) []byte {
	p := &l.ring[n%uint64(len(l.ring))]
	if p.red != nil {
		return p.red
	}
	var before []byte
	var back int
	if n > 0 {
		if q := &l.ring[(n-1)%uint64(len(l.ring))]; q.frames > 0 && q.first+uint64(q.frames) == p.first {
			before, back = q.plain, q.frames
		}
	}
	if before == nil && p.first > 0 { // the lane begins here; what was heard last came over another
		if f, err := tl.Frame(p.first - 1); err == nil {
			before, back = f.Packet, 1
		}
	}
	b := p.redBuf[:0]
	if k := len(before); k > 0 && k <= maxRepeat && k+len(p.plain)+redHeader <= payloadMax {
		offset := back * event.FrameSamples // 14 bits; 120 ms are 5760
		b = append(b, 0x80|peer.PayloadOpus, byte(offset>>6), byte(offset&0x3f<<2|k>>8), byte(k), peer.PayloadOpus)
		b = append(b, before...)
	} else {
		b = append(b, peer.PayloadOpus)
	}
	b = append(b, p.plain...)
	p.redBuf, p.red = b, b
	return b
}

// follows says whether what comes next, if the timeline's next frame is this, follows the newest packet without a gap.
func (l *lane) follows(next uint64) bool {
	if l.n > 0 {
		next = l.first
	}
	p := &l.ring[(l.made-1)%uint64(len(l.ring))]
	return p.first+uint64(p.frames) == next
}

// find gives the number of the packet with a sequence number, for a session whose indices begin at base.
func (l *lane) find(seq uint16, base, first uint64) (n uint64, ok bool) {
	if l.made == 0 {
		return 0, false
	}
	back := uint64(uint16(base+l.made-1) - seq)
	if back >= uint64(len(l.ring)) || back >= l.made {
		return 0, false
	}
	n = l.made - 1 - back
	return n, base+n >= first
}
