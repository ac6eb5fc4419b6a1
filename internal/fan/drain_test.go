package fan

import (
	"bufio"
	"bytes"
	"errors"
	"testing"

	"github.com/gobwas/ws"
)

// clientFrame is a masked frame as a browser sends it (RFC 6455, 5.2).
func clientFrame(op ws.OpCode, payload string) []byte {
	f := ws.MaskFrame(ws.NewFrame(op, true, []byte(payload)))
	b, err := ws.CompileFrame(f)
	if err != nil {
		panic(err)
	}
	return b
}

// Whatever a client sends, reading ends with the input, by a code that RFC 6455 knows, and asks for no answer longer than a
// control frame.
func FuzzDrain(f *testing.F) {
	f.Add(clientFrame(ws.OpPing, "are you there"))
	f.Add(append(clientFrame(ws.OpPong, ""), clientFrame(ws.OpClose, "\x03\xe8")...))
	f.Add(clientFrame(ws.OpText, "hello"))
	f.Add([]byte{0x89, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}) // a length with its highest bit set
	f.Add([]byte{0x89, 0x00})                                                 // not masked
	f.Add([]byte{0xf9, 0x80, 0, 0, 0, 0})                                     // reserved bits
	f.Fuzz(func(t *testing.T, in []byte) {
		p := &push{in: bufio.NewReader(bytes.NewReader(in)), pong: make(chan []byte, 1)}
		var code fault
		if err := p.drain(); !errors.As(err, &code) {
			t.Fatalf("ended with %v", err)
		}
		switch ws.StatusCode(code) {
		case 0, ws.StatusProtocolError, ws.StatusMessageTooBig, ws.StatusPolicyViolation:
		default:
			t.Errorf("code %d", code)
		}
		select {
		case b := <-p.pong:
			if len(b) > ws.MaxControlFramePayloadSize || len(b) > len(in) {
				t.Errorf("an answer of %d bytes to %d", len(b), len(in))
			}
		default:
		}
	})
}

func TestDrainAnswersPings(t *testing.T) {
	p := &push{in: bufio.NewReader(bytes.NewReader(clientFrame(ws.OpPing, "are you there"))), pong: make(chan []byte, 1)}
	if err := p.drain(); err != fault(0) {
		t.Fatalf("ended with %v", err)
	}
	if got := string(<-p.pong); got != "are you there" {
		t.Errorf("answers %q", got)
	}
}
