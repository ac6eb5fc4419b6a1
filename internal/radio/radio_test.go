package radio_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"earshot/internal/mix"
	"earshot/internal/radio"
	"earshot/internal/rig"
	"earshot/internal/timeline"
)

const toneHz = 440

var quiet = slog.New(slog.DiscardHandler)

// programme is a timeline with a tone, which grows when it is told to. Each frame's packet is one of a second's.
type programme struct {
	*timeline.Timeline
	t       testing.TB
	packets [][]byte
	next    uint64
	epoch   uint64
}

func newProgramme(t testing.TB, first uint64) *programme {
	t.Helper()
	tl, err := timeline.New(timeline.Config{Origin: time.Now(), First: first, Epoch: 1})
	must(t, err)
	p := &programme{Timeline: tl, t: t, next: first, epoch: 1}
	enc, err := mix.NewEncoder(0)
	must(t, err)
	pcm, buf, tone := make([]float32, 960), make([]byte, 1500), rig.Tone(toneHz, -20)
	for n := range int64(50) {
		tone(n*960, pcm)
		k, err := enc.Encode(pcm, buf)
		must(t, err)
		p.packets = append(p.packets, append([]byte(nil), buf[:k]...))
	}
	return p
}

func (p *programme) append(frames int) {
	for range frames {
		must(p.t, p.Append(timeline.Frame{Number: p.next, Epoch: p.epoch, Packet: p.packets[p.next%50]}))
		p.next++
	}
}

// conversion is a Convert that runs, and what came of it.
type conversion struct {
	radio.Counters
	radio.PID

	mu     sync.Mutex
	pieces []radio.Piece
	wanted atomic.Bool
	done   chan struct{}
}

func convert(t testing.TB, p *programme, form radio.Form, path string, back int) *conversion {
	t.Helper()
	c := &conversion{done: make(chan struct{})}
	c.wanted.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(c.done)
		radio.Convert(ctx, radio.Config{
			Path: path, Form: form, Timeline: p.Timeline, Back: back, Counters: &c.Counters, Log: quiet,
			Emit:   func(x radio.Piece) { c.mu.Lock(); c.pieces = append(c.pieces, x); c.mu.Unlock() },
			Wanted: c.wanted.Load,
		}, &c.PID)
	}()
	t.Cleanup(func() { cancel(); <-c.done })
	return c
}

func (c *conversion) got() []radio.Piece {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pieces
}

