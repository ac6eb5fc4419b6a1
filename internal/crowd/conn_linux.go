package crowd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"earshot/internal/turnstile"
)

// maxSpill bounds what is kept of a message that has not come whole.
const maxSpill = 9 << 20

// reader is what a connection's bytes are for.
type reader interface {
	// opened: the connection is up, TLS included. The request is sent now.
	opened(c *conn)
	// received takes whole pieces off the front of b and says how many bytes that was; the rest comes again, with more behind it.
	received(c *conn, b []byte) (used int, err error)
	// ended: nothing comes any more; io.EOF is an orderly end. rest is what was not used. The connection is closed already.
	ended(c *conn, rest []byte, err error)
}

// conn is a TCP connection of a listener, plain or with TLS. It has no goroutine, but one for as long as a TLS handshake takes.
type conn struct {
	loop    *loop
	to      reader
	fd      int
	spill   []byte // of a piece that has not come whole
	out     []byte // what the socket has not taken yet
	tls     *tls.Conn
	wire    *tlsWire
	count   *int64 // of bytes read
	opening bool   // TCP or TLS is not up yet
	closed  bool
	paused  bool // a slow reader reads when its time comes
}

// dial opens a connection to where the target is, and from an address of the listener's own if there are any. It never waits.
func (l *loop) dial(to reader, from netip.Addr, t *target, tlsConfig *tls.Config, small bool, count *int64) (*conn, error) {
	addr := t.Addr
	family := unix.AF_INET
	if addr.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket: %w", err)
	}
	c := &conn{loop: l, to: to, fd: fd, opening: true, count: count}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if small {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<10)
	}
	if from.IsValid() {
		// Without this the port would be chosen before the other end is known, and ports would run out at 28,000.
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(from, 0))); err != nil {
			_ = unix.Close(fd)
			return nil, fmt.Errorf("bind to %s: %w", from, err)
		}
	}
	err = unix.Connect(fd, sockaddr(addr))
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("connect: %w", err)
	}
	if tlsConfig != nil {
		c.wire = &tlsWire{c: c, wait: make(chan struct{}, 1), turn: l.gate.Turn(), handshaking: true}
		c.tls = tls.Client(c.wire, tlsConfig)
	}
	if err := l.add(fd, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLRDHUP, c); err != nil {
		l.forget(fd)
		return nil, fmt.Errorf("watch a socket: %w", err)
	}
	return c, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func (c *conn) ready(events uint32) {
	switch {
	case c.opening && c.wire != nil && c.wire.begun:
		c.wire.signal() // the handshake's goroutine goes on
	case c.opening:
		if e, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || e != 0 {
			c.end(unix.Errno(e))
			return
		}
		if events&unix.EPOLLOUT == 0 {
			return
		}
		if c.tls != nil {
			c.wire.begun = true
			_ = c.loop.change(c.fd, 0)
			go c.handshake()
			return
		}
		c.up()
	default:
		if events&unix.EPOLLOUT != 0 && len(c.out) > 0 {
			c.flush()
		}
		if !c.closed && events&^unix.EPOLLOUT != 0 {
			c.read(len(c.loop.buf))
		}
	}
}

// up is called when requests can be sent.
func (c *conn) up() {
	c.opening = false
	c.watch()
	c.to.opened(c)
}

func (c *conn) watch() {
	events := uint32(unix.EPOLLIN | unix.EPOLLRDHUP)
	if c.paused {
		events = 0
	}
	if len(c.out) > 0 {
		events |= unix.EPOLLOUT
	}
	if err := c.loop.change(c.fd, events); err != nil {
		c.end(err)
	}
}

// pause makes a slow reader of the connection's end: it reads only by sip.
func (c *conn) pause() {
	c.paused = true
	c.watch()
}

// sip reads n bytes at most.
func (c *conn) sip(n int) {
	if !c.closed && !c.opening {
		c.read(min(n, len(c.loop.buf)))
	}
}

