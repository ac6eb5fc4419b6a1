package cluster_test

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"earshot/internal/cluster"
	"earshot/internal/event"
)

// untar unpacks a folder of testdata.
func untar(t *testing.T, name string) (dir string) {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		at := filepath.Join(dir, h.Name)
		if h.FileInfo().IsDir() {
			err = os.MkdirAll(at, 0o700)
		} else {
			var b []byte
			if b, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(at, b, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func formatOf(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "format"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A folder as the program before format versions left it when it was killed: it is brought up, and nothing in it is lost. (format0.tgz was
// made by that program: a demo, and an event with an invite. The recording was put beside it, as that program would have.)
func TestFormat0(t *testing.T) {
	dir := filepath.Join(untar(t, "format0.tgz"), "v0")
	segments := filepath.Join(dir, "events", "ev_urwaawx2sluhv7m4ww")
	if err := os.MkdirAll(segments, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, keep := range map[string]bool{
		"0000000001.m4s": true, "0000000002.m4s.18a2f0c3b4d5e6f7.tmp": false, "notes.tmp": true, "2.m4s.x.tmp": true,
	} {
		if err := os.WriteFile(filepath.Join(segments, name), []byte("sound"), 0o644); err != nil {
			t.Fatal(err)
		}
		defer func() {
			info, err := os.Stat(filepath.Join(segments, name))
			if (err == nil) != keep {
				t.Errorf("%s: %v, want kept: %v", name, err, keep)
			} else if err == nil && runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v", name, info.Mode())
			}
		}()
	}
	for range 2 { // the second start finds nothing to do
		c := open(t, dir)
		e, err := c.Event(t.Context(), "kept")
		if err != nil || e.Title != "Kept from version 0" || !e.Recorded || e.Revision != 4 {
			t.Errorf("event %+v, %v", e, err)
		}
		invites, err := c.Invites(t.Context(), e.ID)
		if err != nil || len(invites) != 1 || invites[0].Label != "Ada" || invites[0].Role != event.Host {
			t.Errorf("invites %+v, %v", invites, err)
		}
		if demo, err := c.Event(t.Context(), "demo"); err != nil || demo.Phase != event.Live {
			t.Errorf("demo %+v, %v", demo, err)
		}
		shut(t, c)
		if got := formatOf(t, dir); !strings.Contains(got, `"format":1`) {
			t.Errorf("afterwards it says %q", got)
		}
	}
}

// A step that was cut off runs again, and so does one whose end was not told.
func TestFormatStepFails(t *testing.T) {
	dir := filepath.Join(untar(t, "format0.tgz"), "v0")
	if err := os.WriteFile(filepath.Join(dir, "events"), nil, 0o600); err != nil { // a file: the step has nothing to walk through
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "format.new"), 0o700); err != nil { // and the version cannot be stored
		t.Fatal(err)
	}
	if _, err := cluster.Open(t.Context(), cluster.Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "format's version") {
		t.Fatalf("opened: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "format")); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("it says a version: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "format.new")); err != nil {
		t.Fatal(err)
	}
	c := open(t, dir)
	if _, err := c.Event(t.Context(), "kept"); err != nil {
		t.Error(err)
	}
}

func TestFormatRefuses(t *testing.T) {
	dir := t.TempDir()
	c, err := cluster.Open(t.Context(), cluster.Config{Dir: dir, Version: "v1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateEvent(t.Context(), town("kept")); err != nil {
		t.Fatal(err)
	}
	shut(t, c)
	fresh := formatOf(t, dir)
	if fresh != `{"format":1,"by":"v1.2.3"}`+"\n" {
		t.Errorf("a new folder says %q", fresh)
	}
	for _, x := range []struct {
		name, content string
		words         []string
	}{
		{"newer", `{"format":7,"by":"v9.0","more":true}`, []string{"version 7", "v9.0", "v1.2.4", "no version above 1", "Start it with", dir}},
		{"newer, of nobody", `{"format":2,"by":"\u001b[2J"}`, []string{"version 2", "[2J"}},
		{"none", "", []string{"does not say a version"}},
		{"zero", `{"format":0}`, []string{"does not say a version"}},
		{"other", "nonsense", []string{"does not say a version", "backup"}},
		{"long", `{"format":1,"by":"` + strings.Repeat("x", 5000) + `"}`, []string{"does not say a version"}},
	} {
		if err := os.WriteFile(filepath.Join(dir, "format"), []byte(x.content), 0o600); err != nil {
			t.Fatal(err)
		}
		before := listing(t, dir)
		_, err := cluster.Open(t.Context(), cluster.Config{Dir: dir, Version: "v1.2.4"})
		if err == nil {
			t.Fatalf("%s: opened", x.name)
		}
		for _, w := range x.words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q doesn't say %q", x.name, err, w)
			}
		}
		if strings.ContainsRune(err.Error(), 0x1b) {
			t.Errorf("%s: %q acts on a terminal", x.name, err)
		}
		if after := listing(t, dir); after != before {
			t.Errorf("%s: the refused folder was changed from\n%s\nto\n%s", x.name, before, after)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "format"), []byte(fresh), 0o600); err != nil {
		t.Fatal(err)
	}
	c = open(t, dir)
	if _, err := c.Event(t.Context(), "kept"); err != nil {
		t.Error(err)
	}
}

// listing says what is in a folder: names, sizes, and when they were changed.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(dir, func(name string, info os.FileInfo, err error) error {
		if err == nil {
			b.WriteString(name + " " + info.ModTime().String() + "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
