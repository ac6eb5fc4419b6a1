package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"earshot/internal/cluster"
	"earshot/internal/event"
	"earshot/internal/timeline"
)

// natsServer is a NATS server of the test's own, on a loopback port, as `nats-server -js` would run.
type natsServer struct {
	t    testing.TB
	opts server.Options
	ns   *server.Server
}

func runNATS(t testing.TB, change ...func(*server.Options)) *natsServer {
	t.Helper()
	s := &natsServer{t: t, opts: server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
	}}
	for _, f := range change {
		f(&s.opts)
	}
	s.start()
	s.opts.Port = s.ns.Addr().(*net.TCPAddr).Port
	t.Cleanup(s.stop)
	return s
}

func (s *natsServer) start() {
	s.t.Helper()
	opts := s.opts
	ns, err := server.NewServer(&opts)
	if err != nil {
		s.t.Fatal(err)
	}
	ns.Start()
	if !ns.ReadyForConnections(10 * time.Second) {
		s.t.Fatal("the NATS server did not start")
	}
	s.ns = ns
}

func (s *natsServer) stop() {
	s.ns.Shutdown()
	s.ns.WaitForShutdown()
}

func (s *natsServer) url(user string) string {
	return fmt.Sprintf("nats://%s127.0.0.1:%d", user, s.opts.Port)
}

// connect gives a connection of the test's own.
func (s *natsServer) connect(user string) *nats.Conn {
	s.t.Helper()
	nc, err := nats.Connect(s.url(user))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(nc.Close)
	return nc
}

