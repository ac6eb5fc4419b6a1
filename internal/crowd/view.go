package crowd

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"earshot/internal/crowd/tally"
)

// View shows how a run goes while it goes: on a terminal as one block that is written over, elsewhere as a line every few seconds.
type View struct {
	w         io.Writer
	terminal  bool
	listeners int
	started   time.Time
	total     tally.Tally
	rows      int
	height    int // lines of the block that stands there
}

// NewView makes one that writes to w. Terminal says that w understands a terminal's control sequences.
func NewView(w io.Writer, terminal bool, listeners int) *View {
	return &View{w: w, terminal: terminal, listeners: listeners, started: time.Now()}
}

// plainEvery is how many seconds lie between two lines where there is no terminal.
const plainEvery = 2

// Show takes a second. It is what Config.Live wants.
func (v *View) Show(r Row) {
	v.total.Merge(&r.Tally)
	v.rows++
	t := &v.total
	late := r.Tally.Late.Spread()
	rate := float64(r.Tally.Bytes) * 8 / max(r.Seconds, .001) / 1e6
	cpu := 100 * float64(r.CPUUS) / 1e6 / max(r.Seconds, .001)
	if !v.terminal {
		if v.rows%plainEvery == 0 {
			fmt.Fprintf(v.w, "%5.0f s  came %d/%d  hear %d  failed %d  cut off %d  gaps %d  lost %d  late p95 %.0f ms  %.1f Mbit/s  crowd %.0f %% CPU\n",
				r.At, t.Due, v.listeners, r.Hearing, sum(t.Failed), sum(t.Lost), t.Gaps, t.LostFrames, late.P95, rate, cpu)
		}
		return
	}
	lines := []string{
		fmt.Sprintf("%5.0f s   %s", r.At, bar(r.Hearing, int64(v.listeners), 40)),
		fmt.Sprintf("   came %d of %d   hear %d   joined %d%s%s", t.Due, v.listeners, r.Hearing, t.Joined, reasons("failed", t.Failed),
			reasons("cut off", t.Lost)),
		fmt.Sprintf("   gaps %d at %d   frames lost %d   skips %d   malformed %d", t.Gaps, t.GapEars, t.LostFrames, t.Skips, t.Malformed),
		fmt.Sprintf("   late p50 %.1f  p95 %.1f  p99 %.1f ms   first audio p95 %.0f ms", late.P50, late.P95, late.P99, t.Sound.Spread().P95),
		fmt.Sprintf("   %.1f Mbit/s   crowd %.0f %% CPU, loop %.0f %% busy, %d MB", rate, cpu, 100*float64(r.BusyUS)/1e6/max(r.Seconds, .001),
			r.RSSKB>>10),
	}
	var b strings.Builder
	if v.height > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", v.height)
	}
	for _, l := range lines {
		b.WriteString("\x1b[2K" + l + "\n")
	}
	v.height = len(lines)
	_, _ = io.WriteString(v.w, b.String())
}

func bar(n, of int64, width int) string {
	full := 0
	if of > 0 {
		full = int(min(n, of) * int64(width) / of)
	}
	return strings.Repeat("█", full) + strings.Repeat("░", width-full)
}

func sum(m map[string]int64) (n int64) {
	for _, v := range m {
		n += v
	}
	return n
}

// sorted gives the keys of a tally's reasons in order.
func sorted(m map[string]int64) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
