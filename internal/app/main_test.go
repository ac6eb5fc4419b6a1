package app_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"earshot/internal/app"
	"earshot/internal/rig"
)

// The test binary, started again with this variable, is a node in a process of its own, so that it can be killed.
const childEnv = "EARSHOT_TEST_NODE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		a, err := app.New(ctx, config(dir, os.Getenv(childEnv+"_LISTEN"), slog.New(slog.NewTextHandler(os.Stderr, nil))))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(a.URL())
		if err := a.Run(ctx); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func config(dir, listen string, log *slog.Logger) app.Config {
	if listen == "" {
		listen = "127.0.0.1:0"
	}
	return app.Config{Listen: listen, UDP: "127.0.0.1:0", Data: dir, Log: log}
}

// node is a running server as a test sees it: its address, and its operator's key.
type node struct {
	t    *testing.T
	url  string
	key  string
	dir  string
	stop func() // orderly; waits
}

// start runs a node in this process.
func start(t *testing.T, dir string, change func(*app.Config)) *node {
	t.Helper()
	var log rig.Log
	cfg := config(dir, "", slog.New(slog.NewTextHandler(&log, nil)))
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	a, err := app.New(ctx, cfg)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	n := &node{t: t, url: a.URL(), dir: dir}
	var once sync.Once
	n.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	t.Cleanup(func() {
		n.stop()
		if t.Failed() {
			t.Logf("the node's log:\n%s", log.String())
		}
	})
	if !slices.Equal(cfg.Roles, []app.Role{app.RoleEdge}) { // which keeps no key
		n.readKey()
	}
	return n
}

func (n *node) readKey() {
	n.t.Helper()
	b, err := os.ReadFile(filepath.Join(n.dir, "operator.key"))
	if err != nil {
		n.t.Fatal(err)
	}
	n.key = strings.TrimSpace(string(b))
}

// child runs a node in a process of its own and gives that process.
func child(t *testing.T, dir, listen string) (*node, *exec.Cmd) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childEnv+"="+dir, childEnv+"_LISTEN="+listen)
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the child's log:\n%s", log.String())
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		_ = cmd.Wait()
		t.Fatalf("the child did not start: %v\n%s", err, log.String())
	}
	n := &node{t: t, url: strings.TrimSpace(line), dir: dir}
	n.readKey()
	return n, cmd
}

// do calls the node as the operator and decodes what it answers into out, if that is not nil.
func (n *node) do(method, path string, body, out any) {
	n.t.Helper()
	status, b := n.try(method, path, body)
	if status >= 300 {
		n.t.Fatalf("%s %s: %d %s", method, path, status, b)
	}
	if out != nil {
		if err := json.Unmarshal(b, out); err != nil {
			n.t.Fatalf("%s %s: %v in %s", method, path, err, b)
		}
	}
}

func (n *node) try(method, path string, body any) (status int, answer []byte) {
	n.t.Helper()
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			n.t.Fatal(err)
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, n.url+path, r)
	if err != nil {
		n.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+n.key)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return resp.StatusCode, b
}

type eventJSON struct {
	Slug     string    `json:"slug"`
	Phase    string    `json:"phase"`
	Origin   time.Time `json:"origin"`
	Revision int       `json:"revision"`
	Replay   *struct {
		Duration float64 `json:"duration_s"`
		Segments int     `json:"segments"`
	} `json:"replay"`
}

// event creates an event that starts at the given distance from now.
func (n *node) event(slug string, in time.Duration, more map[string]any) eventJSON {
	n.t.Helper()
	fields := map[string]any{
		"slug": slug, "title": "A test of voices", "description": "", "start": time.Now().Add(in).UTC().Format(time.RFC3339),
		"zone": "Europe/Berlin", "listed": true, "recorded": true,
	}
	for k, v := range more {
		fields[k] = v
	}
	var ev eventJSON
	n.do("POST", "/api/v1/events", fields, &ev)
	return ev
}

func (n *node) get(slug string) (ev eventJSON) {
	n.t.Helper()
	n.do("GET", "/api/v1/events/"+slug, nil, &ev)
	return ev
}

func (n *node) invite(slug, role string) (secret string) {
	n.t.Helper()
	var inv struct {
		Secret string `json:"secret"`
	}
	n.do("POST", "/api/v1/events/"+slug+"/invites", map[string]any{"role": role, "label": "test"}, &inv)
	return inv.Secret
}

var discard = slog.New(slog.DiscardHandler)

// await polls until ok, or fails the test after limit. What it waits for happens in another process or in real time.
func await(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %v still not: %s", limit, what)
		}
	}
}
