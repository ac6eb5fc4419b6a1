package fan_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v4"

	"earshot/internal/event"
	"earshot/internal/fan"
	"earshot/internal/rig"
)

func (h *house) source() fan.Source {
	return fan.Source{Slug: "demo", Timeline: h.timeline, Audience: h.audience}
}

// listen connects a WebRTC listener.
func (h *house) listen(cfg rig.PeerConfig, relay *rig.Impair) (*rig.Peer, string) {
	h.t.Helper()
	cfg.Receive = true
	p, err := rig.NewPeer(cfg)
	must(h.t, err)
	h.t.Cleanup(func() { _ = p.Close() })
	var id string
	must(h.t, p.Dial(h.ctx, func(offer []byte) (answer []byte, err error) {
		id, answer, err = h.fan.WHEP(h.ctx, h.source(), offer, 0)
		if err == nil && relay != nil {
			answer = relay.Rewrite(answer)
		}
		return answer, err
	}))
	return p, id
}

func (h *house) heard(p *rig.Peer, n int) rig.Recording {
	h.t.Helper()
	p.Forget()
	h.wait("frames heard", func() bool { return len(p.Heard()) >= n })
	r, err := rig.Decode(p.Heard())
	must(h.t, err)
	return r
}

// WebRTC listeners of every kind hear the programme, each packet stamped with its frame.
func TestWHEP(t *testing.T) {
	for name, cfg := range map[string]rig.PeerConfig{"plain": {}, "red": {RED: true}, "nack": {NACK: true}, "tcp": {TCP: true}} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			p, id := h.listen(cfg, nil)
			r := h.heard(p, 100)
			if r.Concealed != 0 {
				t.Errorf("%d of %d frames never came", r.Concealed, r.Frames)
			}
			if n := uint64(r.First / 960); r.First%960 != 0 || n > h.timeline.Head() || n+1000 < h.timeline.Head() {
				t.Errorf("the first timestamp is %d, frame %d, with the head at %d", r.First, n, h.timeline.Head())
			}
			if level := rig.Goertzel(r.PCM[9600:], toneHz); level < -25 {
				t.Errorf("the tone is at %.1f dBFS", level)
			}
			repeats := 0
			for _, f := range p.Heard() {
				if f.Repeat {
					repeats++
				}
				// Bit for bit what the timeline holds.
				want, err := h.timeline.Frame(uint64(f.TS / 960))
				must(t, err)
				if !bytes.Equal(want.Packet, f.Payload) {
					t.Fatalf("frame %d was changed on its way", f.TS/960)
				}
			}
			if cfg.RED != (repeats > 0) {
				t.Errorf("%d repetitions", repeats)
			}
			if count, by := h.audience.Sweep(time.Now()); count.Now != 1 || by[0] != 1 {
				t.Errorf("the audience: %+v %v", count, by)
			}
			if !h.fan.EndWHEP(id) || h.fan.EndWHEP("guessed") {
				t.Error("ending by id")
			}
			select {
			case <-p.Down():
			case <-h.ctx.Done():
				t.Fatal("the listener was not told")
			}
			h.wait("it left", func() bool {
				return h.port.Connections() == 0 && h.count("earshot_listener_connections", "whep") == 0 && !h.fan.EndWHEP(id)
			})
		})
	}
}

// With RED, single losses are heard by nobody; with NACK few.
func TestWHEPLoss(t *testing.T) {
	h := newHouse(t)
	peers := map[string]*rig.Peer{}
	for name, cfg := range map[string]rig.PeerConfig{"plain": {}, "red": {RED: true}, "nack": {NACK: true}} {
		relay, err := rig.NewImpair(h.port.Addr(), 11, rig.Conditions{})
		must(t, err)
		t.Cleanup(func() { _ = relay.Close() })
		peers[name], _ = h.listen(cfg, relay)
		relay.Set(rig.Conditions{Loss: 0.05, Delay: 5 * time.Millisecond, Ordered: true})
		peers[name].Forget()
	}
	concealed := map[string]int{}
	for name, p := range peers {
		n := 250
		if name == "red" { // each packet brings two
			n = 500
		}
		h.wait("frames heard", func() bool { return len(p.Heard()) >= n })
		r, err := rig.Decode(p.Heard()[:n])
		must(t, err)
		concealed[name] = r.Concealed
	}
	t.Logf("seed 11, 5 %% loss, frames that never came: %v", concealed)
	if concealed["plain"] < 4 || concealed["red"]*3 > concealed["plain"] || concealed["nack"]*3 > concealed["plain"] {
		t.Errorf("frames that never came: %v", concealed)
	}
}

