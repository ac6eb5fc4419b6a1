package timeline

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"earshot/internal/event"
)

// HLS is RFC 8216 with the low-latency extensions of its second edition (draft-pantos-hls-rfc8216bis). A part of HLS is two of
// ours, 400 ms: at 200 ms a player would ask five times a second, and gain nothing, as it holds back three parts.
const (
	partsPerHLS      = 2
	hlsPartTarget    = "0.4"
	hlsHoldBack      = "1.2" // three part targets (rfc8216bis, 4.4.3.8)
	playlistSegments = 10    // 20 s; the ring's minute leaves their URLs valid for 40 s more, over the 22 that 6.2.2 asks for
	segmentsInParts  = 3     // those whose parts are still listed: three target durations (6.2.2)
	reloadAhead      = 2     // segments that a blocking reload may look ahead (6.2.5.2)
)

// listing is a segment as the playlist sees it.
type listing struct {
	number   uint64
	parts    []*Part
	segment  *Segment // nil while it is open
	breaks   bool     // a discontinuity stands before it
	sequence uint64   // media sequence number: rises by one, while the number jumps over gaps

	// discontinuities is the segment's discontinuity sequence number; its own discontinuity is counted in.
	discontinuities uint64
}

// hlsParts is how many parts of HLS there are; a single part of ours at the end counts only if nothing follows it.
func (l listing) hlsParts() int {
	if l.segment != nil {
		return (len(l.parts) + partsPerHLS - 1) / partsPerHLS
	}
	return len(l.parts) / partsPerHLS
}

func (l listing) frames(from, to int) (n int) {
	for _, p := range l.parts[from:min(to, len(l.parts))] {
		n += p.Count
	}
	return n
}

type playlistCache struct {
	mu     sync.Mutex // readers only: one builds, the others wait for it
	latest atomic.Pointer[playlist]
}

type playlist struct {
	of   *state
	text []byte
}

// Playlist is the LL-HLS media playlist as of the last closed part; shared, not to be modified. Its addresses (init.mp4,
// seg/{number}.m4s, part/{number}.{k}.m4s) are relative to its own. It is finished (EXT-X-ENDLIST) only after End.
func (t *Timeline) Playlist() []byte {
	s := t.state.Load()
	if p := t.playlist.latest.Load(); p != nil && p.of == s {
		return p.text
	}
	t.playlist.mu.Lock()
	defer t.playlist.mu.Unlock()
	s = t.state.Load()
	if p := t.playlist.latest.Load(); p != nil && p.of == s {
		return p.text
	}
	text := t.write(s)
	t.playlist.latest.Store(&playlist{of: s, text: text})
	return text
}

func (t *Timeline) write(s *state) []byte {
	first := s.open
	if len(s.listed) > 0 {
		first = s.listed[0]
	}
	discontinuities := first.discontinuities
	if first.breaks { // its tag is still in the playlist, so it is not counted in the header (6.2.2)
		discontinuities--
	}
	b := make([]byte, 0, 4096)
	b = append(b, "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:2\n"+
		"#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK="+hlsHoldBack+"\n"+
		"#EXT-X-PART-INF:PART-TARGET="+hlsPartTarget+"\n"+
		"#EXT-X-INDEPENDENT-SEGMENTS\n"...)
	b = fmt.Appendf(b, "#EXT-X-MEDIA-SEQUENCE:%d\n#EXT-X-DISCONTINUITY-SEQUENCE:%d\n", first.sequence, discontinuities)
	b = append(b, "#EXT-X-MAP:URI=\"init.mp4\"\n"...)
	for i, l := range s.listed {
		b = t.list(b, l, i >= len(s.listed)-segmentsInParts)
	}
	if s.open.hlsParts() > 0 {
		b = t.list(b, s.open, true)
	}
	switch {
	case s.ended:
		b = append(b, "#EXT-X-ENDLIST\n"...)
	case !s.closed:
		b = fmt.Appendf(b, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"part/%d.%d.m4s\"\n", s.open.number, s.open.hlsParts())
	}
	return b
}

func (t *Timeline) list(b []byte, l listing, parts bool) []byte {
	if l.breaks {
		b = append(b, "#EXT-X-DISCONTINUITY\n"...)
	}
	b = appendDate(b, t.origin, l.number)
	if parts {
		for k := range l.hlsParts() {
			b = append(b, "#EXT-X-PART:DURATION="...)
			b = appendSeconds(b, l.frames(k*partsPerHLS, (k+1)*partsPerHLS))
			b = fmt.Appendf(b, ",URI=\"part/%d.%d.m4s\",INDEPENDENT=YES\n", l.number, k)
		}
	}
	if l.segment == nil {
		return b
	}
	return appendSegment(b, l.number, l.frames(0, len(l.parts)))
}

func appendDate(b []byte, origin time.Time, segment uint64) []byte {
	at := origin.Add(time.Duration(segment) * SegmentDuration).UTC()
	b = append(b, "#EXT-X-PROGRAM-DATE-TIME:"...)
	b = at.AppendFormat(b, "2006-01-02T15:04:05.000Z07:00")
	return append(b, '\n')
}

func appendSegment(b []byte, number uint64, frames int) []byte {
	b = append(b, "#EXTINF:"...)
	b = appendSeconds(b, frames)
	return fmt.Appendf(b, ",\nseg/%d.m4s\n", number)
}

