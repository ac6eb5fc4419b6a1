package app

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"earshot/internal/archive"
	"earshot/internal/cluster"
	"earshot/internal/event"
	"earshot/internal/stage"
	"earshot/internal/timeline"
)

// lines counts what is logged as an error.
type lines struct {
	slog.Handler
	errors *atomic.Int64
}

func (l lines) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		l.errors.Add(1)
	}
	return nil
}

func (l lines) Enabled(context.Context, slog.Level) bool { return true }

func (l lines) WithAttrs([]slog.Attr) slog.Handler { return l }

// testHouse is a house on a store of its own.
func testHouse(t *testing.T) (h *House, store *cluster.Cluster, errors *atomic.Int64) {
	t.Helper()
	dir := t.TempDir()
	store, err := cluster.Open(t.Context(), cluster.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	arch, err := archive.Open(t.Context(), dir, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	errors = new(atomic.Int64)
	h = newHouse(store, arch, slog.New(lines{slog.DiscardHandler, errors}))
	t.Cleanup(func() {
		ctx := context.Background()
		if err := h.Close(ctx, time.Second); err != nil {
			t.Error(err)
		}
		if err := store.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := arch.Close(); err != nil {
			t.Error(err)
		}
	})
	return h, store, errors
}

// A phase that is due while nothing can be stored is tried again, but neither the store nor the log is stormed.
func TestTurnsThatFailWait(t *testing.T) {
	h, store, errors := testHouse(t)
	ev := event.Event{
		ID: "ev_1", Slug: "due", Title: "Due", Start: time.Now().Add(event.DoorsBefore + time.Second), Zone: "UTC",
		IdleEnd: event.MaxIdleEnd, Phase: event.Scheduled,
	}
	if _, err := store.CreateEvent(t.Context(), ev); err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(t.Context()); err != nil { // as a disk that refuses: every write is Unavailable
		t.Fatal(err)
	}
	for began := time.Now(); errors.Load() == 0; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 30*time.Second {
			t.Fatal("the doors were due, and nothing was tried")
		}
	}
	first := time.Now()
	for errors.Load() < 2 {
		if time.Since(first) > 30*time.Second {
			t.Fatal("it was not tried again")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if took := time.Since(first); took < retryAfter/2 {
		t.Errorf("tried again after %v, want %v", took, retryAfter)
	}
}

// A room never begins on frames that this process made already, whatever the clock says.
func TestRoomsFollowEachOther(t *testing.T) {
	h, _, _ := testHouse(t)
	ev := event.Event{ID: "ev_1", Slug: "again", Phase: event.Doors, Origin: time.Now(), Start: time.Now(), IdleEnd: event.MaxIdleEnd}
	for _, c := range []struct{ after, first uint64 }{{3*timeline.FramesPerSegment + 1, 4 * timeline.FramesPerSegment}, {40_000, 40_000}} {
		r, err := h.openRoom(t.Context(), ev, c.after, func() {})
		if err != nil {
			t.Fatal(err)
		}
		if got := r.timeline.First(); got != c.first {
			t.Errorf("after %d: the room begins with frame %d, want %d", c.after, got, c.first)
		}
		r.close(t.Context())
	}
}

// A room whose counters went into the totals while somebody collects is not counted twice.
func TestTotalsCountARoomOnce(t *testing.T) {
	h, _, _ := testHouse(t)
	ev := event.Event{ID: "ev_1", Slug: "once", Phase: event.Doors, Origin: time.Now(), Start: time.Now(), IdleEnd: event.MaxIdleEnd}
	r, err := h.openRoom(t.Context(), ev, 0, func() {})
	if err != nil {
		t.Fatal(err)
	}
	rooms, stats := []*room{r}, []stage.Stats{{Frames: 7}} // as they were when it was open
	if got := h.metrics.sum(rooms, stats)[0]; got != 7 {
		t.Errorf("open: %v frames, want 7", got)
	}
	r.close(t.Context())
	if got, want := h.metrics.sum(rooms, stats)[0], float64(r.stage.Stats().Frames); got != want {
		t.Errorf("closed: %v frames, want %v", got, want)
	}
}
