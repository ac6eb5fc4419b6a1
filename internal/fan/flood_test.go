package fan_test

import (
	"net"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/stun/v4"

	"earshot/internal/event"
	"earshot/internal/fan"
	"earshot/internal/rig"
)

// A listener whose reports name ever new streams is cut off: each would take memory for as long as the connection lasts. One with
// the few streams of a browser stays.
func TestStreamsWithoutEnd(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	good, _ := h.listen(rig.PeerConfig{}, nil)
	bad, _ := h.listen(rig.PeerConfig{}, nil)
	must(t, good.WriteRTCP(reports(1, 4)))
	for n := range uint32(10) {
		if bad.WriteRTCP(reports(1000*n, 31)) != nil {
			break // cut already
		}
	}
	select {
	case <-bad.Down():
	case <-time.After(10 * time.Second):
		t.Error("the flooder stays connected")
	}
	h.heard(good, 10)
	select {
	case <-good.Down():
		t.Error("the other one was cut off")
	default:
	}
	// Reports go on being read when some of the streams in them are full.
	for range 3000 {
		must(t, good.WriteRTCP(reports(1, 4)))
	}
	h.heard(good, 10)
}

// Checks from ever new addresses are not answered for ever: each would be kept, and searched, for as long as the connection lasts.
func TestPathsWithoutEnd(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	names, pwd := h.credentials()
	check := stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewUsername(names),
		stun.RawAttribute{Type: stun.AttrPriority, Value: []byte{1, 2, 3, 4}}, stun.NewShortTermIntegrity(pwd), stun.Fingerprint).Raw
	ask := func(conn *net.UDPConn) bool {
		_, err := conn.Write(check)
		must(t, err)
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		_, err = conn.Read(make([]byte, 1500))
		return err == nil
	}
	var first *net.UDPConn
	for n := range 200 {
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(h.port.Addr()))
		must(t, err)
		defer conn.Close()
		if first == nil {
			first = conn
		}
		if !ask(conn) {
			if n < 100 {
				t.Errorf("only %d addresses are answered", n)
			}
			if !ask(first) {
				t.Error("nor is the first any more")
			}
			return
		}
	}
	t.Error("every address is answered")
}

// Offers that nobody follows up keep a listener out for two seconds, not until their time is up.
func TestOffersWithoutEnd(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(c *fan.Config) { c.MaxPending = 5 })
	first, err := rig.NewPeer(rig.PeerConfig{Receive: true})
	must(t, err)
	h.t.Cleanup(func() { _ = first.Close() })
	begun := time.Now()
	for range 5 {
		_, _, err := h.fan.WHEP(h.ctx, h.source(), offer(t, "chromium-listener"), 20)
		must(t, err)
	}
	if _, _, err := h.fan.WHEP(h.ctx, h.source(), offer(t, "chromium-listener"), 20); event.CodeOf(err) != event.CodeBusy {
		t.Errorf("at the limit: %v", err)
	}
	must(t, first.Dial(h.ctx, func(offer []byte) (answer []byte, err error) {
		for {
			if _, answer, err = h.fan.WHEP(h.ctx, h.source(), offer, 20); event.CodeOf(err) != event.CodeBusy || time.Since(begun) > 10*time.Second {
				return answer, err
			}
			time.Sleep(50 * time.Millisecond)
		}
	}))
	h.heard(first, 10)
	// Who is connected is not given up.
	for range 20 {
		_, _, _ = h.fan.WHEP(h.ctx, h.source(), offer(t, "chromium-listener"), 20)
	}
	h.heard(first, 10)
}

func reports(first, n uint32) rtcp.Packet {
	r := &rtcp.ReceiverReport{SSRC: first}
	for i := range n {
		r.Reports = append(r.Reports, rtcp.ReceptionReport{SSRC: first + i})
	}
	return r
}
