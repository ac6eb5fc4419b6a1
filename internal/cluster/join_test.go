package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"earshot/internal/cluster"
	"earshot/internal/event"
	"earshot/internal/rig/broker"
)

// natsServer is a NATS server of the test's own, with what this package's tests do at it.
type natsServer struct {
	*broker.Server
	t testing.TB
}

func runNATS(t testing.TB, change ...func(*server.Options)) *natsServer {
	t.Helper()
	return &natsServer{broker.Run(t, change...), t}
}

// connect gives a connection of the test's own.
func (s *natsServer) connect(user string) *nats.Conn {
	s.t.Helper()
	nc, err := nats.Connect(s.URL(user))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(nc.Close)
	return nc
}

// join opens a node of this server's.
func (s *natsServer) join(t testing.TB, stage bool, user string) *cluster.Cluster {
	t.Helper()
	return s.joinAt(t, s.URL(user), stage)
}

func (s *natsServer) joinAt(t testing.TB, url string, stage bool) *cluster.Cluster {
	t.Helper()
	c, err := cluster.Open(t.Context(), cluster.Config{
		Dir: t.TempDir(), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Join: &cluster.Join{URL: url, Stage: stage, Address: "http://stage.example"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, c) })
	return c
}

// until waits for what happens in another goroutine or process.
func until(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %v still not: %s", limit, what)
		}
	}
}

