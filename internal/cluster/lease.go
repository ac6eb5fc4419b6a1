package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// leaseRecord says who makes an event's frames.
type leaseRecord struct {
	Node     string    `json:"node"`
	Since    time.Time `json:"since"`
	Released bool      `json:"released,omitempty"`
}

// Lease is the right to make an event's frames. Its epoch is the revision under which it was taken, so a later lease of the
// same event always has a higher one, also after a crash; records are replaced, never removed.
//
// With the engine embedded, the folder's lock already keeps other processes out: whatever lease is found at a start belongs to a
// process that is dead. So a lease is had at once, needs no renewal, and outlives a full disk; only a newer Acquire in this
// process ends it.
type Lease struct {
	c     *Cluster
	event string
	epoch uint64
	lost  chan struct{}
	stop  context.CancelFunc
	once  sync.Once
}

// Acquire takes the lease of an event, from whoever held it.
func (c *Cluster) Acquire(ctx context.Context, eventID string) (*Lease, error) {
	rec := leaseRecord{Node: c.node, Since: time.Now().UTC()}
	epoch, err := write(ctx, c, c.leases, put, eventID, &rec, 0)
	if err != nil {
		return nil, err
	}
	life, stop := context.WithCancel(c.life)
	l := &Lease{c: c, event: eventID, epoch: epoch, lost: make(chan struct{}), stop: stop}
	if !c.spawn(func() {
		defer stop()
		if c.leases.awaitNewer(life, c.life, eventID, epoch) == nil {
			close(l.lost)
		}
	}) {
		stop()
		return nil, unavailable(errClosed)
	}
	return l, nil
}

// Epoch is higher than that of every earlier lease of the event.
func (l *Lease) Epoch() uint64 { return l.epoch }

// Lost is closed when another has taken the lease.
func (l *Lease) Lost() <-chan struct{} { return l.lost }

// Release gives the lease back. One that was lost needs no release.
func (l *Lease) Release(ctx context.Context) error {
	var err error
	l.once.Do(func() {
		l.stop()
		rec := leaseRecord{Node: l.c.node, Since: time.Now().UTC(), Released: true}
		_, err = write(ctx, l.c, l.c.leases, update, l.event, &rec, l.epoch)
		if errors.Is(err, errMoved) {
			err = nil
		} else if err != nil {
			err = fmt.Errorf("release lease of %q: %w", l.event, err)
		}
	})
	return err
}
