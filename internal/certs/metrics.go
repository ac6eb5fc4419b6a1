package certs

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are counted in plain numbers and shown by collector.
type metrics struct {
	obtained, renewed, failed atomic.Uint64 // attempts
	without, unknown          atomic.Uint64 // handshakes that came to nothing
	expires, attempts, refuse *prometheus.Desc
}

func newMetrics() metrics {
	return metrics{
		expires: prometheus.NewDesc("earshot_certificate_expires_timestamp_seconds",
			"When the certificate of a domain of this node expires, in seconds of Unix time. 0: there is none.", []string{"domain"}, nil),
		attempts: prometheus.NewDesc("earshot_certificate_attempts_total",
			"Certificates that were asked of the authority, by what came of it: obtained, renewed or failed.", []string{"result"}, nil),
		refuse: prometheus.NewDesc("earshot_certificate_refusals_total",
			"TLS handshakes without a certificate to give: none (there is none for the domain), or unknown_name.", []string{"reason"}, nil),
	}
}

// collector shows a keeper's figures.
type collector struct{ k *Keeper }

// Describe is prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	out <- c.k.metrics.expires
	out <- c.k.metrics.attempts
	out <- c.k.metrics.refuse
}

// Collect is prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	m := &c.k.metrics
	for _, d := range c.k.cfg.Domains {
		at := 0.0
		if t := c.k.expires(d); !t.IsZero() {
			at = float64(t.Unix())
		}
		out <- prometheus.MustNewConstMetric(m.expires, prometheus.GaugeValue, at, d)
	}
	for result, n := range map[string]*atomic.Uint64{"obtained": &m.obtained, "renewed": &m.renewed, "failed": &m.failed} {
		out <- prometheus.MustNewConstMetric(m.attempts, prometheus.CounterValue, float64(n.Load()), result)
	}
	for reason, n := range map[string]*atomic.Uint64{"none": &m.without, "unknown_name": &m.unknown} {
		out <- prometheus.MustNewConstMetric(m.refuse, prometheus.CounterValue, float64(n.Load()), reason)
	}
}
