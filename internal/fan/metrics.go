package fan

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"earshot/internal/fan/sweep"
	"earshot/internal/fan/whep"
	"earshot/internal/radio"
)

// The ways that a socket of bytes is listened to, as observatory names the rungs; the cues' own stream beside them.
var streamRungs = [...]string{"push", "mp4", "ogg", "cues", "aac", "mp3"}

// Why a request for a stream was refused.
var refuseReasons = [...]string{"full", "stopping", "handshake", "converters"}

type counters struct {
	rungs   [len(streamRungs)]sweep.Tally
	refused [len(refuseReasons)]atomic.Uint64
	radio   [radio.Forms]radio.Counters
}

// refuse counts a request that was refused.
func (c *counters) refuse(reason string) {
	for i, n := range refuseReasons {
		if n == reason {
			c.refused[i].Add(1)
			return
		}
	}
	panic("fan: no reason " + reason)
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
			"no_handshake: WebRTC not connected within 15 s. certificate: not the one that the offer named. lost: WebRTC silent for 30 s. "+
			"queue: WebRTC packets not sent, as a socket was full. unreachable: WebRTC packets that the system refused.", []string{"reason"}, nil)
	descRefused = prometheus.NewDesc("earshot_listener_refused_total",
		"Listeners' requests that were refused. full: a limit. stopping: the server stops. "+
			"offer: SDP that cannot be answered. handshake: a WebSocket handshake that is wrong. converters: as many ffmpeg run as may.", []string{"reason"}, nil)
	descInbound = prometheus.NewDesc("earshot_listener_inbound_total",
		"What WebRTC listeners sent in vain. forged: RTCP or DTLS that is not authentic or a replay. garbled: not RTCP. strange: about other streams. "+
			"flood: more than anybody needs. gone: asks for a packet that is no longer kept. unwanted: media. "+
			"paths: one address too many. taken: from where another plays. host: too many unconnected at one address. "+
			"replay: a check seen before, from elsewhere. line: a hello while too many wait.", []string{"reason"}, nil)
	descCadence  = prometheus.NewDesc("earshot_cadence_seconds", "How often listeners of streams are written to at the quickest.", nil, nil)
	descLoad     = prometheus.NewDesc("earshot_sweep_load", "Share of a processor's time that the busiest sweep takes, 0 to 1.", nil, nil)
	descLate     = prometheus.NewDesc("earshot_sweep_late_ratio", "Share of slots that were swept more than 100 ms late, over two seconds.", nil, nil)
	descWaiting  = prometheus.NewDesc("earshot_tls_handshakes", "TLS handshakes that are under way; most of them wait for their turn when a crowd comes.", nil, nil)
	descUnshaken = prometheus.NewDesc("earshot_tls_failed_total",
		"TLS handshakes that came to nothing. left: the client went. timeout: it took more than 10 s for its part. plain: it spoke HTTP without TLS. "+
			"other: nothing in common, or not TLS at all.", []string{"reason"}, nil)
	descPacket     = prometheus.NewDesc("earshot_packet_seconds", "Of programme in one WebRTC packet, at the least.", nil, nil)
	descBusy       = prometheus.NewDesc("earshot_whep_busy_ratio", "Share of the time that the busiest shard of WebRTC works, over two seconds.", nil, nil)
	descTardy      = prometheus.NewDesc("earshot_whep_lateness_seconds", "How late the slots came, over which WebRTC spreads a frame's packets.", nil, nil)
	descAgain      = prometheus.NewDesc("earshot_whep_repeated_packets_total", "Packets that WebRTC listeners asked for again and got.", nil, nil)
	descConverters = prometheus.NewDesc("earshot_converters", "Programmes that ffmpeg converts at the moment, by form.", []string{"form"}, nil)
	descStarted    = prometheus.NewDesc("earshot_converters_started_total", "ffmpeg processes that were started, by form.", []string{"form"}, nil)
	descRestarts   = prometheus.NewDesc("earshot_converter_failures_total",
		"ffmpeg processes that failed and were followed by another. died: ended by itself. hung: was fed and said nothing for 5 s. "+
			"garbled: said what is no frame. unborn: could not be started.", []string{"form", "reason"}, nil)
	descUnconverted = prometheus.NewDesc("earshot_converter_dropped_parts_total",
		"Parts of 200 ms that were never converted, as no ffmpeg could be had for too long.", []string{"form"}, nil)
	descLoss   = prometheus.NewDesc("earshot_whep_reported_loss_ratio", "Mean share of packets that WebRTC listeners' reports call lost.", nil, nil)
	descJitter = prometheus.NewDesc("earshot_whep_reported_jitter_seconds", "Mean jitter in WebRTC listeners' reports.", nil, nil)
	descStrays = prometheus.NewDesc("earshot_port_strays_total",
		"Packets and connections on the WebRTC port that belong to nobody and were dropped unanswered.", []string{"reason"}, nil)
)

