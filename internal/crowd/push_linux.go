package crowd

import (
	"bytes"
	"encoding/json"
	"fmt"

	"earshot/internal/crowd/wire"
)

// All listeners send the same key, for which the server must give the same answer (RFC 6455, 1.3): the check is then a comparison.
const (
	wsKey    = "dGhlIHNhbXBsZSBub25jZQ=="
	wsAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// pushClient listens by WebSocket.
type pushClient struct {
	l        *listener
	c        *conn
	upgraded bool
	began    bool // the initialisation segment has come
	parts    []byte
}

func (p *pushClient) dial() (err error) {
	p.upgraded, p.began, p.parts = false, false, nil
	p.c, err = p.l.w.connect(p.l, p)
	return err
}

func (p *pushClient) hangUp() {
	if p.c != nil {
		p.c.shut()
		p.c = nil
	}
}

func (p *pushClient) timeout(job uint8) { p.l.w.sip(p.l, p.c, job) }

func (p *pushClient) opened(c *conn) { c.send(p.l.w.request) }

func (p *pushClient) ended(_ *conn, _ []byte, err error) {
	p.c = nil
	p.l.lose(reasonOf(err), false)
}

func (p *pushClient) received(c *conn, b []byte) (used int, err error) {
	if !p.upgraded {
		h, n, err := wire.ReadHead(b)
		if err != nil || n == 0 {
			return 0, err
		}
		if err := judge(h.Status, 101); err != nil {
			return 0, err
		}
		if !h.Upgrade || string(h.Accept) != wsAccept {
			return 0, fmt.Errorf("%w: the handshake's answer is not a WebSocket's", errMalformed)
		}
		p.upgraded = true
		p.l.answered()
		p.l.w.slowDown(p.l, c)
		used = n
	}
	for used < len(b) && !c.closed {
		f, n, err := wire.ReadFrame(b[used:])
		if err != nil || n == 0 {
			return used, err
		}
		used += n
		if err := p.frame(c, f); err != nil {
			return used, err
		}
	}
	return used, nil
}

func (p *pushClient) frame(c *conn, f wire.Frame) error {
	switch f.Op {
	case wire.WSText:
		return p.text(f.Payload)
	case wire.WSBinary, wire.WSContinuation:
		if f.Fin && p.parts == nil {
			return p.binary(f.Payload)
		}
		if p.parts = append(p.parts, f.Payload...); !f.Fin {
			return nil
		}
		whole := p.parts
		p.parts = nil
		return p.binary(whole)
	case wire.WSPing:
		c.send(append([]byte{0x80 | wire.WSPong, 0x80 | byte(len(f.Payload)), 0, 0, 0, 0}, f.Payload...))
	case wire.WSClose:
		code, _ := wire.CloseCode(f.Payload)
		c.send([]byte{0x80 | wire.WSClose, 0x80 | 2, 0, 0, 0, 0, byte(code >> 8), byte(code)})
		p.hangUp()
		p.l.lose(fmt.Sprintf("ws_%d", code), code == 1000)
	}
	return nil
}

var (
	kindHello   = []byte(`"hello"`)
	kindCadence = []byte(`"cadence"`)
)

// text reads the hello and the announcements of a cadence. Other cues are the page's, and every listener gets the same ones.
func (p *pushClient) text(b []byte) error {
	if !p.began && bytes.Contains(b, kindHello) {
		var hello struct {
			Cadence int32 `json:"cadence_ms"`
		}
		if err := json.Unmarshal(b, &hello); err != nil || hello.Cadence < 0 || hello.Cadence > 60000 {
			return fmt.Errorf("%w: hello %q", errMalformed, b)
		}
		p.l.player.cadence = hello.Cadence
		return nil
	}
	if bytes.Contains(b, kindCadence) {
		return p.l.announced(b, "push")
	}
	return nil
}

func (p *pushClient) binary(b []byte) error {
	if !p.began {
		p.began = true
		if wire.Timescale(b) != 48000 {
			return fmt.Errorf("%w: the initialisation segment's timescale is %d", errMalformed, wire.Timescale(b))
		}
		return nil
	}
	return p.l.chunks(b)
}

// chunks takes the fMP4 chunks of one message or part, whose times are frame × 960.
func (l *listener) chunks(b []byte) error {
	first, next := uint64(0), uint64(0)
	for r := wire.ReadChunks(b); ; {
		c, ok, err := r.Next()
		if err != nil {
			return fmt.Errorf("%w: %w", errMalformed, err)
		}
		if !ok {
			break
		}
		if c.Start%960 != 0 || c.Duration != uint64(c.Count)*960 {
			return fmt.Errorf("%w: a chunk of %d frames at time %d", errMalformed, c.Count, c.Start)
		}
		number := c.Start / 960
		if l.ear != nil {
			l.ear.chunk(&c, number)
		}
		if number != next && next > first {
			l.media(first, int(next-first))
			first = number
		} else if next == 0 {
			first = number
		}
		next = number + uint64(c.Count)
	}
	if next > first {
		l.media(first, int(next-first))
	}
	return nil
}

// announced acts on the cadence cues among the cues in b.
func (l *listener) announced(b []byte, rung string) error {
	var cues []json.RawMessage
	if err := json.Unmarshal(b, &cues); err != nil {
		return fmt.Errorf("%w: cues: %w", errMalformed, err)
	}
	for _, c := range cues {
		if ms, from, ok := cadence(c, rung); ok {
			l.player.announce(ms, from)
		}
	}
	return nil
}

// cadence reads a cue of that kind, if it is one and of the given rung.
func cadence(cue []byte, rung string) (ms int32, from uint64, ok bool) {
	var c struct {
		Kind string `json:"kind"`
		Data struct {
			Rung string `json:"rung"`
			MS   int32  `json:"ms"`
			From uint64 `json:"from"`
		} `json:"data"`
	}
	err := json.Unmarshal(cue, &c)
	return c.Data.MS, c.Data.From, err == nil && c.Kind == "cadence" && c.Data.Rung == rung && c.Data.MS > 0 && c.Data.MS <= 60000
}
