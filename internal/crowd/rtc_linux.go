package crowd

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/netip"
	"sync"

	"github.com/pion/rtp"

	"earshot/internal/crowd/wire"
)

// handshakesAtOnce bounds the goroutines of DTLS, so that the loop gets its turn between them.
const handshakesAtOnce = 64

// rtc is what the WebRTC listeners of a process share.
type rtc struct {
	w           *worker
	sock        *udpSocket // of all, on loopback over IPv4; else each has its own
	port        uint16
	certificate tls.Certificate
	fingerprint string
	header      rtp.Header
	plain       []byte

	shaking int // handshakes that run
	queue   []*rtcClient
	wg      sync.WaitGroup // the handshakes' goroutines
	ctx     context.Context
	cancel  context.CancelFunc

	cues *cueWatch
}

func newRTC(w *worker) (*rtc, error) {
	r := &rtc{w: w, plain: make([]byte, 0, packetSize)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	var err error
	if r.certificate, r.fingerprint, err = certificate(); err != nil {
		return nil, err
	}
	if w.spread {
		if r.sock, err = w.loop.listenUDP(r, false); err != nil {
			return nil, err
		}
		r.port = r.sock.port()
	}
	if w.job.Target.Earshot {
		r.cues = &cueWatch{w: w}
	}
	return r, nil
}

// close ends the handshakes that still run, and waits for them.
func (r *rtc) close() {
	if r.cues != nil {
		r.cues.close()
	}
	r.cancel()
	r.wg.Wait()
	r.w.loop.handed()
	if r.sock != nil {
		r.w.loop.forget(r.sock.fd)
	}
}

// datagram gives a packet to the listener that it was sent to.
func (r *rtc) datagram(_ *udpSocket, from netip.AddrPort, to netip.Addr, at int64, b []byte) {
	if !to.Is4() {
		return
	}
	a := to.As4()
	n := int(a[1])<<16 | int(a[2])<<8 | int(a[3])
	id := n - 16<<16 - 1
	i := id - r.w.job.First
	if a[0] != 127 || i < 0 || i%r.w.job.Step != 0 || i/r.w.job.Step >= len(r.w.crowd) {
		return
	}
	if c, ok := r.w.crowd[i/r.w.job.Step].client.(*rtcClient); ok {
		c.packet(from, at, b)
	}
}

// lost is how many packets came and were not read in time.
func (r *rtc) lost() (n int64) {
	if r.sock != nil {
		return int64(r.sock.lost())
	}
	for i := range r.w.crowd {
		if c, ok := r.w.crowd[i].client.(*rtcClient); ok && c.sock != nil {
			n += int64(c.sock.lost())
		}
	}
	return n
}

// shake begins a handshake, or lets it wait for others to end.
func (r *rtc) shake(c *rtcClient) {
	if r.shaking >= handshakesAtOnce {
		r.queue = append(r.queue, c)
		return
	}
	r.shaking++
	gen, pipe := c.l.gen, c.pipe
	ctx, cancel := context.WithCancel(r.ctx)
	c.cancel = cancel
	fingerprint, server := c.answer.Fingerprint, c.answer.Active
	r.wg.Add(1)
	go func() {
		defer r.wg.Done()
		k, err := handshakeDTLS(ctx, pipe, r.certificate, fingerprint, server)
		cancel()
		r.w.loop.hand(func() {
			if r.shaking--; len(r.queue) > 0 {
				next := r.queue[0]
				r.queue = r.queue[1:]
				if next.state == shakes {
					r.shake(next)
				}
			}
			if c.l.gen == gen {
				c.shaken(k, err)
			}
		})
	}()
}

// announced is a change of the packets' length, for all who listen now. Who comes later has not heard of it, as a page has not.
func (r *rtc) announced(ms int32, from uint64) {
	for i := range r.w.crowd {
		if l := &r.w.crowd[i]; l.state == hearing {
			l.player.announce(max(ms, int32(r.w.cfg.Packet)), from)
		}
	}
}

// offer is what a browser would offer for one voice to receive, without what is of no use to a lite server.
func (r *rtc) offer(c *rtcClient) string {
	formats, more := "111", ""
	if r.w.cfg.RED {
		formats = "111 63"
		more = "a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\n"
	}
	if r.w.cfg.NACK {
		more += "a=rtcp-fb:111 nack\r\n"
	}
	candidate := ""
	if from := c.l.source(); from.IsValid() {
		candidate = fmt.Sprintf("a=candidate:1 1 udp 2130706431 %s %d typ host\r\na=end-of-candidates\r\n", from, r.port)
	}
	return "v=0\r\n" +
		fmt.Sprintf("o=- %d 2 IN IP4 127.0.0.1\r\n", uint64(c.l.id)+1) +
		"s=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=msid-semantic: WMS\r\n" +
		"m=audio 9 UDP/TLS/RTP/SAVPF " + formats + "\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\n" +
		candidate +
		"a=ice-ufrag:" + c.user + "\r\na=ice-pwd:" + c.password + "\r\na=ice-options:trickle\r\n" +
		"a=fingerprint:sha-256 " + r.fingerprint + "\r\na=setup:actpass\r\na=mid:0\r\na=recvonly\r\na=rtcp-mux\r\n" +
		"a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n" + more
}

// cueWatch is the event stream of cues: one for all, as what is announced there is the same for all.
type cueWatch struct {
	w    *worker
	c    *conn
	body wire.Body
	head bool
	done bool
}

func (q *cueWatch) open() {
	if q == nil || q.c != nil || q.done {
		return
	}
	q.head = false
	q.c, _ = q.w.loop.dial(q, netip.Addr{}, &q.w.job.Target, q.w.tls, false, &q.w.cueBytes)
}

func (q *cueWatch) close() {
	q.done = true
	if q.c != nil {
		q.c.shut()
		q.c = nil
	}
}

func (q *cueWatch) opened(c *conn) { c.send(q.w.get("/e/" + q.w.job.Target.Slug + "/cues")) }

// ended: a crowd goes on without; the next listener who comes opens it again.
func (q *cueWatch) ended(*conn, []byte, error) { q.c = nil }

func (q *cueWatch) received(_ *conn, b []byte) (used int, err error) {
	if !q.head {
		h, n, err := wire.ReadHead(b)
		if err != nil || n == 0 {
			return 0, err
		}
		if h.Status != 200 {
			return 0, statusError(h.Status)
		}
		q.head, q.body = true, h.Body()
		used = n
	}
	for used < len(b) {
		body := q.body
		data, n, err := body.Take(b[used:])
		if err != nil {
			return used, err
		}
		if n == 0 {
			return used, nil
		}
		// Our server sends whole events in a piece; one that is cut by a read is waited for.
		if len(data) > 0 && len(data) < 1<<16 && data[len(data)-1] != '\n' && used+n == len(b) {
			return used, nil
		}
		q.body = body
		used += n
		q.events(data)
	}
	return used, nil
}

// events looks for announcements among the lines of events.
func (q *cueWatch) events(b []byte) {
	for cue := range wire.EventData(b, "cadence") {
		if ms, from, ok := cadence(cue, "whep"); ok {
			q.w.rtc.announced(ms, from)
		}
	}
}
