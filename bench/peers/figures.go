//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// figures is all that a run found: the page is made from it alone, so it can be made again.
type figures struct {
	Date     string            `json:"date"`
	Revision string            `json:"revision"`
	Machine  string            `json:"machine"`
	Bitrate  float64           `json:"bitrate"` // of the programme, bit/s
	Rounds   int               `json:"rounds"`
	Versions map[string]string `json:"versions"`
	Missing  map[string]string `json:"missing"` // what could not be measured, and why
	Samples  []sample          `json:"samples"` // in the order in which they were taken
	Pairs    []pair            `json:"pairs"`
	Limits   []limit           `json:"limits"`
}

// sample is one case, measured once. Per listener and second where the name says no unit of its own.
type sample struct {
	Case      string  `json:"case"`
	Round     int     `json:"round"`
	Listeners int     `json:"listeners"`
	US        float64 `json:"us"`      // CPU of the server per listener-second while all are there, less what it uses at rest
	RestMS    float64 `json:"rest_ms"` // CPU of the server per second without listeners
	Busy      float64 `json:"busy"`    // share of its core that the server used while all were there

	JoinUS   float64          `json:"join_us,omitempty"`  // CPU of the server per joiner
	JoinsPS  float64          `json:"joins_ps,omitempty"` // offered, per second
	JoinMS   spread           `json:"join_ms"`            // from dialling to the server's yes
	FirstMS  spread           `json:"first_ms"`           // from dialling to the first sound there
	DelayMS  spread           `json:"delay_ms"`           // arrival of a piece minus the instant of its oldest frame, where that is known
	LateMS   spread           `json:"late_ms"`            // arrival of a piece minus the instant of its newest frame
	PdvMS    spread           `json:"pdv_ms"`             // that minus the listener's own least
	EarMS    spread           `json:"ear_ms"`             // what the modelled player sounds minus its instant
	Joined   int              `json:"joined"`
	Failed   map[string]int64 `json:"failed,omitempty"`
	Cut      map[string]int64 `json:"cut,omitempty"` // listeners that were cut off
	Gaps     int64            `json:"gaps"`
	Lost     int64            `json:"lost_frames"`
	Frames   int64            `json:"frames,omitempty"`  // that should have come, where packets are counted instead of gaps
	RSSKB    float64          `json:"rss_kb"`            // of the server per listener, beyond what it has at rest
	PSSKB    float64          `json:"pss_kb"`            //
	KernelKB float64          `json:"kernel_kb"`         // of the kernel's objects per connection, both ends halved
	BytesPS  float64          `json:"bytes_ps"`          // that a listener gets, per second
	RestRSS  float64          `json:"rest_rss_mb"`       // of the server without listeners
	Limited  []string         `json:"limited,omitempty"` // why the crowd was itself the limit
	CrowdUS  float64          `json:"crowd_us"`          // CPU of the crowd per listener-second
	Comments []string         `json:"comments,omitempty"`
}

// spread of many listeners.
type spread struct {
	N   int64   `json:"count"`
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// limit is what listeners beyond the last one get.
type limit struct {
	Server   string         `json:"server"`
	Limit    string         `json:"limit"` // which was set, and how
	Asked    int            `json:"asked"`
	Served   int            `json:"served"`
	Outcomes map[string]int `json:"outcomes"` // of those who were not served
	AnswerMS spread         `json:"answer_ms"`
	Cut      int            `json:"cut"` // of those who were served, lost meanwhile
}

// of gives one value of each sample of a case.
func (f *figures) of(name string, value func(*sample) float64) []float64 {
	var v []float64
	for i := range f.Samples {
		if f.Samples[i].Case == name {
			v = append(v, value(&f.Samples[i]))
		}
	}
	return v
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

func (f *figures) save(path string) error {
	b, err := json.MarshalIndent(f, "", " ")
	if err != nil {
		return fmt.Errorf("write figures: %w", err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("write figures: %w", err)
	}
	return nil
}

func load(path string) (*figures, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read figures: %w", err)
	}
	f := &figures{}
	if err := json.Unmarshal(b, f); err != nil {
		return nil, fmt.Errorf("read figures %s: %w", path, err)
	}
	return f, nil
}

// newFigures says where and on what.
func newFigures(b *bench, p programme, rounds int) *figures {
	f := &figures{
		Date: time.Now().Format(time.DateOnly), Revision: say("git", "rev-parse", "--short", "HEAD"), Bitrate: p.bitrate(), Rounds: rounds,
		Missing: map[string]string{}, Versions: map[string]string{
			"Icecast": say("icecast2", "-v"), "nginx": say("/usr/sbin/nginx", "-v"), "Janus": say("janus", "--version"),
			"LiveKit": say(b.bin+"/livekit-server", "--version"), "Go": runtime.Version(),
		},
	}
	if say("git", "status", "--porcelain") != "" {
		f.Revision += " and changes"
	}
	f.Machine = fmt.Sprintf("%s, %d cores, %s, Linux %s", proc("/proc/cpuinfo", "model name"), runtime.NumCPU(), proc("/proc/meminfo", "MemTotal"), say("uname", "-r"))
	return f
}

// say is the first line that a command prints; empty if there is no such command.
func say(name string, args ...string) string {
	b, _ := exec.Command(name, args...).CombinedOutput()
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return line
}

func proc(path, key string) string {
	b, _ := os.ReadFile(path)
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}
