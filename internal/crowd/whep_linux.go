package crowd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/pion/rtcp"
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
	nackAgain    = 40 * ms
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

// rtpState follows the one stream.
type rtpState struct {
	begun    bool
	ssrc     uint32
	seq      uint16 // the highest
	cycles   uint32
	first    uint32 // extended sequence number
	received uint32
	holes    uint64 // packets not had: bit i is seq-1-i
	missing  uint64 // frames not had: bit i is endFrame-1-i
	nacked   int64  // when last asked for
	base     uint32 // RTP time of frame 0, of a server whose timeline is not known
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

// rtp takes a packet of audio.
func (r *rtcClient) rtp(at int64, b []byte) {
	w := r.l.w
	h, err := wire.ReadRTP(b)
	if err != nil {
		w.tally.Malformed++
		return
	}
	var payload []byte
	light := w.cfg.Light && r.l.ear == nil
	if !light {
		plain, err := r.keys.in.DecryptRTP(w.rtc.plain[:0], b, &w.rtc.header)
		if err != nil {
			w.tally.Malformed++
			return
		}
		payload = plain[h.Header:]
		if b[0]&0x20 != 0 && len(payload) > 0 { // padding
			payload = payload[:max(0, len(payload)-int(payload[len(payload)-1]))]
		}
		if len(payload) == 0 {
			return
		}
	}
	w.tally.Packets++
	s := &r.media
	if !s.begun {
		s.begun, s.ssrc, s.seq, s.first = true, h.SSRC, h.Seq-1, uint32(h.Seq)
		s.holes = 0
	}
	if h.SSRC != s.ssrc {
		w.tally.Malformed++
		return
	}
	s.received++
	ahead := int16(h.Seq - s.seq)
	if ahead > 0 {
		if h.Seq < s.seq {
			s.cycles += 1 << 16
		}
		s.holes = s.holes<<uint(ahead) | (1<<uint(ahead-1) - 1)
		s.seq = h.Seq
	} else if back := uint(-ahead); back > 0 && back <= 64 {
		s.holes &^= 1 << (back - 1)
	}
	if light {
		if ahead > 0 {
			r.unread(at, h.Time, ahead)
		}
	} else if h.Type == r.answer.RED && r.answer.RED != 0 {
		blocks, n, err := wire.ReadRED(payload)
		if err != nil {
			w.tally.Malformed++
			return
		}
		r.frames(at, h.Time, blocks[n-1].Payload, ahead)
		for _, b := range blocks[:n-1] {
			if len(b.Payload) > 0 {
				r.frames(at, h.Time-b.Back, b.Payload, 0)
			}
		}
	} else if h.Type == r.answer.Opus {
		r.frames(at, h.Time, payload, ahead)
	}
	if s.holes != 0 && w.cfg.NACK && r.answer.NACK && (ahead > 1 || at-s.nacked > nackAgain) {
		r.nack(at)
	}
}

// frames takes an Opus packet of RTP time ts. It is new if ahead > 0: how far its sequence number is beyond the highest; else it
// is one that was missing, or a copy.
func (r *rtcClient) frames(at int64, ts uint32, packet []byte, ahead int16) {
	l, w := r.l, r.l.w
	samples := wire.OpusSamples(packet)
	if samples == 0 {
		w.tally.Malformed++
		return
	}
	n := max(samples/960, 1)
	first, ok := r.number(at, ts)
	if !ok {
		w.tally.Malformed++
		return
	}
	last := first + uint64(n)
	if l.ear != nil {
		l.ear.take(first, packet)
	}
	if l.numbered && last <= l.endFrame {
		r.repair(first, n, ahead)
		return
	}
	if ahead <= 0 && l.numbered { // RED's copy of what came first as new cannot be beyond the end
		w.tally.Repeats += int64(n)
		return
	}
	gap := 0
	if l.numbered && first > l.endFrame {
		gap = int(min(first-l.endFrame, 1<<20))
		switch {
		case gap > 500: // ten seconds: the timeline went on elsewhere, as after a restart
			w.tally.Skips++
			gap = 0
		case ahead == 1 && !w.timed: // the sender was silent
			gap = 0
		}
	}
	s := &r.media
	s.shift(gap, n, &w.tally.LostFrames)
	l.endFrame, l.numbered = last, true
	if l.player.cadence != int32(n*20) && l.player.nchanges == 0 {
		l.player.cadence = int32(n * 20)
	}
	l.piece(at, int64(gap+n)*frame, int64(gap)*frame, first-uint64(gap), last)
	l.delays(at, first, last)
}

// number is the frame of an RTP time: the one that is nearest to where the stream or, at first, the timeline is.
func (r *rtcClient) number(at int64, ts uint32) (first uint64, ok bool) {
	l, w := r.l, r.l.w
	near := l.endFrame
	if !l.numbered {
		if w.timed {
			near = uint64(max(0, w.loop.wall+at-w.origin) / frame)
		} else {
			near = 1 << 30
			r.media.base = ts - uint32(near*960)
		}
	}
	ts -= r.media.base
	time := int64(near*960) + int64(int32(ts-uint32(near*960)))
	return uint64(time) / 960, time >= 0 && (!w.timed || time%960 == 0)
}

// unread takes a packet that was not decrypted. How long it sounds is not known before the next comes: it is taken to be as long as
// the one before, and put right then.
func (r *rtcClient) unread(at int64, ts uint32, ahead int16) {
	l, w, s := r.l, r.l.w, &r.media
	first, ok := r.number(at, ts)
	if !ok {
		w.tally.Malformed++
		return
	}
	n := max(int64(l.player.cadence)/20, 1)
	length, lost := n, int64(0)
	if l.numbered {
		off := int64(first) - int64(l.endFrame)
		if off > 500 || off < -500 {
			w.tally.Skips++
			off = 0
		}
		if ahead > 1 && off > 0 {
			lost = off
		} else if off != 0 && w.timed && l.player.nchanges == 0 {
			n = max(1, int64(l.player.cadence)/20+off)
			l.player.cadence = int32(n * 20)
		}
		if length = off + n; length <= 0 {
			return
		}
	}
	s.shift(int(lost), int(n), &w.tally.LostFrames)
	l.endFrame, l.numbered = first+uint64(n), true
	l.piece(at, length*frame, lost*frame, first, l.endFrame)
	l.delays(at, first, l.endFrame)
}

// shift moves the window of missing frames on by gap that are missing and n that are there.
func (s *rtpState) shift(gap, n int, lost *int64) {
	by := gap + n
	if by >= 64 {
		*lost += int64(bits.OnesCount64(s.missing))
		s.missing = 0
	} else {
		*lost += int64(bits.OnesCount64(s.missing >> (64 - by)))
		s.missing <<= by
	}
	for i := n; i < by; i++ {
		if i >= 64 {
			*lost += int64(by - i)
			break
		}
		s.missing |= 1 << i
	}
}

// repair takes frames that lie behind the end: those that are missing may still be in time.
func (r *rtcClient) repair(first uint64, n int, ahead int16) {
	l, w, s := r.l, r.l.w, &r.media
	for f := first; f < first+uint64(n); f++ {
		i := l.endFrame - 1 - f
		if i >= 64 || s.missing&(1<<i) == 0 {
			if ahead < 0 {
				w.tally.Repeats++
			}
			continue
		}
		s.missing &^= 1 << i
		if int64(i+1)*frame > l.player.inHand() { // its time is past
			w.tally.LostFrames++
		} else {
			w.tally.Repaired++
		}
	}
}

// settle counts what was missing when its time came.
func (r *rtcClient) settle() {
	s := &r.media
	for i := range uint64(64) {
		if s.missing&(1<<i) != 0 && int64(i+1)*frame > r.l.player.inHand() {
			r.l.w.tally.LostFrames++
		}
	}
}

// nack asks for the packets of the last 16 that are missing (RFC 4585, 6.2.1).
func (r *rtcClient) nack(at int64) {
	s := &r.media
	s.nacked = at
	var pairs []rtcp.NackPair
	for i := 15; i >= 0; i-- {
		if s.holes&(1<<i) != 0 {
			seq := s.seq - 1 - uint16(i)
			if len(pairs) > 0 && seq-pairs[0].PacketID <= 16 {
				pairs[0].LostPackets |= 1 << (seq - pairs[0].PacketID - 1)
			} else if len(pairs) == 0 {
				pairs = append(pairs, rtcp.NackPair{PacketID: seq})
			}
		}
	}
	if len(pairs) > 0 {
		r.rtcp(&rtcp.TransportLayerNack{SenderSSRC: uint32(r.l.id) + 1, MediaSSRC: s.ssrc, Nacks: pairs})
	}
}

// report says how well it is heard (RFC 3550, 6.4.2).
func (r *rtcClient) report() {
	s := &r.media
	if !s.begun {
		return
	}
	highest := s.cycles | uint32(s.seq)
	expected := highest - s.first + 1
	lost := int64(expected) - int64(s.received)
	between, had := expected-r.reports.expected, s.received-r.reports.received
	r.reports.expected, r.reports.received = expected, s.received
	fraction := uint8(0)
	if between > had && between > 0 {
		fraction = uint8(min(255, (between-had)*256/between))
	}
	r.rtcp(&rtcp.ReceiverReport{SSRC: uint32(r.l.id) + 1, Reports: []rtcp.ReceptionReport{{
		SSRC: s.ssrc, FractionLost: fraction, TotalLost: uint32(max(0, lost)) & 0xffffff, LastSequenceNumber: highest,
	}}})
}

func (r *rtcClient) rtcp(p rtcp.Packet) {
	b, err := p.Marshal()
	if err == nil {
		b, err = r.keys.out.EncryptRTCP(nil, b, nil)
	}
	if err == nil {
		r.sock.send(r.l.source(), r.remote, b)
	}
}
