package wire

import (
	"errors"
	"fmt"
)

var errBox = errors.New("malformed fMP4")

// Chunk is one moof and its mdat (ISO/IEC 14496-12) with one track.
type Chunk struct {
	Start    uint64 // decode time of the first sample
	Duration uint64 // of all samples
	Count    int    // samples
	Data     []byte // of mdat: the samples, one after the other
	trun     []byte // an entry per sample
	entry    int    // bytes of an entry
	sizeAt   int    // where the size stands in an entry; -1: all have size
	size     uint32
}

// Sample gives sample i, nil if the sizes do not fit the data. i rises from 0; from is where the last ended.
func (c *Chunk) Sample(i, from int) []byte {
	n := uint64(c.size)
	if c.sizeAt >= 0 {
		n = uint64(be.Uint32(c.trun[i*c.entry+c.sizeAt:]))
	}
	if from < 0 || n > uint64(len(c.Data)) || uint64(from)+n > uint64(len(c.Data)) {
		return nil
	}
	return c.Data[from : from+int(n)]
}

// Chunks walks through the chunks of a segment, part or push message. Boxes that are no moof or mdat are passed over.
type Chunks struct{ rest []byte }

// ReadChunks begins at the first box in b, which must hold whole boxes.
func ReadChunks(b []byte) Chunks { return Chunks{b} }

// Next gives the next chunk; false at the end.
func (s *Chunks) Next() (c Chunk, ok bool, err error) {
	have := false
	for len(s.rest) > 0 {
		kind, body, n, err := nextBox(s.rest)
		if err != nil {
			return c, false, err
		}
		s.rest = s.rest[n:]
		switch kind {
		case "moof":
			if c, err = readMoof(body); err != nil {
				return c, false, err
			}
			have = true
		case "mdat":
			if !have {
				return c, false, fmt.Errorf("%w: mdat without moof", errBox)
			}
			c.Data = body
			return c, true, nil
		}
	}
	if have {
		return c, false, fmt.Errorf("%w: moof without mdat", errBox)
	}
	return c, false, nil
}

// boxKind spares an allocation where the kind is one that is looked for.
func boxKind(b []byte) string {
	switch string(b) {
	case "moof":
		return "moof"
	case "mdat":
		return "mdat"
	case "traf":
		return "traf"
	case "tfhd":
		return "tfhd"
	case "tfdt":
		return "tfdt"
	case "trun":
		return "trun"
	case "moov":
		return "moov"
	case "trak":
		return "trak"
	case "mdia":
		return "mdia"
	case "mdhd":
		return "mdhd"
	}
	return ""
}

func nextBox(b []byte) (kind string, body []byte, size int, err error) {
	if len(b) < 8 {
		return "", nil, 0, fmt.Errorf("%w: %d bytes are no box", errBox, len(b))
	}
	n, head := uint64(be.Uint32(b)), uint64(8)
	kind = boxKind(b[4:8])
	switch n {
	case 0:
		n = uint64(len(b))
	case 1:
		if len(b) < 16 {
			return "", nil, 0, fmt.Errorf("%w: truncated", errBox)
		}
		n, head = be.Uint64(b[8:]), 16
	}
	if n < head || n > uint64(len(b)) {
		return "", nil, 0, fmt.Errorf("%w: a box of %d in %d bytes", errBox, n, len(b))
	}
	return kind, b[head:n], int(n), nil
}

// WholeBoxes is how many bytes of b are whole chunks: everything up to and with the last whole mdat (or the boxes before the first
// moof). It is for streams, where a box may be cut.
func WholeBoxes(b []byte) (used int, err error) {
	at, open := 0, false
	for len(b)-at >= 8 {
		n := uint64(be.Uint32(b[at:]))
		if n < 8 || n > maxFrame {
			return 0, fmt.Errorf("%w: a box of %d bytes in a stream", errBox, n)
		}
		if uint64(len(b)-at) < n {
			break
		}
		kind := boxKind(b[at+4 : at+8])
		at += int(n)
		open = open || kind == "moof"
		if kind == "mdat" || !open {
			used, open = at, false
		}
	}
	return used, nil
}

