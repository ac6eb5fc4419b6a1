package whep

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"earshot/internal/timeline"
)

// Every kind of session gets every frame, bit for bit, at every packet length, by IPv4 and IPv6, with either cipher.
func TestKinds(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0", ":0"} {
		t.Run(addr, func(t *testing.T) {
			h := newHall(t, addr, func(c *Config) { c.FixedPace = true })
			h.play()
			ears := map[string]*ear{}
			for _, ms := range []int{20, 60, 120} {
				for name, offer := range map[string]string{"red": lightOffer(t), "plain": plainOffer(t)} {
					e := newEar(name == "red")
					h.dial(offer, ms, e.take)
					ears[fmt.Sprint(name, " ", ms)] = e
				}
			}
			old := newEar(false)
			l, err := dialLight(h.ctx, lightOffer(t), h.post(60), old.take, true)
			must(t, err)
			t.Cleanup(l.close)
			ears["AES-CM"] = old
			for name, e := range ears {
				h.wait(name, func() bool { return e.count() >= 50 })
				if missing, total := e.missing(); missing != 0 {
					t.Errorf("%s: %d of %d frames missing", name, missing, total)
				}
				e.mu.Lock()
				full := 0
				for _, n := range e.lengths {
					if fmt.Sprint(name[strings.LastIndex(name, " ")+1:]) == fmt.Sprint(20*n) {
						full++
					}
				}
				if name != "AES-CM" && full < len(e.lengths)/2 {
					t.Errorf("%s: lengths %v", name, e.lengths)
				}
				e.mu.Unlock()
			}
		})
	}
}

// The length of packets changes while everybody listens, exactly at the announced frame, and nobody misses one.
func TestPacketsChangeLength(t *testing.T) {
	type change struct {
		ms   int
		from uint64
	}
	var mu sync.Mutex
	var told []change
	h := newHall(t, "127.0.0.1:0", func(c *Config) {
		c.FixedPace, c.Shards = true, 2
		c.Announce = func(_ Source, ms int, from uint64) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, change{ms, from})
		}
	})
	var ears []*ear
	wishes := []int{0, 20, 60, 120, 0, 0, 60}
	for i, wish := range wishes {
		e := newEar(i%2 == 0)
		h.dial([]string{lightOffer(t), plainOffer(t)}[i%2], wish, e.take)
		ears = append(ears, e)
	}
	h.wait("all are in", func() bool { return h.engine.Stats().Listeners == int64(len(wishes)) })
	step := func(n int) { // programme by hand, much quicker than the clock
		for range n {
			h.grow(1)
			time.Sleep(time.Millisecond)
		}
	}
	step(20)
	for _, ms := range []int{60, 120, 60, 20} {
		if got, err := h.engine.SetPacket(ms); err != nil || got != ms {
			t.Fatalf("set %d: %d, %v", ms, got, err)
		}
		step(520)
	}
	step(20)
	mu.Lock()
	defer mu.Unlock()
	if len(told) != 4 {
		t.Fatalf("announced: %v", told)
	}
	for i, e := range ears {
		h.wait("the last frames", func() bool {
			e.mu.Lock()
			defer e.mu.Unlock()
			return e.frames[h.next-longest] != nil
		})
		if missing, total := e.missing(); missing != 0 {
			t.Errorf("listener %d: %d of %d frames missing", i, missing, total)
		}
		e.mu.Lock()
		now := 20
		steps := told
		for j, at := range e.at {
			for len(steps) > 0 && at >= steps[0].from {
				if at != steps[0].from {
					t.Errorf("listener %d: no packet begins at frame %d, where %d ms begin", i, steps[0].from, steps[0].ms)
				}
				now, steps = steps[0].ms, steps[1:]
			}
			if want := max(now, wishes[i]); 20*e.lengths[j] > want {
				t.Errorf("listener %d: a packet of %d ms at frame %d, want %d", i, 20*e.lengths[j], at, want)
			}
		}
		// One packet is short where its lane begins, and one where a change ends it.
		short := 0
		for j, at := range e.at {
			now := 20
			for _, c := range told {
				if at >= c.from {
					now = c.ms
				}
			}
			if 20*e.lengths[j] < max(now, wishes[i]) {
				short++
			}
		}
		if short > 12 {
			t.Errorf("listener %d: %d packets are short", i, short)
		}
		for seq, n := range e.seqs {
			if n != 1 {
				t.Errorf("listener %d: sequence number %d came %d times", i, seq, n)
			}
		}
		seqs := make([]int, 0, len(e.seqs))
		for seq := range e.seqs {
			seqs = append(seqs, int(seq))
		}
		slices.Sort(seqs)
		if seqs[len(seqs)-1]-seqs[0]+1 != len(seqs) {
			t.Errorf("listener %d: sequence numbers %d to %d in %d packets", i, seqs[0], seqs[len(seqs)-1], len(seqs))
		}
		e.mu.Unlock()
	}
	if n := len(told); n == 4 && (told[0].from%6 != 0 || told[1].from <= told[0].from) {
		t.Errorf("announced: %v", told)
	}
	if _, err := h.engine.SetPacket(40); err == nil {
		t.Error("40 ms were taken")
	}
}

