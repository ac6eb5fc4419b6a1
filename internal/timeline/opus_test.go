package timeline_test

import (
	"bytes"
	"fmt"
	"testing"

	"earshot/internal/timeline"
)

// TestTOC walks table 2 of RFC 6716.
func TestTOC(t *testing.T) {
	var want []int
	for range 3 {
		want = append(want, 480, 960, 1920, 2880) // SILK, three bandwidths
	}
	for range 2 {
		want = append(want, 480, 960) // hybrid, two
	}
	for range 4 {
		want = append(want, 120, 240, 480, 960) // CELT, four
	}
	for config, per := range want {
		toc := byte(config << 3)
		for _, stereo := range []byte{0, 4} {
			for code, n := range []int{per, 2 * per, 2 * per} {
				if got, err := timeline.TOCDuration([]byte{toc | stereo | byte(code)}); err != nil || got != n {
					t.Errorf("config %d code %d: %d samples, %v, want %d", config, code, got, err, n)
				}
			}
			for count := range 64 {
				got, err := timeline.TOCDuration([]byte{toc | stereo | 3, byte(count) | 0x80})
				if ok := count > 0 && count*per <= 5760; ok != (err == nil) || ok && got != count*per {
					t.Errorf("config %d, %d frames: %d samples, %v", config, count, got, err)
				}
			}
		}
	}
	for _, b := range [][]byte{nil, {}, {3}} {
		if n, err := timeline.TOCDuration(b); err == nil {
			t.Errorf("%x: %d samples", b, n)
		}
	}
}

// TestCheckPacket goes through the rules R1 to R7 of RFC 6716, 3.4.
func TestCheckPacket(t *testing.T) {
	const celt20, celt5 = 31 << 3, 29 << 3
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	zero := func(n int) []byte { return make([]byte, n) }
	good := map[string][]byte{
		"nothing but a TOC (silence)":   {celt20},
		"one frame of 1275 bytes":       join([]byte{celt20}, zero(1275)),
		"two equal":                     join([]byte{celt20 | 1}, zero(2*1275)),
		"two empty":                     {celt20 | 1},
		"two, the first empty":          {celt20 | 2, 0, 1},
		"two, a two-byte size":          join([]byte{celt20 | 2, 252, 1}, zero(256+3)),
		"two, the largest size":         join([]byte{celt20 | 2, 255, 255}, zero(1275)),
		"three at constant rate":        join([]byte{celt20 | 3, 3}, zero(30)),
		"three at variable rate":        join([]byte{celt20 | 3, 0x83, 1, 2}, zero(5)),
		"one with padding":              join([]byte{celt20 | 3, 0x41, 2}, zero(2+1)),
		"one with padding of 300":       join([]byte{celt20 | 3, 0x41, 255, 46}, zero(300)),
		"24 of 5 ms":                    join([]byte{celt5 | 3, 24}, zero(24)),
		"variable rate and one padding": {celt20 | 3, 0xc2, 1, 1, 9, 0},
	}
	for name, b := range good {
		if err := timeline.CheckPacket(b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	bad := map[string][]byte{
		"R1 no byte":                         {},
		"R2 one frame too long":              join([]byte{celt20}, zero(1276)),
		"R2 the second of two too long":      join([]byte{celt20 | 2, 0}, zero(1276)),
		"R2 equal frames too long":           join([]byte{celt20 | 1}, zero(2*1276)),
		"R2 last of three too long":          join([]byte{celt20 | 3, 0x83, 0, 0}, zero(1276)),
		"R2 constant rate too long":          join([]byte{celt20 | 3, 1}, zero(1276)),
		"R3 odd":                             {celt20 | 1, 0},
		"R4 no size":                         {celt20 | 2},
		"R4 half a size":                     {celt20 | 2, 252},
		"R4 size beyond the end":             {celt20 | 2, 2, 0},
		"R5 no count":                        {celt20 | 3},
		"R5 no frame":                        {celt20 | 3, 0},
		"R5 140 ms":                          {celt20 | 3, 7},
		"R5 25 of 5 ms":                      {celt5 | 3, 25},
		"R6 does not divide":                 join([]byte{celt20 | 3, 3}, zero(31)),
		"R6 padding beyond the end":          {celt20 | 3, 0x41, 3, 0, 0},
		"R6 padding without its length":      {celt20 | 3, 0x41},
		"R6 endless padding":                 {celt20 | 3, 0x41, 255, 255, 255},
		"R7 sizes missing":                   {celt20 | 3, 0x83, 1},
		"R7 sizes beyond the end":            {celt20 | 3, 0x83, 1, 2, 0, 0},
		"R7 sizes run into the padding":      {celt20 | 3, 0xc2, 2, 3, 0, 0, 0},
		"R7 half a size":                     {celt20 | 3, 0x82, 252},
		"R7 sizes taken from within padding": {celt20 | 3, 0xc3, 1, 0},
	}
	for name, b := range bad {
		if err := timeline.CheckPacket(b); err == nil {
			t.Errorf("%s: passed", name)
		}
	}
	for i, p := range tone {
		if n, err := timeline.TOCDuration(p); err != nil || n != 960 || timeline.CheckPacket(p) != nil {
			t.Fatalf("packet %d of a real encoder: %d samples, %v, %v", i, n, err, timeline.CheckPacket(p))
		}
	}
}

func FuzzCheckPacket(f *testing.F) {
	f.Add([]byte{31 << 3, 1, 2, 3})
	f.Add([]byte{31<<3 | 3, 0xc2, 1, 1, 9, 0})
	f.Add([]byte{31<<3 | 2, 252, 1})
	f.Add(tone[0])
	f.Fuzz(func(t *testing.T, b []byte) {
		before := fmt.Sprintf("%x", b)
		err := timeline.CheckPacket(b)
		if fmt.Sprintf("%x", b) != before {
			t.Fatal("the packet was changed")
		}
		if err != nil {
			return
		}
		if n, err := timeline.TOCDuration(b); err != nil || n < 120 || n > 5760 || n%120 != 0 {
			t.Fatalf("passed, but sounds for %d samples, %v", n, err)
		}
		// What passes can be written to a file: no page overflows.
		if err := timeline.NewOggWriter(&bytes.Buffer{}, 1).Write([][]byte{b, b}); err != nil {
			t.Fatal(err)
		}
	})
}
