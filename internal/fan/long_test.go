package fan_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"earshot/internal/rig"
	"earshot/internal/timeline"
)

func (h *house) get(path string) *http.Response {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.ctx, http.MethodGet, h.web.URL+path, nil)
	must(h.t, err)
	resp, err := http.DefaultClient.Do(req)
	must(h.t, err)
	h.t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// Players that are not ours find about 3 s at once, read on without a warning, and the sound is right.
func TestLongResponses(t *testing.T) {
	for path, kind := range map[string]string{"/live.mp4": "audio/mp4", "/live.ogg": "audio/ogg"} {
		t.Run(path, func(t *testing.T) {
			h := newHouse(t)
			asked := time.Now()
			resp := h.get(path)
			if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != kind || resp.Header.Get("Cache-Control") != "no-store" {
				t.Fatalf("%d %v", resp.StatusCode, resp.Header)
			}
			// At 20 to 32 kbit/s three seconds are more than 6 KB.
			first := make([]byte, 6000)
			_, err := io.ReadFull(resp.Body, first)
			must(t, err)
			if d := time.Since(asked); d > 1500*time.Millisecond {
				t.Errorf("the burst took %v", d)
			}
			h.wait("it is counted", func() bool { count, _ := h.audience.Sweep(time.Now()); return count.Now == 1 })
			head := h.timeline.Head()
			h.wait("three more seconds", func() bool { return h.timeline.Head() > head+150 })
			h.stop(true)
			rest, err := io.ReadAll(resp.Body)
			must(t, err)
			file := filepath.Join(t.TempDir(), "live"+filepath.Ext(path))
			must(t, os.WriteFile(file, append(first, rest...), 0o600))

			out, err := exec.Command("ffprobe", "-v", "warning", "-show_entries", "packet=pts_time,duration_time", "-of", "csv=p=0", file).CombinedOutput()
			must(t, err)
			last, n := 0.0, 0
			for l := range strings.Lines(string(out)) {
				if l = strings.TrimSpace(l); l == "" { // side data, such as samples to be skipped at the start
					continue
				}
				f := strings.Split(l, ",")
				pts, err := strconv.ParseFloat(f[0], 64)
				if err != nil {
					t.Fatalf("ffprobe says: %s", l)
				}
				if n > 0 && (pts-last < 0.0199 || pts-last > 0.0201) {
					t.Fatalf("packet %d: %.4f s after the one before", n, pts-last)
				}
				last = pts
				n++
			}
			if n < 290 {
				t.Errorf("%d packets, want 3 s and 3 s", n)
			}
			raw, err := exec.Command("ffmpeg", "-v", "warning", "-i", file, "-f", "f32le", "-ac", "1", "-ar", "48000", "-").Output()
			must(t, err)
			pcm := floats(raw)
			if level := rig.Goertzel(pcm[24000:], toneHz); level < -25 {
				t.Errorf("the tone is at %.1f dBFS", level)
			}
			if holes := rig.Holes(pcm[24000:len(pcm)-4800], -40, 480); len(holes) > 0 {
				t.Errorf("holes: %v", holes)
			}
			h.wait("it left", func() bool {
				return h.count("earshot_listener_connections", strings.TrimPrefix(filepath.Ext(path), ".")) == 0
			})
		})
	}
}

func floats(raw []byte) []float32 {
	pcm := make([]float32, len(raw)/4)
	for i := range pcm {
		pcm[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return pcm
}

func TestLongAfterTheEnd(t *testing.T) {
	h := newHouse(t)
	h.stop(true)
	for _, path := range []string{"/live", "/cues"} {
		req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, h.web.URL+path, nil)
		must(t, err)
		for k, v := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} {
			req.Header.Set(k, v)
		}
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		b, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != 409 || !strings.Contains(string(b), "ended") {
			t.Errorf("%s: %d %s", path, resp.StatusCode, b)
		}
	}
}

// Cues: the sticky ones first, then each part's, with their frame as id; told when to come back at a restart.
func TestCues(t *testing.T) {
	h := newHouse(t)
	resp := h.get("/cues")
	if kind := resp.Header.Get("Content-Type"); kind != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("X-Accel-Buffering") != "no" {
		t.Errorf("headers: %v", resp.Header)
	}
	in := bufio.NewScanner(resp.Body)
	field := func(name string) string {
		t.Helper()
		for in.Scan() {
			if v, ok := strings.CutPrefix(in.Text(), name+": "); ok {
				return v
			}
		}
		t.Fatalf("no %s: %v", name, in.Err())
		return ""
	}
	if field("retry") != "2000" {
		t.Error("no retry hint")
	}
	for i := range 8 {
		id, kind, data := field("id"), field("event"), field("data")
		var cue timeline.Cue
		must(t, json.Unmarshal([]byte(data), &cue))
		if id != strconv.FormatUint(cue.Frame, 10) || kind != cue.Kind || i == 0 && kind != "stage" {
			t.Errorf("event %d: %s %s %s", i, id, kind, data)
		}
	}
	h.stop(false)
	must(t, h.fan.Shutdown(context.Background(), 3*time.Second))
	if s := field("retry"); s != "3000" {
		t.Errorf("told to come back in %s ms", s)
	}
	if in.Scan(); in.Scan() {
		t.Errorf("more came: %q", in.Text())
	}
}
