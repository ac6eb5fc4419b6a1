package whep

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pion/ice/v4"

	"earshot/internal/peer"
)

// Limits of the TCP side. A connection there is a listener or speaker whose network blocks UDP; the rest are strangers.
const (
	tcpFirst   = 5 * time.Second // a connection must say who it is within this time (Pion: FirstStunBindTimeout)
	tcpMax     = 4096            // open at once
	tcpPerHost = 256             // open at once from one address: an office behind one
	tcpQueue   = 256 << 10       // bytes queued for a reader that is slow; what comes after is dropped, as UDP would
)

// Port is the one UDP socket over which all WebRTC comes and goes, and the TCP listener on the same port number for networks
// that block UDP. Connections find their packets by the user name of their STUN checks (RFC 8445, 7.1.2).
type Port struct {
	sock *socket
	tcp  *listener
	udp  *ice.UDPMuxDefault
	mux  *ice.TCPMuxDefault
}

// Listen takes addr, host:port with a literal or resolvable host, for UDP and TCP. Port 0 takes any that is free for both.
func Listen(addr string, log *slog.Logger) (*Port, error) {
	ua, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for WebRTC on %q: %w", addr, err)
	}
	for try := 0; ; try++ {
		u, l, err := listenBoth(ua)
		if err == nil {
			return newPort(u, l, log), nil
		}
		if ua.Port != 0 || try == 20 {
			if errors.Is(err, syscall.EADDRINUSE) {
				return nil, fmt.Errorf("listen for WebRTC on %q: another program uses this port: %w", addr, err)
			}
			return nil, fmt.Errorf("listen for WebRTC on %q: %w", addr, err)
		}
	}
}

func listenBoth(ua *net.UDPAddr) (*net.UDPConn, *net.TCPListener, error) {
	u, err := net.ListenUDP("udp", ua)
	if err != nil {
		return nil, nil, err
	}
	got := u.LocalAddr().(*net.UDPAddr)
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: ua.IP, Port: got.Port, Zone: ua.Zone})
	if err != nil {
		_ = u.Close()
		return nil, nil, err
	}
	// Thousands of listeners send their checks at once when an event begins; what does not fit waits for a retransmission.
	_ = u.SetReadBuffer(4 << 20)
	_ = u.SetWriteBuffer(4 << 20)
	return u, l, nil
}

func newPort(u *net.UDPConn, l *net.TCPListener, log *slog.Logger) *Port {
	p := &Port{
		sock: &socket{UDPConn: u},
		tcp:  &listener{Listener: l, conns: make(map[*bounded]struct{}), hosts: make(map[netip.Addr]int)},
	}
	logger := peer.Logs(log).NewLogger("mux")
	p.udp = ice.NewUDPMuxDefault(ice.UDPMuxParams{Logger: logger, UDPConn: p.sock})
	p.mux = ice.NewTCPMuxDefault(ice.TCPMuxParams{
		Logger: logger, Listener: p.tcp, ReadBufferSize: 64, WriteBufferSize: tcpQueue,
		FirstStunBindTimeout: tcpFirst, AliveDurationForConnFromStun: tcpFirst,
	})
	return p
}

// UDPMux hands out the socket by user name.
func (p *Port) UDPMux() ice.UDPMux { return p.udp }

// TCPMux does the same for TCP.
func (p *Port) TCPMux() ice.TCPMux { return p.mux }

// Addr is the address of both.
func (p *Port) Addr() netip.AddrPort {
	a := p.sock.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// Strays gives how many packets and connections were turned away, by reason.
func (p *Port) Strays() map[string]uint64 {
	out := make(map[string]uint64, len(strays))
	for i, name := range strays {
		out[name] = p.sock.stray[i].Load()
	}
	out["tcp_limit"] += p.tcp.refused.Load()
	return out
}

// Close stops listening. Connections that still use the port end.
func (p *Port) Close() error {
	return errors.Join(p.mux.Close(), p.udp.Close())
}

// stray says why a packet was dropped at the socket. The order is that of strays.
type stray int

const (
	keep     stray = iota - 1
	unknown        // neither STUN, DTLS nor RTP (RFC 7983)
	brokenST       // STUN that is not well-formed, or not an ICE check
	unsigned       // STUN without user name or message integrity
	tcpLimit       // counted by the listener
	nStrays
)

var strays = [nStrays]string{"unknown", "stun_malformed", "stun_unsigned", "tcp_limit"}

// socket drops what can belong to nobody before the mux spends a lock on it. It never answers.
type socket struct {
	*net.UDPConn
	stray [nStrays]atomic.Uint64
}

// ReadFromAddrPort gives the next packet that may belong to somebody (ice.AddrPortReaderWriter).
func (s *socket) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	for {
		n, from, err := s.ReadFromUDPAddrPort(b)
		if err != nil {
			return n, from, err
		}
		why := judge(b[:n])
		if why == keep {
			return n, from, nil
		}
		s.stray[why].Add(1)
	}
}

