package cluster

import (
	"fmt"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// relayCounters counts what passes between nodes.
type relayCounters struct {
	published, taken, filled, holes atomic.Uint64

	// dropped, by reason
	unsent     atomic.Uint64 // messages: no server for too long
	stale      atomic.Uint64 // messages of an epoch that is over
	known      atomic.Uint64 // messages that had come from the stream already, or twice
	slow       atomic.Uint64 // messages that waited too long here; the stream has them
	unaligned  atomic.Uint64 // messages behind a hole, or before the first segment's start
	unreadable atomic.Uint64 // messages that are none
	refused    atomic.Uint64 // frames that the timeline did not take
}

// register shows the counters; without another node they would all stay zero, so that they are not shown.
func (r *relayCounters) register(reg prometheus.Registerer, joined bool) error {
	if reg == nil || !joined {
		return nil
	}
	counters := []prometheus.Collector{
		counter("earshot_relay_published_total", "Frames sent to other nodes.", nil, &r.published),
		counter("earshot_relay_taken_total", "Frames that came from other nodes.", nil, &r.taken),
		counter("earshot_relay_filled_total", "Of these, frames from the stream's last minute: at the start, or because they had been missed.", nil, &r.filled),
		counter("earshot_relay_holes_total", "Places where frames are missing for good.", nil, &r.holes),
	}
	for reason, n := range map[string]*atomic.Uint64{
		"unsent": &r.unsent, "stale": &r.stale, "known": &r.known, "slow": &r.slow,
		"unaligned": &r.unaligned, "unreadable": &r.unreadable, "refused": &r.refused,
	} {
		counters = append(counters, counter("earshot_relay_drops_total", "Messages between nodes that were thrown away, by reason. "+
			"unsent: there was no server for too long. stale: of an epoch that is over. known: had already. slow: waited too long, and "+
			"are fetched again. unaligned: behind a hole, before the next segment. unreadable: none of ours. refused: by the timeline.",
			prometheus.Labels{"reason": reason}, n))
	}
	for _, c := range counters {
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("the relay's metrics: %w", err)
		}
	}
	return nil
}

func counter(name, help string, labels prometheus.Labels, n *atomic.Uint64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, func() float64 { return float64(n.Load()) })
}
