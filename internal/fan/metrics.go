package fan

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"earshot/internal/fan/whep"
)

// The ways that a socket of bytes is listened to, as observatory names the rungs; the cues' own stream beside them.
var streamRungs = [...]string{"push", "mp4", "ogg", "cues"}

// Why a listener's connection ended, other than by its own choice, or never came about.
var (
	dropReasons   = [...]string{"stalled", "protocol"}
	refuseReasons = [...]string{"full", "stopping", "handshake"}
)

// rungCounters are written where things happen.
type rungCounters struct {
	listeners              atomic.Int64
	joined, bytes, skipped atomic.Uint64
}

type counters struct {
	rungs            [len(streamRungs)]rungCounters
	dropped, refused [3]atomic.Uint64 // by dropReasons and refuseReasons
}

func (c *counters) rung(name string) *rungCounters {
	for i, r := range streamRungs {
		if r == name {
			return &c.rungs[i]
		}
	}
	panic("fan: no rung " + name)
}

func (c *counters) drop(reason string)   { count(&c.dropped, dropReasons[:], reason) }
func (c *counters) refuse(reason string) { count(&c.refused, refuseReasons[:], reason) }

func count(at *[3]atomic.Uint64, names []string, name string) {
	for i, n := range names {
		if n == name {
			at[i].Add(1)
			return
		}
	}
	panic("fan: no reason " + name)
}

var (
	descListeners = prometheus.NewDesc("earshot_listener_connections", "Listeners' connections that are open, by rung (way to listen).",
		[]string{"rung"}, nil)
	descJoined = prometheus.NewDesc("earshot_listener_connections_total", "Listeners' connections that were accepted, by rung.",
		[]string{"rung"}, nil)
	descBytes = prometheus.NewDesc("earshot_listener_sent_bytes_total",
		"Bytes handed to listeners' sockets, without the headers of TLS, TCP, UDP and SRTP.", []string{"rung"}, nil)
	descSkipped = prometheus.NewDesc("earshot_listener_skipped_parts_total",
		"Parts of 200 ms that slow listeners did not get, by rung; whep counts tenths, its frames.", []string{"rung"}, nil)
	descDropped = prometheus.NewDesc("earshot_listener_dropped_total",
		"Listeners' connections that the server gave up. stalled: took nothing for 30 s. protocol: sent what no client may. "+
			"no_handshake: WebRTC not connected within 15 s. lost: WebRTC silent for 30 s. queue: WebRTC packets not sent.", []string{"reason"}, nil)
	descRefused = prometheus.NewDesc("earshot_listener_refused_total",
		"Listeners' requests that were refused. full: a limit. stopping: the server stops. "+
			"offer: SDP that cannot be answered. handshake: a WebSocket handshake that is wrong.", []string{"reason"}, nil)
	descStrays = prometheus.NewDesc("earshot_port_strays_total",
		"Packets and connections on the WebRTC port that belong to nobody and were dropped unanswered.", []string{"reason"}, nil)
)

// collector shows the engines' counters when it is asked.
type collector struct{ fan *Fan }

// Describe is prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descListeners, descJoined, descBytes, descSkipped, descDropped, descRefused, descStrays} {
		ch <- d
	}
}

// Collect is prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, label string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, label)
	}
	total := func(d *prometheus.Desc, v float64, label string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, label)
	}
	own := &c.fan.counters
	for i, name := range streamRungs {
		r := &own.rungs[i]
		gauge(descListeners, float64(r.listeners.Load()), name)
		total(descJoined, float64(r.joined.Load()), name)
		total(descBytes, float64(r.bytes.Load()), name)
		total(descSkipped, float64(r.skipped.Load()), name)
	}
	w := c.fan.whep.Stats()
	gauge(descListeners, float64(w.Listeners), "whep")
	total(descJoined, float64(w.Joined), "whep")
	total(descBytes, float64(w.Bytes), "whep")
	total(descSkipped, float64(w.Skipped)/10, "whep")
	for i, reason := range dropReasons {
		total(descDropped, float64(own.dropped[i].Load()+w.Dropped[reason]), reason)
		delete(w.Dropped, reason)
	}
	for i, reason := range refuseReasons {
		total(descRefused, float64(own.refused[i].Load()+w.Refused[reason]), reason)
		delete(w.Refused, reason)
	}
	for reason, n := range w.Dropped {
		total(descDropped, float64(n), reason)
	}
	for reason, n := range w.Refused {
		total(descRefused, float64(n), reason)
	}
	for reason, n := range c.fan.cfg.Port.Strays() {
		total(descStrays, float64(n), reason)
	}
}

// Port is the UDP and TCP port of all WebRTC, see whep.Port.
type Port = whep.Port

// Listen opens the port, see whep.Listen.
var Listen = whep.Listen
