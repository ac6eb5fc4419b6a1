package web

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
)

// counters are the package's metrics. Every series that can be exists from the start, at zero.
type counters struct {
	requests *prometheus.CounterVec
	refusals *prometheus.CounterVec
	routes   map[string]bool
}

const noRoute = "none"

var classes = [...]string{"1xx", "2xx", "3xx", "4xx", "5xx"}

func newCounters() counters {
	c := counters{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "earshot_http_requests_total",
			Help: "Requests that were answered, by route and class of status. Long responses count when they end; 1xx are those that became a WebSocket.",
		}, []string{"route", "class"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "earshot_http_refusals_total",
			Help: "Requests that were answered with a problem, by reason.",
		}, []string{"reason"}),
		routes: make(map[string]bool),
	}
	for code := range statuses {
		c.refusals.WithLabelValues(string(code))
	}
	for _, reason := range []string{
		reasonCrossOrigin, reasonCredential, reasonUnparsable, reasonType, reasonMethod, reasonPhase,
		reasonPrecondition, reasonSlow, reasonPanic, reasonRange,
	} {
		c.refusals.WithLabelValues(reason)
	}
	c.know(noRoute)
	return c
}

// know adds a route's series.
func (c *counters) know(pattern string) {
	c.routes[pattern] = true
	for _, class := range classes {
		c.requests.WithLabelValues(pattern, class)
	}
}

func (c *counters) served(pattern string, status int) {
	if !c.routes[pattern] {
		pattern = noRoute
	}
	if status == 0 {
		status = http.StatusOK // net/http says so for a handler that said nothing
	}
	c.requests.WithLabelValues(pattern, classes[min(max(status/100, 1), 5)-1]).Inc()
}

func (c *counters) refused(reason string) { c.refusals.WithLabelValues(reason).Inc() }

func (c *counters) register(reg prometheus.Registerer) error {
	if reg == nil {
		return nil
	}
	if err := reg.Register(c.requests); err != nil {
		return err
	}
	return reg.Register(c.refusals)
}
