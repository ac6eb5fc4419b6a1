package timeline

import (
	"slices"
	"sync"
	"time"

	"earshot/internal/event"
)

// Part is 10 frames and their cues, packaged. It is immutable and shared by all who read it.
type Part struct {
	Number  uint64 // its first frame is Number × FramesPerPart
	Epoch   uint64
	First   uint64 // number of its first frame
	Count   int    // frames in it: 10, or fewer in the last part before a gap or the end
	CMAF    []byte // [emsg] moof mdat; emsg only where there are cues
	Media   []byte // the tail of CMAF without the cues: moof mdat
	Ogg     []byte // one page of the shared Ogg stream, see OggHeaders
	Cues    []Cue
	CueText []byte // JSON array of Cues; nil if there are none

	ordinal uint64 // how many parts of this timeline closed before it
	hls     []byte // where it is the second of a pair: both parts' CMAF, of which its own is the tail
}

// Duration is Count × 20 ms.
func (p *Part) Duration() time.Duration { return time.Duration(p.Count) * event.FrameDuration }

// newPart packages frames and cues, which it copies. If even, the part before, makes a pair with it for HLS, the pair is laid
// out in one piece: HLS then shares these bytes, too, and a part is copied once at most.
func newPart(number, epoch uint64, packets [][]byte, cues []Cue, even *Part) *Part {
	p := &Part{Number: number, Epoch: epoch, First: number * FramesPerPart, Count: len(packets), Cues: slices.Clone(cues)}
	if len(cues) == 0 {
		p.Cues = nil
	}
	p.CueText = cueText(p.Cues)

	size, before := chunkSize(packets, p.CueText), 0
	if even != nil {
		before = len(even.CMAF)
	}
	b := make([]byte, 0, before+size)
	if even != nil {
		b = append(b, even.CMAF...)
	}
	if p.CueText != nil {
		b = appendEmsg(b, number, p.First, len(packets), p.CueText)
	}
	media := len(b)
	b = appendMedia(b, number, p.First, packets)
	p.CMAF, p.Media = b[before:], b[media:]
	if even != nil {
		p.hls = b
	}
	p.Ogg = livePage(number, p.First, packets)
	return p
}

// Segment is 10 parts, closed.
type Segment struct {
	Number uint64 // its first frame is Number × FramesPerSegment
	Epoch  uint64
	Parts  []*Part // 10, or fewer before a gap or the end
	Last   bool    // Close cut it short: nothing follows in this timeline (one that closes between two segments has none)

	bytes func() []byte
}

func newSegment(number uint64, parts []*Part, last bool) *Segment {
	s := &Segment{Number: number, Epoch: parts[0].Epoch, Parts: parts, Last: last}
	// Made when it is first asked for, kept as long as the segment: HLS players and the archive ask for the same bytes.
	s.bytes = sync.OnceValue(s.join)
	return s
}

// Bytes is the CMAF of all parts, shared: not to be modified.
func (s Segment) Bytes() []byte {
	if s.bytes == nil {
		return s.join()
	}
	return s.bytes()
}

func (s Segment) join() []byte {
	size := 0
	for _, p := range s.Parts {
		size += len(p.CMAF)
	}
	b := make([]byte, 0, size)
	for _, p := range s.Parts {
		b = append(b, p.CMAF...)
	}
	return b
}

// Frames is how many frames the segment holds.
func (s Segment) Frames() int {
	n := 0
	for _, p := range s.Parts {
		n += p.Count
	}
	return n
}

// Duration is Frames × 20 ms.
func (s Segment) Duration() time.Duration { return time.Duration(s.Frames()) * event.FrameDuration }