// Two nodes share what is stored; while the server is away both read on and refuse writes at once, and then go on.
func TestJoinedStore(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := runNATS(t)
	a := s.join(t, true, "")
	b := s.join(t, false, "")
	if !a.Joined() || a.Node() == b.Node() {
		t.Errorf("nodes %s and %s, joined %v", a.Node(), b.Node(), a.Joined())
	}
	made, err := a.CreateEvent(ctx, town("shared"))
	if err != nil {
		t.Fatal(err)
	}
	until(t, 20*time.Second, "the other node has the event", func() bool {
		e, err := b.Event(ctx, "shared")
		return err == nil && e == made
	})
	if _, err := b.CreateEvent(ctx, town("shared")); event.CodeOf(err) != event.CodeConflict {
		t.Errorf("a second event of the same slug: %v", err)
	}
	var wg sync.WaitGroup
	for _, c := range []*cluster.Cluster{a, b} {
		wg.Go(func() {
			for range 10 {
				if _, err := c.UpdateEvent(ctx, "shared", func(e *event.Event) error { e.IdleEnd++; return nil }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	until(t, 20*time.Second, "no change was lost", func() bool {
		e, _ := a.Event(ctx, "shared")
		f, _ := b.Event(ctx, "shared")
		return e.IdleEnd == made.IdleEnd+20 && f == e
	})
	one, err := a.Secret(ctx, "key", func() ([]byte, error) { return []byte("a's"), nil })
	if err != nil {
		t.Fatal(err)
	}
	two, err := b.Secret(ctx, "key", func() ([]byte, error) { return []byte("b's"), nil })
	if err != nil || !bytes.Equal(one, two) {
		t.Errorf("secrets %q and %q, %v", one, two, err)
	}

	s.Stop()
	until(t, 20*time.Second, "both notice", func() bool { return a.Ready() != nil && b.Ready() != nil })
	if e, err := b.Event(ctx, "shared"); err != nil || e.ID != made.ID {
		t.Errorf("read without a server: %+v, %v", e, err)
	}
	began := time.Now()
	_, err = a.CreateEvent(ctx, town("refused"))
	wantCode(t, err, event.CodeUnavailable)
	if took := time.Since(began); took > time.Second {
		t.Errorf("the refusal took %v", took)
	}
	s.Start()
	until(t, 20*time.Second, "both write again", func() bool { return a.Ready() == nil && b.Ready() == nil })
	if _, err := b.CreateEvent(ctx, town("after")); err != nil {
		t.Error(err)
	}
	until(t, 20*time.Second, "the other node has it", func() bool {
		_, err := a.Event(ctx, "after")
		_, gone := a.Event(ctx, "refused")
		return err == nil && gone != nil
	})
}

// A lease is not taken from a node that lives, and is taken from one that does not; from oneself at once.
func TestLeasesBetweenNodes(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := runNATS(t)
	a := s.join(t, true, "")
	b := s.join(t, true, "")
	first, err := a.Acquire(ctx, "ev_1")
	if err != nil {
		t.Fatal(err)
	}
	until(t, 20*time.Second, "the other node sees the lease", func() bool { return b.StageAddress("ev_1") == "http://stage.example" })
	_, err = b.Acquire(ctx, "ev_1")
	wantCode(t, err, event.CodeUnavailable)
	if !errors.Is(err, cluster.ErrHeld) || b.Free("ev_1") {
		t.Errorf("another node's lease: %v, free %v", err, b.Free("ev_1"))
	}
	again, err := a.Acquire(ctx, "ev_1")
	if err != nil || again.Epoch() <= first.Epoch() {
		t.Errorf("one's own lease: epoch %d after %d, %v", again.Epoch(), first.Epoch(), err)
	}
	<-first.Lost()

	// Both at once: one has it.
	var won [2]*cluster.Lease
	var wg sync.WaitGroup
	for i, c := range []*cluster.Cluster{a, b} {
		wg.Go(func() {
			l, err := c.Acquire(ctx, "ev_2")
			if err != nil && !errors.Is(err, cluster.ErrHeld) {
				t.Error(err)
			}
			won[i] = l
		})
	}
	wg.Wait()
	if (won[0] == nil) == (won[1] == nil) {
		t.Errorf("leases %v", won)
	}

	left := time.Now()
	shut(t, a) // without a release, as if it crashed
	until(t, cluster.LeaseLife+10*time.Second, "the lease lapses", func() bool { return b.Free("ev_1") })
	if held := time.Since(left); held < cluster.LeaseLife-2*time.Second {
		t.Errorf("the lease lapsed after %v", held)
	}
	taken, err := b.Acquire(ctx, "ev_1")
	if err != nil || taken.Epoch() <= again.Epoch() {
		t.Fatalf("after the other node's end: epoch %d after %d, %v", taken.Epoch(), again.Epoch(), err)
	}
	if err := taken.Release(ctx); err != nil {
		t.Error(err)
	}
}

// A copied folder makes two nodes of one name, which is an operator's mistake that must not stay unseen.
func TestSameName(t *testing.T) {
	t.Parallel()
	s := runNATS(t)
	var seen atomic.Int64
	for range 2 {
		c, err := cluster.Open(t.Context(), cluster.Config{
			Dir: t.TempDir(), Node: "twin", Join: &cluster.Join{URL: s.URL(""), Stage: true},
			Log: slog.New(onError{slog.DiscardHandler, func() { seen.Add(1) }}),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { shut(t, c) })
	}
	until(t, 20*time.Second, "somebody says so", func() bool { return seen.Load() > 0 })
}

// onError calls f for each line of that level.
type onError struct {
	slog.Handler
	f func()
}

func (h onError) Enabled(context.Context, slog.Level) bool { return true }

func (h onError) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		h.f()
	}
	return nil
}

// The rights that README gives an edge are enough for it, and do not reach as far as making frames.
func TestEdgeRights(t *testing.T) {
	t.Parallel()
	conf, err := os.ReadFile("testdata/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	name := t.TempDir() + "/nats.conf"
	if err := os.WriteFile(name, conf, 0o600); err != nil {
		t.Fatal(err)
	}
	s := runNATS(t, func(o *server.Options) {
		file, err := server.ProcessConfigFile(name)
		if err != nil {
			t.Fatal(err)
		}
		o.Users = file.Users
		o.SyncAlways = file.SyncAlways
		if !o.SyncAlways || len(o.Users) != 2 {
			t.Fatalf("nats.conf gives sync %v and %d users", o.SyncAlways, len(o.Users))
		}
	})
	a := s.join(t, true, "stage:change-me-1@")
	b := s.join(t, false, "edge:change-me-2@")
	if err := putSession(b, t.Context(), "5e5510", event.Session{Expires: in(time.Hour)}); err != nil {
		t.Error(err)
	}
	early, late := &heard{}, &heard{}
	follow(t, b, "ev_1", early)
	p, epoch := stageOf(t, a, "ev_1")
	send(p, epoch, 0, 120)
	until(t, 20*time.Second, "the frames", func() bool { return early.next() == 120 })
	follow(t, b, "ev_1", late)
	until(t, 20*time.Second, "the frames of before", func() bool { return late.next() == 120 })

	refused := make(chan error, 1)
	nc, err := nats.Connect(s.URL("edge:change-me-2@"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		select {
		case refused <- err:
		default:
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for _, subject := range []string{
		cluster.FramePrefix + "ev_1", "$KV.earshot_events.x", "$KV.earshot_leases.ev_1",
		"$JS.API.STREAM.PURGE.EARSHOT_FRAMES", "$JS.API.STREAM.DELETE.KV_earshot_events",
	} {
		if err := nc.Publish(subject, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-refused:
			if !errors.Is(err, nats.ErrPermissionViolation) {
				t.Errorf("%s: %v", subject, err)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("an edge may publish to %s", subject)
		}
	}
}

// Joins that cannot work say why, without the password.
func TestBadJoins(t *testing.T) {
	t.Parallel()
	s := runNATS(t, func(o *server.Options) { o.Username, o.Password = "u", "right" })
	plain := runNATS(t, func(o *server.Options) { o.JetStream = false })
	for name, url := range map[string]string{
		"nobody there": "nats://u:wrong@127.0.0.1:1", "wrong password": s.URL("u:wrong@"), "no JetStream": plain.URL(""),
	} {
		c, err := cluster.Open(t.Context(), cluster.Config{Dir: t.TempDir(), Join: &cluster.Join{URL: url, Stage: true}})
		if err == nil {
			t.Errorf("%s: opened", name)
			shut(t, c)
			continue
		}
		if text := err.Error(); !strings.Contains(text, "127.0.0.1") || strings.Contains(text, "wrong@") {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := cluster.Open(ctx, cluster.Config{Dir: t.TempDir(), Join: &cluster.Join{URL: s.URL("u:right@")}})
	if err == nil || !strings.Contains(err.Error(), "role stage") {
		t.Errorf("an edge without any stage: %v", err)
	}
	for _, j := range []cluster.Join{{URL: "http://x:1"}, {URL: "nats://"}, {URL: "nats://a:1,b"}, {URL: "nats://a:1", Replicas: 2}, {URL: "nats://a:1", Creds: "/nowhere"}} {
		if j.Check() == nil {
			t.Errorf("%+v passes", j)
		}
	}
}
