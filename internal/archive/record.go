package archive

import (
	"context"
	"errors"
	"fmt"
	"time"

	"earshot/internal/timeline"
)

const (
	retryFirst = 100 * time.Millisecond
	retryMost  = 5 * time.Second
)

// Record stores a timeline's segments as they close, beginning with number from. It returns nil when the timeline is closed and
// all of it is stored, and ctx's error when that ends first. A store that fails is tried again for as long as it takes: the
// segment in hand is kept, those after it wait in the timeline's ring. What falls out of the ring meanwhile is lost, counted, and
// told in one line when the store works again.
func (a *Archive) Record(ctx context.Context, eventID string, tl *timeline.Timeline, from uint64) error {
	log := a.log.With("event", eventID)
	var lost uint64 // not yet told
	tell := func() {
		if lost > 0 {
			log.Error("a part of the recording is lost: the store failed for too long", "segments", lost)
			lost = 0
		}
	}
	defer tell()
	// Nothing lies before the timeline's first frame, which a start after a crash puts beyond what was stored.
	for n := max(from, tl.First()/timeline.FramesPerSegment); ; n++ {
		seg, err := next(ctx, tl, n)
		switch {
		case errors.Is(err, timeline.ErrClosed):
			return nil
		case errors.Is(err, timeline.ErrGap): // never made
			continue
		case errors.Is(err, timeline.ErrGone):
			lost++
			a.lost["overrun"].Inc()
			continue
		case err != nil:
			return fmt.Errorf("record segment %d of %q: %w", n, eventID, err)
		}
		tell()
		if err := a.insist(ctx, eventID, seg); err != nil {
			for k := n; seg != nil; { // this one, and those that wait behind it
				a.lost["stopped"].Inc()
				k++
				seg, _ = tl.Segment(k)
			}
			return fmt.Errorf("record segment %d of %q: %w", n, eventID, err)
		}
	}
}

// next waits until segment n is closed.
func next(ctx context.Context, tl *timeline.Timeline, n uint64) (*timeline.Segment, error) {
	for {
		closed := tl.PartClosed() // taken first, so that no closing is missed
		seg, err := tl.Segment(n)
		if !errors.Is(err, timeline.ErrAhead) {
			return seg, err
		}
		select {
		case <-closed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// insist stores a segment, however often it takes. It logs when the store's state changes, not at each try.
func (a *Archive) insist(ctx context.Context, eventID string, seg *timeline.Segment) error {
	data := seg.Bytes()
	err := a.Put(ctx, eventID, seg.Number, data)
	if err == nil {
		return nil
	}
	log := a.log.With("event", eventID, "segment", seg.Number)
	log.Error("the recording cannot be stored; trying again", "cause", err)
	began := time.Now()
	for wait := retryFirst; err != nil; wait = min(2*wait, retryMost) {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(ctx.Err(), err)
		}
		err = a.Put(ctx, eventID, seg.Number, data)
	}
	log.Info("the recording is stored again", "after", time.Since(began).Round(time.Millisecond))
	return nil
}
