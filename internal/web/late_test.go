package web_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"earshot/internal/event"
	"earshot/internal/web"
)

// talk makes a live event with a speaker's invite.
func talk(t *testing.T, w *world) (invite event.Invite, secret string) {
	t.Helper()
	e, err := w.store.CreateEvent(t.Context(), event.Event{
		ID: "ev_talk", Slug: "talk", Title: "Talk", Start: time.Now(), Phase: event.Scheduled, Created: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	secret = web.NewSecret(web.InviteSecret)
	invite = event.Invite{ID: "in_1", Event: e.ID, Role: event.Speaker, Hash: web.HashSecret(secret), Created: time.Now()}
	if err := w.store.CreateInvite(t.Context(), invite); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Turn(t.Context(), "talk", event.Live); err != nil {
		t.Fatal(err)
	}
	return invite, secret
}

// ask sends a request and gives status, cookie and body.
func ask(t *testing.T, w *world, method, path, secret, cookie string, body io.Reader, trace *httptrace.ClientTrace) (int, string, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if trace != nil {
		ctx = httptrace.WithClientTrace(ctx, trace)
	}
	req, err := http.NewRequestWithContext(ctx, method, w.server.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if strings.HasPrefix(path, "/e/") {
		req.Header.Set("Content-Type", "application/sdp")
	}
	if secret != "" {
		req.Header.Set("Authorization", "Bearer "+secret)
	}
	if cookie != "" {
		req.Header.Set("Cookie", cookie)
	}
	if trace != nil {
		req.Header.Set("Expect", "100-continue") // which the server answers when it has judged the request and wants the body
	}
	res, err := (&http.Transport{ExpectContinueTimeout: 10 * time.Second, DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	set, _, _ := strings.Cut(res.Header.Get("Set-Cookie"), ";")
	return res.StatusCode, set, string(b)
}

// An invite that is withdrawn while its holder still sends the offer lets nobody in.
func TestWithdrawnWhileTheOfferComes(t *testing.T) {
	for _, name := range []string{"bearer", "session"} {
		t.Run(name, func(t *testing.T) { withdrawnWhileTheOfferComes(t, name == "session") })
	}
}

func withdrawnWhileTheOfferComes(t *testing.T, bySession bool) {
	w := newWorld(t, t.TempDir())
	defer w.close()
	invite, secret := talk(t, w)
	b, _ := json.Marshal(map[string]string{"secret": secret, "name": "Eve"})
	status, cookie, _ := ask(t, w, "POST", "/api/v1/session", "", "", bytes.NewReader(b), nil)
	if status != 200 {
		t.Fatal(status)
	}
	if bySession {
		secret = ""
	} else {
		cookie = ""
	}
	status, _, body := ask(t, w, "POST", "/e/talk/stage", secret, cookie, strings.NewReader("v=0\r\n"), &httptrace.ClientTrace{
		Got100Continue: func() {
			status, _, body := ask(t, w, "DELETE", "/api/v1/events/talk/invites/"+invite.ID, w.operator, "", nil, nil)
			if status != 204 {
				t.Errorf("withdrawing: %d %s", status, body)
			}
		},
	})
	if status != 401 && status != 403 {
		t.Errorf("%d %s", status, body)
	}
	room, _ := w.Room("talk") // the seat is given up at the stage's next look
	for end := time.Now().Add(5 * time.Second); len(room.Stage.State().People) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("on stage with an invite that was withdrawn: %+v", room.Stage.State().People)
		}
	}
}

// One person's streams of a stage are bounded, and a closed one makes room.
func TestTooManyWatches(t *testing.T) {
	w := newWorld(t, t.TempDir())
	defer w.close()
	talk(t, w)
	_, cookie, _ := ask(t, w, "POST", "/api/v1/events/talk/hand", "", "", strings.NewReader(`{"name":"Bo"}`), nil)
	open := func() (status int, end func()) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.server.URL+"/api/v1/events/talk/stage/watch", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Cookie", cookie)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, func() { cancel(); res.Body.Close() }
	}
	var first func()
	for n := range 16 {
		status, end := open()
		if status != 200 {
			t.Fatalf("stream %d: %d", n, status)
		}
		if first == nil {
			first = end
		} else {
			defer end()
		}
	}
	status, end := open()
	end()
	if status != 429 {
		t.Errorf("one too many: %d", status)
	}
	first()
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) { // until the server has seen it go
		status, end = open()
		end()
		if status == 200 {
			break
		}
		if time.Since(begun) > 10*time.Second {
			t.Fatal("no room after one closed")
		}
	}
}
