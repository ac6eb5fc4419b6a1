package radio_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"earshot/internal/radio"
)

// shelve puts all that comes of a programme on a shelf, until the programme ends.
func shelve(t *testing.T, p *programme, back int) (*radio.Shelf, <-chan struct{}) {
	t.Helper()
	shelf := radio.NewShelf(p.Timeline)
	done := make(chan struct{})
	path := ffmpeg(t, radio.AAC)
	go func() {
		defer close(done)
		radio.Convert(t.Context(), radio.Config{
			Path: path, Form: radio.AAC, Timeline: p.Timeline, Back: back, Counters: &radio.Counters{}, Log: quiet,
			Emit: shelf.Add, Wanted: func() bool { return true },
		}, &radio.PID{})
		shelf.End()
	}()
	return shelf, done
}

// A rendition has the segments of the other, under their numbers, and ffmpeg plays it from the first to the last sample.
func TestShelf(t *testing.T) {
	t.Parallel()
	p := newProgramme(t, 1300)
	p.append(900)
	shelf, done := shelve(t, p, 1000)
	text, err := shelf.Playlist(t.Context()) // waits
	must(t, err)
	if strings.Contains(string(text), "ENDLIST") || !strings.Contains(string(text), "aac/20.aac") {
		t.Errorf("begins with\n%s", text)
	}
	p.append(350)
	p.End()
	<-done
	text, err = shelf.Playlist(t.Context())
	must(t, err)

	theirs := tags(string(p.Playlist()))
	ours := tags(string(text))
	for _, tag := range []string{"#EXT-X-MEDIA-SEQUENCE", "#EXT-X-DISCONTINUITY-SEQUENCE", "#EXT-X-ENDLIST"} {
		if fmt.Sprint(ours[tag]) != fmt.Sprint(theirs[tag]) {
			t.Errorf("%s: %v, in the other rendition %v", tag, ours[tag], theirs[tag])
		}
	}
	if len(ours["#EXTINF"]) != len(theirs["#EXTINF"]) {
		t.Fatalf("%d segments, the other rendition has %d:\n%s", len(ours["#EXTINF"]), len(theirs["#EXTINF"]), text)
	}
	sum := 0.0
	for i, inf := range ours["#EXTINF"] {
		d, err := strconv.ParseFloat(strings.TrimSuffix(inf, ","), 64)
		must(t, err)
		other, err := strconv.ParseFloat(strings.TrimSuffix(theirs["#EXTINF"][i], ","), 64)
		must(t, err)
		if math.Abs(d-other) > 0.022 {
			t.Errorf("segment %d has %.4f s, in the other rendition %.4f", i, d, other)
		}
		a, err := time.Parse(time.RFC3339, ours["#EXT-X-PROGRAM-DATE-TIME"][i])
		must(t, err)
		b, err := time.Parse(time.RFC3339, theirs["#EXT-X-PROGRAM-DATE-TIME"][i])
		must(t, err)
		if lag := a.Sub(b); lag < -time.Millisecond || lag > 22*time.Millisecond {
			t.Errorf("segment %d begins %v after the other rendition's", i, lag)
		}
		sum += d
	}

	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "aac"), 0o700))
	list := filepath.Join(dir, "aac.m3u8")
	must(t, os.WriteFile(list, text, 0o600))
	names := regexp.MustCompile(`(?m)^aac/(\d+)\.aac$`).FindAllStringSubmatch(string(text), -1)
	for _, m := range names {
		n, err := strconv.ParseUint(m[1], 10, 64)
		must(t, err)
		b := shelf.Segment(n)
		if b == nil {
			t.Fatalf("segment %d is listed and not there", n)
		}
		must(t, os.WriteFile(filepath.Join(dir, m[0]), b, 0o600))
	}
	out, err := exec.Command("ffprobe", "-v", "warning", "-show_entries", "packet=pts_time", "-of", "csv=p=0", list).CombinedOutput()
	must(t, err)
	last, n := 0.0, 0
	for line := range strings.Lines(string(out)) {
		pts, err := strconv.ParseFloat(strings.Trim(line, ",\n"), 64)
		if err != nil {
			t.Fatalf("ffprobe says %s", line)
		}
		first, err := strconv.ParseFloat(names[0][1], 64)
		must(t, err)
		if n == 0 && (pts < 2*first-0.001 || pts > 2*first+0.022) {
			t.Errorf("segment %s begins at %.4f s", names[0][1], pts)
		}
		if n > 0 && math.Abs(pts-last-1024./48000) > 0.0002 {
			t.Fatalf("packet %d: %.5f s after the one before", n, pts-last)
		}
		last = pts
		n++
	}
	if got := float64(n) * 1024 / 48000; math.Abs(got-sum) > 0.001 {
		t.Errorf("%.4f s of packets, the list says %.4f", got, sum)
	}
	raw, err := exec.Command("ffmpeg", "-v", "warning", "-i", list, "-f", "f32le", "-ac", "1", "-ar", "48000", "-").Output()
	must(t, err)
	sounds(t, floats(raw))
}

// Over a gap in the timeline there is a discontinuity, where the other rendition has it; what was never converted is a gap.
func TestShelfGaps(t *testing.T) {
	t.Parallel()
	p := newProgramme(t, 0)
	p.append(400)
	shelf, done := shelve(t, p, 1000)
	wait(t, "a segment", func() bool { return shelf.Segment(2) != nil })
	p.next, p.epoch = 700, 2
	p.append(420)
	p.Close()
	<-done
	text, err := shelf.Playlist(t.Context())
	must(t, err)
	if got, want := tags(string(text)), tags(string(p.Playlist())); len(got["#EXT-X-DISCONTINUITY"]) != 1 || len(got["#EXTINF"]) != len(want["#EXTINF"]) ||
		len(got["#EXT-X-GAP"]) != 0 || len(got["#EXT-X-ENDLIST"]) != 0 {
		t.Errorf("%s\nthe other:\n%s", text, p.Playlist())
	}

	// By hand: the second segment of three lacks a part.
	p = newProgramme(t, 0)
	p.append(330)
	half := radio.NewShelf(p.Timeline)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := half.Playlist(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a playlist of nothing: %v", err)
	}
	for n := range uint64(30) {
		part, err := p.Part(n)
		must(t, err)
		if n != 15 {
			half.Add(radio.Piece{Part: part, Bytes: []byte("x"), Frames: 9, First: int64(n) * 9600})
		}
	}
	text, err = half.Playlist(t.Context())
	must(t, err)
	if got := tags(string(text)); len(got["#EXT-X-GAP"]) != 1 || len(got["#EXTINF"]) != 3 || half.Segment(1) != nil || half.Segment(2) == nil {
		t.Errorf("%s", text)
	}
}

// tags gives the values of each tag of a playlist.
func tags(text string) map[string][]string {
	out := map[string][]string{}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "#") {
			name, value, _ := strings.Cut(line, ":")
			out[name] = append(out[name], value)
		}
	}
	return out
}
