package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"earshot/internal/app"
	"earshot/internal/backup"
)

// A server is backed up while an event is live on it, and comes back elsewhere: the replays play, byte for byte what was there, the
// invites open, the operator is the operator, and the live event is live.
func TestBackupAndRestore(t *testing.T) {
	n := start(t, t.TempDir(), func(c *app.Config) { c.Version = "v7.7" })
	n.event("over", 0, nil)
	n.do("POST", "/api/v1/events/over/live", nil, nil)
	await(t, 15*time.Second, "two segments on disk", func() bool { return segments(t, n.dir) >= 2 })
	n.do("POST", "/api/v1/events/over/end", nil, nil)
	await(t, 15*time.Second, "the replay", func() bool { return n.get("over").Replay != nil })
	over := n.get("over")
	n.event("live", 0, nil)
	secret := n.invite("live", "speaker")
	n.do("POST", "/api/v1/events/live/live", nil, nil)
	await(t, 15*time.Second, "a segment of the live event", func() bool { return segments(t, n.dir) > over.Replay.Segments })

	status, whole := n.try("GET", "/api/v1/backup", nil)
	if status != http.StatusOK {
		t.Fatalf("backup: %d %s", status, whole)
	}
	await(t, 15*time.Second, "the live event goes on", func() bool { return segments(t, n.dir) > over.Replay.Segments+2 })
	_, ogg := n.try("GET", "/e/over/replay.opus", nil)

	sum, err := backup.Read(bytes.NewReader(whole), nil)
	if err != nil || sum.By != "v7.7" || sum.Done < over.Replay.Segments+1 || len(sum.Missing) > 0 || !strings.Contains(strings.Join(sum.LeftOut, ", "), "sessions") {
		t.Fatalf("the backup: %+v, %v", sum, err)
	}
	if bytes.Contains(whole, []byte(secret)) {
		t.Error("the secret of an invite is in the backup; its hash should be")
	}

	dir := filepath.Join(t.TempDir(), "restored")
	if _, err := app.Restore(t.Context(), bytes.NewReader(whole[:len(whole)-3000]), dir, "v7.8", discard, nil); !errors.Is(err, backup.ErrCut) && !errors.Is(err, backup.ErrDamaged) {
		t.Fatalf("a cut backup was restored: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("it left something: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := app.Restore(gone, bytes.NewReader(whole), dir, "v7.8", discard, nil); err == nil {
		t.Fatal("restored though nobody wanted it")
	}
	if got, err := app.Restore(t.Context(), bytes.NewReader(whole), dir, "v7.8", discard, nil); err != nil || got.Records != sum.Records || got.Done != sum.Done {
		t.Fatalf("restored %+v, %v", got, err)
	}
	if got := segments(t, dir); got != sum.Done {
		t.Errorf("%d segments were restored, %d are in the backup", got, sum.Done)
	}
	before := n.get("live")
	n.stop()

	m := start(t, dir, func(c *app.Config) { c.Version = "v7.8" })
	if m.key != n.key {
		t.Error("the operator's key is another one")
	}
	got := m.get("over")
	if got.Phase != "ended" || got.Replay == nil || *got.Replay != *over.Replay || got.Revision <= over.Revision {
		t.Errorf("the event that is over: %+v with replay %+v; it was %+v", got, got.Replay, over)
	}
	if _, again := m.try("GET", "/e/over/replay.opus", nil); !bytes.Equal(again, ogg) || len(ogg) < 1000 {
		t.Errorf("the replay has %d bytes, and had %d", len(again), len(ogg))
	}
	if got := m.get("live"); got.Phase != "live" || !got.Origin.Equal(before.Origin) {
		t.Errorf("the live event: %+v; it was %+v", got, before)
	}
	var session struct {
		Grants []struct{ Event, Role string }
	}
	m.do("POST", "/api/v1/session", map[string]any{"secret": secret, "name": "Ada"}, &session)
	if len(session.Grants) != 1 || session.Grants[0].Event != "live" || session.Grants[0].Role != "speaker" {
		t.Errorf("the invite opens %+v", session)
	}
	was := segments(t, dir)
	await(t, 15*time.Second, "the recording of the live event goes on", func() bool { return segments(t, dir) > was })
	m.do("POST", "/api/v1/events/live/end", nil, nil)
	await(t, 15*time.Second, "its replay", func() bool { return m.get("live").Replay != nil })

	var doc struct {
		Info struct{ Version string }
	}
	if _, b := m.try("GET", "/api/openapi.json", nil); json.Unmarshal(b, &doc) != nil || doc.Info.Version != "v7.8" {
		t.Errorf("the API's document is of version %q", doc.Info.Version)
	}
}

// A backup makes whoever has it the operator. So it is the operator's, by the key and not by a browser's session, and one at a time.
func TestBackupIsTheOperators(t *testing.T) {
	n := start(t, t.TempDir(), nil)
	n.event("talk", time.Hour, nil)
	host := n.invite("talk", "host")
	ask := func(change func(*http.Request)) (*http.Response, error) {
		r, err := http.NewRequest("GET", n.url+"/api/v1/backup", nil)
		if err != nil {
			t.Fatal(err)
		}
		change(r)
		return http.DefaultClient.Do(r)
	}
	body, err := json.Marshal(map[string]string{"secret": n.key})
	if err != nil {
		t.Fatal(err)
	}
	login, err := http.Post(n.url+"/api/v1/session", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	_ = login.Body.Close()
	cookies := login.Cookies()
	if login.StatusCode != http.StatusOK || len(cookies) != 1 {
		t.Fatalf("log in: %s, cookies %v", login.Status, cookies)
	}
	for _, x := range []struct {
		name   string
		want   int
		change func(*http.Request)
	}{
		{"nobody", http.StatusUnauthorized, func(*http.Request) {}},
		{"a stranger", http.StatusUnauthorized, func(r *http.Request) { r.Header.Set("Authorization", "Bearer eo_"+strings.Repeat("a", 26)) }},
		{"a host", http.StatusForbidden, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+host) }},
		{"the operator's browser", http.StatusUnauthorized, func(r *http.Request) { r.AddCookie(cookies[0]) }},
		{"nonsense", http.StatusUnprocessableEntity, func(r *http.Request) {
			r.Header.Set("Authorization", "Bearer "+n.key)
			r.URL.RawQuery = "sessions=perhaps"
		}},
		{"the operator", http.StatusOK, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+n.key) }},
		{"with sessions", http.StatusOK, func(r *http.Request) {
			r.Header.Set("Authorization", "Bearer "+n.key)
			r.URL.RawQuery = "sessions=true"
		}},
	} {
		resp, err := ask(x.change)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != x.want {
			t.Errorf("%s: %s, %v: %.200s", x.name, resp.Status, err, b)
		}
		if x.want != http.StatusOK {
			if bytes.Contains(b, []byte(n.key)) {
				t.Errorf("%s: the key is in the answer", x.name)
			}
			continue
		}
		if _, err := backup.Read(bytes.NewReader(b), nil); err != nil {
			t.Errorf("%s: %v", x.name, err)
		}
		if has := bytes.Contains(b, []byte("records/sessions")); has != (x.name == "with sessions") {
			t.Errorf("%s: sessions are in it: %v", x.name, has)
		}
	}
}