func wait(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ffmpeg(t testing.TB, form radio.Form) string {
	t.Helper()
	path, err := radio.Find("").For(form)
	must(t, err)
	return path
}

var sizes = map[radio.Form]int64{radio.AAC: 1024, radio.MP3: 1152}

// check looks at pieces of one run: every part once, frames on the grid and one after another, and gives their bytes.
func check(t *testing.T, form radio.Form, pieces []radio.Piece, parts int) []byte {
	t.Helper()
	size := sizes[form]
	if len(pieces) != parts {
		t.Fatalf("%d pieces of %d parts", len(pieces), parts)
	}
	var all []byte
	for i, x := range pieces {
		begin, end := int64(x.Part.First)*960, int64(x.Part.First+uint64(x.Part.Count))*960
		if x.First < begin || x.First+int64(x.Frames-1)*size >= end || x.Frames == 0 {
			t.Errorf("piece %d has frames from %d, and %d of them, in a part from %d to %d", i, x.First, x.Frames, begin, end)
		}
		if i > 0 {
			before := pieces[i-1]
			if x.Begins || x.Part.Number != before.Part.Number+1 || x.First != before.First+int64(before.Frames)*size {
				t.Errorf("piece %d begins %v, is of part %d and begins at %d; before it %d ended at %d", i, x.Begins, x.Part.Number, x.First,
					before.Part.Number, before.First+int64(before.Frames)*size)
			}
		} else if !x.Begins {
			t.Error("the first piece does not begin")
		}
		all = append(all, x.Bytes...)
	}
	return all
}

// decode has ffmpeg play what came, which must give no warning.
func decode(t testing.TB, form radio.Form, b []byte) []float32 {
	t.Helper()
	cmd := exec.Command("ffmpeg", "-v", "warning", "-f", form.String(), "-i", "pipe:0", "-f", "f32le", "-ac", "1", "-ar", "48000", "-")
	cmd.Stdin = bytes.NewReader(b)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	raw, err := cmd.Output()
	if err != nil || complaints.Len() > 0 {
		t.Fatalf("ffmpeg: %v %s", err, complaints.String())
	}
	return floats(raw)
}

func floats(raw []byte) []float32 {
	pcm := make([]float32, len(raw)/4)
	for i := range pcm {
		pcm[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return pcm
}

// sounds checks that all is the tone, but for the first and last 30 ms.
func sounds(t *testing.T, pcm []float32) {
	t.Helper()
	const edge = 1440
	if len(pcm) < 4*edge {
		t.Fatalf("only %d samples", len(pcm))
	}
	pcm = pcm[edge : len(pcm)-edge]
	if level := rig.Goertzel(pcm, toneHz); math.Abs(level+20) > 1 {
		t.Errorf("the tone is at %.1f dBFS, want -20", level)
	}
	if holes := rig.Holes(pcm, -40, 480); len(holes) > 0 {
		t.Errorf("holes: %v", holes)
	}
}

// All parts come, in frames at the places that follow from their numbers, and what is decoded is the tone, unbroken.
func TestConvert(t *testing.T) {
	for form := range radio.Form(radio.Forms) {
		t.Run(form.String(), func(t *testing.T) {
			t.Parallel()
			p := newProgramme(t, 1300)
			p.append(730)
			c := convert(t, p, form, ffmpeg(t, form), 1000)
			wait(t, "what is there", func() bool { return len(c.got()) >= 71 })
			p.append(75) // ends within a part
			p.End()
			<-c.done
			pieces := c.got()
			all := check(t, form, pieces, 81)
			if first := pieces[0].First - 1300*960; first < 0 || first >= sizes[form]+1152 {
				t.Errorf("the first frame begins %d samples late", first)
			}
			pcm := decode(t, form, all)
			if d := float64(len(pcm)) - 805*960; math.Abs(d) > 2500 {
				t.Errorf("%d samples of %d", len(pcm), 805*960)
			}
			sounds(t, pcm)
			if n := c.Started.Load(); n != 1 || c.Running.Load() != 0 || c.PID.Load() != 0 {
				t.Errorf("%d children were started, %d run", n, c.Running.Load())
			}
		})
	}
}

// A child that is killed is followed by one that goes on with the very next frame: nothing is lost, and nothing is heard of it.
func TestKilled(t *testing.T) {
	for form := range radio.Form(radio.Forms) {
		t.Run(form.String(), func(t *testing.T) {
			t.Parallel()
			p := newProgramme(t, 0)
			p.append(200)
			c := convert(t, p, form, ffmpeg(t, form), 100)
			for round := range 3 {
				before := len(c.got())
				p.append(130)
				wait(t, "more", func() bool { return len(c.got()) > before+5 })
				must(t, syscall.Kill(int(c.PID.Load()), syscall.SIGKILL))
				wait(t, "another", func() bool { return c.Started.Load() == uint64(round+2) })
			}
			p.append(200)
			p.End()
			<-c.done
			sounds(t, decode(t, form, check(t, form, c.got(), 79)))
			if n := c.Restarts[radio.Died].Load(); n != 3 || c.Dropped.Load() != 0 {
				t.Errorf("%d restarts, %d parts dropped", n, c.Dropped.Load())
			}
		})
	}
}

// One that hangs is noticed, and replaced.
func TestHangs(t *testing.T) {
	t.Parallel()
	p := newProgramme(t, 0)
	p.append(200)
	c := convert(t, p, radio.AAC, ffmpeg(t, radio.AAC), 100)
	wait(t, "sound", func() bool { return len(c.got()) > 15 })
	must(t, syscall.Kill(int(c.PID.Load()), syscall.SIGSTOP))
	p.append(200)
	wait(t, "the rest", func() bool { return len(c.got()) > 35 })
	p.End()
	<-c.done
	sounds(t, decode(t, radio.AAC, check(t, radio.AAC, c.got(), 40)))
	if n := c.Restarts[radio.Hung].Load(); n != 1 {
		t.Errorf("%d restarts", n)
	}
}

// Over a gap the frames go on behind it, where they belong.
func TestGap(t *testing.T) {
	t.Parallel()
	p := newProgramme(t, 0)
	p.append(250)
	c := convert(t, p, radio.AAC, ffmpeg(t, radio.AAC), 100)
	wait(t, "sound", func() bool { return len(c.got()) > 22 })
	p.next, p.epoch = 700, 2
	p.append(205)
	p.End()
	<-c.done
	pieces := c.got()
	if len(pieces) != 25+21 || !pieces[25].Begins {
		t.Fatalf("%d pieces", len(pieces))
	}
	sounds(t, decode(t, radio.AAC, check(t, radio.AAC, pieces[:25], 25)))
	sounds(t, decode(t, radio.AAC, check(t, radio.AAC, pieces[25:], 21)))
	if c.Started.Load() != 2 || c.Restarts[radio.Died].Load() != 0 || c.Dropped.Load() != 0 {
		t.Errorf("started %d, died %d, dropped %d", c.Started.Load(), c.Restarts[radio.Died].Load(), c.Dropped.Load())
	}
}

// A child that nobody wants ends.
func TestUnwanted(t *testing.T) {
	t.Parallel()
	p := newProgramme(t, 0)
	p.append(200)
	c := convert(t, p, radio.MP3, ffmpeg(t, radio.MP3), 100)
	wait(t, "sound", func() bool { return len(c.got()) > 15 })
	pid := int(c.PID.Load())
	if first, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid)); runtime.GOOS == "linux" && string(first) != "1000\n" {
		t.Errorf("short of memory, the kernel takes it at %q (%v), not first", first, err)
	}
	c.wanted.Store(false)
	<-c.done
	if err := syscall.Kill(pid, 0); err == nil {
		t.Error("it lives")
	}
}

// Programs that are no ffmpeg do no harm, and are not tried in a hurry.
func TestImpostors(t *testing.T) {
	for name, x := range map[string]struct {
		script string
		reason int
	}{
		"dies":      {"#!/bin/sh\necho broken >&2\nexit 3\n", radio.Died},
		"garbage":   {"#!/bin/sh\ncat /dev/zero\n", radio.Garbled},
		"flood":     {"#!/bin/sh\nyes\n", radio.Garbled},
		"no script": {"#!/nowhere/at/all\n", radio.Unborn},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "ffmpeg")
			must(t, os.WriteFile(path, []byte(x.script), 0o700))
			p := newProgramme(t, 0)
			p.append(200)
			begun := time.Now()
			c := convert(t, p, radio.AAC, path, 100)
			wait(t, "three restarts", func() bool { return c.Restarts[x.reason].Load() == 3 })
			if d := time.Since(begun); d < 600*time.Millisecond {
				t.Errorf("three restarts within %v", d)
			}
			p.End()
			<-c.done
			if len(c.got()) != 0 {
				t.Errorf("%d pieces", len(c.got()))
			}
		})
	}
}

func TestFind(t *testing.T) {
	if _, err := radio.Find("/nowhere/ffmpeg").For(radio.AAC); err == nil {
		t.Error("found what is not there")
	}
	// One that was built without MP3.
	path := filepath.Join(t.TempDir(), "ffmpeg")
	must(t, os.WriteFile(path, []byte("#!/bin/sh\necho ' A....D aac                  AAC (Advanced Audio Coding)'\n"), 0o700))
	tool := radio.Find(path)
	if got, err := tool.For(radio.AAC); err != nil || got != path {
		t.Errorf("AAC: %q %v", got, err)
	}
	if _, err := tool.For(radio.MP3); err == nil {
		t.Error("MP3 without its encoder")
	}
}
