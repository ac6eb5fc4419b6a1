package sweep

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"earshot/internal/observatory"
)

// Follow serves a response that cannot be taken over (HTTP/2) until the stream or ctx ends, the client goes, or takes nothing for too long.
// The place is given back when it returns. The header must have been set; nothing may have been written.
func (e *Engine) Follow(ctx context.Context, w http.ResponseWriter, j Join) {
	ear := e.enter(j)
	defer e.leave(j, ear, Shared)
	rc := http.NewResponseController(w)
	e.follow(ctx, j, ear, nil, func(b []byte) error {
		_ = rc.SetWriteDeadline(time.Now().Add(stall)) // where it is not supported, the server's own holds
		if _, err := w.Write(b); err != nil {
			return err
		}
		return rc.Flush()
	})
}

// followConn does the same for a connection of its own, and reads what the client sends.
func (e *Engine) followConn(conn net.Conn, input []byte, j Join, ear *observatory.Listener) {
	defer conn.Close()
	ctx, cancel := context.WithCancel(e.life)
	defer cancel()
	answers := make(chan answer, 1)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer cancel()
		e.listenTo(ctx, conn, input, j.Stream.cfg.Socket, answers)
	})
	stop := context.AfterFunc(e.life, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	err := e.follow(ctx, j, ear, answers, func(b []byte) error {
		_ = conn.SetWriteDeadline(time.Now().Add(stall))
		_, err := conn.Write(b)
		return err
	})
	if err == nil { // said goodbye: the client has a moment to close
		if c, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = c.CloseWrite()
		}
		_ = conn.SetReadDeadline(time.Now().Add(farewell))
	} else {
		_ = conn.SetReadDeadline(time.Now())
	}
	cancel() // the reader may wait to hand over an answer
	reading.Wait()
}

// answer is what has to be sent to a client for what it sent.
type answer struct {
	bytes []byte
	last  bool
}

// listenTo reads until the client closes, or does what no client may.
func (e *Engine) listenTo(ctx context.Context, conn net.Conn, input []byte, socket bool, answers chan<- answer) {
	in := inbox{begun: time.Now()}
	buf := make([]byte, 1024)
	total := 0
	over := false
	for {
		if len(input) > 0 && !over {
			a := answer{}
			fault := false
			if socket {
				a.bytes, a.last, fault = in.feed(input, time.Now())
			} else if total += len(input); total > maxInput {
				a.last, fault = true, true
			}
			if fault {
				e.dropped[droppedProtocol].Add(1)
			}
			if len(a.bytes) > 0 || a.last {
				over = a.last
				select {
				case answers <- a:
				case <-ctx.Done():
					return
				}
			}
		}
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		input = buf[:n]
	}
}

var errGone = errors.New("sweep: gone")

// follow is the loop of a goroutine that serves one listener. It returns nil if the listener was told that it is over.
func (e *Engine) follow(ctx context.Context, j Join, ear *observatory.Listener, answers <-chan answer, write func([]byte) error) error {
	s := j.Stream
	next, cadence := j.Next, j.Given
	tally := s.cfg.Tally
	buf := append([]byte(nil), j.Head...)
	var seen *plan // the latest that was looked at
	told := cadence
	if p := s.plan.Load(); p != nil {
		if c := s.at(s.head.Load() - 1); c != nil && c.frame+framesPerChunk > p.from {
			seen = p // in force: Admit knew it
		}
	}
	carried := seen // the latest that was carried out
	counted := &e.loose
	counted[j.Wish][cadence].Add(1)
	defer func() { counted[j.Wish][cadence].Add(-1) }()
	due := next // the head at which the next write is due
	for {
		news := s.news()
		bye := s.bye.Load() // before the head: what was appended before it was said is heard
		head := s.head.Load()
		if p := s.plan.Load(); p != nil {
			to := p.cadenceOf(j.Wish, cadence)
			if seen != p && to != told {
				buf = append(buf, p.notes[to]...)
				told = to
			}
			seen = p
			if c := s.at(head - 1); c != nil && c.frame+framesPerChunk > p.from && carried != p {
				counted.move(j.Wish, cadence, to)
				cadence, carried = to, p
			}
		}
		if head >= due && head > next || bye != nil {
			if head-next > keepPlace || next < head && s.at(next) == nil {
				to := resumeAt(next, head)
				tally.Skipped.Add(to - next)
				next = to
			}
			var reached uint64
			if buf, reached = s.appendRange(buf, next, head); reached < head && bye == nil {
				next = reached
				continue // overtaken by the ring
			}
			next, due = head, head+uint64(cadence.Steps())
		}
		if bye != nil {
			buf = append(buf, *bye...)
		}
		if len(buf) > 0 {
			if err := write(buf); err != nil {
				if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() || errors.Is(err, os.ErrDeadlineExceeded) {
					e.dropped[droppedStalled].Add(1)
				}
				return err
			}
			tally.Bytes.Add(uint64(len(buf)))
			buf = buf[:0]
			if ear != nil {
				ear.Took(e.cfg.Now())
			}
		}
		if bye != nil {
			return nil
		}
		select {
		case <-news:
		case a := <-answers:
			if err := write(a.bytes); err != nil || a.last {
				return err
			}
		case <-ctx.Done():
			return errGone
		}
	}
}