// collector shows the engines' counters when it is asked.
type collector struct{ fan *Fan }

// Describe is prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descListeners, descJoined, descBytes, descSkipped, descDropped, descRefused, descInbound, descStrays, descCadence, descLoad, descLate, descWaiting, descUnshaken, descPacket, descBusy, descTardy, descAgain, descLoss, descJitter, descConverters, descStarted, descRestarts, descUnconverted} {
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
	pace := c.fan.sweep.Pace()
	for d, v := range map[*prometheus.Desc]float64{descCadence: pace.Cadence.Duration().Seconds(), descLoad: pace.Load, descLate: pace.Late} {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	for i, name := range streamRungs {
		r := &own.rungs[i]
		gauge(descListeners, float64(r.Listeners.Load()), name)
		total(descJoined, float64(r.Joined.Load()), name)
		total(descBytes, float64(r.Bytes.Load()), name)
		total(descSkipped, float64(r.Skipped.Load()), name)
	}
	for form := range radio.Form(radio.Forms) {
		r, name := &own.radio[form], form.String()
		gauge(descConverters, float64(r.Running.Load()), name)
		total(descStarted, float64(r.Started.Load()), name)
		total(descUnconverted, float64(r.Dropped.Load()), name)
		for i, reason := range radio.RestartReasons {
			ch <- prometheus.MustNewConstMetric(descRestarts, prometheus.CounterValue, float64(r.Restarts[i].Load()), name, reason)
		}
	}
	w := c.fan.whep.Stats()
	for d, v := range map[*prometheus.Desc]float64{
		descPacket: float64(w.PacketMS) / 1000, descBusy: w.Busy, descLoss: w.Loss, descJitter: w.Jitter.Seconds(),
	} {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	slots, atMost := w.Lateness()
	ch <- prometheus.MustNewConstHistogram(descTardy, slots, w.LateSum.Seconds(), atMost)
	ch <- prometheus.MustNewConstMetric(descAgain, prometheus.CounterValue, float64(w.Repeated))
	gauge(descListeners, float64(w.Listeners), "whep")
	total(descJoined, float64(w.Joined), "whep")
	total(descBytes, float64(w.Bytes), "whep")
	total(descSkipped, float64(w.Skipped)/10, "whep")
	for reason, n := range c.fan.sweep.Dropped() {
		total(descDropped, float64(n+w.Dropped[reason]), reason)
		delete(w.Dropped, reason)
	}
	waiting, unshaken := c.fan.sweep.Handshakes()
	ch <- prometheus.MustNewConstMetric(descWaiting, prometheus.GaugeValue, float64(waiting))
	for reason, n := range unshaken {
		total(descUnshaken, float64(n), reason)
	}
	w.Refused["full"] += c.fan.sweep.TurnedAway()
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
	for reason, n := range w.Inbound {
		total(descInbound, float64(n), reason)
	}
	for reason, n := range c.fan.cfg.Port.Strays() {
		total(descStrays, float64(n), reason)
	}
}

// Port is the UDP and TCP port of all WebRTC, see whep.Port.
type Port = whep.Port

// Listen opens the port, see whep.Listen.
var Listen = whep.Listen
