package rig

import (
	"bytes"
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Conditions of a network path, one way; both ways are alike and independent.
type Conditions struct {
	Loss      float64       // share of packets that vanish
	Delay     time.Duration // that each packet takes
	Jitter    time.Duration // up to so much more, uniform, each for itself
	Ordered   bool          // packets do not overtake each other, as in one queue; else jitter reorders them
	Duplicate float64       // share of packets that arrive twice
}

// Tally is what became of the packets.
type Tally struct{ Passed, Lost, Duplicated, Overtaken uint64 }

// Impair is a UDP relay that stands between clients and a server's port and treats packets as a bad network would: with the
// kernel's netem one needs a kernel that has it, and root. The same seed and the same packets give the same fates.
type Impair struct {
	server netip.AddrPort
	front  *net.UDPConn
	wg     sync.WaitGroup

	mu     sync.Mutex
	cond   Conditions
	rnd    *rand.Rand
	tally  Tally
	backs  map[netip.AddrPort]*way // by client
	front0 *way                    // server to clients
	closed bool
}

// way delivers the packets of one direction at their time.
type way struct {
	send func(b []byte, to netip.AddrPort)

	mu     sync.Mutex
	due    parcels
	seq    uint64
	latest time.Time // when the last one of an ordered way is due
	wake   chan struct{}
	done   chan struct{}
}

type parcel struct {
	at    time.Time
	order uint64
	to    netip.AddrPort
	b     []byte
}

// NewImpair starts a relay on a free port of 127.0.0.1.
func NewImpair(server netip.AddrPort, seed uint64, c Conditions) (*Impair, error) {
	front, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		return nil, fmt.Errorf("listen for a relay: %w", err)
	}
	im := &Impair{
		server: server, front: front, cond: c, rnd: rand.New(rand.NewPCG(seed, 1)), backs: make(map[netip.AddrPort]*way),
	}
	im.front0 = im.way(func(b []byte, to netip.AddrPort) { _, _ = front.WriteToUDPAddrPort(b, to) })
	im.wg.Go(im.accept)
	return im, nil
}

// Addr is where clients send to.
func (im *Impair) Addr() netip.AddrPort { return im.front.LocalAddr().(*net.UDPAddr).AddrPort() }

// Set changes the conditions.
func (im *Impair) Set(c Conditions) {
	im.mu.Lock()
	defer im.mu.Unlock()
	im.cond = c
}

// Tally says what became of the packets so far.
func (im *Impair) Tally() Tally {
	im.mu.Lock()
	defer im.mu.Unlock()
	return im.tally
}

// Rewrite puts the relay in the place of the server's candidates in an SDP answer, and takes out those over TCP.
func (im *Impair) Rewrite(answer []byte) []byte {
	var out bytes.Buffer
	told := false
	for l := range strings.Lines(string(answer)) {
		if !strings.HasPrefix(l, "a=candidate:") {
			out.WriteString(l)
			continue
		}
		f := strings.Fields(l)
		if told || len(f) < 8 || !strings.EqualFold(f[2], "udp") {
			continue
		}
		told = true
		f[4], f[5] = im.Addr().Addr().String(), fmt.Sprint(im.Addr().Port())
		out.WriteString(strings.Join(f, " ") + "\r\n")
	}
	return out.Bytes()
}

// Close stops the relay; packets under way are lost.
func (im *Impair) Close() error {
	im.mu.Lock()
	im.closed = true
	backs := im.backs
	im.backs = nil
	im.mu.Unlock()
	err := im.front.Close()
	for _, w := range backs {
		close(w.done)
	}
	close(im.front0.done)
	im.wg.Wait()
	return err
}

// accept passes clients' packets on, each client's from a socket of its own, so that the server tells them apart.
func (im *Impair) accept() {
	buf := make([]byte, 2048)
	for {
		n, from, err := im.front.ReadFromUDPAddrPort(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		im.mu.Lock()
		w := im.backs[from]
		im.mu.Unlock()
		if w == nil {
			if w = im.dial(from); w == nil {
				return
			}
		}
		im.pass(w, buf[:n], im.server)
	}
}

func (im *Impair) dial(client netip.AddrPort) *way {
	back, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		return nil
	}
	im.mu.Lock()
	defer im.mu.Unlock()
	if im.closed {
		_ = back.Close()
		return nil
	}
	w := im.way(func(b []byte, to netip.AddrPort) { _, _ = back.WriteToUDPAddrPort(b, to) })
	im.backs[client] = w
	im.wg.Go(func() {
		<-w.done
		_ = back.Close()
	})
	im.wg.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, _, err := back.ReadFromUDPAddrPort(buf)
			if err != nil {
				if errors.Is(err, net.ErrClosed) {
					return
				}
				continue
			}
			im.pass(im.front0, buf[:n], client)
		}
	})
	return w
}

// pass decides a packet's fate.
func (im *Impair) pass(w *way, b []byte, to netip.AddrPort) {
	im.mu.Lock()
	c := im.cond
	// Drawn in any case, so that one packet's fate does not depend on another's.
	lost, twice := im.rnd.Float64() < c.Loss, im.rnd.Float64() < c.Duplicate
	late := [2]time.Duration{c.Delay, c.Delay}
	for i := range late {
		late[i] += time.Duration(im.rnd.Float64() * float64(c.Jitter))
	}
	switch {
	case lost:
		im.tally.Lost++
	case twice:
		im.tally.Duplicated++
		fallthrough
	default:
		im.tally.Passed++
	}
	im.mu.Unlock()
	if lost {
		return
	}
	overtook := w.add(bytes.Clone(b), to, late[0], c.Ordered)
	if twice {
		w.add(bytes.Clone(b), to, late[1], c.Ordered)
	}
	if overtook {
		im.mu.Lock()
		im.tally.Overtaken++
		im.mu.Unlock()
	}
}

func (im *Impair) way(send func([]byte, netip.AddrPort)) *way {
	w := &way{send: send, wake: make(chan struct{}, 1), done: make(chan struct{})}
	im.wg.Go(w.run)
	return w
}

func (w *way) add(b []byte, to netip.AddrPort, late time.Duration, ordered bool) (overtook bool) {
	w.mu.Lock()
	at := time.Now().Add(late)
	if at.Before(w.latest) {
		if ordered {
			at = w.latest
		} else {
			overtook = true
		}
	}
	if at.After(w.latest) {
		w.latest = at
	}
	w.seq++
	heap.Push(&w.due, parcel{at, w.seq, to, b})
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return overtook
}

func (w *way) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		w.mu.Lock()
		wait := time.Hour
		var now []parcel
		for len(w.due) > 0 {
			if wait = time.Until(w.due[0].at); wait > 0 {
				break
			}
			now = append(now, heap.Pop(&w.due).(parcel))
			wait = time.Hour
		}
		w.mu.Unlock()
		for _, p := range now {
			w.send(p.b, p.to)
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-w.wake:
		case <-w.done:
			return
		}
	}
}

// parcels is a heap by time, then by order of arrival.
type parcels []parcel

func (p parcels) Len() int { return len(p) }
func (p parcels) Less(i, j int) bool {
	return p[i].at.Before(p[j].at) || p[i].at.Equal(p[j].at) && p[i].order < p[j].order
}
func (p parcels) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *parcels) Push(x any)   { *p = append(*p, x.(parcel)) }
func (p *parcels) Pop() any {
	last := (*p)[len(*p)-1]
	*p = (*p)[:len(*p)-1]
	return last
}
