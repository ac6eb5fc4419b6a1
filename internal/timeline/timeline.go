// Package timeline keeps the programme of one event: a numbered sequence of frames (20 ms, one Opus packet each) and of cues,
// the ring from which everybody who listens reads it, and the packaging in which they read it.
//
//	frame    number n belongs to Origin + n × 20 ms
//	part     10 frames and their cues: one CMAF chunk, one Ogg page
//	segment  10 parts: the unit of HLS and of storage
//
// One writer (the stage) calls [Timeline.Append] every 20 ms. Any number of readers look at frames, parts and segments, each
// with a number or a [Cursor] of its own. Readers take no lock that the writer takes: what is finished is published through
// atomic pointers and never changed again, so a slow or stuck reader costs the writer nothing, and what the ring dropped stays
// valid in the hands of whoever still holds it. A reader that is up to date waits on [Timeline.Changed] or
// [Timeline.PartClosed]; it takes the channel first and looks afterwards, so that nothing is missed in between.
//
// A part's bytes are a pure function of its frames and cues: the same on every node, shared by all listeners, never to be
// modified by those who get them.
//
// The sequence may have gaps: where a process died, another goes on at a later segment under a higher epoch. Frames are never
// renumbered, so what is missing stays missing, and HLS says so by a discontinuity.
package timeline

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"earshot/internal/event"
)

// The timeline's measures.
const (
	FramesPerPart    = 10
	PartsPerSegment  = 10
	FramesPerSegment = FramesPerPart * PartsPerSegment

	PartDuration    = FramesPerPart * event.FrameDuration    // 200 ms
	SegmentDuration = FramesPerSegment * event.FrameDuration // 2 s

	DefaultKeep = time.Minute
	maxKeep     = time.Hour

	samplesPerFrame = event.FrameSamples // 960
)

// Why a read gave nothing.
var (
	ErrAhead  = errors.New("timeline: not made yet")
	ErrGone   = errors.New("timeline: fell out of the ring")
	ErrGap    = errors.New("timeline: never made")
	ErrClosed = errors.New("timeline: closed")
	ErrFar    = errors.New("timeline: too far ahead to wait for")
)

// Why a frame was refused. Nothing is changed by a refused Append.
var (
	ErrStale    = errors.New("timeline: frame of an epoch that is over")
	ErrPast     = errors.New("timeline: frame number lies before the head")
	ErrBoundary = errors.New("timeline: a gap or a new epoch can only begin a segment")
	ErrPacket   = errors.New("timeline: not an Opus packet of 20 ms")
	ErrCue      = errors.New("timeline: unusable cue")
)

// Frame is 20 ms of the programme.
type Frame struct {
	Number uint64
	Epoch  uint64
	Packet []byte // one Opus packet of 20 ms, mono, at most MaxPacket bytes
}

// RTPTime is the RTP timestamp of frame n: n × 960 modulo 2³² (RFC 7587, 4.1: the clock is 48 kHz whatever the codec's).
func RTPTime(n uint64) uint32 { return uint32(n * samplesPerFrame) }

// Config says where a timeline starts.
type Config struct {
	Origin time.Time     // the instant of frame 0; required
	First  uint64        // number of the first frame, a multiple of FramesPerSegment: 0, or where a restarted stage goes on
	Epoch  uint64        // the lowest epoch that is accepted
	Keep   time.Duration // how much the ring holds, rounded up to whole segments; 0 is a minute, an hour at most. HLS needs 24 s
}

// Timeline is the programme of one event, as far as the ring reaches back. Methods are safe from any goroutine; frames must
// come from one.
type Timeline struct {
	origin time.Time
	first  uint64

	// The read side. Batches are found by their number modulo length. Parts and segments stand in the order in which they were
	// closed, by ordinal and by media sequence number: a cursor never sees a gap, and a gap pushes no segment out of reach that
	// the playlist or the archive still wants.
	head     atomic.Uint64 // number of the next frame
	batches  []atomic.Pointer[batch]
	parts    []atomic.Pointer[Part]
	segments []atomic.Pointer[Segment]
	state    atomic.Pointer[state] // replaced whenever a part closes
	changed  bell
	closing  bell

	playlist playlistCache

	mu    sync.Mutex // writers: one goroutine appends, so it is contended only if another closes
	epoch uint64     // of the last frame
	batch *batch     // being filled, or the next to be
	count int        // frames in batch
	cues  []Cue      // of the frames in batch
}

