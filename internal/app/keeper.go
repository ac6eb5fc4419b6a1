package app

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"earshot/internal/cluster"
	"earshot/internal/event"
)

// retryAfter is the pause after what went wrong (a room that did not open or fell, a phase that could not be stored) before it is
// tried again: what fails at once would else fail thousands of times a second.
const retryAfter = time.Second

// lingerAfterEnd keeps the closed timeline of an ended event readable, so that players that fetch files see the end of the
// playlist before the replay takes its address.
const lingerAfterEnd = 6 * time.Second

// keeper owns one event on this node. Everything that happens to the event is a case of the one select in run.
type keeper struct {
	house *House
	log   *slog.Logger

	updates chan event.Event // capacity 1, the newest wins: only the latest state matters
	turns   chan turn        // unbuffered: who asks waits
	idle    chan struct{}    // capacity 1: the stage's word that nobody is there
	settled chan struct{}    // closed once run first made what runs match the event
	left    chan struct{}    // closed when run returns

	room atomic.Pointer[room] // nil while no room is open; written by run alone

	// owned by run
	event event.Event
	empty bool   // the stage said that nobody was there for too long, and nobody has come since
	pause bool   // something went wrong: nothing is tried by itself until retryAfter has passed
	made  uint64 // frames of rooms that were closed lie before this one
}

type turn struct {
	to   event.Phase
	done chan turned // capacity 1
}

type turned struct {
	event event.Event
	err   error
}

func newKeeper(h *House, ev event.Event) *keeper {
	return &keeper{
		house: h, log: h.log.With("event", ev.Slug), event: ev,
		updates: make(chan event.Event, 1), turns: make(chan turn), idle: make(chan struct{}, 1),
		settled: make(chan struct{}), left: make(chan struct{}),
	}
}

// update tells the keeper the event's newest state. Called under House.mu, so there is one sender at a time.
func (k *keeper) update(ev event.Event) {
	for {
		select {
		case k.updates <- ev:
			return
		default:
		}
		select {
		case <-k.updates:
		default:
		}
	}
}

func (k *keeper) run(ctx context.Context) {
	defer close(k.left)
	for first := true; ; first = false {
		k.reconcile(ctx)
		if first {
			close(k.settled)
		}
		if k.event.Phase.Over() || ctx.Err() != nil {
			break
		}
		var fallen, lost <-chan struct{}
		if r := k.room.Load(); r != nil && r.stage != nil {
			fallen, lost = r.fallen, r.lease.Lost()
		}
		wait, _ := k.next()
		if k.pause {
			wait = retryAfter
		} else if k.waits() {
			wait = min(wait, retryAfter)
		}
		timer := time.NewTimer(wait)
		select {
		case ev := <-k.updates:
			if ev.Revision > k.event.Revision {
				k.event = ev
			}
		case t := <-k.turns:
			err := k.turn(ctx, t.to)
			if err == nil {
				k.reconcile(ctx)
			}
			t.done <- turned{k.event, err}
		case <-timer.C:
			k.pause = false
			if wait, to := k.next(); wait == 0 {
				k.turnByItself(ctx, to)
			}
		case <-k.idle:
			k.empty = true
		case <-fallen:
			k.log.Error("stage fell; opening it again", "err", k.room.Load().err)
			k.closeRoom(ctx)
			k.pause = true
		case <-lost:
			k.log.Warn("another node took the stage")
			k.closeRoom(ctx)
			k.pause = !k.house.edges // else its frames are waited for at once
		case <-ctx.Done():
		}
		timer.Stop()
	}
	if r := k.room.Load(); r != nil {
		if r.stage == nil {
			r.awaitEnd(ctx)
		}
		k.linger(ctx)
	}
	k.closeRoom(ctx)
}

// waits says whether another node has the stage that this one would take.
func (k *keeper) waits() bool {
	r := k.room.Load()
	return k.house.stages && k.event.Phase.Open() && (r == nil || r.stage == nil)
}

