package whep

import (
	"bytes"
	"context"
	"crypto/rand"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/stun/v4"
)

// stage puts one listener among strangers, who must not be noticed.
func staged(t *testing.T, change ...func(*Config)) (h *hall, l *light, e *ear) {
	h = newHall(t, "127.0.0.1:0", change...)
	h.play()
	e = newEar(false)
	l = h.dial(nackOffer(t), 0, e.take)
	h.wait("audio", func() bool { return e.count() > 5 })
	return h, l, e
}

func (h *hall) unnoticed(e *ear) {
	h.tb.Helper()
	n := e.count()
	h.wait("the listener hears on", func() bool { return e.count() > n+20 })
	if missing, total := e.missing(); missing != 0 {
		h.tb.Errorf("the listener misses %d of %d frames", missing, total)
	}
}

func (h *hall) stranger() *net.UDPConn {
	h.tb.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(h.port.Addr()))
	must(h.tb, err)
	h.tb.Cleanup(func() { _ = c.Close() })
	return c
}

// outsider has what a session's checks need, and no socket.
func outsider(offer string, answer []byte) *light {
	return &light{
		names: sdpValue(string(answer), "ice-ufrag") + ":" + sdpValue(offer, "ice-ufrag"), pwd: sdpValue(string(answer), "ice-pwd"),
		own: sdpValue(offer, "ice-pwd"),
	}
}

// silent fails if anything was answered.
func silent(t *testing.T, what string, conns ...*net.UDPConn) {
	t.Helper()
	for _, c := range conns {
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if n, err := c.Read(make([]byte, 2048)); err == nil {
			t.Errorf("%s: answered with %d bytes", what, n)
		}
	}
}

// hello is what a DTLS client begins with.
func hello() []byte {
	body := append([]byte{1, 0, 0, 40, 0, 0, 0, 0, 0, 0, 0, 40, 0xfe, 0xfd}, make([]byte, 38)...)
	return append([]byte{22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(len(body))}, body...)
}

// Nothing that a stranger sends is answered or kept, whatever it is like, from however many addresses.
func TestStrangers(t *testing.T) {
	h, l, e := staged(t)
	noise := make([]byte, 1200)
	_, _ = rand.Read(noise)
	other := light{names: "nobodyis:here", pwd: "nobody's password is this"}
	forged := light{names: l.names, pwd: "not the password at all"}
	media := append([]byte{0x80, 111}, noise...)
	feedback := append([]byte{0x81, 201}, noise[:60]...)
	record := append([]byte{23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 7, 0, 40}, noise[:40]...)
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const addresses, each = 200, 20
	var conns []*net.UDPConn
	for range addresses {
		c := h.stranger()
		conns = append(conns, c)
		for range each {
			for _, b := range [][]byte{hello(), forged.check(true), other.check(true), media, feedback, record, noise[:100]} {
				_, _ = c.Write(b)
			}
		}
		time.Sleep(time.Millisecond)
	}
	h.unnoticed(e)
	silent(t, "strangers", conns[0], conns[addresses/2], conns[addresses-1])
	h.port.speakers.mu.RLock()
	known := len(h.port.speakers.known)
	h.port.speakers.mu.RUnlock()
	h.engine.mu.RLock()
	paths := len(h.engine.byPath)
	h.engine.mu.RUnlock()
	if known != 0 || paths != 1 {
		t.Errorf("kept: %d addresses of speakers, %d of listeners", known, paths)
	}
	var after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	strays := h.port.Strays()
	for reason, least := range map[string]uint64{"stranger": addresses * each, "stun_forged": addresses * each / 4} {
		if strays[reason] < least/2 {
			t.Errorf("strays: %v, want about %d of %s", strays, least, reason)
		}
	}
}

