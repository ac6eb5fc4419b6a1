package crowd

import (
	"errors"
	"io"
	"time"

	"earshot/internal/crowd/wire"
)

// farewellTime is how long those who leave at the end may take to say so.
const farewellTime = 5 * time.Second

// farewells ends WHEP sessions by DELETE (RFC 9725, 4.2), a few at once.
type farewells struct {
	waiting []farewell
	open    int
}

// farewell is one DELETE.
type farewell struct {
	w    *worker
	from *listener
	path string
}

const farewellsAtOnce = 32

func (f *farewells) none() bool { return f.open == 0 && len(f.waiting) == 0 }

func (f *farewells) add(b farewell) {
	f.waiting = append(f.waiting, b)
	f.next()
}

func (f *farewells) next() {
	for len(f.waiting) > 0 && f.open < farewellsAtOnce {
		b := f.waiting[0]
		f.waiting = f.waiting[1:]
		if _, err := b.w.loop.dial(&b, b.from.source(), &b.w.job.Target, b.w.tls, false, &b.w.tally.Bytes); err == nil {
			f.open++
		}
	}
}

func (b *farewell) opened(c *conn) { c.send(b.w.ask("DELETE", b.path, "Connection: close")) }

func (b *farewell) received(c *conn, in []byte) (int, error) {
	_, n, err := wire.ReadHead(in)
	if err == nil && n > 0 {
		return n, io.EOF
	}
	return 0, err
}

func (b *farewell) ended(_ *conn, _ []byte, err error) {
	if !errors.Is(err, io.EOF) {
		b.w.tally.Malformed++
	}
	b.w.byes.open--
	b.w.byes.next()
}
