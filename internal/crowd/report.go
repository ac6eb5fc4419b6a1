package crowd

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"earshot/internal/crowd/tally"
)

// Report is how it went. Its JSON is what `earshot crowd --json` writes.
type Report struct {
	URL       string    `json:"url"`
	Rung      string    `json:"rung"`
	Packet    int       `json:"packet,omitempty"`
	Cadence   int       `json:"cadence,omitempty"`
	Began     time.Time `json:"began"`
	Seconds   float64   `json:"seconds"`
	Processes int       `json:"processes"`
	Seed      uint64    `json:"seed"`

	Listeners int64            `json:"listeners"` // that were to come
	Joined    int64            `json:"joined"`    // that heard something
	Failed    map[string]int64 `json:"failed"`    // attempts that came to nothing, by reason
	Lost      map[string]int64 `json:"lost"`      // listeners that were cut off, by reason
	Left      int64            `json:"left"`
	Rejoined  int64            `json:"rejoined"`

	Gaps         int64   `json:"gaps"`          // underruns of the modelled players
	GapSeconds   float64 `json:"gap_seconds"`   // their time together
	GapListeners int64   `json:"gap_listeners"` // who had any
	LostFrames   int64   `json:"lost_frames"`   // of 20 ms
	Skips        int64   `json:"skips"`
	Repeats      int64   `json:"repeats"`
	Repaired     int64   `json:"repaired"`
	Malformed    int64   `json:"malformed"`
	SlowGaps     int64   `json:"slow_gaps"`
	SlowSkips    int64   `json:"slow_skips"`
	LossDropped  int64   `json:"loss_dropped"`

	FirstAudio tally.Spread `json:"first_audio_ms"` // from dialling to the first audio there
	Plays      tally.Spread `json:"plays_ms"`       // from dialling to the modelled player's sounding
	Join       tally.Spread `json:"join_ms"`        // from dialling to the server's yes
	Delay      tally.Spread `json:"delay_ms"`       // arrival of a piece minus the instant of its oldest frame
	Late       tally.Spread `json:"late_ms"`        // arrival of a piece minus the instant of its newest frame
	Pdv        tally.Spread `json:"pdv_ms"`         // that minus the listener's own least (RFC 5481's packet delay variation)
	Ear        tally.Spread `json:"ear_ms"`         // what is heard minus its instant

	Bytes    int64 `json:"bytes"`
	Packets  int64 `json:"packets,omitempty"`
	Messages int64 `json:"messages"`

	Audio   Audio     `json:"audio"`
	Foreign []Foreign `json:"foreign,omitempty"`

	ListenerSeconds float64 `json:"listener_seconds"`
	Own             Own     `json:"crowd"`

	Bottleneck    bool     `json:"bottleneck"` // the crowd itself was the limit
	BottleneckWhy []string `json:"bottleneck_why,omitempty"`
	Notes         []string `json:"notes,omitempty"`

	Series []Second `json:"series"`
	Rows   []Row    `json:"-"` // the same with the distributions
}

// Second is one second of the run.
type Second struct {
	At         float64 `json:"at"` // its end, from the beginning
	Hearing    int64   `json:"hearing"`
	Due        int64   `json:"due"`
	Joined     int64   `json:"joined"` // returns included
	Failed     int64   `json:"failed"`
	Lost       int64   `json:"lost"`
	Gaps       int64   `json:"gaps"`
	LostFrames int64   `json:"lost_frames"`
	Bytes      int64   `json:"bytes"`
	LateP50    float64 `json:"late_p50_ms"`
	LateP99    float64 `json:"late_p99_ms"`
	SoundP95   float64 `json:"first_audio_p95_ms"`
	CPU        float64 `json:"crowd_cpu"` // processors
}

// Audio is what the sample found, who decode what they hear and compare it with the programme, fetched another way.
type Audio struct {
	Listeners int     `json:"listeners"`
	Seconds   int64   `json:"seconds"` // compared
	Silent    int64   `json:"silent"`  // of these, without a sound to compare
	Differ    int64   `json:"differ"`  // of these, with a correlation under 0.98
	Worst     float64 `json:"worst"`   // correlation
	Faults    int64   `json:"faults"`  // comparisons that could not be made
}