// A check that somebody overheard and sends from elsewhere moves nothing, and what the server sent comes back in vain.
func TestReplayAndReflection(t *testing.T) {
	h := newHall(t, "127.0.0.1:0")
	h.play()
	e := newEar(false)
	l := h.dial(nackOffer(t), 0, e.take)
	h.wait("audio", func() bool { return e.count() > 5 })
	check := l.check(true)
	must(t, l.write(check))
	h.wait("the answer", func() bool {
		select {
		case <-l.checks:
			return true
		default:
			return false
		}
	})
	thief := h.stranger()
	for range 10 {
		_, _ = thief.Write(check)
	}
	silent(t, "a replayed check", thief)
	// The client itself may repeat it.
	must(t, l.write(check))
	h.wait("the answer", func() bool {
		select {
		case <-l.checks:
			return true
		default:
			return false
		}
	})
	h.engine.mu.RLock()
	s := h.engine.sessions[l.id]
	h.engine.mu.RUnlock()

	// Its own reports, sent twice.
	plain, err := rtcp.Marshal([]rtcp.Packet{&rtcp.ReceiverReport{SSRC: 1, Reports: []rtcp.ReceptionReport{{SSRC: s.ssrc, FractionLost: 64, Jitter: 480}}}})
	must(t, err)
	sealed, err := l.out.EncryptRTCP(nil, plain, nil)
	must(t, err)
	for range 5 {
		must(t, l.write(sealed))
	}
	h.wait("one report, four replays", func() bool {
		st := h.engine.Stats()
		return st.Reports == 1 && st.Inbound["forged"] == 4 && st.Loss == 0.25 && st.Jitter == 10*time.Millisecond
	})
	// The server's words: media, a report, a farewell.
	s.mu.Lock()
	ours := *s.records
	s.mu.Unlock()
	bye, err := ours.goodbye()
	must(t, err)
	b := make([]byte, 200)
	n := report(b, s.ssrc, time.Now(), 1, 1, 1)
	n, err = s.keys.sealRTCP(b, n, 1000)
	must(t, err)
	for _, d := range [][]byte{bye, b[:n], append([]byte{0x80, 111}, b[:60]...)} {
		must(t, l.write(d))
	}
	h.wait("all in vain", func() bool {
		st := h.engine.Stats()
		return st.Inbound["forged"] == 6 && st.Inbound["unwanted"] == 1
	})
	h.unnoticed(e)
	if st := h.engine.Stats(); st.Inbound["replay"] < 10 || st.Listeners != 1 {
		t.Errorf("counted: %+v", st)
	}
}

// A farewell or a report that is not authentic is not believed, and a flood of them costs nobody else anything.
func TestForgeriesFromAListenersAddress(t *testing.T) {
	h, l, e := staged(t)
	noise := make([]byte, 400)
	_, _ = rand.Read(noise)
	for i := range 3000 {
		alert := append([]byte{21, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, byte(i >> 8), byte(i), 0, 26}, noise[:26]...)
		for _, b := range [][]byte{alert, append([]byte{0x81, 201}, noise[:i%80]...), append([]byte{0x81, 205}, noise[:40]...), {21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0}} {
			_ = l.write(b)
		}
		if i%100 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	h.unnoticed(e)
	st := h.engine.Stats()
	if st.Listeners != 1 || st.Inbound["flood"] < 1000 || st.Inbound["forged"] == 0 {
		t.Errorf("counted: %+v", st)
	}
}

// Half-open handshakes do not keep a newcomer out.
func TestHandshakesWithoutEnd(t *testing.T) {
	h, _, e := staged(t, func(c *Config) { c.MaxHandshakes = 4 })
	offer := lightOffer(t)
	for range 16 { // says hello to DTLS, and no more
		_, answer, err := h.engine.Answer(h.ctx, h.src, []byte(offer), 0)
		must(t, err)
		l := outsider(offer, answer)
		c := h.stranger()
		_, _ = c.Write(l.check(true))
		must(t, l.prove(c))
		_, _ = c.Write(hello())
	}
	before := runtime.NumGoroutine()
	begun := time.Now()
	late := newEar(true)
	ctx, cancel := context.WithTimeout(h.ctx, 40*time.Second)
	defer cancel()
	// The same patience as a browser's.
	var l *light
	for l == nil {
		var err error
		if l, err = dialLight(ctx, offer, h.post(0), late.take, false); err != nil && ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(l.close)
	h.wait("the newcomer hears", func() bool { return late.count() > 10 })
	t.Logf("in after %v", time.Since(begun))
	if n := runtime.NumGoroutine(); n > before+40 {
		t.Errorf("%d goroutines", n)
	}
	h.unnoticed(e)
	if st := h.engine.Stats(); st.Dropped["no_handshake"] == 0 {
		t.Errorf("counted: %+v", st)
	}
}

// The certificate must be the one that the offer named.
func TestOtherCertificate(t *testing.T) {
	h, _, e := staged(t)
	offer := lightOffer(t)
	fp := sdpValue(offer, "fingerprint")
	flip := "0"
	if fp[8] == '0' {
		flip = "1"
	}
	wrong := bytes.Replace([]byte(offer), []byte(fp), []byte(fp[:8]+flip+fp[9:]), 1)
	ctx, cancel := context.WithTimeout(h.ctx, 5*time.Second)
	defer cancel()
	if l, err := dialLight(ctx, string(wrong), h.post(0), nil, false); err == nil {
		l.close()
		t.Error("another certificate was taken")
	}
	h.wait("it was given up", func() bool { return h.engine.Stats().Dropped["certificate"] == 1 })
	h.unnoticed(e)
}

// Who sends no checks any more is given up; a check with the wrong key does not help.
func TestConsent(t *testing.T) {
	h := newHall(t, "127.0.0.1:0", func(c *Config) { c.Silent = 1500 * time.Millisecond })
	h.play()
	good, bad := newEar(false), newEar(false)
	lg, lb := h.dial(plainOffer(t), 0, good.take), h.dial(plainOffer(t), 0, bad.take)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		forged := light{names: lb.names, pwd: "not the password at all"}
		for {
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Millisecond):
				_ = lg.write(lg.check(false))
				_ = lb.write(forged.check(true))
			}
		}
	})
	defer func() { close(stop); wg.Wait() }()
	h.wait("the silent one is given up", func() bool { return h.engine.Stats().Dropped["lost"] == 1 })
	if !lb.told(5 * time.Second) {
		t.Error("it was not told")
	}
	h.unnoticed(good)
	if n := h.engine.Stats().Listeners; n != 1 {
		t.Errorf("%d listeners", n)
	}
}

