package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Join says which NATS server a node joins, and as what.
type Join struct {
	// URL is that of one server or several, separated by commas: nats://user:password@host:4222, or tls://.
	URL string

	// Creds names a file of NATS credentials (a JWT and its seed); empty: what the URL says.
	Creds string

	// Replicas is how many copies the server keeps of each record: 1, 3 or 5. 0 takes three where there are servers for them, else
	// one. It applies to what a node with
	// stages finds missing and makes; it never changes what is there.
	Replicas int

	// Stage says that this node may hold leases: it then shows signs of life, and makes the relay's stream where it is missing.
	Stage bool

	// Address is where people reach this node, for other nodes to name; may be empty.
	Address string
}

// bucketPrefix keeps our buckets apart from those of others on the same server.
const bucketPrefix = "earshot_"

// lastBucket is the last that a node makes of those that all nodes need.
const lastBucket = "leases"

// bucketsWait is how long an edge waits for them at its start. It may well be started in the same moment as the other nodes.
const bucketsWait = 15 * time.Second

// Signs that a connection is dead while TCP says nothing. Twice pingEvery is longer than a server takes that collects garbage.
const (
	dialLimit = 3 * time.Second
	pingEvery = 3 * time.Second
	pingsLost = 2
)

// Check answers what is wrong with a Join, without the password.
func (j *Join) Check() error {
	for u := range strings.SplitSeq(j.URL, ",") {
		p, err := url.Parse(strings.TrimSpace(u))
		if err != nil || p.Host == "" || (p.Scheme != "nats" && p.Scheme != "tls") {
			return errors.New("want nats://host:4222 or tls://host:4222, several separated by commas")
		}
	}
	switch j.Replicas {
	case 0, 1, 3, 5:
	default:
		return fmt.Errorf("%d replicas: want 1, 3 or 5", j.Replicas)
	}
	if j.Creds != "" {
		if _, err := os.Stat(j.Creds); err != nil {
			return fmt.Errorf("credentials: %w", err)
		}
	}
	return nil
}

// Where names the servers without what must not be told.
func (j *Join) Where() string {
	var hosts []string
	for u := range strings.SplitSeq(j.URL, ",") {
		if p, err := url.Parse(strings.TrimSpace(u)); err == nil {
			hosts = append(hosts, p.Host)
		}
	}
	return strings.Join(hosts, ",")
}

// join connects to a server elsewhere. Replicas are settled by asking for them: a server alone refuses three at once, and a cluster
// that has no room for them refuses likewise.
func (e *engine) join(ctx context.Context, j *Join) error {
	e.prefix = bucketPrefix
	options := []nats.Option{
		nats.Timeout(dialLimit), nats.PingInterval(pingEvery), nats.MaxPingsOutstanding(pingsLost),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			switch {
			case errors.Is(err, nats.ErrSlowConsumer): // whoever reads that subscription is told, and counts
			case errors.Is(err, nats.ErrPermissionViolation):
				e.log.Warn("the NATS server refuses this node something", "cause", err)
			default:
				e.log.Debug("NATS", "cause", err)
			}
		}),
	}
	if j.Creds != "" {
		options = append(options, nats.UserCredentials(j.Creds))
	}
	if err := e.connect(j.URL, options...); err != nil {
		return err
	}
	if !e.nc.HeadersSupported() || e.nc.ConnectedServerVersion() != "" && !atLeast(e.nc.ConnectedServerVersion(), 2, 11) {
		return fmt.Errorf("the server's version is %s; 2.11 or newer is needed", e.nc.ConnectedServerVersion())
	}
	e.replicas = j.Replicas
	if !j.Stage {
		e.replicas = 0
		return e.awaitBuckets(ctx)
	}
	return e.makeFrameStream(ctx)
}

// awaitBuckets waits until a node with stages has made the store. An edge makes nothing: it would not know how many replicas are
// wanted, and need not have the right to.
func (e *engine) awaitBuckets(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bucketsWait)
	defer cancel()
	for told := false; ; told = true {
		_, err := e.js.KeyValue(ctx, e.prefix+lastBucket)
		if !errors.Is(err, jetstream.ErrBucketNotFound) {
			return err
		}
		if !told {
			e.log.Info("waiting for a node with the role stage, which makes the store")
		}
		select {
		case <-time.After(retryFirst):
		case <-ctx.Done():
			return fmt.Errorf("there is no store yet; start a node with the role stage: %w", err)
		}
	}
}

// makeFrameStream makes the stream of the last minute's frames if it is missing, and settles how many replicas this server gives.
func (e *engine) makeFrameStream(ctx context.Context) error {
	stream, err := e.js.Stream(ctx, frameStream)
	if err == nil {
		if e.replicas == 0 {
			e.replicas = max(1, stream.CachedInfo().Config.Replicas)
		}
		return nil
	}
	if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("look for the relay's stream: %w", err)
	}
	try := []int{e.replicas}
	if e.replicas == 0 {
		try = []int{3, 1}
	}
	for _, n := range try {
		cfg := frameStreamConfig
		cfg.Replicas = n
		if _, err = e.js.CreateStream(ctx, cfg); err == nil || errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			e.replicas = n
			e.log.Info("made the relay's stream", "replicas", n)
			return nil
		}
		var api *jetstream.APIError
		if !errors.As(err, &api) || ctx.Err() != nil {
			break // not an answer
		}
	}
	return fmt.Errorf("make the relay's stream: %w", err)
}

// atLeast compares a version such as 2.15.2 or 2.12.0-RC.1.
func atLeast(version string, major, minor int) bool {
	var a, b int
	if _, err := fmt.Sscanf(version, "%d.%d", &a, &b); err != nil {
		return false
	}
	return a > major || a == major && b >= minor
}

// Joined says whether this node shares its store with others.
func (c *Cluster) Joined() bool { return c.join != nil }

// nodeRecord is a sign of life of a node that may hold leases.
type nodeRecord struct {
	Run     string `json:"run"`
	Address string `json:"address,omitempty"`
}

const (
	beatEvery = time.Second
	beatLimit = 2 * time.Second // for one sign; the next one replaces it
	nodesKept = time.Minute
)

// beat shows that this node lives. One sign that is lost is nothing: leaseLife is five of them. It also notices another process under
// the same name, which a copied folder makes: the two would take each other's leases for their own.
func (c *Cluster) beat() {
	var last uint64 // revision of this process's last sign
	told := false
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	body := fmt.Appendf(nil, `{"run":%q,"address":%q}`, c.run, c.join.Address)
	for {
		if eng, err := c.working(); err == nil {
			ctx, cancel := context.WithTimeout(c.life, beatLimit)
			if r, ok := c.nodes.get(c.node); ok && last > 0 && r.revision > last && r.value.Run != c.run && !told {
				c.log.Error("another process is this node, too: was its data folder copied? Delete the file \"node\" in one of them", "node", c.node)
				told = true
			}
			rev, err := eng.write(ctx, c.nodes.name, put, c.node, body, 0)
			if err == nil {
				last = rev
			} else if ctx.Err() == nil {
				c.log.Debug("sign of life not stored", "cause", err)
			}
			cancel()
		}
		select {
		case <-c.life.Done():
			return
		case <-tick.C:
		}
	}
}
