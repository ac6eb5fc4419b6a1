package timeline_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"earshot/internal/timeline"
)

var update = flag.Bool("update", false, "write testdata/golden.txt anew")

// goldenPart is a part with short packets and two cues.
func goldenPart(t testing.TB) *timeline.Part {
	t.Helper()
	tl := newTimeline(t, timeline.Config{First: 4500, Epoch: 7})
	about := uint64(4400)
	for i := range uint64(10) {
		var cues []timeline.Cue
		switch i {
		case 0:
			cues = append(cues, timeline.Cue{Kind: "levels", Data: json.RawMessage(`{"p_1": -23.5}`)})
		case 7:
			cues = append(cues, timeline.Cue{Kind: "caption", About: &about, Data: json.RawMessage(`"a < b"`)})
		}
		f := timeline.Frame{Number: 4500 + i, Epoch: 7, Packet: append([]byte{31 << 3}, bytes.Repeat([]byte{byte(i)}, int(i))...)}
		if err := tl.Append(f, cues...); err != nil {
			t.Fatal(err)
		}
	}
	p, err := tl.Part(450)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestGolden holds the bytes that are stored for years: a change here is a change of the format of recordings.
func TestGolden(t *testing.T) {
	p := goldenPart(t)
	var text strings.Builder
	for _, x := range []struct {
		name  string
		bytes []byte
	}{{"init", timeline.Init()}, {"part", p.CMAF}, {"ogg headers", timeline.OggHeaders()}, {"ogg page", p.Ogg}} {
		fmt.Fprintf(&text, "%s\n%s\n", x.name, hex.Dump(x.bytes))
	}
	const file = "testdata/golden.txt"
	if *update {
		if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if text.String() != string(want) {
		t.Errorf("the bytes changed; if that is meant, run with -update and look at the difference\n%s", text.String())
	}
	if got, want := string(p.CueText), `[{"frame":4500,"kind":"levels","data":{"p_1":-23.5}},{"frame":4507,"about":4400,"kind":"caption","data":"a \u003c b"}]`; got != want {
		t.Errorf("cue text %s, want %s", got, want)
	}
}

// TestReadChunksRefuses damages a good chunk, one thing at a time.
func TestReadChunksRefuses(t *testing.T) {
	p := goldenPart(t)
	if _, _, err := timeline.ReadChunks(p.CMAF); err != nil {
		t.Fatal(err)
	}
	if frames, cues, err := timeline.ReadChunks(nil); err != nil || len(frames)+len(cues) != 0 {
		t.Errorf("nothing: %v, %v, %v", frames, cues, err)
	}
	moof := len(p.CMAF) - len(p.Media)
	at := func(kind string) int { return bytes.Index(p.CMAF, []byte(kind)) }
	set := func(offset int, v uint32) []byte {
		b := bytes.Clone(p.CMAF)
		binary.BigEndian.PutUint32(b[offset:], v)
		return b
	}
	cue := func(old, new string) []byte { return bytes.Replace(p.CMAF, []byte(old), []byte(new), 1) }
	for name, b := range map[string][]byte{
		"moof first, then emsg":      append(bytes.Clone(p.Media), p.CMAF[:moof]...),
		"the same again":             append(bytes.Clone(p.CMAF), p.CMAF...),
		"another box":                append([]byte("\x00\x00\x00\x08free"), p.CMAF...),
		"the initialisation segment": timeline.Init(),
		"a box of 4 GB":              set(moof, 0xffffffff),
		"a box of no size":           set(moof, 0),
		"a box that hides a header":  set(moof, 7),
		"emsg too long":              set(0, uint32(moof)+1),
		"emsg version 0":             set(8, 0),
		"emsg in another timescale":  set(12, 1000),
		"emsg at another time":       set(20, 0),
		"emsg of another length":     set(24, 960),
		"emsg with another number":   set(28, 451),
		"emsg of another scheme":     cue("earshot:cues", "another:cues"),
		"another fragment number":    set(at("mfhd")+8, 1),
		"another track":              set(at("tfhd")+8, 2),
		"another duration":           set(at("tfhd")+12, 480),
		"decode time amid a frame":   set(at("tfdt")+12, 4500*960+1),
		"decode time amid a part":    set(at("tfdt")+12, 4501*960),
		"decode time elsewhere":      set(at("tfdt")+12, 9600),
		"no frame":                   set(at("trun")+8, 0),
		"eleven frames":              set(at("trun")+8, 11),
		"four billion frames":        set(at("trun")+8, 0xffffffff),
		"another data offset":        set(at("trun")+12, 0),
		"a packet of no bytes":       set(at("trun")+16, 0),
		"a packet of 4 GB":           set(at("trun")+16, 0xffffffff),
		"packets that overlap":       set(at("trun")+20, 1),
		"mdat too long":              set(at("mdat")-4, 1000),
		"a packet of 10 ms":          bytes.Replace(p.CMAF, []byte{31 << 3, 1}, []byte{30 << 3, 1}, 1),
		"cues of another part":       cue(`"frame":4500`, `"frame":4499`),
		"cues of the next part":      cue(`"frame":4507`, `"frame":4510`),
		"cues out of order":          cue(`"frame":4500`, `"frame":4509`),
		"cues that are no JSON":      cue(`[{`, `[[`),
		"a cue about the future":     cue(`4400`, `4600`),
		"a cue without a kind":       cue(`"kind":"levels"`, `"kjnd":"levels"`),
	} {
		if frames, cues, err := timeline.ReadChunks(b); err == nil {
			t.Errorf("%s: read %d frames, %d cues", name, len(frames), len(cues))
		} else if frames != nil || cues != nil {
			t.Errorf("%s: an error and %d frames, %d cues", name, len(frames), len(cues))
		}
	}
	for n := 1; n < len(p.CMAF); n++ {
		if n == moof {
			continue
		}
		if _, _, err := timeline.ReadChunks(p.CMAF[:n]); err == nil {
			t.Errorf("cut after %d bytes: read", n)
		}
		if _, _, err := timeline.ReadChunks(p.CMAF[n:]); err == nil {
			t.Errorf("without the first %d bytes: read", n)
		}
	}
}

// TestReadChunksOrder: what is no timeline is no recording either.
func TestReadChunksOrder(t *testing.T) {
	tl := newTimeline(t, timeline.Config{Epoch: 1})
	fill(t, tl, 0, 205)
	fill(t, tl, 400, 440)
	tl.Close()
	part := func(n uint64) []byte {
		p, err := tl.Part(n)
		if err != nil {
			t.Fatal(err)
		}
		return p.CMAF
	}
	for _, c := range []struct {
		name  string
		parts []uint64
		ok    bool
	}{
		{"in a row", []uint64{3, 4, 5}, true},
		{"over a segment's end", []uint64{9, 10}, true},
		{"a gap up to a segment", []uint64{3, 10}, true},
		{"short, then a segment", []uint64{20, 40}, true},
		{"a gap amid a segment", []uint64{3, 5}, false},
		{"a gap into a segment", []uint64{3, 11}, false},
		{"short, then amid a segment", []uint64{20, 41}, false},
		{"backwards", []uint64{10, 0}, false},
		{"twice", []uint64{10, 10}, false},
	} {
		var b []byte
		n := 0
		for _, p := range c.parts {
			b = append(b, part(p)...)
			n += 10
		}
		if c.parts[0] == 20 {
			n -= 5
		}
		frames, _, err := timeline.ReadChunks(b)
		if (err == nil) != c.ok || c.ok && len(frames) != n {
			t.Errorf("%s: %d frames, %v", c.name, len(frames), err)
		}
	}
}

// FuzzReadChunks: what is read can be written, and gives the same bytes but for the spelling of the cues' JSON.
func FuzzReadChunks(f *testing.F) {
	p := goldenPart(f)
	f.Add(p.CMAF)
	f.Add(p.Media)
	tl := newTimeline(f, timeline.Config{Epoch: 1})
	fill(f, tl, 0, 25)
	fill(f, tl, 100, 110)
	tl.Close()
	var b []byte
	for c := tl.Cursor(0); ; {
		p, err := c.Next()
		if err != nil {
			break
		}
		b = append(b, p.CMAF...)
	}
	f.Add(b)
	f.Add(timeline.Init())
	f.Fuzz(func(t *testing.T, b []byte) {
		frames, cues, err := timeline.ReadChunks(b)
		if err != nil {
			return
		}
		if len(frames) == 0 {
			if len(b) != 0 {
				t.Fatalf("nothing read from %d bytes", len(b))
			}
			return
		}
		if frames[0].Number%timeline.FramesPerSegment != 0 {
			return // a part from amid a segment is read, but can't be written as the first
		}
		tl := newTimeline(t, timeline.Config{First: frames[0].Number})
		whole := tl.Cursor(0)
		var media, cmaf []byte
		take := func() {
			for {
				p, err := whole.Next()
				if err != nil {
					return
				}
				media, cmaf = append(media, p.Media...), append(cmaf, p.CMAF...)
			}
		}
		rest := cues
		for _, f := range frames {
			var own []timeline.Cue
			for len(rest) > 0 && rest[0].Frame == f.Number {
				own, rest = append(own, rest[0]), rest[1:]
			}
			if err := tl.Append(f, own...); err != nil {
				t.Fatalf("read, but refused by Append: %v", err)
			}
			take()
		}
		tl.Close()
		take()
		if len(cues) == 0 && !bytes.Equal(cmaf, b) {
			t.Fatalf("read\n%x\nwrote\n%x", b, cmaf)
		}
		again, cuesAgain, err := timeline.ReadChunks(cmaf)
		if err != nil || !reflect.DeepEqual(frames, again) || len(cues) != len(cuesAgain) {
			t.Fatalf("%d frames and %d cues, again %d and %d, %v", len(frames), len(cues), len(again), len(cuesAgain), err)
		}
		for i := range cues {
			if !sameCue(cues[i], cuesAgain[i]) {
				t.Fatalf("cue %+v, again %+v", cues[i], cuesAgain[i])
			}
		}
	})
}

// BenchmarkReadChunks reads a segment, 2 s.
func BenchmarkReadChunks(b *testing.B) {
	tl := newTimeline(b, timeline.Config{Epoch: 1})
	fill(b, tl, 0, 100)
	s, err := tl.Segment(0)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(s.Bytes())))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := timeline.ReadChunks(s.Bytes()); err != nil {
			b.Fatal(err)
		}
	}
}
