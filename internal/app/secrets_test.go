package app_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Who replaces the operator's key ends the sessions that were opened with the old one.
func TestNewOperatorKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := start(t, dir, nil)
	body, _ := json.Marshal(map[string]string{"secret": n.key})
	resp, err := http.Post(n.url+"/api/v1/session", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	cookie, _, _ := strings.Cut(resp.Header.Get("Set-Cookie"), ";")
	operator := func(n *node) bool {
		t.Helper()
		req, err := http.NewRequest("GET", n.url+"/api/v1/session", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Cookie", cookie)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var who struct{ Operator bool }
		if err := json.NewDecoder(resp.Body).Decode(&who); err != nil {
			t.Fatal(err)
		}
		return who.Operator
	}
	if !operator(n) {
		t.Fatal("the session is not the operator's")
	}
	n.stop()
	n = start(t, dir, nil)
	if !operator(n) {
		t.Error("the session does not outlive a restart")
	}
	n.stop()
	if err := os.Remove(filepath.Join(dir, "operator.key")); err != nil {
		t.Fatal(err)
	}
	if operator(start(t, dir, nil)) {
		t.Error("a session of the old key is still the operator's")
	}
}