// Own is what the crowd itself used.
type Own struct {
	CPUSeconds           float64      `json:"cpu_s"`
	CPUPerListenerSecond float64      `json:"cpu_us_per_listener_second"` // while all were there
	CPUShare             float64      `json:"cpu_share"`                  // of one processor, in the worst second
	BusiestLoop          float64      `json:"busiest_loop"`               // share of its time, in the worst second
	RSSKB                int64        `json:"rss_kb"`
	BaseKB               int64        `json:"base_kb"` // of rss_kb, before there were listeners
	RSSPerListenerKB     float64      `json:"rss_per_listener_kb"`
	Turn                 tally.Spread `json:"loop_turn_ms"` // what came meanwhile was read so much later at most
	Tardy                tally.Spread `json:"tardy_ms"`     // dialled after it was due
	Processors           int          `json:"processors"`
	MachineIdle          float64      `json:"machine_idle"` // share of all processors' time, while all were there; -1: not known
	ListenersAtTheirPeak int64        `json:"peak_listeners"`
}

// OK says whether all joined, none had a gap, and what the sample heard was the programme.
func (r *Report) OK() bool { return r.Joined == r.Listeners && r.Gaps == 0 && r.Audio.Differ == 0 }

func (c *collector) report() *Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.rows[len(c.done):] { // a worker that ended early reports fewer
		c.done = append(c.done, p.row)
	}
	var t tally.Tally
	r := &Report{
		URL: strings.Join(c.cfg.urls(), " "), Rung: c.cfg.Rung, Packet: c.cfg.Packet, Cadence: c.cfg.Cadence, Began: c.start, Processes: c.procs, Seed: c.cfg.Seed,
		Listeners: int64(c.cfg.Listeners), Rows: c.done,
	}
	held := int64(0)
	var heldCPU, heldListening float64
	for i := range c.done {
		row := &c.done[i]
		t.Merge(&row.Tally)
		r.Series = append(r.Series, row.second())
		r.Seconds = row.At
		r.Own.CPUSeconds += float64(row.CPUUS) / 1e6
		if row.Seconds > .5 && !row.Ending {
			r.Own.CPUShare = max(r.Own.CPUShare, float64(row.CPUUS)/1e6/row.Seconds)
			r.Own.BusiestLoop = max(r.Own.BusiestLoop, float64(row.BusyUS)/1e6/row.Seconds)
			if row.At-row.Seconds >= c.cfg.Arrive.Seconds() {
				heldCPU += float64(row.CPUUS)
				heldListening += float64(row.Hearing) * row.Seconds
			}
		}
		if row.Hearing > held {
			held, r.Own.RSSKB, r.Own.BaseKB = row.Hearing, row.RSSKB, row.BaseKB
		}
	}
	r.Own.ListenersAtTheirPeak = held
	if heldListening > 0 {
		r.Own.CPUPerListenerSecond = heldCPU / heldListening
	}
	if held > 0 {
		r.Own.RSSPerListenerKB = float64(r.Own.RSSKB-r.Own.BaseKB) / float64(held)
	}
	r.Own.MachineIdle = c.machine.idle()
	if r.Own.MachineIdle >= 0 && r.Own.MachineIdle < .05 {
		r.Notes = append(r.Notes, fmt.Sprintf("the machine was idle for %.0f %% of the time: server and crowd may both have waited for it",
			100*r.Own.MachineIdle))
	}
	r.Own.Processors = runtime.GOMAXPROCS(0)
	r.Own.Turn, r.Own.Tardy = t.Loop.Spread(), t.Tardy.Spread()
	r.Joined, r.Left, r.Rejoined = t.Joined, t.Left, t.Rejoined
	r.Failed, r.Lost = orEmpty(t.Failed), orEmpty(t.Lost)
	r.Gaps, r.GapSeconds, r.GapListeners, r.LostFrames = t.Gaps, float64(t.GapUS)/1e6, t.GapEars, t.LostFrames
	r.Skips, r.Repeats, r.Repaired, r.Malformed = t.Skips, t.Repeats, t.Repaired, t.Malformed
	r.SlowGaps, r.SlowSkips, r.LossDropped = t.SlowGaps, t.SlowSkips, t.Dropped
	r.FirstAudio, r.Plays, r.Join = t.Sound.Spread(), t.Plays.Spread(), t.Join.Spread()
	r.Delay, r.Late, r.Pdv, r.Ear = t.Delay.Spread(), t.Late.Spread(), t.Pdv.Spread(), t.Ear.Spread()
	r.Bytes, r.Packets, r.Messages = t.Bytes, t.Packets, t.Messages
	r.ListenerSeconds = float64(t.ListenedUS) / 1e6
	r.Audio = Audio{
		Listeners: c.cfg.Sample, Seconds: t.AudioSeconds, Silent: t.AudioSilent, Differ: t.AudioDiffers, Faults: t.AudioFaults,
		Worst: 1 - float64(t.Unlike.Quantile(1))/1e6,
	}
	r.judge(c.done)
	if t.KernelDrops > 0 {
		r.Bottleneck = true
		r.BottleneckWhy = append(r.BottleneckWhy, fmt.Sprintf("the crowd's kernel threw %d packets away that were read too late", t.KernelDrops))
	}
	r.Foreign = c.foreign
	r.disagree()
	return r
}