// A segment that cannot be read is no end of a backup, which says that it is missing; and whoever takes a backup slowly keeps others from
// beginning one, until they go.
func TestBackupMissingAndBusy(t *testing.T) {
	n := start(t, t.TempDir(), nil)
	var ev struct{ ID string }
	n.event("talk", time.Hour, nil)
	n.do("GET", "/api/v1/events/talk", nil, &ev)
	folder := filepath.Join(n.dir, "events", ev.ID)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 30 { // more than sockets hold
		writeFile(t, filepath.Join(folder, fmt.Sprintf("%010d.m4s", i)), bytes.Repeat([]byte{byte(i)}, 1<<20))
	}
	writeFile(t, filepath.Join(folder, "0000000040.m4s"), make([]byte, 5<<20)) // longer than any segment
	writeFile(t, filepath.Join(folder, "0000000041.m4s"), nil)
	writeFile(t, filepath.Join(folder, "0000000042.m4s.17ab.tmp"), []byte("half")) // being written

	r, err := http.NewRequest("GET", n.url+"/api/v1/backup", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+n.key)
	slow, err := http.DefaultClient.Do(r)
	if err != nil || slow.StatusCode != http.StatusOK {
		t.Fatalf("the first: %v, %v", slow, err)
	}
	if status, b := n.try("GET", "/api/v1/backup", nil); status != http.StatusTooManyRequests || !bytes.Contains(b, []byte("being made already")) {
		t.Errorf("a second at once: %d %.200s", status, b)
	}
	_ = slow.Body.Close()
	var whole []byte
	await(t, 15*time.Second, "the next backup", func() bool {
		var status int
		status, whole = n.try("GET", "/api/v1/backup", nil)
		return status == http.StatusOK
	})
	want := []backup.Segment{{Event: ev.ID, Number: 40}, {Event: ev.ID, Number: 41}}
	sum, err := backup.Read(bytes.NewReader(whole), nil)
	if err != nil || sum.Done != 30 || !slices.Equal(sum.Missing, want) {
		t.Errorf("%d segments, missing %v, %v", sum.Done, sum.Missing, err)
	}
	dir := filepath.Join(t.TempDir(), "restored")
	if sum, err := app.Restore(t.Context(), bytes.NewReader(whole), dir, "", discard, nil); err != nil || !slices.Equal(sum.Missing, want) {
		t.Errorf("restored: missing %v, %v", sum.Missing, err)
	}
	if got := segments(t, dir); got != 30 {
		t.Errorf("%d segments were restored", got)
	}
}
