package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// engine is one run of the embedded NATS server, or one connection to a server elsewhere, with its watches. Broken means broken for
// good: the cluster closes it and starts another, so that coming back is the way of every start.
type engine struct {
	store  string // folder of JetStream's files; empty where the server is elsewhere
	prefix string // of the buckets' names; empty where nobody else has any
	lazy   bool   // what it acknowledges need not be on disk
	log    *slog.Logger

	life context.Context // ends when the engine breaks or is stopped; its cause says why
	end  context.CancelCauseFunc

	ns       *server.Server // nil where the server is elsewhere
	nc       *nats.Conn
	js       jetstream.JetStream
	replicas int                           // of what this engine makes; 0: it makes nothing
	buckets  map[string]jetstream.KeyValue // fixed once started
	workers  sync.WaitGroup
}

var errStopped = errors.New("the store was stopped")

// startEngine makes an engine by reach, which connects it, makes the buckets that are missing, and returns when every follower is
// loaded.
func startEngine(ctx context.Context, log *slog.Logger, reach func(context.Context, *engine) error, followers []follower) (_ *engine, err error) {
	e := &engine{log: log, replicas: 1, buckets: map[string]jetstream.KeyValue{}}
	e.life, e.end = context.WithCancelCause(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			if cause := context.Cause(e.life); cause != nil && cause != ctx.Err() { // the engine's own word on its disk says more than a timeout
				err = cause
			}
			e.stop()
		}
	}()
	stop := context.AfterFunc(ctx, func() { e.end(ctx.Err()) })
	defer stop()
	if err = reach(ctx, e); err != nil {
		return nil, err
	}
	loaded := make(chan struct{}, len(followers))
	for _, f := range followers {
		if err = e.open(f, loaded); err != nil {
			return nil, err
		}
	}
	for range followers {
		select {
		case <-loaded:
		case <-e.life.Done():
			return nil, context.Cause(e.life)
		}
	}
	if e.ns != nil {
		// Buckets and block files that this start made are of no use in folders that a power cut forgets.
		if err = syncTree(e.store); err != nil {
			return nil, fmt.Errorf("sync engine's folders: %w", err)
		}
	}
	return e, nil
}

// embed runs NATS on dir/nats and connects to it through memory. With lazy, what it acknowledges need not be on disk.
func (e *engine) embed(dir, node string, lazy bool) (err error) {
	e.lazy = lazy
	e.store = filepath.Join(dir, "nats")
	e.ns, err = server.NewServer(&server.Options{
		ServerName:             node,
		DontListen:             true, // no port: the only client comes in through memory
		NoSigs:                 true, // signals are the program's
		JetStream:              true,
		StoreDir:               e.store,
		SyncAlways:             !lazy,
		JetStreamMaxMemory:     16 << 20,
		JetStreamMaxStore:      1 << 40, // the disk is the limit; the default is a share of what is free at the start
		MaxPayload:             1 << 20,
		DisableJetStreamBanner: true,
		NoFastProducerStall:    true,
	})
	if err != nil {
		return fmt.Errorf("start engine: %w", err)
	}
	e.ns.SetLoggerV2(&bridge{e}, false, false, false)
	e.ns.Start() // returns once started, as there is nothing to accept
	return e.connect("", nats.InProcessServer(e.ns))
}

// connect makes the connection. One that closes ends the engine.
func (e *engine) connect(url string, more ...nats.Option) (err error) {
	options := append([]nats.Option{
		nats.Name("earshot"), nats.NoReconnect(),
		nats.ClosedHandler(func(nc *nats.Conn) { e.fail(fmt.Errorf("the engine's connection closed: %w", closeCause(nc))) }),
	}, more...)
	if e.nc, err = nats.Connect(url, options...); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if e.js, err = jetstream.New(e.nc); err != nil {
		return fmt.Errorf("connect to engine: %w", err)
	}
	return nil
}

func closeCause(nc *nats.Conn) error {
	if err := nc.LastError(); err != nil {
		return err
	}
	return nats.ErrConnectionClosed
}

