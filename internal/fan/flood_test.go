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

// Reports about ever new streams cost nothing: the server keeps nothing about streams that are not its own. Neither the flooder nor
// anybody else notices, and what was too much is counted.
func TestStreamsWithoutEnd(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	good, _ := h.listen(rig.PeerConfig{}, nil)
	bad, _ := h.listen(rig.PeerConfig{}, nil)
	for n := range uint32(3000) {
		must(t, bad.WriteRTCP(reports(1000*n, 31)))
	}
	for name, p := range map[string]*rig.Peer{"good": good, "bad": bad} {
		if r := h.heard(p, 50); r.Concealed > 0 {
			t.Errorf("%s: %d frames were lost", name, r.Concealed)
		}
	}
	if n := h.count("earshot_listener_inbound_total", "flood") + h.count("earshot_listener_inbound_total", "strange"); n < 1000 {
		t.Errorf("%v were counted", n)
	}
}

// Checks from ever new addresses are not answered for ever: each would be kept, and searched, for as long as the connection lasts.
func TestPathsWithoutEnd(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	names, pwd := h.credentials()
	ask := func(conn *net.UDPConn) bool {
		_, err := conn.Write(stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewUsername(names),
			stun.RawAttribute{Type: stun.AttrPriority, Value: []byte{1, 2, 3, 4}}, stun.NewShortTermIntegrity(pwd), stun.Fingerprint).Raw)
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
		_, _, err := h.fan.WHEP(h.ctx, h.source(), offer(t, "chromium-listener"), 0)
		must(t, err)
	}
	if _, _, err := h.fan.WHEP(h.ctx, h.source(), offer(t, "chromium-listener"), 0); event.CodeOf(err) != event.CodeUnavailable {
		t.Errorf("at the limit: %v", err)
	}
	must(t, first.Dial(h.ctx, func(offer []byte) (answer []byte, err error) {
		for {
			if _, answer, err = h.fan.WHEP(h.ctx, h.source(), offer, 0); event.CodeOf(err) != event.CodeUnavailable || time.Since(begun) > 10*time.Second {
				return answer, err
			}
			time.Sleep(50 * time.Millisecond)
		}
	}))
	h.heard(first, 10)
	// Who is connected is not given up.
	for range 20 {
		_, _, _ = h.fan.WHEP(h.ctx, h.source(), offer(t, "chromium-listener"), 0)
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
