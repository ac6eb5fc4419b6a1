package sweep

import (
	"crypto/tls"
	"errors"
	"io"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"earshot/internal/observatory"
)

// listener is a socket and a place in a stream. There may be a hundred thousand, so what few need stands in extra.
type listener struct {
	group *group
	half  *chunk // sent in part: its first offset bytes
	ear   *observatory.Listener
	tls   *tls.Conn // nil: plain
	conn  *Conn     // beneath tls
	extra *extra
	next  uint64 // chunk that follows (half, if there is one, was the one before)

	offset uint32
	fd     int32
	gen    uint32 // rises when the place is given to another
	moved  uint32 // when it last took something, in tenths of a second
	pos    uint32 // in its slot

	slot    uint16
	cadence Cadence
	wish    Cadence
	told    Cadence // the cadence it knows of: its own, or the announced one
	state   state
	queued  bool // in shard.unread
}

// note is what a listener has to be told of a plan: nothing, if it knows.
func (l *listener) note(p *plan) []byte {
	to := p.cadenceOf(l.wish, l.cadence)
	if to == l.told || p.notes[to] == nil {
		return nil
	}
	l.told = to
	return p.notes[to]
}

// state of a place.
type state uint8

const (
	absent  state = iota // nobody is here
	present              // in a schedule
	going                // in a schedule; gets the last words and no chunks any more
	gone                 // has had them; waits for the client to close
)

// extra is what most listeners never need.
type extra struct {
	own   []byte // goes out before the next chunk: a response's head, an announcement, a pong, a close
	input int    // bytes that came, where none are expected
	inbox *inbox
}

func (l *listener) spare() *extra {
	if l.extra == nil {
		l.extra = &extra{}
	}
	return l.extra
}

// joint is the bytes of several chunks, as the last listener got them: the next one mostly needs the same.
type joint struct {
	stream   *Stream
	from, to uint64
	note     *byte // where it begins: notes are shared, so the same one is the same bytes
	bytes    []byte
}

// span gives the bytes from a place up to the head, after a note. They are shared, and valid until the next call.
func (sh *shard) span(s *Stream, from, to uint64, note []byte) []byte {
	j := &sh.joint
	if j.stream == s && j.from == from && j.to == to && j.note == unsafe.SliceData(note) {
		return j.bytes
	}
	*j = joint{stream: s, from: from, to: to, note: unsafe.SliceData(note)}
	if to == from+1 && note == nil {
		if c := s.at(from); c != nil {
			j.bytes = c.bytes
		}
		return j.bytes
	}
	sh.joined = append(sh.joined[:0], note...)
	var reached uint64
	if sh.joined, reached = s.appendRange(sh.joined, from, to); reached != to {
		*j = joint{} // fell out of the ring meanwhile: the slow way sees to it
		return nil
	}
	j.bytes = sh.joined
	return j.bytes
}

// visit writes to a listener what it has not had.
func (sh *shard) visit(id uint32, g *group, told bool) {
	l := sh.listener(id)
	sh.visited++
	var note []byte
	if told && l.state == present {
		note = l.note(g.plan)
	}
	if l.state == going || l.half != nil || l.extra != nil && len(l.extra.own) > 0 || g.closing || g.step-l.next > runLength {
		if note != nil {
			l.spare().own = append(l.extra.own, note...)
		}
		sh.catchUp(id, l)
		return
	}
	b := sh.span(g.stream, l.next, g.step, note)
	if len(b) == 0 {
		if l.next == g.step || g.stream.at(l.next) != nil {
			l.next, l.moved = g.step, sh.clock
			sh.heard(l)
			return
		}
		sh.catchUp(id, l)
		return
	}
	n, err := sh.write(l, b)
	if err != nil {
		if note != nil {
			l.spare().own = append(l.extra.own, note...)
		}
		sh.failed(id, l, err)
		return
	}
	g.sent += uint64(n)
	l.moved = sh.clock
	if n < len(b) {
		sh.split(l, note, n)
		return
	}
	l.next = g.step
	sh.heard(l)
}

func (sh *shard) heard(l *listener) {
	if l.ear != nil {
		l.ear.Took(sh.now)
	}
}

// split finds where a write of note and chunks stopped after n bytes.
func (sh *shard) split(l *listener, note []byte, n int) {
	if n < len(note) {
		l.spare().own = append([]byte(nil), note[n:]...)
		return
	}
	n -= len(note)
	for {
		c := l.group.stream.at(l.next)
		if c == nil {
			return // the ring went around within one write: the next visit skips to the head
		}
		l.next++
		if n < len(c.bytes) {
			if n > 0 {
				l.half, l.offset = c, uint32(n)
			} else {
				l.next--
			}
			return
		}
		n -= len(c.bytes)
	}
}

