package app_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"time"
)

// What is open to all does not name an unlisted event's address.
func TestUnlistedIsNamedNowhere(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), nil)
	n.event("hidden-one", time.Hour, map[string]any{"listed": false})
	n.event("shown-one", time.Hour, nil)
	for _, slug := range []string{"hidden-one", "shown-one"} {
		n.do("POST", "/api/v1/events/"+slug+"/doors", nil, nil)
	}
	for _, path := range []string{"/metrics", "/api/v1/events", "/", "/robots.txt", "/readyz"} {
		resp, err := http.Get(n.url + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte("hidden-one")) {
			t.Errorf("%s names the unlisted event", path)
		}
		if path == "/metrics" && !bytes.Contains(b, []byte(`event="shown-one"`)) {
			t.Error("/metrics does not name the listed event")
		}
	}
}
