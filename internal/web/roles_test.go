package web_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"earshot/internal/event"
)

// The actors of the table, by letter. Those with a role come by a session of a link to it, and are not on stage unless that is said.
var actors = []struct {
	letter  byte
	name    string
	role    event.Role
	onStage bool
}{
	{'a', "anonymous", "", false},
	{'h', "listener with a hand up", event.Listener, false},
	{'d', "admitted listener", event.Listener, true},
	{'s', "speaker", event.Speaker, false},
	{'S', "speaker on stage", event.Speaker, true},
	{'m', "moderator", event.Moderator, false},
	{'p', "producer", event.Producer, false},
	{'c', "co-host", event.Cohost, false},
	{'x', "host", event.Host, false},
	{'o', "operator", event.Operator, false},
}

// scene is an event with its doors open and all there is to act on, and one actor.
type scene struct {
	t      *testing.T
	w      *world
	slug   string
	id     string // of the event
	letter byte
	bearer string // of the actor
	cookie string // likewise
}

// The people whom the actors act on. Bo speaks, Ho is another host, Hy has a hand up.
var (
	bo = event.Person{ID: "p_bo", Name: "Bo", Role: event.Speaker}
	ho = event.Person{ID: "p_ho", Name: "Ho", Role: event.Host}
	hy = event.Person{ID: "p_hy", Name: "Hy", Role: event.Listener}
)

func newScene(t *testing.T, w *world, n int, letter byte, role event.Role, onStage bool) *scene {
	t.Helper()
	s := &scene{t: t, w: w, slug: fmt.Sprint("talk-", n), id: fmt.Sprint("ev_talk", n), letter: letter}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := w.cluster.CreateEvent(t.Context(), event.Event{
		ID: s.id, Slug: s.slug, Title: "Talk", Start: time.Now(), Phase: event.Scheduled, Created: time.Now(),
	})
	must(err)
	for id, r := range map[string]event.Role{"in_s": event.Speaker, "in_h": event.Host} {
		must(w.cluster.CreateInvite(t.Context(), event.Invite{ID: id, Event: s.id, Role: r, Hash: s.slug + id}))
	}
	_, err = w.Turn(t.Context(), s.slug, event.Doors)
	must(err)
	room, _ := w.Room(s.slug)
	for _, p := range []event.Person{bo, ho} {
		_, err := room.Stage.Join(t.Context(), p, deaf{}, false)
		must(err)
	}
	must(room.Stage.RaiseHand(t.Context(), hy, false))
	_, err = w.cluster.UpdateRoll(t.Context(), s.id, func(r *event.Roll) error {
		_ = r.Ban(event.Banned{Person: "p_bad", Role: event.Speaker})
		return r.Ban(event.Banned{Person: "p_badhost", Role: event.Host})
	})
	must(err)
	switch role {
	case "":
	case event.Operator:
		s.bearer = w.operator
	case event.Listener:
		_, s.cookie, _ = s.ask(http.MethodPost, "/api/v1/events/SLUG/hand", `{"name":"Me"}`)
		if onStage {
			hands := room.Stage.State().Hands
			must(room.Stage.Admit(t.Context(), hands[len(hands)-1].ID))
		}
	default:
		_, s.cookie, _ = s.ask(http.MethodPost, "/api/v1/session", `{"secret":"`+inviteTo(t, w, s.id, role, 0)+`","name":"Me"}`)
	}
	if onStage {
		if status, _, body := s.ask(http.MethodPost, "/e/SLUG/stage", "v=0"); status != http.StatusCreated {
			t.Fatalf("join: %d %s", status, body)
		}
	}
	return s
}

func (s *scene) ask(method, path, body string) (status int, cookie, answer string) {
	s.t.Helper()
	return ask(s.t, s.w, method, strings.ReplaceAll(path, "SLUG", s.slug), s.bearer, s.cookie, strings.NewReader(body), nil)
}

