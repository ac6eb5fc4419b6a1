package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
)

// Bucket is one bucket of the store at one moment.
type Bucket struct {
	Name     string
	Revision uint64 // the highest there was; whatever is written later goes on above it
	Records  iter.Seq2[string, json.RawMessage]
}

// fleetingBuckets say something about this moment, and nothing to whoever comes back from a backup. Of leases the revision is kept: it is
// the epoch, and epochs rise for ever.
var fleetingBuckets = map[string]bool{lastBucket: true, "nodes": true}

const sessionsBucket = "sessions"

// Snapshot gives what must survive: all buckets, each record as of one revision, in the order of their last changes. Sessions of browsers
// only where they are asked for. It reads memory alone, so it can also be had from a store that cannot write.
func (c *Cluster) Snapshot(sessions bool) []Bucket {
	var list []Bucket
	for _, m := range slices.Backward(c.mirrors()) { // events last: so there is no record of one that is not there
		b := m.snapshot()
		if fleetingBuckets[b.Name] || b.Name == sessionsBucket && !sessions {
			b.Records = func(func(string, json.RawMessage) bool) {}
		}
		if b.Name != "nodes" {
			list = append(list, b)
		}
	}
	return list
}

// snapshot gives what the mirror holds. The values are encoded as they are asked for.
func (m *mirror[T]) snapshot() Bucket {
	m.mu.Lock()
	revision := m.revision
	list := make([]record[T], 0, len(m.records))
	for _, r := range m.records {
		list = append(list, r)
	}
	m.mu.Unlock()
	byRevision(list)
	return Bucket{Name: m.name, Revision: revision, Records: func(yield func(string, json.RawMessage) bool) {
		for _, r := range list {
			body, err := json.Marshal(r.value)
			if err != nil { // it was read from JSON
				panic(fmt.Sprintf("encode %s %q: %v", m.name, r.key, err))
			}
			if !yield(r.key, body) {
				return
			}
		}
	}}
}

// Rebuilding is a data folder that comes back from a backup. What is put into it lies in a folder inside of it, which no server takes for
// its data; [Rebuilding.Commit] puts that in place, once all of it is on disk. So a folder that was mounted, or belongs to a service's user,
// stays what it is.
//
// Commit point: the removal of the inner folder, after everything in it was moved out. A crash before it leaves a folder that every start
// refuses, with the word to empty it and to restore again.
type Rebuilding struct {
	folder  *folder
	made    bool // the folder did not exist before
	inner   string
	cluster *Cluster
}

// Rebuild begins in a folder that is empty or not there; any other is refused. It stays locked until Commit or Abandon.
func Rebuild(ctx context.Context, dir, version string, log *slog.Logger) (_ *Rebuilding, err error) {
	_, err = os.Lstat(dir)
	made := errors.Is(err, fs.ErrNotExist)
	f, err := claim(dir)
	if err != nil {
		return nil, fmt.Errorf("restore into %q: %w", dir, err)
	}
	r := &Rebuilding{folder: f, made: made, inner: filepath.Join(f.path, restoreMark)}
	if err := r.empty(); err != nil {
		f.release()
		return nil, fmt.Errorf("restore into %q: %w", dir, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("restore into %q: %w", dir, plain(err)), r.Abandon(ctx))
		}
	}()
	if err := f.prove(); err != nil {
		return nil, err
	}
	if err := os.Mkdir(r.inner, 0o700); err != nil {
		return nil, err
	}
	r.cluster, err = Open(ctx, Config{Dir: r.inner, Version: version, Log: log, lazy: true})
	return r, err
}

// empty refuses a folder with anything in it but its lock, and what a file system puts into its root.
func (r *Rebuilding) empty() error {
	list, err := os.ReadDir(r.folder.path)
	if err != nil {
		return err
	}
	for _, e := range list {
		switch e.Name() {
		case "lock", "lost+found":
		case restoreMark:
			return errors.New("an earlier restore into it did not get to its end; empty the folder and try again")
		default:
			return fmt.Errorf("it is not empty (there is %q in it); name another folder, or move this one away", e.Name())
		}
	}
	return nil
}