// catchUp is the long way: the rest of what was sent in part, what is the listener's own, then chunk by chunk. It may end the listener.
func (sh *shard) catchUp(id uint32, l *listener) {
	g := l.group
	if l.half != nil {
		n, err := sh.write(l, l.half.bytes[l.offset:])
		if err != nil {
			sh.failed(id, l, err)
			return
		}
		g.sent += uint64(n)
		l.moved = sh.clock
		if l.offset += uint32(n); int(l.offset) < len(l.half.bytes) {
			return
		}
		l.half, l.offset = nil, 0
	}
	if !sh.flushOwn(id, l) {
		return
	}
	if l.state == going {
		sh.finish(id, l)
		return
	}
	sh.bring(id, l, nil)
}

// bring takes a listener to the head, and to the end if the stream is closed. It may end the listener.
func (sh *shard) bring(id uint32, l *listener, first []byte) {
	if !sh.runUp(id, l, first) {
		return
	}
	l.moved = sh.clock
	sh.heard(l)
	bye := l.group.stream.bye.Load()
	if bye == nil || !sh.runUp(id, l, nil) { // what was appended before it was closed, and after the head was looked at
		return
	}
	sh.dismiss(id, l, *bye)
}

// runUp writes first, and what lies between a listener's place and the head, several chunks at a time. It says whether the listener is at
// the head now.
func (sh *shard) runUp(id uint32, l *listener, first []byte) bool {
	s := l.group.stream
	head := s.head.Load()
	for l.next < head || len(first) > 0 {
		if head-l.next > keepPlace || l.next < head && s.at(l.next) == nil {
			sh.skip(l, head)
		}
		sh.joint = joint{} // its bytes may be overwritten
		sh.joined = append(sh.joined[:0], first...)
		var to uint64
		sh.joined, to = s.appendRange(sh.joined, l.next, min(head, l.next+runLength))
		n, err := sh.write(l, sh.joined)
		if err != nil {
			if len(first) > 0 {
				l.spare().own = first
			}
			sh.failed(id, l, err)
			return false
		}
		l.group.sent += uint64(n)
		l.moved = sh.clock
		if n < len(sh.joined) {
			sh.split(l, first, n)
			return false
		}
		l.next, first = to, nil
	}
	return true
}

// runLength is how many chunks are joined for one who lags: three seconds, a newcomer's whole burst.
const runLength = 16

// skip gives up what a listener has not had: it continues shortly before the head.
func (sh *shard) skip(l *listener, head uint64) {
	to := resumeAt(l.next, head)
	l.group.skipped += to - l.next
	l.next = to
}

// flushOwn writes what is the listener's own and says whether all of it is out.
func (sh *shard) flushOwn(id uint32, l *listener) bool {
	x := l.extra
	if x == nil || len(x.own) == 0 {
		return true
	}
	n, err := sh.write(l, x.own)
	if err != nil {
		sh.failed(id, l, err)
		return false
	}
	l.moved = sh.clock
	if x.own = x.own[n:]; len(x.own) > 0 {
		return false
	}
	x.own = nil
	if x.inbox == nil && x.input == 0 {
		l.extra = nil
	}
	return true
}

// write hands bytes to the socket; with TLS all or nothing of them. What does not fit gives errBlocked.
func (sh *shard) write(l *listener, b []byte) (int, error) {
	if l.tls == nil {
		return writeFD(int(l.fd), b)
	}
	owed := len(l.conn.pending)
	err := l.conn.flush()
	if len(l.conn.pending) < owed {
		l.moved = sh.clock // slow, but it takes something
	}
	if err != nil {
		return 0, err
	}
	return l.tls.Write(b)
}

// failed is told what a write answered.
func (sh *shard) failed(id uint32, l *listener, err error) {
	if errors.Is(err, errBlocked) {
		if l.state <= going && time.Duration(sh.clock-l.moved)*100*time.Millisecond >= stall {
			sh.engine.dropped[droppedStalled].Add(1)
			sh.remove(id, l)
		}
		return
	}
	if l.state <= going {
		sh.remove(id, l)
	} else {
		sh.release(id, l)
	}
}

// remove ends a listener at once.
func (sh *shard) remove(id uint32, l *listener) {
	sh.delist(l)
	l.group.count--
	sh.release(id, l)
}

// release closes the socket and gives the place back.
func (sh *shard) release(id uint32, l *listener) {
	_ = unix.Close(int(l.fd))
	sh.counts[l.wish][l.cadence].Add(-1)
	sh.engine.gone(Join{Stream: l.group.stream}, l.ear)
	*l = listener{gen: l.gen + 1}
	sh.free = append(sh.free, id)
}

// parting is a listener that was told that it is over.
type parting struct {
	id, gen uint32
	until   time.Time
}

// dismiss says goodbye: the bytes go out, now or as soon as the socket takes them, and nothing after them.
func (sh *shard) dismiss(id uint32, l *listener, bye []byte) {
	l.state = going
	if len(bye) > 0 {
		l.spare().own = append(l.extra.own, bye...)
	}
	if sh.flushOwn(id, l) {
		sh.finish(id, l)
	}
}

