package whep

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
	"github.com/pion/stun/v4"

	"earshot/internal/event"
	"earshot/internal/observatory"
	"earshot/internal/timeline"
)

// light is a WebRTC listener of a few kilobytes: real checks, a real handshake by the library's client, real SRTP, and nothing else.
type light struct {
	conn       net.PacketConn
	server     net.Addr
	names, pwd string
	own        string      // its own password
	mute       atomic.Bool // it answers no checks
	asked      atomic.Int64
	id         string
	dtls       *dtls.Conn
	quiet      atomic.Bool // what DTLS sends is swallowed
	in         atomic.Pointer[srtp.Context]
	out        *srtp.Context
	ssrc       uint32
	heard      func(p *rtp.Packet) // called by the reader; nil: nobody listens

	hellos chan []byte // DTLS records for the library
	checks chan []byte // answers to checks
	ended  chan struct{}
	once   sync.Once
	wg     sync.WaitGroup
}

var lightCert = func() tls.Certificate {
	c, _, err := selfSigned()
	if err != nil {
		panic(err)
	}
	return c
}()

// lightOffer is Chromium's, with this client's fingerprint.
func lightOffer(tb testing.TB, change ...string) string {
	tb.Helper()
	b, err := os.ReadFile("../../peer/testdata/offers/chromium-listener.sdp")
	if err != nil {
		tb.Fatal(err)
	}
	sum := sha256.Sum256(lightCert.Certificate[0])
	var hex []string
	for _, v := range sum {
		hex = append(hex, fmt.Sprintf("%02X", v))
	}
	var out strings.Builder
	for l := range strings.Lines(string(b)) {
		if strings.HasPrefix(l, "a=fingerprint:") {
			l = "a=fingerprint:sha-256 " + strings.Join(hex, ":") + "\r\n"
		}
		out.WriteString(l)
	}
	return strings.NewReplacer(change...).Replace(out.String())
}

// plainOffer has no RED.
func plainOffer(tb testing.TB) string { return lightOffer(tb, "a=rtpmap:63 red/48000/2", "a=x:y") }

// nackOffer has NACK, and no RED.
func nackOffer(tb testing.TB) string {
	return lightOffer(tb, "a=rtpmap:63 red/48000/2", "a=rtcp-fb:111 nack")
}

func sdpValue(sdp, key string) string {
	_, rest, _ := strings.Cut(sdp, "a="+key+":")
	v, _, _ := strings.Cut(rest, "\r\n")
	return v
}

// dialLight connects a listener. heard may be nil.
func dialLight(ctx context.Context, offer string, post func(offer []byte) (string, []byte, error), heard func(p *rtp.Packet), old bool) (*light, error) {
	return dialLightBy(ctx, offer, post, heard, old, func(*light) {})
}

// dialLightBy changes the listener before it begins.
func dialLightBy(ctx context.Context, offer string, post func(offer []byte) (string, []byte, error), heard func(p *rtp.Packet), old bool, change func(*light)) (*light, error) {
	id, answer, err := post([]byte(offer))
	if err != nil {
		return nil, err
	}
	l := &light{
		id: id, heard: heard, hellos: make(chan []byte, 64), checks: make(chan []byte, 8), ended: make(chan struct{}),
		names: sdpValue(string(answer), "ice-ufrag") + ":" + sdpValue(offer, "ice-ufrag"), pwd: sdpValue(string(answer), "ice-pwd"),
		own: sdpValue(offer, "ice-pwd"),
	}
	ssrc, _ := strconv.ParseUint(strings.Fields(sdpValue(string(answer), "ssrc"))[0], 10, 32)
	l.ssrc = uint32(ssrc)
	f := strings.Fields(sdpValue(string(answer), "candidate"))
	to, err := netip.ParseAddrPort(net.JoinHostPort(f[4], f[5]))
	if err != nil {
		return nil, err
	}
	l.server = net.UDPAddrFromAddrPort(to)
	if l.conn, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(f[4])}); err != nil {
		return nil, err
	}
	change(l)
	l.wg.Go(l.read)
	if err := l.connect(ctx, old); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *light) check(nominate bool) []byte {
	with := []stun.Setter{
		stun.TransactionID, stun.BindingRequest, stun.NewUsername(l.names),
		stun.RawAttribute{Type: stun.AttrPriority, Value: []byte{1, 2, 3, 4}},
		stun.RawAttribute{Type: stun.AttrICEControlling, Value: []byte{1, 2, 3, 4, 5, 6, 7, 8}},
	}
	if nominate {
		with = append(with, stun.RawAttribute{Type: stun.AttrUseCandidate})
	}
	return stun.MustBuild(append(with, stun.NewShortTermIntegrity(l.pwd), stun.Fingerprint)...).Raw
}

