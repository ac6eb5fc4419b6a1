package sweep

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"earshot/internal/turnstile"
)

// Listener accepts connections that an engine can take over; with TLS, once they have shaken hands. Where descriptors run out, a newcomer is
// told so at once, instead of waiting in the kernel's queue until it gives up.
type Listener struct {
	*net.TCPListener
	engine *Engine
	tls    *tls.Config   // nil: plain
	limit  int           // descriptors that may be open because of strangers
	open   atomic.Int64  // connections that no place is counted for
	sorry  chan struct{} // a place in it for each who is being told
	wg     sync.WaitGroup

	// With TLS.
	turns   *turnstile.Gate
	near    atomic.Int64 // newcomers who do not wait for their client
	nearest int64        // of them, before no others are let near: who waits further back needs no goroutine
	line    chan *Conn   // who has come and not begun to shake hands
	ready   chan net.Conn
	closing chan struct{}
	failed  chan error // why nothing is accepted any more

	mu       sync.Mutex
	closed   bool
	entering map[*Conn]struct{}
}

// spare is how many descriptors a listener leaves unused: for the store's files, and for saying no.
const spare = 96

// Listen wraps a listener of HTTP. With a TLS configuration its connections are *tls.Conn that have shaken hands, few at a time: see [entry].
func (e *Engine) Listen(tcp *net.TCPListener, config *tls.Config) *Listener {
	l := &Listener{TCPListener: tcp, engine: e, tls: config, limit: Descriptors() - spare, sorry: make(chan struct{}, spare/2)}
	if config != nil {
		l.ready, l.closing, l.failed = make(chan net.Conn), make(chan struct{}), make(chan error, 1)
		l.turns, l.nearest = turnstile.New(runtime.GOMAXPROCS(0)), 16*int64(runtime.GOMAXPROCS(0))
		l.line, l.entering = make(chan *Conn, min(l.limit, 1<<16)), make(map[*Conn]struct{})
		l.wg.Go(l.receive)
		l.wg.Go(l.usher)
	}
	return l
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
	if l.tls == nil {
		return l.accept()
	}
	select {
	case c := <-l.ready:
		return c, nil
	case err := <-l.failed:
		l.failed <- err // for the next who asks
		return nil, err
	}
}

// Close ends it, and the handshakes that are under way.
func (l *Listener) Close() error {
	err := l.TCPListener.Close()
	l.mu.Lock()
	first := !l.closed && l.tls != nil
	if first {
		close(l.closing)
	}
	l.closed = true
	for c := range l.entering {
		_ = c.TCPConn.Close()
	}
	l.mu.Unlock()
	l.wg.Wait()
	if first {
		l.turns.Close()
	}
	return err
}

// accept waits for a connection that there is room for.
func (l *Listener) accept() (*Conn, error) {
	for {
		c, err := l.AcceptTCP()
		switch {
		case err == nil:
		case errors.Is(err, syscall.ECONNABORTED):
			continue
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.ENOMEM):
			time.Sleep(5 * time.Millisecond) // other parts took the spare ones; net/http would wait up to a second
			continue
		default:
			return nil, err
		}
		if int(l.open.Load()+l.engine.sockets.Load())+l.engine.cfg.Elsewhere() < l.limit {
			l.open.Add(1)
			tune(c)
			return &Conn{TCPConn: c, in: l, fd: -1}, nil
		}
		l.engine.turned.Add(1)
		if l.tls != nil { // it would have to be said in TLS
			_ = c.Close()
			continue
		}
		_ = c.SetDeadline(time.Now().Add(apology))
		_, _ = c.Write(noRoom) // a new socket takes it at once
		_ = c.CloseWrite()
		select {
		case l.sorry <- struct{}{}:
			l.wg.Go(func() {
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
