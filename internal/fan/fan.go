// Package fan holds the listeners' sockets. Each reads a timeline with a cursor of its own and takes shared bytes from it:
// WebRTC (WHEP), a WebSocket of fMP4 parts and cues (push), one long response for players that are not ours (live.mp4,
// live.ogg), and the cues alone as an event stream. It also owns the UDP port, which speakers use too.
//
// A listener that is slow harms nobody: it keeps its place for half a minute, then continues at the head, and is counted.
package fan

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"earshot/internal/event"
	"earshot/internal/fan/whep"
	"earshot/internal/timeline"
)

// Source is the programme of one event, as its listeners read it.
type Source = whep.Source

// Config of a Fan.
type Config struct {
	Port *Port

	// Advertise replaces the addresses in the answers to WebRTC listeners. Empty: the listening address, or where that is
	// unspecified, all interfaces' addresses.
	Advertise []netip.Addr

	MaxWHEP    int // WebRTC listeners at once, default 2000; a plain Pion connection costs about 200 KB
	MaxPending int // of these, not yet connected, default 200: what a flood of offers can hold
	MaxStreams int // all others at once, default 50 000; a socket and two goroutines each

	Log        *slog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time // default time.Now
}

// Fan serves listeners. All methods are safe from any goroutine.
type Fan struct {
	cfg      Config
	counters counters
	whep     *whep.Engine

	stop   chan struct{} // closed by Shutdown
	backIn time.Duration // set before stop is closed

	wg sync.WaitGroup // every ServeX that has begun

	mu      sync.Mutex
	closed  bool // no more wg.Add
	streams int
}

// New prepares to serve. The port must be open.
func New(cfg Config) (*Fan, error) {
	if cfg.MaxStreams == 0 {
		cfg.MaxStreams = 50_000
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	f := &Fan{cfg: cfg, stop: make(chan struct{})}
	var err error
	f.whep, err = whep.New(whep.Config{
		Port: cfg.Port, Advertise: cfg.Advertise, Max: cfg.MaxWHEP, MaxPending: cfg.MaxPending, Log: cfg.Log, Now: cfg.Now,
	})
	if err != nil {
		return nil, err
	}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(collector{f}); err != nil {
			return nil, fmt.Errorf("listeners' metrics: %w", err)
		}
	}
	return f, nil
}

// WHEP answers a listener's SDP offer (draft-ietf-wish-whep). The session ends with the timeline, with EndWHEP, or when the
// listener goes. Errors are *event.Error: Invalid for the offer, Busy, Unavailable while stopping.
func (f *Fan) WHEP(ctx context.Context, src Source, offer []byte) (id string, answer []byte, err error) {
	return f.whep.Answer(ctx, src, offer)
}

// EndWHEP ends a session by its id and says whether there was one.
func (f *Fan) EndWHEP(id string) bool { return f.whep.End(id) }

// Shutdown tells every listener that the server restarts and when to come back, and waits until all are gone or ctx ends.
func (f *Fan) Shutdown(ctx context.Context, backIn time.Duration) error {
	f.mu.Lock()
	if !f.closed {
		f.closed = true
		f.backIn = backIn
		close(f.stop)
	}
	f.mu.Unlock()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		f.whep.Close()
		f.wg.Wait()
	}()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("listeners still connected: %w", ctx.Err())
	}
}

// errFull says that no more streams are taken.
var errFull = errors.New("full")

// begin counts a stream in; the returned function counts it out.
func (f *Fan) begin(rung string) (done func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		f.counters.refuse("stopping")
		return nil, event.Unavailable("The server restarts. Try again in a few seconds.", nil)
	}
	if f.streams >= f.cfg.MaxStreams {
		f.counters.refuse("full")
		return nil, &event.Error{
			Code: event.CodeBusy, Message: "The server has as many listeners as it can take. Try again in a minute.", Err: errFull,
		}
	}
	f.streams++
	f.wg.Add(1)
	f.counters.rung(rung).listeners.Add(1)
	f.counters.rung(rung).joined.Add(1)
	return func() {
		f.counters.rung(rung).listeners.Add(-1)
		f.mu.Lock()
		f.streams--
		f.mu.Unlock()
		f.wg.Done()
	}, nil
}

// Behaviour of a listener that takes bytes as a stream.
const (
	burstPush = 2                                             // parts: the fewest with which a page's player starts (one is too few)
	burstLong = 15                                            // parts: foreign players want about 3 s before they sound
	keepPlace = int(30 * time.Second / timeline.PartDuration) // parts a slow reader may lag before it continues at the head
	stall     = 40 * time.Second                              // a write that gets nowhere for so long ends the connection
	heartbeat = 15 * time.Second                              // of an event stream, so that proxies keep it
)

// reader walks the parts for one stream.
type reader struct {
	tl      *timeline.Timeline
	cur     *timeline.Cursor
	skipped *atomic.Uint64
	counted uint64 // of cur.Skipped
	other   []byte // what came on next's other channel
}

func (f *Fan) reader(src Source, rung string, burst int) *reader {
	return &reader{tl: src.Timeline, cur: src.Timeline.Cursor(burst), skipped: &f.counters.rung(rung).skipped}
}

// errStopping ends a stream because the server does.
var errStopping = errors.New("stopping")

// next waits for the next part, or for something on other: then there is no part and no error, and bytes are in r.other. Errors:
// timeline.ErrClosed at the end, errStopping, or ctx's.
func next[T any](ctx context.Context, r *reader, stop <-chan struct{}, other <-chan T) (*timeline.Part, error) {
	if r.cur.Lag() > keepPlace {
		r.cur.Rejoin()
	}
	for {
		closed := r.tl.PartClosed()
		p, err := r.cur.Next()
		if n := r.cur.Skipped(); n > r.counted {
			r.skipped.Add(n - r.counted)
			r.counted = n
		}
		if err == nil && ctx.Err() != nil { // a backlog must not keep one who left
			return nil, ctx.Err()
		}
		if !errors.Is(err, timeline.ErrAhead) {
			return p, err
		}
		select {
		case <-closed:
		case <-stop:
			return nil, errStopping
		case <-ctx.Done():
			return nil, ctx.Err()
		case v := <-other:
			r.other, _ = any(v).([]byte)
			return nil, nil
		}
	}
}

// noStore keeps a response that never ends out of every cache and every proxy's buffer.
func noStore(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
}