func (l *light) write(b []byte) error {
	_, err := l.conn.WriteTo(b, l.server)
	return err
}

func (l *light) connect(ctx context.Context, old bool) error {
	for try := 0; ; try++ {
		if err := l.write(l.check(true)); err != nil {
			return err
		}
		select {
		case <-l.checks:
		case <-time.After(500 * time.Millisecond):
			if try < 10 {
				continue
			}
			return errors.New("no answer to a check")
		case <-ctx.Done():
			return ctx.Err()
		}
		break
	}
	profile := dtls.SRTP_AEAD_AES_128_GCM
	if old {
		profile = dtls.SRTP_AES128_CM_HMAC_SHA1_80
	}
	var err error
	l.dtls, err = dtls.ClientWithOptions(lightConn{l}, l.server, dtls.WithCertificates(lightCert), dtls.WithInsecureSkipVerify(true),
		dtls.WithCipherSuites(suite), dtls.WithSRTPProtectionProfiles(profile), dtls.WithExtendedMasterSecret(dtls.RequireExtendedMasterSecret),
		dtls.WithFlightInterval(200*time.Millisecond))
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = l.conn.Close() }) // lightConn knows no deadlines
	defer stop()
	if err := l.dtls.HandshakeContext(ctx); err != nil {
		return err
	}
	state, _ := l.dtls.ConnectionState()
	keys, err := state.ExportKeyingMaterial("EXTRACTOR-dtls_srtp", nil, materialSize(!old))
	if err != nil {
		return err
	}
	salt, kind := 12, srtp.ProtectionProfileAeadAes128Gcm
	if old {
		salt, kind = 14, srtp.ProtectionProfileAes128CmHmacSha1_80
	}
	if l.out, err = srtp.CreateContext(keys[:16], keys[32:32+salt], kind); err != nil {
		return err
	}
	if l.heard != nil {
		in, err := srtp.CreateContext(keys[16:32], keys[32+salt:], kind)
		if err != nil {
			return err
		}
		l.in.Store(in)
		l.wg.Go(func() { // its end is DTLS's
			buf := make([]byte, 100)
			for {
				if _, err := l.dtls.Read(buf); err != nil {
					l.once.Do(func() { close(l.ended) })
					return
				}
			}
		})
	}
	return nil
}

// read sorts what comes.
func (l *light) read() {
	buf := make([]byte, 2048)
	for {
		n, _, err := l.conn.ReadFrom(buf)
		if err != nil {
			close(l.hellos)
			return
		}
		b := buf[:n]
		switch {
		case n == 0:
		case b[0] == 0 && n > 1 && b[1] == 1:
			l.asked.Add(1)
			if answer, err := answerCheck(b, l.names, l.own, l.server); err == nil && !l.mute.Load() {
				_ = l.write(answer)
			}
		case b[0] <= 3:
			select {
			case l.checks <- append([]byte(nil), b...):
			default:
			}
		case b[0] < 64:
			select {
			case l.hellos <- append([]byte(nil), b...):
			default:
			}
		case b[0] >= 128 && l.in.Load() != nil && (b[1] < 192 || b[1] > 223):
			plain, err := l.in.Load().DecryptRTP(nil, b, nil)
			if err != nil {
				continue
			}
			p := &rtp.Packet{}
			if p.Unmarshal(plain) == nil {
				l.heard(p)
			}
		}
	}
}

