package archive

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"sync"
	"time"

	"earshot/internal/event"
	"earshot/internal/timeline"
)

// keepReplays bounds the cache of replays: one of an hour has 29 KB, and 90 KB of playlist once asked for, so 8 MB at most.
const keepReplays = 64

// Replay is a recording as a whole: what is stored and can be read.
type Replay struct {
	Duration time.Duration // of all frames that are there; gaps take no time
	Segments int
	Last     uint64 // number of the last segment

	a        *Archive
	event    string
	origin   time.Time
	list     []timeline.Recorded
	playlist func() []byte
}

type cached struct {
	replay *Replay
	used   uint64 // Archive.age when it was last asked for
}

// Replay gives an event's recording; origin is the event's. Nothing stored is an *event.Error NotFound. The first call reads all
// segments, to know how long each is (1 s per ten hours or so); later ones remember, until more is stored.
func (a *Archive) Replay(ctx context.Context, eventID string, origin time.Time) (*Replay, error) {
	if r := a.remembered(eventID); r != nil && r.origin.Equal(origin) {
		return r, nil
	}
	// The reading goes on if whoever asked first goes away: others wait for the same, and the next will ask again.
	done := a.loads.DoChan(eventID, func() (any, error) { return a.read(context.WithoutCancel(ctx), eventID, origin) })
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("read recording of %q: %w", eventID, ctx.Err())
	case got := <-done:
		if got.Err != nil {
			return nil, got.Err
		}
		return got.Val.(*Replay), nil
	}
}

func (a *Archive) remembered(eventID string) *Replay {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.replays[eventID]
	if c == nil {
		return nil
	}
	a.age++
	c.used = a.age
	return c.replay
}

// remember keeps a replay unless something was stored since its reading began.
func (a *Archive) remember(r *Replay, writes uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.writes[r.event] != writes {
		return
	}
	if len(a.replays) >= keepReplays {
		oldest, least := "", a.age+1
		for id, c := range a.replays {
			if c.used < least {
				oldest, least = id, c.used
			}
		}
		delete(a.replays, oldest)
	}
	a.age++
	a.replays[r.event] = &cached{replay: r, used: a.age}
}

// Forget drops what is remembered of an event's replay.
func (a *Archive) Forget(_ context.Context, eventID string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.replays, eventID)
}

// read goes through all segments of an event.
func (a *Archive) read(ctx context.Context, eventID string, origin time.Time) (*Replay, error) {
	a.mu.Lock()
	writes := a.writes[eventID]
	a.mu.Unlock()
	numbers, err := a.Numbers(ctx, eventID)
	if err != nil {
		return nil, err
	}
	r := &Replay{a: a, event: eventID, origin: origin, list: make([]timeline.Recorded, 0, len(numbers))}
	whole := true
	for _, n := range numbers {
		frames, err := a.frames(ctx, eventID, n)
		if errors.Is(err, errCorrupt) {
			continue // it will not get better
		}
		if err != nil {
			whole = false // it may
			continue
		}
		r.list = append(r.list, timeline.Recorded{Number: n, Frames: len(frames)})
		r.Duration += time.Duration(len(frames)) * event.FrameDuration
		r.Last = n
	}
	if r.Segments = len(r.list); r.Segments == 0 {
		if !whole {
			return nil, event.Unavailable("The recording cannot be read at the moment.",
				fmt.Errorf("read recording of %q: no segment", eventID))
		}
		return nil, event.NotFound("There is no recording of this event.")
	}
	r.playlist = sync.OnceValue(func() []byte { return timeline.VOD(origin, r.list) })
	if whole {
		a.remember(r, writes)
	}
	return r, nil
}

var errCorrupt = errors.New("not what was written")

// frames reads and checks a segment. What can't be used is counted and logged, and the replay goes on without it.
func (a *Archive) frames(ctx context.Context, eventID string, n uint64) ([]timeline.Frame, error) {
	data, err := a.shelf.Get(ctx, key(eventID, n))
	reason := "unreadable"
	switch {
	case err == nil:
		var frames []timeline.Frame
		if frames, err = parse(n, data); err == nil {
			return frames, nil
		}
		reason, err = "corrupt", fmt.Errorf("%w: %w", errCorrupt, err)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, errTooLong):
		reason, err = "corrupt", fmt.Errorf("%w: %w", errCorrupt, err)
	case errors.Is(err, fs.ErrNotExist):
		reason = "missing"
	}
	a.skipped[reason].Inc()
	a.log.Warn("a stored segment is left out of the replay", "event", eventID, "segment", n, "reason", reason, "cause", err)
	return nil, err
}

// parse gives the frames of segment n, which must be there and begin it.
func parse(n uint64, data []byte) ([]timeline.Frame, error) {
	frames, _, err := timeline.ReadChunks(data)
	if err != nil {
		return nil, err
	}
	if len(frames) == 0 || len(frames) > timeline.FramesPerSegment {
		return nil, fmt.Errorf("%d frames", len(frames))
	}
	for i, f := range frames {
		if f.Number != n*timeline.FramesPerSegment+uint64(i) {
			return nil, fmt.Errorf("frame %d in the place of frame %d", f.Number, n*timeline.FramesPerSegment+uint64(i))
		}
	}
	return frames, nil
}

// Playlist is the recording as an HLS media playlist (VOD, ended), relative to the event's hls folder. It is shared: not to be
// modified.
func (r *Replay) Playlist() []byte { return r.playlist() }

// WriteOpus writes the whole as one Ogg Opus file (RFC 7845), holding one segment at a time. What can't be read by now is left
// out and counted, as in the playlist. An error means that w or ctx ended it.
func (r *Replay) WriteOpus(ctx context.Context, w io.Writer) error {
	o := timeline.NewOggWriter(w, crc32.ChecksumIEEE([]byte(r.event)),
		"DATE="+r.origin.UTC().Format(time.DateOnly), "ENCODER=earshot")
	packets := make([][]byte, 0, timeline.FramesPerSegment)
	for _, s := range r.list {
		frames, err := r.a.frames(ctx, r.event, s.Number)
		if ctx.Err() != nil {
			return fmt.Errorf("write recording of %q: %w", r.event, ctx.Err())
		}
		if err != nil {
			continue
		}
		packets = packets[:0]
		for _, f := range frames {
			packets = append(packets, f.Packet)
		}
		if err := o.Write(packets); err != nil {
			return fmt.Errorf("write recording of %q: %w", r.event, err)
		}
	}
	if err := o.Close(); err != nil {
		return fmt.Errorf("write recording of %q: %w", r.event, err)
	}
	return nil
}
