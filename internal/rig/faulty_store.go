package rig

import (
	"context"
	"errors"
	"sync"

	"earshot/internal/event"
)

// Store is what FaultyStore stands before: the store as internal/web knows it.
type Store interface {
	CreateEvent(ctx context.Context, e event.Event) (event.Event, error)
	Event(ctx context.Context, slug string) (event.Event, error)
	Events(ctx context.Context) ([]event.Event, error)
	UpdateEvent(ctx context.Context, slug string, change func(*event.Event) error) (event.Event, error)
	CreateInvite(ctx context.Context, i event.Invite) error
	Invites(ctx context.Context, eventID string) ([]event.Invite, error)
	InviteByHash(ctx context.Context, hash string) (event.Invite, error)
	UpdateInvite(ctx context.Context, eventID, id string, change func(*event.Invite) error) (event.Invite, error)
	UpdateSession(ctx context.Context, key string, change func(*event.Session) error) (event.Session, error)
	Session(ctx context.Context, key string) (event.Session, error)
	DeleteSession(ctx context.Context, key string) error
	Roll(ctx context.Context, eventID string) (event.Roll, error)
	UpdateRoll(ctx context.Context, eventID string, change func(*event.Roll) error) (event.Roll, error)
	Count(ctx context.Context, eventID string) (event.Count, error)
}

// Fault is what becomes of a write that fails. Both are possible with every store that answers over a wire or a disk: the write
// was lost, or only its acknowledgement.
type Fault int

// The two faults of a write.
const (
	NotStored Fault = iota
	Stored
)

// String names the fault.
func (f Fault) String() string { return [...]string{"failed, not stored", "failed but stored"}[f] }

// ErrFault is in the chain of every error that a FaultyStore makes.
var ErrFault = errors.New("fault, as the test wished")

// FaultyStore passes everything on to a store, but the writes that are told to fail. Reads never fail: what a write left behind must
// show in them.
type FaultyStore struct {
	Store

	mu     sync.Mutex
	writes int // so far
	at     int // number of the write that fails; 0: none
	fault  Fault
}

// Fail has the nth write from now fail, the next one being the first. Only one failure is planned at a time; 0 plans none.
func (f *FaultyStore) Fail(n int, fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at, f.fault = 0, fault
	if n > 0 {
		f.at = f.writes + n
	}
}

// Writes is how many writes there were, failed ones included.
func (f *FaultyStore) Writes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.writes
}

// write counts a write, does it unless it is to vanish, and fails if it is to fail.
func (f *FaultyStore) write(do func() error) error {
	f.mu.Lock()
	f.writes++
	fails, fault := f.writes == f.at, f.fault
	f.mu.Unlock()
	if !fails {
		return do()
	}
	if fault == Stored {
		if err := do(); err != nil {
			return err // the store refused it: there is nothing whose acknowledgement could be lost
		}
	}
	return event.Unavailable("The server cannot store this at the moment. Please try again.", ErrFault)
}

// CreateEvent is a write.
func (f *FaultyStore) CreateEvent(ctx context.Context, e event.Event) (out event.Event, err error) {
	err = f.write(func() (err error) { out, err = f.Store.CreateEvent(ctx, e); return err })
	return kept(out, err)
}

// UpdateEvent is a write.
func (f *FaultyStore) UpdateEvent(ctx context.Context, slug string, change func(*event.Event) error) (out event.Event, err error) {
	err = f.write(func() (err error) { out, err = f.Store.UpdateEvent(ctx, slug, change); return err })
	return kept(out, err)
}

// CreateInvite is a write.
func (f *FaultyStore) CreateInvite(ctx context.Context, i event.Invite) error {
	return f.write(func() error { return f.Store.CreateInvite(ctx, i) })
}

// UpdateInvite is a write.
func (f *FaultyStore) UpdateInvite(ctx context.Context, eventID, id string, change func(*event.Invite) error) (out event.Invite, err error) {
	err = f.write(func() (err error) { out, err = f.Store.UpdateInvite(ctx, eventID, id, change); return err })
	return kept(out, err)
}

// UpdateSession is a write.
func (f *FaultyStore) UpdateSession(ctx context.Context, key string, change func(*event.Session) error) (out event.Session, err error) {
	err = f.write(func() (err error) { out, err = f.Store.UpdateSession(ctx, key, change); return err })
	return kept(out, err)
}

// DeleteSession is a write.
func (f *FaultyStore) DeleteSession(ctx context.Context, key string) error {
	return f.write(func() error { return f.Store.DeleteSession(ctx, key) })
}

// UpdateRoll is a write.
func (f *FaultyStore) UpdateRoll(ctx context.Context, eventID string, change func(*event.Roll) error) (out event.Roll, err error) {
	err = f.write(func() (err error) { out, err = f.Store.UpdateRoll(ctx, eventID, change); return err })
	return kept(out, err)
}

// kept gives nothing beside an error, as a store whose answer was lost could not either.
func kept[T any](v T, err error) (T, error) {
	if err != nil {
		var none T
		return none, err
	}
	return v, nil
}