// answerCheck answers a check as an ICE agent does (RFC 8445, 7.3): names are those of its own checks, own is its password.
func answerCheck(b []byte, names, own string, from net.Addr) ([]byte, error) {
	m := &stun.Message{Raw: append([]byte(nil), b...)}
	if err := m.Decode(); err != nil {
		return nil, err
	}
	var name stun.Username
	theirs, ours, _ := strings.Cut(names, ":")
	if err := errors.Join(name.GetFrom(m), stun.NewShortTermIntegrity(own).Check(m), stun.Fingerprint.Check(m)); err != nil {
		return nil, err
	}
	if name.String() != ours+":"+theirs || !m.Contains(stun.AttrPriority) || !m.Contains(stun.AttrICEControlled) {
		return nil, fmt.Errorf("a check by the name of %q: %v", name, m)
	}
	u := from.(*net.UDPAddr)
	out, err := stun.Build(stun.NewTransactionIDSetter(m.TransactionID), stun.BindingSuccess, &stun.XORMappedAddress{IP: u.IP, Port: u.Port},
		stun.NewShortTermIntegrity(own), stun.Fingerprint)
	if err != nil {
		return nil, err
	}
	return out.Raw, nil
}

// prove answers the question that comes to c within a second.
func (l *light) prove(c net.Conn) error {
	b := make([]byte, 2048)
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	for {
		n, err := c.Read(b)
		if err != nil {
			return err
		}
		if n < 2 || b[0] != 0 || b[1] != 1 {
			continue
		}
		answer, err := answerCheck(b[:n], l.names, l.own, c.RemoteAddr())
		if err == nil {
			_, err = c.Write(answer)
		}
		return err
	}
}

// report sends RTCP.
func (l *light) report(packets ...rtcp.Packet) error {
	plain, err := rtcp.Marshal(packets)
	if err != nil {
		return err
	}
	sealed, err := l.out.EncryptRTCP(nil, plain, nil)
	if err != nil {
		return err
	}
	return l.write(sealed)
}

// close vanishes, without a word.
func (l *light) close() {
	l.quiet.Store(true)
	_ = l.conn.Close()
	if l.dtls != nil {
		_ = l.dtls.Close()
	}
	l.wg.Wait()
}

// told says whether the server said goodbye in time.
func (l *light) told(within time.Duration) bool {
	select {
	case <-l.ended:
		return true
	case <-time.After(within):
		return false
	}
}

// leave says goodbye.
func (l *light) leave() {
	_ = l.dtls.Close()
	l.close()
}

// lightConn is the library's view of a light client.
type lightConn struct{ l *light }

func (c lightConn) ReadFrom(b []byte) (int, net.Addr, error) {
	d, ok := <-c.l.hellos
	if !ok {
		return 0, nil, net.ErrClosed
	}
	return copy(b, d), c.l.server, nil
}

func (c lightConn) WriteTo(b []byte, _ net.Addr) (int, error) {
	if c.l.quiet.Load() {
		return len(b), nil
	}
	return len(b), c.l.write(b)
}
func (c lightConn) Close() error                     { return c.l.conn.Close() }
func (c lightConn) LocalAddr() net.Addr              { return c.l.conn.LocalAddr() }
func (c lightConn) SetDeadline(time.Time) error      { return nil }
func (c lightConn) SetReadDeadline(time.Time) error  { return nil }
func (c lightConn) SetWriteDeadline(time.Time) error { return nil }

// hall is an engine with a programme that grows by the clock, or by hand.
type hall struct {
	tb       testing.TB
	ctx      context.Context
	port     *Port
	engine   *Engine
	timeline *timeline.Timeline
	audience *observatory.Audience
	src      Source
	next     uint64
	halt     chan struct{}
	growing  sync.WaitGroup
	once     sync.Once
}