// batch holds the packets of one part from its first frame on. Entry i is written before head passes its frame and never after.
type batch struct {
	number  uint64
	epoch   uint64
	packets [FramesPerPart][]byte
	buf     []byte // backs packets; when it grows, the earlier packets stay where they are
	part    atomic.Pointer[Part]
}

// state is what was known when the last part closed. It is immutable; slices in it are shared between successive states.
type state struct {
	count  uint64    // parts closed since New: the ordinal of the next one
	run    uint64    // ordinal of the first part since the last gap
	listed []listing // closed segments that the HLS playlist names, oldest first
	open   listing   // the segment that is being filled
	gaps   []gap     // the latest, oldest first
	sticky []Cue
	closed bool
	ended  bool
}

type gap struct{ from, to uint64 } // frames from ≤ n < to were never made

// maxGaps bounds what is remembered of gaps; older ones count as fallen out of the ring.
const maxGaps = 64

// New makes an empty timeline.
func New(c Config) (*Timeline, error) {
	if c.Origin.IsZero() {
		return nil, errors.New("timeline: Origin is not set")
	}
	if c.First%FramesPerSegment != 0 {
		return nil, fmt.Errorf("timeline: First %d does not begin a segment", c.First)
	}
	if c.Keep == 0 {
		c.Keep = DefaultKeep
	}
	if c.Keep < 0 || c.Keep > maxKeep {
		return nil, fmt.Errorf("timeline: Keep %v is not between 0 and %v", c.Keep, maxKeep)
	}
	segments := int((c.Keep + SegmentDuration - 1) / SegmentDuration)
	t := &Timeline{
		origin: c.Origin.UTC(),
		first:  c.First,
		// One more than is kept, so that the open segment does not eat into it.
		batches:  make([]atomic.Pointer[batch], (segments+1)*PartsPerSegment),
		parts:    make([]atomic.Pointer[Part], (segments+1)*PartsPerSegment),
		segments: make([]atomic.Pointer[Segment], segments+1),
		epoch:    c.Epoch,
		batch:    &batch{buf: make([]byte, 0, minBatch)},
		cues:     make([]Cue, 0, FramesPerPart),
	}
	t.head.Store(c.First)
	open := listing{number: c.First / FramesPerSegment, sequence: c.First / FramesPerSegment}
	if c.First > 0 {
		// Another process made what came before. The number of discontinuities before a segment never exceeds the segment's
		// own number, so that number keeps the discontinuity sequence rising without knowing the history.
		open.breaks, open.discontinuities = true, open.number
	}
	t.state.Store(&state{open: open})
	return t, nil
}

// Origin is the instant of frame 0.
func (t *Timeline) Origin() time.Time { return t.origin }

// First is the number with which this timeline started.
func (t *Timeline) First() uint64 { return t.first }

// Head is the number of the next frame.
func (t *Timeline) Head() uint64 { return t.head.Load() }

// Closed says whether the timeline is over for this process.
func (t *Timeline) Closed() bool { return t.state.Load().closed }

// Ended says whether the timeline is over for good.
func (t *Timeline) Ended() bool { return t.state.Load().ended }

// Append adds the next frame and the cues that it carries; each cue's Frame is set to the frame's number. Packet and cues are
// copied. A number beyond the head leaves a gap, which must end where a segment begins; what was open is then closed short.
// The error is ErrStale, ErrPast, ErrBoundary, ErrPacket, ErrCue or ErrClosed (wrapped, with the numbers).
//
// A frame that closes no part allocates nothing, unless it carries cues or the packets outgrow half again those of the part before.
func (t *Timeline) Append(f Frame, cues ...Cue) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	head := t.head.Load()
	if err := t.check(f, head); err != nil {
		return err
	}
	if len(t.cues)+len(cues) > maxCues {
		return fmt.Errorf("%w: more than %d in one part", ErrCue, maxCues)
	}
	kept := len(t.cues)
	for _, c := range cues {
		c, err := c.clean(f.Number)
		if err != nil {
			t.cues = t.cues[:kept]
			return err
		}
		t.cues = append(t.cues, c)
	}
	closed := false
	if f.Number > head || f.Epoch > t.epoch {
		own := slices.Clone(t.cues[kept:])
		t.cues = t.cues[:kept]
		closed = t.breakAt(f, head)
		t.cues = append(t.cues, own...)
	}

	b := t.batch
	if t.count == 0 {
		b.number, b.epoch = f.Number/FramesPerPart, f.Epoch
		t.batches[b.number%uint64(len(t.batches))].Store(b)
	}
	at := len(b.buf)
	b.buf = append(b.buf, f.Packet...)
	b.packets[t.count] = b.buf[at:len(b.buf):len(b.buf)]
	t.count++
	if t.count == FramesPerPart {
		t.state.Store(t.closePart(t.state.Load()))
		closed = true
	}
	// The commit point: whoever is woken below, or comes by, finds the frame, and the part if it closed.
	t.head.Store(f.Number + 1)
	t.changed.ring()
	if closed {
		t.closing.ring()
	}
	return nil
}

