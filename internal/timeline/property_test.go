package timeline_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"earshot/internal/timeline"
)

var seedFlag = flag.Uint64("seed", 0, "replay TestRandomTimelines with this seed alone")

// TestRandomTimelines appends random frames, cues, gaps and epochs, and holds everything that can be read against a model that
// is a plain list. Replay one with: go test ./internal/timeline -run RandomTimelines -seed N
func TestRandomTimelines(t *testing.T) {
	if *seedFlag != 0 {
		runRandom(t, *seedFlag)
		return
	}
	for range 25 {
		runRandom(t, rand.Uint64())
		if t.Failed() {
			return
		}
	}
}

type model struct {
	frames []timeline.Frame
	cues   []timeline.Cue
}

func runRandom(t *testing.T, seed uint64) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("replay with -seed %d", seed)
		}
	}()
	r := rand.New(rand.NewPCG(seed, 0))
	first := uint64(r.IntN(3)) * 5000 * timeline.FramesPerSegment
	epoch := uint64(r.IntN(3))
	tl := newTimeline(t, timeline.Config{First: first, Epoch: epoch, Keep: 20 * time.Second})
	whole := tl.Cursor(0) // reads all along
	var m model
	var parts []*timeline.Part
	players := playerView{segments: map[string][2]uint64{}}
	head := first
	for range 500 + r.IntN(3000) {
		switch x := r.IntN(1000); {
		case x < 2: // the process stalled, or another took over later
			head = (head/timeline.FramesPerSegment + 1 + uint64(r.IntN(3))) * timeline.FramesPerSegment
			epoch += uint64(r.IntN(2))
		case x < 300 && head%timeline.FramesPerSegment == 0: // another took over without a gap
			epoch++
		}
		f := timeline.Frame{Number: head, Epoch: epoch, Packet: randomPacket(r)}
		cues := randomCues(r, head)
		if err := tl.Append(f, cues...); err != nil {
			t.Fatalf("append frame %d: %v", head, err)
		}
		m.frames = append(m.frames, f)
		m.cues = append(m.cues, cues...)
		head++
		for {
			p, err := whole.Next()
			if err != nil {
				break
			}
			parts = append(parts, p)
		}
		if r.IntN(20) == 0 {
			players.look(t, tl)
		}
	}
	ended := r.IntN(2) == 0
	if ended {
		tl.End()
	} else {
		tl.Close()
	}
	players.look(t, tl)
	if ended != bytes.Contains(tl.Playlist(), []byte("#EXT-X-ENDLIST")) {
		t.Error("the playlist does not know how the timeline ended")
	}
	for {
		p, err := whole.Next()
		if errors.Is(err, timeline.ErrClosed) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, p)
	}
	if whole.Skipped() != 0 {
		t.Errorf("a reader that kept up lost %d parts", whole.Skipped())
	}
	checkParts(t, m, parts)
	checkRing(t, m, tl)
}

// checkParts reads every packaging back.
func checkParts(t *testing.T, m model, parts []*timeline.Part) {
	t.Helper()
	var cmaf []byte
	ogg := bytes.Clone(timeline.OggHeaders())
	var cues []timeline.Cue
	n := 0
	for _, p := range parts {
		if p.First != m.frames[n].Number || p.Epoch != m.frames[n].Epoch || p.Number*10 != p.First {
			t.Fatalf("part %d begins with frame %d of epoch %d, want %d of %d", p.Number, p.First, p.Epoch, m.frames[n].Number, m.frames[n].Epoch)
		}
		if p.Duration() != time.Duration(p.Count)*20*time.Millisecond {
			t.Fatalf("part of %d frames lasts %v", p.Count, p.Duration())
		}
		if !bytes.HasSuffix(p.CMAF, p.Media) || (len(p.Media) == len(p.CMAF)) != (p.Cues == nil) || string(p.Media[4:8]) != "moof" {
			t.Fatalf("part %d: Media is not the tail of CMAF after its cues", p.Number)
		}
		text, err := json.Marshal(p.Cues)
		if err != nil || p.Cues != nil && !bytes.Equal(text, p.CueText) || p.Cues == nil && p.CueText != nil {
			t.Fatalf("part %d: cues %s, text %s, %v", p.Number, text, p.CueText, err)
		}
		cmaf, ogg, cues = append(cmaf, p.CMAF...), append(ogg, p.Ogg...), append(cues, p.Cues...)
		n += p.Count
	}
	if n != len(m.frames) {
		t.Fatalf("%d frames in parts, want %d", n, len(m.frames))
	}
	frames, read, err := timeline.ReadChunks(cmaf)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range frames {
		if w := m.frames[i]; f.Number != w.Number || !bytes.Equal(f.Packet, w.Packet) {
			t.Fatalf("frame %d came back as %d: %x, want %x", w.Number, f.Number, f.Packet, w.Packet)
		}
	}
	if len(m.cues) != len(cues) || len(cues) > 0 && !reflect.DeepEqual(read, cues) {
		t.Fatalf("%d cues put, %d in parts, %d read back", len(m.cues), len(cues), len(read))
	}
	for i, c := range m.cues {
		if !sameCue(c, cues[i]) {
			t.Fatalf("cue %+v came out as %+v", c, cues[i])
		}
	}

	packets, pages := oggPackets(ogg)
	for i, p := range packets[2:] {
		if !bytes.Equal(p, m.frames[i].Packet) {
			t.Fatalf("Ogg packet %d differs", i)
		}
	}
	n = 0
	for i, p := range pages[2:] {
		n += parts[i].Count
		if want := (m.frames[n-1].Number+1)*960 + 3840; p.granule != want || p.number != uint32(parts[i].Number)+2 {
			t.Fatalf("Ogg page of part %d: granule %d, want %d; number %d", parts[i].Number, p.granule, want, p.number)
		}
	}
}