// linger waits for lingerAfterEnd and refuses turns meanwhile.
func (k *keeper) linger(ctx context.Context) {
	timer := time.NewTimer(lingerAfterEnd)
	defer timer.Stop()
	for {
		select {
		case t := <-k.turns:
			t.done <- turned{k.event, k.event.Phase.Turn(t.to)} // an event that is over takes no turn
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// next says after how long which phase comes by itself: 0 is now, and never without a phase.
func (k *keeper) next() (time.Duration, event.Phase) {
	const never = time.Hour // look again; clocks are set
	if !k.house.stages {
		return never, ""
	}
	if r := k.room.Load(); k.empty && (r == nil || r.occupied()) {
		k.empty = false // somebody came after all; the stage tells again when they have left
	}
	if k.empty {
		return 0, event.Ended
	}
	for _, to := range []event.Phase{event.Doors, event.Live} {
		if at := k.dueAt(to); !at.IsZero() {
			return max(0, min(never, at.Sub(k.house.now()))), to
		}
	}
	return never, ""
}

func (k *keeper) dueAt(to event.Phase) time.Time {
	switch {
	case to == event.Doors && k.event.Phase == event.Scheduled:
		return k.event.DoorsAt()
	case to == event.Live && k.event.Phase == event.Doors && k.event.AutoLive:
		return k.event.Start
	}
	return time.Time{}
}

func (k *keeper) turnByItself(ctx context.Context, to event.Phase) {
	err := k.turn(ctx, to)
	if err == nil || ctx.Err() != nil {
		return
	}
	k.pause = true
	if event.CodeOf(err) != event.CodeConflict { // that is: somebody was quicker, and the watch is about to say so
		k.log.Error("turn by itself", "to", to, "err", err)
	}
}

// turn stores the next phase. Commit point: the store's acknowledgement. A crash before it leaves the event as it was; after
// it, the next start finds the new phase and makes the stage match.
func (k *keeper) turn(ctx context.Context, to event.Phase) error {
	ev, err := k.house.store.UpdateEvent(ctx, k.event.Slug, func(e *event.Event) error {
		if err := e.Phase.Turn(to); err != nil {
			return err
		}
		now := k.house.now().UTC().Truncate(time.Millisecond)
		switch to {
		case event.Doors:
			e.Origin = now
		case event.Live:
			if e.Origin.IsZero() {
				e.Origin = now
			}
			e.LiveAt = now
		case event.Ended, event.Cancelled:
			e.EndedAt = now
		}
		e.Phase = to
		return nil
	})
	if err != nil {
		return err
	}
	k.event = ev
	k.log.Info("phase", "is", ev.Phase)
	return nil
}

// reconcile makes what runs match the event.
func (k *keeper) reconcile(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	r := k.room.Load()
	if r != nil {
		if err := r.show(ctx, k.event); err != nil && ctx.Err() == nil {
			k.log.Error("show the phase on stage", "phase", k.event.Phase, "err", err)
			k.pause = true
		}
	}
	if !k.event.Phase.Open() || k.pause || r != nil && r.stage != nil {
		return
	}
	if k.house.stages && k.house.store.Free(k.event.ID) {
		k.openStage(ctx)
	}
	if k.house.edges && k.room.Load() == nil {
		k.room.Store(k.house.openEdge(k.event))
	}
}

// openStage opens the room with the stage, in the place of one that was fed by another node's.
func (k *keeper) openStage(ctx context.Context) {
	made := k.made
	if r := k.room.Load(); r != nil {
		made = max(made, r.head())
	}
	r, err := k.house.openRoom(ctx, k.event, made, k.wake)
	switch {
	case err == nil:
		k.closeRoom(ctx)
		k.empty = false
		k.room.Store(r)
	case ctx.Err() != nil:
	case errors.Is(err, cluster.ErrHeld): // another node was quicker
	default:
		k.log.Error("open the stage", "err", err)
		k.pause = true
	}
}

// wake is the stage's call when nobody was there for too long. It never blocks.
func (k *keeper) wake() {
	select {
	case k.idle <- struct{}{}:
	default:
	}
}

func (k *keeper) closeRoom(ctx context.Context) {
	r := k.room.Load()
	if r == nil {
		return
	}
	r.close(ctx)
	k.made = max(k.made, r.head())
	k.room.Store(nil)
}
