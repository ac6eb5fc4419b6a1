package web_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"earshot/internal/rig"
)

// step is a request of the story below, and how to see that it was done.
type step struct {
	name, method, path, body string
	want                     int
	done                     func(*story) bool // reads only
	undoes                   []string          // earlier steps, if it is done
}

type story struct {
	t      *testing.T
	w      *world
	cookie string
	secret string // of the invite
	invite string // its ID
}

// ask sends a request with the cookie, askAs one with a bearer token.
func (s *story) ask(method, path, body string) (int, []byte) {
	s.t.Helper()
	return s.askAs("", method, path, body)
}

func (s *story) askAs(secret, method, path, body string) (int, []byte) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.w.server.URL+path, strings.NewReader(strings.ReplaceAll(body, "SECRET", s.secret)))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if secret != "" {
		req.Header.Set("Authorization", "Bearer "+secret)
	} else if s.cookie != "" {
		req.Header.Set("Cookie", s.cookie)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, c := range res.Cookies() {
		s.cookie = c.Name + "=" + c.Value
	}
	if res.StatusCode == http.StatusServiceUnavailable {
		var p struct{ Code, Detail string }
		if json.Unmarshal(b, &p) != nil || p.Code != "unavailable" || p.Detail == "" || res.Header.Get("Retry-After") == "" ||
			bytes.Contains(b, []byte(rig.ErrFault.Error())) {
			s.t.Errorf("%s %s: %v %s", method, path, res.Header, b)
		}
	}
	return res.StatusCode, b
}

// sees says whether a GET's body has a text. The session is one's own; all else is asked as the operator.
func sees(path, text string) func(*story) bool {
	return func(s *story) bool {
		secret := ""
		if path != "/api/v1/session" {
			secret = s.w.operator
		}
		_, b := s.askAs(secret, http.MethodGet, path, "")
		return bytes.Contains(b, []byte(text))
	}
}

// theStory is an event's life in every write that the web makes.
var theStory = []step{
	{
		name: "log in", method: "POST", path: "/api/v1/session", body: `{"secret":"OPERATOR"}`, want: 200,
		done: sees("/api/v1/session", `"operator":true`),
	},
	{
		name: "create", method: "POST", path: "/api/v1/events", want: 201, body: `{"slug":"talk","title":"Talk","start":"2030-01-01T00:00:00Z"}`,
		done: sees("/api/v1/events/talk", `"slug":"talk"`),
	},
	{
		name: "change", method: "PATCH", path: "/api/v1/events/talk", body: `{"title":"New"}`, want: 200,
		done: sees("/api/v1/events/talk", `"title":"New"`),
	},
	{
		name: "invite", method: "POST", path: "/api/v1/events/talk/invites", body: `{"role":"speaker","label":"Ada"}`, want: 201,
		done: sees("/api/v1/events/talk/invites", `"label":"Ada"`),
	},
	{
		name: "enter", method: "POST", path: "/api/v1/session", body: `{"secret":"SECRET","name":"Ada"}`, want: 200,
		done: sees("/api/v1/session", `"name":"Ada"`),
	},
	{
		name: "open", method: "POST", path: "/api/v1/events/talk/doors", want: 200,
		done: sees("/api/v1/events/talk", `"phase":"doors"`),
	},
	{
		name: "withdraw", method: "DELETE", path: "/api/v1/events/talk/invites/INVITE", want: 204,
		done: sees("/api/v1/events/talk/invites", `"revoked":true`), undoes: []string{"enter"},
	},
	{
		name: "raise a hand", method: "POST", path: "/api/v1/events/talk/hand", body: `{"name":"Cy"}`, want: 204,
		done: sees("/api/v1/session", `"name":"Cy"`),
	},
	{
		name: "log out", method: "DELETE", path: "/api/v1/session", want: 204,
		done: sees("/api/v1/session", `"operator":false`), undoes: []string{"log in", "raise a hand"},
	},
}

