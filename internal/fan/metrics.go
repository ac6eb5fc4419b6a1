package fan

import (
	"github.com/prometheus/client_golang/prometheus"
)

// The rungs' labels, as observatory has them, and the cues' own stream.
var rungs = []string{"whep", "push", "mp4", "ogg", "cues"}

// Why a listener's connection ended, other than by its own choice, or never came about.
var (
	dropReasons   = []string{"stalled", "protocol", "no_handshake", "lost", "queue"}
	refuseReasons = []string{"full", "stopping", "offer", "handshake"}
)

type metrics struct {
	listeners        *prometheus.GaugeVec
	joined, bytes    *prometheus.CounterVec
	skipped          *prometheus.CounterVec
	dropped, refused *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, port *Port) (*metrics, error) {
	m := &metrics{
		listeners: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "earshot_listener_connections", Help: "Listeners' connections that are open, by rung (way to listen).",
		}, []string{"rung"}),
		joined: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "earshot_listener_connections_total", Help: "Listeners' connections that were accepted, by rung.",
		}, []string{"rung"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "earshot_listener_sent_bytes_total", Help: "Bytes handed to listeners' sockets, without the headers of TLS, TCP, UDP and SRTP.",
		}, []string{"rung"}),
		skipped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "earshot_listener_skipped_parts_total", Help: "Parts of 200 ms that slow listeners did not get, by rung; whep counts tenths, its frames.",
		}, []string{"rung"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "earshot_listener_dropped_total",
			Help: "Listeners' connections that the server gave up. stalled: took nothing for 40 s. protocol: sent what no client may. " +
				"no_handshake: WebRTC not connected within 15 s. lost: WebRTC silent for 30 s. queue: WebRTC packets not sent.",
		}, []string{"reason"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "earshot_listener_refused_total",
			Help: "Listeners' requests that were refused. full: a limit. stopping: the server stops. " +
				"offer: SDP that cannot be answered. handshake: a WebSocket handshake that is wrong.",
		}, []string{"reason"}),
	}
	for _, r := range rungs {
		m.listeners.WithLabelValues(r)
		m.joined.WithLabelValues(r)
		m.bytes.WithLabelValues(r)
		m.skipped.WithLabelValues(r)
	}
	for _, r := range dropReasons {
		m.dropped.WithLabelValues(r)
	}
	for _, r := range refuseReasons {
		m.refused.WithLabelValues(r)
	}
	if reg == nil {
		return m, nil
	}
	all := []prometheus.Collector{m.listeners, m.joined, m.bytes, m.skipped, m.dropped, m.refused}
	if port != nil {
		all = append(all, strayCollector{port})
	}
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// strayCollector reads the port's counters when it is asked.
type strayCollector struct{ port *Port }

var strayDesc = prometheus.NewDesc("earshot_port_strays_total",
	"Packets and connections on the WebRTC port that belong to nobody and were dropped unanswered.", []string{"reason"}, nil)

func (strayCollector) Describe(ch chan<- *prometheus.Desc) { ch <- strayDesc }

func (c strayCollector) Collect(ch chan<- prometheus.Metric) {
	for reason, n := range c.port.Strays() {
		ch <- prometheus.MustNewConstMetric(strayDesc, prometheus.CounterValue, float64(n), reason)
	}
}
