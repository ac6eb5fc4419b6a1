package whep

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"github.com/pion/rtcp"

	"earshot/internal/event"
)

// halfOpen makes a session as somebody does who goes on no further than asked: an offer, a check, the proof, a hello that begins nothing.
func (h *hall) halfOpen(c net.Conn, offer string, steps int) (err error) {
	h.tb.Helper()
	_, answer, err := h.engine.Answer(h.ctx, h.src, []byte(offer), 0)
	if err != nil {
		return err
	}
	l := outsider(offer, answer)
	if steps > 0 {
		_, _ = c.Write(l.check(true))
	}
	if steps > 1 {
		must(h.tb, l.prove(c))
		_, _ = c.Write(hello())
	}
	return nil
}

// However far half-open sessions go, a newcomer waits for two to four seconds at most, and who is connected does not notice.
func TestHalfOpenSessionsKeepNobodyOut(t *testing.T) {
	for steps, most := range []time.Duration{idleSafe, idleSafe, shakingSafe} {
		h, _, e := staged(t, func(c *Config) { c.MaxPending = 12 })
		offer := plainOffer(t)
		for range 12 {
			must(t, h.halfOpen(h.stranger(), offer, steps))
		}
		begun := time.Now()
		if err := h.halfOpen(h.stranger(), offer, 0); event.CodeOf(err) != event.CodeUnavailable {
			t.Errorf("step %d: at the limit: %v", steps, err)
		}
		late := newEar(false)
		ctx, cancel := context.WithTimeout(h.ctx, 12*time.Second)
		defer cancel()
		l, err := dialLight(ctx, offer, func(offer []byte) (id string, answer []byte, err error) {
			for {
				if id, answer, err = h.post(0)(offer); event.CodeOf(err) != event.CodeUnavailable || ctx.Err() != nil {
					return id, answer, err
				}
				time.Sleep(20 * time.Millisecond)
			}
		}, late.take, false)
		must(t, err)
		t.Cleanup(l.close)
		took := time.Since(begun)
		t.Logf("step %d: in after %v", steps, took)
		if took > most+2*time.Second {
			t.Errorf("step %d: in after %v", steps, took)
		}
		h.wait("the newcomer hears", func() bool { return late.count() > 5 })
		h.unnoticed(e)
	}
}

// One address has only so many places among those who do not play yet, once half of them are taken; others are let in.
func TestPendingOfOneAddress(t *testing.T) {
	h := newHall(t, "127.0.0.1:0", func(c *Config) { c.MaxPending, c.MaxPendingHost = 10, 3 })
	offer := plainOffer(t)
	var all []*light
	for range 8 {
		_, answer, err := h.engine.Answer(h.ctx, h.src, []byte(offer), 0)
		must(t, err)
		all = append(all, outsider(offer, answer))
	}
	answered := func(l *light, from string) bool {
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, net.UDPAddrFromAddrPort(h.port.Addr()))
		must(t, err)
		defer c.Close()
		_, _ = c.Write(l.check(true))
		_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		_, err = c.Read(make([]byte, 2048))
		return err == nil
	}
	for i, l := range all[:5] {
		if got := answered(l, "127.0.0.1"); got != (i < 3) {
			t.Errorf("session %d: answered %v", i, got)
		}
	}
	if !answered(all[5], "127.0.0.2") || !answered(all[0], "127.0.0.1") {
		t.Error("others are not answered")
	}
	if n := h.engine.Stats().Inbound["host"]; n != 2 {
		t.Errorf("%d were counted", n)
	}
	for _, l := range all[:3] {
		h.engine.drop(h.engine.find([]byte(l.names[:8])), -1)
	}
	if !answered(all[3], "127.0.0.1") {
		t.Error("who left still counts")
	}
	h.engine.mu.RLock()
	defer h.engine.mu.RUnlock()
	if n := len(h.engine.pending.hosts); n != 2 {
		t.Errorf("%d hosts are known", n)
	}
}

