package sweep

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// A TLS handshake takes half a millisecond of a processor, forty times what serving a listener for a second takes. Left to themselves, ten
// thousand newcomers are ten thousand runnable goroutines, and the shard is one more of them: it then waits seconds for its turn, and
// everybody who listens already hears that. So newcomers may compute only with a turn in their hand, and give it back whenever they wait for
// their client: a slow one holds up nobody.

// turnstile gives the turns: to those who have our answer already before those who begin, so that they finish.
type turnstile struct {
	asks [2]chan chan struct{} // by kind: who begins, who goes on. Taking what was asked with is the turn, sending on it gives it back.
	near atomic.Int64          // newcomers who do not wait for their client
	most int64                 // of them, before no others are let near: who waits further back needs no goroutine
	end  chan struct{}
	wg   sync.WaitGroup
}

func newTurnstile(processors int) *turnstile {
	t := &turnstile{most: 16 * int64(processors), end: make(chan struct{})}
	for i := range t.asks {
		t.asks[i] = make(chan chan struct{})
	}
	for range processors {
		t.wg.Go(t.turn)
	}
	return t
}

// turn gives one turn after another. Before each everybody else has one: the scheduler takes up a goroutine that yields after all that are
// runnable now. So newcomers have the time that nobody else wants, however many they are.
func (t *turnstile) turn() {
	for {
		var back chan struct{}
		select {
		case back = <-t.asks[1]:
		default:
			select {
			case back = <-t.asks[1]:
			case back = <-t.asks[0]:
			case <-t.end:
				return
			}
		}
		<-back
		runtime.Gosched()
	}
}

// close ends it; nobody may ask any more.
func (t *turnstile) close() {
	close(t.end)
	t.wg.Wait()
}

// entry is a connection's way through its handshake. It is used from one goroutine.
type entry struct {
	turns    *turnstile
	reads    int
	back     chan struct{} // capacity 1
	held     bool          // it has a turn
	patience time.Duration // for its client's part, all together
}

func (t *turnstile) newEntry(patience time.Duration) *entry {
	return &entry{turns: t, back: make(chan struct{}, 1), patience: patience}
}

// handshakeWait is how long a client may take for its part of a handshake. Its wait for a turn does not count.
const handshakeWait = 10 * time.Second

// read waits for the client without a turn, and returns with one.
func (e *entry) read(c *net.TCPConn, b []byte) (int, error) {
	e.giveBack()
	began := time.Now()
	_ = c.SetDeadline(began.Add(e.patience))
	e.turns.near.Add(-1)
	n, err := c.Read(b)
	e.turns.near.Add(1)
	if err != nil {
		return n, err
	}
	e.patience -= time.Since(began)
	e.turns.asks[min(e.reads, 1)] <- e.back
	e.held = true
	e.reads++
	if hungUp(c) { // while it waited for its turn: it would be in vain
		return 0, io.ErrUnexpectedEOF
	}
	_ = c.SetWriteDeadline(time.Now().Add(time.Second)) // what we say fits any socket's buffer
	return n, nil
}

func (e *entry) giveBack() {
	if e.held {
		e.back <- struct{}{}
		e.held = false
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
		for l.turns.near.Load() >= l.turns.most {
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
		l.turns.near.Add(1)
		l.wg.Go(func() { l.shakeHands(c) })
	}
}

// shakeHands does a handshake, and gives the connection to whoever accepts.
func (l *Listener) shakeHands(c *Conn) {
	c.entry = l.turns.newEntry(handshakeWait)
	tc := tls.Server(c, l.tls)
	err := tc.Handshake()
	c.entry.giveBack()
	c.entry = nil
	l.turns.near.Add(-1)
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
