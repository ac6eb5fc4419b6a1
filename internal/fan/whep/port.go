package whep

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pion/ice/v4"

	"earshot/internal/peer"
)

// Port is the one UDP socket over which all WebRTC comes and goes, and the TCP listener on the same port number for networks
// that block UDP. Connections find their packets by the user name of their STUN checks (RFC 8445, 7.1.2), and by the addresses from which
// such a check came. The port reads for listeners itself; what is not theirs goes to the speakers' library.
type Port struct {
	sock     *socket
	tcp      *listener
	speakers *speakers
	handover *handover
	udp      *ice.UDPMuxDefault
	mux      *ice.TCPMuxDefault
	engine   atomic.Pointer[Engine]
	idle     time.Duration  // of a listener's TCP connection, see tcpIdle
	wg       sync.WaitGroup // the reader, and a goroutine for each TCP connection that is not a speaker's
}

// Listen takes addr, host:port with a literal or resolvable host, for UDP and TCP. Port 0 takes any that is free for both.
func Listen(addr string, log *slog.Logger) (*Port, error) {
	ua, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for WebRTC on %q: %w", addr, err)
	}
	u, l, err := listenBoth(ua)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("listen for WebRTC on %q: another program uses this port: %w", addr, err)
	}
	var p *Port
	if err == nil {
		p, err = newPort(u, l, tcpIdle, log)
	}
	if err != nil {
		return nil, fmt.Errorf("listen for WebRTC on %q: %w", addr, err)
	}
	return p, nil
}

// listenBoth takes the same port by UDP and by TCP; where any will do, one that is free for both.
func listenBoth(ua *net.UDPAddr) (u *net.UDPConn, l *net.TCPListener, err error) {
	for range 20 {
		if u, l, err = listenOnce(ua); err == nil || ua.Port != 0 {
			break
		}
	}
	return u, l, err
}

func listenOnce(ua *net.UDPAddr) (*net.UDPConn, *net.TCPListener, error) {
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
	bigBuffers(u, 4<<20)
	return u, l, nil
}

func newPort(u *net.UDPConn, l *net.TCPListener, idle time.Duration, log *slog.Logger) (*Port, error) {
	sock, err := newSocket(u)
	if err != nil {
		_ = u.Close()
		_ = l.Close()
		return nil, err
	}
	p := &Port{
		sock:     sock,
		idle:     idle,
		tcp:      &listener{Listener: l, most: min(tcpMax, descriptors()/8), conns: make(map[*bounded]struct{}), hosts: make(map[netip.Addr]int)},
		speakers: newSpeakers(sock),
		handover: &handover{conns: make(chan net.Conn, tcpHandles), closed: make(chan struct{}), addr: l.Addr()},
	}
	logger := peer.Logs(log).NewLogger("mux")
	p.udp = ice.NewUDPMuxDefault(ice.UDPMuxParams{Logger: logger, UDPConn: p.speakers})
	p.mux = ice.NewTCPMuxDefault(ice.TCPMuxParams{
		Logger: logger, Listener: p.handover, ReadBufferSize: 64, WriteBufferSize: tcpQueue,
		FirstStunBindTimeout: tcpFirst, AliveDurationForConnFromStun: tcpFirst,
	})
	p.wg.Go(p.read)
	p.wg.Go(p.accept)
	return p, nil
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
	p.sock.closed.Store(true)
	err := errors.Join(p.sock.Close(), p.tcp.Close(), p.handover.Close(), p.speakers.Close())
	p.wg.Wait()
	return errors.Join(err, p.mux.Close(), p.udp.Close())
}

// stray says why a packet was dropped at the socket. The order is that of strays.
type stray int

const (
	keep     stray = iota - 1
	unknown        // neither STUN, DTLS nor RTP (RFC 7983)
	brokenST       // STUN that is not well-formed, or not an ICE check
	unsigned       // STUN without user name or message integrity
	forgedST       // a listener's user name, and not their password
	stranger       // media or DTLS from an address without a check
	crowded        // more than the speakers' library takes
	knocking       // more checks from strangers than it takes
	tcpLimit       // a TCP connection too many, of all, of one address or of one session
	nStrays
)

