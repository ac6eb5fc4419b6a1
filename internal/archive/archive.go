// Package archive keeps what was said: each segment of two seconds, with its cues, as one immutable blob, and the replay that
// is made of them after the end.
//
// A segment is stored once and never changed: number n of an event is events/{event}/{n, ten digits}.m4s, written only if
// absent. So two writers can't harm each other, a write that failed may be tried again whatever became of it, and every reader
// may cache. The commit point is the sync of the folder after the rename: before it a segment was not stored, after it no crash
// takes it away. A crash leaves at most a temporary file beside the segments, which no reader looks at.
//
// What is written is what listeners had: the archive is one more reader of the timeline, which remembers a minute. A store that
// fails for less than that loses nothing.
package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

	"earshot/internal/event"
)

// maxSegment bounds what is read back, in bytes: a segment has about 10 KB of audio, and cues of 50 people fit many times.
const maxSegment = 4 << 20

// Archive stores segments and makes replays. All methods may be called from any goroutine.
type Archive struct {
	shelf   Shelf
	log     *slog.Logger
	stored  prometheus.Counter
	lost    map[string]prometheus.Counter // by reason; fixed
	failed  map[string]prometheus.Counter // by cause; fixed
	skipped map[string]prometheus.Counter // by reason; fixed

	loads singleflight.Group // one reading of a recording at a time, however many ask

	mu      sync.Mutex
	replays map[string]*cached // complete ones, by event
	age     uint64             // of the last use of any
	writes  map[string]uint64  // events written to since the start: how often, so that a replay read meanwhile isn't kept
}

// Open keeps the archive in the folder dir/events of this machine.
func Open(_ context.Context, dir string, log *slog.Logger, reg prometheus.Registerer) (*Archive, error) {
	shelf, err := Folder(dir)
	if err != nil {
		return nil, fmt.Errorf("open archive %q: %w", dir, err)
	}
	return New(shelf, log, reg), nil
}

// New keeps the archive on any shelf.
func New(shelf Shelf, log *slog.Logger, reg prometheus.Registerer) *Archive {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	a := &Archive{shelf: shelf, log: log, replays: map[string]*cached{}, writes: map[string]uint64{}}
	a.stored = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "earshot_archive_segments_stored_total", Help: "Segments of two seconds that are on disk.",
	})
	lost, all := counters("earshot_archive_segments_lost_total", "reason",
		"Segments that were never stored: overrun = the store failed for longer than the timeline remembers; "+
			"stopped = the program ended while the store failed.", "overrun", "stopped")
	failed, more := counters("earshot_archive_write_failures_total", "cause",
		"Writes that failed and were tried again.", "full", "read_only", "other")
	skipped, rest := counters("earshot_archive_segments_skipped_total", "reason",
		"Stored segments that a replay had to leave out: corrupt = not what was written; unreadable = the store gave an error; "+
			"missing = gone.", "corrupt", "unreadable", "missing")
	a.lost, a.failed, a.skipped = lost, failed, skipped
	if reg != nil {
		reg.MustRegister(a.stored, all, more, rest)
	}
	return a
}

// counters makes a counter per value of a label, each at zero from the start.
func counters(name, label, help string, values ...string) (map[string]prometheus.Counter, prometheus.Collector) {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	m := map[string]prometheus.Counter{}
	for _, v := range values {
		m[v] = vec.WithLabelValues(v)
	}
	return m, vec
}

// Close ends the archive. Whoever records or replays is to be ended first, by their contexts.
func (a *Archive) Close() error {
	if err := a.shelf.Close(); err != nil {
		return fmt.Errorf("close archive: %w", err)
	}
	return nil
}

// Put stores a segment if there is none of its number; one that is there is kept. When it returns nil, the segment is on disk.
func (a *Archive) Put(ctx context.Context, eventID string, number uint64, data []byte) error {
	if !plainName(eventID) {
		return event.Invalid("", fmt.Sprintf("An event %q cannot be recorded.", eventID))
	}
	err := a.shelf.Put(ctx, key(eventID, number), data)
	a.mu.Lock()
	a.writes[eventID]++ // also when it failed: it may be stored all the same
	delete(a.replays, eventID)
	a.mu.Unlock()
	if err != nil {
		cause := causeOf(err)
		a.failed[cause].Inc()
		return event.Unavailable(words[cause], fmt.Errorf("store segment %d of %q: %w", number, eventID, err))
	}
	a.stored.Inc()
	return nil
}

var words = map[string]string{
	"full":      "The recording cannot be stored at the moment: the server's disk is full.",
	"read_only": "The recording cannot be stored at the moment: the server's disk is read-only.",
	"other":     "The recording cannot be stored at the moment.",
}

func causeOf(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return "full"
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return "read_only"
	}
	return "other"
}

// Segment gives a stored segment: CMAF chunks, with emsg boxes for the cues. A missing one is an *event.Error NotFound.
func (a *Archive) Segment(ctx context.Context, eventID string, n uint64) ([]byte, error) {
	if !plainName(eventID) {
		return nil, errNoSegment
	}
	data, err := a.shelf.Get(ctx, key(eventID, n))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errNoSegment
	case err != nil:
		return nil, event.Unavailable("This part of the recording cannot be read at the moment.",
			fmt.Errorf("read segment %d of %q: %w", n, eventID, err))
	}
	return data, nil
}

var errNoSegment = event.NotFound("There is no such part of a recording.")

// LastSegment gives the highest number stored; ok is false if there is none.
func (a *Archive) LastSegment(ctx context.Context, eventID string) (n uint64, ok bool, err error) {
	list, err := a.Numbers(ctx, eventID)
	if err != nil || len(list) == 0 {
		return 0, false, err
	}
	return list[len(list)-1], true, nil
}

// Numbers gives the numbers of an event's stored segments, ascending. All of them are whole: a segment has its name only once it is.
func (a *Archive) Numbers(ctx context.Context, eventID string) ([]uint64, error) {
	if !plainName(eventID) {
		return nil, nil
	}
	keys, err := a.shelf.Keys(ctx, folderOf(eventID))
	if err != nil {
		return nil, event.Unavailable("The recording cannot be read at the moment.",
			fmt.Errorf("list segments of %q: %w", eventID, err))
	}
	list := make([]uint64, 0, len(keys))
	for _, k := range keys {
		// Names of another shape are temporary files of a crash, or somebody's notes.
		digits, ok := strings.CutSuffix(strings.TrimPrefix(k, folderOf(eventID)), ".m4s")
		n, err := strconv.ParseUint(digits, 10, 64)
		if ok && err == nil && key(eventID, n) == k {
			list = append(list, n)
		}
	}
	return list, nil
}

func folderOf(eventID string) string { return "events/" + eventID + "/" }

// key has ten digits, so that names sort as numbers do for 600 years.
func key(eventID string, n uint64) string { return fmt.Sprintf("%s%010d.m4s", folderOf(eventID), n) }

// plainName says whether an event's ID is a file name that needs no escaping anywhere.
func plainName(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}
