// Package fan is the listeners' side of a node: it turns requests into listeners of the two engines. What is a stream of bytes goes to
// fan/sweep: a WebSocket of fMP4 parts and cues (push), one long response for players that are not ours (live.mp4, live.ogg), and the
// cues alone as an event stream. WebRTC goes to fan/whep, which also owns the port that speakers use.
//
// For each timeline that somebody listens to there is a [room]: a goroutine that follows it and makes, once for all, the bytes of each
// part in each form. What needs another codec is a [station]'s: an ffmpeg beside this process, while somebody wants it.
package fan

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"earshot/internal/event"
	"earshot/internal/fan/sweep"
	"earshot/internal/fan/whep"
	"earshot/internal/radio"
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

	MaxWHEP    int  // WebRTC listeners at once, default 20,000
	MaxPending int  // of these, not yet connected, default 1000: what a flood of offers can hold
	MaxStreams int  // all others at once; default: what descriptors allow
	Shards     int  // goroutines that sweep, default GOMAXPROCS − 1
	Goroutines bool // serve each listener of a stream by a goroutine, as on systems without epoll

	FFmpeg string // name or path of the program that makes AAC and MP3; default "ffmpeg", on the PATH

	Log        *slog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time // default time.Now
}

// Fan serves listeners. All methods are safe from any goroutine.
type Fan struct {
	cfg      Config
	counters counters
	whep     *whep.Engine
	sweep    *sweep.Engine
	tool     *radio.Tool

	stop   chan struct{} // closed by Shutdown
	backIn time.Duration // set before stop is closed

	wg sync.WaitGroup // every room's goroutine, and every station's

	mu         sync.Mutex
	closed     bool // no more rooms
	rooms      map[*timeline.Timeline]*room
	converting int // stations that run
}

// New prepares to serve. The port must be open.
func New(cfg Config) (*Fan, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	f := &Fan{cfg: cfg, stop: make(chan struct{}), rooms: make(map[*timeline.Timeline]*room), tool: radio.Find(cfg.FFmpeg)}
	var err error
	f.whep, err = whep.New(whep.Config{
		Port: cfg.Port, Advertise: cfg.Advertise, Max: cfg.MaxWHEP, MaxPending: cfg.MaxPending, Announce: f.announce,
		Log: cfg.Log, Now: cfg.Now,
	})
	if err != nil {
		return nil, err
	}
	elsewhere := func() int { return 0 }
	if cfg.Port != nil {
		elsewhere = cfg.Port.Connections
	}
	f.sweep, err = sweep.New(sweep.Config{Shards: cfg.Shards, Max: cfg.MaxStreams, Goroutines: cfg.Goroutines, Elsewhere: elsewhere, Now: cfg.Now})
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

// Sweep is the engine of streams, for those who accept connections for it.
func (f *Fan) Sweep() *sweep.Engine { return f.sweep }

// Joined is how many listeners have joined since it began.
func (f *Fan) Joined() uint64 {
	n := f.whep.Stats().Joined
	for i := range f.counters.rungs {
		n += f.counters.rungs[i].Joined.Load()
	}
	return n
}

// WHEP answers a listener's SDP offer (draft-ietf-wish-whep). The session ends with the timeline, with EndWHEP, or when the
// listener goes. packet is how long its packets shall be at the least: 20, 60 or 120 ms; 0 is 20. Errors are *event.Error: Invalid for the
// offer or the packet, Unavailable when there is no room and while stopping.
func (f *Fan) WHEP(ctx context.Context, src Source, offer []byte, packet int) (id string, answer []byte, err error) {
	return f.whep.Answer(ctx, src, offer, packet)
}

// EndWHEP ends a session by its id and says whether there was one.
func (f *Fan) EndWHEP(id string) bool { return f.whep.End(id) }

// Pace is what this node gives at the quickest.
type Pace struct {
	Push time.Duration // from one message of push to the next
	WHEP time.Duration // of programme in one WebRTC packet
}

// Pace tells what this node gives at the quickest, by the operator's hand and by load.
func (f *Fan) Pace() Pace {
	return Pace{Push: f.sweep.Pace().Cadence.Duration(), WHEP: time.Duration(f.whep.Packet()) * time.Millisecond}
}

// SetPace is the operator's hand: nothing quicker is given from now on. Listeners are told before it changes. A zero leaves a value as it is.
// The error is *event.Error with Invalid.
func (f *Fan) SetPace(p Pace) error {
	cadence, err := sweep.ParseCadence(int(p.Push / time.Millisecond))
	if err != nil && p.Push != 0 {
		return event.Invalid("push_ms", "The cadence of push is 200, 400, 1000 or 2000 milliseconds.")
	}
	if p.WHEP != 0 {
		if _, err := f.whep.SetPacket(int(p.WHEP / time.Millisecond)); err != nil {
			return event.Invalid("whep_ms", "A packet of WebRTC holds 20, 60 or 120 milliseconds.")
		}
	}
	if p.Push != 0 {
		f.sweep.SetFloor(cadence)
	}
	return nil
}

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
	}()
	f.wg.Wait() // each room ends its streams at once
	err := f.sweep.Close(ctx)
	select {
	case <-gone:
	case <-ctx.Done():
		err = errors.Join(err, fmt.Errorf("WebRTC listeners still connected: %w", ctx.Err()))
	}
	return err
}

// whenBack waits a moment for Shutdown to say how long it takes.
func (f *Fan) whenBack() time.Duration {
	t := time.NewTimer(returnIn)
	defer t.Stop()
	select {
	case <-f.stop:
		return f.backIn
	case <-t.C:
		return returnIn
	}
}

// returnIn is what is told if the timeline ended before Shutdown said how long.
const returnIn = 5 * time.Second

func seconds(d time.Duration) string { return strconv.Itoa(int((d + time.Second - 1) / time.Second)) }

// admit takes a place for the request of a stream.
func (f *Fan) admit(r *http.Request) (wish, given sweep.Cadence, err error) {
	if q := r.URL.Query().Get("cadence"); q != "" {
		ms, err := strconv.Atoi(q)
		if err == nil {
			wish, err = sweep.ParseCadence(ms)
		}
		if err != nil {
			return 0, 0, event.Invalid("cadence", "A cadence is 200, 400, 1000 or 2000 milliseconds.")
		}
	}
	given, err = f.sweep.Admit(wish, sweep.Way(r.ProtoMajor != 1))
	switch {
	case errors.Is(err, sweep.ErrFull):
		f.counters.refuse("full")
		return 0, 0, event.Unavailable("The server has as many listeners as it can take. Try again in half a minute.", nil)
	case err != nil:
		f.counters.refuse("stopping")
		return 0, 0, event.Unavailable("The server restarts. Try again in a few seconds.", nil)
	}
	return wish, given, nil
}

// take takes a request's connection over from net/http and hands it to the engine, whose place is used up or given back.
func (f *Fan) take(w http.ResponseWriter, j sweep.Join) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		f.sweep.Release(sweep.Own)
		return // the connection is broken
	}
	input, _ := rw.Reader.Peek(rw.Reader.Buffered()) // what is buffered is there
	_ = conn.SetDeadline(time.Time{})
	f.sweep.Take(conn, input, j)
}

// noStore keeps a response that never ends out of every cache and every proxy's buffer.
func noStore(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
}
