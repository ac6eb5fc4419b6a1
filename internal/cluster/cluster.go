// Package cluster is the store of everything that must survive (events, invites, sessions, rolls, counts, secrets and leases) and, where
// several nodes share one, what passes between them. Its engine is NATS JetStream: embedded in this process and listening on no port
// at all, or, joined by its URL, a server elsewhere. Nothing above this package knows which, but for the relay.
//
// # The store
//
// One rule holds it together: what is acknowledged is on disk. A write goes to the engine, which appends it to the bucket's
// block file and syncs that file before it answers (SyncAlways); then the folder of the block files is synced too, because the
// engine does not do so when it begins a new block file, and a synced file in an unsynced folder may be gone after a power
// cut. That folder sync is the commit point. A failure before it is reported as event.Unavailable, and the write may be found
// or not found afterwards; both are legal for what was never acknowledged.
//
// Reads come from memory. A watch per bucket keeps a mirror of it up to date, and a write returns only when the mirror has
// reached its revision, so whoever wrote reads what they wrote.
//
// An engine that failed to write stays broken for good (JetStream refuses every later write, and answers none of them). So the
// cluster watches for that, closes the engine, keeps reading from the mirrors, refuses writes at once, tries the folder until it
// can be written again, and opens a new engine on the same files: the path of every start. Where a sync failed, the block files
// are first written anew: the kernel reports such a failure once and then takes the pages for clean, so that what is read back
// from memory need not be on the disk.
//
// A joined server keeps the same buckets and the same mirrors follow them. What an acknowledgement is worth there is the server's to
// say: its sync_interval, and its replicas. A connection that ends is an engine that broke: reads go on, writes are refused at once,
// and a new engine is started as soon as a server answers.
//
// # Between nodes
//
// The relay carries frames from the node that holds an event's lease ([Publisher]) to those that follow it ([Cluster.Follow]): core NATS
// on one subject per event, and a stream in the server's memory that keeps the last minute of it for who comes late or missed some.
// Reports of how many listen go the other way ([Cluster.Report], [Cluster.Reports]). Leases are held by who shows signs of life
// (lease.go). None of this runs with the engine embedded: there is nobody else.
package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"earshot/internal/event"
)

const (
	writeLimit  = 10 * time.Second // JetStream doesn't answer a write that its disk refused; this ends the wait if nothing else does
	retryFirst  = 200 * time.Millisecond
	retryMost   = 2 * time.Second
	purgeEvery  = 10 * time.Minute
	markerLife  = time.Hour // how long the marker of a deleted session is kept
	maxValue    = 256 << 10 // bytes of one record; a session with a thousand grants has 150 KB
	startupTime = 30 * time.Second
)

// Config says where a node keeps its store.
type Config struct {
	Dir  string       // folder; made if absent, used by one process at a time
	Node string       // this node's stable name; empty: the one kept in Dir, made at the first start
	Log  *slog.Logger // state changes and the engine's warnings
	Join *Join        // the server to join; nil: one is embedded

	// Version is the program's, for people: what makes the folder, or brings it to a newer format, is named there. It may be empty.
	Version string

	lazy bool // writes need not be on disk when they are acknowledged: Rebuild syncs the whole

	Registerer prometheus.Registerer // gets the relay's counters where a server is joined; may be nil
}

// Cluster is a node's store. All methods may be called from any goroutine.
type Cluster struct {
	dir, node string
	where     string // the folder, or the server's address, for people
	run       string // this process among those that the node was and will be
	lazy      bool   // see Config
	join      *Join  // nil: embedded
	log       *slog.Logger
	folder    *folder
	relay     relayCounters

	events   *mirror[event.Event]
	invites  *mirror[event.Invite]
	sessions *mirror[event.Session]
	counts   *mirror[event.Count]
	rolls    *mirror[event.Roll]
	secrets  *mirror[[]byte]
	leases   *mirror[leaseRecord]
	nodes    *mirror[nodeRecord] // nil unless this node may hold leases beside others

	life    context.Context // ends with Close
	end     context.CancelFunc
	workers sync.WaitGroup

	mu     sync.Mutex
	engine *engine       // nil while there is none that works
	cause  error         // why there is none
	closed bool          // no more workers
	turned chan struct{} // closed when engine or cause changes
}

