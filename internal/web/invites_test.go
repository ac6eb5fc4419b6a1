package web_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"earshot/internal/event"
	"earshot/internal/rig"
	"earshot/internal/web"
)

// inviteTo adds an invite to an event and gives its secret.
func inviteTo(t *testing.T, w *world, eventID string, role event.Role, uses int) string {
	t.Helper()
	secret := web.NewSecret(web.InviteSecret)
	err := w.cluster.CreateInvite(t.Context(), event.Invite{
		ID: "in_" + secret[3:11], Event: eventID, Role: role, Hash: web.HashSecret(secret), Created: time.Now(), Uses: uses,
	})
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// TestTwoOpenTheLastUse: of ten browsers and ten programs that open a link of three uses at the same moment, three get in.
func TestTwoOpenTheLastUse(t *testing.T) {
	w := newWorld(t, t.TempDir())
	t.Cleanup(w.close)
	talk(t, w)
	secret := inviteTo(t, w, "ev_talk", event.Speaker, 3)
	var in atomic.Int32
	var all sync.WaitGroup
	for n := range 20 {
		all.Go(func() {
			var status int
			var body string
			if n%2 == 0 {
				status, _, body = ask(t, w, http.MethodPost, "/api/v1/session", "", "", strings.NewReader(`{"secret":"`+secret+`","name":"Ada"}`), nil)
			} else {
				status, _, body = ask(t, w, http.MethodGet, fmt.Sprintf("/api/v1/session?person=Desk%d", n), secret, "", nil, nil)
			}
			switch {
			case status == http.StatusOK:
				in.Add(1)
			case status != http.StatusUnauthorized || !strings.Contains(body, "as often as it may be"):
				t.Errorf("%d %s", status, body)
			}
		})
	}
	all.Wait()
	if in.Load() != 3 {
		t.Errorf("%d got in", in.Load())
	}
}

// TestOneCookieTwoLinks: links to several events that a browser opens at the same moment all count.
func TestOneCookieTwoLinks(t *testing.T) {
	w := newWorld(t, t.TempDir())
	t.Cleanup(w.close)
	_, first := talk(t, w)
	_, cookie, _ := ask(t, w, http.MethodPost, "/api/v1/session", "", "", strings.NewReader(`{"secret":"`+first+`","name":"Ada"}`), nil)
	var all sync.WaitGroup
	for n := range 8 {
		slug := fmt.Sprint("other-", n)
		e, err := w.store.CreateEvent(t.Context(), event.Event{ID: "ev_" + slug, Slug: slug, Title: "Other", Start: time.Now(), Phase: event.Scheduled})
		if err != nil {
			t.Fatal(err)
		}
		secret := inviteTo(t, w, e.ID, event.Speaker, 0)
		all.Go(func() {
			status, _, body := ask(t, w, http.MethodPost, "/api/v1/session", "", cookie, strings.NewReader(`{"secret":"`+secret+`","name":"Ada"}`), nil)
			if status != http.StatusOK {
				t.Errorf("%d %s", status, body)
			}
		})
	}
	all.Wait()
	_, _, body := ask(t, w, http.MethodGet, "/api/v1/session", "", cookie, nil, nil)
	if n := strings.Count(body, `"role":"speaker"`); n != 9 {
		t.Errorf("%d of 9 parts are left: %s", n, body)
	}
}

// TestAUseIsNotLostWithAWrite: who could not be let in, because something could not be stored, does not find the link used up.
func TestAUseIsNotLostWithAWrite(t *testing.T) {
	for write := range 2 { // the use, the session
		for _, fault := range []rig.Fault{rig.NotStored, rig.Stored} {
			t.Run(fmt.Sprintf("write %d %s", write+1, fault), func(t *testing.T) {
				w := newWorld(t, t.TempDir())
				t.Cleanup(w.close)
				talk(t, w)
				secret := inviteTo(t, w, "ev_talk", event.Speaker, 1)
				open := func() int {
					status, _, _ := ask(t, w, http.MethodPost, "/api/v1/session", "", "", strings.NewReader(`{"secret":"`+secret+`","name":"Ada"}`), nil)
					return status
				}
				w.store.Fail(write+1, fault)
				for i, want := range []int{http.StatusServiceUnavailable, http.StatusOK, http.StatusUnauthorized} {
					if got := open(); got != want {
						t.Errorf("opened for the %d. time: %d, want %d", i+1, got, want)
					}
				}
			})
		}
	}
}