// TestEveryRoleAndEveryAction asks for everything as everybody, over HTTP: whoever may gets the status that is named, all others 403,
// strangers 401, or what is said of them.
func TestEveryRoleAndEveryAction(t *testing.T) {
	const api, offer = "/api/v1/events/SLUG", "v=0"
	rows := []struct {
		action             event.Action
		method, path, body string
		may                string // letters
		status             int
		besides            string // "h404 d409": others who are told something else
	}{
		{event.Operate, "POST", "/api/v1/events", `{"title":"New","start":"2030-01-01T00:00:00Z"}`, "o", 201, ""},
		{event.Operate, "GET", "/api/v1/pace", "", "o", 200, ""},
		{event.Operate, "PUT", "/api/v1/pace", `{"push_ms":400}`, "o", 200, ""},
		{event.Operate, "POST", "/api/v1/crowd-tokens", `{"listeners":10}`, "o", 201, ""},
		{event.Steer, "POST", api + "/doors", "", "pcxo", 409, ""}, // they are open
		{event.Steer, "POST", api + "/live", "", "pcxo", 200, ""},
		{event.Steer, "POST", api + "/end", "", "pcxo", 200, ""},
		{event.Steer, "POST", api + "/cancel", "", "pcxo", 200, ""},
		{event.Change, "PATCH", api, `{"title":"New"}`, "pcxo", 200, ""},
		{event.InviteOthers, "GET", api + "/invites", "", "mpcxo", 200, ""},
		{event.InviteOthers, "POST", api + "/invites", `{"role":"speaker"}`, "mpcxo", 201, ""},
		{event.InviteOthers, "POST", api + "/invites", `{"role":"moderator"}`, "mpcxo", 201, ""},
		{event.InviteOthers, "POST", api + "/invites", `{"role":"producer"}`, "pcxo", 201, ""},
		{event.InviteOthers, "POST", api + "/invites", `{"role":"cohost"}`, "pcxo", 201, ""},
		{event.InviteOthers, "POST", api + "/invites", `{"role":"host"}`, "xo", 201, ""},
		{event.InviteOthers, "DELETE", api + "/invites/in_s", "", "mpcxo", 204, ""},
		{event.InviteOthers, "DELETE", api + "/invites/in_h", "", "xo", 204, ""},
		{event.Admit, "POST", api + "/people/p_hy/admit", "", "mpcxo", 204, ""},
		{event.Admit, "POST", api + "/people/p_hy/lower", "", "mpcxo", 204, ""},
		{event.Mute, "POST", api + "/people/p_bo/mute", "", "mpcxo", 204, ""},
		{event.Mute, "POST", api + "/people/p_ho/unmute", "", "mpcxo", 204, ""},
		{event.Remove, "POST", api + "/people/p_bo/remove", "", "mpcxo", 204, ""},
		{event.Remove, "POST", api + "/people/p_hy/remove", "", "mpcxo", 204, ""},
		{event.Remove, "POST", api + "/people/p_ho/remove", "", "xo", 204, ""},
		{event.Ban, "POST", api + "/people/p_bo/ban", "", "mpcxo", 204, ""},
		{event.Ban, "POST", api + "/people/p_hy/ban", "", "mpcxo", 204, ""},
		{event.Ban, "POST", api + "/people/p_ho/ban", "", "xo", 204, ""},
		{event.Ban, "GET", api + "/bans", "", "mpcxo", 200, ""},
		{event.Ban, "DELETE", api + "/bans/p_bad", "", "mpcxo", 204, ""},
		{event.Ban, "DELETE", api + "/bans/p_badhost", "", "xo", 204, ""},
		{event.HandOver, "POST", api + "/people/p_bo/host", "", "xo", 204, ""},
		{event.See, "GET", api + "/stage", "", "hdSmpcxo", 200, ""},
		{event.Speak, "POST", "/e/SLUG/stage", offer, "dsScx", 201, ""},
		{event.Monitor, "POST", "/e/SLUG/whep?monitor=1", offer, "dS", 201, "h404 s404 m404 p404 c404 x404"}, // a part, but not there
		{event.RaiseHand, "POST", api + "/hand", `{"name":"Me"}`, "ah", 204, "d409 s409 S409 c409 x409 o409"},
	}
	w := newWorld(t, t.TempDir())
	t.Cleanup(w.close)
	n := 0
	seen := map[event.Action]bool{}
	for _, row := range rows {
		seen[row.action] = true
		for _, actor := range actors {
			n++
			s := newScene(t, w, n, actor.letter, actor.role, actor.onStage)
			want := http.StatusForbidden
			if actor.role == "" {
				want = http.StatusUnauthorized
			}
			if strings.IndexByte(row.may, actor.letter) >= 0 {
				want = row.status
			}
			for _, other := range strings.Fields(row.besides) {
				if other[0] == actor.letter {
					_, _ = fmt.Sscan(other[1:], &want)
				}
			}
			if got, _, body := s.ask(row.method, row.path, row.body); got != want {
				t.Errorf("%s, %s %s %s as %s: %d, want %d: %s", row.action, row.method, row.path, row.body, actor.name, got, want, body)
			}
			_, _ = w.Turn(t.Context(), s.slug, event.Ended) // those that stand already refuse it
		}
	}
	for _, a := range event.Actions() {
		if !seen[a] {
			t.Errorf("nothing asks for %s", a)
		}
	}
}

// TestTheServerSaysWhatOneMay: grants and the stage list it, so that pages need no table of their own.
func TestTheServerSaysWhatOneMay(t *testing.T) {
	w := newWorld(t, t.TempDir())
	t.Cleanup(w.close)
	s := newScene(t, w, 1, 'm', event.Moderator, false)
	if _, _, body := s.ask("GET", "/api/v1/session", ""); !strings.Contains(body, `"may":["invite","admit","mute","remove","ban","see"]`) {
		t.Errorf("the session: %s", body)
	}
	s = newScene(t, w, 2, 'S', event.Speaker, true)
	if _, _, body := s.ask("GET", "/api/v1/events/SLUG/stage", ""); !strings.Contains(body, `"may":["see","speak","monitor"]`) {
		t.Errorf("the stage: %s", body)
	}
}