func readMoof(b []byte) (c Chunk, err error) {
	for len(b) > 0 {
		kind, body, n, err := nextBox(b)
		if err != nil {
			return c, err
		}
		b = b[n:]
		if kind == "traf" {
			return readTraf(body)
		}
	}
	return c, fmt.Errorf("%w: moof without traf", errBox)
}

func readTraf(b []byte) (c Chunk, err error) {
	var duration uint32
	var timed, run bool
	for len(b) > 0 {
		kind, body, n, err := nextBox(b)
		if err != nil {
			return c, err
		}
		b = b[n:]
		switch kind {
		case "tfhd":
			if duration, c.size, err = readTfhd(body); err != nil {
				return c, err
			}
		case "tfdt":
			if len(body) < 8 || body[0] == 1 && len(body) < 12 {
				return c, fmt.Errorf("%w: tfdt", errBox)
			}
			if c.Start = uint64(be.Uint32(body[4:])); body[0] == 1 {
				c.Start = be.Uint64(body[4:])
			}
			timed = true
		case "trun":
			if run {
				return c, fmt.Errorf("%w: two runs in a fragment", errBox)
			}
			if err := c.readTrun(body, duration); err != nil {
				return c, err
			}
			run = true
		}
	}
	if !timed || !run {
		return c, fmt.Errorf("%w: traf without tfdt or trun", errBox)
	}
	return c, nil
}

// readTfhd gives the default duration and size (8.8.7).
func readTfhd(b []byte) (duration, size uint32, err error) {
	if len(b) < 8 {
		return 0, 0, fmt.Errorf("%w: tfhd", errBox)
	}
	flags, rest := be.Uint32(b)&0xffffff, b[8:]
	for _, f := range []struct {
		flag uint32
		size int
		to   *uint32
	}{{0x1, 8, nil}, {0x2, 4, nil}, {0x8, 4, &duration}, {0x10, 4, &size}} {
		if flags&f.flag == 0 {
			continue
		}
		if len(rest) < f.size {
			return 0, 0, fmt.Errorf("%w: tfhd", errBox)
		}
		if f.to != nil {
			*f.to = be.Uint32(rest)
		}
		rest = rest[f.size:]
	}
	return duration, size, nil
}

// readTrun reads a run of samples (8.8.8).
func (c *Chunk) readTrun(b []byte, duration uint32) error {
	if len(b) < 8 {
		return fmt.Errorf("%w: trun", errBox)
	}
	flags, count := be.Uint32(b)&0xffffff, be.Uint32(b[4:])
	head := 8
	if flags&0x1 != 0 {
		head += 4
	}
	if flags&0x4 != 0 {
		head += 4
	}
	durationAt := -1
	c.sizeAt = -1
	for _, f := range []uint32{0x100, 0x200, 0x400, 0x800} {
		if flags&f == 0 {
			continue
		}
		switch f {
		case 0x100:
			durationAt = c.entry
		case 0x200:
			c.sizeAt = c.entry
		}
		c.entry += 4
	}
	if len(b) < head || uint64(count)*uint64(max(c.entry, 0)) != uint64(len(b)-head) || count > 1<<20 {
		return fmt.Errorf("%w: trun of %d samples in %d bytes", errBox, count, len(b))
	}
	c.trun, c.Count = b[head:], int(count)
	c.Duration = uint64(count) * uint64(duration)
	if durationAt >= 0 {
		c.Duration = 0
		for i := range c.Count {
			c.Duration += uint64(be.Uint32(c.trun[i*c.entry+durationAt:]))
		}
	}
	return nil
}

// Timescale is the one of the first track in an initialisation segment, 0 if there is none.
func Timescale(b []byte) uint32 {
	for _, want := range []string{"moov", "trak", "mdia", "mdhd"} {
		found := false
		for len(b) > 0 && !found {
			kind, body, n, err := nextBox(b)
			if err != nil {
				return 0
			}
			b = b[n:]
			if kind == want {
				b, found = body, true
			}
		}
		if !found {
			return 0
		}
	}
	at := 12 // version and flags, creation, modification
	if len(b) > 0 && b[0] == 1 {
		at = 20
	}
	if len(b) < at+4 {
		return 0
	}
	return be.Uint32(b[at:])
}
