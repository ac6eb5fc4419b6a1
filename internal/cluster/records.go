package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"earshot/internal/event"
)

// CreateEvent stores a new event. The slug is the record's key, and no event is ever removed, so claiming the address and
// storing the event are one write that no crash can part, and no slug is ever used twice. ID and Created are filled in where
// they are empty. A slug that was ever used gives an *event.Error with Code Conflict and Field "slug".
func (c *Cluster) CreateEvent(ctx context.Context, e event.Event) (event.Event, error) {
	if err := event.CheckSlug(e.Slug); err != nil {
		return event.Event{}, err
	}
	if e.ID == "" {
		e.ID = "ev_" + token(8)
	}
	if !plainKey(e.ID) {
		return event.Event{}, event.Invalid("id", "This cannot be the ID of an event.")
	}
	if e.Created.IsZero() {
		e.Created = time.Now().UTC()
	}
	rev, err := write(ctx, c, c.events, create, e.Slug, &e, 0)
	if errors.Is(err, errTaken) {
		return event.Event{}, &event.Error{
			Code: event.CodeConflict, Field: "slug",
			Message: "This address is taken, or was once. Choose another.",
		}
	}
	if err != nil {
		return event.Event{}, err
	}
	e.Revision = rev
	return e, nil
}

var errNoEvent = event.NotFound("There is no event at this address.")

// Event gives the event with this slug.
func (c *Cluster) Event(_ context.Context, slug string) (event.Event, error) {
	r, ok := c.events.get(slug)
	if !ok {
		return event.Event{}, errNoEvent
	}
	return eventOf(r), nil
}

func eventOf(r record[event.Event]) event.Event {
	e := r.value
	e.Revision = r.revision
	return e
}

// Events gives all events, newest start first.
func (c *Cluster) Events(context.Context) ([]event.Event, error) {
	all := c.events.all()
	list := make([]event.Event, len(all))
	for i, r := range all {
		list[i] = eventOf(r)
	}
	slices.SortFunc(list, func(a, b event.Event) int {
		if d := b.Start.Compare(a.Start); d != 0 {
			return d
		}
		return strings.Compare(a.Slug, b.Slug)
	})
	return list, nil
}

// UpdateEvent changes an event by compare-and-set: change gets a fresh copy, and gets it again if another was quicker. Its error
// ends the attempt and is returned as it is. ID, Slug and Created stay what they are.
func (c *Cluster) UpdateEvent(ctx context.Context, slug string, change func(*event.Event) error) (event.Event, error) {
	find := func() (record[event.Event], error) {
		r, ok := c.events.get(slug)
		if !ok {
			return r, errNoEvent
		}
		r.value = eventOf(r)
		return r, nil
	}
	e, revision, err := amend(ctx, c, c.events, fmt.Sprintf("event %q", slug), find, func(e *event.Event) error {
		id, slug, created := e.ID, e.Slug, e.Created
		err := change(e)
		e.ID, e.Slug, e.Created = id, slug, created
		return err
	})
	if err != nil {
		return event.Event{}, err
	}
	e.Revision = revision
	return e, nil
}

// amend changes a record of a mirror by compare-and-set. find gives it as it is at that moment, as a copy that change may write to, with its
// key; without a revision there is none, and what change makes of the value is the first. Both are called again if another was quicker. An
// error of either ends the attempt and is returned as it is.
func amend[T any](ctx context.Context, c *Cluster, m *mirror[T], what string, find func() (record[T], error), change func(*T) error) (_ T, revision uint64, err error) {
	var none T
	for {
		r, err := find()
		if err != nil {
			return none, 0, err
		}
		if err := change(&r.value); err != nil {
			return none, 0, err
		}
		how := update
		if r.revision == 0 {
			how = create
		}
		revision, err := write(ctx, c, m, how, r.key, &r.value, r.revision)
		switch {
		case err == nil:
			return r.value, revision, nil
		case !errors.Is(err, errMoved) && !errors.Is(err, errTaken):
			return none, 0, err
		}
		if err := m.awaitNewer(ctx, c.life, r.key, r.revision); err != nil {
			return none, 0, unavailable(fmt.Errorf("update %s: %w", what, err))
		}
	}
}

