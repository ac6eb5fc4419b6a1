package radio

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"earshot/internal/timeline"
)

// SegmentType is the Content-Type of a segment.
const SegmentType = "audio/aac"

// keepSegments is as long as the timeline's ring: 20 s in the playlist, and 40 for those who read an old one.
const keepSegments = 30

// Shelf keeps AAC as the segments of an HLS rendition: packed audio (RFC 8216, 3.4), ADTS behind an ID3 tag with the time. Segment n holds the
// frames that begin in the timeline's segment n, and is listed with its media sequence number, so that a player may change
// between the renditions. Add and End belong to one goroutine; the rest is safe from any.
type Shelf struct {
	tl   *timeline.Timeline
	open []Piece // of the segment that is not complete
	end  bool    // nothing more comes

	mu     sync.Mutex
	segs   [keepSegments]segment // at number modulo length
	text   []byte
	caught bool          // the past was made: from now on text grows with the programme
	change chan struct{} // closed when text changes
}

type segment struct {
	number uint64
	first  int64
	frames int
	bytes  []byte // nil: there is none
}

// NewShelf makes an empty shelf.
func NewShelf(tl *timeline.Timeline) *Shelf { return &Shelf{tl: tl, change: make(chan struct{})} }

// Add puts the next piece on it.
func (s *Shelf) Add(p Piece) {
	if len(s.open) > 0 && s.open[0].Part.Number/timeline.PartsPerSegment != p.Part.Number/timeline.PartsPerSegment {
		s.close()
	}
	s.open = append(s.open, p)
	if p.Part.Number%timeline.PartsPerSegment == timeline.PartsPerSegment-1 {
		s.close()
	}
}

// End lists what is left, and says that the programme is over if it is.
func (s *Shelf) End() {
	s.end = true
	if len(s.open) > 0 {
		s.close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.publish()
}

// close makes a segment of the open pieces, unless some of it is missing: half a segment would put all that follows in the wrong place.
func (s *Shelf) close() {
	pieces := s.open
	s.open = s.open[:0:0]
	number := pieces[0].Part.Number / timeline.PartsPerSegment
	seg := segment{number: number, first: pieces[0].First}
	b := appendTimestamp(nil, seg.first)
	for i, p := range pieces {
		if p.Part.Number != number*timeline.PartsPerSegment+uint64(i) {
			return
		}
		b = append(b, p.Bytes...)
		seg.frames += p.Frames
	}
	seg.bytes = b
	s.mu.Lock()
	defer s.mu.Unlock()
	s.segs[number%keepSegments] = seg
	s.publish()
}

// at gives a segment. mu is held.
func (s *Shelf) at(number uint64) (segment, bool) {
	seg := s.segs[number%keepSegments]
	return seg, seg.bytes != nil && seg.number == number
}

// publish writes the playlist. mu is held.
func (s *Shelf) publish() {
	text := s.write()
	if text == nil {
		return
	}
	s.text = text
	listed := s.tl.Listed()
	for _, l := range listed[max(0, len(listed)-2):] { // one that has just been closed there is on its way
		_, ok := s.at(l.Number)
		s.caught = s.caught || ok || s.end
	}
	close(s.change)
	s.change = make(chan struct{})
}

func (s *Shelf) write() []byte {
	listed := s.tl.Listed()
	for len(listed) > 0 {
		if _, ok := s.at(listed[0].Number); ok {
			break
		}
		listed = listed[1:]
	}
	for len(listed) > 0 {
		if _, ok := s.at(listed[len(listed)-1].Number); ok {
			break
		}
		listed = listed[:len(listed)-1]
	}
	if len(listed) == 0 {
		return nil
	}
	b := fmt.Appendf(nil, "#EXTM3U\n#EXT-X-VERSION:8\n#EXT-X-TARGETDURATION:2\n#EXT-X-INDEPENDENT-SEGMENTS\n"+
		"#EXT-X-MEDIA-SEQUENCE:%d\n#EXT-X-DISCONTINUITY-SEQUENCE:%d\n", listed[0].Sequence, listed[0].Before())
	for _, l := range listed {
		seg, ok := s.at(l.Number)
		if l.Breaks {
			b = append(b, "#EXT-X-DISCONTINUITY\n"...)
		}
		if !ok { // converters were down for too long
			b = append(b, "#EXT-X-GAP\n"...)
			seg = segment{number: l.Number, first: int64(l.Number) * timeline.FramesPerSegment * samplesPerFrame, frames: l.Frames * int(samplesPerFrame) / adtsSamples}
		}
		const rate = int64(sampleRate)
		at := s.tl.Origin().Add(time.Duration(seg.first/rate)*time.Second + time.Duration(seg.first%rate*int64(time.Second)/rate)).UTC()
		b = append(at.AppendFormat(append(b, "#EXT-X-PROGRAM-DATE-TIME:"...), "2006-01-02T15:04:05.000Z07:00"), '\n')
		b = fmt.Appendf(b, "#EXTINF:%.5f,\naac/%d.aac\n", float64(seg.frames*adtsSamples)/float64(sampleRate), l.Number)
	}
	if s.tl.Ended() && s.end {
		b = append(b, "#EXT-X-ENDLIST\n"...)
	}
	return b
}

const adtsSamples = 1024

// Playlist is the media playlist; shared, not to be modified. Its addresses (aac/{number}.aac) are relative to its own. At the beginning it
// waits until what can be made of the past is there, lest a player begin there; it gives the context's error if nothing comes.
func (s *Shelf) Playlist(ctx context.Context) ([]byte, error) {
	for {
		s.mu.Lock()
		text, caught, change := s.text, s.caught, s.change
		s.mu.Unlock()
		if caught {
			return text, nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			if text != nil {
				return text, nil
			}
			return nil, ctx.Err()
		}
	}
}

// Segment gives a segment's bytes; shared, not to be modified. Nil: there is none, not yet or not any more.
func (s *Shelf) Segment(number uint64) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if seg, ok := s.at(number); ok {
		return seg.bytes
	}
	return nil
}

// appendTimestamp writes the ID3 tag (version 2.4) with which packed audio says when it begins (RFC 8216, 3.4): in 90 kHz, 33 bits.
func appendTimestamp(b []byte, sample int64) []byte {
	const owner = "com.apple.streaming.transportStreamTimestamp\x00"
	const content = len(owner) + 8
	b = append(b, 'I', 'D', '3', 4, 0, 0, 0, 0, 0, byte(10+content)) // a size below 128 is written as it is
	b = append(b, 'P', 'R', 'I', 'V', 0, 0, 0, byte(content), 0, 0)
	b = append(b, owner...)
	return binary.BigEndian.AppendUint64(b, uint64(sample)*15/8&(1<<33-1)) // exact: frames begin at multiples of 1024
}

// Multivariant is the playlist that names both renditions: Opus, main.m3u8, for all who know it, and first; and AAC. Its bandwidth is the
// encoder's, and what ADTS and a lively second add.
func Multivariant() []byte {
	return append(timeline.Multivariant(),
		"#EXT-X-STREAM-INF:BANDWIDTH=90000,AVERAGE-BANDWIDTH=72000,CODECS=\"mp4a.40.2\"\naac.m3u8\n"...)
}
