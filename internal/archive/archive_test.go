package archive_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"earshot/internal/archive"
	"earshot/internal/event"
	"earshot/internal/timeline"
)

var origin = time.Date(2026, 11, 28, 18, 0, 0, 0, time.UTC)

// packet is an Opus packet of 20 ms (CELT, full band, mono) that no other frame has.
func packet(n uint64) []byte {
	return fmt.Appendf([]byte{0xf8}, "frame %d of the programme", n)
}

// appendFrames makes the frames from ≤ n < to, with a cue at each segment's start.
func appendFrames(t *testing.T, tl *timeline.Timeline, from, to uint64) {
	t.Helper()
	for n := from; n < to; n++ {
		var cues []timeline.Cue
		if n%timeline.FramesPerSegment == 0 {
			cues = append(cues, timeline.Cue{Frame: n, Kind: "count", Data: []byte(`{"now":3}`)})
		}
		if err := tl.Append(timeline.Frame{Number: n, Epoch: 1, Packet: packet(n)}, cues...); err != nil {
			t.Fatal(err)
		}
	}
}

func newTimeline(t *testing.T) *timeline.Timeline {
	t.Helper()
	tl, err := timeline.New(timeline.Config{Origin: origin, Epoch: 1})
	if err != nil {
		t.Fatal(err)
	}
	return tl
}

// segments gives the stored form of segments 0 to n-1, the last of them with only 37 frames.
func segments(t *testing.T, n int) [][]byte {
	t.Helper()
	tl := newTimeline(t)
	appendFrames(t, tl, 0, uint64(n-1)*timeline.FramesPerSegment+37)
	tl.Close()
	list := make([][]byte, n)
	for i := range list {
		seg, err := tl.Segment(uint64(i))
		if err != nil {
			t.Fatal(err)
		}
		list[i] = seg.Bytes()
	}
	return list
}

type opened struct {
	*archive.Archive
	reg *prometheus.Registry
	log *bytes.Buffer
}