var strays = [nStrays]string{"unknown", "stun_malformed", "stun_unsigned", "stun_forged", "stranger", "speakers_queue", "strangers_queue", "tcp_limit"}

// socket is the UDP socket.
type socket struct {
	*net.UDPConn
	sys    socketSys
	closed atomic.Bool
	stray  [nStrays]atomic.Uint64
}

func newSocket(u *net.UDPConn) (*socket, error) {
	s := &socket{UDPConn: u}
	return s, s.sys.init(u)
}

// addr gives an address as the socket's family and the net package have it.
func (s *socket) addr(w where) netip.AddrPort {
	a := w.addr()
	if w.zone != 0 {
		if i, err := net.InterfaceByIndex(int(w.zone)); err == nil {
			a = netip.AddrPortFrom(a.Addr().WithZone(i.Name), a.Port())
		}
	}
	return a
}

// read takes what comes from the socket until it is closed.
func (p *Port) read() {
	r := &receiver{port: p, in: newInbox(p.sock), mac: newHMAC()}
	r.out = newOutbox(p.sock, &p.sock.stray[crowded], &p.sock.stray[crowded])
	for {
		n, err := r.in.read()
		if err != nil {
			return
		}
		e := p.engine.Load()
		for i := range n {
			r.take(e, r.in.buf[i][:r.in.size[i]], r.in.from[i])
		}
		r.out.flush()
	}
}

// receiver is what reading needs. It belongs to one goroutine.
type receiver struct {
	port *Port
	in   *inbox
	out  *outbox // answers to checks
	mac  *hmacSHA1
}

// take finds out whose a datagram is (RFC 7983, 7). What is nobody's gets no answer and leaves nothing behind but a count.
func (r *receiver) take(e *Engine, b []byte, from where) {
	p := r.port
	why := unknown
	switch {
	case len(b) == 0:
	case b[0] <= 3:
		c, bad := readCheck(b)
		if why = bad; why != keep {
			break
		}
		var s *session
		if c.reply {
			why = stranger
			if e != nil {
				s = e.at(from)
			}
			if s != nil && s.proved(&c, r.mac, path{udp: from}) {
				why = keep
			}
			break
		}
		if e != nil {
			s = e.find(c.local)
		}
		if s == nil {
			p.speakers.push(b, from)
			break
		}
		if !c.authentic(r.mac, s.pwd[:]) {
			why = forgedST
			break
		}
		if at := (path{udp: from}); c.request && e.checked(s, c.transaction(), at) {
			r.out.put(c.answer(r.out.next(), r.mac, s.pwd[:], from), from)
			if t, asks := s.wonder(at, c.nominates, len(b)); asks {
				r.out.put(e.ask(r.out.next(), r.mac, s, t), from)
			}
		}
	case b[0] >= 20 && b[0] <= 63 && len(b) >= recordHeader, b[0] >= 128 && b[0] <= 191 && len(b) >= 8:
		why = keep
		if e != nil {
			if s := e.at(from); s != nil {
				if t, asks := p.media(e, s, b, path{udp: from}); asks {
					r.out.put(e.ask(r.out.next(), r.mac, s, t), from)
				}
				break
			}
		}
		if !p.speakers.knows(from) {
			why = stranger
			break
		}
		p.speakers.push(b, from)
	}
	if why != keep {
		p.sock.stray[why].Add(1)
	}
}

// media passes on what came from a session's path and is no check. It says whether to ask that path for its proof.
func (p *Port) media(e *Engine, s *session, b []byte, from path) (t tid, asks bool) {
	switch {
	case b[0] < 128:
		return s.hello(b, from)
	case len(b) >= 8 && b[1] >= 192 && b[1] <= 223: // RFC 5761, 4
		s.control(b)
	default:
		e.stats.inbound[inboundUnwanted].Add(1)
	}
	return t, false
}
