package fan

import (
	"crypto/sha1" //nolint:gosec // the handshake of RFC 6455 asks for it; it protects nothing
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"earshot/internal/event"
	"earshot/internal/fan/sweep"
)

const subprotocol = "earshot.1"

// hello is the first message of a push.
type hello struct {
	Kind      string    `json:"kind"`
	Origin    time.Time `json:"origin"`
	Epoch     uint64    `json:"epoch"`
	Frame     uint64    `json:"frame"`
	CadenceMS int64     `json:"cadence_ms"`
}

// ServeLive is push: it turns the request into a WebSocket that gets parts and cues until the event ends or the client goes. It returns
// when the engine has the connection. An error means that nothing was written: the request is no WebSocket handshake, or nothing more
// can be taken.
func (f *Fan) ServeLive(w http.ResponseWriter, r *http.Request, src Source) error {
	if err := checkUpgrade(r); err != nil {
		f.counters.refuse("handshake")
		return err
	}
	room, err := f.room(src)
	if err != nil {
		return err
	}
	wish, given, err := f.admit(r)
	if err != nil {
		return err
	}
	s := room.streams[formPush]
	next, frame := s.Place(burst(given))
	greeting, err := room.greet(next, frame, given)
	if err != nil {
		f.sweep.Release(sweep.Own)
		return err
	}
	f.take(w, sweep.Join{Stream: s, Next: next, Wish: wish, Given: given, Head: append(accept(r), greeting...)})
	return nil
}

// burst is how many parts of the past a newcomer gets. The first write comes a cadence and up to a part later, so one who is written to
// seldom needs as much to begin with, and what is to be left then.
func burst(c sweep.Cadence) int {
	if c == sweep.Cadence200 {
		return burstPush
	}
	return c.Steps() + burstPush
}

// accept is the server's half of the handshake (RFC 6455, 4.2.2).
func accept(r *http.Request) []byte {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // as above
	b := make([]byte, 0, 1024)
	b = append(b, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	b = base64.StdEncoding.AppendEncode(b, sum[:])
	if hasToken(r.Header, "Sec-WebSocket-Protocol", subprotocol) {
		b = append(b, "\r\nSec-WebSocket-Protocol: "+subprotocol...)
	}
	return append(b, "\r\n\r\n"...)
}

func checkUpgrade(r *http.Request) *event.Error {
	switch {
	case r.Method != http.MethodGet || !hasToken(r.Header, "Upgrade", "websocket") || !hasToken(r.Header, "Connection", "upgrade"):
		return event.Invalid("", "This is a live stream: open this with a WebSocket.")
	case r.ProtoMajor != 1 || r.ProtoMinor < 1:
		return event.Invalid("", "A WebSocket needs HTTP/1.1: open this with a WebSocket over a connection of its own.")
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		return event.Invalid("", "Only version 13 of the WebSocket protocol (RFC 6455) is spoken here.")
	case !isKey(r.Header.Get("Sec-WebSocket-Key")):
		return event.Invalid("", "The WebSocket handshake lacks its key (RFC 6455, 4.1).")
	}
	return nil
}

// isKey says whether this is 16 bytes in base64.
func isKey(key string) bool {
	b, err := base64.StdEncoding.DecodeString(key)
	return err == nil && len(b) == 16
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
