package fan_test

import (
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"earshot/internal/rig"
)

// nat is a router before one client that can give it another address at any time, without the client's knowledge.
type nat struct {
	t      *testing.T
	server *net.UDPAddr
	front  *net.UDPConn
	wg     sync.WaitGroup

	mu     sync.Mutex
	client *net.UDPAddr
	backs  []*net.UDPConn // the last is in use
}

func newNAT(t *testing.T, server *net.UDPAddr) *nat {
	t.Helper()
	front, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	n := &nat{t: t, server: server, front: front}
	n.renumber()
	n.wg.Go(func() {
		b := make([]byte, 2048)
		for {
			size, from, err := front.ReadFromUDP(b)
			if err != nil {
				return
			}
			n.mu.Lock()
			n.client = from
			_, _ = n.backs[len(n.backs)-1].Write(b[:size])
			n.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		_ = front.Close()
		for _, b := range n.backs {
			_ = b.Close()
		}
		n.wg.Wait()
	})
	return n
}

// renumber gives the client another address. What goes to the old one is lost.
func (n *nat) renumber() {
	n.t.Helper()
	back, err := net.DialUDP("udp4", nil, n.server)
	must(n.t, err)
	n.mu.Lock()
	n.backs = append(n.backs, back)
	n.mu.Unlock()
	n.wg.Go(func() {
		b := make([]byte, 2048)
		for {
			size, err := back.Read(b)
			if err != nil {
				return
			}
			n.mu.Lock()
			if n.client != nil && n.backs[len(n.backs)-1] == back {
				_, _ = n.front.WriteToUDP(b[:size], n.client)
			}
			n.mu.Unlock()
		}
	})
}

func (n *nat) rewrite(answer []byte) []byte {
	is := func(port int) string { return " udp 2130706431 127.0.0.1 " + strconv.Itoa(port) + " " }
	return []byte(strings.ReplaceAll(string(answer), is(n.server.Port), is(n.front.LocalAddr().(*net.UDPAddr).Port)))
}

// A whole client whose router gives it another address hears on after some seconds: it nominates nothing, since it does not know. The
// server asks the new address, and the client answers.
func TestFollowedBehindNAT(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	router := newNAT(t, net.UDPAddrFromAddrPort(h.port.Addr()))
	p, err := rig.NewPeer(rig.PeerConfig{Receive: true})
	must(t, err)
	t.Cleanup(func() { _ = p.Close() })
	must(t, p.Dial(h.ctx, func(offer []byte) ([]byte, error) {
		_, answer, err := h.fan.WHEP(h.ctx, h.source(), offer, 0)
		return router.rewrite(answer), err
	}))
	h.heard(p, 50)
	router.mu.Lock()
	if router.client == nil {
		t.Fatal("the client found a way around its router")
	}
	router.mu.Unlock()
	for range 2 {
		router.renumber()
		begun := time.Now()
		h.heard(p, 20)
		took := time.Since(begun)
		t.Logf("heard again after %v", took)
		if took > 10*time.Second {
			t.Errorf("heard again after %v", took)
		}
	}
}
