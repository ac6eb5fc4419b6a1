package cluster_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"earshot/internal/cluster"
	"earshot/internal/event"
)

func rebuild(t *testing.T, dir string, buckets []cluster.Bucket) *cluster.Rebuilding {
	t.Helper()
	r, err := cluster.Rebuild(t.Context(), dir, "v2", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range buckets {
		if err := r.Raise(t.Context(), b.Name, b.Revision); err != nil {
			t.Fatal(err)
		}
		for key, value := range b.Records {
			if err := r.Put(t.Context(), b.Name, key, value); err != nil {
				t.Fatal(err)
			}
		}
	}
	return r
}

// What a store gives for a backup makes the same store elsewhere: all records, revisions and epochs that go on above the old ones, no
// sessions unless they were asked for, no leases.
func TestRebuild(t *testing.T) {
	ctx := t.Context()
	c := open(t, t.TempDir())
	var made event.Event
	for i := range 20 {
		e, err := c.CreateEvent(ctx, town(fmt.Sprint("event-", i)))
		if err != nil {
			t.Fatal(err)
		}
		made = e
	}
	made, err := c.UpdateEvent(ctx, made.Slug, func(e *event.Event) error { e.Title = "Changed"; return nil })
	if err != nil {
		t.Fatal(err)
	}
	invite := event.Invite{ID: "in_1", Event: made.ID, Role: event.Host, Hash: "aa11", Created: in(0)}
	err = c.CreateInvite(ctx, invite)
	_, sessionErr := c.UpdateSession(ctx, "5e5510", func(s *event.Session) error { s.Expires = in(time.Hour); return nil })
	err = errors.Join(err, sessionErr, c.PutCount(ctx, made.ID, event.Count{Peak: 7}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Secret(ctx, "cookie", func() ([]byte, error) { return []byte("first"), nil }); err != nil {
		t.Fatal(err)
	}
	var epoch uint64
	for range 5 {
		l, err := c.Acquire(ctx, made.ID)
		if err != nil {
			t.Fatal(err)
		}
		epoch = l.Epoch()
	}
	for _, sessions := range []bool{false, true} {
		dir := filepath.Join(t.TempDir(), "new")
		if !sessions {
			if err := os.Mkdir(dir, 0o700); err != nil { // made by somebody, and empty
				t.Fatal(err)
			}
			if os.Getuid() == 0 { // and another user's
				if err := os.Chown(dir, 65534, 65534); err != nil {
					t.Fatal(err)
				}
			}
		}
		r := rebuild(t, dir, c.Snapshot(sessions))
		if _, err := cluster.Open(ctx, cluster.Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("a server started in it meanwhile: %v", err)
		}
		if err := os.WriteFile(filepath.Join(r.Path(), "operator.key"), []byte("key"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := r.Commit(ctx, cluster.Format, "v2"); err != nil {
			t.Fatal(err)
		}
		wantOneOwner(t, dir)
		if b, err := os.ReadFile(filepath.Join(dir, "operator.key")); err != nil || string(b) != "key" {
			t.Errorf("what was put beside the store: %q, %v", b, err)
		}
		if got := formatOf(t, dir); got != `{"format":1,"by":"v2"}`+"\n" {
			t.Errorf("format %q", got)
		}
		if _, err := cluster.Rebuild(ctx, dir, "v2", nil); err == nil || !strings.Contains(err.Error(), "not empty") {
			t.Errorf("restored over what is there: %v", err)
		}
		for range 2 { // and again after a restart
			n := open(t, dir)
			events, err := n.Events(ctx)
			if err != nil || len(events) != 20 {
				t.Errorf("%d events, %v", len(events), err)
			}
			got, err := n.Event(ctx, made.Slug)
			if err != nil || got.Title != "Changed" || got.ID != made.ID || got.Revision <= made.Revision {
				t.Errorf("event %+v, %v; before %+v", got, err, made)
			}
			if i, err := n.InviteByHash(ctx, "aa11"); err != nil || !reflect.DeepEqual(i, invite) {
				t.Errorf("invite %+v, %v", i, err)
			}
			if s, err := n.Session(ctx, "5e5510"); (err == nil) != sessions {
				t.Errorf("asked for sessions: %v; session %+v, %v", sessions, s, err)
			}
			if k, err := n.Count(ctx, made.ID); err != nil || k.Peak != 7 {
				t.Errorf("count %+v, %v", k, err)
			}
			if s, err := n.Secret(ctx, "cookie", func() ([]byte, error) { return nil, errors.New("it is gone") }); err != nil || string(s) != "first" {
				t.Errorf("secret %q, %v", s, err)
			}
			l, err := n.Acquire(ctx, made.ID)
			if err != nil || l.Epoch() <= epoch {
				t.Fatalf("epoch %v after %d, %v", l, epoch, err)
			}
			epoch = l.Epoch()
			if _, err := n.CreateEvent(ctx, town(made.Slug)); event.CodeOf(err) != event.CodeConflict {
				t.Errorf("an address was given twice: %v", err)
			}
			shut(t, n)
		}
		epoch -= 2
	}
}

// wantOneOwner checks that all in a folder belongs to whom the folder belongs to.
func wantOneOwner(t *testing.T, dir string) {
	t.Helper()
	owner := func(info os.FileInfo) string { // of the system's own kind, which has no name everywhere
		uid := reflect.Indirect(reflect.ValueOf(info.Sys())).FieldByName("Uid")
		if !uid.IsValid() {
			return ""
		}
		return fmt.Sprint(uid)
	}
	var first string
	err := filepath.Walk(dir, func(name string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		if name == dir {
			first = owner(info)
		}
		if got := owner(info); got != first {
			t.Errorf("%s belongs to user %s, the folder to %s", name, got, first)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestRebuildRefuses(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	shut(t, open(t, dir))
	before := listing(t, dir)
	if _, err := cluster.Rebuild(ctx, dir, "v2", nil); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("into a folder with data: %v", err)
	}
	if after := listing(t, dir); after != before {
		t.Errorf("it was changed from\n%s\nto\n%s", before, after)
	}
	if len(before) == 0 {
		t.Fatal("no folder")
	}

	// Given up: a folder that was there is empty again, one that was not is gone.
	there, not := t.TempDir(), filepath.Join(t.TempDir(), "new")
	for _, dir := range []string{there, not} {
		r := rebuild(t, dir, nil)
		if err := r.Raise(ctx, "strange", 1); err == nil {
			t.Error("a bucket that nobody knows was taken")
		}
		if err := r.Put(ctx, "events", "a.b", []byte(`1`)); err == nil {
			t.Error("a key that is a subject was taken")
		}
		if err := r.Abandon(ctx); err != nil {
			t.Error(err)
		}
	}
	if list, err := os.ReadDir(there); err != nil || len(list) > 1 {
		t.Errorf("left behind: %v, %v", list, err)
	}
	if _, err := os.Stat(not); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
	shut(t, open(t, there)) // usable

	// What a killed restore leaves is refused, by a server and by the next restore, with the word what to do.
	cut := t.TempDir()
	if err := os.MkdirAll(filepath.Join(cut, "restoring", "nats"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := cluster.Open(ctx, cluster.Config{Dir: cut}); err == nil || !strings.Contains(err.Error(), "empty the folder and restore") {
		t.Errorf("a server on it: %v", err)
	}
	if _, err := cluster.Rebuild(ctx, cut, "v2", nil); err == nil || !strings.Contains(err.Error(), "empty the folder") {
		t.Errorf("a restore into it: %v", err)
	}
	if runtime.GOOS == "linux" {
		if _, err := cluster.Rebuild(ctx, "/dev/null/x", "v2", nil); err == nil || !strings.Contains(err.Error(), "not a folder") {
			t.Errorf("into a device: %v", err)
		}
	}
}
