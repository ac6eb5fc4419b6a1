package timeline_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"earshot/internal/timeline"
)

func TestNewRefuses(t *testing.T) {
	for name, c := range map[string]timeline.Config{
		"no origin":        {},
		"amid a segment":   {Origin: origin, First: 110},
		"negative keep":    {Origin: origin, Keep: -1},
		"more than a hour": {Origin: origin, Keep: 2 * time.Hour},
	} {
		if tl, err := timeline.New(c); err == nil {
			t.Errorf("%s: made %v", name, tl)
		}
	}
}

func TestAppendRefuses(t *testing.T) {
	about := uint64(1000)
	good := timeline.Frame{Number: 205, Epoch: 3, Packet: packet(0)}
	with := func(change func(*timeline.Frame)) timeline.Frame { f := good; change(&f); return f }
	cases := []struct {
		name  string
		frame timeline.Frame
		cues  []timeline.Cue
		want  error
	}{
		{"lower epoch", with(func(f *timeline.Frame) { f.Epoch = 2 }), nil, timeline.ErrStale},
		{"lower epoch, next segment", with(func(f *timeline.Frame) { f.Epoch, f.Number = 2, 300 }), nil, timeline.ErrStale},
		{"before the head", with(func(f *timeline.Frame) { f.Number = 204 }), nil, timeline.ErrPast},
		{"before the head, higher epoch", with(func(f *timeline.Frame) { f.Number, f.Epoch = 200, 4 }), nil, timeline.ErrPast},
		{"gap amid a segment", with(func(f *timeline.Frame) { f.Number = 310 }), nil, timeline.ErrBoundary},
		{"epoch amid a segment", with(func(f *timeline.Frame) { f.Epoch = 4 }), nil, timeline.ErrBoundary},
		{"no packet", with(func(f *timeline.Frame) { f.Packet = nil }), nil, timeline.ErrPacket},
		{"10 ms", with(func(f *timeline.Frame) { f.Packet = []byte{30 << 3, 1} }), nil, timeline.ErrPacket},
		{"40 ms", with(func(f *timeline.Frame) { f.Packet = []byte{31<<3 | 1, 1, 1} }), nil, timeline.ErrPacket},
		{"too long", with(func(f *timeline.Frame) { f.Packet = append([]byte{31 << 3}, make([]byte, 1276)...) }), nil, timeline.ErrPacket},
		{"framing broken", with(func(f *timeline.Frame) { f.Packet = []byte{30<<3 | 1, 1, 1, 1} }), nil, timeline.ErrPacket},
		{"cue without a kind", good, []timeline.Cue{{}}, timeline.ErrCue},
		{"cue with two lines for a kind", good, []timeline.Cue{{Kind: "a\nb"}}, timeline.ErrCue},
		{"cue about the future", good, []timeline.Cue{{Kind: "post", About: &about}}, timeline.ErrCue},
		{"cue that is no JSON", good, []timeline.Cue{{Kind: "post", Data: json.RawMessage("{")}}, timeline.ErrCue},
		{"cue that is no UTF-8", good, []timeline.Cue{{Kind: "post", Data: json.RawMessage("\"\xff\"")}}, timeline.ErrCue},
		{"cue of 70 KB", good, []timeline.Cue{{Kind: "post", Data: json.RawMessage(`"` + string(bytes.Repeat([]byte("x"), 70000)) + `"`)}}, timeline.ErrCue},
		{"cue of 70 KB when escaped", good, []timeline.Cue{{Kind: "post", Data: json.RawMessage(`"` + string(bytes.Repeat([]byte("<"), 12000)) + `"`)}}, timeline.ErrCue},
		{"300 cues", good, make([]timeline.Cue, 300), timeline.ErrCue},
	}
	tl := newTimeline(t, timeline.Config{First: 200, Epoch: 3})
	for n := uint64(200); n < 205; n++ {
		if err := tl.Append(timeline.Frame{Number: n, Epoch: 3, Packet: packet(n)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range cases {
		// A good cue before the bad one must not stay behind.
		cues := c.cues
		if len(cues) == 1 {
			cues = append([]timeline.Cue{{Kind: "levels"}}, cues...)
		}
		changed := tl.Changed()
		if err := tl.Append(c.frame, cues...); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		select {
		case <-changed:
			t.Errorf("%s: woke readers", c.name)
		default:
		}
		if tl.Head() != 205 {
			t.Fatalf("%s: the head moved to %d", c.name, tl.Head())
		}
	}
	for n := uint64(205); n < 210; n++ {
		if err := tl.Append(timeline.Frame{Number: n, Epoch: 3, Packet: packet(n)}); err != nil {
			t.Fatal(err)
		}
	}
	p, err := tl.Part(20)
	if err != nil || p.Cues != nil || p.CueText != nil || p.Count != 10 {
		t.Errorf("refused frames left something in the part: %v, %v", p, err)
	}
	tl.Close()
	if err := tl.Append(timeline.Frame{Number: 210, Epoch: 3, Packet: packet(0)}); !errors.Is(err, timeline.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestReading is the life of a timeline as its readers see it.
func TestReading(t *testing.T) {
	tl := newTimeline(t, timeline.Config{First: 100, Epoch: 1, Keep: 4 * time.Second})
	frame := func(n uint64) error { _, err := tl.Frame(n); return err }
	part := func(n uint64) error { _, err := tl.Part(n); return err }
	segment := func(n uint64) error { _, err := tl.Segment(n); return err }
	want := func(what string, got, want error) {
		t.Helper()
		if !errors.Is(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	want("frame of before", frame(99), timeline.ErrGone)
	want("first frame", frame(100), timeline.ErrAhead)
	want("first part", part(10), timeline.ErrAhead)
	want("first segment", segment(1), timeline.ErrAhead)

	fill(t, tl, 100, 109)
	want("open part's frame", frame(108), nil)
	want("next frame", frame(109), timeline.ErrAhead)
	want("open part", part(10), timeline.ErrAhead)
	fill(t, tl, 109, 199)
	want("closed part", part(18), nil)
	want("open segment", segment(1), timeline.ErrAhead)
	fill(t, tl, 199, 223)
	want("closed segment", segment(1), nil)

	fill(t, tl, 500, 501) // a gap from 223
	want("frame before the gap", frame(222), nil)
	want("frame in the gap", frame(223), timeline.ErrGap)
	want("last frame in the gap", frame(499), timeline.ErrGap)
	want("frame after the gap", frame(500), nil)
	want("short part before the gap", part(22), nil)
	want("part in the gap", part(23), timeline.ErrGap)
	want("segment in the gap", segment(4), timeline.ErrGap)
	want("segment after the gap", segment(5), timeline.ErrAhead)

	fill(t, tl, 501, 1003)
	want("frame that fell out", frame(500), timeline.ErrGone)
	want("part that fell out", part(69), timeline.ErrGone)
	want("segment that fell out", segment(6), timeline.ErrGone)
	want("segment in reach", segment(8), nil)
	want("gap long ago", frame(400), timeline.ErrGap)

	tl.Close()
	tl.Close()
	want("last frame", frame(1002), nil)
	want("frame after the end", frame(1003), timeline.ErrClosed)
	want("short part at the end", part(100), nil)
	want("part after the end", part(101), timeline.ErrClosed)
	want("short segment at the end", segment(10), nil)
	want("segment after the end", segment(11), timeline.ErrClosed)
	if s, _ := tl.Segment(10); !s.Last || s.Frames() != 3 || s.Duration() != 60*time.Millisecond || len(s.Parts) != 1 {
		t.Errorf("last segment: %+v", s)
	}
	if s, _ := tl.Segment(9); s.Last || s.Duration() != timeline.SegmentDuration {
		t.Errorf("segment before the last: last %v, %v", s.Last, s.Duration())
	}
	if !tl.Closed() || tl.Ended() || tl.Head() != 1003 || tl.First() != 100 || !tl.Origin().Equal(origin) {
		t.Error("the closed timeline has forgotten itself")
	}
}

// TestFirstFrame: where a timeline begins there is nothing to break from, but what it leaves out was never made.
func TestFirstFrame(t *testing.T) {
	tl := newTimeline(t, timeline.Config{Epoch: 1})
	if err := tl.Append(timeline.Frame{Number: 0, Epoch: 4, Packet: packet(0)}); err != nil {
		t.Fatal(err)
	}
	if err := tl.Append(timeline.Frame{Number: 1, Epoch: 3, Packet: packet(1)}); !errors.Is(err, timeline.ErrStale) {
		t.Errorf("an epoch below the first frame's: %v", err)
	}
	tl.Close()
	if bytes.Contains(tl.Playlist(), []byte("#EXT-X-DISCONTINUITY\n")) {
		t.Errorf("a discontinuity before anything:\n%s", tl.Playlist())
	}

	tl = newTimeline(t, timeline.Config{Epoch: 1})
	fill(t, tl, 700, 720)
	if _, err := tl.Frame(699); !errors.Is(err, timeline.ErrGap) {
		t.Errorf("a frame left out at the start: %v", err)
	}
	if _, err := tl.Frame(719); err != nil {
		t.Error(err)
	}
	if !bytes.Contains(tl.Playlist(), []byte("#EXT-X-MEDIA-SEQUENCE:7\n")) {
		t.Errorf("media sequence:\n%s", tl.Playlist())
	}
}

// TestFramesOutliveTheRing: what a reader holds stays as it is, whatever the writer does.
func TestFramesOutliveTheRing(t *testing.T) {
	tl := newTimeline(t, timeline.Config{Keep: 2 * time.Second})
	borrowed := bytes.Clone(packet(0))
	if err := tl.Append(timeline.Frame{Packet: borrowed}); err != nil {
		t.Fatal(err)
	}
	clear(borrowed) // Append copies
	held, err := tl.Frame(0)
	if err != nil {
		t.Fatal(err)
	}
	long := append([]byte{packet(0)[0]}, bytes.Repeat([]byte{7}, 1200)...) // makes the part's buffer grow
	for n := uint64(1); n < 2000; n++ {
		if err := tl.Append(timeline.Frame{Number: n, Packet: long}); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(held.Packet, packet(0)) {
		t.Error("a packet changed in its reader's hands")
	}
	if cap(held.Packet) != len(held.Packet) {
		t.Error("a reader that appends to a packet would write into the next")
	}
}

func TestRTPTime(t *testing.T) {
	for n, want := range map[uint64]uint32{0: 0, 1: 960, 4473924: 4294967040, 4473925: 704, 1 << 40: 0} {
		if got := timeline.RTPTime(n); got != want {
			t.Errorf("frame %d: %d, want %d", n, got, want)
		}
	}
}

func TestCursor(t *testing.T) {
	tl := newTimeline(t, timeline.Config{First: 100, Epoch: 1, Keep: 4 * time.Second})
	next := func(c *timeline.Cursor, want uint64) {
		t.Helper()
		if p, err := c.Next(); err != nil || p.Number != want {
			t.Fatalf("part %v, %v, want %d", p, err, want)
		}
	}
	fails := func(c *timeline.Cursor, want error) {
		t.Helper()
		if p, err := c.Next(); !errors.Is(err, want) {
			t.Fatalf("part %v, %v, want %v", p, err, want)
		}
	}
	early := tl.Cursor(3)
	fails(early, timeline.ErrAhead)
	fill(t, tl, 100, 153)
	next(early, 10)
	if early.Lag() != 4 {
		t.Errorf("lag %d, want 4", early.Lag())
	}
	three := tl.Cursor(3)
	next(three, 12)
	now := tl.Cursor(0)
	fails(now, timeline.ErrAhead)
	fill(t, tl, 153, 160)
	next(now, 15)

	// Over a gap: the short part, then what follows it. A newcomer's burst stays on this side.
	fill(t, tl, 160, 164)
	fill(t, tl, 300, 320)
	next(now, 16)
	next(now, 30)
	next(now, 31)
	fails(now, timeline.ErrAhead)
	after := tl.Cursor(10)
	next(after, 30)

	// Fallen out of the ring: on like a newcomer, and the loss is counted.
	fill(t, tl, 320, 1000)
	next(three, 97)
	next(three, 98)
	// Parts 10 to 16 and 30 to 99 were made; it read 12, and goes on at 97.
	if got := three.Skipped(); got != 4+67 {
		t.Errorf("skipped %d parts, want 71", got)
	}
	after.Rejoin()
	if after.Lag() != 10 || after.Skipped() != 59 {
		t.Errorf("after giving up: lag %d, skipped %d", after.Lag(), after.Skipped())
	}
	after.Rejoin()
	if after.Lag() != 10 || after.Skipped() != 59 {
		t.Error("giving up twice lost more")
	}

	// A burst longer than the ring is what the ring can give, all of it to be had.
	long := tl.Cursor(1 << 40)
	if long.Lag() < 20 {
		t.Errorf("the longest burst is %d parts of 4 s", long.Lag())
	}
	next(long, uint64(100-long.Lag()))
	if long.Skipped() != 0 {
		t.Errorf("a newcomer lost %d parts", long.Skipped())
	}

	tl.Close()
	next(three, 99)
	fails(three, timeline.ErrClosed)
	if three.Lag() != 0 {
		t.Errorf("lag %d at the end", three.Lag())
	}
}

func TestWaking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tl := newTimeline(t, timeline.Config{Epoch: 1})
		var mu sync.Mutex
		var woken []string
		wait := func(name string, ch <-chan struct{}) {
			go func() {
				<-ch
				mu.Lock()
				defer mu.Unlock()
				woken = append(woken, name)
			}()
		}
		expect := func(when string, names ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			count := map[string]int{}
			for _, n := range woken {
				count[n]++
			}
			for _, n := range names {
				count[n]--
			}
			for n, c := range count {
				if c != 0 {
					t.Errorf("%s: %s woke %+d times more than it should", when, n, c)
				}
			}
			woken = nil
		}
		wait("frame", tl.Changed())
		wait("frame", tl.Changed())
		wait("part", tl.PartClosed())
		expect("at rest")
		fill(t, tl, 0, 1)
		expect("first frame", "frame", "frame")
		fill(t, tl, 1, 9)
		expect("nine frames")
		wait("frame", tl.Changed())
		fill(t, tl, 9, 10)
		expect("a part", "frame", "part")
		wait("part", tl.PartClosed())
		fill(t, tl, 10, 12)
		expect("part opened")
		fill(t, tl, 100, 101)
		expect("a gap closes what is open", "part")
		wait("part", tl.PartClosed())
		fill(t, tl, 101, 110)
		expect("a part", "part")
		wait("part", tl.PartClosed())
		wait("frame", tl.Changed())
		tl.Close()
		expect("close", "part", "frame")
		wait("part", tl.PartClosed())
		wait("frame", tl.Changed())
		expect("closed", "part", "frame")
	})
}

// TestSticky: a newcomer is told what holds at the end of the last closed part.
func TestSticky(t *testing.T) {
	tl := newTimeline(t, timeline.Config{})
	put := func(n uint64, cues ...timeline.Cue) {
		t.Helper()
		if err := tl.Append(timeline.Frame{Number: n, Packet: packet(n)}, cues...); err != nil {
			t.Fatal(err)
		}
	}
	cue := func(kind, data string) timeline.Cue { return timeline.Cue{Kind: kind, Data: json.RawMessage(data)} }
	check := func(want string) {
		t.Helper()
		if got, _ := json.Marshal(tl.Sticky()); string(got) != want {
			t.Errorf("sticky %s, want %s", got, want)
		}
	}
	put(0, cue("stage", `{"a": 1}`), cue("levels", `{}`), cue("count", `1`))
	check("null")
	for n := uint64(1); n < 10; n++ {
		put(n)
	}
	check(`[{"frame":0,"kind":"stage","data":{"a":1}},{"frame":0,"kind":"count","data":1}]`)
	held := tl.Sticky()
	put(10, cue("stage", `2`), cue("notice", `{}`))
	put(11, cue("stage", `3`))
	for n := uint64(12); n < 20; n++ {
		put(n)
	}
	check(`[{"frame":0,"kind":"count","data":1},{"frame":11,"kind":"stage","data":3}]`)
	if held[0].Kind != "stage" || held[0].Frame != 0 {
		t.Error("the cues that a reader held were changed")
	}
}

// TestReadersAndWriter runs all kinds of readers against one writer as fast as they go: each sees every frame once, in order,
// with the right bytes. Under -race it shows that what is published is never written again.
func TestReadersAndWriter(t *testing.T) {
	const last = 20 * timeline.FramesPerSegment
	tl := newTimeline(t, timeline.Config{Epoch: 1})
	var readers sync.WaitGroup
	read := func(name string, f func() error) {
		readers.Add(1)
		go func() {
			defer readers.Done()
			if err := f(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}()
	}
	for range 3 {
		read("frames", func() error {
			for n := uint64(0); ; {
				changed := tl.Changed()
				f, err := tl.Frame(n)
				switch {
				case errors.Is(err, timeline.ErrAhead):
					<-changed
				case errors.Is(err, timeline.ErrClosed) && n == last:
					return nil
				case err != nil:
					return err
				case f.Number != n || !bytes.Equal(f.Packet, packet(n)):
					return errors.New("wrong packet")
				default:
					n++
				}
			}
		})
		c := tl.Cursor(0)
		read("cursor", func() error {
			for n := uint64(0); ; {
				closing := tl.PartClosed()
				p, err := c.Next()
				switch {
				case errors.Is(err, timeline.ErrAhead):
					<-closing
				case errors.Is(err, timeline.ErrClosed) && n == last/timeline.FramesPerPart:
					return nil
				case err != nil:
					return err
				case p.Number != n:
					return errors.New("part out of order")
				default:
					frames, _, err := timeline.ReadChunks(p.CMAF)
					if err != nil || len(frames) != 10 || !bytes.Equal(frames[9].Packet, packet(n*10+9)) {
						return errors.New("wrong part")
					}
					n++
				}
			}
		})
		read("segments", func() error {
			for n := uint64(0); ; {
				closing := tl.PartClosed()
				s, err := tl.Segment(n)
				switch {
				case errors.Is(err, timeline.ErrAhead):
					<-closing
				case errors.Is(err, timeline.ErrClosed) && n == last/timeline.FramesPerSegment:
					return nil
				case err != nil:
					return err
				case s.Frames() != 100 || len(s.Bytes()) == 0:
					return errors.New("wrong segment")
				default:
					n++
				}
			}
		})
		read("playlist", func() error {
			for n := uint64(0); ; n++ {
				if err := tl.Await(t.Context(), n/5, int(n%5)); errors.Is(err, timeline.ErrClosed) && n == last/20 {
					return nil
				} else if err != nil {
					return err
				}
				if len(tl.Playlist()) == 0 {
					return errors.New("no playlist")
				}
				if _, err := tl.HLSPart(n/5, int(n%5)); err != nil {
					return err
				}
			}
		})
	}
	// The ring holds all that is written here, so nobody can fall out, however the goroutines are scheduled.
	fill(t, tl, 0, last)
	tl.Close()
	readers.Wait()
}

// TestAppendAllocatesNothing: a frame that closes no part allocates nothing, the first of a part included.
func TestAppendAllocatesNothing(t *testing.T) {
	tl := newTimeline(t, timeline.Config{})
	n := uint64(0)
	put := func() {
		if err := tl.Append(timeline.Frame{Number: n, Packet: packet(n)}); err != nil {
			t.Fatal(err)
		}
		n++
	}
	for range 50 {
		// One run to warm up and eight counted: the frames 0 to 8 of a part.
		if got := testing.AllocsPerRun(8, put); got != 0 {
			t.Fatalf("%v allocations a frame before frame %d", got, n)
		}
		put()
	}
	var f timeline.Frame
	if got := testing.AllocsPerRun(100, func() { f, _ = tl.Frame(450) }); got != 0 || f.Number != 450 {
		t.Errorf("%v allocations to read a frame", got)
	}
	c := tl.Cursor(0)
	for range 20 * 10 {
		put()
	}
	if got := testing.AllocsPerRun(19, func() {
		if _, err := c.Next(); err != nil {
			t.Fatal(err)
		}
	}); got != 0 {
		t.Errorf("%v allocations to read a part", got)
	}
}

// BenchmarkAppend includes the packaging of every tenth frame. The limit is 20 ms a frame; the stage's is 7 ms (350 ms of each
// second) for all it does.
func BenchmarkAppend(b *testing.B) {
	tl := newTimeline(b, timeline.Config{})
	cue := timeline.Cue{Kind: "levels", Data: json.RawMessage(`{"p_1":-23.5,"p_2":-40.1,"p_3":-31.0}`)}
	b.ReportAllocs()
	for n := uint64(0); b.Loop(); n++ {
		var err error
		if n%10 == 0 {
			err = tl.Append(timeline.Frame{Number: n, Packet: packet(n)}, cue)
		} else {
			err = tl.Append(timeline.Frame{Number: n, Packet: packet(n)})
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAppendOpen is a frame that closes no part.
func BenchmarkAppendOpen(b *testing.B) {
	tl := newTimeline(b, timeline.Config{})
	b.ReportAllocs()
	n := uint64(0)
	for b.Loop() {
		if n%10 == 9 {
			b.StopTimer()
			fill(b, tl, n, n+1)
			n++
			b.StartTimer()
		}
		if err := tl.Append(timeline.Frame{Number: n, Epoch: 1, Packet: packet(n)}); err != nil {
			b.Fatal(err)
		}
		n++
	}
}

// BenchmarkFrame is what each WebRTC listener does 50 times a second.
func BenchmarkFrame(b *testing.B) {
	tl := newTimeline(b, timeline.Config{})
	fill(b, tl, 0, 3000)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for n := uint64(0); pb.Next(); n++ {
			if _, err := tl.Frame(1000 + n%2000); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
