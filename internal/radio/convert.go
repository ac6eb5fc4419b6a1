package radio

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"earshot/internal/event"
	"earshot/internal/timeline"
)

// Piece is a part of the programme in another form: the frames that begin in it. It is immutable.
type Piece struct {
	Part   *timeline.Part
	Bytes  []byte // whole frames, one after another
	Frames int    // how many; those of a part that begins a run may be fewer, by the first
	First  int64  // the sample, counted from the timeline's frame 0, with which the first of them begins
	Begins bool   // it does not go on where the piece before ended
}

// Config of a conversion. All fields must be set.
type Config struct {
	Path     string // of ffmpeg, as Tool.For gives it
	Form     Form
	Timeline *timeline.Timeline
	Back     int // parts of the past to begin with
	Counters *Counters
	Log      *slog.Logger

	Emit   func(Piece) // gets the pieces in their order
	Wanted func() bool // is asked every half second; after the first no the conversion ends
}

// Why a child was followed by another.
const (
	Died    = iota // it ended by itself
	Hung           // it was fed, and said nothing
	Garbled        // it said what is no frame
	Unborn         // it could not be started
	reasons
)

// Counters is what is counted of one form; the owner publishes it.
type Counters struct {
	Running  atomic.Int64  // children
	Started  atomic.Uint64 // children
	Restarts [reasons]atomic.Uint64
	Dropped  atomic.Uint64 // parts that were never converted, as children were down for too long
}

// RestartReasons names the indices of Counters.Restarts.
var RestartReasons = [reasons]string{"died", "hung", "garbled", "unborn"}

const (
	preroll    = 2   // parts that a child gets before those that are wanted of it, for decoder and encoder to find their feet
	maxPending = 300 // parts that were fed and have not come back: a minute, as much as the ring holds
	maxBehind  = 200 // parts that a new child makes good; beyond, what lies between is dropped

	look     = 500 * time.Millisecond // how often is looked whether all is well
	patience = 5 * time.Second        // without a word from a child that has much to say
	fewParts = 10                     // are on their way at any time
	flush    = 3 * time.Second        // for a child to say the rest

	firstWait = 200 * time.Millisecond // before a child is followed by another; doubled each time
	longWait  = 30 * time.Second
	goodLife  = 30 * time.Second // after which a child's end is not held against the next
)

// PID is the process that works on a conversion now, 0 for none. Tests want to know.
type PID struct{ atomic.Int64 }

// Convert works until nobody wants it, ctx ends, or the timeline has: then everything of it was emitted, if a child could be had. It runs on
// the caller's goroutine, which is the one that Emit and Wanted are called from.
func Convert(ctx context.Context, cfg Config, pid *PID) {
	c := &converter{cfg: cfg, shape: shapes[cfg.Form], next: -1, last: -1}
	wait := firstWait
	for {
		begun := time.Now()
		err := c.live(ctx, pid)
		switch {
		case err == nil: // a gap: what follows is for another child
			wait = firstWait
			continue
		case errors.Is(err, errOver), ctx.Err() != nil:
			return
		}
		var f *failure
		if errors.As(err, &f) {
			cfg.Counters.Restarts[f.reason].Add(1)
		}
		if time.Since(begun) > goodLife {
			wait = firstWait
		} else if wait > firstWait && cfg.Timeline.Closed() {
			return // its last words are not worth more than two tries
		}
		c.failed = true
		cfg.Log.Warn("the converter is started anew", "form", cfg.Form.String(), "in", wait, "err", err)
		if !c.sleep(ctx, wait) {
			return
		}
		wait = min(2*wait, longWait)
	}
}

// errOver says that there is nothing more to do.
var errOver = errors.New("radio: over")

type failure struct {
	reason int
	err    error
}

func (f *failure) Error() string {
	if f.err == nil {
		return RestartReasons[f.reason]
	}
	return RestartReasons[f.reason] + ": " + f.err.Error()
}

func (f *failure) Unwrap() error { return f.err }

// converter is what lasts from one child to the next.
type converter struct {
	cfg    Config
	shape  shape
	next   int64 // number of the part that is wanted next; negative: none was
	last   int64 // number of the part that was emitted last; negative: none was
	failed bool  // a child did, since then
}

// sleep says whether to go on.
func (c *converter) sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case <-timer.C:
			return true
		case <-tick.C:
			if !c.cfg.Wanted() {
				return false
			}
		case <-ctx.Done():
			return false
		}
	}
}

// begin finds where the next child begins: a cursor, some parts before the first that is wanted.
func (c *converter) begin() *timeline.Cursor {
	head := int64(c.cfg.Timeline.Head() / timeline.FramesPerPart)
	first := max(0, head-int64(c.cfg.Back))
	first -= first % timeline.PartsPerSegment
	if c.next >= 0 {
		first = max(c.next, head-maxBehind)
	}
	c.next = first
	return c.cfg.Timeline.Cursor(int(head-first) + preroll)
}

// life is one child's.
type life struct {
	*converter
	child   *child
	split   splitter
	origin  int64            // sample with which frame 0 begins
	frames  int64            // that came
	fed     []*timeline.Part // whose end has not come back, oldest first
	piece   Piece            // of fed[0], as far as it has come
	spoke   time.Time        // when it last said something, or had little to say
	finish  time.Time        // when it was told that nothing more comes; zero: it was not
	closing bool             // and then nothing will: else a gap
}