// TestEveryWriteMayFail tells the story once for each write in it and each way in which that can fail. Whoever asked is told (503,
// with when to try again), what was acknowledged before is there, what failed is there wholly or not at all, and asking again, as
// somebody would, gets the story to its end.
func TestEveryWriteMayFail(t *testing.T) {
	for failing := range theStory {
		for _, fault := range []rig.Fault{rig.NotStored, rig.Stored} {
			t.Run(fmt.Sprintf("%s %s", theStory[failing].name, fault), func(t *testing.T) {
				w := newWorld(t, t.TempDir())
				t.Cleanup(w.close)
				s := &story{t: t, w: w, secret: "none"}
				for i, st := range theStory {
					s.tell(i, st, i == failing, fault)
				}
				if got := w.store.Writes(); got < len(theStory) {
					t.Errorf("%d writes; the story should have at least %d", got, len(theStory))
				}
			})
		}
	}
}

func (s *story) tell(i int, st step, fails bool, fault rig.Fault) {
	s.t.Helper()
	if fails {
		s.w.store.Fail(1, fault)
	}
	body := strings.ReplaceAll(st.body, "OPERATOR", s.w.operator)
	path := strings.ReplaceAll(st.path, "INVITE", s.invite)
	status, reply := s.ask(st.method, path, body)
	if fails {
		if status != http.StatusServiceUnavailable {
			s.t.Fatalf("%s: status %d, though the store failed: %s", st.name, status, reply)
		}
		there := st.done(s)
		if there != (fault == rig.Stored) && st.name != "log in" { // the log-in's cookie was lost with the answer
			s.t.Errorf("%s %s, but done is %t", st.name, fault, there)
		}
		undone := make(map[string]bool)
		for _, past := range theStory[:i+1] {
			for _, name := range past.undoes {
				undone[name] = undone[name] || past.name != st.name || there
			}
		}
		for _, before := range theStory[:i] {
			if !undone[before.name] && !before.done(s) {
				s.t.Errorf("after %q failed, %q is undone", st.name, before.name)
			}
		}
		if st.name == "raise a hand" {
			room, _ := s.w.Room("talk")
			if hands := room.Stage.State().Hands; len(hands) != 0 {
				s.t.Errorf("a hand stays up without its owner's session: %+v", hands)
			}
		}
		status, reply = s.ask(st.method, path, body) // once more
		if status == http.StatusConflict && fault == rig.Stored && (st.name == "create" || st.name == "open") {
			status = st.want // it was done, and doing it again says so
		}
	}
	if status != st.want {
		s.t.Fatalf("%s: status %d, want %d: %s", st.name, status, st.want, reply)
	}
	if st.name == "invite" {
		var v struct{ ID, Secret string }
		if err := json.Unmarshal(reply, &v); err != nil {
			s.t.Fatal(err)
		}
		s.invite, s.secret = v.ID, v.Secret
	}
	if !st.done(s) {
		s.t.Fatalf("%s was acknowledged and is not there", st.name)
	}
}

// TestUnavailableIsLoggedOnce: whoever can cause an error cannot fill the log with it.
func TestUnavailableIsLoggedOnce(t *testing.T) {
	w := newWorld(t, t.TempDir())
	t.Cleanup(w.close)
	s := &story{t: t, w: w}
	start := time.Now()
	for range 20 {
		w.store.Fail(1, rig.NotStored)
		if status, b := s.ask("POST", "/api/v1/session", `{"secret":"`+w.operator+`"}`); status != 503 {
			t.Fatalf("%d %s", status, b)
		}
	}
	lines, most := strings.Count(w.log.String(), "request refused"), 1+int(time.Since(start)/time.Second)
	if lines < 1 || lines > most {
		t.Errorf("%d lines, at most %d wanted:\n%s", lines, most, w.log)
	}
	if !strings.Contains(w.log.String(), rig.ErrFault.Error()) {
		t.Errorf("the log does not have the cause:\n%s", w.log)
	}
}