func orEmpty(m map[string]int64) map[string]int64 {
	if m == nil {
		return map[string]int64{}
	}
	return m
}

// judge says whether the crowd was itself the limit.
func (r *Report) judge(rows []Row) {
	why := func(format string, args ...any) {
		r.Bottleneck = true
		r.BottleneckWhy = append(r.BottleneckWhy, fmt.Sprintf(format, args...))
	}
	if r.Own.BusiestLoop >= .9 {
		why("a loop of the crowd was busy %.0f %% of a second", 100*r.Own.BusiestLoop)
	}
	if limit := .9 * float64(r.Own.Processors); r.Own.CPUShare >= limit {
		why("the crowd used %.2f processors of %d", r.Own.CPUShare, r.Own.Processors)
	}
	if r.Own.Turn.P99 > 20 {
		why("the crowd read late: p99 of a turn of its loop is %.0f ms", r.Own.Turn.P99)
	}
	if r.Own.Tardy.P99 > 50 {
		why("the crowd dialled late: p99 is %.0f ms after it was due", r.Own.Tardy.P99)
	}
	if slices.ContainsFunc(rows, func(r Row) bool { return r.Starved }) {
		why("the crowd ran out of descriptors")
	}
}

// String is the report in words.
func (r *Report) String() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-14s %s\n", name, fmt.Sprintf(format, args...))
	}
	verdict := "all joined, no gap"
	if !r.OK() {
		verdict = fmt.Sprintf("%d of %d joined, %d gaps", r.Joined, r.Listeners, r.Gaps)
	}
	fmt.Fprintf(&b, "%s  %s  %.0f s: %s\n", r.URL, r.Rung, r.Seconds, verdict)
	line("joined", "%d of %d%s", r.Joined, r.Listeners, reasons("failed", r.Failed))
	if len(r.Lost) > 0 || r.Left > 0 || r.Rejoined > 0 {
		line("left", "%d, back again %d%s", r.Left, r.Rejoined, reasons("cut off", r.Lost))
	}
	line("gaps", "%d at %d listeners, %.1f s together", r.Gaps, r.GapListeners, r.GapSeconds)
	line("frames", "%d lost, %d skips, %d repeated, %d repaired, %d malformed", r.LostFrames, r.Skips, r.Repeats, r.Repaired, r.Malformed)
	spread := func(name string, s tally.Spread) {
		if s.Count > 0 {
			line(name, "p50 %.1f  p95 %.1f  p99 %.1f  max %.1f ms", s.P50, s.P95, s.P99, s.Max)
		}
	}
	spread("yes after", r.Join)
	spread("audio after", r.FirstAudio)
	spread("plays after", r.Plays)
	spread("delay", r.Delay)
	spread("lateness", r.Late)
	spread("variation", r.Pdv)
	spread("heard after", r.Ear)
	if a := r.Audio; a.Seconds > 0 || a.Faults > 0 {
		line("audio", "%d s of %d listeners compared (%d s silent), %d s differ, worst correlation %.4f%s", a.Seconds, a.Listeners, a.Silent, a.Differ,
			a.Worst, map[bool]string{true: fmt.Sprintf("; %d comparisons failed", a.Faults)}[a.Faults > 0])
	}
	for _, f := range r.Foreign {
		line(f.Program, "%s", f.String())
	}
	line("bytes", "%d in %d pieces", r.Bytes, r.Messages)
	own := ""
	if r.Own.ListenersAtTheirPeak >= telling {
		own = fmt.Sprintf(", %.1f µs per listener-second, %.1f KB per listener", r.Own.CPUPerListenerSecond, r.Own.RSSPerListenerKB)
	}
	line("the crowd", "%.1f s CPU%s, %d process(es)", r.Own.CPUSeconds, own, r.Processes)
	for _, w := range r.BottleneckWhy {
		if r.OK() { // everybody heard everything: what was late may be the crowd's own doing
			line("own limit", "%s: delays may be its own", w)
		} else {
			line("BOTTLENECK", "%s: it may have made gaps itself; fewer listeners, or a machine that does less, tell more", w)
		}
	}
	for _, n := range r.Notes {
		line("note", "%s", n)
	}
	return b.String()
}

// telling is how many listeners there must be for what one costs to be more than a share of the process's own.
const telling = 500

func reasons(word string, m map[string]int64) string {
	if len(m) == 0 {
		return ""
	}
	keys := sorted(m)
	for i, k := range keys {
		keys[i] = fmt.Sprintf("%s %d", k, m[k])
	}
	return ", " + word + ": " + strings.Join(keys, ", ")
}
