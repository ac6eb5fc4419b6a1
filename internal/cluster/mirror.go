package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// follower is what an engine feeds: a mirror of any type.
type follower interface {
	bucket() jetstream.KeyValueConfig         // its name and what is special about it
	begin()                                   // a new watch starts from nothing
	feed(entry jetstream.KeyValueEntry) error // one record or removal, in the order of revisions
	loaded()                                  // all that was stored has been fed
	snapshot() Bucket                         // what it holds
}

// record is one record of a mirror, as it is stored.
type record[T any] struct {
	key      string
	value    T
	revision uint64
	at       time.Time // when this process learnt of it, by its own clock
}

// mirror is a bucket in memory. Only the goroutine that follows the bucket's watch writes it. While a new engine loads, readers
// still see the old state: the new one takes its place whole.
type mirror[T any] struct {
	name     string
	markers  time.Duration // how long removals are remembered; 0: nothing is ever removed
	fleeting time.Duration // how long records are kept, in the server's memory alone; 0: for ever, on its disk

	// Owned by the goroutine that feeds.
	loading map[string]record[T] // nil once loaded
	seen    uint64

	mu       sync.Mutex
	records  map[string]record[T]
	revision uint64        // all up to here is in records
	changed  chan struct{} // closed at the next change
}

func newMirror[T any](name string, markers time.Duration) *mirror[T] {
	return &mirror[T]{name: name, markers: markers, records: map[string]record[T]{}, changed: make(chan struct{})}
}

func (m *mirror[T]) bucket() jetstream.KeyValueConfig {
	c := jetstream.KeyValueConfig{Bucket: m.name, LimitMarkerTTL: m.markers, TTL: m.fleeting, Storage: jetstream.FileStorage}
	if m.fleeting > 0 {
		c.Storage = jetstream.MemoryStorage
	}
	return c
}

func (m *mirror[T]) begin() { m.loading, m.seen = map[string]record[T]{}, 0 }

// feed takes one entry. A record that can't be read is left out, and reported; the rest is unharmed.
func (m *mirror[T]) feed(entry jetstream.KeyValueEntry) error {
	r := record[T]{key: entry.Key(), revision: entry.Revision(), at: time.Now()}
	gone := entry.Operation() != jetstream.KeyValuePut
	var err error
	if !gone {
		err = json.Unmarshal(entry.Value(), &r.value)
	}
	if m.loading != nil {
		m.seen = max(m.seen, r.revision)
		if !gone && err == nil {
			m.loading[r.key] = r
		}
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case gone:
		delete(m.records, r.key)
	case err == nil:
		m.records[r.key] = r
	}
	m.revision = max(m.revision, r.revision)
	close(m.changed)
	m.changed = make(chan struct{})
	return err
}

func (m *mirror[T]) loaded() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.records, m.revision, m.loading = m.loading, max(m.revision, m.seen), nil
	close(m.changed)
	m.changed = make(chan struct{})
}

// await returns when the mirror holds revision rev.
func (m *mirror[T]) await(ctx, life context.Context, rev uint64) error {
	return m.until(ctx, life, func() bool { return m.revision >= rev })
}

// awaitNewer returns when the record under key has another revision than rev, or is gone.
func (m *mirror[T]) awaitNewer(ctx, life context.Context, key string, rev uint64) error {
	return m.until(ctx, life, func() bool { return m.records[key].revision != rev })
}

func (m *mirror[T]) until(ctx, life context.Context, holds func() bool) error {
	for {
		m.mu.Lock()
		ok, changed := holds(), m.changed
		m.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-life.Done():
			return errClosed
		}
	}
}

func (m *mirror[T]) get(key string) (record[T], bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.records[key]
	return r, ok
}

// all gives a snapshot, by revision.
func (m *mirror[T]) all() []record[T] {
	list, _ := m.watch()
	return list
}

// where gives the records that keep says yes to, by revision. keep is called under the lock: it only looks at the value.
func (m *mirror[T]) where(keep func(T) bool) []record[T] {
	m.mu.Lock()
	var list []record[T]
	for _, r := range m.records {
		if keep(r.value) {
			list = append(list, r)
		}
	}
	m.mu.Unlock()
	byRevision(list)
	return list
}

func byRevision[T any](list []record[T]) {
	slices.SortFunc(list, func(a, b record[T]) int { return cmp.Compare(a.revision, b.revision) })
}

// watch is all, and a channel that is closed at the first change after it.
func (m *mirror[T]) watch() ([]record[T], <-chan struct{}) {
	m.mu.Lock()
	list, changed := make([]record[T], 0, len(m.records)), m.changed
	for _, r := range m.records {
		list = append(list, r)
	}
	m.mu.Unlock()
	byRevision(list)
	return list, changed
}
