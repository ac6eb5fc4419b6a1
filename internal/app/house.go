package app

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"earshot/internal/archive"
	"earshot/internal/cluster"
	"earshot/internal/event"
	"earshot/internal/web"
)

// House keeps the events of this node. Each event that is not over has one keeper: the goroutine that turns its phases, in
// the store first and on the stage after, and that opens and closes its room. What a keeper does at a start, after a crash and
// at a takeover is the same: read the event, and make what runs match it.
type House struct {
	store   *cluster.Cluster
	archive *archive.Archive
	log     *slog.Logger
	now     func() time.Time

	// What this node does for an event. A node that shares its store opens an event's stage if no other node has it, and else, if
	// edges, a room that is fed by the relay. Fixed before Start.
	stages, edges bool

	stopping chan struct{}  // closed by Close
	wg       sync.WaitGroup // the keepers, the watch and the demo's voices

	mu      sync.RWMutex
	keepers map[string]*keeper // by slug
	backIn  time.Duration      // set before stopping is closed: what rooms tell their listeners

	metrics stageTotals
	demo    *demoEvent // set before Run serves, or nil
}

func newHouse(store *cluster.Cluster, arch *archive.Archive, log *slog.Logger) *House {
	return &House{store: store, archive: arch, log: log, now: time.Now, stages: true, stopping: make(chan struct{}), keepers: make(map[string]*keeper)}
}

// Start gives every stored event its keeper and follows the store from there. It returns once the rooms of events that are
// open stand, so that a node that says it is ready has them.
func (h *House) Start(ctx context.Context) error {
	events, err := h.store.Events(ctx)
	if err != nil {
		return err
	}
	for _, ev := range events {
		if k := h.keep(ev); k != nil {
			select {
			case <-k.settled:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	h.goUntilStop(func(ctx context.Context) {
		for ev := range h.store.WatchEvents(ctx) {
			h.keep(ev)
		}
	})
	return nil
}

// goUntilStop runs f with a context that ends when the house closes; Close waits for it.
func (h *House) goUntilStop(f func(ctx context.Context)) {
	h.wg.Go(func() {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go func() {
			select {
			case <-h.stopping:
				cancel()
			case <-ctx.Done():
			}
		}()
		f(ctx)
	})
}

// keep hands ev to its keeper, and makes one if the event needs it.
func (h *House) keep(ev event.Event) *keeper {
	h.mu.Lock()
	defer h.mu.Unlock()
	if k := h.keepers[ev.Slug]; k != nil {
		k.update(ev)
		return k
	}
	if ev.Phase.Over() || h.closed() {
		return nil
	}
	k := newKeeper(h, ev)
	h.keepers[ev.Slug] = k
	h.goUntilStop(func(ctx context.Context) {
		k.run(ctx)
		h.mu.Lock()
		delete(h.keepers, ev.Slug)
		h.mu.Unlock()
	})
	return k
}

func (h *House) closed() bool {
	select {
	case <-h.stopping:
		return true
	default:
		return false
	}
}

func (h *House) keeper(slug string) *keeper {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.keepers[slug]
}

// Room gives an event's room while it is open on this node.
func (h *House) Room(slug string) (web.Room, bool) {
	k := h.keeper(slug)
	if k == nil {
		return web.Room{}, false
	}
	r := k.room.Load()
	if r == nil {
		return web.Room{}, false
	}
	v := r.view()
	return v, v.Timeline != nil
}

// rooms lists the open ones.
func (h *House) rooms() []*room {
	h.mu.RLock()
	defer h.mu.RUnlock()
	rooms := make([]*room, 0, len(h.keepers))
	for _, k := range h.keepers {
		if r := k.room.Load(); r != nil {
			rooms = append(rooms, r)
		}
	}
	return rooms
}

// Turn puts an event into another phase. When it returns, the store has it on disk and the stage, if there is one, shows it.
func (h *House) Turn(ctx context.Context, slug string, to event.Phase) (event.Event, error) {
	if !h.stages {
		return event.Event{}, web.Elsewhere(h.stageOf(ctx, slug))
	}
	k := h.keeper(slug)
	if k == nil { // over, or created a moment ago and the watch has not told yet
		ev, err := h.store.Event(ctx, slug)
		if err != nil {
			return event.Event{}, err
		}
		if err := ev.Phase.Turn(to); err != nil {
			return event.Event{}, err
		}
		if k = h.keep(ev); k == nil {
			return event.Event{}, errRestarting
		}
	}
	t := turn{to: to, done: make(chan turned, 1)}
	select {
	case k.turns <- t:
	case <-k.left: // the event is over by now, or the house closes
		if ev, err := h.store.Event(ctx, slug); err == nil {
			if err := ev.Phase.Turn(to); err != nil {
				return event.Event{}, err
			}
		}
		return event.Event{}, errRestarting
	case <-ctx.Done():
		return event.Event{}, ctx.Err()
	}
	select {
	case r := <-t.done:
		return r.event, r.err
	case <-ctx.Done():
		return event.Event{}, ctx.Err()
	}
}

// stageOf is where people reach the node that has an event's stage, if that is known.
func (h *House) stageOf(ctx context.Context, slug string) string {
	ev, err := h.store.Event(ctx, slug)
	if err != nil {
		return ""
	}
	return h.store.StageAddress(ev.ID)
}

var errRestarting = event.Unavailable("The server is restarting. Try again in a moment.", nil)

// Close ends all rooms in order: listeners are told to come back in backIn, segments are closed and stored.
func (h *House) Close(ctx context.Context, backIn time.Duration) error {
	h.mu.Lock()
	h.backIn = backIn
	if !h.closed() {
		close(h.stopping)
	}
	h.mu.Unlock()
	done := make(chan struct{})
	go func() { h.wg.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close the house: rooms did not end in time: %w", ctx.Err())
	}
}
