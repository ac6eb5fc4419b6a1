package sweep

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"earshot/internal/turnstile"
)

// entry is a connection's way through its handshake: it computes only with a turn (see package turnstile), and gives it back while it waits for
// its client, so that a slow one holds up nobody. It is used from one goroutine.
type entry struct {
	turn     *turnstile.Turn
	near     *atomic.Int64 // see Listener
	reads    int
	answered bool          // something was written: the client's hello is whole
	patience time.Duration // for its client's part, all together
}

// handshakeWait is how long a client may take for its part of a handshake. Its wait for a turn does not count.
const handshakeWait = 10 * time.Second

// mostReads is how often a handshake may be read from: two or three times is usual, and each costs a turn.
const mostReads = 64

var errCrumbs = errors.New("sweep: a handshake in crumbs")

// read waits for the client without a turn, and returns with one.
func (e *entry) read(c *net.TCPConn, b []byte) (int, error) {
	e.turn.Give()
	if e.reads++; e.reads > mostReads {
		return 0, errCrumbs
	}
	began := time.Now()
	_ = c.SetDeadline(began.Add(e.patience))
	e.near.Add(-1)
	n, err := c.Read(b)
	e.near.Add(1)
	if err != nil {
		return n, err
	}
	e.patience -= time.Since(began)
	kind := turnstile.Begin
	if e.answered {
		kind = turnstile.GoOn
	}
	e.turn.Take(kind)
	if hungUp(c) { // while it waited for its turn: it would be in vain
		return 0, io.ErrUnexpectedEOF
	}
	_ = c.SetWriteDeadline(time.Now().Add(time.Second)) // what we say fits any socket's buffer
	return n, nil
}

// Why a handshake came to nothing.
const (
	unshakenLeft    = iota // the client went
	unshakenTimeout        // it took too long
	unshakenPlain          // it speaks HTTP without TLS
	unshakenOther
	nUnshaken
)

// handshakes counts them.
type handshakes struct {
	waiting  atomic.Int64
	unshaken [nUnshaken]atomic.Uint64
}

// Handshakes tells how many TLS handshakes are under way, and how many came to nothing since the engine began, by reason.
func (e *Engine) Handshakes() (waiting int64, failed map[string]uint64) {
	h := &e.handshakes
	return h.waiting.Load(), map[string]uint64{
		"left":    h.unshaken[unshakenLeft].Load(),
		"timeout": h.unshaken[unshakenTimeout].Load(),
		"plain":   h.unshaken[unshakenPlain].Load(),
		"other":   h.unshaken[unshakenOther].Load(),
	}
}

// receive accepts connections until the listener is closed.
func (l *Listener) receive() {
	defer close(l.line)
	for {
		c, err := l.accept()
		if err != nil {
			l.failed <- err
			return
		}
		l.engine.handshakes.waiting.Add(1)
		l.line <- c
	}
}

// usher has them shake hands, one after another, as they came.
func (l *Listener) usher() {
	for c := range l.line {
		for l.near.Load() >= l.nearest {
			time.Sleep(time.Millisecond)
		}
		l.mu.Lock()
		closed := l.closed
		if !closed {
			l.entering[c] = struct{}{}
		}
		l.mu.Unlock()
		if closed {
			l.engine.handshakes.waiting.Add(-1)
			_ = c.Close()
			continue
		}
		l.near.Add(1)
		l.wg.Go(func() { l.shakeHands(c) })
	}
}

func (l *Listener) newEntry(patience time.Duration) *entry {
	return &entry{turn: l.turns.Turn(), near: &l.near, patience: patience}
}

// shakeHands does a handshake, and gives the connection to whoever accepts.
func (l *Listener) shakeHands(c *Conn) {
	c.entry = l.newEntry(handshakeWait)
	tc := tls.Server(c, l.tls)
	err := tc.Handshake()
	c.entry.turn.Give()
	c.entry = nil
	l.near.Add(-1)
	l.mu.Lock()
	delete(l.entering, c)
	l.mu.Unlock()
	l.engine.handshakes.waiting.Add(-1)
	if err != nil {
		why := unshaken(err)
		l.engine.handshakes.unshaken[why].Add(1)
		if why == unshakenPlain {
			_ = c.SetDeadline(time.Now().Add(apology))
			_, _ = c.TCPConn.Write(speakTLS)
			_ = c.CloseWrite()
			drain(c.TCPConn)
		}
		_ = c.Close()
		return
	}
	_ = c.SetDeadline(time.Time{})
	select {
	case l.ready <- tc:
	case <-l.closing:
		_ = c.Close()
	}
}

// unshaken is why a handshake came to nothing.
func unshaken(err error) int {
	if plain, ok := errors.AsType[tls.RecordHeaderError](err); ok && plain.Conn != nil {
		switch string(plain.RecordHeader[:]) {
		case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET", "PATCH":
			return unshakenPlain
		}
		return unshakenOther
	}
	switch _, network := errors.AsType[*net.OpError](err); {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return unshakenTimeout
	case network, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return unshakenLeft
	}
	return unshakenOther // it and we have no version or cipher in common, or it does not like our certificate
}

// speakTLS is for who asks an HTTPS address for HTTP.
var speakTLS = []byte("HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n" +
	"This address speaks HTTPS: ask again with https:// in front.\n")
