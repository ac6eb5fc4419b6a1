package wire

import (
	"errors"
	"fmt"
)

var errRTP = errors.New("malformed RTP")

// RTP is the header of an RTP packet (RFC 3550, 5.1).
type RTP struct {
	Type   uint8
	Seq    uint16
	Time   uint32
	SSRC   uint32
	Header int // bytes, extension included
}

// ReadRTP reads a packet's header, which SRTP leaves in clear.
func ReadRTP(b []byte) (p RTP, err error) {
	if len(b) < 12 || b[0]>>6 != 2 {
		return p, errRTP
	}
	p.Type, p.Seq, p.Time, p.SSRC = b[1]&0x7f, be.Uint16(b[2:]), be.Uint32(b[4:]), be.Uint32(b[8:])
	p.Header = 12 + 4*int(b[0]&15)
	if b[0]&0x10 != 0 {
		if len(b) < p.Header+4 {
			return p, errRTP
		}
		p.Header += 4 + 4*int(be.Uint16(b[p.Header+2:]))
	}
	if p.Header > len(b) {
		return p, errRTP
	}
	return p, nil
}

// Block is one of a RED payload's (RFC 2198).
type Block struct {
	Type    uint8
	Back    uint32 // how much earlier than the packet's its time is
	Payload []byte
}

// maxBlocks bounds what one RED payload may carry.
const maxBlocks = 8

// ReadRED splits a RED payload; the last block is the packet's own.
func ReadRED(b []byte) (blocks [maxBlocks]Block, n int, err error) {
	var sizes [maxBlocks]int
	for {
		if len(b) == 0 || n == maxBlocks {
			return blocks, 0, fmt.Errorf("%w: RED", errRTP)
		}
		blocks[n].Type = b[0] & 0x7f
		if b[0]&0x80 == 0 {
			b = b[1:]
			n++
			break
		}
		if len(b) < 4 {
			return blocks, 0, fmt.Errorf("%w: RED", errRTP)
		}
		v := be.Uint32(b)
		blocks[n].Back, sizes[n] = v>>10&0x3fff, int(v&0x3ff)
		b = b[4:]
		n++
	}
	for i := range n - 1 {
		if sizes[i] > len(b) {
			return blocks, 0, fmt.Errorf("%w: RED", errRTP)
		}
		blocks[i].Payload, b = b[:sizes[i]], b[sizes[i]:]
	}
	blocks[n-1].Payload = b
	return blocks, n, nil
}

// IsRTCP tells RTCP from RTP on one port by its second byte (RFC 5761, 4).
func IsRTCP(b []byte) bool { return len(b) > 1 && b[1] >= 192 && b[1] <= 223 }
