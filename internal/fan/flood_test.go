package fan_test

import (
	"net"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/stun/v4"

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

func reports(first, n uint32) rtcp.Packet {
	r := &rtcp.ReceiverReport{SSRC: first}
	for i := range n {
		r.Reports = append(r.Reports, rtcp.ReceptionReport{SSRC: first + i})
	}
	return r
}
