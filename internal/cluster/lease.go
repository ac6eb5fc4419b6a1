package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"earshot/internal/event"
)

// leaseRecord says who makes an event's frames.
type leaseRecord struct {
	Node     string    `json:"node"`
	Since    time.Time `json:"since"` // for people: no decision compares clocks of two machines
	Released bool      `json:"released,omitempty"`
	Address  string    `json:"address,omitempty"` // where people reach that node
}

// leaseLife is how long another node's lease is respected after that node's last sign of life, or after it was released: a node that
// restarts within that time, as a deploy does, finds its stages where it left them.
const leaseLife = 5 * time.Second

// ErrHeld says that another node, which lives, has the lease. It comes wrapped in an *event.Error with Code Unavailable.
var ErrHeld = errors.New("another node has the lease")

// Lease is the right to make an event's frames. Its epoch is the revision under which it was taken, so a later lease of the
// same event always has a higher one, also after a crash; records are replaced, never removed.
//
// With the engine embedded, the folder's lock already keeps other processes out: whatever lease is found at a start belongs to a
// process that is dead. So a lease is had at once, needs no renewal, and outlives a full disk; only a newer Acquire in this
// process ends it.
//
// Where nodes share a server the same holds among the processes of one node, which share a folder. Another node's lease is taken, by
// compare-and-set, only after that node has shown no sign of life for leaseLife. That is judged by when this node learnt of the last
// sign, on this node's own clock, so that clocks that differ do no harm; and whoever was cut off from the server begins to count anew
// when it is back. A holder that is cut off itself makes frames further on, under its old epoch, which readers drop once they have
// seen a higher one; it is told by Lost when it is back.
type Lease struct {
	c     *Cluster
	event string
	epoch uint64
	lost  chan struct{}
	stop  context.CancelFunc
	once  sync.Once
}

// Acquire takes the lease of an event: from whoever held it, if no other node can; else only if it is free, or ErrHeld.
func (c *Cluster) Acquire(ctx context.Context, eventID string) (*Lease, error) {
	rec := leaseRecord{Node: c.node, Since: time.Now().UTC()}
	var epoch uint64
	var err error
	if c.join == nil {
		epoch, err = write(ctx, c, c.leases, put, eventID, &rec, 0)
	} else {
		rec.Address = c.join.Address
		epoch, err = c.contend(ctx, eventID, &rec)
	}
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

// contend writes rec over what is there, if that is free to take, and gives its revision.
func (c *Cluster) contend(ctx context.Context, eventID string, rec *leaseRecord) (uint64, error) {
	for {
		old, ok := c.leases.get(eventID)
		how := update
		if !ok {
			how = create
		} else if !c.free(old) {
			return 0, event.Unavailable("Another node has the stage of this event.", fmt.Errorf("%w: %s", ErrHeld, old.value.Node))
		}
		epoch, err := write(ctx, c, c.leases, how, eventID, rec, old.revision)
		if !errors.Is(err, errTaken) && !errors.Is(err, errMoved) {
			return epoch, err
		}
		if err := c.leases.awaitNewer(ctx, c.life, eventID, old.revision); err != nil { // another was quicker: see what it wrote
			return 0, unavailable(fmt.Errorf("acquire lease of %q: %w", eventID, err))
		}
	}
}

// free says whether this node may take what old says.
func (c *Cluster) free(old record[leaseRecord]) bool {
	if old.value.Node == c.node {
		return true
	}
	sign := old.at
	if n, ok := c.nodes.get(old.value.Node); ok && !old.value.Released && n.at.After(sign) {
		sign = n.at
	}
	return time.Since(sign) >= leaseLife
}

// Free says whether Acquire would get the lease of an event, as far as is known here. It asks nobody.
func (c *Cluster) Free(eventID string) bool {
	if c.join == nil {
		return true
	}
	if _, err := c.working(); err != nil || c.nodes == nil {
		return false
	}
	old, ok := c.leases.get(eventID)
	return !ok || c.free(old)
}

// StageAddress is where people reach the node that has, or last had, the lease of an event; empty if that is not known.
func (c *Cluster) StageAddress(eventID string) string {
	r, _ := c.leases.get(eventID)
	return r.value.Address
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
		if l.c.join != nil {
			rec.Address = l.c.join.Address
		}
		_, err = write(ctx, l.c, l.c.leases, update, l.event, &rec, l.epoch)
		if errors.Is(err, errMoved) {
			err = nil
		} else if err != nil {
			err = fmt.Errorf("release lease of %q: %w", l.event, err)
		}
	})
	return err
}
