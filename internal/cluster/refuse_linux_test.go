package cluster_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"earshot/internal/cluster"
)

func TestOpenRefuses(t *testing.T) {
	ctx := t.Context()
	try := func(what, dir string, words ...string) {
		t.Helper()
		c, err := cluster.Open(ctx, cluster.Config{Dir: dir})
		if err == nil {
			shut(t, c)
			t.Errorf("%s: opened", what)
			return
		}
		for _, w := range append(words, dir) {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q doesn't say %q", what, err, w)
			}
		}
	}

	dir := t.TempDir()
	c := open(t, dir)
	try("in use", dir, "in use by another process", fmt.Sprint(os.Getpid()))
	if _, err := c.CreateEvent(ctx, town("unharmed")); err != nil {
		t.Errorf("the first suffers from the second: %v", err)
	}
	shut(t, c)
	shut(t, open(t, dir)) // free again

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	try("a file", file, "not a folder")
	try("below a file", filepath.Join(file, "data"), "not a folder")

	locked := t.TempDir()
	if err := os.Chmod(locked, 0o555); err != nil {
		t.Fatal(err)
	}
	asNobody(t, func() {
		try("not writable", locked, "cannot be written")
		try("cannot be made", filepath.Join(locked, "data"), "cannot be written")
	})
	if list, err := os.ReadDir(locked); err != nil || len(list) != 0 {
		t.Errorf("left behind: %v, %v", list, err)
	}
	if _, err := cluster.Open(ctx, cluster.Config{Dir: t.TempDir(), Node: "no name"}); err == nil {
		t.Error("a node's name with a space was taken")
	}
}

// asNobody runs f without root's right to write everywhere: this thread's files are opened as nobody's.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Getuid() != 0 {
		f()
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := syscall.Setfsuid(65534); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setfsuid(0); err != nil {
			t.Fatal(err)
		}
	}()
	f()
}

// The engine opens no socket of any kind, so nobody can knock.
func TestNoSocket(t *testing.T) {
	sockets := func() (list []string) {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, "socket:") {
				list = append(list, to)
			}
		}
		return list
	}
	before := sockets()
	c := open(t, t.TempDir())
	if _, err := c.CreateEvent(t.Context(), town("quiet")); err != nil {
		t.Fatal(err)
	}
	if after := sockets(); len(after) != len(before) {
		t.Errorf("sockets %v, before %v", after, before)
	}
}