func (t *Timeline) check(f Frame, head uint64) error {
	switch {
	case t.state.Load().closed:
		return ErrClosed
	case f.Epoch < t.epoch:
		return fmt.Errorf("%w: %d after %d", ErrStale, f.Epoch, t.epoch)
	case f.Number < head:
		return fmt.Errorf("%w: %d, the head is %d", ErrPast, f.Number, head)
	case (f.Number > head || f.Epoch > t.epoch) && f.Number%FramesPerSegment != 0:
		return fmt.Errorf("%w: frame %d of epoch %d after frame %d of epoch %d", ErrBoundary, f.Number, f.Epoch, head, t.epoch)
	}
	return checkFrame(f.Packet)
}

// breakAt closes what is open before f, which starts a segment after a gap or under a new epoch, and says whether a part closed.
// It wakes nobody: until the head has moved, readers would not find that part.
func (t *Timeline) breakAt(f Frame, head uint64) (closed bool) {
	t.epoch = f.Epoch
	s := t.state.Load()
	fresh := s.count == 0 && t.count == 0
	if fresh && f.Number == head {
		return false // nothing to break from
	}
	if t.count > 0 {
		s, closed = t.closePart(s), true
	}
	if len(s.open.parts) > 0 {
		s = t.closeSegment(s, false)
	}
	n := *s
	if f.Number > head {
		n.gaps = append(n.gaps[max(0, len(n.gaps)-maxGaps+1):len(n.gaps):len(n.gaps)], gap{head, f.Number})
		n.run = n.count
	}
	n.open.number = f.Number / FramesPerSegment
	if fresh {
		n.open.sequence = n.open.number
	}
	if !n.open.breaks {
		n.open.breaks = true
		n.open.discontinuities++
	}
	t.state.Store(&n)
	return closed
}

// Close ends the timeline in this process: what is open is closed short, and all who wait are woken. It may go on in another;
// HLS players therefore keep asking. Closing again does nothing.
func (t *Timeline) Close() { t.close(false) }

// End closes the timeline for good: the HLS playlist is then finished, too.
func (t *Timeline) End() { t.close(true) }

func (t *Timeline) close(ended bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.state.Load()
	if s.closed && (s.ended || !ended) {
		return
	}
	if t.count > 0 {
		s = t.closePart(s)
	}
	if len(s.open.parts) > 0 {
		s = t.closeSegment(s, true)
	}
	n := *s
	n.closed, n.ended = true, ended
	t.state.Store(&n)
	t.changed.ring()
	t.closing.ring()
}

// closePart packages the batch, and the segment if it is complete now. The caller stores the state that it gives.
func (t *Timeline) closePart(s *state) *state {
	b := t.batch
	var even *Part // the first half of the 400 ms that HLS calls a part
	if len(s.open.parts)%partsPerHLS != 0 {
		even = s.open.parts[len(s.open.parts)-1]
	}
	p := newPart(b.number, b.epoch, b.packets[:t.count], t.cues, even)
	p.ordinal = s.count
	b.part.Store(p)
	t.parts[p.ordinal%uint64(len(t.parts))].Store(p)

	n := *s
	n.count++
	if n.open.parts == nil {
		n.open.parts = make([]*Part, 0, PartsPerSegment)
	}
	// Earlier states share the array, but not the length, so none of them sees this entry.
	n.open.parts = append(n.open.parts, p)
	n.sticky = latest(n.sticky, p.Cues)

	// The next part's buffer is made here, so that the frame that opens it allocates nothing. Speech is variable: half as
	// much again as this part needed is enough for 98 of 100.
	t.batch = &batch{buf: make([]byte, 0, max(minBatch, len(b.buf)*3/2))}
	t.count = 0
	clear(t.cues)
	t.cues = t.cues[:0]
	if len(n.open.parts) == PartsPerSegment {
		return t.closeSegment(&n, false)
	}
	return &n
}

