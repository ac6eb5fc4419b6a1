package radio

import (
	"errors"
	"fmt"
)

// What a child says must be frames, one after another, as it was told to make them. Anything else means that it is not to be trusted,
// so nothing looks for the next frame behind garbage.
var errGarbled = errors.New("radio: the converter's output is not what was asked for")

const (
	adtsHeader = 7
	mpegHeader = 4
	maxFrame   = 8191 // ADTS: 13 bits
)

// cutADTS gives the length of the ADTS frame at the start of b, 0 if b is too short to say. Only mono AAC-LC at 48 kHz, one block, without a
// checksum, is taken.
func cutADTS(b []byte) (int, error) {
	if len(b) < adtsHeader {
		return 0, nil
	}
	// Sync word, MPEG-4 (or 2), layer 0, no checksum; profile LC, frequency 3, not private, channel configuration 1.
	if b[0] != 0xff || b[1]&0xf7 != 0xf1 || b[2]&0xfd != 0x4c || b[3]>>6 != 1 || b[6]&3 != 0 {
		return 0, fmt.Errorf("%w: ADTS header %x", errGarbled, b[:adtsHeader])
	}
	n := int(b[3]&3)<<11 | int(b[4])<<3 | int(b[5])>>5
	if n <= adtsHeader {
		return 0, fmt.Errorf("%w: ADTS frame of %d bytes", errGarbled, n)
	}
	return n, nil
}

// mpegRates are the bit rates of MPEG-1 layer III, in kbit/s.
var mpegRates = [16]int{0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0}

// cutMPEG gives the length of the MPEG-1 layer III frame at the start of b, 0 if b is too short to say. Only mono at 48 kHz is taken.
func cutMPEG(b []byte) (int, error) {
	if len(b) < mpegHeader {
		return 0, nil
	}
	rate := mpegRates[b[2]>>4]
	if b[0] != 0xff || b[1]&0xfe != 0xfa || b[2]&0x0c != 0x04 || b[3]>>6 != 3 || rate == 0 {
		return 0, fmt.Errorf("%w: MPEG header %x", errGarbled, b[:mpegHeader])
	}
	return 144*rate*1000/sampleRate + int(b[2]>>1&1), nil
}

// splitter cuts a stream into frames. It holds one frame's bytes at most.
type splitter struct {
	cut  func([]byte) (int, error)
	rest []byte
}

// feed takes the next bytes and hands on each whole frame in them, valid until to returns.
func (s *splitter) feed(b []byte, to func(frame []byte)) error {
	if len(s.rest) > 0 {
		b = append(s.rest, b...)
	}
	for {
		n, err := s.cut(b)
		if err != nil {
			return err
		}
		if n == 0 || n > len(b) {
			break
		}
		to(b[:n])
		b = b[n:]
	}
	s.rest = append(s.rest[:0:0], b...)
	return nil
}