// A listener who moves to another address takes the audio along, and only then.
func TestMoves(t *testing.T) {
	h := newHall(t, "127.0.0.1:0")
	h.play()
	e := newEar(false)
	l := h.dial(plainOffer(t), 0, e.take)
	h.wait("audio", func() bool { return e.count() > 5 })
	side, home := h.stranger(), h.stranger()
	_, _ = side.Write(l.check(false)) // looks whether this way works, and does not take it
	read := func(c *net.UDPConn) []byte {
		b := make([]byte, 2048)
		_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
		n, err := c.Read(b)
		must(t, err)
		return b[:n]
	}
	if b := read(side); b[0] != 1 {
		t.Errorf("the check was answered with %x", b)
	}
	silent(t, "a way that was not nominated", side)
	_, _ = home.Write(l.check(true))
	must(t, l.prove(home))
	if b := read(home); b[0]&0xc0 != 0x80 {
		t.Errorf("no audio at the new address: %x", b[:20])
	}
}

// Who has a session's password, or overheard a check, and not what the client alone has, moves nothing: no audio goes to an address that
// did not answer for it, whatever it sends, and the listener hears on.
func TestNobodyIsMovedWithoutProof(t *testing.T) {
	h, l, e := staged(t)
	victim := h.stranger()
	spent, got, media := 0, 0, 0
	buf := make([]byte, 2048)
	for range 30 {
		b := l.check(true)
		n, _ := victim.Write(b)
		spent += n
		forged, err := stun.Build(stun.TransactionID, stun.BindingSuccess, stun.NewShortTermIntegrity(l.own), stun.Fingerprint)
		must(t, err)
		_, _ = victim.Write(forged.Raw) // the right key, to a question that nobody asked
		for {
			_ = victim.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			n, err := victim.Read(buf)
			if err != nil {
				break
			}
			got += n
			if buf[0] > 3 {
				media++
			}
			if n > len(b) {
				t.Errorf("%d bytes answer %d", n, len(b))
			}
			if buf[0] == 0 { // the question's own transaction, signed with another's key
				id := [stun.TransactionIDSize]byte(buf[8:20])
				forged, err := stun.Build(stun.NewTransactionIDSetter(id), stun.BindingSuccess, stun.NewShortTermIntegrity(l.pwd), stun.Fingerprint)
				must(t, err)
				_, _ = victim.Write(forged.Raw)
			}
		}
	}
	h.unnoticed(e)
	t.Logf("%d bytes of checks were answered by %d", spent, got)
	if media > 0 || got > 2*spent {
		t.Errorf("%d packets of media, %d bytes for %d", media, got, spent)
	}
	if n := h.port.Strays()["stranger"]; n == 0 {
		t.Error("false answers were not counted")
	}
}

// Before it has answered a question, an address is sent no flight of DTLS, which is ten times as long as what asks for it; who answers
// late is connected then.
func TestNoFlightWithoutProof(t *testing.T) {
	h := newHall(t, "127.0.0.1:0")
	h.play()
	offer := plainOffer(t)
	_, answer, err := h.engine.Answer(h.ctx, h.src, []byte(offer), 0)
	must(t, err)
	l, c := outsider(offer, answer), h.stranger()
	spent := 0
	for range 5 {
		for _, b := range [][]byte{l.check(true), hello()} {
			n, _ := c.Write(b)
			spent += n
		}
	}
	got, buf := 0, make([]byte, 2048)
	for {
		_ = c.SetReadDeadline(time.Now().Add(1500 * time.Millisecond)) // the library repeats its flight after one
		n, err := c.Read(buf)
		if err != nil {
			break
		}
		got += n
		if buf[0] > 3 {
			t.Errorf("%d bytes of DTLS", n)
		}
	}
	if got > spent {
		t.Errorf("%d bytes for %d", got, spent)
	}
	// A client whose first answers are lost.
	e := newEar(false)
	late, err := dialLightBy(h.ctx, plainOffer(t), h.post(0), e.take, false, func(l *light) {
		l.mute.Store(true)
		time.AfterFunc(700*time.Millisecond, func() { l.mute.Store(false) })
	})
	must(t, err)
	t.Cleanup(late.close)
	h.wait("audio", func() bool { return e.count() > 5 })
	if n := late.asked.Load(); n < 2 {
		t.Errorf("it was asked %d times", n)
	}
}

