package radio

import (
	"bytes"
	"errors"
	"testing"
)

func adts(payload int) []byte {
	n := adtsHeader + payload
	return append([]byte{0xff, 0xf1, 0x4c, 0x40 | byte(n>>11), byte(n >> 3), byte(n<<5) | 0x1f, 0xfc}, make([]byte, payload)...)
}

func mpeg() []byte { return append([]byte{0xff, 0xfb, 0x54, 0xc4}, make([]byte, 188)...) }

// However the bytes fall into reads, the same frames come out.
func TestSplit(t *testing.T) {
	for name, x := range map[string]struct {
		cut    func([]byte) (int, error)
		frames [][]byte
	}{
		"ADTS": {cutADTS, [][]byte{adts(1), adts(300), adts(maxFrame - adtsHeader), adts(20)}},
		"MPEG": {cutMPEG, [][]byte{mpeg(), mpeg(), mpeg()}},
	} {
		all := bytes.Join(x.frames, nil)
		for _, step := range []int{1, 2, 3, 7, 191, 5000, len(all)} {
			s := splitter{cut: x.cut}
			var got [][]byte
			for rest := all; len(rest) > 0; {
				n := min(step, len(rest))
				if err := s.feed(rest[:n], func(f []byte) { got = append(got, bytes.Clone(f)) }); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			if len(got) != len(x.frames) || len(s.rest) != 0 {
				t.Fatalf("%s by %d: %d frames, %d bytes left", name, step, len(got), len(s.rest))
			}
			for i := range got {
				if !bytes.Equal(got[i], x.frames[i]) {
					t.Errorf("%s by %d: frame %d has %d bytes", name, step, i, len(got[i]))
				}
			}
		}
	}
}

func TestForeignFrames(t *testing.T) {
	change := func(b []byte, at int, to byte) []byte { b[at] = to; return b }
	for name, x := range map[string]struct {
		cut func([]byte) (int, error)
		b   []byte
	}{
		"no sync":           {cutADTS, change(adts(50), 0, 0xfe)},
		"with a checksum":   {cutADTS, change(adts(50), 1, 0xf0)},
		"44.1 kHz":          {cutADTS, change(adts(50), 2, 0x50)},
		"stereo":            {cutADTS, change(adts(50), 3, 0x80)},
		"two blocks":        {cutADTS, change(adts(50), 6, 0xfd)},
		"empty":             {cutADTS, adts(0)},
		"layer II":          {cutMPEG, change(mpeg(), 1, 0xfd)},
		"44.1 kHz MPEG":     {cutMPEG, change(mpeg(), 2, 0x50)},
		"free rate":         {cutMPEG, change(mpeg(), 2, 0x04)},
		"no rate":           {cutMPEG, change(mpeg(), 2, 0xf4)},
		"stereo MPEG":       {cutMPEG, change(mpeg(), 3, 0x04)},
		"an ID3 tag":        {cutMPEG, []byte("ID3\x04\x00\x00")},
		"words on a stream": {cutADTS, []byte("Press [q] to stop")},
	} {
		if n, err := x.cut(x.b); !errors.Is(err, errGarbled) {
			t.Errorf("%s: %d %v", name, n, err)
		}
	}
}

func FuzzSplit(f *testing.F) {
	f.Add(bytes.Join([][]byte{adts(10), adts(200)}, nil), uint8(3), false)
	f.Add(bytes.Join([][]byte{mpeg(), mpeg()}, nil), uint8(50), true)
	f.Fuzz(func(t *testing.T, b []byte, step uint8, mp3 bool) {
		cut := cutADTS
		if mp3 {
			cut = cutMPEG
		}
		whole, piecewise := splitter{cut: cut}, splitter{cut: cut}
		var want, got []byte
		werr := whole.feed(b, func(f []byte) { want = append(want, f...) })
		var gerr error
		for rest := b; len(rest) > 0 && gerr == nil; {
			n := min(int(step)+1, len(rest))
			gerr = piecewise.feed(rest[:n], func(f []byte) {
				if len(f) == 0 || len(f) > maxFrame {
					t.Fatalf("a frame of %d bytes", len(f))
				}
				got = append(got, f...)
			})
			rest = rest[n:]
		}
		if !bytes.Equal(want, got) || (werr == nil) != (gerr == nil) || !bytes.HasPrefix(b, got) {
			t.Errorf("%d bytes in frames at once (%v), %d piecewise (%v)", len(want), werr, len(got), gerr)
		}
	})
}
