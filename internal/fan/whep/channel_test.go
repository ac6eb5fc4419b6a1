package whep

import (
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"earshot/internal/event"
	"earshot/internal/observatory"
	"earshot/internal/timeline"
)

// resting gives an engine whose shards have no goroutines, so that who was woken can be seen.
func resting(h *hall, shards int) *Engine {
	e := &Engine{cfg: h.engine.cfg, begun: time.Now()}
	for i := range shards {
		e.shards = append(e.shards, newShard(e, i))
	}
	return e
}

// woken says whether a shard was, and lets it sleep again.
func (sh *shard) woken() bool {
	select {
	case <-sh.wake:
		return true
	default:
		return false
	}
}

// A frame wakes the shards that have a session of its event, and no other.
func TestWakesOnlyWhoListens(t *testing.T) {
	h := newHall(t, "127.0.0.1:0")
	other, err := timeline.New(timeline.Config{Origin: time.Now()})
	must(t, err)
	e := resting(h, 4)
	mine := newChannel(h.src, 1, 4)
	others := newChannel(Source{Slug: "other", Timeline: other, Audience: observatory.NewAudience(event.Count{})}, 1, 4)
	sink, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	must(t, err)
	defer sink.Close()
	join := func(sh *shard, ch *channel) *session {
		keys, err := newKeyring(true, material(materialSize(true)))
		must(t, err)
		s := &session{in: e, ch: ch, keys: keys, opus: 111, wish: 1}
		sh.join(s, path{udp: whereOf(sink.LocalAddr().(*net.UDPAddr).AddrPort())}, e.now())
		sh.work(e.now())
		return s
	}
	// The last has sessions of both, the first of none, the second of the other event only; the third's went away.
	join(e.shards[1], others)
	s := join(e.shards[2], mine)
	s.feed.active--
	s.lane.take(s)
	e.shards[2].work(e.now())
	join(e.shards[3], others)
	join(e.shards[3], mine)

	var following sync.WaitGroup
	following.Go(func() { e.follow(mine) })
	defer following.Wait()
	defer close(mine.stop)
	last := e.shards[3]
	h.wait("the first look", last.woken)
	for range 20 {
		h.grow(1)
		h.wait("a frame wakes", last.woken) // it is the last in turn, so the others would have been before
		for i, sh := range e.shards[:3] {
			if sh.woken() {
				t.Fatalf("shard %d was woken, which has no session of the event", i)
			}
		}
		last.work(e.now())
	}
	if n := testing.AllocsPerRun(100, func() { mine.wake(e.shards) }); n != 0 {
		t.Errorf("waking allocates %v times", n)
	}
	h.timeline.Close()
	h.wait("the end wakes", last.woken)
}

// Whoever begins to listen just when a frame is made has seen that frame or is woken for it.
func TestWakesWhoBegins(t *testing.T) {
	h := newHall(t, "127.0.0.1:0")
	e := resting(h, 1)
	sh, ch := e.shards[0], newChannel(h.src, 1, 1)
	for i := range 3000 {
		var both sync.WaitGroup
		var begun atomic.Bool
		both.Go(func() {
			begun.Store(true)
			h.grow(1)
			ch.wake(e.shards)
		})
		for !begun.Load() {
			runtime.Gosched()
		}
		for range i % 200 { // so that it begins at every point of the other's way
			begun.Load()
		}
		f := sh.feed(ch)
		if !ch.feeds[sh.number].Load() {
			t.Fatal("looks at the timeline before it can be woken")
		}
		f.active = 1
		sh.pull(f, 0)
		both.Wait()
		if woken := sh.woken(); f.next != h.next && !woken {
			t.Fatalf("round %d: sleeps at frame %d, and %d is there", i, f.next, h.next-1)
		}
		f.active = 0
		sh.work(e.now())
		if ch.wake(e.shards); sh.woken() {
			t.Fatalf("round %d: woken after the last has gone", i)
		}
	}
}