// A client whose address changes and who nominates is followed at once; one who does not know that it did, within some seconds.
func TestFollowed(t *testing.T) {
	h := newHall(t, "127.0.0.1:0")
	h.play()
	for _, nominates := range []bool{true, false} {
		e := newEar(false)
		l := h.dial(plainOffer(t), 0, e.take)
		h.wait("audio", func() bool { return e.count() > 5 })
		relocated := h.stranger()
		begun, buf := time.Now(), make([]byte, 2048)
		for media := false; !media; {
			_, _ = relocated.Write(l.check(nominates))
			_ = relocated.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			for !media {
				n, err := relocated.Read(buf)
				if err != nil {
					break
				}
				if buf[0] == 0 {
					answer, err := answerCheck(buf[:n], l.names, l.own, relocated.RemoteAddr())
					must(t, err)
					_, _ = relocated.Write(answer)
				}
				media = buf[0] >= 128
			}
			if time.Since(begun) > 10*time.Second {
				t.Fatal("not followed")
			}
		}
		took := time.Since(begun)
		t.Logf("nominates %v: followed after %v", nominates, took)
		if nominates && took > time.Second {
			t.Error("too late")
		}
		if !nominates && took < 2*time.Second {
			t.Error("a look aside moved a session")
		}
	}
}

// No answer is longer than its question.
func TestNoAmplification(t *testing.T) {
	h, l, _ := staged(t)
	c := h.stranger()
	with := []stun.Setter{stun.TransactionID, stun.BindingRequest, stun.NewUsername(l.names[:8]), stun.NewShortTermIntegrity(l.pwd)}
	small := stun.MustBuild(with...).Raw
	_, _ = c.Write(small)
	_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	n, _ := c.Read(make([]byte, 1500))
	if n > len(small) {
		t.Errorf("%d bytes answer %d", n, len(small))
	}
	big := l.check(false)
	_, _ = c.Write(big)
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
	b := make([]byte, 1500)
	if n, _ = c.Read(b); n == 0 || n > len(big) {
		t.Errorf("%d bytes answer %d", n, len(big))
	}
	// And it is what a client needs.
	m := &stun.Message{Raw: b[:n]}
	must(t, m.Decode())
	var at stun.XORMappedAddress
	must(t, at.GetFrom(m))
	if want := c.LocalAddr().(*net.UDPAddr); at.Port != want.Port || !at.IP.Equal(want.IP) {
		t.Errorf("the address is %v, want %v", at, want)
	}
	must(t, stun.NewShortTermIntegrity(l.pwd).Check(m))
	must(t, stun.Fingerprint.Check(m))
}

// A listener over TCP who stops reading loses packets, and keeps nobody waiting.
func TestStalledTCP(t *testing.T) {
	h, _, e := staged(t)
	_, answer, err := h.engine.Answer(h.ctx, h.src, []byte(lightOffer(t)), 0)
	must(t, err)
	l := &light{names: sdpValue(string(answer), "ice-ufrag") + ":x", pwd: sdpValue(string(answer), "ice-pwd")}
	c, err := net.Dial("tcp", h.port.Addr().String())
	must(t, err)
	defer c.Close()
	// One byte at a time, then a flood of checks whose answers nobody reads.
	for _, v := range framed(l.check(true)) {
		_, err := c.Write([]byte{v})
		must(t, err)
	}
	var head [2]byte
	_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
	if _, err := c.Read(head[:]); err != nil || head != [2]byte{0, 64} {
		t.Fatalf("the answer begins with %x, %v", head, err)
	}
	for range 40_000 {
		_ = c.SetWriteDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write(framed(l.check(false))); err != nil {
			t.Fatal(err)
		}
		if h.engine.Stats().Dropped["queue"] > 0 {
			break
		}
	}
	h.wait("packets are dropped", func() bool { return h.engine.Stats().Dropped["queue"] > 0 })
	h.unnoticed(e)
}