func TestWHEPEndsWithTheTimeline(t *testing.T) {
	h := newHouse(t)
	p, id := h.listen(rig.PeerConfig{}, nil)
	h.stop(true)
	select {
	case <-p.Down():
	case <-h.ctx.Done():
		t.Fatal("the listener was not told")
	}
	h.wait("forgotten", func() bool { return !h.fan.EndWHEP(id) })
	if _, _, err := h.fan.WHEP(h.ctx, h.source(), offer(t, "chromium-listener"), 0); event.CodeOf(err) != event.CodeConflict {
		t.Errorf("after the end: %v", err)
	}
}

func offer(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../peer/testdata/offers", name+".sdp"))
	must(t, err)
	return b
}

func TestWHEPRefuses(t *testing.T) {
	h := newHouse(t, func(c *fan.Config) { c.MaxPending = 2 })
	good := string(offer(t, "chromium-listener"))
	for name, bad := range map[string]string{
		"empty": "", "garbage": "\x16\x03\x01", "sendonly": strings.ReplaceAll(good, "a=recvonly", "a=sendonly"),
		"no opus": strings.ReplaceAll(good, "opus/48000/2", "L16/48000"),
	} {
		if _, _, err := h.fan.WHEP(h.ctx, h.source(), []byte(bad), 0); event.CodeOf(err) != event.CodeInvalid {
			t.Errorf("%s: %v, want invalid", name, err)
		}
	}
	var ids []string
	for range 2 {
		id, _, err := h.fan.WHEP(h.ctx, h.source(), []byte(good), 0)
		must(t, err)
		ids = append(ids, id)
	}
	if _, _, err := h.fan.WHEP(h.ctx, h.source(), []byte(good), 0); event.CodeOf(err) != event.CodeUnavailable {
		t.Errorf("a third pending one: %v, want unavailable", err)
	}
	for _, id := range ids {
		h.fan.EndWHEP(id)
	}
	h.wait("room again", func() bool {
		id, _, err := h.fan.WHEP(h.ctx, h.source(), []byte(good), 0)
		h.fan.EndWHEP(id)
		return err == nil
	})
}

func TestAdvertise(t *testing.T) {
	h := newHouse(t, func(c *fan.Config) {
		c.Advertise = []netip.Addr{netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("198.51.100.9")}
	})
	_, answer, err := h.fan.WHEP(h.ctx, h.source(), offer(t, "chromium-listener"), 0)
	must(t, err)
	sdp := string(answer)
	for _, want := range []string{" udp 2130706431 203.0.113.7 ", " 198.51.100.9 ", "tcptype passive", "a=sendonly", "a=setup:passive", "a=ice-lite"} {
		if !strings.Contains(sdp, want) {
			t.Errorf("the answer lacks %q:\n%s", want, sdp)
		}
	}
	if strings.Contains(sdp, " 127.0.0.1 ") {
		t.Errorf("the answer gives the inner address away:\n%s", sdp)
	}
}

// A server that listens on all addresses is reached on each of its interfaces, or on loopback if it has no other.
func TestUnspecified(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":0"} {
		port, err := fan.Listen(addr, rig.Quiet())
		must(t, err)
		h := newHouse(t, func(c *fan.Config) { c.Port = port })
		_, answer, err := h.fan.WHEP(h.ctx, h.source(), offer(t, "chromium-listener"), 0)
		must(t, err)
		if n := strings.Count(string(answer), "a=candidate:"); n == 0 || strings.Contains(string(answer), " 0.0.0.0 "+strconv.Itoa(int(port.Addr().Port()))) {
			t.Errorf("%s: %d candidates:\n%s", addr, n, answer)
		}
		p, _ := h.listen(rig.PeerConfig{}, nil)
		h.heard(p, 25)
		must(t, p.Close())
		must(t, h.fan.Shutdown(h.ctx, 0))
		must(t, port.Close())
	}
}

