package crowd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Foreign is what a program heard that shares no code with us: ffmpeg decodes, and says what it dislikes; ffprobe looks at the
// packets' times.
type Foreign struct {
	Program    string   `json:"program"`
	URL        string   `json:"url"`
	Wanted     float64  `json:"wanted_s"`
	Seconds    float64  `json:"seconds"`         // of audio
	Missing    float64  `json:"missing_s"`       // between packets
	Complaints []string `json:"complaints"`      // at most ten lines
	Fault      string   `json:"fault,omitempty"` // why it could not listen
}

// fine says whether nothing was amiss.
func (f *Foreign) fine() bool {
	return f.Fault == "" && len(f.Complaints) == 0 && f.Missing < .001 && f.Seconds > f.Wanted-.5
}

// String is that in words.
func (f *Foreign) String() string {
	s := fmt.Sprintf("%s: %.1f s of %.1f", f.URL, f.Seconds, f.Wanted)
	if f.Missing > 0 {
		s += fmt.Sprintf(", %.3f s missing", f.Missing)
	}
	if len(f.Complaints) > 0 {
		s += fmt.Sprintf(", %d complaints, the first: %s", len(f.Complaints), f.Complaints[0])
	}
	if f.Fault != "" {
		s += ", " + f.Fault
	}
	return s
}

// foreignURL is where a program that is not ours listens to what the rung gives: to the rung itself where it can.
func foreignURL(cfg *Config, t *target) (string, error) {
	if !t.loopback() { // the address cannot be pinned in a program that is not ours
		return "", errors.New("--foreign is for loopback addresses")
	}
	if !t.Earshot {
		if cfg.Rung == WebRTC {
			return "", errors.New("--foreign: ffmpeg does not speak WHEP")
		}
		return t.url(t.Path), nil
	}
	file := map[string]string{Push: "live.mp4", MP4: "live.mp4", HLS: "hls/index.m3u8"}[cfg.Rung]
	if file == "" {
		file = "live.ogg"
	}
	return t.url("/e/" + t.Slug + "/" + file), nil
}

// listenToo runs the programs for the time of the run.
func listenToo(ctx context.Context, cfg *Config, t *target) []Foreign {
	url, err := foreignURL(cfg, t)
	if err != nil {
		return []Foreign{{Program: "ffmpeg", Fault: err.Error()}}
	}
	wanted := max((cfg.Arrive + cfg.Hold - time.Second).Seconds(), 1)
	out := make([]Foreign, cfg.Foreign)
	var wg sync.WaitGroup
	for i := range out {
		f := &out[i]
		*f = Foreign{Program: "ffmpeg", URL: url, Wanted: wanted}
		if i%2 == 1 {
			f.Program = "ffprobe"
		}
		wg.Go(func() { f.listen(ctx) })
	}
	wg.Wait()
	return out
}

func (f *Foreign) listen(ctx context.Context) {
	path, err := exec.LookPath(f.Program)
	if err != nil {
		f.Fault = f.Program + " is not installed"
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration((f.Wanted+6)*float64(time.Second)))
	defer cancel()
	seconds := strconv.FormatFloat(f.Wanted, 'f', 2, 64)
	args := []string{"-hide_banner", "-nostdin", "-v", "warning", "-i", f.URL, "-t", seconds, "-f", "s16le", "-ac", "1", "-ar", "48000", "-"}
	if f.Program == "ffprobe" {
		args = []string{
			"-hide_banner", "-v", "warning", "-show_entries", "packet=pts_time,duration_time", "-of", "csv=p=0", "-read_intervals", "%+" + seconds,
			f.URL,
		}
	}
	cmd := exec.CommandContext(ctx, path, args...)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		f.Fault = err.Error()
		return
	}
	r := bufio.NewReaderSize(out, 64<<10)
	if f.Program == "ffprobe" {
		f.packets(r)
	} else {
		n, _ := r.WriteTo(discard{})
		f.Seconds = float64(n) / 2 / 48000
	}
	err = cmd.Wait()
	for line := range strings.Lines(complaints.String()) {
		if line = strings.TrimSpace(line); line != "" && len(f.Complaints) < 10 && !harmless(line) {
			f.Complaints = append(f.Complaints, line)
		}
	}
	if ctx.Err() == nil && err != nil {
		f.Fault = err.Error()
	}
}

// harmless are lines that say nothing of what was heard: ffmpeg reads the initialisation segment again when a live playlist was reloaded, and is
// surprised.
func harmless(line string) bool {
	return strings.HasSuffix(line, "Found duplicated MOOV Atom. Skipped it") || strings.HasPrefix(line, "Last message repeated")
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// packets reads lines of a packet's time and duration.
func (f *Foreign) packets(r *bufio.Reader) {
	last := math.NaN()
	for lines := bufio.NewScanner(r); lines.Scan(); {
		fields := strings.Split(lines.Text(), ",")
		if len(fields) < 2 {
			continue
		}
		at, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			continue
		}
		length, err := strconv.ParseFloat(fields[1], 64)
		if err != nil { // "N/A" in fragmented MP4; ours are frames
			length = .02
		}
		if missing := at - last; missing > .0005 { // not with NaN, the first time
			f.Missing += missing
		}
		last = at + length
		f.Seconds += length
	}
}

// disagree says where others heard something else than the crowd.
func (r *Report) disagree() {
	ours := r.Gaps == 0 && r.LostFrames == 0 && r.Malformed == 0 && r.Skips == 0
	for i := range r.Foreign {
		f := &r.Foreign[i]
		switch {
		case f.Fault != "":
			r.Notes = append(r.Notes, f.Program+" did not listen: "+f.Fault)
		case ours && !f.fine():
			r.Notes = append(r.Notes, "DISAGREEMENT: the crowd heard everything; "+f.Program+" did not: "+f.String())
		case !ours && f.fine():
			r.Notes = append(r.Notes, "DISAGREEMENT: the crowd has lost something; "+f.Program+" heard everything")
		}
	}
}
