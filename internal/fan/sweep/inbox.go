package sweep

import (
	"bytes"
	"errors"
	"io"
	"time"

	"github.com/gobwas/ws"
)

// What a client may send is pongs, pings and a close: small frames, a few.
const (
	maxClientFrame = ws.MaxControlFramePayloadSize
	freeInput      = 100 // frames, and
	inputPerSec    = 10  // more for each second
)

// inbox reads the frames that a WebSocket's client sends (RFC 6455, 5), as they come in.
type inbox struct {
	begun  time.Time
	frames int
	part   []byte // of a frame that has not come whole; at most a header and 125 bytes
}

// feed takes the next bytes. answer is what has to be sent back: pongs, or, when it is over, a close. fault says that the client did
// what no client may.
func (in *inbox) feed(b []byte, now time.Time) (answer []byte, over, fault bool) {
	if len(in.part) > 0 {
		b = append(in.part, b...)
		in.part = nil
	}
	for len(b) > 0 {
		r := bytes.NewReader(b)
		h, err := ws.ReadHeader(r)
		short := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		in.frames++
		switch {
		case short && len(b) < ws.MaxHeaderSize:
			in.frames--
			in.part = bytes.Clone(b)
			return answer, false, false
		case err != nil:
			return closing(ws.StatusProtocolError), true, true
		case h.Length > maxClientFrame:
			return closing(ws.StatusMessageTooBig), true, true
		case in.frames > freeInput+inputPerSec*int(now.Sub(in.begun)/time.Second):
			return closing(ws.StatusPolicyViolation), true, true
		case !h.Masked || h.Rsv != 0 || h.OpCode.IsReserved() || h.OpCode.IsControl() && !h.Fin:
			return closing(ws.StatusProtocolError), true, true
		}
		head := len(b) - r.Len()
		end := head + int(h.Length)
		if end > len(b) {
			in.frames--
			in.part = bytes.Clone(b)
			return answer, false, false
		}
		switch h.OpCode {
		case ws.OpText, ws.OpBinary: // nothing is asked of clients here
			return closing(ws.StatusUnsupportedData), true, true
		case ws.OpContinuation: // of nothing
			return closing(ws.StatusProtocolError), true, true
		case ws.OpClose:
			if h.Length == 1 { // half a code (5.5.1)
				return closing(ws.StatusProtocolError), true, true
			}
			return closing(ws.StatusNormalClosure), true, false
		case ws.OpPing: // only the latest needs an answer (5.5.3)
			payload := bytes.Clone(b[head:end])
			ws.Cipher(payload, h.Mask, 0)
			answer = Message(ws.OpPong, payload)
		}
		b = b[end:]
	}
	return answer, false, false
}

func closing(code ws.StatusCode) []byte {
	return Message(ws.OpClose, ws.NewCloseFrameBody(code, ""))
}

// Message is one whole message in one unmasked frame, as servers send them: the same bytes for everybody.
func Message(op ws.OpCode, payload []byte) []byte { return AppendMessage(nil, op, payload) }

// AppendMessage adds one whole message to b.
func AppendMessage(b []byte, op ws.OpCode, payload []byte) []byte {
	var head bytes.Buffer
	_ = ws.WriteHeader(&head, ws.Header{Fin: true, OpCode: op, Length: int64(len(payload))}) // a buffer takes all
	b = append(b, head.Bytes()...)
	return append(b, payload...)
}