// Hundreds come, stall, leave in every way and vanish, while others listen and miss nothing.
func TestCrowd(t *testing.T) {
	h := newHall(t, "127.0.0.1:0", func(c *Config) { c.Shards, c.Silent = 2, 3*time.Second })
	h.play()
	steady := make([]*ear, 6)
	for i := range steady {
		steady[i] = newEar(i%2 == 0)
		l := h.dial([]string{lightOffer(t), plainOffer(t)}[i%2], []int{20, 60, 120}[i%3], steady[i].take)
		stop := make(chan struct{})
		var keep sync.WaitGroup
		keep.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(300 * time.Millisecond):
					_ = l.write(l.check(false))
				}
			}
		})
		t.Cleanup(func() { close(stop); keep.Wait() })
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	const people = 300
	var (
		wg      sync.WaitGroup
		room    = make(chan struct{}, 24)
		offers  = []string{lightOffer(t), plainOffer(t), nackOffer(t)}
		mu      sync.Mutex
		gone    []*light
		lastErr error
		failed  int
	)
	for i := range people {
		rnd := rand.New(rand.NewPCG(seed, uint64(i)))
		offer, packet, end, nap := offers[rnd.IntN(3)], []int{20, 60, 120}[rnd.IntN(3)], rnd.IntN(5), time.Duration(rnd.IntN(200))*time.Millisecond
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			e := newEar(false)
			l, err := dialLight(h.ctx, offer, h.post(packet), e.take, false)
			if err != nil {
				mu.Lock()
				failed, lastErr = failed+1, err
				mu.Unlock()
				return
			}
			time.Sleep(nap) // stays a while
			switch end {
			case 0:
				l.leave()
			case 1:
				h.engine.End(l.id)
				if !l.told(10 * time.Second) {
					mu.Lock()
					failed, lastErr = failed+1, errors.New("was not told of the end")
					mu.Unlock()
				}
				l.close()
			case 2:
				_ = l.report(&rtcp.Goodbye{Sources: []uint32{1}})
				if !l.told(10 * time.Second) {
					mu.Lock()
					failed, lastErr = failed+1, errors.New("was not told of the end")
					mu.Unlock()
				}
				l.close()
			case 3:
				l.close() // vanishes
			case 4: // stalls: reads nothing any more, and says nothing
				mu.Lock()
				gone = append(gone, l)
				mu.Unlock()
			}
			if missing, total := e.missing(); end != 3 && missing > 0 {
				mu.Lock()
				failed++
				lastErr = fmt.Errorf("%d of %d frames missing: packets at %v of %v frames, numbers %v", missing, total, e.at, e.lengths, e.seqs)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if failed > 0 {
		t.Errorf("%d of %d failed, the last with: %v", failed, people, lastErr)
	}
	h.wait("the vanished are given up", func() bool { return h.engine.Stats().Listeners == int64(len(steady)) })
	for _, l := range gone {
		l.close()
	}
	for i, e := range steady {
		if missing, total := e.missing(); missing != 0 || total < 50 {
			t.Errorf("steady listener %d: %d of %d frames missing", i, missing, total)
		}
	}
	st := h.engine.Stats()
	if st.Joined < people || st.Pending != 0 || st.Dropped["lost"] == 0 {
		t.Errorf("counted: %+v", st)
	}
	if count, _ := h.audience.Sweep(time.Now()); count.Now != len(steady) {
		t.Errorf("the audience: %+v", count)
	}
	h.engine.mu.RLock()
	defer h.engine.mu.RUnlock()
	if n, u, p := len(h.engine.sessions), len(h.engine.byUfrag), len(h.engine.byPath); n != len(steady) || u != n || p < n {
		t.Errorf("left behind: %d sessions, %d user names, %d addresses", n, u, p)
	}
}

// The session ends with the timeline, at the server's wish, and by the client's word; the other side is told.
func TestEnds(t *testing.T) {
	h := newHall(t, "127.0.0.1:0")
	h.play()
	var all []*light
	for range 4 {
		e := newEar(true)
		l := h.dial(lightOffer(t), 0, e.take)
		h.wait("audio", func() bool { return e.count() > 3 })
		all = append(all, l)
	}
	told := func(l *light) {
		t.Helper()
		if !l.told(5 * time.Second) {
			t.Error("the client was not told")
		}
	}
	if !h.engine.End(all[0].id) || h.engine.End(all[0].id) {
		t.Error("ending by id")
	}
	told(all[0])
	all[1].leave()
	h.wait("who said goodbye is gone", func() bool { return h.engine.Stats().Listeners == 2 })
	h.pause()
	h.timeline.End()
	told(all[2])
	told(all[3])
	h.wait("nobody is left", func() bool { return h.engine.Stats().Listeners == 0 })
	h.engine.Close()
	h.engine.Close()
}

// What was lost comes again, sealed as before, for those who asked for it; and not without end.
func TestRetransmission(t *testing.T) {
	h := newHall(t, "127.0.0.1:0")
	var mu sync.Mutex
	packets := map[uint16][][]byte{}
	l := h.dial(nackOffer(t), 0, func(p *rtp.Packet) {
		mu.Lock()
		defer mu.Unlock()
		packets[p.SequenceNumber] = append(packets[p.SequenceNumber], p.Payload)
	})
	h.wait("in", func() bool { return h.engine.Stats().Listeners == 1 })
	for range 30 {
		h.grow(1)
		time.Sleep(2 * time.Millisecond)
	}
	h.wait("sent", func() bool { return h.engine.Stats().Bytes > 0 })
	h.engine.mu.RLock()
	s := h.engine.sessions[l.id]
	h.engine.mu.RUnlock()
	first := uint16(s.ssrc & 0x7fff)
	ask := func(pid, lost uint16) {
		must(t, l.report(&rtcp.TransportLayerNack{SenderSSRC: 1, MediaSSRC: s.ssrc, Nacks: []rtcp.NackPair{{PacketID: pid, LostPackets: rtcp.PacketBitmap(lost)}}}))
	}
	ask(first+5, 0b101)
	h.wait("three came again", func() bool { return h.engine.Stats().Repeated == 3 })
	ask(first-10, 0)
	ask(first+1000, 0)
	h.wait("what never was is counted", func() bool { return h.engine.Stats().Inbound["gone"] == 2 })
	for range 60 {
		ask(first+3, 0xffff)
		time.Sleep(10 * time.Millisecond)
	}
	if n := h.engine.Stats().Repeated; n > 3+repeatSaved {
		t.Errorf("%d packets were sent again for 30 sent", n)
	}
	if h.engine.Stats().Inbound["flood"] == 0 {
		t.Error("the flood was not counted")
	}
}

// Who comes while longer packets are announced gets them at once, and the answer says so; who comes while shorter ones are, only then.
func TestNewcomersStartSlow(t *testing.T) {
	h := newHall(t, "127.0.0.1:0", func(c *Config) { c.FixedPace = true })
	first := newEar(false)
	h.dial(plainOffer(t), 0, first.take)
	h.wait("the first hears", func() bool {
		h.grow(1)
		return first.count() > 0
	})
	_, err := h.engine.SetPacket(120)
	must(t, err)
	_, answer, err := h.engine.Answer(h.ctx, h.src, []byte(plainOffer(t)), 60)
	must(t, err)
	if !strings.Contains(string(answer), "a=ptime:120\r\n") {
		t.Errorf("the answer says:\n%s", answer)
	}
	second := newEar(false)
	h.dial(plainOffer(t), 0, second.take)
	h.wait("both are in", func() bool { return h.engine.Stats().Listeners == 2 })
	for range 60 {
		h.grow(1)
		time.Sleep(2 * time.Millisecond)
	}
	h.wait("frames", func() bool { return first.count() > 50 && second.count() > 40 })
	first.mu.Lock()
	defer first.mu.Unlock()
	second.mu.Lock()
	defer second.mu.Unlock()
	if slices.Max(first.lengths) != 1 || slices.Max(second.lengths) != 6 {
		t.Errorf("lengths: %v and %v", first.lengths, second.lengths)
	}
	if h.engine.Packet() != 120 || h.engine.Stats().PacketMS != 120 {
		t.Errorf("in force: %d", h.engine.Packet())
	}
	// A later event begins with what is in force.
	other := newHallOn(t, h)
	third := newEar(false)
	l, err := dialLight(h.ctx, plainOffer(t), func(offer []byte) (string, []byte, error) {
		return h.engine.Answer(h.ctx, Source{Slug: "other", Timeline: other, Audience: h.audience}, offer, 0)
	}, third.take, false)
	must(t, err)
	t.Cleanup(l.close)
	for n := uint64(110); n < 200; n++ {
		must(t, other.Append(timeline.Frame{Number: n, Packet: voice(n)}))
		time.Sleep(time.Millisecond)
	}
	h.wait("the other event", func() bool { return third.count() > 30 })
	third.mu.Lock()
	defer third.mu.Unlock()
	if slices.Max(third.lengths) != 6 {
		t.Errorf("lengths: %v", third.lengths)
	}
}

func newHallOn(t *testing.T, h *hall) *timeline.Timeline {
	t.Helper()
	tl, err := timeline.New(timeline.Config{Origin: h.timeline.Origin(), First: 100})
	must(t, err)
	for n := uint64(100); n < 110; n++ {
		must(t, tl.Append(timeline.Frame{Number: n, Packet: voice(n)}))
	}
	return tl
}