// appendSeconds writes a duration exactly: a frame is a fiftieth.
func appendSeconds(b []byte, frames int) []byte {
	b = strconv.AppendInt(b, int64(frames/event.FramesPerSec), 10)
	hundredths := frames % event.FramesPerSec * 100 / event.FramesPerSec
	return append(b, '.', byte('0'+hundredths/10), byte('0'+hundredths%10))
}

// HLSPart gives part k (400 ms, counted from 0) of segment seg: one or two CMAF chunks, shared. Errors as for Frame: a request
// for the part that the playlist hints at meets ErrAhead and waits on PartClosed.
func (t *Timeline) HLSPart(seg uint64, k int) ([]byte, error) {
	if k < 0 || k >= PartsPerSegment/partsPerHLS {
		return nil, ErrGap
	}
	n := seg*PartsPerSegment + uint64(k)*partsPerHLS
	p, err := t.Part(n + 1)
	if err == nil {
		return p.hls, nil
	}
	s, serr := t.Segment(seg)
	if serr != nil {
		return nil, err
	}
	for _, p := range s.Parts { // after a long gap a segment is in reach longer than its parts are
		if p.Number == n+1 {
			return p.hls, nil
		}
	}
	// Without a second half there is one only if the segment ended with the first.
	if last := s.Parts[len(s.Parts)-1]; last.Number == n {
		return last.CMAF, nil
	}
	return nil, ErrGap
}

// Await is the blocking reload (rfc8216bis, 6.2.5.2): it returns nil once the playlist names part part of the segment with the
// media sequence number seg (_HLS_msn, _HLS_part), or all of it if part is -1. ErrFar: more than two segments ahead.
// ErrClosed: it will not come from here, though perhaps from another process; after End the answer is nil, as the finished
// playlist is what a player then needs. Otherwise the context's error.
func (t *Timeline) Await(ctx context.Context, seg uint64, part int) error {
	if part >= PartsPerSegment/partsPerHLS { // the next segment's first, says 6.2.5.2
		seg, part = seg+1, 0
	}
	for {
		closing := t.PartClosed()
		s := t.state.Load()
		switch {
		case seg < s.open.sequence, s.ended:
			return nil
		case seg == s.open.sequence && part >= 0 && part < s.open.hlsParts():
			return nil
		case s.closed:
			return ErrClosed
		case seg > s.open.sequence+reloadAhead:
			return ErrFar
		}
		select {
		case <-closing:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Multivariant is the playlist that names the one rendition, main.m3u8. The bandwidth is the peak: 32 kbit/s of Opus, at most twice
// that in a lively second, and the container's 6.
func Multivariant() []byte {
	return []byte("#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-INDEPENDENT-SEGMENTS\n" +
		"#EXT-X-STREAM-INF:BANDWIDTH=72000,AVERAGE-BANDWIDTH=42000,CODECS=\"opus\"\nmain.m3u8\n")
}

// Recorded is a stored segment.
type Recorded struct {
	Number uint64
	Frames int
}

// VOD is the media playlist of a recording: segs in rising order, a discontinuity wherever frames are missing between two.
func VOD(origin time.Time, segs []Recorded) []byte {
	b := make([]byte, 0, 256+48*len(segs))
	b = append(b, "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-TARGETDURATION:2\n#EXT-X-INDEPENDENT-SEGMENTS\n"...)
	if len(segs) > 0 {
		// Counted back from the last segment, so that a player which stays over the end of the event finds the segments that it
		// has under the numbers that they had in the live playlist (unless gaps lie in its window).
		b = fmt.Appendf(b, "#EXT-X-MEDIA-SEQUENCE:%d\n", segs[len(segs)-1].Number-uint64(len(segs)-1))
	}
	b = append(b, "#EXT-X-MAP:URI=\"init.mp4\"\n"...)
	var next uint64
	for i, s := range segs {
		first := s.Number * FramesPerSegment
		if i > 0 && first != next {
			b = append(b, "#EXT-X-DISCONTINUITY\n"...)
		}
		if i == 0 || first != next {
			b = appendDate(b, origin, s.Number)
		}
		b = appendSegment(b, s.Number, s.Frames)
		next = first + uint64(s.Frames)
	}
	return append(b, "#EXT-X-ENDLIST\n"...)
}

// Listing is a closed segment as the live playlist names it, for those who make another rendition of the same programme.
type Listing struct {
	Number   uint64
	Sequence uint64 // media sequence number
	Frames   int
	Breaks   bool // a discontinuity stands before it

	discontinuities uint64
}

// Before is the discontinuity sequence number of a playlist that begins with this segment.
func (l Listing) Before() uint64 {
	if l.Breaks { // its tag is still in the playlist (6.2.2)
		return l.discontinuities - 1
	}
	return l.discontinuities
}

// Listed gives the closed segments that Playlist names now, in their order.
func (t *Timeline) Listed() []Listing {
	s := t.state.Load()
	out := make([]Listing, 0, len(s.listed))
	for _, l := range s.listed {
		out = append(out, Listing{
			Number: l.number, Sequence: l.sequence, Frames: l.frames(0, len(l.parts)), Breaks: l.breaks, discontinuities: l.discontinuities,
		})
	}
	return out
}