func newHall(tb testing.TB, addr string, change ...func(*Config)) *hall {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	log := slog.New(slog.DiscardHandler)
	port, err := Listen(addr, log)
	must(tb, err)
	h := &hall{tb: tb, ctx: ctx, port: port, next: 100, halt: make(chan struct{}), audience: observatory.NewAudience(event.Count{})}
	h.timeline, err = timeline.New(timeline.Config{Origin: time.Now().Add(-2 * time.Second), First: 100})
	must(tb, err)
	h.src = Source{Slug: "demo", Timeline: h.timeline, Audience: h.audience}
	cfg := Config{Port: port, Log: log}
	for _, c := range change {
		c(&cfg)
	}
	h.engine, err = New(cfg)
	must(tb, err)
	h.grow(10)
	tb.Cleanup(func() {
		h.pause()
		h.engine.Close()
		must(tb, port.Close())
		cancel()
	})
	return h
}

// voice is the packet of frame n: as long as speech's, and different from its neighbours.
func voice(n uint64) []byte {
	p := make([]byte, 60+n%45)
	for i := range p {
		p[i] = byte(n*7) + byte(i)
	}
	p[0] = 15 << 3
	binary.BigEndian.PutUint64(p[1:], n)
	return p
}

func (h *hall) grow(n int) {
	for range n {
		must(h.tb, h.timeline.Append(timeline.Frame{Number: h.next, Packet: voice(h.next)}))
		h.next++
	}
}

// play lets the programme grow by the clock.
func (h *hall) play() {
	h.growing.Go(func() {
		begun, first := time.Now(), h.next
		for {
			select {
			case <-h.halt:
				return
			case <-time.After(time.Until(begun.Add(time.Duration(h.next-first+1) * event.FrameDuration))):
				h.grow(1)
			}
		}
	})
}

func (h *hall) pause() {
	h.once.Do(func() { close(h.halt) })
	h.growing.Wait()
}

func (h *hall) post(packet int) func(offer []byte) (string, []byte, error) {
	return func(offer []byte) (string, []byte, error) { return h.engine.Answer(h.ctx, h.src, offer, packet) }
}

func (h *hall) dial(offer string, packet int, heard func(*rtp.Packet)) *light {
	h.tb.Helper()
	l, err := dialLight(h.ctx, offer, h.post(packet), heard, false)
	must(h.tb, err)
	h.tb.Cleanup(l.close)
	return l
}

func (h *hall) wait(what string, ok func() bool) {
	h.tb.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.tb.Fatalf("waited in vain: %s: %+v %v", what, h.engine.Stats(), h.port.Strays())
		}
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// ear collects the frames that a listener heard, each once.
type ear struct {
	mu      sync.Mutex
	frames  map[uint64][]byte
	lengths []int // of packets, in frames, one after the other
	at      []uint64
	seqs    map[uint16]int
	wrong   int
	red     bool
}

func newEar(red bool) *ear {
	return &ear{frames: map[uint64][]byte{}, seqs: map[uint16]int{}, red: red}
}

func (e *ear) take(p *rtp.Packet) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seqs[p.SequenceNumber]++
	payload := p.Payload
	at := uint64(p.Timestamp) / 960
	if p.PayloadType == 63 {
		if payload[0]&0x80 != 0 {
			offset, n := uint64(payload[1])<<6|uint64(payload[2])>>2, int(payload[2]&3)<<8|int(payload[3])
			e.put(at-offset/960, payload[5:5+n])
			payload = payload[5+n:]
		} else {
			payload = payload[1:]
		}
	}
	e.lengths = append(e.lengths, e.put(at, payload))
	e.at = append(e.at, at)
}

func (e *ear) put(at uint64, packet []byte) int {
	frames, ok := timeline.Unpack(nil, packet)
	if !ok {
		e.wrong++
	}
	for i, f := range frames {
		e.frames[at+uint64(i)] = append([]byte(nil), f...)
	}
	return len(frames)
}

// missing counts the frames between the first and the last heard that never came, and those that came wrong.
func (e *ear) missing() (missing, total int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.frames) == 0 {
		return 0, 0
	}
	first, last := ^uint64(0), uint64(0)
	for n, f := range e.frames {
		first, last = min(first, n), max(last, n)
		if string(f) != string(voice(n)) {
			e.wrong++
		}
	}
	return int(last-first+1) - len(e.frames) + e.wrong, int(last - first + 1)
}

func (e *ear) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.frames)
}
