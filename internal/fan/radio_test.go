package fan_test

import (
	"bytes"
	"context"
	"io"
	"math"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"earshot/internal/event"
	"earshot/internal/fan"
	"earshot/internal/radio"
	"earshot/internal/rig"
)

func about() fan.About {
	return fan.About{Title: "Town Hall", Description: "All\r\nhands", Listed: true}
}

func (h *house) radio(form radio.Form) func(http.ResponseWriter, *http.Request, fan.Source) error {
	return func(w http.ResponseWriter, r *http.Request, src fan.Source) error {
		return h.fan.ServeRadio(w, r, src, form, about)
	}
}

// labelled sums a metric with two labels over the second.
func (h *house) labelled(metric, first string) (sum float64) {
	h.t.Helper()
	families, err := h.reg.Gather()
	must(h.t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == metric && m.GetLabel()[0].GetValue() == first {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// tone decodes what a listener got and checks that it is the tone from end to end. It gives its length in seconds.
func tone(t *testing.T, form radio.Form, b []byte) float64 {
	t.Helper()
	var said bytes.Buffer
	cmd := exec.Command("ffmpeg", "-v", "warning", "-f", form.String(), "-i", "pipe:0", "-f", "f32le", "-ac", "1", "-ar", "48000", "-")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(b), &said
	raw, err := cmd.Output()
	if err != nil || said.Len() > 0 {
		t.Errorf("ffmpeg: %v %s", err, said.String())
	}
	pcm := floats(raw)
	if len(pcm) < 48000 {
		t.Fatalf("%d samples", len(pcm))
	}
	whole := pcm[2400 : len(pcm)-4800]
	if level := rig.Goertzel(whole, toneHz); math.Abs(level+20) > 1 {
		t.Errorf("the tone is at %.1f dBFS", level)
	}
	if holes := rig.Holes(whole, -40, 480); len(holes) > 0 {
		t.Errorf("holes: %v", holes)
	}
	return float64(len(pcm)) / 48000
}

// Radio players find about 3 s soon, and what they get is the tone at its level, also when ffmpeg is killed meanwhile: their connection and
// the sound go on.
func TestRadio(t *testing.T) {
	for form, kind := range map[radio.Form]string{radio.AAC: "audio/aac", radio.MP3: "audio/mpeg"} {
		t.Run(form.String(), func(t *testing.T) {
			h := newHouse(t)
			path := "/live." + form.String()
			asked := time.Now()
			resp := h.get(path)
			if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != kind || resp.Header.Get("icy-metaint") != "" || resp.Header.Get("Cache-Control") != "no-store" {
				t.Fatalf("%d %v", resp.StatusCode, resp.Header)
			}
			first := make([]byte, 2*radio.BitRate/8)
			_, err := io.ReadFull(resp.Body, first)
			must(t, err)
			if d := time.Since(asked); d > 3*time.Second {
				t.Errorf("two seconds took %v", d)
			}
			h.wait("it is counted", func() bool { count, _ := h.audience.Sweep(time.Now()); return count.Now == 1 })
			second := h.get(path) // shares the child
			pid := fan.ConverterPID(h.fan, h.timeline, form)
			must(t, syscall.Kill(pid, syscall.SIGKILL))
			head := h.timeline.Head()
			h.wait("three more seconds", func() bool { return h.timeline.Head() > head+150 })
			if now := fan.ConverterPID(h.fan, h.timeline, form); now == pid || now == 0 {
				t.Errorf("the child was %d and is %d", pid, now)
			}
			h.stop(true)
			for i, body := range []io.Reader{io.MultiReader(bytes.NewReader(first), resp.Body), second.Body} {
				all, err := io.ReadAll(body)
				must(t, err)
				if d := tone(t, form, all); d < 5.5 || d > 12 {
					t.Errorf("listener %d has %.2f s", i, d)
				}
			}
			if n := h.labelled("earshot_converter_failures_total", form.String()); n != 1 {
				t.Errorf("%v failures are counted", n)
			}
			h.wait("the child is gone", func() bool { return h.count("earshot_converters", form.String()) == 0 })
		})
	}
}

// Who asks for metadata gets it where it was said to be, and all of them the same bytes; what is left without it is the tone.
func TestRadioMetadata(t *testing.T) {
	h := newHouse(t)
	for _, path := range []string{"/live.mp3", "/live.aac"} {
		req, err := http.NewRequestWithContext(h.ctx, http.MethodGet, h.web.URL+path, nil)
		must(t, err)
		req.Header.Set("Icy-MetaData", "1")
		for range 2 { // one who has the child start, and one who comes later
			resp, err := http.DefaultClient.Do(req)
			must(t, err)
			defer resp.Body.Close()
			interval, err := strconv.Atoi(resp.Header.Get("icy-metaint"))
			if err != nil || resp.Header.Get("icy-name") != "Town Hall" || resp.Header.Get("icy-br") != "64" || resp.Header.Get("icy-pub") != "1" ||
				resp.Header.Get("icy-description") != "All  hands" {
				t.Fatalf("%v", resp.Header)
			}
			var audio []byte
			for range 4 {
				block := make([]byte, interval+1)
				_, err := io.ReadFull(resp.Body, block)
				must(t, err)
				audio = append(audio, block[:interval]...)
				text := make([]byte, 16*int(block[interval]))
				_, err = io.ReadFull(resp.Body, text)
				must(t, err)
				if got := strings.TrimRight(string(text), "\x00"); got != "StreamTitle='Town Hall – Ada';" {
					t.Fatalf("%s: metadata %q", path, got)
				}
			}
			if path == "/live.mp3" { // of AAC a listener may begin within a frame, which is worth a warning of ffmpeg's
				if d := tone(t, radio.MP3, audio); math.Abs(d-4*1.008) > 0.1 {
					t.Errorf("%.3f s in four blocks", d)
				}
			} else if !bytes.Contains(audio[:2000], []byte{0xff, 0xf1, 0x4c}) {
				t.Error("no frame begins")
			}
		}
	}
}

// ffplay and its like ask for metadata by themselves, and mpv too: ffmpeg's own client reads it without a word of complaint, and shows
// the title.
func TestRadioPlayers(t *testing.T) {
	h := newHouse(t)
	for _, path := range []string{"/live.mp3", "/live.aac"} {
		ctx, cancel := context.WithTimeout(h.ctx, 30*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, "ffprobe", "-v", "warning", "-show_entries", "stream=codec_name,sample_rate,channels:format_tags", "-of", "flat",
			h.web.URL+path).CombinedOutput()
		must(t, err)
		codec := map[string]string{"/live.mp3": "mp3", "/live.aac": "aac"}[path]
		for _, want := range []string{`codec_name="` + codec + `"`, `sample_rate="48000"`, "channels=1", `icy_name="Town Hall"`, `StreamTitle="Town Hall – Ada"`} {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s: no %s in\n%s", path, want, out)
			}
		}
		if strings.Contains(string(out), "[") { // "[mp3 @ …] warning"
			t.Errorf("%s: %s", path, out)
		}
	}
}

// Without ffmpeg the address says what is missing, and all else works.
func TestRadioWithoutFFmpeg(t *testing.T) {
	h := newHouse(t, func(c *fan.Config) { c.FFmpeg = "/nowhere/ffmpeg" })
	if resp := h.get("/live.aac"); resp.StatusCode != 503 {
		t.Errorf("%d", resp.StatusCode)
	}
	if resp := h.get("/live.ogg"); resp.StatusCode != 200 {
		t.Errorf("%d", resp.StatusCode)
	}
}

// HLS in AAC begins with several segments of the past. The child lives for as long as somebody asks, and a moment more.
func TestRadioHLS(t *testing.T) {
	var later atomic.Int64
	h := newHouse(t, func(c *fan.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	})
	asked := time.Now()
	text, err := h.fan.AACPlaylist(h.ctx, h.source(), about)
	must(t, err)
	if d := time.Since(asked); d > 5*time.Second {
		t.Errorf("the playlist took %v", d)
	}
	names := regexp.MustCompile(`(?m)^aac/(\d+)\.aac$`).FindAllStringSubmatch(string(text), -1)
	if len(names) < 1 || names[0][1] != "1" { // of four seconds
		t.Fatalf("%s", text)
	}
	n, err := strconv.ParseUint(names[len(names)-1][1], 10, 64)
	must(t, err)
	b, err := h.fan.AACSegment(h.source(), n)
	must(t, err)
	if !bytes.HasPrefix(b, []byte("ID3\x04")) || len(b) < radio.BitRate/8 {
		t.Errorf("segment %d has %d bytes", n, len(b))
	}
	if _, err := h.fan.AACSegment(h.source(), n+50); event.CodeOf(err) != event.CodeNotFound {
		t.Errorf("a segment of the future: %v", err)
	}
	pid := fan.ConverterPID(h.fan, h.timeline, radio.AAC)
	later.Store(int64(10 * time.Second))
	if _, err = h.fan.AACPlaylist(h.ctx, h.source(), about); err != nil || fan.ConverterPID(h.fan, h.timeline, radio.AAC) != pid {
		t.Errorf("another child, or %v", err)
	}
	later.Store(int64(30 * time.Second))
	h.wait("the child is gone", func() bool { return h.count("earshot_converters", "aac") == 0 })
	h.wait("its segments are, too", func() bool { _, err := h.fan.AACSegment(h.source(), n); return err != nil })
	if _, err = h.fan.AACPlaylist(h.ctx, h.source(), about); err != nil || h.count("earshot_converters_started_total", "aac") != 2 {
		t.Errorf("nobody begins anew: %v", err)
	}
}
