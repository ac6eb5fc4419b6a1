package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"earshot/internal/cluster"
	"earshot/internal/event"
)

func open(t testing.TB, dir string) *cluster.Cluster {
	t.Helper()
	c, err := cluster.Open(t.Context(), cluster.Config{Dir: dir, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, c) })
	return c
}

func shut(t testing.TB, c *cluster.Cluster) {
	t.Helper()
	if err := c.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func town(slug string) event.Event {
	return event.Event{
		Slug: slug, Title: "Town hall", Description: "All welcome", Start: time.Date(2026, 11, 28, 18, 0, 0, 0, time.UTC),
		Zone: "Europe/Berlin", Phase: event.Scheduled, IdleEnd: event.DefaultIdleEnd,
	}
}

func wantCode(t testing.TB, err error, code event.Code) {
	t.Helper()
	if _, ok := errors.AsType[*event.Error](err); !ok || event.CodeOf(err) != code {
		t.Errorf("error %v, want code %s", err, code)
	}
}

func in(d time.Duration) time.Time { return time.Now().Add(d).UTC().Round(0) }

// Everything that is kept, before and after a restart.
func TestStory(t *testing.T) {
	ctx, dir := t.Context(), filepath.Join(t.TempDir(), "not", "made", "yet")
	c := open(t, dir)

	if _, err := c.Event(ctx, "town-hall"); event.CodeOf(err) != event.CodeNotFound {
		t.Fatalf("an event before it is made: %v", err)
	}
	made, err := c.CreateEvent(ctx, town("town-hall"))
	if err != nil {
		t.Fatal(err)
	}
	if made.ID == "" || made.Created.IsZero() || made.Revision == 0 {
		t.Errorf("made: %+v", made)
	}
	got, err := c.Event(ctx, "town-hall")
	if err != nil || got != made {
		t.Errorf("read back %+v, %v; made %+v", got, err, made)
	}
	_, err = c.CreateEvent(ctx, town("town-hall"))
	wantCode(t, err, event.CodeConflict)
	if e, ok := errors.AsType[*event.Error](err); !ok || e.Field != "slug" {
		t.Errorf("the error doesn't name the field: %v", err)
	}

	later := town("later")
	later.Start = later.Start.Add(time.Hour)
	if _, err := c.CreateEvent(ctx, later); err != nil {
		t.Fatal(err)
	}
	list, err := c.Events(ctx)
	if err != nil || len(list) != 2 || list[0].Slug != "later" || list[1].Slug != "town-hall" {
		t.Errorf("events, newest start first: %v, %v", list, err)
	}

	cancelled, err := c.UpdateEvent(ctx, "town-hall", func(e *event.Event) error {
		e.Phase, e.ID, e.Slug = event.Cancelled, "ev_other", "other"
		return nil
	})
	if err != nil || cancelled.Phase != event.Cancelled || cancelled.ID != made.ID || cancelled.Slug != "town-hall" ||
		cancelled.Revision <= made.Revision {
		t.Errorf("updated: %+v, %v", cancelled, err)
	}
	refusal := event.Conflict("No.")
	if _, err := c.UpdateEvent(ctx, "town-hall", func(*event.Event) error { return refusal }); !errors.Is(err, refusal) {
		t.Errorf("a refused change: %v", err)
	}
	_, err = c.UpdateEvent(ctx, "nowhere", func(*event.Event) error { return nil })
	wantCode(t, err, event.CodeNotFound)

	host := event.Invite{ID: "in_1", Event: made.ID, Role: event.Host, Hash: "aa11", Created: in(0), Expires: in(time.Hour)}
	speaker := event.Invite{ID: "in_2", Event: made.ID, Role: event.Speaker, Hash: "bb22", Created: in(time.Second)}
	other := event.Invite{ID: "in_1", Event: "ev_x", Role: event.Host, Hash: "cc33", Created: in(0)}
	for _, i := range []event.Invite{speaker, host, other} {
		if err := c.CreateInvite(ctx, i); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, c.CreateInvite(ctx, host), event.CodeConflict)
	if i, err := c.InviteByHash(ctx, "bb22"); err != nil || !reflect.DeepEqual(i, speaker) {
		t.Errorf("invite %+v, %v", i, err)
	}
	_, err = c.InviteByHash(ctx, "dd44")
	wantCode(t, err, event.CodeNotFound)
	for range 2 {
		if i, err := c.UpdateInvite(ctx, made.ID, "in_1", revoke); err != nil || !i.Revoked || i.Hash != "aa11" {
			t.Errorf("revoked %+v, %v", i, err)
		}
	}
	_, err = c.UpdateInvite(ctx, made.ID, "in_9", revoke)
	wantCode(t, err, event.CodeNotFound)

	session := event.Session{
		Operator: true, Created: in(0), Expires: in(time.Hour),
		Grants: []event.Grant{{Event: made.ID, Slug: "town-hall", Person: event.Person{ID: "p_1", Name: "Ada", Role: event.Host}}},
	}
	for _, key := range []string{"5e5510", "0123ab"} {
		if err := putSession(c, ctx, key, session); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.DeleteSession(ctx, "0123ab"); err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteSession(ctx, "0123ab"); err != nil {
		t.Errorf("deleting what is gone: %v", err)
	}
	if err := c.PutCount(ctx, made.ID, event.Count{Now: 3, Peak: 5, TunedIn: 9}); err != nil {
		t.Fatal(err)
	}
	key, err := c.Secret(ctx, "cookie", func() ([]byte, error) { return []byte("first"), nil })
	if err != nil || string(key) != "first" {
		t.Fatalf("secret %q, %v", key, err)
	}
	lease, err := c.Acquire(ctx, made.ID)
	if err != nil {
		t.Fatal(err)
	}
	node := c.Node()
	shut(t, c)
	wantCode(t, c.Ready(), event.CodeUnavailable)
	_, err = c.CreateEvent(ctx, town("too-late"))
	wantCode(t, err, event.CodeUnavailable)

	c = open(t, dir)
	if c.Node() != node {
		t.Errorf("node %q was %q", c.Node(), node)
	}
	if err := c.Ready(); err != nil {
		t.Error(err)
	}
	if got, err := c.Event(ctx, "town-hall"); err != nil || got != cancelled {
		t.Errorf("event after restart: %+v, %v", got, err)
	}
	_, err = c.CreateEvent(ctx, town("town-hall"))
	wantCode(t, err, event.CodeConflict) // cancelled, yet its slug is used for good
	invites, err := c.Invites(ctx, made.ID)
	if err != nil || len(invites) != 2 || invites[0].ID != "in_1" || !invites[0].Revoked || !reflect.DeepEqual(invites[1], speaker) {
		t.Errorf("invites after restart: %+v, %v", invites, err)
	}
	if s, err := c.Session(ctx, "5e5510"); err != nil || !s.Operator || len(s.Grants) != 1 || s.Grants[0] != session.Grants[0] ||
		!s.Expires.Equal(session.Expires) {
		t.Errorf("session after restart: %+v, %v", s, err)
	}
	_, err = c.Session(ctx, "0123ab")
	wantCode(t, err, event.CodeNotFound)
	if n, err := c.Count(ctx, made.ID); err != nil || n != (event.Count{Now: 3, Peak: 5, TunedIn: 9}) {
		t.Errorf("count after restart: %+v, %v", n, err)
	}
	if n, err := c.Count(ctx, "ev_none"); err != nil || n != (event.Count{}) {
		t.Errorf("count of nothing: %+v, %v", n, err)
	}
	key, err = c.Secret(ctx, "cookie", func() ([]byte, error) { return []byte("second"), nil })
	if err != nil || string(key) != "first" {
		t.Errorf("secret after restart %q, %v", key, err)
	}
	again, err := c.Acquire(ctx, made.ID)
	if err != nil || again.Epoch() <= lease.Epoch() {
		t.Errorf("epoch %d after %d, %v", again.Epoch(), lease.Epoch(), err)
	}
}

func TestLease(t *testing.T) {
	ctx := t.Context()
	c := open(t, t.TempDir())
	first, err := c.Acquire(ctx, "ev_1")
	if err != nil {
		t.Fatal(err)
	}
	other, err := c.Acquire(ctx, "ev_2")
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.Acquire(ctx, "ev_1")
	if err != nil {
		t.Fatal(err)
	}
	<-first.Lost()
	if second.Epoch() <= first.Epoch() {
		t.Errorf("epoch %d after %d", second.Epoch(), first.Epoch())
	}
	if err := first.Release(ctx); err != nil { // must not end the second
		t.Error(err)
	}
	for range 2 {
		if err := second.Release(ctx); err != nil {
			t.Error(err)
		}
	}
	third, err := c.Acquire(ctx, "ev_1")
	if err != nil || third.Epoch() <= second.Epoch() {
		t.Errorf("epoch %d after %d, %v", third.Epoch(), second.Epoch(), err)
	}
	for _, l := range []*cluster.Lease{second, third, other} {
		select {
		case <-l.Lost():
			t.Errorf("the lease of epoch %d was lost to nobody", l.Epoch())
		default:
		}
	}
}

// Many at once: no change is lost, there is one secret, one winner for a slug, and epochs differ.
func TestConcurrent(t *testing.T) {
	const many = 16
	ctx := t.Context()
	c := open(t, t.TempDir())
	if _, err := c.CreateEvent(ctx, town("busy")); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	secrets, epochs, won := map[string]bool{}, map[uint64]bool{}, 0
	var wg sync.WaitGroup
	for i := range many {
		wg.Go(func() {
			for range 5 {
				if _, err := c.UpdateEvent(ctx, "busy", func(e *event.Event) error { e.IdleEnd++; return nil }); err != nil {
					t.Error(err)
				}
			}
			secret, err := c.Secret(ctx, "one", func() ([]byte, error) { return fmt.Append(nil, i), nil })
			if err != nil {
				t.Error(err)
			}
			lease, err := c.Acquire(ctx, "ev_1")
			if err != nil {
				t.Error(err)
				return
			}
			_, err = c.CreateEvent(ctx, town("wanted"))
			mu.Lock()
			defer mu.Unlock()
			secrets[string(secret)], epochs[lease.Epoch()] = true, true
			if err == nil {
				won++
			} else if event.CodeOf(err) != event.CodeConflict {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	e, err := c.Event(ctx, "busy")
	if want := event.DefaultIdleEnd + many*5; err != nil || e.IdleEnd != want {
		t.Errorf("%d of %d changes, %v", e.IdleEnd-event.DefaultIdleEnd, many*5, err)
	}
	if len(secrets) != 1 || len(epochs) != many || won != 1 {
		t.Errorf("%d secrets, %d epochs, %d winners", len(secrets), len(epochs), won)
	}
}

func TestWatchEvents(t *testing.T) {
	c := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	for _, slug := range []string{"a", "b"} {
		if _, err := c.CreateEvent(ctx, town(slug)); err != nil {
			t.Fatal(err)
		}
	}
	watch := c.WatchEvents(ctx)
	next := func() event.Event {
		t.Helper()
		select {
		case e, ok := <-watch:
			if !ok {
				t.Fatal("the watch ended")
			}
			return e
		case <-time.After(10 * time.Second):
			t.Fatal("nothing comes")
			panic("unreachable")
		}
	}
	if a, b := next(), next(); a.Slug != "a" || b.Slug != "b" {
		t.Fatalf("%q and %q", a.Slug, b.Slug)
	}
	// While nobody reads, an event may change often: what comes at the end is its last state.
	for i := range 20 {
		if _, err := c.UpdateEvent(ctx, "a", func(e *event.Event) error { e.Title = fmt.Sprint(i); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	last, seen := event.Event{}, 0
	for ; last.Title != "19"; seen++ {
		if last = next(); last.Slug != "a" {
			t.Fatalf("event %q", last.Slug)
		}
	}
	if seen > 3 {
		t.Errorf("%d states were queued for a slow reader", seen)
	}
	cancel()
	for range watch { // ends
	}

	watch = c.WatchEvents(t.Context())
	next()
	shut(t, c)
	for range watch { // ends with the store
	}
	for range c.WatchEvents(t.Context()) {
		t.Error("an event out of a closed store")
	}
}

func TestSessionsExpire(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	c := open(t, dir)
	for key, expires := range map[string]time.Time{"dead": in(-time.Second), "alive": in(time.Hour), "never-set": {}} {
		if err := putSession(c, ctx, key, event.Session{Expires: expires}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Session(ctx, "alive"); err != nil {
		t.Error(err)
	}
	for _, key := range []string{"dead", "never-set", "unknown", "*", ">", "a.b", ""} {
		_, err := c.Session(ctx, key)
		wantCode(t, err, event.CodeNotFound)
	}
	if n := c.StoredSessions(); n != 3 {
		t.Errorf("%d stored", n)
	}
	shut(t, c)
	c = open(t, dir) // purges at once
	for deadline := time.Now().Add(10 * time.Second); c.StoredSessions() != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d are still stored", c.StoredSessions())
		}
	}
	if _, err := c.Session(ctx, "alive"); err != nil {
		t.Error(err)
	}
}

// What a caller does with what it got does not reach the store.
// putSession stores a session, whatever was there.
func putSession(c *cluster.Cluster, ctx context.Context, key string, s event.Session) error {
	_, err := c.UpdateSession(ctx, key, func(held *event.Session) error { *held = s; return nil })
	return err
}

func revoke(i *event.Invite) error {
	i.Revoked = true
	return nil
}

// TestTheLastUseIsTakenOnce: of many who open an invite at the same moment, as many get in as it has uses.
func TestTheLastUseIsTakenOnce(t *testing.T) {
	ctx := t.Context()
	c := open(t, t.TempDir())
	if err := c.CreateInvite(ctx, event.Invite{ID: "in_1", Event: "ev_1", Hash: "aa11", Uses: 3}); err != nil {
		t.Fatal(err)
	}
	spent := errors.New("spent")
	var in atomic.Int32
	var all sync.WaitGroup
	for n := range 12 {
		all.Go(func() {
			_, err := c.UpdateInvite(ctx, "ev_1", "in_1", func(i *event.Invite) error {
				if !i.Take(fmt.Sprint("who ", n)) {
					return spent
				}
				return nil
			})
			switch {
			case err == nil:
				in.Add(1)
			case !errors.Is(err, spent):
				t.Error(err)
			}
		})
	}
	all.Wait()
	i, err := c.InviteByHash(ctx, "aa11")
	if err != nil || in.Load() != 3 || len(i.Takers) != 3 {
		t.Errorf("%d got in; %+v, %v", in.Load(), i, err)
	}
	i.Takers[0] = "changed"
	if again, _ := c.InviteByHash(ctx, "aa11"); again.Took("changed") {
		t.Error("a copy is the store's own")
	}
}

// TestSessionsGrowTogether: what several add to one session at the same moment is all there, also where the session is new.
func TestSessionsGrowTogether(t *testing.T) {
	ctx := t.Context()
	c := open(t, t.TempDir())
	var all sync.WaitGroup
	for n := range 12 {
		all.Go(func() {
			_, err := c.UpdateSession(ctx, "5e5510", func(s *event.Session) error {
				s.Expires = in(time.Hour)
				s.Add(event.Grant{Event: fmt.Sprint("ev_", n)}, 64)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	s, err := c.Session(ctx, "5e5510")
	if err != nil || len(s.Grants) != 12 {
		t.Errorf("%d grants, %v", len(s.Grants), err)
	}
	// Of what has expired nothing is left to add to.
	if err := putSession(c, ctx, "01d", event.Session{Operator: true, Expires: in(-time.Second)}); err != nil {
		t.Fatal(err)
	}
	s, err = c.UpdateSession(ctx, "01d", func(s *event.Session) error { s.Expires = in(time.Hour); return nil })
	if err != nil || s.Operator {
		t.Errorf("%+v, %v", s, err)
	}
	if err := c.DeleteSession(ctx, "01d"); err != nil {
		t.Fatal(err)
	}
	if err := putSession(c, ctx, "01d", event.Session{Expires: in(time.Hour)}); err != nil {
		t.Errorf("after its removal: %v", err)
	}
}

// TestRoll: bans and roles outlive a restart, and several who decide at the same moment lose nothing.
func TestRoll(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	c := open(t, dir)
	if r, err := c.Roll(ctx, "ev_1"); err != nil || r.Bans("p_0") || len(r.Roles) != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			_, err := c.UpdateRoll(ctx, "ev_1", func(r *event.Roll) error {
				r.Give("p_host", event.Cohost)
				return r.Ban(event.Banned{Person: fmt.Sprint("p_", n), At: in(0)})
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	no := errors.New("no")
	if _, err := c.UpdateRoll(ctx, "ev_1", func(r *event.Roll) error { r.Unban("p_0"); r.Give("p_1", event.Host); return no }); !errors.Is(err, no) {
		t.Error(err)
	}
	shut(t, c)
	c = open(t, dir)
	r, err := c.Roll(ctx, "ev_1")
	if err != nil || len(r.Banned) != 8 || !r.Bans("p_0") || r.Bans("p_9") || len(r.Roles) != 1 || r.Roles["p_host"] != event.Cohost {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestCopies(t *testing.T) {
	ctx := t.Context()
	c := open(t, t.TempDir())
	if err := putSession(c, ctx, "key", event.Session{Expires: in(time.Hour), Grants: []event.Grant{{Slug: "a"}}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s, err := c.Session(ctx, "key")
		if err != nil || s.Grants[0].Slug != "a" {
			t.Fatal(s, err)
		}
		s.Grants[0].Slug = "changed"
		secret, err := c.Secret(ctx, "name", func() ([]byte, error) { return []byte("abc"), nil })
		if err != nil || !bytes.Equal(secret, []byte("abc")) {
			t.Fatalf("%q, %v", secret, err)
		}
		secret[0] = 'x'
	}
}

func TestBadInput(t *testing.T) {
	ctx := t.Context()
	c := open(t, t.TempDir())
	for _, slug := range []string{"", "..", "a/b", "A", "a.b", "a*", "a>", "a b", strings.Repeat("a", 65)} {
		_, err := c.CreateEvent(ctx, town(slug))
		wantCode(t, err, event.CodeInvalid)
	}
	for _, key := range []string{"", "a.b", "*", ">", "a b", "ä", strings.Repeat("a", 129)} {
		wantCode(t, putSession(c, ctx, key, event.Session{}), event.CodeInvalid)
		wantCode(t, c.PutCount(ctx, key, event.Count{}), event.CodeInvalid)
		wantCode(t, c.CreateInvite(ctx, event.Invite{Hash: key}), event.CodeInvalid)
		_, err := c.Acquire(ctx, key)
		wantCode(t, err, event.CodeInvalid)
	}
	long := town("long")
	long.Description = strings.Repeat("x", 1<<20)
	_, err := c.CreateEvent(ctx, long)
	wantCode(t, err, event.CodeTooLarge)
	failed := errors.New("no randomness")
	if _, err := c.Secret(ctx, "s", func() ([]byte, error) { return nil, failed }); !errors.Is(err, failed) {
		t.Errorf("a secret that can't be made: %v", err)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := c.PutCount(gone, "ev_1", event.Count{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller who is gone: %v", err)
	}
	if err := c.Ready(); err != nil {
		t.Errorf("bad input broke the store: %v", err)
	}
	if _, err := c.CreateEvent(ctx, town("good")); err != nil {
		t.Error(err)
	}
}

// Close returns when all that Open and its like have started has ended.
func TestCloseWaits(t *testing.T) {
	c := open(t, t.TempDir())
	if _, err := c.Acquire(t.Context(), "ev_1"); err != nil {
		t.Fatal(err)
	}
	c.WatchEvents(t.Context())
	shut(t, c)
	shut(t, c) // again does no harm
	// A goroutine that has told its owner that it is done may take a moment to be gone.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		at := max(bytes.Index(stacks, []byte("internal/cluster.")), bytes.Index(stacks, []byte("nats-server")))
		if at < 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still running: %s", stacks[max(0, at-200):min(len(stacks), at+800)])
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	ctx, dir := b.Context(), b.TempDir()
	fill(b, dir, 500, 5000)
	for b.Loop() {
		c, err := cluster.Open(ctx, cluster.Config{Dir: dir})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		shut(b, c)
		b.StartTimer()
	}
}

func fill(b *testing.B, dir string, events, sessions int) {
	b.Helper()
	c := open(b, dir)
	for i := range events {
		if _, err := c.CreateEvent(b.Context(), town(fmt.Sprintf("event-%d", i))); err != nil {
			b.Fatal(err)
		}
	}
	for i := range sessions {
		s := event.Session{Expires: in(time.Hour), Grants: []event.Grant{{Slug: "event-1", Person: event.Person{Name: "Ada"}}}}
		if err := putSession(c, b.Context(), fmt.Sprintf("%064x", i), s); err != nil {
			b.Fatal(err)
		}
	}
	shut(b, c)
}

func BenchmarkCreateEvent(b *testing.B) {
	c := open(b, b.TempDir())
	i := 0
	for b.Loop() {
		i++
		if _, err := c.CreateEvent(b.Context(), town(fmt.Sprintf("event-%d", i))); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSession(b *testing.B) {
	c := open(b, b.TempDir())
	if err := putSession(c, b.Context(), "key", event.Session{Expires: in(time.Hour), Grants: make([]event.Grant, 2)}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := c.Session(b.Context(), "key"); err != nil {
			b.Fatal(err)
		}
	}
}
