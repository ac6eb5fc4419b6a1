package crowd

import (
	"bytes"
	"os"
	"strconv"

	"earshot/internal/crowd/tally"
)

// Row is what happened in one second, in one process or in all.
type Row struct {
	At      float64     `json:"at"`      // seconds since the beginning, at its end
	Seconds float64     `json:"seconds"` // that it lasts
	Hearing int64       `json:"hearing"` // listeners who hear, at its end
	Tally   tally.Tally `json:"tally"`   // of this second
	CPUUS   int64       `json:"cpu_us"`  // processor time of the crowd, µs
	BusyUS  int64       `json:"busy_us"` // that the busiest process's loop did not wait, µs
	RSSKB   int64       `json:"rss_kb"`  // resident memory of the crowd
	BaseKB  int64       `json:"base_kb"` // of it, before there were listeners
	Starved bool        `json:"starved,omitempty"`
	Ending  bool        `json:"ending,omitempty"` // in it the crowd left and compared what it heard
}

// merge adds another process's row of the same second.
func (r *Row) merge(o *Row) {
	r.At, r.Seconds = max(r.At, o.At), max(r.Seconds, o.Seconds)
	r.Hearing += o.Hearing
	r.Tally.Merge(&o.Tally)
	r.CPUUS += o.CPUUS
	r.BusyUS = max(r.BusyUS, o.BusyUS)
	r.RSSKB += o.RSSKB
	r.BaseKB += o.BaseKB
	r.Starved = r.Starved || o.Starved
	r.Ending = r.Ending || o.Ending
}

// second sums a row up.
func (r *Row) second() Second {
	t := &r.Tally
	ms := func(h *tally.Histogram, q float64) float64 { return float64(h.Quantile(q)) / 1000 }
	return Second{
		At: r.At, Hearing: r.Hearing, Due: t.Due, Joined: t.Joined + t.Rejoined, Failed: sum(t.Failed), Lost: sum(t.Lost), Gaps: t.Gaps,
		LostFrames: t.LostFrames, Bytes: t.Bytes, LateP50: ms(&t.Late, .5), LateP99: ms(&t.Late, .99), SoundP95: ms(&t.Sound, .95),
		CPU: float64(r.CPUUS) / 1e6 / max(r.Seconds, .001),
	}
}

// resident is this process's memory in KB.
func resident() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := bytes.Fields(b)
	if len(f) < 2 {
		return 0
	}
	n, _ := strconv.ParseInt(string(f[1]), 10, 64)
	return n * int64(os.Getpagesize()) / 1024
}
