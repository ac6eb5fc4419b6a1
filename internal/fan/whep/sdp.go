package whep

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"earshot/internal/peer"
)

// fmtp are the parameters of Opus in answers (RFC 7587, 7.1).
const fmtp = "minptime=10;useinbandfec=1"

// describe writes the answer (RFC 9429, 5.3.1): one audio section that only sends, over whatever the offer offered; the others are rejected.
func (e *Engine) describe(s *session, o *peer.Offer) []byte {
	b := make([]byte, 0, 1536)
	line := func(format string, args ...any) {
		b = fmt.Appendf(b, format, args...)
		b = append(b, "\r\n"...)
	}
	line("v=0")
	line("o=- %d 1 IN IP4 0.0.0.0", binary.BigEndian.Uint64(s.ufrag[:])>>2)
	line("s=-")
	line("t=0 0")
	for _, m := range o.Media {
		if o.Bundle && m.Audio {
			line("a=group:BUNDLE %s", m.Mid)
		}
	}
	line("a=msid-semantic:WMS *")
	line("a=ice-lite")
	for _, m := range o.Media {
		if !m.Audio {
			line("m=%s 0 %s %s", m.Kind, m.Proto, m.Format)
			line("c=IN IP4 0.0.0.0")
			if m.Mid != "" {
				line("a=mid:%s", m.Mid)
			}
			line("a=inactive")
			continue
		}
		formats := strconv.Itoa(int(o.Opus))
		if o.RED != 0 {
			formats += " " + strconv.Itoa(int(o.RED))
		}
		line("m=audio 9 %s %s", m.Proto, formats)
		line("c=IN IP4 0.0.0.0")
		if m.Mid != "" {
			line("a=mid:%s", m.Mid)
		}
		line("a=ice-ufrag:%s", s.ufrag[:])
		line("a=ice-pwd:%s", s.pwd[:])
		line("a=fingerprint:sha-256 %s", e.id.print)
		line("a=setup:passive")
		line("a=rtcp-mux")
		if o.RSize {
			line("a=rtcp-rsize")
		}
		line("a=rtpmap:%d opus/48000/2", o.Opus)
		line("a=fmtp:%d %s", o.Opus, fmtp)
		if o.NACK {
			line("a=rtcp-fb:%d nack", o.Opus)
		}
		if o.RED != 0 {
			line("a=rtpmap:%d red/48000/2", o.RED)
			line("a=fmtp:%d %d/%d", o.RED, o.Opus, o.Opus)
		}
		line("a=ptime:%d", msOf(max(s.wish, s.ch.plan.Load().last())))
		line("a=ssrc:%d cname:%s", s.ssrc, cname)
		line("a=ssrc:%d msid:%s programme", s.ssrc, s.ch.src.Slug)
		line("a=msid:%s programme", s.ch.src.Slug)
		line("a=sendonly")
		b = append(b, e.places.lines()...)
		line("a=end-of-candidates")
	}
	return b
}

// candidates are the lines that say where the port is reached.
type candidates struct {
	port      *Port
	advertise []netip.Addr

	mu    sync.Mutex
	asked time.Time
	text  string
}

// candidatesFor is how long the machine's addresses are taken to stay as they are.
const candidatesFor = 10 * time.Second

func (c *candidates) lines() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.text != "" && (len(c.advertise) > 0 || time.Since(c.asked) < candidatesFor) {
		return c.text
	}
	addrs := c.advertise
	if len(addrs) == 0 {
		addrs = reachable(c.port.udp.GetListenAddresses())
	}
	var b strings.Builder
	port := c.port.Addr().Port()
	for i, a := range addrs {
		// RFC 8445, 5.1.2.1: of host candidates the first is preferred, and UDP always.
		fmt.Fprintf(&b, "a=candidate:%d 1 udp %d %s %d typ host\r\n", 2*i+1, 126<<24|(65535-i)<<8|255, a.Unmap(), port)
	}
	for i, a := range addrs {
		// The direction preference of RFC 6544, 4.2 is that of passive.
		fmt.Fprintf(&b, "a=candidate:%d 1 tcp %d %s %d typ host tcptype passive\r\n", 2*i+2, 99<<24|(4<<13|(8191-i))<<8|255, a.Unmap(), port)
	}
	c.text, c.asked = b.String(), time.Now()
	return c.text
}

// reachable leaves out addresses at which nobody else finds this machine, unless there are no others.
func reachable(addrs []net.Addr) []netip.Addr {
	var good, loop []netip.Addr
	for _, a := range addrs {
		u, ok := a.(*net.UDPAddr)
		if !ok {
			continue
		}
		ip := u.AddrPort().Addr().Unmap()
		switch {
		case ip.IsLoopback():
			loop = append(loop, ip)
		case ip.IsLinkLocalUnicast() && ip.Is6(): // means nothing without a zone
		default:
			good = append(good, ip)
		}
	}
	if len(good) == 0 {
		return loop
	}
	return good
}
