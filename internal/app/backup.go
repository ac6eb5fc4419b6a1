package app

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"earshot/internal/archive"
	"earshot/internal/backup"
	"earshot/internal/cluster"
	"earshot/internal/event"
)

// backup writes all that must survive, as of now: the records first, from one look at each bucket, then each recording up to the last
// segment that was whole when the backup began. The event goes on meanwhile.
func (a *App) backup(ctx context.Context, sessions bool, to io.Writer) error {
	about := backup.About{Format: cluster.Format, By: a.cfg.Version, Made: time.Now(), Buckets: map[string]uint64{}, LeftOut: []string{"leases"}}
	if !sessions {
		about.LeftOut = append(about.LeftOut, "sessions of browsers")
	}
	if len(a.cfg.Domains) > 0 {
		about.LeftOut = append(about.LeftOut, "certificates, which are got anew")
	}
	buckets := a.cluster.Snapshot(sessions)
	for _, b := range buckets {
		about.Buckets[b.Name] = b.Revision
	}
	recordings, err := a.recordings(ctx)
	if err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	if a.archive == nil {
		about.LeftOut = append(about.LeftOut, "recordings, which lie with the nodes that have stages")
	}
	for _, r := range recordings {
		about.Segments += len(r.numbers)
	}
	w, err := backup.NewWriter(to, about)
	if err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	for _, b := range buckets {
		for key, value := range b.Records {
			if err := w.Record(b.Name, key, value); err != nil {
				return fmt.Errorf("back up: %w", err)
			}
		}
	}
	if err := w.OperatorKey(a.operatorKey); err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	for _, r := range recordings {
		if err := a.backupRecording(ctx, w, r); err != nil {
			return fmt.Errorf("back up: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	return nil
}

// recording is what there is of an event's.
type recording struct {
	event   string
	numbers []uint64
}

// recordings lists the segments of all events, in the order of a backup.
func (a *App) recordings(ctx context.Context) ([]recording, error) {
	if a.archive == nil {
		return nil, nil
	}
	events, err := a.cluster.Events(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]recording, 0, len(events))
	for _, e := range events {
		numbers, err := a.archive.Numbers(ctx, e.ID)
		if err != nil {
			return nil, err
		}
		if len(numbers) > 0 {
			list = append(list, recording{e.ID, numbers})
		}
	}
	slices.SortFunc(list, func(a, b recording) int { return cmp.Compare(a.event, b.event) })
	return list, nil
}

func (a *App) backupRecording(ctx context.Context, w *backup.Writer, r recording) error {
	for _, n := range r.numbers {
		if err := ctx.Err(); err != nil {
			return err
		}
		s := backup.Segment{Event: r.event, Number: n}
		data, err := a.archive.Segment(ctx, r.event, n)
		switch {
		case event.CodeOf(err) == event.CodeNotFound: // deleted meanwhile, on purpose
			continue
		case err != nil, len(data) == 0:
			a.log.Error("a part of a recording cannot be read and is missing in the backup", "event", r.event, "segment", n, "cause", err)
			w.Missing(s)
			continue
		}
		if err := w.Segment(s, data); err != nil {
			return err
		}
	}
	return nil
}

// Restore makes the data folder dir of a backup: all of it, or, when it fails, nothing. dir must be empty, or not there. version is this
// program's. also is told what was restored, piece by piece, for whoever watches; it may be nil.
func Restore(ctx context.Context, from io.Reader, dir, version string, log *slog.Logger, also backup.Sink) (backup.Summary, error) {
	into, err := cluster.Rebuild(ctx, dir, version, log)
	if err != nil {
		return backup.Summary{}, err
	}
	r := &restore{ctx: ctx, into: into, also: also}
	if r.archive, err = archive.Open(ctx, into.Path(), log, nil); err != nil {
		return backup.Summary{}, r.abandon(dir, err)
	}
	sum, err := backup.Read(from, r)
	if err != nil {
		return sum, r.abandon(dir, err)
	}
	if err := r.archive.Close(); err != nil {
		return sum, r.abandon(dir, err)
	}
	return sum, into.Commit(ctx, sum.Format, version)
}

// restore is where a backup's contents go.
type restore struct {
	ctx     context.Context // of the one call of Restore
	into    *cluster.Rebuilding
	archive *archive.Archive
	also    backup.Sink
}

func (r *restore) abandon(dir string, cause error) error {
	if r.archive != nil {
		_ = r.archive.Close() // what was written goes away
	}
	err := fmt.Errorf("restore into %q, which stays empty: %w", dir, cause)
	if left := r.into.Abandon(r.ctx); left != nil {
		err = fmt.Errorf("restore into %q: %w; and what was written there could not be removed (%w): empty the folder before you try again", dir, cause, left)
	}
	return err
}

func (r *restore) About(a backup.About) error {
	if a.Format > cluster.Format {
		return fmt.Errorf("%w (its data is of format version %d, made by Earshot %q; this one knows %d)", backup.ErrNewer, a.Format, a.By, cluster.Format)
	}
	for bucket, revision := range a.Buckets {
		if err := r.into.Raise(r.ctx, bucket, revision); err != nil {
			return err
		}
	}
	if r.also == nil {
		return nil
	}
	return r.also.About(a)
}

func (r *restore) Record(bucket, key string, value json.RawMessage) error {
	if err := r.into.Put(r.ctx, bucket, key, value); err != nil || r.also == nil {
		return err
	}
	return r.also.Record(bucket, key, value)
}

func (r *restore) OperatorKey(key string) error {
	return cluster.WriteFile(filepath.Join(r.into.Path(), "operator.key"), []byte(key+"\n"))
}

func (r *restore) Segment(s backup.Segment, data []byte) error {
	if err := r.archive.Put(r.ctx, s.Event, s.Number, data); err != nil || r.also == nil {
		return err
	}
	return r.also.Segment(s, data)
}
