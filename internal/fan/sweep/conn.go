package sweep

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// errBlocked says that a socket takes, or has, nothing more at the moment. It is a net.Error that is temporary, so crypto/tls goes on
// where it was after a read that met it. (A write must never answer it: crypto/tls takes any error of a write for the end.)
var errBlocked = blocked{}

type blocked struct{}

func (blocked) Error() string   { return "sweep: would block" }
func (blocked) Timeout() bool   { return true }
func (blocked) Temporary() bool { return true }

// Conn is an accepted connection. As long as net/http has it, it is a *net.TCPConn; once a shard has it, it never blocks: a read
// gives what there is, a write takes everything and keeps what the socket does not take.
type Conn struct {
	*net.TCPConn
	in   *Listener // nil: not counted
	left atomic.Bool

	// The shard's, once detached.
	fd      int    // -1 before
	pending []byte // accepted and not yet written
	came    int    // bytes that were read
	since   time.Time
}

// pendingLimit is what a connection may owe its socket. A chunk is written only when nothing is owed, so more than this is a client that
// makes TLS answer without reading.
const pendingLimit = 256 << 10

// detach duplicates the socket and closes the net.Conn: its netpoll entry is gone then.
func (c *Conn) detach() error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	fd := -1
	var derr error
	if err := rc.Control(func(f uintptr) { fd, derr = duplicate(int(f)) }); err != nil {
		return err
	}
	if derr != nil {
		return derr
	}
	_ = c.TCPConn.Close()
	c.fd, c.since = fd, time.Now()
	return nil
}

// handOver says that the connection is no longer counted by its listener: the engine counts its place.
func (c *Conn) handOver() {
	if c.in != nil && c.left.CompareAndSwap(false, true) {
		c.in.open.Add(-1)
	}
}

// Read is net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	if c.fd < 0 {
		return c.TCPConn.Read(b)
	}
	n, err := readFD(c.fd, b)
	c.came += n
	return n, err
}

// Write is net.Conn.
func (c *Conn) Write(b []byte) (int, error) {
	if c.fd < 0 {
		return c.TCPConn.Write(b)
	}
	if len(c.pending) == 0 {
		n, err := writeFD(c.fd, b)
		if err != nil && !errors.Is(err, errBlocked) {
			return n, err
		}
		if n == len(b) {
			return n, nil
		}
		c.pending = append(c.pending, b[n:]...)
		return len(b), nil
	}
	c.pending = append(c.pending, b...)
	return len(b), nil
}

// flush writes what is owed: errBlocked if some of it still is.
func (c *Conn) flush() error {
	if len(c.pending) == 0 {
		return nil
	}
	n, err := writeFD(c.fd, c.pending)
	if err != nil {
		return err
	}
	if n < len(c.pending) {
		c.pending = c.pending[:copy(c.pending, c.pending[n:])]
		return errBlocked
	}
	c.pending = nil
	return nil
}

// Close is net.Conn.
func (c *Conn) Close() error {
	c.handOver()
	if c.fd >= 0 {
		return nil // the shard closes its socket itself
	}
	return c.TCPConn.Close()
}

// SetDeadline is net.Conn; a detached connection has none.
func (c *Conn) SetDeadline(t time.Time) error {
	if c.fd >= 0 {
		return nil
	}
	return c.TCPConn.SetDeadline(t)
}

// SetReadDeadline is net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	if c.fd >= 0 {
		return nil
	}
	return c.TCPConn.SetReadDeadline(t)
}

// SetWriteDeadline is net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	if c.fd >= 0 {
		return nil
	}
	return c.TCPConn.SetWriteDeadline(t)
}

// Listener accepts connections that an engine can take over. Where descriptors run out, a newcomer is told so at once, instead of waiting in
// the kernel's queue until it gives up.
type Listener struct {
	*net.TCPListener
	engine *Engine
	secure bool // the refusal would have to be in TLS: it is only closed
	limit  int  // descriptors that may be open because of strangers
	open   atomic.Int64
	sorry  chan struct{} // a place in it for each who is being told
}

// spare is how many descriptors a listener leaves unused: for the store's files, and for saying no.
const spare = 96

// Listen wraps a listener of HTTP. secure says that TLS is spoken on it.
func (e *Engine) Listen(l *net.TCPListener, secure bool) *Listener {
	return &Listener{TCPListener: l, engine: e, secure: secure, limit: Descriptors() - spare, sorry: make(chan struct{}, spare/2)}
}

// ListenTCP opens a TCP listener whose connections carry no keep-alive probes of the kernel's: listeners get data all the time, and a
// bound on how long that may stay unacknowledged.
func ListenTCP(ctx context.Context, addr string) (*net.TCPListener, error) {
	lc := net.ListenConfig{KeepAlive: -1}
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// Accept is net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
				time.Sleep(5 * time.Millisecond) // other parts took the spare ones; net/http would wait up to a second
				continue
			}
			return nil, err
		}
		if int(l.open.Load()+l.engine.sockets.Load())+l.engine.cfg.Elsewhere() < l.limit {
			l.open.Add(1)
			tune(c)
			return &Conn{TCPConn: c, in: l, fd: -1}, nil
		}
		l.engine.turned.Add(1)
		if l.secure {
			_ = c.Close()
			continue
		}
		_ = c.SetDeadline(time.Now().Add(apology))
		_, _ = c.Write(noRoom) // a new socket takes it at once
		_ = c.CloseWrite()
		select {
		case l.sorry <- struct{}{}:
			l.engine.wg.Go(func() {
				drain(c)
				<-l.sorry
			})
		default:
			_ = c.Close()
		}
	}
}

// noRoom is what a newcomer is told for whom there is not even a descriptor.
var noRoom = func() []byte {
	const body = `{"type":"about:blank","title":"Service Unavailable","status":503,"code":"unavailable",` +
		`"detail":"The server has as many listeners as it can take. Try again in half a minute."}`
	return fmt.Appendf(nil, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 30\r\n"+
		"Cache-Control: no-store\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}()

// apology is how long a connection that was told so is kept for its request to arrive: unread, it would reset the connection, and the answer
// with it.
const apology = 100 * time.Millisecond

func drain(c *net.TCPConn) {
	var b [2048]byte
	for n, err := c.Read(b[:]); n > 0 && err == nil; n, err = c.Read(b[:]) {
	}
	_ = c.Close()
}
