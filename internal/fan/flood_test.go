package fan_test

import (
	"testing"
	"time"

	"github.com/pion/rtcp"

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

func reports(first, n uint32) rtcp.Packet {
	r := &rtcp.ReceiverReport{SSRC: first}
	for i := range n {
		r.Reports = append(r.Reports, rtcp.ReceptionReport{SSRC: first + i})
	}
	return r
}
