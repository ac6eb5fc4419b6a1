package cluster_test

import (
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"earshot/internal/cluster"
	"earshot/internal/event"
)

// Three servers keep three copies of everything, and one of them may go: what was stored is there, and what is new is stored.
func TestReplicas(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	var routes []*url.URL
	var ports []int
	for range 3 { // ports that are free, to be taken again below
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		ports = append(ports, port)
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", port)})
	}
	var servers []*natsServer
	var urls []string
	for i := range 3 {
		s := runNATS(t, func(o *server.Options) {
			o.ServerName = fmt.Sprint("n", i)
			o.Cluster = server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: ports[i]}
			o.Routes = routes
		})
		servers = append(servers, s)
		urls = append(urls, s.URL(""))
	}
	until(t, 30*time.Second, "the servers have a leader", func() bool {
		for _, s := range servers {
			if s.JetStreamIsLeader() {
				return len(s.JetStreamClusterPeers()) == 3
			}
		}
		return false
	})
	c, err := cluster.Open(ctx, cluster.Config{
		Dir: t.TempDir(), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Join: &cluster.Join{URL: strings.Join(urls, ","), Stage: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, c) })
	made, err := c.CreateEvent(ctx, town("kept"))
	if err != nil {
		t.Fatal(err)
	}
	js, err := servers[1].connect("").JetStream()
	if err != nil {
		t.Fatal(err)
	}
	for _, stream := range []string{"KV_earshot_events", "KV_earshot_leases", "EARSHOT_FRAMES"} {
		if info, err := js.StreamInfo(stream); err != nil || info.Config.Replicas != 3 {
			t.Errorf("%s: %v, %v", stream, info, err)
		}
	}
	servers[0].Stop()
	until(t, 60*time.Second, "an event is stored by the two that are left", func() bool {
		_, err := c.CreateEvent(ctx, town("new"))
		return err == nil || event.CodeOf(err) == event.CodeConflict // a write that was not acknowledged may have been stored
	})
	if e, err := c.Event(ctx, "kept"); err != nil || e.ID != made.ID {
		t.Errorf("what was stored before: %+v, %v", e, err)
	}
}