// Two sessions at one address take turns, but not for ever more memory; and none takes it from one who plays there.
func TestTugOfWar(t *testing.T) {
	h, l, e := staged(t)
	offer := plainOffer(t)
	var two []*light
	for range 2 {
		_, answer, err := h.engine.Answer(h.ctx, h.src, []byte(offer), 0)
		must(t, err)
		two = append(two, outsider(offer, answer))
	}
	c := h.stranger()
	answered := func(write func([]byte) (int, error), l *light, read func() bool) bool {
		_, err := write(l.check(false))
		must(t, err)
		return read()
	}
	buf := make([]byte, 2048)
	for i := range 2 * maxPaths {
		ok := answered(c.Write, two[i%2], func() bool {
			_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
			for {
				if _, err := c.Read(buf); err != nil || buf[0] == 1 {
					return err == nil
				}
			}
		})
		if !ok {
			t.Fatalf("turn %d is not answered", i)
		}
	}
	for _, l := range two {
		h.engine.mu.RLock()
		if n := len(h.engine.byUfrag[ufrag([]byte(l.names[:8]))].paths); n != 1 {
			t.Errorf("%d addresses", n)
		}
		h.engine.mu.RUnlock()
	}
	// From the listener's own socket.
	if err := l.write(two[0].check(true)); err != nil {
		t.Fatal(err)
	}
	h.wait("it is refused", func() bool { return h.engine.Stats().Inbound["taken"] == 1 })
	h.unnoticed(e)
	must(t, l.write(l.check(true)))
	h.wait("the listener's check is answered", func() bool {
		select {
		case <-l.checks:
			return true
		default:
			return false
		}
	})
}

// A session that ended while it said hello is not counted back to life, whoever waits for the last to go.
func TestQueueAfterTheEnd(t *testing.T) {
	h := newHall(t, "127.0.0.1:0", func(c *Config) { c.MaxHandshakes = -1 })
	id, _, err := h.engine.Answer(h.ctx, h.src, []byte(plainOffer(t)), 0)
	must(t, err)
	h.engine.mu.RLock()
	s := h.engine.sessions[id]
	h.engine.mu.RUnlock()
	h.engine.End(id)
	h.engine.queue(s)
	h.engine.shakeMu.Lock()
	defer h.engine.shakeMu.Unlock()
	if len(h.engine.line) != 0 {
		t.Error("it waits in line")
	}
}

// A handshake in ever new fragments is ended: the library would keep them all.
func TestFragmentsWithoutEnd(t *testing.T) {
	h, _, e := staged(t)
	c := h.stranger()
	must(t, h.halfOpen(c, plainOffer(t), 2))
	h.wait("it shakes hands", func() bool { return h.engine.shakes() == 1 })
	// The last message of a long flight, again and again in pieces of which the first never comes.
	fragment := make([]byte, recordHeader+12+1100)
	copy(fragment, []byte{22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, byte(1112 >> 8), 1112 & 0xff, 16, 0, 0x40, 0, 0, 3, 0, 8, 0, 0, 1100 >> 8, 1100 & 0xff})
	for i := range 200 {
		fragment[10], fragment[20] = byte(i), byte(i)
		_, _ = c.Write(fragment)
		if i%8 == 0 {
			time.Sleep(2 * time.Millisecond)
		}
	}
	h.wait("it is ended", func() bool { return h.engine.Stats().Dropped["protocol"] == 1 && h.engine.shakes() == 0 })
	h.unnoticed(e)
}

// shakes is how many are in the handshake.
func (e *Engine) shakes() int {
	e.shakeMu.Lock()
	defer e.shakeMu.Unlock()
	return len(e.shaking)
}

