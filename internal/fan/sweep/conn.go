package sweep

import (
	"errors"
	"net"
	"sync/atomic"
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
	*net.TCPConn           // nil once detached
	in           *Listener // nil: not counted
	left         atomic.Bool
	entry        *entry // nil: not in a TLS handshake

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
	c.TCPConn, c.fd, c.since = nil, fd, time.Now()
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
	if c.entry != nil {
		return c.entry.read(c.TCPConn, b)
	}
	if c.fd < 0 {
		return c.TCPConn.Read(b)
	}
	n, err := readFD(c.fd, b)
	c.came += n
	return n, err
}

// Write is net.Conn.
func (c *Conn) Write(b []byte) (int, error) {
	if c.entry != nil {
		c.entry.answered = true
	}
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