// Open starts the store in cfg.Dir, or joins a server. It fails, before anything has started, with a sentence that names the folder
// or the server and the trouble: not a folder, not writable, full, in use by another process, or of a newer [Format]; not there, or not letting us in. A folder of an older format is
// brought up to this one.
func Open(ctx context.Context, cfg Config) (*Cluster, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	f, err := claim(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open data folder %q: %w", cfg.Dir, err)
	}
	if err := f.prepare(cfg.Version, cfg.Log); err != nil {
		f.release()
		return nil, fmt.Errorf("open data folder %q: %w", cfg.Dir, err)
	}
	c := &Cluster{
		dir: f.path, where: f.path, run: token(4), lazy: cfg.lazy, join: cfg.Join, log: cfg.Log, folder: f,
		events:   newMirror[event.Event]("events", 0),
		invites:  newMirror[event.Invite]("invites", 0),
		sessions: newMirror[event.Session]("sessions", markerLife),
		counts:   newMirror[event.Count]("counts", 0),
		rolls:    newMirror[event.Roll]("rolls", 0),
		secrets:  newMirror[[]byte]("secrets", 0),
		leases:   newMirror[leaseRecord](lastBucket, 0),
		turned:   make(chan struct{}),
	}
	c.life, c.end = context.WithCancel(context.WithoutCancel(ctx))
	err = c.relay.register(cfg.Registerer, cfg.Join != nil)
	if err == nil {
		c.node, err = f.node(cfg.Node)
	}
	if err != nil {
		err = fmt.Errorf("open data folder %q: %w", cfg.Dir, plain(err))
	} else if c.join != nil {
		c.where = c.join.Where()
		if c.join.Stage {
			c.nodes = newMirror[nodeRecord]("nodes", 0)
			c.nodes.fleeting = nodesKept
		}
		if c.engine, err = c.start(ctx); err != nil {
			err = fmt.Errorf("join NATS at %s: %w", c.where, err)
		}
	} else if c.engine, err = c.start(ctx); err != nil {
		err = fmt.Errorf("open data folder %q: %w", cfg.Dir, plain(err))
	}
	if err != nil {
		c.end()
		f.release()
		return nil, err
	}
	c.spawn(c.tend)
	if c.join == nil || c.join.Stage {
		found := c.sessions.all()
		c.spawn(func() { c.purge(found) })
	}
	if c.nodes != nil {
		c.spawn(c.beat)
	}
	return c, nil
}

// spawn runs a worker that Close waits for. It must end with c.life. Nothing is started once Close was called.
func (c *Cluster) spawn(worker func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.workers.Go(worker)
	}
	return !c.closed
}

// Node is this node's stable name.
func (c *Cluster) Node() string { return c.node }

// Ready answers nil if the store can write, else an *event.Error with Code Unavailable.
func (c *Cluster) Ready() error {
	_, err := c.working()
	return err
}

// Close stops the engine and everything that follows it, and gives the folder free. What was acknowledged is on disk already,
// so ctx bounds only the wait.
func (c *Cluster) Close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.end()
	done := make(chan struct{})
	go func() { // ends with the workers, which the end of c.life has told to stop
		defer close(done)
		c.workers.Wait()
		c.folder.release()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close data folder %q: %w", c.dir, ctx.Err())
	}
}

func (c *Cluster) mirrors() []follower {
	all := []follower{c.events, c.invites, c.sessions, c.counts, c.rolls, c.secrets, c.leases}
	if c.nodes != nil {
		all = append(all, c.nodes)
	}
	return all
}

// start opens an engine and waits until every mirror has all that is stored.
func (c *Cluster) start(ctx context.Context) (*engine, error) {
	ctx, cancel := context.WithTimeout(ctx, startupTime)
	defer cancel()
	return startEngine(ctx, c.log, func(ctx context.Context, e *engine) error {
		if c.join != nil {
			return e.join(ctx, c.join)
		}
		return e.embed(c.dir, c.node, c.lazy)
	}, c.mirrors())
}

// working gives the engine, or says in plain words why there is none.
func (c *Cluster) working() (*engine, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil, unavailable(errClosed)
	case c.engine == nil:
		return nil, unavailable(c.cause)
	case c.engine.life.Err() != nil:
		return nil, unavailable(context.Cause(c.engine.life))
	}
	return c.engine, nil
}

var errClosed = errors.New("the store is closed")

func (c *Cluster) set(e *engine, cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.engine, c.cause = e, cause
	close(c.turned)
	c.turned = make(chan struct{})
}

// await gives an engine that works, as soon as there is one.
func (c *Cluster) await(ctx context.Context) (*engine, error) {
	for {
		c.mu.Lock()
		eng, turned := c.engine, c.turned
		c.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case eng != nil && eng.life.Err() == nil:
			return eng, nil
		}
		select {
		case <-turned:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-c.life.Done():
			return nil, errClosed
		}
	}
}

// tend owns the engine: when it breaks, it is closed and, once the folder can be written, replaced by a new one.
func (c *Cluster) tend() {
	c.mu.Lock()
	eng := c.engine
	c.mu.Unlock()
	for eng != nil {
		select {
		case <-c.life.Done():
			c.set(nil, errClosed)
			eng.stop()
			return
		case <-eng.life.Done():
		}
		cause := context.Cause(eng.life)
		c.set(nil, cause)
		c.log.Error("store cannot write; what is stored can still be read", "store", c.where, "cause", cause)
		since := time.Now()
		eng.stop()
		if eng = c.restart(cause); eng != nil {
			c.set(eng, nil)
			c.log.Info("store writes again", "store", c.where, "after", time.Since(since).Round(time.Millisecond))
		}
	}
}

