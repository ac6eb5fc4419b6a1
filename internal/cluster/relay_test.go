package cluster_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"earshot/internal/cluster"
	"earshot/internal/timeline"
)

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
	until(t, 20*time.Second, "the frames", func() bool { return early.next() == 730 })
	follow(t, b, "ev_1", late)
	until(t, 20*time.Second, "the frames of before", func() bool { return late.next() == 730 })
	send(p, epoch, 730, 777)
	send(p, epoch, 900, 905) // the stage was held up, and jumped
	if err := p.Close(t.Context(), true, 905); err != nil {
		t.Error(err)
	}
	for who, h := range map[string]*heard{"early": early, "late": late} {
		until(t, 20*time.Second, who+" hears the end", func() bool { got := h.all(); return len(got) > 0 && got[len(got)-1].End })
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

// A stream may have frames later than a subscriber hears those after them. Here it has them by another subject, which nobody hears.
func TestStreamBehindSubject(t *testing.T) {
	t.Parallel()
	s := runNATS(t)
	_, b := s.join(t, true, ""), s.join(t, false, "")
	nc := s.connect("")
	js, err := nc.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	info, err := js.StreamInfo("EARSHOT_FRAMES")
	if err != nil {
		t.Fatal(err)
	}
	info.Config.Subjects = []string{"late.*"}
	info.Config.SubjectTransform = &nats.SubjectTransformConfig{Source: "late.*", Destination: cluster.FramePrefix + "{{wildcard(1)}}"}
	if _, err := js.UpdateStream(&info.Config); err != nil {
		t.Fatal(err)
	}
	h := &heard{}
	follow(t, b, "ev_1", h)
	until(t, 20*time.Second, "somebody listens", func() bool {
		if err := nc.Publish(cluster.FramePrefix+"ev_1", nil); err != nil {
			t.Fatal(err)
		}
		return b.Relay()["unreadable"] > 0
	})
	for n := range uint64(60) {
		if err := nc.Publish("late.ev_1", cluster.Message(7, n, min(n, 1), packet(n))); err != nil {
			t.Fatal(err)
		}
	}
	until(t, 20*time.Second, "the stream has them", func() bool {
		info, err := js.StreamInfo("EARSHOT_FRAMES")
		return err == nil && info.State.Msgs == 60
	})
	for n := range uint64(60) {
		if err := nc.Publish(cluster.FramePrefix+"ev_1", cluster.Message(7, 60+n, 1, packet(60+n))); err != nil {
			t.Fatal(err)
		}
	}
	until(t, 20*time.Second, "the frames", func() bool { return h.next() == 120 })
	if got := h.all(); len(got) != 120 || got[0].Number != 0 {
		t.Errorf("%d frames from %d on", len(got), got[0].Number)
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
		until(t, 20*time.Second, "they are sent", func() bool { return a.Relay()["published"] == n+500 })
	}
	nc := s.connect("")
	until(t, 20*time.Second, "the server has all", func() bool {
		js, err := nc.JetStream()
		if err != nil {
			t.Fatal(err)
		}
		info, err := js.StreamInfo("EARSHOT_FRAMES")
		return err == nil && info.State.Msgs == many
	})
	close(h.gate)
	send(p, epoch, many, many+10) // only what comes shows what is missing
	until(t, 20*time.Second, "the frames", func() bool { return h.next() == many+10 })
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
		until(t, 20*time.Second, "the frames up to "+fmt.Sprint(number), func() bool { return h.next() == number })
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
	until(t, 20*time.Second, "the frames", func() bool { return h.next() == 150 })
	s.Stop()
	until(t, 20*time.Second, "both notice", func() bool { return a.Ready() != nil && b.Ready() != nil })
	send(p, epoch, 150, 320)
	s.Start()
	until(t, 20*time.Second, "both are back", func() bool { return a.Ready() == nil && b.Ready() == nil })
	send(p, epoch, 320, 400)
	until(t, 20*time.Second, "all frames", func() bool { return h.next() == 400 })
	check(t, h.all(), epoch, 0, 400)
}

// What a stage sent over a connection that was dead already is sent again over the next.
func TestSentAgain(t *testing.T) {
	t.Parallel()
	s := runNATS(t)
	way := newWay(t, strings.TrimPrefix(s.URL(""), "nats://"))
	a, b := s.joinAt(t, "nats://"+way.addr, true), s.join(t, false, "")
	h := &heard{}
	follow(t, b, "ev_1", h)
	p, epoch := stageOf(t, a, "ev_1")
	send(p, epoch, 0, 130)
	until(t, 20*time.Second, "the frames", func() bool { return h.next() == 130 })
	way.swallow.Store(true)
	send(p, epoch, 130, 275)
	until(t, 20*time.Second, "they are sent", func() bool { return a.Relay()["published"] == 275 })
	way.cut()
	until(t, 20*time.Second, "the node notices", func() bool { return a.Ready() != nil })
	way.swallow.Store(false)
	send(p, epoch, 275, 300)
	until(t, 20*time.Second, "all frames", func() bool { return h.next() == 300 })
	check(t, h.all(), epoch, 0, 300)
	if n := b.Relay(); n["holes"] != 0 || n["known"] == 0 {
		t.Errorf("counted: %v", n)
	}
}

// way is a connection to a server that can swallow what is sent.
type way struct {
	addr    string
	swallow atomic.Bool
	mu      sync.Mutex
	open    []net.Conn
}

func newWay(t *testing.T, server string) *way {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &way{addr: l.Addr().String()}
	var running sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); w.cut(); running.Wait() })
	pass := func(to io.WriteCloser, from io.Reader, may func() bool) {
		defer func() { _ = to.Close() }()
		for b := make([]byte, 4096); ; {
			n, err := from.Read(b)
			if err != nil {
				return
			}
			if !may() {
				continue
			}
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
	}
	running.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", server)
			if err != nil {
				_ = near.Close()
				continue
			}
			w.mu.Lock()
			w.open = append(w.open, near, far)
			w.mu.Unlock()
			running.Go(func() { pass(far, near, func() bool { return !w.swallow.Load() }) })
			running.Go(func() { pass(near, far, func() bool { return true }) })
		}
	})
	return w
}

// cut ends the connections that there are.
func (w *way) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.open {
		_ = c.Close()
	}
	w.open = nil
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
	until(t, 20*time.Second, "a report", func() bool {
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