// open gets or makes a bucket and begins to follow it.
func (e *engine) open(f follower, loaded chan<- struct{}) error {
	shape := f.bucket()
	name := shape.Bucket
	shape.Bucket, shape.History, shape.Replicas = e.prefix+name, 1, e.replicas
	kv, err := e.js.KeyValue(e.life, shape.Bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		if e.replicas == 0 {
			return fmt.Errorf("bucket %s is missing: start a node with the role stage", shape.Bucket)
		}
		kv, err = e.js.CreateKeyValue(e.life, shape)
	}
	if err != nil {
		return fmt.Errorf("open bucket %s: %w", name, err)
	}
	e.buckets[name] = kv
	f.begin()
	watch, err := kv.WatchAll(e.life)
	if err != nil {
		return fmt.Errorf("watch bucket %s: %w", name, err)
	}
	e.workers.Go(func() {
		for {
			select {
			case <-e.life.Done():
				return
			case entry, ok := <-watch.Updates():
				switch {
				case !ok:
					e.fail(fmt.Errorf("watch bucket %s: it ended", name))
					return
				case entry == nil:
					f.loaded()
					loaded <- struct{}{}
				default:
					if err := f.feed(entry); err != nil {
						e.log.Error("a stored record cannot be read and is left out", "bucket", name, "key", entry.Key(), "cause", err)
					}
				}
			}
		}
	})
	return nil
}

// write stores a record. An embedded engine has synced the block file when it answers; the folder follows here.
func (e *engine) write(ctx context.Context, bucket string, how manner, key string, body []byte, over uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	defer context.AfterFunc(e.life, cancel)() // a broken engine answers nobody
	kv := e.buckets[bucket]
	var rev uint64
	var err error
	switch how {
	case put:
		rev, err = kv.Put(ctx, key, body)
	case create:
		rev, err = kv.Create(ctx, key, body)
	case update:
		rev, err = kv.Update(ctx, key, body, over)
	case remove:
		rev, err = e.remove(ctx, bucket, key)
	}
	if err != nil {
		return 0, refused(how, err)
	}
	if e.ns == nil || e.lazy {
		return rev, nil // what its own acknowledgement is worth, the server's configuration says
	}
	if err := syncFolder(filepath.Join(e.store, "jetstream", "$G", "streams", "KV_"+bucket, "msgs")); err != nil {
		return 0, fmt.Errorf("sync folder: %w", err)
	}
	return rev, nil
}

// remove is KeyValue.Purge, which doesn't tell the revision.
func (e *engine) remove(ctx context.Context, bucket, key string) (uint64, error) {
	msg := nats.NewMsg("$KV." + e.prefix + bucket + "." + key)
	msg.Header.Set("KV-Operation", "PURGE")
	msg.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	ack, err := e.js.PublishMsg(ctx, msg, jetstream.WithMsgTTL(markerLife))
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

// fail ends the engine's life; the first cause counts. It never blocks, so the engine may call it while it holds its locks.
func (e *engine) fail(cause error) { e.end(cause) }

// stop ends the engine and waits until all of it has ended.
func (e *engine) stop() {
	e.end(errStopped)
	if e.nc != nil {
		e.nc.Close()
	}
	if e.ns != nil {
		e.ns.Shutdown()
		e.ns.WaitForShutdown()
	}
	e.workers.Wait()
}

// bridge is the engine's logger: warnings and errors go to the program's log, the rest nowhere. It is also how a failed write
// is noticed at once: JetStream says it here, and leaves the writer without an answer.
type bridge struct{ e *engine }

func (b *bridge) Noticef(string, ...any) {}
func (b *bridge) Debugf(string, ...any)  {}
func (b *bridge) Tracef(string, ...any)  {}

func (b *bridge) Warnf(format string, args ...any)  { b.log(slog.LevelWarn, format, args) }
func (b *bridge) Errorf(format string, args ...any) { b.log(slog.LevelError, format, args) }
func (b *bridge) Fatalf(format string, args ...any) { b.log(slog.LevelError, format, args) }

func (b *bridge) log(level slog.Level, format string, args []any) {
	if b.e.life.Err() != nil { // broken or stopping: the cause has been told, the rest is its echo
		return
	}
	text := fmt.Sprintf(format, args...)
	low := strings.ToLower(text)
	for _, sign := range []string{"write error", "failed to store", "disabl", "out of space"} {
		if strings.Contains(low, sign) {
			b.e.fail(errors.New("engine: " + text)) // the keeper of the engine logs it, once
			return
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	b.e.log.Log(ctx, level, "engine: "+text)
}