func open(t *testing.T, dir string) opened {
	t.Helper()
	o := opened{reg: prometheus.NewRegistry(), log: new(bytes.Buffer)}
	a, err := archive.Open(t.Context(), dir, logTo(o.log), o.reg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	o.Archive = a
	return o
}

func logTo(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// count reads a counter; label is its only label's value, or empty.
func (o opened) count(t *testing.T, name, label string) float64 {
	t.Helper()
	families, err := o.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no counter %s %s", name, label)
	return 0
}

// oggPackets takes an Ogg Opus file apart: the audio packets, and whether it ends as it should.
func oggPackets(t *testing.T, b []byte) (packets [][]byte, ended bool) {
	t.Helper()
	var open []byte
	for len(b) > 0 {
		if len(b) < 27 || string(b[:4]) != "OggS" || len(b) < 27+int(b[26]) {
			t.Fatalf("no Ogg page at %d bytes from the end", len(b))
		}
		ended = b[5]&4 != 0
		lacing, body := b[27:27+int(b[26])], b[27+int(b[26]):]
		for _, n := range lacing {
			open = append(open, body[:n]...)
			body = body[n:]
			if n < 255 {
				packets, open = append(packets, open), nil
			}
		}
		b = body
	}
	if len(packets) < 2 || string(packets[0][:8]) != "OpusHead" || string(packets[1][:8]) != "OpusTags" {
		t.Fatal("no Opus headers")
	}
	return packets[2:], ended
}

// wantOpus compares a download with the frames it should have.
func wantOpus(t *testing.T, r *archive.Replay, frames func(n uint64) bool, to uint64) {
	t.Helper()
	var file bytes.Buffer
	if err := r.WriteOpus(t.Context(), &file); err != nil {
		t.Fatal(err)
	}
	got, ended := oggPackets(t, file.Bytes())
	if !ended {
		t.Error("the Ogg file doesn't say where it ends")
	}
	var want [][]byte
	for n := range to {
		if frames(n) {
			want = append(want, packet(n))
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d packets in the download, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("packet %d is %q, want %q", i, got[i], want[i])
		}
	}
}

// A recording from its first segment to its download, through a restart of the program.
func TestStory(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	if _, err := a.Replay(t.Context(), "ev_1", origin); event.CodeOf(err) != event.CodeNotFound {
		t.Fatalf("replay of nothing: %v", err)
	}
	if _, ok, err := a.LastSegment(t.Context(), "ev_1"); ok || err != nil {
		t.Fatalf("last segment of nothing: %v, %v", ok, err)
	}

	tl := newTimeline(t)
	recorded := make(chan error, 1)
	go func() { recorded <- a.Record(t.Context(), "ev_1", tl, 0) }()
	appendFrames(t, tl, 0, 250)
	tl.Close()
	if err := <-recorded; err != nil {
		t.Fatal(err)
	}
	if n := a.count(t, "earshot_archive_segments_stored_total", ""); n != 3 {
		t.Errorf("%v segments counted as stored, want 3", n)
	}

	b := open(t, dir)
	last, ok, err := b.LastSegment(t.Context(), "ev_1")
	if err != nil || !ok || last != 2 {
		t.Fatalf("last segment %d, %v, %v", last, ok, err)
	}
	// After the restart the timeline goes on at segment 5, with a short segment 2 and a gap behind it.
	tl, err = timeline.New(timeline.Config{Origin: origin, Epoch: 2, First: 500})
	if err != nil {
		t.Fatal(err)
	}
	go func() { recorded <- b.Record(t.Context(), "ev_1", tl, last+1) }()
	for n := uint64(500); n < 637; n++ {
		if err := tl.Append(timeline.Frame{Number: n, Epoch: 2, Packet: packet(n)}); err != nil {
			t.Fatal(err)
		}
	}
	tl.Close()
	if err := <-recorded; err != nil {
		t.Fatal(err)
	}
	if n := b.count(t, "earshot_archive_segments_lost_total", "overrun"); n != 0 {
		t.Errorf("%v segments counted as lost: what was never made is no loss", n)
	}

	r, err := b.Replay(t.Context(), "ev_1", origin)
	if err != nil {
		t.Fatal(err)
	}
	if want := (250 + 137) * event.FrameDuration; r.Duration != want || r.Segments != 5 || r.Last != 6 {
		t.Errorf("replay of %v, %d segments, last %d; want %v, 5, 6", r.Duration, r.Segments, r.Last, want)
	}
	list := string(r.Playlist())
	for _, want := range []string{"seg/0.m4s", "seg/2.m4s", "#EXTINF:1.0", "#EXT-X-DISCONTINUITY\n", "seg/6.m4s", "#EXT-X-ENDLIST"} {
		if !strings.Contains(list, want) {
			t.Errorf("no %q in the playlist:\n%s", want, list)
		}
	}
	wantOpus(t, r, func(n uint64) bool { return n < 250 || n >= 500 }, 637)

	seg, err := b.Segment(t.Context(), "ev_1", 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, cues, err := timeline.ReadChunks(seg); err != nil || len(cues) != 1 || cues[0].Kind != "count" {
		t.Errorf("cues of a stored segment: %v, %v", cues, err)
	}
}

func TestPutKeepsTheFirst(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	for _, data := range []string{"first", "second"} {
		if err := a.Put(t.Context(), "ev_1", 7, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := a.Segment(t.Context(), "ev_1", 7)
	if err != nil || string(got) != "first" {
		t.Errorf("stored %q, %v", got, err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "events", "ev_1", "*"))
	if err != nil || len(files) != 1 || filepath.Base(files[0]) != "0000000007.m4s" {
		t.Errorf("files: %q, %v", files, err)
	}
}

// Many writers of the same numbers and many readers at once: each number has one winner, and the replay is right at the end.
func TestConcurrent(t *testing.T) {
	a := open(t, t.TempDir())
	segs := segments(t, 5)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i, data := range segs {
				if err := a.Put(t.Context(), "ev_1", uint64(i), data); err != nil {
					t.Error(err)
				}
				if _, err := a.Replay(t.Context(), "ev_1", origin); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	r, err := a.Replay(t.Context(), "ev_1", origin)
	if err != nil {
		t.Fatal(err)
	}
	if r.Segments != 5 || r.Duration != 437*event.FrameDuration {
		t.Errorf("%d segments, %v", r.Segments, r.Duration)
	}
	again, err := a.Replay(t.Context(), "ev_1", origin)
	if err != nil || again != r {
		t.Errorf("a finished replay is read again: %v", err)
	}
	a.Forget(t.Context(), "ev_1")
	if again, err = a.Replay(t.Context(), "ev_1", origin); err != nil || again == r {
		t.Errorf("a forgotten replay is still remembered: %v", err)
	}
}

// What a crash or a bad disk leaves is left out, counted by reason, and the rest still plays.
func TestDamage(t *testing.T) {
	const last = 8
	segs := segments(t, last+1)
	folder := func(dir string) string { return filepath.Join(dir, "events", "ev_1") }
	name := func(dir string, n int) string { return filepath.Join(folder(dir), fmt.Sprintf("%010d.m4s", n)) }
	for _, c := range []struct {
		what    string
		damage  func(dir string) error
		missing int // segment; -1: none
		reason  string
	}{
		{"nothing", func(string) error { return nil }, -1, ""},
		{"a temporary file", func(dir string) error {
			return os.WriteFile(name(dir, 9)+".17ab.tmp", segs[4][:100], 0o600)
		}, -1, ""},
		{"somebody's notes", func(dir string) error {
			return os.WriteFile(filepath.Join(folder(dir), "12.m4s"), segs[4], 0o600)
		}, -1, ""},
		{"a folder in between", func(dir string) error { return os.Mkdir(name(dir, 9), 0o700) }, -1, ""},
		{"cut short", func(dir string) error { return os.Truncate(name(dir, 4), int64(len(segs[4])-1)) }, 4, "corrupt"},
		{"empty", func(dir string) error { return os.Truncate(name(dir, 4), 0) }, 4, "corrupt"},
		{"too long", func(dir string) error { return os.Truncate(name(dir, 4), 5<<20) }, 4, "corrupt"},
		{"another's bytes", func(dir string) error { return os.WriteFile(name(dir, 4), segs[5], 0o600) }, 4, "corrupt"},
		{"zeros", func(dir string) error { return os.WriteFile(name(dir, 4), make([]byte, len(segs[4])), 0o600) }, 4, "corrupt"},
		{"twice its bytes", func(dir string) error {
			return os.WriteFile(name(dir, 4), append(bytes.Clone(segs[4]), segs[4]...), 0o600)
		}, 4, "corrupt"},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir := t.TempDir()
			a := open(t, dir)
			for i, data := range segs {
				if err := a.Put(t.Context(), "ev_1", uint64(i), data); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.damage(dir); err != nil {
				t.Fatal(err)
			}
			if n, _, err := a.LastSegment(t.Context(), "ev_1"); n != last || err != nil {
				t.Errorf("last segment %d, %v", n, err)
			}
			r, err := a.Replay(t.Context(), "ev_1", origin)
			if err != nil {
				t.Fatal(err)
			}
			there := func(n uint64) bool { return int(n/timeline.FramesPerSegment) != c.missing }
			wantOpus(t, r, there, last*timeline.FramesPerSegment+37)
			if c.missing >= 0 {
				if n := a.count(t, "earshot_archive_segments_skipped_total", c.reason); n != 1 {
					t.Errorf("counted %v times as %s", n, c.reason)
				}
				if strings.Contains(string(r.Playlist()), fmt.Sprintf("/%d.m4s", c.missing)) {
					t.Error("the playlist names it")
				}
			}
		})
	}
}

// Bytes that rot between the playlist and the download end neither.
func TestDamageAfterReading(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	for i, data := range segments(t, 3) {
		if err := a.Put(t.Context(), "ev_1", uint64(i), data); err != nil {
			t.Fatal(err)
		}
	}
	r, err := a.Replay(t.Context(), "ev_1", origin)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "events", "ev_1", "0000000001.m4s")); err != nil {
		t.Fatal(err)
	}
	wantOpus(t, r, func(n uint64) bool { return n/100 != 1 }, 237)
	if n := a.count(t, "earshot_archive_segments_skipped_total", "missing"); n != 1 {
		t.Errorf("counted %v times", n)
	}
	if _, err := a.Segment(t.Context(), "ev_1", 1); event.CodeOf(err) != event.CodeNotFound {
		t.Errorf("a missing segment: %v", err)
	}
}

func TestWriteOpusStops(t *testing.T) {
	a := open(t, t.TempDir())
	for i, data := range segments(t, 4) {
		if err := a.Put(t.Context(), "ev_1", uint64(i), data); err != nil {
			t.Fatal(err)
		}
	}
	r, err := a.Replay(t.Context(), "ev_1", origin)
	if err != nil {
		t.Fatal(err)
	}
	gone := errors.New("the reader is gone")
	if err := r.WriteOpus(t.Context(), failingWriter{gone}); !errors.Is(err, gone) {
		t.Errorf("a broken writer: %v", err)
	}
	ctx, cancel := contextWithCancel(t)
	cancel()
	if err := r.WriteOpus(ctx, io.Discard); !errors.Is(err, ctx.Err()) {
		t.Errorf("a cancelled download: %v", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

// No name leads out of the folder.
func TestNames(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	for _, id := range []string{"", "..", "../x", "a/b", "a.b", "ev_ä", strings.Repeat("a", 129), "a\x00b"} {
		if err := a.Put(t.Context(), id, 0, []byte("x")); event.CodeOf(err) != event.CodeInvalid {
			t.Errorf("put %q: %v", id, err)
		}
		if _, err := a.Segment(t.Context(), id, 0); event.CodeOf(err) != event.CodeNotFound {
			t.Errorf("segment %q: %v", id, err)
		}
		if _, err := a.Replay(t.Context(), id, origin); event.CodeOf(err) != event.CodeNotFound {
			t.Errorf("replay %q: %v", id, err)
		}
	}
	found := 0
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			found++
		}
		return err
	})
	if err != nil || found != 0 {
		t.Errorf("%d files, %v", found, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := archive.Open(t.Context(), file, nil, nil); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a file as the folder: %v", err)
	}
}

// Whatever stands in a segment's file, reading it back neither fails nor panics for the rest.
func FuzzSegmentFile(f *testing.F) {
	tl, err := timeline.New(timeline.Config{Origin: origin, Epoch: 1})
	if err != nil {
		f.Fatal(err)
	}
	for n := range uint64(200) {
		if err := tl.Append(timeline.Frame{Number: n, Epoch: 1, Packet: packet(n)}); err != nil {
			f.Fatal(err)
		}
	}
	good, err := tl.Segment(0)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	f.Add(good.Bytes()[:1000])
	f.Add([]byte{})
	f.Add(binary.BigEndian.AppendUint32(nil, 0xffffffff))
	rng := rand.New(rand.NewPCG(1, 2))
	flipped := bytes.Clone(good.Bytes())
	flipped[rng.IntN(len(flipped))] ^= 0x80
	f.Add(flipped)
	f.Fuzz(func(t *testing.T, data []byte) {
		a := archive.New(&memory{blobs: map[string][]byte{}}, nil, nil)
		if err := a.Put(t.Context(), "e", 0, data); err != nil {
			t.Fatal(err)
		}
		if err := a.Put(t.Context(), "e", 1, segmentOne(t, tl)); err != nil {
			t.Fatal(err)
		}
		r, err := a.Replay(t.Context(), "e", origin)
		if err != nil {
			t.Fatal(err)
		}
		if r.Last != 1 {
			t.Fatalf("last %d", r.Last)
		}
		if err := r.WriteOpus(t.Context(), io.Discard); err != nil {
			t.Fatal(err)
		}
	})
}

func segmentOne(t *testing.T, tl *timeline.Timeline) []byte {
	t.Helper()
	s, err := tl.Segment(1)
	if err != nil {
		t.Fatal(err)
	}
	return s.Bytes()
}

// An hour's replay, read for the first time.
func BenchmarkReplayHour(b *testing.B) {
	const hour = 1800
	a, err := archive.Open(b.Context(), b.TempDir(), nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	tl, err := timeline.New(timeline.Config{Origin: origin, Epoch: 1})
	if err != nil {
		b.Fatal(err)
	}
	voice := append([]byte{0xf8}, make([]byte, 79)...) // 32 kbit/s
	for n := range uint64(hour * timeline.FramesPerSegment) {
		if err := tl.Append(timeline.Frame{Number: n, Epoch: 1, Packet: voice}); err != nil {
			b.Fatal(err)
		}
		if n%timeline.FramesPerSegment == timeline.FramesPerSegment-1 {
			s, err := tl.Segment(n / timeline.FramesPerSegment)
			if err != nil {
				b.Fatal(err)
			}
			if err := a.Put(b.Context(), "ev_1", s.Number, s.Bytes()); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			a.Forget(b.Context(), "ev_1")
			if r, err := a.Replay(b.Context(), "ev_1", origin); err != nil || r.Segments != hour {
				b.Fatal(r, err)
			}
		}
	})
	b.Run("opus", func(b *testing.B) {
		r, err := a.Replay(b.Context(), "ev_1", origin)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if err := r.WriteOpus(b.Context(), io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
}
