package mix_test

import (
	"testing"

	"earshot/internal/mix"
)

// What the framing says is what libopus decodes, and what it refuses libopus refuses.
func FuzzInspect(f *testing.F) {
	f.Add([]byte{0x78, 1, 2, 3})
	f.Add([]byte{0x79, 1, 2, 3, 4})
	f.Add([]byte{0x7a, 2, 1, 2, 3})
	f.Add([]byte{0x7b, 0xc3, 2, 1, 1, 2, 3, 4, 5, 0, 0}) // code 3, VBR, padded
	f.Add([]byte{0x83, 0x30, 1})
	f.Add([]byte{0x7b, 0x41, 255, 255})
	f.Add([]byte{0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 || len(b) > 2000 {
			return
		}
		samples, _, fec, dtx, err := mix.Inspect(b)
		dec, e := mix.NewDecoder()
		if e != nil {
			t.Fatal(e)
		}
		pcm := make([]float32, 5760)
		n, e := dec.Decode(b, pcm)
		if (err == nil) != (e == nil) {
			t.Fatalf("inspect: %v, libopus: %v", err, e)
		}
		if err != nil {
			return
		}
		if n != samples || samples < 120 || samples > 5760 {
			t.Fatalf("%d samples, libopus decoded %d", samples, n)
		}
		if fec && dtx {
			t.Fatal("an empty packet with a copy")
		}
	})
}

func TestInspect(t *testing.T) {
	for name, c := range map[string]struct {
		packet         []byte
		samples, frame int
		fec, dtx, bad  bool
	}{
		"CELT 2.5 ms":            {packet: []byte{0xe0, 9}, samples: 120, frame: 120},
		"hybrid 20 ms, copy":     {packet: []byte{0x78, 0xc0, 1}, samples: 960, frame: 960, fec: true},
		"hybrid 20 ms, none":     {packet: []byte{0x78, 0x80, 1}, samples: 960, frame: 960},
		"SILK 60 ms, copy":       {packet: []byte{0x18, 0xf0, 1}, samples: 2880, frame: 2880, fec: true},
		"SILK 60 ms, VAD only":   {packet: []byte{0x18, 0xe0, 1}, samples: 2880, frame: 2880},
		"stereo, copy on a side": {packet: []byte{0x7c, 0x10, 1}, samples: 960, frame: 960, fec: true},
		"CELT has no copy":       {packet: []byte{0xf8, 0xff, 1}, samples: 960, frame: 960},
		"only a TOC":             {packet: []byte{0x78}, samples: 960, frame: 960, dtx: true},
		"six frames of 20 ms":    {packet: []byte{0xfb, 6, 1, 2, 3, 4, 5, 6}, samples: 5760, frame: 960},
		"seven frames of 20 ms":  {packet: []byte{0xfb, 7, 1, 2, 3, 4, 5, 6, 7}, bad: true},
		"two unequal halves":     {packet: []byte{0x79, 1, 2, 3}, bad: true},
		"no frame at all":        {packet: []byte{0x7b, 0}, bad: true},
		"padding without end":    {packet: []byte{0x7b, 0x41, 255, 255}, bad: true},
		"a first frame too long": {packet: []byte{0x7a, 9, 1}, bad: true},
		"nothing":                {bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			samples, frame, fec, dtx, err := mix.Inspect(c.packet)
			if (err != nil) != c.bad || samples != c.samples || frame != c.frame || fec != c.fec || dtx != c.dtx {
				t.Errorf("%d samples, frames of %d, copy %v, silent %v, error %v", samples, frame, fec, dtx, err)
			}
		})
	}
}

// The programme's packets all begin with the same byte, whatever is said, and carry copies of speech.
func TestSteadyTOC(t *testing.T) {
	for name, signal := range map[string]func(int64) float64{
		"speech": speech(140, -20), "tone": tone(500, -20), "silence": func(int64) float64 { return 0 },
	} {
		s := newSender(t, signal)
		copies := 0
		for i := range 150 {
			p := s.next(0).Payload
			if p[0] != 0x78 { // hybrid, full band, 20 ms, mono, one frame
				t.Fatalf("%s: packet %d begins with %#x", name, i, p[0])
			}
			if _, _, fec, _, _ := mix.Inspect(p); fec {
				copies++
			}
		}
		if name == "speech" && copies < 75 {
			t.Errorf("%d of 150 packets of speech carry a copy", copies)
		}
	}
}