const minBatch = 1024 // bytes; ten packets at 32 kbit/s are 800

func (t *Timeline) closeSegment(s *state, last bool) *state {
	n := *s
	seg := newSegment(n.open.number, n.open.parts, last)
	t.segments[n.open.sequence%uint64(len(t.segments))].Store(seg)
	done := n.open
	done.parts, done.segment = seg.Parts, seg
	window := min(playlistSegments, max(1, len(t.segments)/2))
	keep := n.listed[max(0, len(n.listed)-window+1):]
	n.listed = append(append(make([]listing, 0, len(keep)+1), keep...), done)
	n.open = listing{number: done.number + 1, sequence: done.sequence + 1, discontinuities: done.discontinuities}
	return &n
}

// Frame gives frame n: ErrAhead if it is not made yet, ErrClosed if it never will be here, ErrGap if it never was, ErrGone if
// the ring no longer holds it.
func (t *Timeline) Frame(n uint64) (Frame, error) {
	// The head is read before the slot: what lies before it was published before it.
	s, head := t.state.Load(), t.head.Load()
	if n >= head {
		return Frame{}, s.beyond()
	}
	b := t.batches[n/FramesPerPart%uint64(len(t.batches))].Load()
	if b == nil || b.number != n/FramesPerPart || b.packets[n%FramesPerPart] == nil {
		return Frame{}, t.missing(n)
	}
	return Frame{Number: n, Epoch: b.epoch, Packet: b.packets[n%FramesPerPart]}, nil
}

// Part gives part n once it is closed; errors as for Frame.
func (t *Timeline) Part(n uint64) (*Part, error) {
	s, head := t.state.Load(), t.head.Load()
	if end := head / FramesPerPart; n >= end && (!s.closed || n*FramesPerPart >= head) {
		return nil, s.beyond()
	}
	b := t.batches[n%uint64(len(t.batches))].Load()
	if b == nil || b.number != n {
		return nil, t.missing(n * FramesPerPart)
	}
	return b.part.Load(), nil
}

// Segment gives segment n once it is closed; errors as for Frame.
func (t *Timeline) Segment(n uint64) (*Segment, error) {
	s := t.state.Load()
	if n >= s.open.number {
		return nil, s.beyond()
	}
	for back := uint64(1); back <= min(s.open.sequence, uint64(len(t.segments))); back++ {
		seg := t.segments[(s.open.sequence-back)%uint64(len(t.segments))].Load()
		if seg == nil || seg.Number < n {
			break
		}
		if seg.Number == n {
			return seg, nil
		}
	}
	return nil, t.missing(n * FramesPerSegment)
}

func (s *state) beyond() error {
	if s.closed {
		return ErrClosed
	}
	return ErrAhead
}

// missing tells a gap from what fell out.
func (t *Timeline) missing(frame uint64) error {
	for _, g := range t.state.Load().gaps {
		if g.from <= frame && frame < g.to {
			return ErrGap
		}
	}
	return ErrGone
}

// Changed gives a channel that is closed at the next Append or Close. Take it, then look, then wait. After Close it is closed.
func (t *Timeline) Changed() <-chan struct{} { return t.changed.wait(t) }

// PartClosed gives a channel that is closed when the next part closes, or at Close. Take it, then look, then wait.
func (t *Timeline) PartClosed() <-chan struct{} { return t.closing.wait(t) }

// Sticky gives the cues in force at the end of the last closed part: the latest of each sticky kind, oldest first.
func (t *Timeline) Sticky() []Cue { return t.state.Load().sticky }

// bell wakes many by closing one channel. The channel is made by the first who waits, so that a ring nobody hears costs one
// atomic exchange and no allocation.
type bell struct{ ch atomic.Pointer[chan struct{}] }

func (b *bell) wait(t *Timeline) <-chan struct{} {
	ch := b.ch.Load()
	for ch == nil {
		fresh := make(chan struct{})
		if b.ch.CompareAndSwap(nil, &fresh) {
			ch = &fresh
		} else {
			ch = b.ch.Load()
		}
	}
	// Close stores its state before it rings for the last time. If it is not seen here, that ring is yet to come.
	if t.state.Load().closed {
		return ajar
	}
	return *ch
}

func (b *bell) ring() {
	if ch := b.ch.Swap(nil); ch != nil {
		close(*ch)
	}
}

// ajar is the channel of a closed timeline.
var ajar = func() chan struct{} { c := make(chan struct{}); close(c); return c }()
