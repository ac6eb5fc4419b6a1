package app

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"earshot/internal/observatory"
	"earshot/internal/stage"
)

// stageFigure is one counter of a stage, as Prometheus shows it. The core counts in plain structs; this is where they get
// names, help and units.
type stageFigure struct {
	desc   *prometheus.Desc
	labels []string
	of     func(stage.Stats) float64
}

func counterDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("earshot_stage_"+name, help, labels, nil)
}

var stageFigures = func() []stageFigure {
	var all []stageFigure
	one := func(name, help string, of func(stage.Stats) float64) {
		all = append(all, stageFigure{counterDesc(name, help), nil, of})
	}
	one("frames_total", "Frames of 20 ms made.", func(s stage.Stats) float64 { return float64(s.Frames) })
	one("late_ticks_total", "Frames made after the next one was due.", func(s stage.Stats) float64 { return float64(s.LateTicks) })
	one("gaps_total", "Jumps of a timeline because its stage was more than 2 s late.", func(s stage.Stats) float64 { return float64(s.Gaps) })
	one("skipped_frames_total", "Frames that were never made because of gaps.", func(s stage.Stats) float64 { return float64(s.Skipped) })
	one("mixing_seconds_total", "Time spent in decoding, mixing and encoding.", func(s stage.Stats) float64 { return s.Mixing.Seconds() })
	one("failed_mixes_total", "Frames in which the mix of some speaker could not be encoded.", func(s stage.Stats) float64 { return float64(s.Failed) })
	one("concealed_frames_total", "Frames of voices that were made up because nothing had arrived.", func(s stage.Stats) float64 { return float64(s.Voices.Concealed) })
	one("fec_frames_total", "Frames of voices restored from the packet after them.", func(s stage.Stats) float64 { return float64(s.Voices.FEC) })

	packets := counterDesc("voice_packets_total", "Packets of voices by what became of them. received: taken into the jitter buffer. "+
		"strange: of numbers that belong nowhere. dropped: too many were held.", "kind")
	for kind, of := range map[string]func(stage.VoiceTotals) uint64{
		"received":    func(v stage.VoiceTotals) uint64 { return v.Received },
		"lost":        func(v stage.VoiceTotals) uint64 { return v.Lost },
		"late":        func(v stage.VoiceTotals) uint64 { return v.Late },
		"duplicate":   func(v stage.VoiceTotals) uint64 { return v.Duplicate },
		"empty":       func(v stage.VoiceTotals) uint64 { return v.Empty },
		"strange":     func(v stage.VoiceTotals) uint64 { return v.Strange },
		"dropped":     func(v stage.VoiceTotals) uint64 { return v.Dropped },
		"undecodable": func(v stage.VoiceTotals) uint64 { return v.Undecodable },
	} {
		all = append(all, stageFigure{packets, []string{kind}, func(s stage.Stats) float64 { return float64(of(s.Voices)) }})
	}
	drops := counterDesc("drops_total", "Packets and frames that a stage threw away, by reason.", "reason")
	for reason := range (stage.Drops{}).All() {
		all = append(all, stageFigure{drops, []string{reason}, func(s stage.Stats) float64 {
			for r, n := range s.Drops.All() {
				if r == reason {
					return float64(n)
				}
			}
			return 0
		}})
	}
	return all
}()

// stageTotals keeps the counters of stages that closed, so that totals never fall; nor may a room count twice while it closes, which
// Prometheus would take for a leap and then for a restart.
type stageTotals struct {
	mu   sync.Mutex
	gone []float64 // by stageFigures; nil before the first
}

// retire moves a closed room's counters to the totals.
func (t *stageTotals) retire(r *room) {
	s := r.stage.Stats()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone == nil {
		t.gone = make([]float64, len(stageFigures))
	}
	for i, f := range stageFigures {
		t.gone[i] += f.of(s)
	}
	r.retired = true
}

// sum adds up the open rooms, whose counters stats are, and those that closed.
func (t *stageTotals) sum(rooms []*room, stats []stage.Stats) []float64 {
	sums := make([]float64, len(stageFigures))
	t.mu.Lock()
	defer t.mu.Unlock()
	copy(sums, t.gone)
	for k, r := range rooms {
		if r.retired {
			continue
		}
		for i, f := range stageFigures {
			sums[i] += f.of(stats[k])
		}
	}
	return sums
}

var (
	descOpen      = prometheus.NewDesc("earshot_events_open", "Events whose doors are open or that are live, on this node.", nil, nil)
	descPeople    = prometheus.NewDesc("earshot_stage_people", "People on stage with a connection.", []string{"event"}, nil)
	descHands     = prometheus.NewDesc("earshot_stage_hands", "Hands that are up.", []string{"event"}, nil)
	descListening = prometheus.NewDesc("earshot_listening", "Connections that took audio in the last ten seconds.", []string{"event", "rung"}, nil)
)

// houseCollector shows the open rooms and the stages' counters when /metrics is asked.
type houseCollector struct{ house *House }

// Describe is prometheus.Collector.
func (c *houseCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- descOpen
	ch <- descPeople
	ch <- descHands
	ch <- descListening
	last := (*prometheus.Desc)(nil)
	for _, f := range stageFigures {
		if f.desc != last {
			ch <- f.desc
		}
		last = f.desc
	}
}

// Collect is prometheus.Collector.
func (c *houseCollector) Collect(ch chan<- prometheus.Metric) {
	rooms := c.house.rooms()
	stats := make([]stage.Stats, len(rooms))
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(descOpen, float64(len(rooms)))
	for i, r := range rooms {
		ev := r.view().Event
		name := ev.Slug
		if !ev.Listed {
			name = ev.ID // /metrics is open to all, and who knows the address of an unlisted event may listen
		}
		if r.stage != nil {
			stats[i] = r.stage.Stats()
			gauge(descPeople, float64(stats[i].Connected), name)
			gauge(descHands, float64(stats[i].Hands), name)
		}
		by := r.audience.Rungs()
		for _, rung := range observatory.Rungs {
			gauge(descListening, float64(by[rung]), name, rung.String())
		}
	}
	for i, v := range c.house.metrics.sum(rooms, stats) {
		f := stageFigures[i]
		ch <- prometheus.MustNewConstMetric(f.desc, prometheus.CounterValue, v, f.labels...)
	}
}