// restart tries until there is a working engine, or until the end.
func (c *Cluster) restart(cause error) *engine {
	renewed := onlyWrite(cause)
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		if c.join != nil {
			// By chance, as many nodes lose the same server at the same moment; and soon, or others take this node for dead.
			wait = min(wait, retryMost/2)
			wait = wait/2 + rand.N(wait)
		}
		timer := time.NewTimer(wait)
		select {
		case <-c.life.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		var err error
		if c.join == nil {
			if err = c.folder.probe(); err == nil && !renewed {
				err = renew(filepath.Join(c.dir, "nats"))
				renewed = err == nil
			}
		}
		if err == nil {
			var eng *engine
			if eng, err = c.start(c.life); err == nil {
				return eng
			}
		}
		c.set(nil, err)
	}
}

// purge takes expired sessions out of the store: of those found at the start at once, and then now and then.
func (c *Cluster) purge(found []record[event.Session]) {
	tick := time.NewTicker(purgeEvery)
	defer tick.Stop()
	for ; ; found = c.sessions.all() {
		now := time.Now()
		for _, r := range found {
			if now.Before(r.value.Expires) {
				continue
			}
			if err := c.DeleteSession(c.life, r.key); err != nil {
				break // the store is down; the next round finds what is left
			}
		}
		select {
		case <-c.life.Done():
			return
		case <-tick.C:
		}
	}
}

var (
	errTaken = errors.New("the record exists")               // a create found a record
	errMoved = errors.New("the record has another revision") // a compare-and-set came too late
)

// how a record is written.
type manner int

const (
	put    manner = iota // whatever is there
	create               // only if there is nothing, else errTaken
	update               // only over the given revision, else errMoved
	remove               // the record, by a marker that goes away by itself
)

// write stores one record and returns its revision: durable, and visible to every reader.
func write[T any](ctx context.Context, c *Cluster, m *mirror[T], how manner, key string, value *T, over uint64) (uint64, error) {
	if !plainKey(key) {
		return 0, event.Invalid("", fmt.Sprintf("This cannot be stored under the name %q.", key))
	}
	var body []byte
	if value != nil {
		var err error
		if body, err = json.Marshal(value); err != nil {
			return 0, fmt.Errorf("write %s %q: %w", m.name, key, err)
		}
	}
	if len(body) > maxValue {
		return 0, &event.Error{Code: event.CodeTooLarge, Message: "This is more than can be stored in one place. Make it shorter."}
	}
	eng, err := c.working()
	if err != nil {
		return 0, err
	}
	rev, err := eng.write(ctx, m.name, how, key, body, over)
	switch {
	case err == nil:
	case errors.Is(err, errTaken), errors.Is(err, errMoved):
		return 0, err
	case eng.life.Err() != nil:
		return 0, unavailable(context.Cause(eng.life))
	case ctx.Err() != nil, c.join != nil: // whoever asked is gone; or a server elsewhere has its own troubles, such as an election
		return 0, unavailable(fmt.Errorf("write %s %q: %w", m.name, key, err))
	default:
		eng.fail(fmt.Errorf("write %s %q: %w", m.name, key, err))
		return 0, unavailable(context.Cause(eng.life))
	}
	if err := m.await(ctx, c.life, rev); err != nil {
		return 0, unavailable(fmt.Errorf("read back %s %q: %w", m.name, key, err))
	}
	return rev, nil
}

// plainKey says whether a key is one token of a NATS subject and one name in every file system.
func plainKey(key string) bool {
	if key == "" || len(key) > 128 {
		return false
	}
	for i := range len(key) {
		c := key[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// refused translates the engine's answer to a condition that did not hold, which says the same to both kinds of condition.
func refused(how manner, err error) error {
	switch {
	case !errors.Is(err, jetstream.ErrKeyExists) && !errors.Is(err, jetstream.ErrKeyRevisionMismatch):
		return err
	case how == create:
		return errTaken
	}
	return errMoved
}

// unavailable says what the trouble is to people, and keeps the chain for the log.
func unavailable(cause error) error {
	const next = " Try again in a moment."
	switch troubleOf(cause) {
	case full:
		return event.Unavailable("The server cannot store anything at the moment: its disk is full."+next, cause)
	case readOnly:
		return event.Unavailable("The server cannot store anything at the moment: its disk is read-only."+next, cause)
	}
	return event.Unavailable("The server cannot store anything at the moment."+next, cause)
}

// plain does the same for the operator who starts the server.
func plain(err error) error {
	switch troubleOf(err) {
	case full:
		return fmt.Errorf("the disk is full: %w", err)
	case readOnly:
		return fmt.Errorf("it cannot be written: %w", err)
	}
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("a part of it is missing: %w", err)
	}
	return err
}
