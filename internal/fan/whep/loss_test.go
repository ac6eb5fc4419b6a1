package whep

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"earshot/internal/rig"
)

// asker asks for what it missed, as browsers do: as soon as a later packet comes.
type asker struct {
	*ear
	l    *light
	mu   sync.Mutex
	next uint16
	on   bool
}

func (a *asker) take(p *rtp.Packet) {
	a.ear.take(p)
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.on {
		a.next, a.on = p.SequenceNumber+1, true
		return
	}
	for d := p.SequenceNumber - a.next; d != 0 && d < 1<<15; d = p.SequenceNumber - a.next {
		if a.l != nil {
			_ = a.l.report(&rtcp.TransportLayerNack{SenderSSRC: 1, MediaSSRC: a.l.ssrc, Nacks: []rtcp.NackPair{{PacketID: a.next}}})
		}
		a.next++
	}
	if p.SequenceNumber == a.next {
		a.next++
	}
}

// Three percent of loss are repaired with RED or NACK at every packet length, and left to concealment otherwise.
func TestLoss(t *testing.T) {
	h := newHall(t, "127.0.0.1:0", func(c *Config) { c.FixedPace = true })
	type case1 struct {
		name  string
		ear   *ear
		relay *rig.Impair
	}
	var all []case1
	for _, ms := range []int{20, 60, 120} {
		for name, offer := range map[string]string{"plain": plainOffer(t), "red": lightOffer(t), "nack": nackOffer(t)} {
			relay, err := rig.NewImpair(h.port.Addr(), uint64(ms), rig.Conditions{})
			must(t, err)
			t.Cleanup(func() { _ = relay.Close() })
			a := &asker{ear: newEar(name == "red")}
			l, err := dialLight(h.ctx, offer, func(offer []byte) (string, []byte, error) {
				id, answer, err := h.engine.Answer(h.ctx, h.src, offer, ms)
				return id, relay.Rewrite(answer), err
			}, a.take, false)
			must(t, err)
			t.Cleanup(l.close)
			if name == "nack" {
				a.mu.Lock()
				a.l = l
				a.mu.Unlock()
			}
			relay.Set(rig.Conditions{Loss: 0.03, Delay: 2 * time.Millisecond, Ordered: true})
			all = append(all, case1{fmt.Sprintf("%s %d ms", name, ms), a.ear, relay})
		}
	}
	h.wait("all are in", func() bool { return h.engine.Stats().Listeners == int64(len(all)) })
	const programme = 6000 // frames: two minutes, at four times the clock
	for range programme / 10 {
		h.grow(10)
		time.Sleep(20 * time.Millisecond)
	}
	lost := map[string]float64{}
	for _, c := range all {
		h.wait("the end", func() bool { return c.ear.count() > programme*9/10 })
		missing, total := c.ear.missing()
		lost[c.name] = 100 * float64(missing) / float64(total)
	}
	t.Logf("3 %% loss, %% of frames that never came: %v", lost)
	for _, ms := range []string{" 20 ms", " 60 ms", " 120 ms"} {
		plain, red, nack := lost["plain"+ms], lost["red"+ms], lost["nack"+ms]
		// What is left are pairs of losses: with RED both packets, with NACK the packet and its repetition.
		if plain < 1.2 || red > plain/4 || nack > plain/4 {
			t.Errorf("%s: plain %.2f, red %.2f, nack %.2f %% never came", ms, plain, red, nack)
		}
	}
	if h.engine.Stats().Repeated == 0 {
		t.Error("nothing was sent again")
	}
}