// WatchEvents gives every event that exists, in the order of their last changes, and from then on every event that changes. A
// slow reader misses steps, never an event's latest state: nothing is queued. The channel is closed when ctx or the store ends.
func (c *Cluster) WatchEvents(ctx context.Context) <-chan event.Event {
	out := make(chan event.Event)
	started := c.spawn(func() {
		defer close(out)
		sent := map[string]uint64{}
		for {
			list, changed := c.events.watch()
			for _, r := range list {
				if sent[r.key] == r.revision {
					continue
				}
				select {
				case out <- eventOf(r):
					sent[r.key] = r.revision
				case <-ctx.Done():
					return
				case <-c.life.Done():
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			case <-c.life.Done():
				return
			}
		}
	})
	if !started {
		close(out)
	}
	return out
}

// CreateInvite stores an invite under its secret's hash, by which it is looked up.
func (c *Cluster) CreateInvite(ctx context.Context, i event.Invite) error {
	_, err := write(ctx, c, c.invites, create, i.Hash, &i, 0)
	if errors.Is(err, errTaken) {
		return event.Conflict("This invite exists already.")
	}
	return err
}

// Invites gives an event's invites, revoked and expired ones too, oldest first.
func (c *Cluster) Invites(_ context.Context, eventID string) ([]event.Invite, error) {
	list := []event.Invite{}
	for _, r := range c.invites.where(func(i event.Invite) bool { return i.Event == eventID }) {
		list = append(list, ownInvite(r.value))
	}
	slices.SortStableFunc(list, func(a, b event.Invite) int { return a.Created.Compare(b.Created) })
	return list, nil
}

// InviteByHash gives the invite whose secret has this SHA-256 (hex), whether usable or not.
func (c *Cluster) InviteByHash(_ context.Context, hash string) (event.Invite, error) {
	r, ok := c.invites.get(hash)
	if !ok {
		return event.Invite{}, errNoInvite
	}
	return ownInvite(r.value), nil
}

// ownInvite makes a copy the caller's to change.
func ownInvite(i event.Invite) event.Invite {
	i.Takers = slices.Clone(i.Takers)
	return i
}

var errNoInvite = event.NotFound("There is no such invite.")

// UpdateInvite changes an invite by compare-and-set, as UpdateEvent does an event. ID, Event and Hash stay what they are.
func (c *Cluster) UpdateInvite(ctx context.Context, eventID, id string, change func(*event.Invite) error) (event.Invite, error) {
	find := func() (record[event.Invite], error) {
		all := c.invites.where(func(i event.Invite) bool { return i.Event == eventID && i.ID == id })
		if len(all) == 0 {
			return record[event.Invite]{}, errNoInvite
		}
		r := all[len(all)-1]
		r.value = ownInvite(r.value)
		return r, nil
	}
	i, _, err := amend(ctx, c, c.invites, fmt.Sprintf("invite %q", id), find, func(i *event.Invite) error {
		id, eventID, hash := i.ID, i.Event, i.Hash
		err := change(i)
		i.ID, i.Event, i.Hash = id, eventID, hash
		return err
	})
	return i, err
}

var errNoSession = event.NotFound("This session does not exist, or has expired.")

// UpdateSession changes the session under key, the hex SHA-256 of its cookie's secret, by compare-and-set, as UpdateEvent does an
// event. Where there is none, or one that has expired, change gets an empty one, which is stored as it makes it.
func (c *Cluster) UpdateSession(ctx context.Context, key string, change func(*event.Session) error) (event.Session, error) {
	find := func() (record[event.Session], error) {
		r, _ := c.sessions.get(key)
		if !time.Now().Before(r.value.Expires) {
			r.value = event.Session{}
		}
		r.key, r.value.Grants = key, slices.Clone(r.value.Grants)
		return r, nil
	}
	s, _, err := amend(ctx, c, c.sessions, "session", find, change)
	return s, err
}

// Session gives a session that has not expired.
func (c *Cluster) Session(_ context.Context, key string) (event.Session, error) {
	r, ok := c.sessions.get(key)
	if !ok || !time.Now().Before(r.value.Expires) {
		return event.Session{}, errNoSession
	}
	s := r.value
	s.Grants = slices.Clone(s.Grants) // the caller's to change
	return s, nil
}

// DeleteSession forgets a session; one that is not there is forgotten already.
func (c *Cluster) DeleteSession(ctx context.Context, key string) error {
	if _, ok := c.sessions.get(key); !ok {
		return nil
	}
	_, err := write(ctx, c, c.sessions, remove, key, nil, 0)
	return err
}

// PutCount stores an event's audience figures.
func (c *Cluster) PutCount(ctx context.Context, eventID string, n event.Count) error {
	_, err := write(ctx, c, c.counts, put, eventID, &n, 0)
	return err
}

// Count gives an event's audience figures as they were last stored: zeros if they never were.
func (c *Cluster) Count(_ context.Context, eventID string) (event.Count, error) {
	r, _ := c.counts.get(eventID)
	return r.value, nil
}

// Roll gives what was decided about an event's people: nothing, if nothing was. It is the store's: read only.
func (c *Cluster) Roll(_ context.Context, eventID string) (event.Roll, error) {
	r, _ := c.rolls.get(eventID)
	return r.value, nil
}

// UpdateRoll changes an event's roll by compare-and-set, as UpdateEvent does an event. Where there is none, change gets an empty one.
func (c *Cluster) UpdateRoll(ctx context.Context, eventID string, change func(*event.Roll) error) (event.Roll, error) {
	find := func() (record[event.Roll], error) {
		r, _ := c.rolls.get(eventID)
		r.key, r.value = eventID, r.value.Clone()
		return r, nil
	}
	roll, _, err := amend(ctx, c, c.rolls, fmt.Sprintf("roll of %q", eventID), find, change)
	return roll, err
}

// Secret gives the secret of this name. The first call ever makes it; it is never replaced.
func (c *Cluster) Secret(ctx context.Context, name string, fresh func() ([]byte, error)) ([]byte, error) {
	for {
		if r, ok := c.secrets.get(name); ok {
			return slices.Clone(r.value), nil
		}
		value, err := fresh()
		if err != nil {
			return nil, fmt.Errorf("make secret %q: %w", name, err)
		}
		_, err = write(ctx, c, c.secrets, create, name, &value, 0)
		switch {
		case err == nil:
			return value, nil
		case !errors.Is(err, errTaken):
			return nil, err
		}
		// Another call was quicker; its secret is the one.
		if err := c.secrets.awaitNewer(ctx, c.life, name, 0); err != nil {
			return nil, unavailable(fmt.Errorf("read secret %q: %w", name, err))
		}
	}
}