// checkRing asks for every number from before the first to after the last.
func checkRing(t *testing.T, m model, tl *timeline.Timeline) {
	t.Helper()
	head := m.frames[len(m.frames)-1].Number + 1
	reach := head - min(head, 20*50) // Keep
	made := map[uint64]timeline.Frame{}
	for _, f := range m.frames {
		made[f.Number] = f
	}
	segments := map[uint64]int{}
	for n := m.frames[0].Number; n < head+250; n++ {
		f, err := tl.Frame(n)
		want, ok := made[n]
		switch {
		case n >= head:
			if !errors.Is(err, timeline.ErrClosed) {
				t.Fatalf("frame %d after the end: %v", n, err)
			}
		case !ok:
			if !errors.Is(err, timeline.ErrGap) {
				t.Fatalf("frame %d in a gap: %v", n, err)
			}
		case n >= reach && err != nil, err == nil && (!bytes.Equal(f.Packet, want.Packet) || f.Epoch != want.Epoch || f.Number != n):
			t.Fatalf("frame %d: %v, %v; the head is %d", n, f, err, head)
		case err != nil && !errors.Is(err, timeline.ErrGone):
			t.Fatalf("frame %d: %v", n, err)
		}
		if ok {
			segments[n/100]++
		}
	}
	for n := m.frames[0].Number / 100; n <= (head-1)/100; n++ {
		s, err := tl.Segment(n)
		switch {
		case err == nil:
			if s.Frames() != segments[n] || s.Number != n || s.Epoch != made[n*100].Epoch {
				t.Fatalf("segment %d holds %d frames, want %d", n, s.Frames(), segments[n])
			}
			var hls []byte
			for k := range 5 {
				b, err := tl.HLSPart(n, k)
				if wanted := k*20 < segments[n]; (err == nil) != wanted {
					t.Fatalf("HLS part %d.%d of %d frames: %v", n, k, segments[n], err)
				}
				hls = append(hls, b...)
			}
			if !bytes.Equal(hls, s.Bytes()) || !bytes.Equal(hls, (timeline.Segment{Parts: s.Parts}).Bytes()) {
				t.Fatalf("segment %d and its HLS parts differ", n)
			}
		case segments[n] > 0 && n*100 >= reach:
			t.Fatalf("segment %d: %v", n, err)
		}
	}
}

// playerView is what RFC 8216, 6.2.2 lets a player rely on: whenever it looks, a segment has the same sequence and discontinuity
// numbers, and these never fall.
type playerView struct {
	segments map[string][2]uint64
	first    uint64
}