// WriteToAddrPort sends (ice.AddrPortReaderWriter).
func (s *socket) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	return s.WriteToUDPAddrPort(b, to)
}

// judge sorts a packet by its first byte (RFC 7983, 7). STUN must be a binding request or indication with the magic
// cookie, whole attributes, a user name and message integrity (RFC 8489, 5 and 14); whether they are right is the agent's to say.
func judge(b []byte) stray {
	if len(b) == 0 {
		return unknown
	}
	switch c := b[0]; {
	case c >= 20 && c <= 63 && len(b) >= 13: // a DTLS record's header
		return keep
	case c >= 128 && c <= 191 && len(b) >= 8: // RTP, RTCP
		return keep
	case c > 3:
		return unknown
	}
	if len(b) < 20 || len(b)%4 != 0 || int(b[2])<<8|int(b[3]) != len(b)-20 ||
		b[4] != 0x21 || b[5] != 0x12 || b[6] != 0xa4 || b[7] != 0x42 {
		return brokenST
	}
	if typ := int(b[0])<<8 | int(b[1]); typ != 0x0001 && typ != 0x0011 {
		return brokenST
	}
	name, integrity := false, false
	for at := b[20:]; len(at) > 0; {
		if len(at) < 4 {
			return brokenST
		}
		typ, n := int(at[0])<<8|int(at[1]), (int(at[2])<<8|int(at[3])+3)&^3
		if 4+n > len(at) {
			return brokenST
		}
		switch typ {
		case 0x0006:
			name = name || !integrity // what follows the integrity is not covered by it
		case 0x0008, 0x001c:
			integrity = true
		}
		at = at[4+n:]
	}
	if !name || !integrity {
		return unsigned
	}
	return keep
}

// listener bounds how many TCP connections are open, in all and from one address, before the mux knows who they are.
type listener struct {
	net.Listener
	refused atomic.Uint64

	mu     sync.Mutex
	conns  map[*bounded]struct{}
	hosts  map[netip.Addr]int // how many of conns come from where
	closed bool
}

// Accept gives the next connection that is within the limits.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			if ne, ok := errors.AsType[net.Error](err); ok && ne != nil && !errors.Is(err, net.ErrClosed) {
				// Out of descriptors, or the connection went away: the mux would stop for ever at an error.
				time.Sleep(50 * time.Millisecond)
				continue
			}
			return nil, err
		}
		b := &bounded{Conn: c, host: c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(), in: l}
		if !l.take(b) {
			l.refused.Add(1)
			_ = c.Close()
			continue
		}
		return b, nil
	}
}

// Close stops accepting and closes what was accepted: the mux waits for those that have not yet said who they are.
func (l *listener) Close() error {
	err := l.Listener.Close()
	l.mu.Lock()
	l.closed = true
	open := slices.Collect(maps.Keys(l.conns))
	l.mu.Unlock()
	for _, b := range open {
		_ = b.Close()
	}
	return err
}

func (l *listener) take(b *bounded) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.conns) >= tcpMax || l.hosts[b.host] >= tcpPerHost {
		return false
	}
	l.conns[b] = struct{}{}
	l.hosts[b.host]++
	return true
}

func (l *listener) release(b *bounded) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.conns[b]; !ok {
		return
	}
	delete(l.conns, b)
	if l.hosts[b.host]--; l.hosts[b.host] == 0 {
		delete(l.hosts, b.host)
	}
}

// bounded gives its place back when it is closed.
type bounded struct {
	net.Conn
	host netip.Addr
	in   *listener
}

func (b *bounded) Close() error {
	b.in.release(b)
	return b.Conn.Close()
}