// finish ends our side once everything is out. The client has a moment to close its own, so that nothing of what is under way to it
// is lost (a close with unread input would reset the connection).
func (sh *shard) finish(id uint32, l *listener) {
	if l.tls != nil {
		if err := l.conn.flush(); err != nil {
			sh.failed(id, l, err) // the next visit, unless it takes nothing for too long
			return
		}
		_ = l.tls.CloseWrite() // 24 bytes, after everything else was taken
	}
	_ = unix.Shutdown(int(l.fd), unix.SHUT_WR)
	sh.delist(l)
	l.group.count--
	l.state = gone
	sh.leaving = append(sh.leaving, parting{id, l.gen, sh.now.Add(farewell)})
}

// part lets go of those whose time is up.
func (sh *shard) part() {
	kept := sh.leaving[:0]
	for _, p := range sh.leaving {
		switch l := sh.listener(p.id); {
		case l.gen != p.gen:
		case sh.now.After(p.until):
			sh.release(p.id, l)
		default:
			kept = append(kept, p)
		}
	}
	sh.leaving = kept
}

// poll reads what clients sent, and notices who went, until a time; it says whether there may be more.
func (sh *shard) poll(until time.Time) (more bool) {
	again, n := 0, len(sh.unread)
	for ; again < n && (again%16 < 15 || time.Now().Before(until)); again++ {
		id := sh.unread[again]
		if l := sh.listener(id); l.queued {
			l.queued = false
			sh.read(id, l) // it may be put off again, behind all others
		}
	}
	sh.unread = append(sh.unread[:0], sh.unread[again:]...)
	for {
		n, err := unix.EpollWait(sh.epoll, sh.events, 0)
		if err != nil || n <= 0 {
			return false
		}
		sh.breathe()
		for _, ev := range sh.events[:n] {
			id := uint32(ev.Fd)
			l := sh.listener(id)
			if l.state == absent || l.gen != uint32(ev.Pad) {
				continue
			}
			if ev.Events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
				sh.failed(id, l, io.EOF)
				continue
			}
			sh.read(id, l)
		}
		if n < len(sh.events) {
			return false
		}
		if time.Now().After(until) {
			return true
		}
	}
}

// read takes what a client sent, a bounded amount at a time.
func (sh *shard) read(id uint32, l *listener) {
	gen := l.gen
	for range readLimit {
		var n int
		var err error
		if l.tls != nil {
			n, err = l.tls.Read(sh.input)
		} else {
			n, err = readFD(int(l.fd), sh.input)
		}
		switch {
		case n == 0:
		case l.state == present:
			if !sh.digest(id, l, sh.input[:n]) {
				return
			}
		default: // it has been told that it is over
			if l.spare().input += n; l.extra.input > maxInput {
				sh.failed(id, l, io.EOF)
				return
			}
		}
		if l.gen != gen {
			return
		}
		// What TLS swallows (empty records, new keys) never gets to digest, but costs as much.
		if l.conn != nil && (len(l.conn.pending) > pendingLimit || l.conn.came > maxInput+inputRate*int(sh.now.Sub(l.conn.since)/time.Second)) {
			sh.engine.dropped[droppedProtocol].Add(1)
			sh.failed(id, l, errFlood)
			return
		}
		switch {
		case errors.Is(err, errBlocked):
			return
		case err != nil: // a client that closed its side is gone
			sh.failed(id, l, err)
			return
		}
	}
	sh.later(id, l)
}

// later has a listener's input looked at again in the next tick.
func (sh *shard) later(id uint32, l *listener) {
	if !l.queued {
		l.queued = true
		sh.unread = append(sh.unread, id)
	}
}

// inputRate is how many bytes a second a client may send over TLS, beyond maxInput.
const inputRate = 4 << 10

var errFlood = errors.New("sweep: the client sends without end")

// digest looks at what a client sent, and says whether the listener is still there.
func (sh *shard) digest(id uint32, l *listener, b []byte) bool {
	x := l.spare()
	if !l.group.stream.cfg.Socket {
		if x.input += len(b); x.input > maxInput {
			sh.engine.dropped[droppedProtocol].Add(1)
			sh.remove(id, l)
			return false
		}
		return true
	}
	if x.inbox == nil {
		x.inbox = &inbox{begun: sh.now}
	}
	answer, over, fault := x.inbox.feed(b, sh.now)
	if fault {
		sh.engine.dropped[droppedProtocol].Add(1)
	}
	if over {
		x.own = append(x.own, answer...)
		if l.state = going; l.half == nil && sh.flushOwn(id, l) {
			sh.finish(id, l)
		}
		return false // a close that has to wait for the end of a message goes out at the next visit
	}
	if len(answer) > 0 {
		if len(x.own) > 0 { // something waits to be taken, so this one can only be asked again
			return true
		}
		x.own = answer
		if l.half == nil {
			return sh.flushOwn(id, l) || l.state == present
		}
	}
	return true
}
