package app

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"earshot/internal/cluster"
	"earshot/internal/event"
	"earshot/internal/observatory"
	"earshot/internal/stage"
	"earshot/internal/timeline"
	"earshot/internal/web"
)

// countEvery is how often an audience's figures are kept, so that a restart does not lose the peak.
const countEvery = 10 * time.Second

// storeGrace bounds what a closing room still waits for the disk.
const storeGrace = 5 * time.Second

// room is an open event on this node: the stage's lease, the stage, its timeline and audience, and the recorder. Its
// keeper alone opens, changes and closes it. Where another node has the stage, the relay feeds the timeline (edge.go).
type room struct {
	house    *House
	lease    *cluster.Lease     // nil without a stage
	stage    *stage.Stage       // nil where another node has it
	sender   *cluster.Publisher // nil where no other node could listen
	timeline *timeline.Timeline // fixed with a stage; else nil until the first frame has come, and then guarded by mu
	audience *observatory.Audience

	heirs chan stage.Handover // capacity 1: the stage's wish that a co-host follow a host who is lost; it repeats it

	fallen chan struct{} // closed when no more frames come, also when nobody told the stage to end; err says why
	err    error

	run context.CancelFunc
	wg  sync.WaitGroup

	// the keeper's own
	shown event.Event // as the stage knows it
	rec   bool        // the recorder runs

	retired bool // its counters are in the totals of those that closed; guarded by stageTotals.mu

	mu sync.Mutex
	ev event.Event // as outsiders see it
}

// openRoom takes the stage's lease and starts at a segment boundary beyond everything made before: the wall clock says
// where. The archive, and after (this process made nothing from that frame on) bound it from below: the clock may have gone back, and
// the last frame of a stage may be made before it is due.
func (h *House) openRoom(ctx context.Context, ev event.Event, after uint64, idle func()) (_ *room, err error) {
	lease, err := h.store.Acquire(ctx, ev.ID)
	if err != nil {
		return nil, fmt.Errorf("acquire the stage of %q: %w", ev.Slug, err)
	}
	defer func() {
		if err != nil {
			_ = lease.Release(context.WithoutCancel(ctx))
		}
	}()
	first := roundUp(max(ev.FrameAt(h.now()), after))
	if last, ok, err := h.archive.LastSegment(ctx, ev.ID); err != nil {
		return nil, err
	} else if ok {
		first = max(first, (last+1)*timeline.FramesPerSegment)
	}
	if last, ok := h.store.LastFrame(ctx, ev.ID); ok { // another node's, whose clock may be ahead of this one's
		first = max(first, roundUp(last+1))
	}
	before, err := h.store.Count(ctx, ev.ID)
	if err != nil {
		return nil, err
	}
	roll, err := h.store.Roll(ctx, ev.ID)
	if err != nil {
		return nil, err
	}
	tl, err := timeline.New(timeline.Config{Origin: ev.Origin, First: first, Epoch: lease.Epoch()})
	if err != nil {
		return nil, err
	}
	r := &room{
		house: h, lease: lease, timeline: tl, audience: observatory.NewAudience(before),
		heirs: make(chan stage.Handover, 1), fallen: make(chan struct{}), ev: ev, shown: ev,
	}
	cfg := stage.Config{Event: ev, Epoch: lease.Epoch(), First: first, Banned: roll.Banned, Timeline: tl, Audience: r.audience, OnIdle: idle, OnHostLost: r.wish}
	if r.sender = lease.Publisher(); r.sender != nil {
		cfg.Relay = r.sender.Frame
	}
	if r.stage, err = stage.New(cfg); err != nil {
		_ = r.sender.Close(ctx, false, 0) // nothing was sent
		return nil, err
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.run = cancel
	r.wg.Go(func() {
		r.err = r.stage.Run(run)
		tl.Close()
		close(r.fallen)
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeGrace)
		defer cancel()
		if err := r.sender.Close(bounded, tl.Ended(), tl.Head()); err != nil {
			h.log.Warn("relay", "event", ev.Slug, "err", err)
		}
	})
	r.wg.Go(func() { r.keepCount(run) })
	r.wg.Go(func() { r.succeed(run) })
	r.wg.Go(func() { h.store.Reports(run, ev.ID, r.hear) })
	r.record(run, ev)
	h.log.Info("stage open", "event", ev.Slug, "epoch", lease.Epoch(), "frame", first)
	return r, nil
}

func roundUp(frame uint64) uint64 {
	const n = timeline.FramesPerSegment
	return (frame + n - 1) / n * n
}

func (r *room) view() web.Room {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := web.Room{Event: r.ev, Stage: r.stage, Timeline: r.timeline, Audience: r.audience}
	if r.stage == nil {
		v.StageAt = r.house.store.StageAddress(r.ev.ID)
	}
	return v
}

// head is the number of the next frame.
func (r *room) head() uint64 {
	if tl := r.view().Timeline; tl != nil {
		return tl.Head()
	}
	return 0
}

