package app_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"earshot/internal/app"
)

// A GStreamer client speaks by WHIP; ffmpeg, which shares no code with us, hears it on every file-like rung, live and in the
// replay, without a warning.
func TestForeignClients(t *testing.T) {
	n := start(t, t.TempDir(), nil)
	n.event("foreign", 0, nil)
	n.do("POST", "/api/v1/events/foreign/live", nil, nil)
	secret := n.invite("foreign", "speaker")

	const hertz, other = 660, 990
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	gst := exec.CommandContext(ctx, "/usr/bin/python3", "../rig/testdata/webrtcbin.py", "whip", n.url+"/e/foreign/whip", "18",
		strconv.Itoa(hertz), secret)
	var said bytes.Buffer
	gst.Stdout, gst.Stderr = &said, &said
	if err := gst.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- gst.Wait() }()
	await(t, 30*time.Second, "GStreamer on stage", func() bool {
		select {
		case err := <-ended:
			t.Fatalf("GStreamer: %v\n%s", err, said.String())
		default:
		}
		var st struct {
			People []struct {
				Level float64 `json:"level"`
			} `json:"people"`
		}
		n.do("GET", "/api/v1/events/foreign/stage", nil, &st)
		return len(st.People) == 1 && st.People[0].Level > -40
	})
	// Players begin in the past: with a burst of three seconds, or three segments before the end of a playlist.
	time.Sleep(8 * time.Second)

	for _, path := range []string{"live.ogg", "live.mp4", "hls/main.m3u8", "hls/index.m3u8", "live.aac", "live.mp3", "hls/aac.m3u8"} {
		t.Run(strings.ReplaceAll(path, "/", " "), func(t *testing.T) {
			pcm := ffmpeg(t, n.url+"/e/foreign/"+path, 3)
			checkTone(t, pcm, 3, hertz, other)
		})
	}
	if err := <-ended; err != nil {
		t.Fatalf("GStreamer: %v\n%s", err, said.String())
	}
	if !strings.Contains(said.String(), "deleted 2") {
		t.Errorf("the session was not ended over HTTP:\n%s", said.String())
	}

	n.do("POST", "/api/v1/events/foreign/end", nil, nil)
	await(t, 15*time.Second, "a replay", func() bool { return n.get("foreign").Replay != nil })
	rec := n.get("foreign").Replay
	if rec.Duration < 10 || rec.Duration > 90 {
		t.Errorf("the replay has %.1f s", rec.Duration)
	}
	for _, path := range []string{"hls/index.m3u8", "replay.opus"} {
		t.Run("replay "+strings.ReplaceAll(path, "/", " "), func(t *testing.T) {
			url := n.url + "/e/foreign/" + path
			if path == "replay.opus" { // a download: a file on disk is what people have of it
				url = download(t, url)
			}
			if got := duration(t, url); math.Abs(got-rec.Duration) > 0.1 {
				t.Errorf("ffprobe finds %.3f s, the event says %.3f", got, rec.Duration)
			}
			checkSteady(t, url, rec.Duration)
			pcm := ffmpeg(t, url, 0)
			if got := float64(len(pcm)) / 48000; math.Abs(got-rec.Duration) > 0.1 {
				t.Errorf("ffmpeg decodes %.3f s of %.3f", got, rec.Duration)
			}
			mid := len(pcm) / 2
			checkTone(t, pcm[mid-48000:mid+48000], 2, hertz, other)
		})
	}
}

// The demo is heard at the first click: its voices take turns, and never stop for long.
func TestDemoIsHeard(t *testing.T) {
	n := start(t, t.TempDir(), func(c *app.Config) { c.Demo = true })
	if ev := n.get("demo"); ev.Phase != "live" {
		t.Fatalf("the demo is %s", ev.Phase)
	}
	time.Sleep(3 * time.Second) // for the burst to hold voices
	pcm := ffmpeg(t, n.url+"/e/demo/live.ogg", 8)
	loud := 0
	for i := 0; i+4800 <= len(pcm); i += 4800 {
		if rms(pcm[i:i+4800]) > 0.01 {
			loud++
		}
	}
	if windows := len(pcm) / 4800; loud < windows/2 {
		t.Errorf("%d of %d windows of 100 ms are louder than -40 dBFS", loud, windows)
	}
}

