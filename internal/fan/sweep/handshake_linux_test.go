package sweep

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"earshot/internal/turnstile"
)

// lobby is a TLS listener whose connections nobody asks for until the test does.
func lobby(t *testing.T) (*Engine, *Listener) {
	t.Helper()
	e, err := New(Config{Goroutines: true})
	must(t, err)
	tcp, err := ListenTCP(context.Background(), "127.0.0.1:0")
	must(t, err)
	l := e.Listen(tcp, selfSigned(t))
	t.Cleanup(func() {
		_ = l.Close()
		e.end()
		e.wg.Wait()
		if waiting, _ := e.Handshakes(); waiting != 0 || l.open.Load() != 0 || len(l.entering) != 0 {
			t.Errorf("%d handshakes and %d connections are counted after the end, %d kept", waiting, l.open.Load(), len(l.entering))
		}
	})
	return e, l
}

func dial(t *testing.T, l *Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for until := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func (e *Engine) unshaken(reason string) uint64 {
	_, failed := e.Handshakes()
	return failed[reason]
}

// While all turns are taken newcomers wait, whatever they have sent; those who hang up meanwhile cost nothing more.
func TestHandshakesTakeTurns(t *testing.T) {
	e, l := lobby(t)
	turns := l.takeAll()
	shaken := make(chan error, 1)
	patient := tls.Client(dial(t, l), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // its own
	go func() { shaken <- patient.Handshake() }()
	hasty := dial(t, l)
	hello, err := firstFlight()
	must(t, err)
	_, err = hasty.Write(hello)
	must(t, err)
	_ = hasty.Close()
	eventually(t, "both came", func() bool { waiting, _ := e.Handshakes(); return waiting == 2 })
	select {
	case err := <-shaken:
		t.Fatalf("a handshake without a turn: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	giveBack(turns)
	c, err := l.Accept()
	must(t, err)
	if !c.(*tls.Conn).ConnectionState().HandshakeComplete {
		t.Error("a connection that has not shaken hands")
	}
	must(t, <-shaken)
	_, err = c.Write([]byte("hello"))
	must(t, err)
	var b [5]byte
	if _, err := io.ReadFull(patient, b[:]); err != nil || string(b[:]) != "hello" {
		t.Errorf("%q %v", b, err)
	}
	_ = c.Close()
	eventually(t, "the hasty one is counted", func() bool { return e.unshaken("left") == 1 })
}

// Somebody who waits for its client holds no turn: a thousand who say nothing leave all turns to the others.
func TestSilenceHoldsNoTurn(t *testing.T) {
	e, l := lobby(t)
	hello, err := firstFlight()
	must(t, err)
	for i := range 100 {
		_, err = dial(t, l).Write(hello[:len(hello)*(i%3)/2]) // nothing, the half, all of it but then no answer
		must(t, err)
	}
	eventually(t, "they came", func() bool { waiting, _ := e.Handshakes(); return waiting == 100 })
	for range 5 {
		c := tls.Client(dial(t, l), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // its own
		must(t, c.Handshake())
		server, err := l.Accept()
		must(t, err)
		_ = server.Close()
	}
}

// A client's own time is bounded, over all that it sends, and the wait for a turn is not part of it.
func TestHandshakeHasAnEnd(t *testing.T) {
	_, l := lobby(t)
	server, client := pair(t)
	c := &Conn{TCPConn: server, fd: -1, entry: l.newEntry(60 * time.Millisecond)}
	go func() {
		for range 100 {
			if _, err := client.Write([]byte{22}); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	began := time.Now()
	err := tls.Server(c, selfSigned(t)).Handshake()
	if why := unshaken(err); why != unshakenTimeout && why != unshakenOther || time.Since(began) > 5*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
	c.entry.turn.Give()
	giveBack(l.takeAll()) // it holds none any more
}

// takeAll takes all turns there are.
func (l *Listener) takeAll() (turns []*turnstile.Turn) {
	for range runtime.GOMAXPROCS(0) {
		turn := l.turns.Turn()
		turn.Take(turnstile.GoOn)
		turns = append(turns, turn)
	}
	return turns
}

func giveBack(turns []*turnstile.Turn) {
	for _, turn := range turns {
		turn.Give()
	}
}

// Whoever sends its hello in crumbs takes no turns from others for it: it is let go.
func TestHandshakeInCrumbs(t *testing.T) {
	e, l := lobby(t)
	hello, err := firstFlight()
	must(t, err)
	c := dial(t, l)
	for _, b := range hello {
		if _, err := c.Write([]byte{b}); err != nil {
			break
		}
		time.Sleep(time.Millisecond)
		if e.unshaken("other") > 0 {
			return
		}
	}
	eventually(t, "it is let go", func() bool { return e.unshaken("other") > 0 })
}

// Who asks an HTTPS address for HTTP is told; who speaks something else is counted.
func TestNotTLS(t *testing.T) {
	e, l := lobby(t)
	c := dial(t, l)
	_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	must(t, err)
	b, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 400 ") || !strings.Contains(string(b), "https://") {
		t.Errorf("%q %v", b, err)
	}
	c = dial(t, l)
	_, err = io.WriteString(c, "SSH-2.0-somebody\r\n")
	must(t, err)
	_, _ = io.ReadAll(c)
	if e.unshaken("plain") != 1 || e.unshaken("other") != 1 {
		_, failed := e.Handshakes()
		t.Errorf("counted %v", failed)
	}
}

// firstFlight is what a client sends first.
func firstFlight() ([]byte, error) {
	a, b := net.Pipe()
	defer a.Close()
	go func() { _ = tls.Client(b, &tls.Config{InsecureSkipVerify: true}).Handshake() }() //nolint:gosec // never answered
	buf := make([]byte, 8<<10)
	n, err := a.Read(buf)
	return buf[:n], err
}

func pair(t *testing.T) (server, client *net.TCPConn) {
	t.Helper()
	l, err := ListenTCP(context.Background(), "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	s, err := l.AcceptTCP()
	must(t, err)
	t.Cleanup(func() { _ = c.Close(); _ = s.Close() })
	return s, c.(*net.TCPConn)
}
