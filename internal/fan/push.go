package fan

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gobwas/ws"

	"earshot/internal/event"
	"earshot/internal/observatory"
	"earshot/internal/timeline"
)

const (
	subprotocol = "earshot.1"
	// What a client may send is pongs and a close: small frames, a few.
	maxClientFrame = ws.MaxControlFramePayloadSize
	freeFrames     = 100
	framesPerSec   = 10
	// farewell is how long a close may take: the client's answer to it, and the end of the stream under it.
	farewell = 2 * time.Second
	// returnIn is what is told if the timeline ended before Shutdown said how long.
	returnIn = 5 * time.Second
)

// hello is the first message of a push.
type hello struct {
	Kind      string    `json:"kind"`
	Origin    time.Time `json:"origin"`
	Epoch     uint64    `json:"epoch"`
	Frame     uint64    `json:"frame"`
	CadenceMS int64     `json:"cadence_ms"`
}

// ServeLive is push: it turns the request into a WebSocket and sends parts and cues until the event ends or the client goes. An
// error means that nothing was written: the request is no WebSocket handshake, or nothing more can be taken.
func (f *Fan) ServeLive(w http.ResponseWriter, r *http.Request, src Source) error {
	if err := checkUpgrade(r); err != nil {
		f.counters.refuse("handshake")
		return err
	}
	if err := src.Refusal(); err != nil {
		return err
	}
	done, err := f.begin("push")
	if err != nil && !errors.Is(err, errFull) {
		return err
	}
	// A page cannot read the status of a refused handshake, so a full house is told after it.
	up := ws.HTTPUpgrader{Timeout: 10 * time.Second, Protocol: func(p string) bool { return p == subprotocol }}
	conn, rw, _, uerr := up.Upgrade(r, w)
	if uerr != nil {
		if conn != nil {
			_ = conn.Close()
		}
		if done != nil {
			done()
		}
		return nil // answered by the upgrader
	}
	p := &push{fan: f, conn: conn, in: rw.Reader, src: src, pong: make(chan []byte, 1)}
	defer func() { _ = conn.Close() }()
	if err != nil {
		p.bye(ws.StatusCode(1013), "60")
		return nil
	}
	defer done()
	p.serve(r.Context())
	return nil
}

func checkUpgrade(r *http.Request) *event.Error {
	switch {
	case r.Method != http.MethodGet || !hasToken(r.Header, "Upgrade", "websocket") || !hasToken(r.Header, "Connection", "upgrade"):
		return event.Invalid("", "This is a live stream: open this with a WebSocket.")
	case r.ProtoMajor != 1 || r.ProtoMinor < 1:
		return event.Invalid("", "A WebSocket needs HTTP/1.1: open this with a WebSocket over a connection of its own.")
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		return event.Invalid("", "Only version 13 of the WebSocket protocol (RFC 6455) is spoken here.")
	case len(r.Header.Get("Sec-WebSocket-Key")) != 24:
		return event.Invalid("", "The WebSocket handshake lacks its key (RFC 6455, 4.1).")
	}
	return nil
}

