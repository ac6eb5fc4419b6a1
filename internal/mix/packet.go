package mix

import (
	"errors"
	"time"
)

// Packet is one RTP packet of a voice, without its header.
type Packet struct {
	Seq     uint16
	TS      uint32        // in samples of 48 kHz (RFC 7587, 4.1)
	Payload []byte        // one Opus packet; borrowed for the call of Push
	Arrived time.Duration // monotonic, since any fixed zero; the same zero as Mix's now
}

// packetInfo is what the framing of an Opus packet says (RFC 6716, 3).
type packetInfo struct {
	samples int  // at 48 kHz, all frames
	frame   int  // samples of one frame
	fec     bool // carries a copy of the frame before it
	dtx     bool // all its frames are empty: the sender is silent
}

var (
	errFraming = errors.New("not an Opus packet")
	errLong    = errors.New("an Opus packet of more than 120 ms")
)

// inspect checks a packet's framing by the rules R1 to R7 of RFC 6716, 3.4, so that nothing malformed takes a place in the
// buffer, and finds what the buffer needs to know before the packet is decoded.
func inspect(b []byte) (packetInfo, error) {
	if len(b) == 0 {
		return packetInfo{}, errFraming
	}
	toc, rest := b[0], b[1:]
	info := packetInfo{frame: frameSamples(toc)}
	count, first := 1, len(rest) // frames; bytes of the first
	empty := len(rest) == 0
	switch toc & 3 {
	case 1:
		if len(rest)%2 != 0 {
			return packetInfo{}, errFraming
		}
		count, first = 2, len(rest)/2
	case 2:
		n, used, ok := frameLength(rest)
		if !ok || n > len(rest)-used {
			return packetInfo{}, errFraming
		}
		rest = rest[used:]
		count, first, empty = 2, n, len(rest) == 0
	case 3:
		var ok bool
		if rest, count, first, ok = codeThree(rest); !ok {
			return packetInfo{}, errFraming
		}
		empty = len(rest) == 0
	}
	if first > 1275 || (toc&3 != 3 && len(rest)-first > 1275) {
		return packetInfo{}, errFraming
	}
	info.samples = count * info.frame
	if info.samples > maxSamples {
		return packetInfo{}, errLong
	}
	info.dtx = empty
	info.fec = hasFEC(toc, info.frame, rest[:first])
	return info, nil
}

// maxSamples is 120 ms, the longest packet there is (RFC 6716, R5).
const maxSamples = 5760

// codeThree reads the frame count byte, padding and lengths of a packet of code 3 (RFC 6716, 3.2.5). It returns the frames'
// bytes, their number and the length of the first.
func codeThree(b []byte) (frames []byte, count, first int, ok bool) {
	if len(b) == 0 {
		return nil, 0, 0, false
	}
	head := b[0]
	b = b[1:]
	if count = int(head & 0x3f); count == 0 {
		return nil, 0, 0, false
	}
	if head&0x40 != 0 {
		pad := 0
		for {
			if len(b) == 0 {
				return nil, 0, 0, false
			}
			p := int(b[0])
			b = b[1:]
			if p < 255 {
				pad += p
				break
			}
			pad += 254
		}
		if pad > len(b) {
			return nil, 0, 0, false
		}
		b = b[:len(b)-pad]
	}
	if head&0x80 == 0 { // all of one length
		if len(b)%count != 0 || len(b)/count > 1275 {
			return nil, 0, 0, false
		}
		return b, count, len(b) / count, true
	}
	sum := 0
	for i := range count - 1 {
		n, used, fine := frameLength(b)
		if !fine {
			return nil, 0, 0, false
		}
		b = b[used:]
		if sum += n; i == 0 {
			first = n
		}
	}
	last := len(b) - sum
	if last < 0 || last > 1275 {
		return nil, 0, 0, false
	}
	if count == 1 {
		first = last
	}
	return b, count, first, true
}

// frameLength reads the one or two bytes of RFC 6716, 3.2.1.
func frameLength(b []byte) (n, used int, ok bool) {
	switch {
	case len(b) == 0:
		return 0, 0, false
	case b[0] < 252:
		return int(b[0]), 1, true
	case len(b) < 2:
		return 0, 0, false
	}
	return 4*int(b[1]) + int(b[0]), 2, true
}

// frameSamples is the length of one frame by the TOC's configuration (RFC 6716, table 2), at 48 kHz.
func frameSamples(toc byte) int {
	config := toc >> 3
	switch {
	case config < 12: // SILK: 10, 20, 40, 60 ms
		return [4]int{480, 960, 1920, 2880}[config&3]
	case config < 16: // hybrid: 10, 20 ms
		return 480 << (config & 1)
	}
	return 120 << (config & 3) // CELT: 2.5, 5, 10, 20 ms
}

// hasFEC looks for the LBRR flag, which follows the VAD flags at the start of a SILK frame (RFC 6716, 4.2.3): bits of even
// odds, so the range coder leaves them readable as they are. A stereo frame has the side channel's after the mid channel's.
func hasFEC(toc byte, samples int, frame []byte) bool {
	if toc >= 16<<3 || len(frame) == 0 {
		return false
	}
	n := max(samples/960, 1) // SILK frames, one VAD flag each
	mid := frame[0]>>(7-n)&1 != 0
	side := toc&4 != 0 && frame[0]>>(6-2*n)&1 != 0 // n is 3 at most
	return mid || side
}
