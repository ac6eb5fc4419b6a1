package crowd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/pion/stun/v4"

	"earshot/internal/crowd/wire"
)

// rtcState is where a WebRTC listener stands.
type rtcState uint8

const (
	gone   rtcState = iota
	asks            // offer sent over HTTP
	checks          // ICE
	shakes          // DTLS
	hears           // SRTP
)

// Timers of a WebRTC listener.
const (
	jobCheck   = jobClient + iota // the next try of the first check
	jobConsent                    // a check every 5 s (RFC 7675), and a receiver report with it
)

const (
	consentEvery = 5 * time.Second
	consentEnds  = 30 * time.Second
)

// rtcClient listens by WebRTC: WHEP over HTTP, then ICE as the controlling agent, DTLS and SRTP, each by hand but for the cryptography.
type rtcClient struct {
	l        *listener
	c        *conn
	sock     *udpSocket
	remote   netip.AddrPort
	answer   *wire.Answer
	location string
	user     string
	password string
	pipe     *packetPipe // while DTLS shakes hands
	cancel   context.CancelFunc
	keys     *keys
	state    rtcState
	tries    uint8
	id       [stun.TransactionIDSize]byte // of the latest check
	answered int64                        // when one was last answered

	media   rtpState
	reports struct{ expected, received uint32 }
}

func (r *rtcClient) dial() (err error) {
	w := r.l.w
	r.state, r.tries, r.answer, r.keys, r.location = asks, 0, nil, nil, ""
	r.media, r.reports = rtpState{}, struct{ expected, received uint32 }{}
	var random [24]byte
	for i := range random {
		const chars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/"
		random[i] = chars[w.chance.IntN(len(chars))]
	}
	r.user, r.password = fmt.Sprintf("c%s%x", random[:4], r.l.id), string(random[:])
	if w.rtc.sock != nil {
		r.sock = w.rtc.sock
	} else if r.sock, err = w.loop.listenUDP(r, w.job.Target.Addr.Addr().Is6()); err != nil {
		return err
	}
	w.rtc.cues.open()
	r.c, err = w.connect(r.l, r)
	return err
}

func (r *rtcClient) hangUp() {
	w := r.l.w
	if r.c != nil {
		r.c.shut()
		r.c = nil
	}
	if r.cancel != nil {
		r.cancel()
		r.cancel = nil
	}
	if r.pipe != nil {
		r.pipe.mute()
		r.pipe = nil
	}
	if r.sock != nil && r.sock != w.rtc.sock {
		w.loop.forget(r.sock.fd)
	}
	r.sock, r.keys, r.state = nil, nil, gone
	if r.location != "" {
		w.byes.add(farewell{w: w, from: r.l, path: r.location})
		r.location = ""
	}
}

func (r *rtcClient) opened(c *conn) {
	w := r.l.w
	offer := w.rtc.offer(r)
	c.send(append(w.ask("POST", w.path, "Content-Type: application/sdp", fmt.Sprintf("Content-Length: %d", len(offer))), offer...))
}

func (r *rtcClient) received(c *conn, b []byte) (int, error) {
	h, body, n, err := wire.ReadResponse(b, false)
	if err != nil || n == 0 {
		return 0, err
	}
	return n, r.answers(c, h, body)
}

func (r *rtcClient) ended(_ *conn, rest []byte, err error) {
	r.c = nil
	if r.state != asks {
		return
	}
	if h, body, n, rerr := wire.ReadResponse(rest, true); rerr == nil && n > 0 {
		if err = r.answers(nil, h, body); err == nil {
			return
		}
	}
	r.l.fail(reasonOf(err))
}

// answers takes the answer and begins ICE.
func (r *rtcClient) answers(c *conn, h wire.Head, body []byte) error {
	if r.state != asks {
		return nil
	}
	if err := judge(h.Status, 201); err != nil {
		return err
	}
	w := r.l.w
	a, err := wire.ReadAnswer(body)
	if err != nil {
		return fmt.Errorf("%w: %w", errMalformed, err)
	}
	r.location = pathOf(string(h.Location), &w.job.Target)
	r.answer = a
	if r.remote, err = w.choose(a.Candidates); err != nil {
		return err
	}
	if c != nil {
		c.shut()
		r.c = nil
	}
	r.l.player.cadence = int32(a.PacketMS)
	r.state = checks
	r.check()
	w.after(r.l, 100*time.Millisecond, jobCheck)
	return nil
}

// pathOf is the path of a session's address, if that is the target's; a session elsewhere is left to end by itself.
func pathOf(location string, t *target) string {
	if path, ok := strings.CutPrefix(location, t.url("")); ok {
		location = path
	}
	if !strings.HasPrefix(location, "/") || strings.HasPrefix(location, "//") || strings.ContainsAny(location, " \r\n") {
		return ""
	}
	return location
}

// errForeign is an answer that names only addresses that nobody consented to.
var errForeign = errors.New("no candidate is at the target's address")

// choose finds the candidate at the address that is pinned. On this machine any of its own addresses will do.
func (w *worker) choose(candidates []netip.AddrPort) (netip.AddrPort, error) {
	pinned := w.job.Target.Addr.Addr()
	for _, c := range candidates {
		if c.Addr() == pinned {
			return c, nil
		}
	}
	if pinned.IsLoopback() {
		for _, c := range candidates {
			if c.Addr().Is4() == pinned.Is4() && ours(c.Addr()) {
				return c, nil
			}
		}
	}
	return netip.AddrPort{}, errForeign
}

