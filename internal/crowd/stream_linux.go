package crowd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"earshot/internal/crowd/wire"
)

// streamClient listens to one long HTTP response, as players of files and Icecast's clients do.
type streamClient struct {
	l    *listener
	c    *conn
	take units
	body wire.Body
	head bool
	part []byte // of a unit that a body's piece has cut
}

// units takes whole units (pages, chunks, events) off the front of b.
type units interface {
	begin()
	units(l *listener, b []byte) (used int, err error)
}

func (s *streamClient) dial() (err error) {
	s.head, s.part = false, nil
	s.take.begin()
	s.c, err = s.l.w.connect(s.l, s)
	return err
}

func (s *streamClient) hangUp() {
	if s.c != nil {
		s.c.shut()
		s.c = nil
	}
}

func (s *streamClient) timeout(job uint8) { s.l.w.sip(s.l, s.c, job) }

func (s *streamClient) opened(c *conn) { c.send(s.l.w.request) }

func (s *streamClient) ended(_ *conn, _ []byte, err error) {
	s.c = nil
	over := errors.Is(err, errOver)
	if over {
		err = io.EOF
	}
	s.l.lose(reasonOf(err), over)
}

// errOver is the orderly end of a chunked response: the event is over, or the server stops.
var errOver = errors.New("the response has ended")

func (s *streamClient) received(c *conn, b []byte) (used int, err error) {
	if !s.head {
		h, n, err := wire.ReadHead(b)
		if err != nil || n == 0 {
			return 0, err
		}
		if err := judge(h.Status, 200); err != nil {
			return 0, err
		}
		s.head, s.body = true, h.Body()
		s.l.answered()
		s.l.w.slowDown(s.l, c)
		used = n
	}
	for used < len(b) {
		data, n, err := s.body.Take(b[used:])
		used += n
		if len(data) > 0 {
			if err := s.data(data); err != nil || c.closed {
				return used, err
			}
		}
		if errors.Is(err, io.EOF) {
			return used, errOver
		}
		if err != nil || n == 0 {
			return used, err
		}
	}
	return used, nil
}

func (s *streamClient) data(b []byte) error {
	whole := len(s.part) == 0
	if !whole {
		s.part = append(s.part, b...)
		b = s.part
	}
	used, err := s.take.units(s.l, b)
	if err != nil {
		return err
	}
	rest := b[used:]
	switch {
	case len(rest) == 0 && s.part != nil:
		s.l.w.loop.give(s.part)
		s.part = nil
	case len(rest) > maxSpill:
		return fmt.Errorf("%w: %d bytes without an end", errMalformed, len(rest))
	case len(rest) > 0 && whole:
		s.part = append(s.l.w.loop.borrow(), rest...)
	case len(rest) > 0:
		s.part = s.part[:copy(s.part, rest)]
	}
	return nil
}

// mp4Units are the chunks of fragmented MP4.
type mp4Units struct{}

func (mp4Units) begin() {}

func (mp4Units) units(l *listener, b []byte) (int, error) {
	used, err := wire.WholeBoxes(b)
	if err != nil || used == 0 {
		return 0, err
	}
	return used, l.chunks(b[:used])
}

// cueUnits are the events of an event stream. There is nothing to hear; when they come is measured.
type cueUnits struct{}

func (cueUnits) begin() {}

func (cueUnits) units(l *listener, b []byte) (int, error) {
	used := bytes.LastIndex(b, []byte("\n\n")) + 2
	if used < 2 {
		return 0, nil
	}
	events := b[:used]
	l.piece(l.w.loop.now, 0, 0, 0, 0)
	i := bytes.LastIndex(events, []byte("id: "))
	if i < 0 {
		return used, nil
	}
	digits, _, _ := bytes.Cut(events[i+4:], []byte("\n"))
	id, err := strconv.ParseUint(string(digits), 10, 62)
	if err != nil {
		return used, fmt.Errorf("%w: event id %q", errMalformed, digits)
	}
	if l.numbered && id+1 < l.endFrame {
		l.w.tally.Repeats++
	}
	l.endFrame, l.numbered = id+1, true
	l.delays(l.w.loop.now, id, id+1)
	return used, nil
}
