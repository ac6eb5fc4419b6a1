package sweep

import (
	"sync/atomic"

	"earshot/internal/observatory"
)

// ring is how many chunks a stream remembers. With a chunk per part of 200 ms that is 51 s: more than a slow listener's place is kept.
const ring = 256

// chunk is one step of a stream: bytes that are made once and shared by all.
type chunk struct {
	n     uint64 // ordinal in its stream
	frame uint64 // number of the first frame in it
	bytes []byte // may be empty: nothing to say in this step
}

// Tally is what is counted of one kind of stream; the owner publishes it.
type Tally struct {
	Listeners              atomic.Int64  // now
	Joined, Bytes, Skipped atomic.Uint64 // Skipped in chunks; Bytes without TLS
}

// StreamConfig describes a stream. Tally must be set.
type StreamConfig struct {
	Tally *Tally

	// Audience counts the listeners as listening on this rung; nil: they are not counted there (cues).
	Audience *observatory.Audience
	Rung     observatory.Rung

	// Announce makes the bytes that tell a listener, at a frame, its next cadence, from a frame on; nil: it is not told.
	Announce func(c Cadence, at, from uint64) []byte

	// Socket says that this is a WebSocket: what clients send is read as frames, and Bye is followed by the closing handshake.
	Socket bool
}

// Stream is a sequence of chunks that many listeners read. One goroutine appends; it is read from any.
type Stream struct {
	cfg    StreamConfig
	engine *Engine
	head   atomic.Uint64 // ordinal of the next chunk
	chunks [ring]atomic.Pointer[chunk]
	plan   atomic.Pointer[plan]
	bye    atomic.Pointer[[]byte] // not nil once closed
	bell   atomic.Pointer[chan struct{}]
	here   atomic.Int64
}

// NewStream makes an empty stream.
func (e *Engine) NewStream(cfg StreamConfig) *Stream {
	return &Stream{cfg: cfg, engine: e}
}

// Listeners is how many listen to this stream now.
func (s *Stream) Listeners() int { return int(s.here.Load()) }

// Append adds the next chunk, whose first frame has this number, and wakes those who serve it. The bytes are shared, not copied.
func (s *Stream) Append(frame uint64, b []byte) {
	s.add(frame, b)
	s.wake()
}

// Preload adds a chunk of the past: nobody is woken, as nobody listens yet.
func (s *Stream) Preload(frame uint64, b []byte) { s.add(frame, b) }

func (s *Stream) add(frame uint64, b []byte) {
	n := s.head.Load()
	s.chunks[n%ring].Store(&chunk{n: n, frame: frame, bytes: b})
	s.head.Store(n + 1)
}

// Close ends the stream: each listener gets what it has not had yet, then bye, and is let go.
func (s *Stream) Close(bye []byte) {
	if s.bye.CompareAndSwap(nil, &bye) {
		s.wake()
	}
}

// Closed says whether the stream has ended.
func (s *Stream) Closed() bool { return s.bye.Load() != nil }

func (s *Stream) wake() {
	if ch := s.bell.Swap(nil); ch != nil {
		close(*ch)
	}
	for _, sh := range s.engine.shards {
		sh.nudge()
	}
}

// news gives a channel that is closed at the next Append or Close. Take it, then look, then wait.
func (s *Stream) news() <-chan struct{} {
	ch := s.bell.Load()
	for ch == nil {
		fresh := make(chan struct{})
		if s.bell.CompareAndSwap(nil, &fresh) {
			ch = &fresh
		} else {
			ch = s.bell.Load()
		}
	}
	if s.Closed() { // its ring may have been the last
		return ajar
	}
	return *ch
}

var ajar = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// Place is where a newcomer begins: at most burst chunks before the head. Frame is the first that it will get, or the one that follows.
func (s *Stream) Place(burst int) (n, frame uint64) {
	head := s.head.Load()
	n = head - min(uint64(max(0, burst)), head, ring/2)
	// A jump in frames (a restart) is no place to begin before: players stall on it while they have no sound yet.
	for k := head; k > n+1; k-- {
		if a, b := s.at(k-2), s.at(k-1); a == nil || b == nil || a.frame+framesPerChunk != b.frame {
			n = k - 1
			break
		}
	}
	if c := s.at(n); c != nil {
		return n, c.frame
	}
	if c := s.at(head - 1); c != nil {
		return n, c.frame + framesPerChunk
	}
	return n, 0
}

// at gives chunk n, or nil if it is not there (any more).
func (s *Stream) at(n uint64) *chunk {
	c := s.chunks[n%ring].Load()
	if c == nil || c.n != n {
		return nil
	}
	return c
}

// appendRange joins the chunks from n up to (not including) to. It stops early where one is not there, and says where.
func (s *Stream) appendRange(b []byte, n, to uint64) ([]byte, uint64) {
	for ; n < to; n++ {
		c := s.at(n)
		if c == nil {
			break
		}
		b = append(b, c.bytes...)
	}
	return b, n
}