// read reads what is there, once: what is left makes the descriptor ready again.
func (c *conn) read(limit int) {
	n, err := unix.Read(c.fd, c.loop.buf[:limit])
	switch {
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		return
	case err != nil:
		c.end(err)
		return
	case n == 0:
		c.end(io.EOF)
		return
	}
	*c.count += int64(n)
	if c.tls == nil {
		c.take(c.loop.buf[:n])
		return
	}
	// All of the ciphertext is given to crypto/tls at once; it keeps what is not a whole record.
	c.wire.in = c.loop.buf[:n]
	for !c.closed {
		n, err := c.tls.Read(c.loop.plain)
		if n > 0 {
			c.take(c.loop.plain[:n])
			continue
		}
		if errors.Is(err, errAgain) {
			return
		}
		if err != nil {
			c.end(err)
		}
	}
}

// take passes on what was read, behind what is left of before.
func (c *conn) take(b []byte) {
	if len(c.spill) > 0 {
		c.spill = append(c.spill, b...)
		b = c.spill
	}
	used, err := c.to.received(c, b)
	if c.closed {
		return
	}
	if err == nil && len(b)-used > maxSpill {
		err = fmt.Errorf("%w: %d bytes without an end", errMalformed, len(b)-used)
	}
	if err != nil {
		c.end(err)
		return
	}
	rest := b[used:]
	switch {
	case len(rest) == 0:
		if c.spill != nil {
			c.loop.give(c.spill)
			c.spill = nil
		}
	case len(c.spill) > 0:
		c.spill = c.spill[:copy(c.spill, rest)]
	default:
		c.spill = append(c.loop.borrow(), rest...)
	}
}

// borrow gives an empty buffer, give takes it back.
func (l *loop) borrow() []byte {
	if n := len(l.spare); n > 0 {
		b := l.spare[n-1]
		l.spare = l.spare[:n-1]
		return b
	}
	return make([]byte, 0, 2<<10)
}

func (l *loop) give(b []byte) {
	if cap(b) <= 64<<10 && len(l.spare) < 256 {
		l.spare = append(l.spare, b[:0])
	}
}

// send writes a request. What the socket does not take waits.
func (c *conn) send(b []byte) {
	if c.closed {
		return
	}
	if c.tls != nil {
		if _, err := c.tls.Write(b); err != nil {
			c.end(err)
		}
		return
	}
	if err := c.put(b); err != nil {
		c.end(err)
	}
}

func (c *conn) put(b []byte) error {
	if len(c.out) == 0 {
		n, err := unix.Write(c.fd, b)
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			return err
		}
		if b = b[max(n, 0):]; len(b) == 0 {
			return nil
		}
	}
	c.out = append(c.out, b...)
	c.watch()
	return nil
}

func (c *conn) flush() {
	n, err := unix.Write(c.fd, c.out)
	if err != nil && !errors.Is(err, unix.EAGAIN) {
		c.end(err)
		return
	}
	if c.out = c.out[max(n, 0):]; len(c.out) == 0 {
		c.out = nil
		c.watch()
	}
}

// end closes the connection because of err, and says so.
func (c *conn) end(err error) {
	if c.closed {
		return
	}
	rest := c.spill
	c.shut()
	c.to.ended(c, rest, err)
}

// shut closes the connection; nobody is told.
func (c *conn) shut() {
	if c.closed {
		return
	}
	c.closed = true
	c.spill, c.out = nil, nil
	if c.opening && c.wire != nil && c.wire.begun {
		// The handshake's goroutine uses the descriptor: it ends first.
		_ = unix.Shutdown(c.fd, unix.SHUT_RDWR)
		c.wire.signal()
		return
	}
	c.loop.forget(c.fd)
}