// ours says whether an address is this machine's.
func ours(a netip.Addr) bool {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, n := range all {
		if p, err := netip.ParsePrefix(n.String()); err == nil && (p.Addr() == a || a.IsLoopback()) {
			return true
		}
	}
	return false
}

func (r *rtcClient) timeout(job uint8) {
	switch job {
	case jobCheck:
		if r.state == checks {
			r.check()
			r.tries = min(r.tries+1, 4)
			r.l.w.after(r.l, 100*time.Millisecond<<r.tries, jobCheck)
		}
	case jobConsent:
		if r.state != hears {
			return
		}
		if r.l.w.loop.now-r.answered > int64(consentEnds) {
			r.l.lose("consent", false)
			return
		}
		r.check()
		r.report()
		r.consentLater()
	}
}

// consentLater plans the next check: 0.8 to 1.2 times 5 s, so that they do not come in step (RFC 7675, 5.1).
func (r *rtcClient) consentLater() {
	w := r.l.w
	w.after(r.l, time.Duration((.8+.4*w.chance.Float64())*float64(consentEvery)), jobConsent)
}

// check sends a connectivity check (RFC 8445, 7.2.2).
func (r *rtcClient) check() {
	w := r.l.w
	binary.BigEndian.PutUint64(r.id[:], w.chance.Uint64())
	binary.BigEndian.PutUint32(r.id[8:], w.chance.Uint32())
	m := &w.stun
	m.Reset()
	m.TransactionID = r.id
	m.SetType(stun.BindingRequest)
	m.WriteHeader()
	var eight [8]byte
	err := stun.NewUsername(r.answer.User + ":" + r.user).AddTo(m)
	binary.BigEndian.PutUint32(eight[:], 1862270975) // of a peer-reflexive candidate
	m.Add(stun.AttrPriority, eight[:4])
	binary.BigEndian.PutUint64(eight[:], uint64(r.l.id)+1)
	m.Add(stun.AttrICEControlling, eight[:])
	m.Add(stun.AttrUseCandidate, nil)
	if err = errors.Join(err, stun.NewShortTermIntegrity(r.answer.Password).AddTo(m), stun.Fingerprint.AddTo(m)); err != nil {
		r.l.lose("stun", false)
		return
	}
	r.sock.send(r.l.source(), r.remote, m.Raw)
}

// datagram is for a socket of one's own.
func (r *rtcClient) datagram(_ *udpSocket, from netip.AddrPort, _ netip.Addr, at int64, b []byte) {
	r.packet(from, at, b)
}

// packet sorts what came by its first byte (RFC 7983).
func (r *rtcClient) packet(from netip.AddrPort, at int64, b []byte) {
	if from != r.remote || len(b) < 2 || r.state < checks {
		return
	}
	r.l.w.tally.Bytes += int64(len(b))
	switch first := b[0]; {
	case first < 4:
		r.stun(b)
	case first >= 20 && first < 64:
		switch {
		case r.pipe != nil:
			r.pipe.put(b)
		case r.state == hears && first == 21: // an alert, which is all that the server has left to say
			r.l.lose("closed", false)
		}
	case first >= 128 && first < 192 && r.keys != nil:
		w := r.l.w
		if w.cfg.Loss > 0 && w.chance.Float64() < w.cfg.Loss {
			w.tally.Dropped++
			return
		}
		if !wire.IsRTCP(b) {
			r.rtp(at, b)
		}
	}
}

// stun takes answers to checks, and answers those of a server that is no lite one.
func (r *rtcClient) stun(b []byte) {
	w := r.l.w
	m := &w.stunIn
	m.Raw = append(m.Raw[:0], b...)
	if err := m.Decode(); err != nil {
		w.tally.Malformed++
		return
	}
	switch m.Type {
	case stun.BindingSuccess:
		if m.TransactionID != r.id || stun.NewShortTermIntegrity(r.answer.Password).Check(m) != nil {
			return
		}
		r.answered = w.loop.now
		if r.state == checks {
			r.state = shakes
			r.pipe = newPacketPipe(r.sock, r.l.source(), r.remote)
			w.rtc.shake(r)
		}
	case stun.BindingError:
		var code stun.ErrorCodeAttribute
		if m.TransactionID == r.id && code.GetFrom(m) == nil {
			r.l.lose(fmt.Sprintf("ice_%d", code.Code), false)
		}
	case stun.BindingRequest:
		integrity := stun.NewShortTermIntegrity(r.password)
		if integrity.Check(m) != nil {
			return
		}
		xor := stun.XORMappedAddress{IP: r.remote.Addr().AsSlice(), Port: int(r.remote.Port())}
		out, err := stun.Build(stun.NewTransactionIDSetter(m.TransactionID), stun.BindingSuccess, &xor, integrity, stun.Fingerprint)
		if err == nil {
			r.sock.send(r.l.source(), r.remote, out.Raw)
		}
	}
}

// shaken is the end of the DTLS handshake.
func (r *rtcClient) shaken(k *keys, err error) {
	r.pipe, r.cancel = nil, nil
	if err != nil {
		r.l.fail("dtls")
		return
	}
	r.keys, r.state = k, hears
	r.l.w.loop.clock()
	r.l.answered()
	r.consentLater()
}