// occupied says whether anybody is connected on stage.
func (r *room) occupied() bool {
	return r.stage != nil && slices.ContainsFunc(r.stage.State().People, func(p stage.Person) bool { return p.Connected })
}

// show makes the stage match the event. After an error, the next call tries the rest again.
func (r *room) show(ctx context.Context, ev event.Event) error {
	r.mu.Lock()
	r.ev = ev
	r.mu.Unlock()
	if r.stage == nil || r.shown.Phase.Over() {
		return nil
	}
	if !r.shown.Start.Equal(ev.Start) || r.shown.IdleEnd != ev.IdleEnd {
		if err := r.stage.Amend(ctx, ev); err != nil {
			return err
		}
	}
	if r.shown.Phase != ev.Phase {
		at := ev.LiveAt
		if ev.Phase.Over() {
			at = ev.EndedAt
		}
		if err := r.stage.Turn(ctx, ev.Phase, at); err != nil {
			return err
		}
		r.record(ctx, ev)
	}
	r.shown = ev
	return nil
}

// record starts the recorder once there is something to record: from the segment in which the event went live. Of an event
// that is not recorded nothing reaches the archive.
func (r *room) record(ctx context.Context, ev event.Event) {
	if r.rec || !ev.Recorded || ev.Phase != event.Live {
		return
	}
	r.rec = true
	from := max(ev.FrameAt(ev.LiveAt), r.timeline.First()) / timeline.FramesPerSegment
	ctx = context.WithoutCancel(ctx) // ends with the timeline, when all of it is stored
	bounded, cancel := context.WithCancel(ctx)
	r.wg.Go(func() {
		defer cancel()
		if err := r.house.archive.Record(bounded, ev.ID, r.timeline, from); err != nil {
			r.house.log.Error("record", "event", ev.Slug, "err", err)
		}
		r.house.archive.Forget(ctx, ev.ID)
	})
	r.wg.Go(func() {
		// A store that stays broken must not keep a closed room for ever.
		<-r.fallen
		select {
		case <-bounded.Done():
		case <-time.After(storeGrace):
			cancel()
		}
	})
}

// wish is the stage's call when a host was lost for too long. It never blocks.
func (r *room) wish(h stage.Handover) {
	select {
	case r.heirs <- h:
	default:
	}
}

// succeed has co-hosts follow hosts who were lost: in the store first, on the stage after. What fails the stage asks for again; what it asked
// for twice, or somebody else has settled, is left alone.
func (r *room) succeed(ctx context.Context) {
	for {
		var h stage.Handover
		select {
		case h = <-r.heirs:
		case <-ctx.Done():
			return
		}
		if r.stage.State().HostLost.IsZero() {
			continue
		}
		log := r.house.log.With("event", r.view().Event.Slug, "host", h.From, "cohost", h.To)
		_, err := r.house.store.UpdateRoll(ctx, r.view().Event.ID, func(roll *event.Roll) error {
			roll.HandOver(h.From, h.To)
			return nil
		})
		if err == nil {
			err = r.stage.HandOver(ctx, h)
		}
		switch {
		case err == nil:
			log.Info("a co-host followed a host who was lost")
		case ctx.Err() == nil:
			log.Warn("a host who is lost is not followed yet", "err", err)
		}
	}
}

func (r *room) keepCount(ctx context.Context) {
	tick := time.NewTicker(countEvery)
	defer tick.Stop()
	kept := r.audience.Count()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if now := r.audience.Count(); now.Peak != kept.Peak || now.TunedIn != kept.TunedIn {
			if err := r.house.store.PutCount(ctx, r.view().Event.ID, now); err == nil {
				kept = now
			} // else the store says so itself, and the next tick tries again
		}
	}
}

// close ends the stage, if it still runs, as a restart: the phase stays, and whoever opens the room next goes on.
func (r *room) close(ctx context.Context) {
	if r.stage == nil {
		r.closeEdge()
		return
	}
	r.house.mu.RLock()
	backIn := r.house.backIn
	r.house.mu.RUnlock()
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeGrace)
	defer cancel()
	if !r.shown.Phase.Over() {
		_ = r.stage.Finish(bounded, stage.Restart, backIn) // fails if it fell before, which the keeper has logged
	}
	select {
	case <-r.fallen:
	case <-bounded.Done():
	}
	r.run()
	r.wg.Wait()
	ev := r.view().Event
	if err := r.house.store.PutCount(bounded, ev.ID, r.audience.Count()); err != nil {
		r.house.log.Warn("keep the count", "event", ev.Slug, "err", err)
	}
	if err := r.lease.Release(bounded); err != nil {
		r.house.log.Warn("release the stage", "event", ev.Slug, "err", err)
	}
	r.house.metrics.retire(r)
	r.house.log.Info("stage closed", "event", ev.Slug, "phase", ev.Phase)
}
