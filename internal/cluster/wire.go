package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"

	"earshot/internal/timeline"
)

// What a message of the relay looks like. All integers but the first two bytes are unsigned varints.
//
//	1 byte   version, 1
//	1 byte   kind: 0 a frame, 1 the end of the event, after its last frame
//	epoch    of the lease under which it was made
//	number   of the frame; at the end, of the frame that will never be
//	back     how many numbers before it the same maker's last frame is: 1, or more over a gap; 0 for a maker's first
//	packet   length, bytes; none at the end
//	cues     how many, then for each: kind (length, bytes), about (0: of its own frame; else number − about + 1), data (length, bytes)
//
// Nothing may follow. Receivers drop what they do not understand, versions too, and count it.
const (
	wireVersion = 1
	kindFrame   = 0
	kindEnd     = 1

	maxNumber  = 1 << 48   // of a frame: 180,000 years
	maxCues    = 256       // at one frame, as a timeline takes in one part
	maxKind    = 32        // bytes of a cue's kind, likewise
	maxMessage = 512 << 10 // bytes; a speech frame has about 100, the frame that begins a segment some hundred more for its cues
)

var errWire = errors.New("not a message of the relay")

// message is one message of the relay.
type message struct {
	end    bool
	epoch  uint64
	number uint64
	back   uint64
	packet []byte
	cues   []timeline.Cue
}

// appendTo writes m behind b. It checks nothing: what a timeline took fits.
func (m *message) appendTo(b []byte) []byte {
	kind := byte(kindFrame)
	if m.end {
		kind = kindEnd
	}
	b = append(b, wireVersion, kind)
	b = binary.AppendUvarint(b, m.epoch)
	b = binary.AppendUvarint(b, m.number)
	b = binary.AppendUvarint(b, m.back)
	b = appendBytes(b, m.packet)
	b = binary.AppendUvarint(b, uint64(len(m.cues)))
	for i := range m.cues {
		c := &m.cues[i]
		b = binary.AppendUvarint(b, uint64(len(c.Kind)))
		b = append(b, c.Kind...)
		about := uint64(0)
		if c.About != nil {
			about = m.number - *c.About + 1
		}
		b = binary.AppendUvarint(b, about)
		b = appendBytes(b, c.Data)
	}
	return b
}

func appendBytes(b, data []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(data)))
	return append(b, data...)
}

// parse reads a message. Packet and cues' data lie in b.
func parse(b []byte) (m message, err error) {
	if len(b) > maxMessage {
		return message{}, fmt.Errorf("%w: %d bytes", errWire, len(b))
	}
	if len(b) < 2 || b[0] != wireVersion || b[1] > kindEnd {
		return message{}, fmt.Errorf("%w: it begins with %x", errWire, b[:min(2, len(b))])
	}
	r := wireReader{rest: b[2:]}
	m.end = b[1] == kindEnd
	m.epoch = r.number(1<<63 - 1)
	m.number = r.number(maxNumber)
	m.back = r.number(m.number)
	m.packet = r.bytes(timeline.MaxPacket)
	if n := r.number(maxCues); n > 0 && r.err == nil {
		m.cues = make([]timeline.Cue, 0, n)
		for range n {
			c := timeline.Cue{Frame: m.number, Kind: string(r.bytes(maxKind))}
			if about := r.number(m.number + 1); about > 0 {
				at := m.number - (about - 1)
				c.About = &at
			}
			c.Data = r.bytes(timeline.MaxCueData)
			if r.err != nil {
				break
			}
			m.cues = append(m.cues, c)
		}
	}
	switch {
	case r.err != nil:
		return message{}, r.err
	case len(r.rest) > 0:
		return message{}, fmt.Errorf("%w: %d bytes behind it", errWire, len(r.rest))
	case m.end != (len(m.packet) == 0) || m.end && len(m.cues) > 0:
		return message{}, fmt.Errorf("%w: kind %d with a packet of %d bytes and %d cues", errWire, b[1], len(m.packet), len(m.cues))
	}
	return m, nil
}

// wireReader reads until the first error and gives zeros from then on.
type wireReader struct {
	rest []byte
	err  error
}

func (r *wireReader) number(most uint64) uint64 {
	if r.err != nil {
		return 0
	}
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || v > most {
		r.err = fmt.Errorf("%w: a number is cut off or above %d", errWire, most)
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *wireReader) bytes(most int) []byte {
	n := int(r.number(uint64(most)))
	if r.err != nil || n == 0 {
		return nil
	}
	if n > len(r.rest) {
		r.err = fmt.Errorf("%w: %d bytes of %d", errWire, len(r.rest), n)
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}