// ffmpeg decodes what is at the address, for some seconds or to its end (0), and fails the test at any warning.
func ffmpeg(t *testing.T, url string, seconds int) []float64 {
	t.Helper()
	args := []string{"-hide_banner", "-nostdin", "-v", "warning", "-i", url}
	if seconds > 0 {
		args = append(args, "-t", strconv.Itoa(seconds))
	}
	args = append(args, "-f", "s16le", "-ac", "1", "-ar", "48000", "-")
	out := run(t, "ffmpeg", args...)
	pcm := make([]float64, len(out)/2)
	for i := range pcm {
		pcm[i] = float64(int16(binary.LittleEndian.Uint16(out[2*i:]))) / 32768
	}
	return pcm
}

// run gives what a command prints; what it complains of fails the test.
func run(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil || complaints.Len() > 0 {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, complaints.String())
	}
	return out.Bytes()
}

func duration(t *testing.T, url string) float64 {
	t.Helper()
	var probe struct {
		Format struct {
			Duration string `json:"duration"`
		} `json:"format"`
	}
	if err := json.Unmarshal(run(t, "ffprobe", "-v", "warning", "-of", "json", "-show_format", url), &probe); err != nil {
		t.Fatal(err)
	}
	d, err := strconv.ParseFloat(probe.Format.Duration, 64)
	if err != nil {
		t.Fatalf("ffprobe finds no duration in %s: %v", url, err)
	}
	return d
}

// checkSteady fails unless there is a packet every 20 ms from the first to the last.
func checkSteady(t *testing.T, url string, seconds float64) {
	t.Helper()
	out := string(run(t, "ffprobe", "-v", "warning", "-show_entries", "packet=pts_time", "-of", "csv=p=0", url))
	last, n := 0.0, 0
	for line := range strings.Lines(out) {
		// A packet with side data (samples to skip) has a comma behind its time, and an empty line.
		at := strings.Trim(line, ",\n")
		if at == "" {
			continue
		}
		pts, err := strconv.ParseFloat(at, 64)
		if err != nil {
			t.Fatalf("packet %d of %s: %v", n, url, err)
		}
		if n > 0 && math.Abs(pts-last-0.02) > 0.0005 {
			t.Fatalf("packet %d of %s comes %.4f s after the one before", n, url, pts-last)
		}
		last = pts
		n++
	}
	if want := int(math.Round(seconds * 50)); n != want {
		t.Errorf("%s has %d packets, want %d", url, n, want)
	}
}

func checkTone(t *testing.T, pcm []float64, seconds int, hertz, other float64) {
	t.Helper()
	if len(pcm) < (seconds-1)*48000 {
		t.Fatalf("heard %d samples", len(pcm))
	}
	pcm = pcm[len(pcm)/4:]
	here, there := goertzel(pcm, hertz), goertzel(pcm, other)
	if here < -35 || here < there+30 {
		t.Errorf("%.0f Hz has %.1f dBFS, %.0f Hz has %.1f", hertz, here, other, there)
	}
}

// goertzel gives the level of one frequency, in dBFS of a sine: the median over windows of 100 ms, since a voice that is
// brought into step is stretched by up to 0.3 %, and a longer window would take that for another frequency.
func goertzel(pcm []float64, hertz float64) float64 {
	const n = 4800
	c := 2 * math.Cos(2*math.Pi*hertz/48000)
	var each []float64
	for ; len(pcm) >= n; pcm = pcm[n:] {
		var s1, s2 float64
		for _, x := range pcm[:n] {
			s1, s2 = x+c*s1-s2, s1
		}
		each = append(each, 20*math.Log10(2*math.Sqrt(max(0, s1*s1+s2*s2-c*s1*s2))/n+1e-12))
	}
	slices.Sort(each)
	return each[len(each)/2]
}

func rms(pcm []float64) float64 {
	sum := 0.0
	for _, x := range pcm {
		sum += x * x
	}
	return math.Sqrt(sum / float64(len(pcm)))
}

func download(t *testing.T, url string) (path string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %d %v", url, resp.StatusCode, err)
	}
	path = filepath.Join(t.TempDir(), "replay.opus")
	writeFile(t, path, b)
	return path
}
