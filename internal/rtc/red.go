package rtc

import "errors"

// block is one frame in a RED packet.
type block struct {
	offset  uint32 // samples before the packet's timestamp
	payload []byte // borrowed from the packet
}

var errRED = errors.New("malformed RED")

// maxBlocks bounds a packet's frames; Chromium sends two.
const maxBlocks = 8

// parseRED splits redundant audio (RFC 2198, 3) into its frames, oldest first, the new one last. Frames of another payload
// type than opus are an error, as is a block that reaches beyond the packet.
func parseRED(p []byte, opus uint8) ([]block, error) {
	var (
		out  [maxBlocks]block
		lens [maxBlocks]int
		n    int
	)
	for {
		if len(p) == 0 || n == maxBlocks {
			return nil, errRED
		}
		if p[0]&0x7f != opus {
			return nil, errRED
		}
		if p[0]&0x80 == 0 { // the last header is one byte
			p = p[1:]
			break
		}
		if len(p) < 4 {
			return nil, errRED
		}
		out[n].offset = uint32(p[1])<<6 | uint32(p[2])>>2
		lens[n] = int(p[2]&3)<<8 | int(p[3])
		n++
		p = p[4:]
	}
	if n == maxBlocks {
		return nil, errRED
	}
	for i := range n {
		if lens[i] > len(p) {
			return nil, errRED
		}
		out[i].payload, p = p[:lens[i]], p[lens[i]:]
	}
	out[n].payload = p
	return out[:n+1], nil
}

// window remembers which of the last 64 sequence numbers came.
type window struct {
	top  uint16
	bits uint64 // bit i: top-i came
	any  bool
}

// first notes seq and says whether it is new. What is older than the window counts as known: it is too late to matter.
func (w *window) first(seq uint16) bool {
	if !w.any {
		w.any, w.top, w.bits = true, seq, 1
		return true
	}
	if ahead := seq - w.top; ahead != 0 && ahead < 1<<15 {
		if ahead >= 64 {
			w.bits = 0
		} else {
			w.bits <<= ahead
		}
		w.top, w.bits = seq, w.bits|1
		return true
	}
	back := w.top - seq
	if back >= 64 || w.bits&(1<<back) != 0 {
		return false
	}
	w.bits |= 1 << back
	return true
}