// Path is where everything else than the store's records is to be put.
func (r *Rebuilding) Path() string { return r.inner }

// Raise makes a bucket's revisions go on above one. It comes before the bucket's records. A bucket that this program does not know is
// refused.
func (r *Rebuilding) Raise(ctx context.Context, bucket string, revision uint64) error {
	eng, err := r.cluster.working()
	if err != nil {
		return err
	}
	if _, known := eng.buckets[bucket]; !known {
		return fmt.Errorf("restore bucket %s: this version of Earshot keeps nothing of that kind", bucket)
	}
	stream, err := eng.js.Stream(ctx, "KV_"+bucket)
	if err == nil {
		err = stream.Purge(ctx, jetstream.WithPurgeSequence(revision+1))
	}
	if err != nil {
		return fmt.Errorf("restore bucket %s: %w", bucket, plain(err))
	}
	return nil
}

// Put stores one record.
func (r *Rebuilding) Put(ctx context.Context, bucket, key string, value json.RawMessage) error {
	eng, err := r.cluster.working()
	if err != nil {
		return err
	}
	if _, known := eng.buckets[bucket]; !known || !plainKey(key) || len(value) > maxValue {
		return fmt.Errorf("restore %s %q: it cannot be stored", bucket, key)
	}
	if _, err = eng.write(ctx, bucket, put, key, value, 0); err != nil {
		return fmt.Errorf("restore %s %q: %w", bucket, key, plain(err))
	}
	return nil
}

// Commit puts the folder in place: everything in it on disk, then everything to where it belongs. format is that of what was put into it;
// the first start brings an older one up.
func (r *Rebuilding) Commit(ctx context.Context, format int, by string) error {
	fail := func(err error) error {
		return errors.Join(fmt.Errorf("restore into %q: %w", r.folder.path, plain(err)), r.Abandon(ctx))
	}
	if err := r.cluster.Close(ctx); err != nil {
		return fail(err)
	}
	r.cluster = nil
	inner := &folder{path: r.inner}
	if err := inner.stamp(format, by); err != nil {
		return fail(err)
	}
	if err := os.Remove(filepath.Join(r.inner, "lock")); err != nil {
		return fail(err)
	}
	if err := giveTo(r.folder.path, r.inner, filepath.Join(r.folder.path, "lock")); err != nil {
		return fail(err)
	}
	if err := syncAll(r.inner); err != nil {
		return fail(err)
	}
	list, err := os.ReadDir(r.inner)
	if err != nil {
		return fail(err)
	}
	for _, e := range list { // from here on a failure leaves the mark, and with it the word what to do
		if err = os.Rename(filepath.Join(r.inner, e.Name()), filepath.Join(r.folder.path, e.Name())); err != nil {
			break
		}
	}
	if err == nil {
		err = syncFolder(r.folder.path)
	}
	if err == nil {
		err = os.Remove(r.inner)
	}
	if err == nil {
		err = syncFolder(r.folder.path)
	}
	r.folder.release()
	if err != nil {
		return fmt.Errorf("restore into %q: %w", r.folder.path, plain(err))
	}
	return nil
}

// Abandon leaves the folder as it was.
func (r *Rebuilding) Abandon(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeLimit) // whoever gave up wants it gone all the same
	defer cancel()
	var err error
	if r.cluster != nil {
		err = r.cluster.Close(ctx)
	}
	err = errors.Join(err, os.RemoveAll(r.inner))
	if r.made {
		err = errors.Join(err, os.Remove(filepath.Join(r.folder.path, "lock")), os.Remove(r.folder.path))
	}
	r.folder.release()
	return err
}

// syncAll syncs every file and folder from path down.
func syncAll(path string) error {
	return filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return syncFolder(name)
		case !d.Type().IsRegular():
			return nil
		}
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}
