package rtc

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	sessions                 *prometheus.GaugeVec
	opened, connected, ended *prometheus.CounterVec
	refused, dropped         *prometheus.CounterVec
	received, sent, repaired prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string, label string, values ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		for _, v := range values {
			c.WithLabelValues(v)
		}
		return c
	}
	m := &metrics{
		sessions: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "earshot_speaker_connections", Help: "Connections of people on stage that are open, by kind (speaker, monitor).",
		}, []string{"kind"}),
		opened: counter("earshot_speaker_connections_total", "Connections of people on stage that were answered, by kind.",
			"kind", "speaker", "monitor"),
		connected: counter("earshot_speaker_connected_total", "Connections of people on stage whose encryption came up, by kind.",
			"kind", "speaker", "monitor"),
		ended: counter("earshot_speaker_ended_total",
			"Connections of people on stage that ended, by reason. no_handshake counts beside lost: it never came up within 15 s. "+
				"flood counts beside left: it opened more streams than anybody needs.",
			"reason", "left", "lost", "displaced", "removed", "ended", "restart", "no_handshake", "flood"),
		refused: counter("earshot_speaker_refused_total",
			"Offers of speakers that were refused. offer: SDP that cannot be answered. full: 500 connections. stopping: the server stops.",
			"reason", "offer", "full", "stopping"),
		dropped: counter("earshot_speaker_dropped_packets_total",
			"RTP packets that were dropped at the gate. empty: no payload. malformed: not RTP, or not RED. "+
				"payload_type: not negotiated. send: the connection refused it.",
			"reason", "empty", "malformed", "payload_type", "send"),
		received: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "earshot_speaker_received_packets_total", Help: "RTP packets that came from speakers.",
		}),
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "earshot_speaker_sent_packets_total", Help: "RTP packets of mixes sent to people on stage.",
		}),
		repaired: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "earshot_speaker_repaired_packets_total", Help: "Lost packets of speakers that a later packet's redundancy (RED) brought.",
		}),
	}
	m.sessions.WithLabelValues("speaker")
	m.sessions.WithLabelValues("monitor")
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		m.sessions, m.opened, m.connected, m.ended, m.refused, m.dropped, m.received, m.sent, m.repaired,
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
