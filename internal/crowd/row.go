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
