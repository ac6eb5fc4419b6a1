package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

var (
	le     = binary.LittleEndian
	errOgg = errors.New("malformed Ogg")
)

// Page is an Ogg page (RFC 3533, 6).
type Page struct {
	Continued, First, Last bool
	Granule                uint64 // all ones: no packet ends here
	Serial, Number         uint32
	Lacing, Data           []byte
}

// ReadPage reads one page. It does not check the checksum; see Sound.
func ReadPage(b []byte) (p Page, used int, err error) {
	if n := min(len(b), 4); !bytes.Equal(b[:n], []byte("OggS")[:n]) {
		return p, 0, fmt.Errorf("%w: no page begins with %q", errOgg, b[:n])
	}
	if len(b) < 27 {
		return p, 0, nil
	}
	if b[4] != 0 {
		return p, 0, fmt.Errorf("%w: version %d", errOgg, b[4])
	}
	lacing := int(b[26])
	if len(b) < 27+lacing {
		return p, 0, nil
	}
	p.Continued, p.First, p.Last = b[5]&1 != 0, b[5]&2 != 0, b[5]&4 != 0
	p.Granule, p.Serial, p.Number = le.Uint64(b[6:]), le.Uint32(b[14:]), le.Uint32(b[18:])
	p.Lacing = b[27 : 27+lacing]
	size := 27 + lacing
	for _, n := range p.Lacing {
		size += int(n)
	}
	if len(b) < size {
		return p, 0, nil
	}
	p.Data = b[27+lacing : size]
	return p, size, nil
}

// Packet gives the packet that begins at lacing value i and byte at of a page, and where the next begins. Whole is false for one that
// goes on in the next page.
func (p *Page) Packet(i, at int) (packet []byte, next, end int, whole bool) {
	end = at
	for next = i; next < len(p.Lacing); {
		n := int(p.Lacing[next])
		end += n
		next++
		if n < 255 {
			return p.Data[at:end], next, end, true
		}
	}
	return p.Data[at:end], next, end, false
}

// Sound checks the checksum of the page that b begins with and is (CRC-32, 0x04c11db7, not reflected, from zero).
func Sound(b []byte) bool {
	if len(b) < 27 {
		return false
	}
	var sum uint32
	for i, c := range b {
		if i >= 22 && i < 26 {
			c = 0
		}
		sum = sum<<8 ^ oggTable[byte(sum>>24)^c]
	}
	return sum == le.Uint32(b[22:])
}

var oggTable = func() (t [256]uint32) {
	for i := range t {
		r := uint32(i) << 24
		for range 8 {
			top := r >> 31
			r <<= 1
			r ^= top * 0x04c11db7
		}
		t[i] = r
	}
	return t
}()
