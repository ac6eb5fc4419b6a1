package timeline

import (
	"errors"
	"fmt"
)

// MaxPacket is the most bytes that one frame's packet may have: a TOC and one Opus frame of 1275 bytes (RFC 6716, 3.2.1),
// which is 510 kbit/s. Ten of them fit into one Ogg page.
const MaxPacket = 1 + maxOpusFrame

const (
	maxOpusFrame  = 1275 // bytes, RFC 6716, 3.4, R2
	maxOpusFrames = 48   // in one packet, R5: 120 ms of 2.5 ms
	maxOpusTime   = 5760 // samples at 48 kHz: 120 ms
)

var (
	errEmpty = errors.New("opus: empty packet")
	errShort = errors.New("opus: packet shorter than its framing says")
)

// TOCDuration is how long a packet sounds, in samples at 48 kHz, by its table-of-contents byte (RFC 6716, 3.1) and, for code 3,
// the count that follows. It says nothing of the rest; see CheckPacket.
func TOCDuration(packet []byte) (samples int, err error) {
	if len(packet) == 0 {
		return 0, errEmpty
	}
	toc := packet[0]
	per := frameSamples(toc >> 3)
	switch toc & 3 {
	case 0:
		return per, nil
	case 1, 2:
		return 2 * per, nil
	}
	if len(packet) < 2 {
		return 0, errShort
	}
	n := int(packet[1] & 0x3f)
	if n == 0 || n*per > maxOpusTime {
		return 0, fmt.Errorf("opus: %d frames of %d samples in a packet", n, per)
	}
	return n * per, nil
}

// frameSamples is table 2 of RFC 6716.
func frameSamples(config byte) int {
	switch {
	case config < 12: // SILK: 10, 20, 40, 60 ms
		return [...]int{480, 960, 1920, 2880}[config&3]
	case config < 16: // hybrid: 10, 20 ms
		return [...]int{480, 960}[config&1]
	}
	return 120 << (config & 3) // CELT: 2.5, 5, 10, 20 ms
}

// CheckPacket checks a packet's framing by the rules R1 to R7 of RFC 6716, 3.4. A packet that passes may still hold noise, but no
// reader runs past its end.
func CheckPacket(packet []byte) error {
	if _, err := TOCDuration(packet); err != nil {
		return err
	}
	rest := packet[1:]
	switch packet[0] & 3 {
	case 0: // one frame
		return checkFrameSize(len(rest))
	case 1: // two of equal size
		if len(rest)%2 != 0 {
			return errors.New("opus: two equal frames in an odd number of bytes")
		}
		return checkFrameSize(len(rest) / 2)
	case 2: // two, the first's size given
		n, rest, err := frameSize(rest)
		if err != nil {
			return err
		}
		if n > len(rest) {
			return errShort
		}
		return checkFrameSize(len(rest) - n)
	}
	return checkMany(packet[1:])
}

// checkMany checks a code 3 packet, without its TOC (3.2.5): count, padding, sizes, frames, padding.
func checkMany(b []byte) error {
	head := b[0]
	count, b := int(head&0x3f), b[1:]
	if head&0x40 != 0 {
		padding := 0
		for more := true; more; {
			if len(b) == 0 {
				return errShort
			}
			n := int(b[0])
			b = b[1:]
			more = n == 255
			if more {
				n = 254
			}
			padding += n
		}
		if padding > len(b) {
			return errShort
		}
		b = b[:len(b)-padding]
	}
	if head&0x80 == 0 { // constant rate
		if len(b)%count != 0 {
			return fmt.Errorf("opus: %d equal frames in %d bytes", count, len(b))
		}
		return checkFrameSize(len(b) / count)
	}
	sum := 0
	for range count - 1 {
		n, rest, err := frameSize(b)
		if err != nil {
			return err
		}
		sum, b = sum+n, rest
	}
	if sum > len(b) {
		return errShort
	}
	return checkFrameSize(len(b) - sum)
}

// frameSize reads a frame's length (3.2.1): one byte, or two.
func frameSize(b []byte) (n int, rest []byte, err error) {
	switch {
	case len(b) == 0:
		return 0, nil, errShort
	case b[0] < 252:
		return int(b[0]), b[1:], nil
	case len(b) < 2:
		return 0, nil, errShort
	}
	return int(b[1])*4 + int(b[0]), b[2:], nil // at most 1275
}

func checkFrameSize(n int) error {
	if n > maxOpusFrame {
		return fmt.Errorf("opus: a frame of %d bytes", n)
	}
	return nil
}

// checkFrame says whether a packet can be a frame of the timeline.
func checkFrame(packet []byte) error {
	if len(packet) > MaxPacket {
		return fmt.Errorf("%w: %d bytes", ErrPacket, len(packet))
	}
	if err := CheckPacket(packet); err != nil {
		return fmt.Errorf("%w: %v", ErrPacket, err)
	}
	if n, _ := TOCDuration(packet); n != samplesPerFrame {
		return fmt.Errorf("%w: %d samples", ErrPacket, n)
	}
	return nil
}