// join opens a node of this server's.
func (s *natsServer) join(t testing.TB, stage bool, user string) *cluster.Cluster {
	t.Helper()
	c, err := cluster.Open(t.Context(), cluster.Config{
		Dir: t.TempDir(), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Join: &cluster.Join{URL: s.url(user), Stage: stage, Address: "http://stage.example"},
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
	until(t, 5*time.Second, "the other node has the event", func() bool {
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
	until(t, 5*time.Second, "no change was lost", func() bool {
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

	s.stop()
	until(t, 5*time.Second, "both notice", func() bool { return a.Ready() != nil && b.Ready() != nil })
	if e, err := b.Event(ctx, "shared"); err != nil || e.ID != made.ID {
		t.Errorf("read without a server: %+v, %v", e, err)
	}
	began := time.Now()
	_, err = a.CreateEvent(ctx, town("refused"))
	wantCode(t, err, event.CodeUnavailable)
	if took := time.Since(began); took > time.Second {
		t.Errorf("the refusal took %v", took)
	}
	s.start()
	until(t, 15*time.Second, "both write again", func() bool { return a.Ready() == nil && b.Ready() == nil })
	if _, err := b.CreateEvent(ctx, town("after")); err != nil {
		t.Error(err)
	}
	until(t, 5*time.Second, "the other node has it", func() bool {
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
	until(t, 5*time.Second, "the other node sees the lease", func() bool { return b.StageAddress("ev_1") == "http://stage.example" })
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

// heard gathers what a follower is given.
type heard struct {
	mu     sync.Mutex
	frames []cluster.Relayed
	gate   chan struct{}         // nil: open
	each   func(cluster.Relayed) // instead of gathering, if not nil
}

func (h *heard) take(r cluster.Relayed) error {
	if h.gate != nil {
		<-h.gate
	}
	if h.each != nil {
		h.each(r)
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.frames = append(h.frames, r)
	return nil
}

func (h *heard) all() []cluster.Relayed {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.frames)
}

func (h *heard) next() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.frames) == 0 {
		return 0
	}
	return h.frames[len(h.frames)-1].Number + 1
}

// follow begins to follow an event; the returned function waits for its end.
func follow(t testing.TB, c *cluster.Cluster, eventID string, h *heard) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); c.Follow(ctx, eventID, h.take) }()
	t.Cleanup(func() { cancel(); <-done })
}

func packet(n uint64) []byte { return fmt.Appendf(nil, "packet %d", n) }

func cuesAt(n uint64) []timeline.Cue {
	if n%7 != 0 {
		return nil
	}
	return []timeline.Cue{{Frame: n, Kind: "levels", Data: fmt.Appendf(nil, `{"p":%d}`, n)}}
}

// send publishes frames from ≤ n < to.
func send(p *cluster.Publisher, epoch, from, to uint64) {
	for n := from; n < to; n++ {
		p.Frame(timeline.Frame{Number: n, Epoch: epoch, Packet: packet(n)}, cuesAt(n))
	}
}

// check says whether frames are from ≤ n < to, each once and whole.
func check(t testing.TB, got []cluster.Relayed, epoch, from, to uint64) {
	t.Helper()
	if len(got) != int(to-from) {
		t.Errorf("%d frames, want %d", len(got), to-from)
	}
	for i, r := range got {
		n := from + uint64(i)
		if r.Number != n || r.Epoch != epoch || !bytes.Equal(r.Packet, packet(n)) || r.End {
			t.Fatalf("frame %d of epoch %d, %q; want %d of %d", r.Number, r.Epoch, r.Packet, n, epoch)
		}
		want := cuesAt(n)
		if len(r.Cues) != len(want) || len(want) > 0 && (r.Cues[0].Kind != want[0].Kind || !bytes.Equal(r.Cues[0].Data, want[0].Data)) {
			t.Fatalf("frame %d came with %v", n, r.Cues)
		}
	}
}

// stageOf acquires an event's lease and gives its publisher.
func stageOf(t testing.TB, c *cluster.Cluster, eventID string) (*cluster.Publisher, uint64) {
	t.Helper()
	l, err := c.Acquire(t.Context(), eventID)
	if err != nil {
		t.Fatal(err)
	}
	p := l.Publisher()
	t.Cleanup(func() { _ = p.Close(context.Background(), false, 0) })
	return p, l.Epoch()
}

// Frames arrive whole and in order; who comes late gets the last minute from a segment's start; the end is told to both.
func TestRelay(t *testing.T) {
	t.Parallel()
	s := runNATS(t)
	a, b := s.join(t, true, ""), s.join(t, false, "")
	early, late := &heard{}, &heard{}
	follow(t, b, "ev_1", early)
	p, epoch := stageOf(t, a, "ev_1")
	send(p, epoch, 500, 730)
	until(t, 5*time.Second, "the frames", func() bool { return early.next() == 730 })
	follow(t, b, "ev_1", late)
	until(t, 5*time.Second, "the frames of before", func() bool { return late.next() == 730 })
	send(p, epoch, 730, 777)
	send(p, epoch, 900, 905) // the stage was held up, and jumped
	if err := p.Close(t.Context(), true, 905); err != nil {
		t.Error(err)
	}
	for who, h := range map[string]*heard{"early": early, "late": late} {
		until(t, 5*time.Second, who+" hears the end", func() bool { got := h.all(); return len(got) > 0 && got[len(got)-1].End })
		got := h.all()
		check(t, got[:277], epoch, 500, 777)
		check(t, got[277:282], epoch, 900, 905)
		if len(got) != 283 || got[282].Number != 905 {
			t.Errorf("%s: %d messages, the last is %+v", who, len(got), got[len(got)-1])
		}
	}
	if n := b.Relay(); n["holes"]+n["stale"]+n["slow"]+n["unaligned"]+n["unreadable"]+n["refused"] != 0 || n["filled"] == 0 {
		t.Errorf("counted: %v", n)
	}
}

// A subscription that was too slow loses messages, and gets them back from the stream.
func TestHoleIsFilled(t *testing.T) {
	t.Parallel()
	s := runNATS(t)
	a, b := s.join(t, true, ""), s.join(t, false, "")
	h := &heard{gate: make(chan struct{})}
	follow(t, b, "ev_1", h)
	p, epoch := stageOf(t, a, "ev_1")
	const many = 2500 // the subscription holds 1024
	for n := uint64(0); n < many; n += 500 {
		send(p, epoch, n, n+500) // no more than a publisher keeps
		until(t, 5*time.Second, "they are sent", func() bool { return a.Relay()["published"] == n+500 })
	}
	nc := s.connect("")
	until(t, 5*time.Second, "the server has all", func() bool {
		js, err := nc.JetStream()
		if err != nil {
			t.Fatal(err)
		}
		info, err := js.StreamInfo("EARSHOT_FRAMES")
		return err == nil && info.State.Msgs == many
	})
	close(h.gate)
	send(p, epoch, many, many+10) // only what comes shows what is missing
	until(t, 10*time.Second, "the frames", func() bool { return h.next() == many+10 })
	check(t, h.all(), epoch, 0, many+10)
	if n := b.Relay(); n["slow"] == 0 || n["filled"] == 0 || n["holes"] != 0 {
		t.Errorf("counted: %v", n)
	}
}

// What cannot be had is missing up to the next segment; what is of an epoch that is over, or is nothing at all, is dropped.
func TestHolesAndStrays(t *testing.T) {
	t.Parallel()
	s := runNATS(t)
	_, b := s.join(t, true, ""), s.join(t, false, "")
	h := &heard{}
	follow(t, b, "ev_1", h)
	nc := s.connect("")
	say := func(epoch, from, to uint64) {
		for n := from; n < to; n++ {
			if err := nc.Publish(cluster.FramePrefix+"ev_1", cluster.Message(epoch, n, min(n, 1), packet(n))); err != nil {
				t.Fatal(err)
			}
		}
	}
	reach := func(number uint64) {
		t.Helper()
		until(t, 10*time.Second, "the frames up to "+fmt.Sprint(number), func() bool { return h.next() == number })
	}
	say(7, 0, 250)
	reach(250)
	say(7, 260, 310) // 250 to 259 were made, and are nowhere
	reach(310)
	say(6, 310, 320) // a stage that does not know that it is over
	say(7, 305, 308) // twice
	for _, b := range [][]byte{nil, []byte("{}"), {1, 0}, bytes.Repeat([]byte{0xff}, 200_000)} {
		if err := nc.Publish(cluster.FramePrefix+"ev_1", b); err != nil {
			t.Fatal(err)
		}
	}
	say(7, 310, 312)
	reach(312)
	say(9, 330, 340) // a new stage begins with a segment: these are not its first
	say(7, 312, 320) // and the old one is over, now that the new one was heard of
	say(9, 400, 402)
	reach(402)
	var numbers []uint64
	for _, r := range h.all() {
		numbers = append(numbers, r.Number)
	}
	want := []uint64{}
	for _, span := range [][2]uint64{{0, 250}, {300, 312}, {400, 402}} {
		for n := span[0]; n < span[1]; n++ {
			want = append(want, n)
		}
	}
	if !slices.Equal(numbers, want) {
		t.Errorf("frames %v", numbers)
	}
	n := b.Relay()
	if n["holes"] != 2 || n["stale"] < 10 || n["known"] < 3 || n["unreadable"] != 4 || n["unaligned"] < 40 {
		t.Errorf("counted: %v", n)
	}
}

// While the server is away a stage goes on; what it made meanwhile arrives when the server is back.
func TestRelayOutlivesServer(t *testing.T) {
	t.Parallel()
	s := runNATS(t)
	a, b := s.join(t, true, ""), s.join(t, false, "")
	h := &heard{}
	follow(t, b, "ev_1", h)
	p, epoch := stageOf(t, a, "ev_1")
	send(p, epoch, 0, 150)
	until(t, 5*time.Second, "the frames", func() bool { return h.next() == 150 })
	s.stop()
	until(t, 5*time.Second, "both notice", func() bool { return a.Ready() != nil && b.Ready() != nil })
	send(p, epoch, 150, 320)
	s.start()
	until(t, 15*time.Second, "both are back", func() bool { return a.Ready() == nil && b.Ready() == nil })
	send(p, epoch, 320, 400)
	until(t, 10*time.Second, "all frames", func() bool { return h.next() == 400 })
	check(t, h.all(), epoch, 0, 400)
}

// Reports pass from node to node, not to oneself.
func TestReports(t *testing.T) {
	t.Parallel()
	s := runNATS(t)
	a, b := s.join(t, true, ""), s.join(t, false, "")
	got := make(chan cluster.Report, 10)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); a.Reports(ctx, "ev_1", func(r cluster.Report) { got <- r }) }()
	defer func() { cancel(); <-done }()
	nc := s.connect("")
	until(t, 10*time.Second, "a report", func() bool {
		a.Report("ev_1", cluster.Report{TunedIn: 1})
		if err := nc.Publish("earshot.count.ev_1", []byte(`{"node":"x","listening":{"push":-4}}`)); err != nil {
			t.Fatal(err)
		}
		b.Report("ev_1", cluster.Report{Epoch: 4, Listening: map[string]int{"push": 3}, TunedIn: 8})
		return len(got) > 0
	})
	if r := <-got; r.Node == "" || r.Epoch != 4 || r.Listening["push"] != 3 || r.TunedIn != 8 {
		t.Errorf("report %+v", r)
	}
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
	})
	if !s.opts.SyncAlways || len(s.opts.Users) != 2 {
		t.Fatalf("nats.conf gives sync %v and %d users", s.opts.SyncAlways, len(s.opts.Users))
	}
	a := s.join(t, true, "stage:change-me-1@")
	b := s.join(t, false, "edge:change-me-2@")
	if err := b.PutSession(t.Context(), "5e5510", event.Session{Expires: in(time.Hour)}); err != nil {
		t.Error(err)
	}
	early, late := &heard{}, &heard{}
	follow(t, b, "ev_1", early)
	p, epoch := stageOf(t, a, "ev_1")
	send(p, epoch, 0, 120)
	until(t, 5*time.Second, "the frames", func() bool { return early.next() == 120 })
	follow(t, b, "ev_1", late)
	until(t, 5*time.Second, "the frames of before", func() bool { return late.next() == 120 })

	refused := make(chan error, 1)
	nc, err := nats.Connect(s.url("edge:change-me-2@"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
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
		"nobody there": "nats://u:wrong@127.0.0.1:1", "wrong password": s.url("u:wrong@"), "no JetStream": plain.url(""),
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
	_, err := cluster.Open(ctx, cluster.Config{Dir: t.TempDir(), Join: &cluster.Join{URL: s.url("u:right@")}})
	if err == nil || !strings.Contains(err.Error(), "role stage") {
		t.Errorf("an edge without any stage: %v", err)
	}
	for _, j := range []cluster.Join{{URL: "http://x:1"}, {URL: "nats://"}, {URL: "nats://a:1,b"}, {URL: "nats://a:1", Replicas: 2}, {URL: "nats://a:1", Creds: "/nowhere"}} {
		if j.Check() == nil {
			t.Errorf("%+v passes", j)
		}
	}
}