// What others send in a listener's name does not use up what the listener may send: its farewell is heard.
func TestForgeriesCostTheListenerNothing(t *testing.T) {
	h, l, e := staged(t)
	noise := append([]byte{0x81, 205}, make([]byte, 60)...)
	for i := range 4 * rtcpSaved {
		noise[20] = byte(i)
		noise[58] = 0x80 // encrypted, as everybody's is
		must(t, l.write(noise))
		if i%16 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	h.wait("they are refused", func() bool { return h.engine.Stats().Inbound["forged"] == 4*rtcpSaved })
	h.unnoticed(e)
	must(t, l.report(&rtcp.Goodbye{Sources: []uint32{1}}))
	h.wait("the farewell", func() bool { return h.engine.Stats().Listeners == 0 })
	if n := h.engine.Stats().Inbound["flood"]; n != 0 {
		t.Errorf("%d were too many", n)
	}
}

// overTCP makes a session's connection by TCP, and sends a check over it.
func (h *hall) overTCP(l *light) net.Conn {
	h.tb.Helper()
	c, err := net.Dial("tcp", h.port.Addr().String())
	must(h.tb, err)
	h.tb.Cleanup(func() { _ = c.Close() })
	_, err = c.Write(framed(l.check(true)))
	must(h.tb, err)
	return c
}

func framed(b []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...) }

// closes says whether the server ends a connection in time.
func closes(c net.Conn, within time.Duration) bool {
	_ = c.SetReadDeadline(time.Now().Add(within))
	_, err := io.Copy(io.Discard, c)
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// TCP connections end with their session, whatever its client does, and a session has only so many.
func TestTCPEndsWithItsSession(t *testing.T) {
	h := newHall(t, "127.0.0.1:0")
	offer := plainOffer(t)
	id, answer, err := h.engine.Answer(h.ctx, h.src, []byte(offer), 0)
	must(t, err)
	l := outsider(offer, answer)
	var conns []net.Conn
	for range tcpSession {
		c := h.overTCP(l)
		b := make([]byte, 2)
		_, err := io.ReadFull(c, b) // the answer has begun
		must(t, err)
		conns = append(conns, c)
	}
	if c := h.overTCP(l); !closes(c, 2*time.Second) || h.port.Strays()["tcp_limit"] != 1 {
		t.Errorf("one too many: %v", h.port.Strays())
	}
	if n := h.port.Connections(); n != tcpSession {
		t.Errorf("%d are open", n)
	}
	h.engine.End(id)
	for _, c := range conns {
		if !closes(c, time.Second) {
			t.Error("it stays open")
		}
	}
	// The other side does not close: it is closed all the same.
	h.wait("all descriptors are free", func() bool { return h.port.Connections() == 0 })
}

// What is not an authentic check keeps no connection open.
func TestTCPIdle(t *testing.T) {
	h := newHall(t, "127.0.0.1:0")
	u, tl, err := listenBoth(&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	port, err := newPort(u, tl, 600*time.Millisecond, slog.New(slog.DiscardHandler))
	must(t, err)
	t.Cleanup(func() { must(t, port.Close()) })
	port.engine.Store(h.engine)
	offer := plainOffer(t)
	for _, lives := range []bool{true, false} {
		_, answer, err := h.engine.Answer(h.ctx, h.src, []byte(offer), 0)
		must(t, err)
		l := outsider(offer, answer)
		c, err := net.Dial("tcp", port.Addr().String())
		must(t, err)
		defer c.Close()
		_, err = c.Write(framed(l.check(false)))
		must(t, err)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = io.Copy(io.Discard, c)
		}()
		begun := time.Now()
		for open := true; open && time.Since(begun) < 2*time.Second; {
			b := append([]byte{0x80, 111}, make([]byte, 50)...)
			if lives {
				b = l.check(false)
			}
			_, _ = c.Write(framed(b))
			select {
			case <-ended:
				open = false
			case <-time.After(50 * time.Millisecond):
			}
		}
		select {
		case <-ended:
			if lives {
				t.Error("it was closed")
			}
		default:
			if !lives {
				t.Error("it is open")
			}
		}
		_ = c.Close()
		<-ended
	}
}

// The connections of all are an eighth of the descriptors at most.
func TestTCPBudget(t *testing.T) {
	h := newHall(t, "127.0.0.1:0")
	if most := h.port.tcp.most; most > tcpMax || most > descriptors()/8 || most < 100 {
		t.Errorf("%d of %d descriptors", most, descriptors())
	}
}