func hasToken(h http.Header, name, token string) bool {
	for _, v := range h.Values(name) {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// push is one WebSocket listener. serve writes; a second goroutine, which serve waits for, reads.
type push struct {
	fan  *Fan
	conn net.Conn
	in   *bufio.Reader
	src  Source
	pong chan []byte // to be answered; one is enough, as only the latest ping counts (RFC 6455, 5.5.3)
}

// fault is what a client did wrong, as the close code it gets; 0: it left.
type fault ws.StatusCode

func (p *push) serve(ctx context.Context) {
	ctx, cancel := context.WithCancelCause(ctx)
	var reading sync.WaitGroup
	reading.Go(func() { cancel(p.drain()) })
	err := p.stream(ctx)
	var f fault
	switch {
	case errors.As(context.Cause(ctx), &f):
		if f != 0 {
			p.fan.counters.drop("protocol")
			p.bye(ws.StatusCode(f), "")
		} else {
			p.bye(ws.StatusNormalClosure, "")
		}
	case errors.Is(err, timeline.ErrClosed) && p.src.Timeline.Ended():
		p.bye(ws.StatusNormalClosure, "ended")
	case errors.Is(err, timeline.ErrClosed), errors.Is(err, errStopping):
		p.bye(ws.StatusCode(1012), fmt.Sprint(p.fan.whenBack()))
	}
	_ = p.conn.SetReadDeadline(time.Now().Add(farewell))
	reading.Wait()
	cancel(nil)
}

func (f fault) Error() string { return fmt.Sprintf("client at fault: %d", uint16(f)) }

// whenBack waits a moment for Shutdown to say how long it takes, and gives whole seconds.
func (f *Fan) whenBack() int {
	t := time.NewTimer(returnIn)
	defer t.Stop()
	select {
	case <-f.stop:
		return int((f.backIn + time.Second - 1) / time.Second)
	case <-t.C:
		return int(returnIn / time.Second)
	}
}

func (p *push) stream(ctx context.Context) error {
	r := p.fan.reader(p.src, "push", burstPush)
	sticky := p.src.Timeline.Sticky()
	ear := p.src.Audience.Join(observatory.Push)
	defer p.src.Audience.Leave(ear)
	sent := &p.fan.counters.rung("push").bytes
	first := true
	for {
		part, err := next(ctx, r, p.fan.stop, p.pong)
		var out net.Buffers
		switch {
		case err != nil:
			return err
		case part == nil:
			out = message(out, ws.OpPong, r.other)
		case first:
			text, err := json.Marshal(hello{
				Kind: "hello", Origin: p.src.Timeline.Origin(), Epoch: part.Epoch, Frame: part.First,
				CadenceMS: timeline.PartDuration.Milliseconds(),
			})
			if err != nil {
				return err
			}
			out = message(out, ws.OpText, text)
			out = message(out, ws.OpBinary, timeline.Init())
			// Cues that hold until the next of their kind were given to the others long ago.
			if cues := slices.Concat(sticky, part.Cues); len(cues) > 0 {
				if text, err = json.Marshal(cues); err != nil {
					return err
				}
				out = message(out, ws.OpText, text)
			}
			out = message(out, ws.OpBinary, part.Media)
			first = false
		default:
			if part.CueText != nil {
				out = message(out, ws.OpText, part.CueText)
			}
			out = message(out, ws.OpBinary, part.Media)
		}
		_ = p.conn.SetWriteDeadline(time.Now().Add(stall))
		n, err := out.WriteTo(p.conn)
		sent.Add(uint64(n))
		if err != nil {
			if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
				p.fan.counters.drop("stalled")
			}
			return err
		}
		if part != nil {
			ear.Took(p.fan.cfg.Now())
		}
	}
}

// message adds one whole unmasked message; the payload is shared, not copied.
func message(out net.Buffers, op ws.OpCode, payload []byte) net.Buffers {
	var head bytes.Buffer
	_ = ws.WriteHeader(&head, ws.Header{Fin: true, OpCode: op, Length: int64(len(payload))}) // a buffer takes all
	return append(out, head.Bytes(), payload)
}

// bye sends a close frame; what goes wrong with it changes nothing.
func (p *push) bye(code ws.StatusCode, reason string) {
	_ = p.conn.SetWriteDeadline(time.Now().Add(farewell))
	out := message(nil, ws.OpClose, ws.NewCloseFrameBody(code, reason))
	_, _ = out.WriteTo(p.conn)
}

// drain reads what the client sends until it closes, the connection ends (both fault 0) or it does what no client may.
func (p *push) drain() error {
	var buf [maxClientFrame]byte
	begun := time.Now()
	for n := 1; ; n++ {
		h, err := ws.ReadHeader(p.in)
		if err != nil {
			return fault(0)
		}
		switch {
		case h.Length > maxClientFrame:
			return fault(ws.StatusMessageTooBig)
		case n > freeFrames+framesPerSec*int(time.Since(begun)/time.Second):
			return fault(ws.StatusPolicyViolation)
		case !h.Masked || h.Rsv != 0 || h.OpCode.IsReserved() || h.OpCode.IsControl() && !h.Fin:
			return fault(ws.StatusProtocolError)
		}
		payload := buf[:h.Length]
		if _, err := io.ReadFull(p.in, payload); err != nil {
			return fault(0)
		}
		switch h.OpCode {
		case ws.OpClose:
			return fault(0)
		case ws.OpPing:
			ws.Cipher(payload, h.Mask, 0)
			select {
			case p.pong <- bytes.Clone(payload):
			default: // one waits already
			}
		}
	}
}
