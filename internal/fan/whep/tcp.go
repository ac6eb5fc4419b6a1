package whep

import (
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// ICE over TCP (RFC 6544) is for listeners and speakers whose networks block UDP. Packets are framed by two bytes of length (RFC 4571). A
// connection says with its first packet, a check, whose it is: a listener's stays here, a speaker's goes to the library.

// Limits of the TCP side.
const (
	tcpFirst   = 5 * time.Second  // a connection must say who it is within this time
	tcpIdle    = 45 * time.Second // from one authentic check to the next
	tcpLast    = 2 * time.Second  // for the other side to close, after its session's end
	tcpMax     = 4096             // open at once, or an eighth of all descriptors if that is less
	tcpSession = 8                // open at once for one session
	tcpPerHost = 256              // open at once from one address: an office behind one
	tcpQueue   = 256 << 10        // bytes queued for a speaker that is slow; what comes after is dropped, as UDP would
	tcpWrite   = 64 << 10         // bytes in the kernel for a listener: two seconds; more would be heard too late anyway
	tcpHandles = 64               // speakers' connections that the library has not taken yet
)

// stream is a listener's TCP connection. Writing never waits: what there is no room for is dropped whole, as UDP would.
type stream struct {
	conn *net.TCPConn
	at   where

	mu   sync.Mutex
	over bool // its session is
	sys  streamSys
}

func newStream(conn *net.TCPConn, at where) (*stream, error) {
	_ = conn.SetWriteBuffer(tcpWrite)
	t := &stream{conn: conn, at: at}
	return t, t.sys.init(conn)
}

// write frames and sends b, and says whether it took it.
func (t *stream) write(b []byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sys.write(b)
}

// extend gives the other side so much time for its next check.
func (t *stream) extend(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over {
		_ = t.conn.SetReadDeadline(time.Now().Add(d))
	}
}

// hangUp ends the connection after what was written. It is closed when the other side closes it too, or soon.
func (t *stream) hangUp() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	t.sys.end()
	_ = t.conn.SetReadDeadline(time.Now().Add(tcpLast))
}

// readFrame reads one packet into b. Longer ones than belong here are an error.
func readFrame(r io.Reader, b []byte) (int, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n > len(b) {
		return 0, errFrame
	}
	_, err := io.ReadFull(r, b[:n])
	return n, err
}

var errFrame = errors.New("whep: a frame longer than any packet here")

// accept takes TCP connections until the listener is closed.
func (p *Port) accept() {
	for {
		c, err := p.tcp.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.welcome(c) })
	}
}

// welcome finds out whose a connection is, and serves it if it is a listener's.
func (p *Port) welcome(c *bounded) {
	_ = c.SetReadDeadline(time.Now().Add(tcpFirst))
	var b [packetMax]byte
	n, err := readFrame(c, b[2:])
	if err != nil {
		_ = c.Close()
		return
	}
	why := unknown
	var first check
	if n > 0 && b[2] <= 3 {
		first, why = readCheck(b[2 : 2+n])
	}
	if first.reply { // to what?
		why = stranger
	}
	if why != keep {
		p.sock.stray[why].Add(1)
		_ = c.Close()
		return
	}
	e := p.engine.Load()
	if e == nil || e.find(first.local) == nil {
		_ = c.SetReadDeadline(time.Time{})
		binary.BigEndian.PutUint16(b[:], uint16(n))
		p.handover.give(&spoken{bounded: c, said: slices.Clone(b[:2+n])})
		return
	}
	p.listen(e, c, b[:], n)
}

// listen reads what a listener sends, until the connection ends or says something that does not belong to its session.
func (p *Port) listen(e *Engine, c *bounded, b []byte, n int) {
	defer func() { _ = c.Close() }()
	conn, ok := c.Conn.(*net.TCPConn)
	if !ok {
		return
	}
	at := whereOf(c.RemoteAddr().(*net.TCPAddr).AddrPort())
	t, err := newStream(conn, at)
	if err != nil {
		return
	}
	defer t.sys.close()
	var (
		from = path{tcp: t}
		mac  = newHMAC()
		out  [packetMax]byte
		s    *session
	)
	say := func(n int) {
		if n > 0 {
			e.overTCP(t, out[:n])
		}
	}
	for packet := b[2 : 2+n]; ; {
		switch {
		case len(packet) == 0:
		case packet[0] <= 3:
			ck, why := readCheck(packet)
			if why != keep {
				p.sock.stray[why].Add(1)
				return
			}
			if ck.reply {
				if s == nil || !s.proved(&ck, mac, from) {
					p.sock.stray[stranger].Add(1)
				}
				break
			}
			owner := e.find(ck.local)
			if owner == nil || s != nil && s != owner {
				p.sock.stray[stranger].Add(1)
				return
			}
			if !ck.authentic(mac, owner.pwd[:]) {
				p.sock.stray[forgedST].Add(1)
				return
			}
			if s == nil {
				if !owner.attach(t) {
					p.sock.stray[tcpLimit].Add(1)
					return
				}
				s = owner
				defer s.detach(t)
			}
			if ck.request && e.checked(s, ck.transaction(), from) {
				t.extend(p.idle)
				say(ck.answer(out[:], mac, s.pwd[:], at))
				if number, asks := s.wonder(from, ck.nominates, len(packet)); asks {
					say(e.ask(out[:], mac, s, number))
				}
			}
		case s == nil:
			p.sock.stray[stranger].Add(1)
			return
		default:
			if number, asks := p.media(e, s, packet, from); asks {
				say(e.ask(out[:], mac, s, number))
			}
		}
		n, err := readFrame(c, b)
		if err != nil {
			return
		}
		packet = b[:n]
	}
}

// spoken is a connection that has said something already.
type spoken struct {
	*bounded
	said []byte
}

// Read gives what was said, then what comes.
func (s *spoken) Read(b []byte) (int, error) {
	if len(s.said) > 0 {
		n := copy(b, s.said)
		s.said = s.said[n:]
		return n, nil
	}
	return s.bounded.Read(b)
}

// handover gives the library the connections that are not listeners'.
type handover struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	addr   net.Addr
}

func (h *handover) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.closed:
		_ = c.Close()
	default:
		_ = c.Close()
	}
}

// Accept is net.Listener.
func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close is net.Listener.
func (h *handover) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr is net.Listener.
func (h *handover) Addr() net.Addr { return h.addr }

// listener bounds how many TCP connections are open, in all and from one address, before anybody knows who they are.
type listener struct {
	net.Listener
	most    int // connections
	refused atomic.Uint64

	mu     sync.Mutex
	conns  map[*bounded]struct{}
	hosts  map[netip.Addr]int // how many of conns come from where
	closed bool
}

// Accept gives the next connection that is within the limits.
func (l *listener) Accept() (*bounded, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			if ne, ok := errors.AsType[net.Error](err); ok && ne != nil && !errors.Is(err, net.ErrClosed) {
				// Out of descriptors, or the connection went away.
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

// Close stops accepting and closes what was accepted.
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
	if l.closed || len(l.conns) >= l.most || l.hosts[b.host] >= tcpPerHost {
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