// handshake runs in a goroutine of its own, because crypto/tls cannot be left and entered again within one.
func (c *conn) handshake() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	c.wire.turn.Take(turnstile.Begin)
	err := c.tls.HandshakeContext(ctx)
	c.wire.turn.Give()
	c.wire.turn = nil
	cancel()
	c.loop.hand(func() {
		c.opening, c.wire.handshaking = false, false
		switch {
		case c.closed:
			c.loop.forget(c.fd)
		case err != nil:
			c.end(&tlsError{err})
		default:
			c.up()
			// What came with the handshake's last flight lies in crypto/tls, and no event tells of it.
			if !c.closed && !c.paused {
				c.drain()
			}
		}
	})
}

func (c *conn) drain() {
	for !c.closed {
		n, err := c.tls.Read(c.loop.plain)
		if n > 0 {
			c.take(c.loop.plain[:n])
			continue
		}
		if err != nil && !errors.Is(err, errAgain) {
			c.end(err)
		}
		return
	}
}

type tlsError struct{ err error }

func (e *tlsError) Error() string { return "TLS: " + e.err.Error() }
func (e *tlsError) Unwrap() error { return e.err }

var (
	errMalformed = errors.New("malformed")
	errAgain     = &again{}
)

// again is what crypto/tls is told when there is nothing to read. Being temporary it does not end the connection (a write's
// error always would).
type again struct{}

func (*again) Error() string   { return "nothing to read" }
func (*again) Timeout() bool   { return true }
func (*again) Temporary() bool { return true }

// tlsWire is the connection as crypto/tls sees it. During the handshake it waits as any connection does; afterwards Read
// gives what the loop has read, and else errAgain.
type tlsWire struct {
	c           *conn
	in          []byte
	wait        chan struct{}
	turn        *turnstile.Turn // of the handshake
	begun       bool            // the handshake's goroutine runs; the loop's
	handshaking bool            // Read waits; changed only while no handshake runs
}

func (w *tlsWire) signal() {
	select {
	case w.wait <- struct{}{}:
	default:
	}
}

func (w *tlsWire) Read(b []byte) (int, error) {
	if !w.handshaking {
		if len(w.in) == 0 {
			return 0, errAgain
		}
		n := copy(b, w.in)
		w.in = w.in[n:]
		return n, nil
	}
	for {
		n, err := unix.Read(w.c.fd, b)
		switch {
		case n > 0:
			return n, nil
		case err == nil:
			return 0, io.EOF
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EAGAIN):
			return 0, os.NewSyscallError("read", err)
		default:
			if err := w.c.loop.change(w.c.fd, unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLONESHOT); err != nil {
				return 0, err
			}
			w.turn.Give()
			<-w.wait
			w.turn.Take(turnstile.GoOn)
		}
	}
}

func (w *tlsWire) Write(b []byte) (int, error) {
	if !w.handshaking {
		return len(b), w.c.put(b)
	}
	for sent := 0; sent < len(b); {
		n, err := unix.Write(w.c.fd, b[sent:])
		sent += max(n, 0)
		switch {
		case err == nil || errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EAGAIN):
			return sent, os.NewSyscallError("write", err)
		default:
			if err := w.c.loop.change(w.c.fd, unix.EPOLLOUT|unix.EPOLLRDHUP|unix.EPOLLONESHOT); err != nil {
				return sent, err
			}
			w.turn.Give()
			<-w.wait
			w.turn.Take(turnstile.GoOn)
		}
	}
	return len(b), nil
}

// Close is crypto/tls's when a handshake's context ends.
func (w *tlsWire) Close() error {
	err := unix.Shutdown(w.c.fd, unix.SHUT_RDWR)
	w.signal()
	return err
}

func (w *tlsWire) LocalAddr() net.Addr              { return nil }
func (w *tlsWire) RemoteAddr() net.Addr             { return nil }
func (w *tlsWire) SetDeadline(time.Time) error      { return nil }
func (w *tlsWire) SetReadDeadline(time.Time) error  { return nil }
func (w *tlsWire) SetWriteDeadline(time.Time) error { return nil }
