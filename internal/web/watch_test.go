package web_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// watcher reads a stage's event stream.
type watcher struct {
	t    *testing.T
	scan *bufio.Scanner
}

// watch opens the stream as the bearer of a secret. The stream ends with the test at the latest.
func watch(t *testing.T, w *world, secret string) *watcher {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.server.URL+"/api/v1/events/talk/stage/watch", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+secret)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" || res.Header.Get("Cache-Control") != "no-store" {
		b, _ := io.ReadAll(res.Body)
		t.Fatalf("%d %v %s", res.StatusCode, res.Header, b)
	}
	return &watcher{t: t, scan: bufio.NewScanner(res.Body)}
}

// next gives the next event: its name and data. ok is false at the stream's end.
func (w *watcher) next() (name, data string, ok bool) {
	w.t.Helper()
	for w.scan.Scan() {
		line := w.scan.Text()
		if n, found := strings.CutPrefix(line, "event: "); found {
			name = n
		}
		if d, found := strings.CutPrefix(line, "data: "); found {
			data = d
		}
		if line == "" && name != "" {
			return name, data, true
		}
	}
	if err := w.scan.Err(); err != nil {
		w.t.Fatalf("the stream broke off: %v", err)
	}
	return "", "", false
}

type stageState struct {
	Phase  string
	You    string
	People []struct{ ID, Name, Muted string }
}

// until reads on to a stage for which good holds; it fails at the stream's end.
func (w *watcher) until(what string, good func(stageState) bool) {
	w.t.Helper()
	for {
		name, data, ok := w.next()
		if !ok {
			w.t.Fatalf("the stream ended before: %s", what)
		}
		var s stageState
		if name != "stage" {
			continue
		}
		if err := json.Unmarshal([]byte(data), &s); err != nil {
			w.t.Fatal(err)
		}
		if good(s) {
			return
		}
	}
}

// ended reads on to the stream's end, and gives the phase that it showed last.
func (w *watcher) ended() (phase string) {
	w.t.Helper()
	for {
		name, data, ok := w.next()
		if !ok {
			return phase
		}
		if name == "stage" {
			var s stageState
			if err := json.Unmarshal([]byte(data), &s); err != nil {
				w.t.Fatal(err)
			}
			phase = s.Phase
		}
	}
}

func TestWatchFollowsTheStage(t *testing.T) {
	w := newWorld(t, t.TempDir())
	t.Cleanup(w.close)
	op := &story{t: t, w: w}
	bearer := func(secret, method, path, body, kind string, want int) []byte {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, w.server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+secret)
		req.Header.Set("Content-Type", kind)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		if res.StatusCode != want {
			t.Fatalf("%s %s: %d %s", method, path, res.StatusCode, b)
		}
		return b
	}
	const js, sdp = "application/json", "application/sdp"
	bearer(w.operator, "POST", "/api/v1/events", `{"slug":"talk","title":"Talk","start":"2030-01-01T00:00:00Z"}`, js, 201)
	bearer(w.operator, "POST", "/api/v1/events/talk/doors", "", js, 200)
	invite := func(role string) (id, secret string) {
		var v struct{ ID, Secret string }
		if err := json.Unmarshal(bearer(w.operator, "POST", "/api/v1/events/talk/invites", `{"role":"`+role+`"}`, js, 201), &v); err != nil {
			t.Fatal(err)
		}
		return v.ID, v.Secret
	}
	hostID, host := invite("host")
	_, speaker := invite("speaker")
	bearer(speaker, "GET", "/api/v1/events/talk/stage/watch", "", js, 403) // not on stage yet
	bearer(speaker, "POST", "/e/talk/whip", "v=0", sdp, 201)

	asHost, asSpeaker, asOperator := watch(t, w, host), watch(t, w, speaker), watch(t, w, w.operator)
	var me string
	asSpeaker.until("oneself on stage", func(s stageState) bool {
		me = s.You
		return len(s.People) == 1 && s.People[0].ID == me && me != ""
	})
	for {
		name, data, ok := asSpeaker.next()
		if !ok {
			t.Fatal("no levels came")
		}
		if name == "levels" {
			var levels map[string]float64
			if err := json.Unmarshal([]byte(data), &levels); err != nil {
				t.Fatal(err)
			}
			if levels[me] > -80 || levels[""] > -80 || len(levels) != 2 {
				t.Errorf("levels of a silent stage: %s", data)
			}
			break
		}
	}
	bearer(host, "POST", "/api/v1/events/talk/people/"+me+"/mute", "", js, 204)
	muted := func(s stageState) bool { return len(s.People) == 1 && s.People[0].Muted == "host" }
	asSpeaker.until("being muted", muted)
	asHost.until("the mute", muted)

	// Off the stage, nothing more of it is seen; whoever runs the event sees on.
	bearer(host, "POST", "/api/v1/events/talk/people/"+me+"/remove", "", js, 204)
	asSpeaker.ended()
	asHost.until("the empty stage", func(s stageState) bool { return len(s.People) == 0 })

	// A withdrawn invite sees no more from the next change on.
	bearer(w.operator, "DELETE", "/api/v1/events/talk/invites/"+hostID, "", js, 204)
	bearer(w.operator, "POST", "/api/v1/events/talk/live", "", js, 200)
	if phase := asHost.ended(); phase == "live" {
		t.Error("a withdrawn invite saw the event go live")
	}
	asOperator.until("live", func(s stageState) bool { return s.Phase == "live" })
	bearer(w.operator, "POST", "/api/v1/events/talk/end", "", js, 200)
	if phase := asOperator.ended(); phase != "ended" {
		t.Errorf("the last phase seen was %q", phase)
	}
	if status, b := op.ask("GET", "/api/v1/events/talk/stage/watch", ""); status != 401 {
		t.Errorf("%d %s", status, b)
	}
}
