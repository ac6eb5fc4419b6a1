package timeline_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"earshot/internal/timeline"
)

// Here others judge what this package writes: ffprobe and ffmpeg must read it without a word, find every frame at its place and
// hear the tone that was put in.

type probed struct {
	Packets []struct {
		PTS int64 `json:"pts"`
	} `json:"packets"`
	Format struct {
		Start    string `json:"start_time"`
		Duration string `json:"duration"`
		Name     string `json:"format_name"`
	} `json:"format"`
	Streams []struct {
		Codec    string            `json:"codec_name"`
		Rate     string            `json:"sample_rate"`
		Channels int               `json:"channels"`
		Tags     map[string]string `json:"tags"`
	} `json:"streams"`
}

// run runs a tool that must not complain. These tests fail without it rather than pass unlooked: `make test` installs it.
func run(t *testing.T, tool string, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath(tool)
	if err != nil {
		t.Fatalf("%s is needed here and not installed (Debian: apt-get install ffmpeg): %v", tool, err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil || strings.TrimSpace(complaints.String()) != "" {
		t.Fatalf("%s %s: %v\n%s", tool, strings.Join(args, " "), err, complaints.String())
	}
	return out.Bytes()
}

func probe(t *testing.T, source string) probed {
	t.Helper()
	var p probed
	out := run(t, "ffprobe", "-v", "warning", "-show_format", "-show_streams", "-show_packets", "-of", "json", source)
	if err := json.Unmarshal(out, &p); err != nil {
		t.Fatal(err)
	}
	if len(p.Streams) != 1 || p.Streams[0].Codec != "opus" || p.Streams[0].Rate != "48000" || p.Streams[0].Channels != 1 {
		t.Fatalf("%s: streams %+v", source, p.Streams)
	}
	return p
}

// decode gives the sound, mono at 48 kHz, as a player makes it.
func decode(t *testing.T, source string) []float32 {
	t.Helper()
	raw := run(t, "ffmpeg", "-v", "warning", "-nostdin", "-i", source, "-f", "f32le", "-")
	pcm := make([]float32, len(raw)/4)
	for i := range pcm {
		pcm[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return pcm
}

// hearTone wants 440 Hz and nothing else in every 50 ms but the first, where a decoder that joins is still finding its feet,
// and where the ten seconds of the file meet their start again.
func hearTone(t *testing.T, what string, pcm []float32) {
	t.Helper()
	const window = 2400 // 22 periods
	bad := 0
	for at := 2 * window; at+window <= len(pcm); at += window {
		var re, im, all float64
		for i, x := range pcm[at : at+window] {
			s, c := math.Sincos(2 * math.Pi * 440 / 48000 * float64(i))
			re, im, all = re+float64(x)*c, im+float64(x)*s, all+float64(x)*float64(x)
		}
		if tone := 2 * (re*re + im*im) / window; all/window < 1e-4 || tone < 0.9*all {
			bad++
		}
	}
	if seams := len(pcm)/(48000*10) + 1; bad > 4*seams {
		t.Errorf("%s: no clean tone in %d of %d windows", what, bad, len(pcm)/window)
	}
}

func checkTimes(t *testing.T, what string, p probed, first, count uint64) {
	t.Helper()
	if uint64(len(p.Packets)) != count {
		t.Errorf("%s: %d packets, want %d", what, len(p.Packets), count)
	}
	for i, x := range p.Packets {
		if want := int64(first+uint64(i)) * 960; x.PTS != want {
			t.Fatalf("%s: packet %d at %d, want %d", what, i, x.PTS, want)
		}
	}
}

func seconds(t *testing.T, text string) float64 {
	t.Helper()
	s, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func write(t *testing.T, name string, b []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// programme is 11.46 s from frame first on, with cues, and a listener who joined it 1 s late.
func programme(t *testing.T, first uint64) (tl *timeline.Timeline, mp4, ogg []byte, from, count uint64) {
	t.Helper()
	tl = newTimeline(t, timeline.Config{First: first})
	var late *timeline.Cursor
	for n := first; n < first+573; n++ {
		var cues []timeline.Cue
		if n%10 == 0 {
			cues = append(cues, timeline.Cue{Kind: "levels", Data: json.RawMessage(`{"p_1":-23.5}`)})
		}
		if err := tl.Append(timeline.Frame{Number: n, Packet: packet(n)}, cues...); err != nil {
			t.Fatal(err)
		}
		if n == first+103 {
			late = tl.Cursor(5) // begins with frame 50
		}
	}
	tl.End()
	mp4, ogg = bytes.Clone(timeline.Init()), bytes.Clone(timeline.OggHeaders())
	for {
		p, err := late.Next()
		if err != nil {
			return tl, mp4, ogg, first + 50, 523
		}
		mp4, ogg = append(mp4, p.CMAF...), append(ogg, p.Ogg...)
	}
}

func TestForeignPlayersReadStreams(t *testing.T) {
	for _, first := range []uint64{0, 90000, 5_000_000_000} { // the start, half an hour on, and beyond 32 bits
		_, mp4, ogg, from, count := programme(t, first)
		file := write(t, "live.mp4", mp4)
		p := probe(t, file)
		checkTimes(t, "live.mp4", p, from, count)
		if got, want := seconds(t, p.Format.Start), float64(from)/50; math.Abs(got-want) > 1e-4 {
			t.Errorf("live.mp4 starts at %v, want %v", got, want)
		}
		pcm := decode(t, file)
		if len(pcm) != int(count)*960 {
			t.Errorf("live.mp4 decodes to %d samples, want %d", len(pcm), count*960)
		}
		hearTone(t, "live.mp4", pcm)

		file = write(t, "live.ogg", ogg)
		p = probe(t, file)
		checkTimes(t, "live.ogg", p, from, count)
		// The pre-skip is dropped, so sound starts 80 ms later, and at its place.
		if got, want := seconds(t, p.Format.Start), float64(from)/50+0.08; math.Abs(got-want) > 1e-4 {
			t.Errorf("live.ogg starts at %v, want %v", got, want)
		}
		pcm = decode(t, file)
		if len(pcm) != int(count)*960-3840 {
			t.Errorf("live.ogg decodes to %d samples, want %d", len(pcm), count*960-3840)
		}
		hearTone(t, "live.ogg", pcm)
	}
}

func TestForeignPlayersReadSegments(t *testing.T) {
	tl, _, _, _, _ := programme(t, 90000)
	for _, n := range []uint64{900, 903, 905} {
		s, err := tl.Segment(n)
		if err != nil {
			t.Fatal(err)
		}
		p := probe(t, write(t, "segment.mp4", append(bytes.Clone(timeline.Init()), s.Bytes()...)))
		checkTimes(t, fmt.Sprintf("segment %d", n), p, n*100, uint64(s.Frames()))
		if got := seconds(t, p.Format.Duration) - seconds(t, p.Format.Start); math.Abs(got-s.Duration().Seconds()) > 1e-4 &&
			math.Abs(seconds(t, p.Format.Duration)-s.Duration().Seconds()) > 1e-4 {
			t.Errorf("segment %d lasts %v, want %v", n, got, s.Duration())
		}
	}
	for k := range 5 {
		b, err := tl.HLSPart(902, k)
		if err != nil {
			t.Fatal(err)
		}
		p := probe(t, write(t, "part.mp4", append(bytes.Clone(timeline.Init()), b...)))
		checkTimes(t, fmt.Sprintf("part 902.%d", k), p, 90200+20*uint64(k), 20)
	}
}

func TestForeignPlayersReadRecording(t *testing.T) {
	tl, _, _, _, _ := programme(t, 0)
	var b bytes.Buffer
	o := timeline.NewOggWriter(&b, 5, "TITLE=Town hall")
	for n := range uint64(6) {
		s, err := tl.Segment(n)
		if err != nil {
			t.Fatal(err)
		}
		frames, cues, err := timeline.ReadChunks(s.Bytes())
		if err != nil || len(cues) != len(s.Parts) {
			t.Fatalf("%d cues, %v", len(cues), err)
		}
		packets := make([][]byte, len(frames))
		for i, f := range frames {
			packets[i] = f.Packet
		}
		if err := o.Write(packets); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	file := write(t, "replay.opus", b.Bytes())
	p := probe(t, file)
	if len(p.Packets) != 573 {
		t.Errorf("%d packets, want 573", len(p.Packets))
	}
	for i := 1; i < len(p.Packets); i++ {
		if p.Packets[i].PTS-p.Packets[i-1].PTS != 960 {
			t.Fatalf("packets %d and %d stand %d samples apart", i-1, i, p.Packets[i].PTS-p.Packets[i-1].PTS)
		}
	}
	if got := seconds(t, p.Format.Duration); math.Abs(got-573*0.02) > 0.01 {
		t.Errorf("lasts %v, want %v", got, 573*0.02)
	}
	if p.Streams[0].Tags["TITLE"] != "Town hall" {
		t.Errorf("tags %v", p.Streams[0].Tags)
	}
	pcm := decode(t, file)
	if len(pcm) != 573*960-312 {
		t.Errorf("decodes to %d samples, want %d", len(pcm), 573*960-312)
	}
	hearTone(t, "replay.opus", pcm)
}

// serve is the addresses of PROTOCOL.md below hls/, with the given media playlist.
func serve(t *testing.T, tl *timeline.Timeline, main func() []byte) (url string) {
	t.Helper()
	mux := http.NewServeMux()
	give := func(kind string, body func(*http.Request) ([]byte, error)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			b, err := body(r)
			if err != nil {
				http.Error(w, err.Error(), http.StatusNotFound)
				return
			}
			w.Header().Set("Content-Type", kind)
			_, _ = w.Write(b)
		}
	}
	mux.HandleFunc("GET /index.m3u8", give("application/vnd.apple.mpegurl", func(*http.Request) ([]byte, error) { return timeline.Multivariant(), nil }))
	mux.HandleFunc("GET /main.m3u8", give("application/vnd.apple.mpegurl", func(*http.Request) ([]byte, error) { return main(), nil }))
	mux.HandleFunc("GET /init.mp4", give("audio/mp4", func(*http.Request) ([]byte, error) { return timeline.Init(), nil }))
	mux.HandleFunc("GET /seg/{name}", give("audio/mp4", func(r *http.Request) ([]byte, error) {
		n, err := strconv.ParseUint(strings.TrimSuffix(r.PathValue("name"), ".m4s"), 10, 64)
		if err != nil {
			return nil, err
		}
		s, err := tl.Segment(n)
		if err != nil {
			return nil, err
		}
		return s.Bytes(), nil
	}))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL + "/index.m3u8"
}

func TestForeignPlayersReadHLS(t *testing.T) {
	tl, _, _, _, _ := programme(t, 0)
	var segs []timeline.Recorded
	for n := range uint64(6) {
		s, err := tl.Segment(n)
		if err != nil {
			t.Fatal(err)
		}
		segs = append(segs, timeline.Recorded{Number: n, Frames: s.Frames()})
	}
	for name, main := range map[string]func() []byte{
		"replay":               func() []byte { return timeline.VOD(origin, segs) },
		"live playlist, ended": tl.Playlist,
	} {
		url := serve(t, tl, main)
		p := probe(t, url)
		checkTimes(t, name, p, 0, 573)
		if got := seconds(t, p.Format.Duration); math.Abs(got-573*0.02) > 0.001 {
			t.Errorf("%s lasts %v, want %v", name, got, 573*0.02)
		}
		pcm := decode(t, url)
		if len(pcm) != 573*960 {
			t.Errorf("%s decodes to %d samples, want %d", name, len(pcm), 573*960)
		}
		hearTone(t, name, pcm)
	}
}

// TestForeignPlayersReadGaps: a restart in the middle, as a recording has it ever after.
func TestForeignPlayersReadGaps(t *testing.T) {
	tl := newTimeline(t, timeline.Config{Epoch: 1})
	fill(t, tl, 0, 263)
	fill(t, tl, 600, 700)
	tl.End()
	segs := []timeline.Recorded{{Number: 0, Frames: 100}, {Number: 1, Frames: 100}, {Number: 2, Frames: 63}, {Number: 6, Frames: 100}}
	url := serve(t, tl, func() []byte { return timeline.VOD(origin, segs) })
	p := probe(t, url)
	if got := seconds(t, p.Format.Duration); math.Abs(got-7.26) > 0.001 || len(p.Packets) != 363 {
		t.Errorf("%d packets in %v s, want 363 in 7.26", len(p.Packets), got)
	}
	if pcm := decode(t, url); len(pcm) != 363*960 {
		t.Errorf("decodes to %d samples, want %d", len(pcm), 363*960)
	}
}
