package app

import (
	"context"
	"fmt"
	"time"

	"earshot/internal/cluster"
	"earshot/internal/event"
	"earshot/internal/observatory"
	"earshot/internal/timeline"
)

// endWait is how long a room without a stage waits for the last frames of an event of which the store says that it is over. The
// store is told first, so they are on their way.
const endWait = 4 * time.Second

// openEdge opens a room for an event whose stage is on another node: the relay feeds its timeline. It is there at once for its
// keeper, and for listeners as soon as the first frame has come. It waits for as long as the event is open: a stage that goes away is a
// pause for those who listen here, and goes on, under a higher epoch, on the same timeline.
func (h *House) openEdge(ev event.Event) *room {
	r := &room{house: h, audience: observatory.NewAudience(event.Count{}), fallen: make(chan struct{}), ev: ev, shown: ev}
	run, cancel := context.WithCancel(context.Background()) // ends with closeEdge
	r.run = cancel
	f := &feed{room: r}
	r.wg.Go(func() {
		h.store.Follow(run, ev.ID, f.take)
		f.close()
		close(r.fallen)
	})
	r.wg.Go(func() { r.report(run) })
	h.log.Info("room open for another node's stage", "event", ev.Slug)
	return r
}

// feed appends what the relay brings. It belongs to the relay's goroutine.
type feed struct {
	room *room
	tl   *timeline.Timeline
	over bool
}

func (f *feed) take(m cluster.Relayed) error {
	if m.End {
		f.over = true
		return nil
	}
	if f.tl == nil {
		tl, err := timeline.New(timeline.Config{Origin: f.room.view().Event.Origin, First: m.Number, Epoch: m.Epoch})
		if err != nil {
			return fmt.Errorf("begin a timeline: %w", err)
		}
		if err := tl.Append(m.Frame, m.Cues...); err != nil {
			return err
		}
		f.tl = tl
		f.room.mu.Lock()
		f.room.timeline = tl
		f.room.mu.Unlock()
		return nil
	}
	return f.tl.Append(m.Frame, m.Cues...)
}

// close tells listeners: that the event is over, or to come back to this address.
func (f *feed) close() {
	switch {
	case f.tl == nil:
	case f.over:
		f.tl.End()
	default:
		f.tl.Close()
	}
}

// awaitEnd waits until the timeline of an event that is over has ended, which the relay says; without its word, it ends it.
func (r *room) awaitEnd(ctx context.Context) {
	timer := time.NewTimer(endWait)
	defer timer.Stop()
	select {
	case <-r.fallen:
	case <-ctx.Done():
	case <-timer.C:
		if tl := r.view().Timeline; tl != nil {
			tl.End()
		}
	}
}

// report tells the stage's node, every two seconds, how many listen here.
func (r *room) report(ctx context.Context) {
	tick := time.NewTicker(cluster.ReportEvery)
	defer tick.Stop()
	var (
		last       cluster.Report
		before     int    // tuned in before the first frame of this epoch: told to, and kept by, an earlier stage
		head, past uint64 // of the timeline now, and at the last report
	)
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		tl := r.view().Timeline
		if tl == nil {
			continue
		}
		count, by := r.audience.Sweep(time.Now())
		if past, head = head, tl.Head(); head == past || head == 0 {
			continue // no frames come: nobody hears what is told, and nobody takes audio
		}
		f, err := tl.Frame(head - 1)
		if err != nil {
			continue
		}
		if f.Epoch != last.Epoch {
			before += last.TunedIn
		}
		last = cluster.Report{Epoch: f.Epoch, Listening: make(map[string]int, len(by)), TunedIn: count.TunedIn - before}
		for _, rung := range observatory.Rungs {
			if by[rung] > 0 {
				last.Listening[rung.String()] = by[rung]
			}
		}
		r.house.store.Report(r.view().Event.ID, last)
	}
}

// hear takes another node's report into the audience of the stage here.
func (r *room) hear(m cluster.Report) {
	sum := 0
	for _, n := range m.Listening {
		sum += n
	}
	if m.Epoch != r.lease.Epoch() {
		m.TunedIn = 0 // an earlier stage has counted them
	}
	r.audience.Elsewhere(m.Node, sum, m.TunedIn, time.Now())
}

func (r *room) closeEdge() {
	r.run()
	r.wg.Wait()
	r.house.log.Info("room closed", "event", r.view().Event.Slug)
}