func (v *playerView) look(t *testing.T, tl *timeline.Timeline) {
	t.Helper()
	text := string(tl.Playlist())
	var sequence, discontinuity uint64
	for _, line := range strings.Split(text, "\n") {
		switch {
		case strings.HasPrefix(line, "#EXT-X-MEDIA-SEQUENCE:"):
			fmt.Sscanf(line, "#EXT-X-MEDIA-SEQUENCE:%d", &sequence)
			if sequence < v.first {
				t.Fatalf("media sequence fell from %d to %d", v.first, sequence)
			}
			v.first = sequence
		case strings.HasPrefix(line, "#EXT-X-DISCONTINUITY-SEQUENCE:"):
			fmt.Sscanf(line, "#EXT-X-DISCONTINUITY-SEQUENCE:%d", &discontinuity)
		case line == "#EXT-X-DISCONTINUITY":
			discontinuity++
		case strings.HasPrefix(line, "seg/"):
			was, ok := v.segments[line]
			if now := [2]uint64{sequence, discontinuity}; ok && was != now {
				t.Fatalf("%s was %v, is %v in\n%s", line, was, now, text)
			}
			v.segments[line] = [2]uint64{sequence, discontinuity}
			var n uint64
			fmt.Sscanf(line, "seg/%d.m4s", &n)
			if _, err := tl.Segment(n); err != nil {
				t.Fatalf("%s is listed: %v", line, err)
			}
			if err := tl.Await(t.Context(), sequence, -1); err != nil {
				t.Fatalf("%s is listed as %d: %v", line, sequence, err)
			}
			sequence++
		case strings.HasPrefix(line, "#EXT-X-PART:"):
			var n uint64
			var k int
			fmt.Sscanf(line[strings.Index(line, "part/"):], "part/%d.%d.m4s", &n, &k)
			b, err := tl.HLSPart(n, k)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			frames, _, err := timeline.ReadChunks(b)
			if err != nil || !strings.Contains(line, fmt.Sprintf("DURATION=%.2f,", float64(len(frames))/50)) {
				t.Fatalf("%s holds %d frames, %v", line, len(frames), err)
			}
		}
	}
}

func randomPacket(r *rand.Rand) []byte {
	n := r.IntN(160)
	if r.IntN(50) == 0 {
		n = r.IntN(1276)
	}
	b := make([]byte, 1+n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	b[0] = []byte{1, 5, 9, 13, 15, 19, 23, 27, 31}[r.IntN(9)] << 3 // 20 ms, mono, one frame
	return b
}

func randomCues(r *rand.Rand, frame uint64) (cues []timeline.Cue) {
	for r.IntN(12) == 0 {
		c := timeline.Cue{Frame: frame, Kind: []string{"stage", "levels", "count", "notice", "something_new"}[r.IntN(5)]}
		if r.IntN(4) == 0 {
			about := frame - min(frame, uint64(r.IntN(500)))
			c.About = &about
		}
		c.Data = []json.RawMessage{nil, json.RawMessage(`{"p_1": -23.5}`), json.RawMessage("null"), json.RawMessage("[1,\n 2]"), json.RawMessage(`"<\u202e&é😀"`)}[r.IntN(5)]
		cues = append(cues, c)
	}
	return cues
}

// sameCue compares meaning: the timeline writes JSON its own way.
func sameCue(a, b timeline.Cue) bool {
	var x, y any
	if (a.Data == nil) != (b.Data == nil) {
		return false
	}
	if a.Data != nil && (json.Unmarshal(a.Data, &x) != nil || json.Unmarshal(b.Data, &y) != nil) {
		return false
	}
	return a.Frame == b.Frame && a.Kind == b.Kind && reflect.DeepEqual(a.About, b.About) && reflect.DeepEqual(x, y)
}

// TestSameBytes: a part is a pure function of frames and cues, whatever else the node that makes it went through.
func TestSameBytes(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	one := newTimeline(t, timeline.Config{Epoch: 1})
	two := newTimeline(t, timeline.Config{Origin: origin.Add(time.Hour), First: 300, Epoch: 1, Keep: 10 * time.Second})
	for n := uint64(0); n < 800; n++ {
		f, cues := timeline.Frame{Number: n, Epoch: 1, Packet: randomPacket(r)}, randomCues(r, n)
		if err := one.Append(f, cues...); err != nil {
			t.Fatal(err)
		}
		if n < 300 {
			continue
		}
		if n >= 500 {
			f.Epoch = 2
		}
		if err := two.Append(f, slices.Clone(cues)...); err != nil {
			t.Fatal(err)
		}
	}
	for n := uint64(30); n < 80; n++ {
		a, errA := one.Part(n)
		b, errB := two.Part(n)
		if errA != nil || errB != nil || !bytes.Equal(a.CMAF, b.CMAF) || !bytes.Equal(a.Ogg, b.Ogg) || !bytes.Equal(a.CueText, b.CueText) {
			t.Fatalf("seed %d: part %d differs between two nodes (%v, %v)", seed, n, errA, errB)
		}
	}
}