// What strangers throw at either port is dropped unanswered, and those connected hear on.
func TestGarbage(t *testing.T) {
	h := newHouse(t)
	p, _ := h.listen(rig.PeerConfig{}, nil)
	tcp, _ := h.listen(rig.PeerConfig{TCP: true}, nil)
	h.heard(p, 10)
	h.heard(tcp, 10)

	stranger, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(h.port.Addr()))
	must(t, err)
	defer stranger.Close()
	binding := stun.MustBuild(stun.TransactionID, stun.BindingRequest).Raw
	named := stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewUsername("who:are"), stun.NewShortTermIntegrity("you"), stun.Fingerprint).Raw
	hello := append([]byte{22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 200}, make([]byte, 100)...) // a DTLS record, cut off
	noise := make([]byte, 1400)
	_, _ = rand.Read(noise)
	for i := range 300 {
		for _, b := range [][]byte{binding, named, hello, noise[:i*4], {}, {0}, {0x80, 111}, binding[:12], append([]byte{0x80, 111}, noise...)} {
			_, _ = stranger.Write(b)
		}
	}
	for _, b := range [][]byte{
		[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), noise,
		{0, 20},
		append([]byte{0, byte(len(binding))}, binding...),
		{0xff, 0xff, 1},
		append([]byte{0, byte(len(named))}, named...),
	} {
		c, err := net.Dial("tcp", h.port.Addr().String())
		must(t, err)
		_, _ = c.Write(b)
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, _ := c.Read(make([]byte, 100)); n > 0 {
			t.Errorf("%d bytes came back over TCP for %q", n, b[:min(len(b), 20)])
		}
		defer c.Close()
	}
	_ = stranger.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, err := stranger.Read(noise); err == nil {
		t.Errorf("the server answered a stranger with %d bytes", n)
	}
	for name, p := range map[string]*rig.Peer{"udp": p, "tcp": tcp} {
		if r := h.heard(p, 50); r.Concealed > 0 {
			t.Errorf("%s: %d frames were lost", name, r.Concealed)
		}
	}
	strays := h.port.Strays()
	for reason, least := range map[string]uint64{"unknown": 300, "stun_malformed": 300, "stun_unsigned": 300} {
		if strays[reason] < least/2 { // the socket may drop some itself
			t.Errorf("strays: %v, want about %d %s", strays, least, reason)
		}
	}
}

// credentials answers an offer and gives what its checks need: the user name and the password.
func (h *house) credentials() (names, pwd string) {
	h.t.Helper()
	_, answer, err := h.fan.WHEP(h.ctx, h.source(), offer(h.t, "chromium-listener"), 0)
	must(h.t, err)
	value := func(sdp []byte, key string) string {
		_, rest, _ := strings.Cut(string(sdp), "a="+key+":")
		v, _, _ := strings.Cut(rest, "\r\n")
		return v
	}
	return value(answer, "ice-ufrag") + ":" + value(offer(h.t, "chromium-listener"), "ice-ufrag"), value(answer, "ice-pwd")
}

// A check with the right names and the wrong key gets no answer: integrity comes before everything.
func TestNoReplyBeforeIntegrity(t *testing.T) {
	h := newHouse(t)
	names, pwd := h.credentials()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(h.port.Addr()))
	must(t, err)
	defer conn.Close()
	ask := func(key string) int {
		_, err := conn.Write(stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewUsername(names),
			stun.RawAttribute{Type: stun.AttrPriority, Value: []byte{1, 2, 3, 4}}, stun.NewShortTermIntegrity(key), stun.Fingerprint).Raw)
		must(t, err)
		_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := conn.Read(make([]byte, 1500))
		if err != nil {
			return 0
		}
		return n
	}
	if n := ask("wrong" + pwd); n != 0 {
		t.Errorf("%d bytes answer a check with a wrong key", n)
	}
	_, _ = conn.Write([]byte{22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1})
	_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := conn.Read(make([]byte, 1500)); err == nil {
		t.Errorf("%d bytes answer DTLS from an address without a check", n)
	}
	if ask(pwd) == 0 {
		t.Error("a good check gets no answer")
	}
}

func TestPortTaken(t *testing.T) {
	first, err := fan.Listen("127.0.0.1:0", rig.Quiet())
	must(t, err)
	defer first.Close()
	_, err = fan.Listen(first.Addr().String(), rig.Quiet())
	if err == nil || !strings.Contains(err.Error(), "another program uses this port") {
		t.Errorf("a taken port: %v", err)
	}
	for _, bad := range []string{"", "127.0.0.1", "127.0.0.1:99999", "nowhere.invalid:1"} {
		if p, err := fan.Listen(bad, rig.Quiet()); err == nil && bad != "" {
			_ = p.Close()
			t.Errorf("%q was taken", bad)
		}
	}
}

// Closing the port does not wait for strangers who say nothing.
func TestPortCloses(t *testing.T) {
	p, err := fan.Listen("127.0.0.1:0", rig.Quiet())
	must(t, err)
	c, err := net.Dial("tcp", p.Addr().String())
	must(t, err)
	defer c.Close()
	_, _ = c.Write([]byte{0})
	closed := make(chan error)
	go func() { closed <- p.Close() }()
	select {
	case <-closed:
	case <-time.After(3 * time.Second):
		t.Fatal("the port does not close")
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the stranger's connection: %v", err)
	}
}

func TestShutdownTwice(t *testing.T) {
	h := newHouse(t)
	p, _ := h.listen(rig.PeerConfig{}, nil)
	h.heard(p, 1)
	for range 2 {
		must(t, h.fan.Shutdown(context.Background(), time.Second))
	}
	<-p.Down()
	if _, _, err := h.fan.WHEP(h.ctx, h.source(), offer(t, "chromium-listener"), 0); event.CodeOf(err) != event.CodeUnavailable {
		t.Errorf("after Shutdown: %v", err)
	}
}