// live has one child work until the timeline has a gap (nil) or an end (errOver), nobody wants it (errOver), or it fails.
func (c *converter) live(ctx context.Context, pid *PID) error {
	cur := c.begin()
	first, err := c.await(ctx, cur)
	if err != nil {
		return err
	}
	// The first sample that the encoder gets lies on a multiple of the frame's size: the decoder drops those before.
	base := int64(first.First) * samplesPerFrame
	skip := (c.shape.size - base%c.shape.size) % c.shape.size
	head := append(timeline.OggHeadersSkipping(uint16(skip)), first.Ogg...)
	l := &life{
		converter: c, split: splitter{cut: c.shape.cut}, origin: base + skip - c.shape.delay,
		fed: []*timeline.Part{first}, spoke: time.Now(),
	}
	if l.child, err = spawn(ctx, c.cfg.Path, c.cfg.Form.arguments(), head); err != nil {
		return &failure{Unborn, err}
	}
	c.cfg.Counters.Started.Add(1)
	c.cfg.Counters.Running.Add(1)
	pid.Store(int64(l.child.cmd.Process.Pid))
	err = l.work(ctx, cur)
	said := l.child.end(err != nil)
	pid.Store(0)
	c.cfg.Counters.Running.Add(-1)
	switch f, failed := errors.AsType[*failure](err); {
	case failed && f.reason == Died:
		f.err = said
		return f
	case err != nil:
		return err
	case said != nil: // it said all that was wanted, and yet
		return &failure{Died, said}
	}
	l.rest()
	if l.closing {
		return errOver
	}
	return nil
}

const samplesPerFrame = int64(event.FrameSamples)

// await gives the first part that a cursor leads to.
func (c *converter) await(ctx context.Context, cur *timeline.Cursor) (*timeline.Part, error) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		closed := c.cfg.Timeline.PartClosed()
		p, err := cur.Next()
		switch {
		case err == nil:
			return p, nil
		case !errors.Is(err, timeline.ErrAhead):
			return nil, errOver
		}
		select {
		case <-closed:
		case <-tick.C:
			if !c.cfg.Wanted() {
				return nil, errOver
			}
		case <-ctx.Done():
			return nil, errOver
		}
	}
}

// work feeds and hears the child until it has said all (nil).
func (l *life) work(ctx context.Context, cur *timeline.Cursor) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	var next *timeline.Part
	last := l.fed[0]
	for {
		var closed <-chan struct{}
		var feed chan<- []byte
		var page []byte
		if next == nil && l.finish.IsZero() && len(l.fed) < maxPending {
			closed = l.cfg.Timeline.PartClosed()
			p, err := cur.Next()
			switch {
			case err == nil && p.First == last.First+uint64(last.Count):
				next = p
			case err == nil: // a gap
				l.done(false)
			case !errors.Is(err, timeline.ErrAhead):
				l.done(true)
			}
		}
		if next != nil {
			feed, page = l.child.in, next.Ogg
		}
		select {
		case feed <- page:
			l.fed = append(l.fed, next)
			next, last = nil, next
		case b, more := <-l.child.out:
			if !more {
				if l.finish.IsZero() {
					return &failure{reason: Died}
				}
				return nil
			}
			l.spoke = time.Now()
			if err := l.split.feed(b, l.take); err != nil {
				return &failure{Garbled, err}
			}
		case <-closed:
		case now := <-tick.C:
			if len(l.fed) < fewParts {
				l.spoke = now
			}
			if now.Sub(l.spoke) > patience || !l.finish.IsZero() && now.Sub(l.finish) > flush {
				return &failure{reason: Hung}
			}
			if !l.cfg.Wanted() {
				return errOver
			}
		case <-ctx.Done():
			return errOver
		}
	}
}

// done tells the child that nothing more comes.
func (l *life) done(closing bool) {
	l.finish, l.closing = time.Now(), closing
	l.child.finish()
}

// take places a frame.
func (l *life) take(frame []byte) {
	at := l.origin + l.frames*l.shape.size
	l.frames++
	for len(l.fed) > 0 && at >= partEnd(l.fed[0]) {
		l.emit()
	}
	if len(l.fed) == 0 || int64(l.fed[0].Number) < l.next || at < int64(l.fed[0].First)*samplesPerFrame {
		return // before what is wanted, or the silence behind the end
	}
	if l.piece.Frames == 0 {
		l.piece.First = at
	}
	l.piece.Frames++
	l.piece.Bytes = append(l.piece.Bytes, frame...)
}

// rest emits what the end has left open.
func (l *life) rest() {
	for len(l.fed) > 0 {
		l.emit()
	}
}

// emit hands on the piece that is complete.
func (l *life) emit() {
	p := l.piece
	p.Part = l.fed[0]
	l.fed[0] = nil
	l.fed = l.fed[1:]
	l.piece = Piece{Bytes: make([]byte, 0, len(p.Bytes)*5/4)}
	number := int64(p.Part.Number)
	if number < l.next {
		return // pre-roll
	}
	p.Begins = number != l.last+1 || l.last < 0
	if p.Begins && l.failed {
		l.cfg.Counters.Dropped.Add(uint64(number - l.last - 1))
	}
	l.last, l.next, l.failed = number, number+1, false
	l.cfg.Emit(p)
}

// partEnd is the sample behind a part's last.
func partEnd(p *timeline.Part) int64 { return int64(p.First+uint64(p.Count)) * samplesPerFrame }
