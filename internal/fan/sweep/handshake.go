package sweep

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// A TLS handshake takes half a millisecond of a processor, forty times what serving a listener for a second takes. Left to themselves, ten
// thousand newcomers are ten thousand runnable goroutines, and the shard is one more of them: it then waits seconds for its turn, and
// everybody who listens already hears that. So newcomers may compute only with a turn in their hand, of which there are as many as
// processors. They give it back whenever they wait for their client: a slow one holds up nobody.

// turnstile gives the turns: one kind for who begins, one for who has our answer already, so that these finish before others begin.
type turnstile [2]chan struct{}

func newTurnstile(n int) (t turnstile) {
	for i := range t {
		t[i] = make(chan struct{}, n)
	}
	return t
}

// entry is a connection's way through its handshake. It is used from one goroutine.
type entry struct {
	turns    turnstile
	reads    int
	held     chan struct{} // where its turn has to be given back; nil: it has none
	patience time.Duration // for its client's part, all together
}

// handshakeWait is how long a client may take for its part of a handshake. Its wait for a turn does not count.
const handshakeWait = 10 * time.Second

// read waits for the client without a turn, and returns with one.
func (e *entry) read(c *net.TCPConn, b []byte) (int, error) {
	e.giveBack()
	began := time.Now()
	_ = c.SetDeadline(began.Add(e.patience))
	n, err := c.Read(b)
	if err != nil {
		return n, err
	}
	e.patience -= time.Since(began)
	turn := e.turns[min(e.reads, 1)]
	e.reads++
	turn <- struct{}{}
	e.held = turn
	if hungUp(c) { // while it waited for its turn: it would be in vain
		return 0, io.ErrUnexpectedEOF
	}
	_ = c.SetWriteDeadline(time.Now().Add(time.Second)) // what we say fits any socket's buffer
	return n, nil
}

func (e *entry) giveBack() {
	if e.held != nil {
		<-e.held
		e.held = nil
	}
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

// receive accepts connections until the listener is closed, and has each shake hands.
func (l *Listener) receive() {
	for {
		c, err := l.accept()
		if err != nil {
			l.failed <- err
			return
		}
		l.mu.Lock()
		closed := l.closed
		if !closed {
			l.entering[c] = struct{}{}
		}
		l.mu.Unlock()
		if closed {
			_ = c.Close()
			continue
		}
		l.engine.handshakes.waiting.Add(1)
		l.wg.Go(func() { l.shakeHands(c) })
	}
}

// shakeHands does a handshake, and gives the connection to whoever accepts.
func (l *Listener) shakeHands(c *Conn) {
	c.entry = &entry{turns: l.engine.turns, patience: handshakeWait}
	tc := tls.Server(c, l.tls)
	err := tc.Handshake()
	c.entry.giveBack()
	c.entry = nil
	l.mu.Lock()
	delete(l.entering, c)
	l.mu.Unlock()
	l.engine.handshakes.waiting.Add(-1)
	if err != nil {
		l.engine.handshakes.unshaken[unshaken(err)].Add(1)
		if unshaken(err) == unshakenPlain {
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
