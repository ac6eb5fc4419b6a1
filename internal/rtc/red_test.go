package rtc

import (
	"bytes"
	"testing"
)

func TestParseRED(t *testing.T) {
	// RFC 2198, 3: two older frames, 1920 and 960 samples back, then the new one.
	packet := []byte{
		0x80 | 111, 1920 >> 6, 1920 & 63 << 2, 2,
		0x80 | 111, 960 >> 6, 960 & 63 << 2, 1,
		111, 'a', 'b', 'c', 'd', 'e',
	}
	blocks, err := parseRED(packet, 111)
	if err != nil || len(blocks) != 3 {
		t.Fatalf("%v, %v", blocks, err)
	}
	for i, want := range []struct {
		offset  uint32
		payload string
	}{{1920, "ab"}, {960, "c"}, {0, "de"}} {
		if blocks[i].offset != want.offset || string(blocks[i].payload) != want.payload {
			t.Errorf("block %d: %+v, want %+v", i, blocks[i], want)
		}
	}
	for _, bad := range [][]byte{nil, {0x80 | 111}, {0x80 | 111, 0, 0}, {110, 1}, {0x80 | 111, 0, 0, 9, 111, 1}, bytes.Repeat([]byte{0x80 | 111, 0, 0, 0}, 20)} {
		if b, err := parseRED(bad, 111); err == nil {
			t.Errorf("%x was read as %v", bad, b)
		}
	}
}

func FuzzParseRED(f *testing.F) {
	f.Add([]byte{0x80 | 111, 15, 0, 1, 111, 1, 2}, uint8(111))
	f.Add([]byte{111}, uint8(111))
	f.Fuzz(func(t *testing.T, b []byte, pt uint8) {
		blocks, err := parseRED(b, pt&0x7f)
		if err != nil {
			return
		}
		n := 4*(len(blocks)-1) + 1
		for _, block := range blocks {
			n += len(block.payload)
		}
		if n != len(b) || len(blocks) > maxBlocks {
			t.Fatalf("%d bytes in %d blocks, of a packet of %d", n, len(blocks), len(b))
		}
	})
}

func TestWindow(t *testing.T) {
	var w window
	for _, c := range []struct {
		seq uint16
		new bool
	}{{65534, true}, {65534, false}, {0, true}, {65535, true}, {65535, false}, {0, false}, {63, true}, {64, true}, {0, false}, {1, true}, {1, false}, {30000, true}, {64, false}} {
		if got := w.first(c.seq); got != c.new {
			t.Errorf("first(%d) = %v", c.seq, got)
		}
	}
}
