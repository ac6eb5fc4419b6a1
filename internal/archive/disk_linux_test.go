package archive_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"earshot/internal/archive"
	"earshot/internal/event"
	"earshot/internal/rig/trace"
)

// Some tests need a process of their own: one that is traced, killed, or has a small disk. It is this test binary again, told
// its role by the environment.
const roleKey = "EARSHOT_ARCHIVE_ROLE"

func TestMain(m *testing.M) {
	var err error
	switch role, dir := os.Getenv(roleKey), os.Getenv("EARSHOT_ARCHIVE_DIR"); role {
	case "":
		os.Exit(m.Run())
	case "once":
		err = storeOnce(dir)
	case "forever":
		err = storeForever(dir)
	case "full":
		err = fillUp(dir)
	default:
		err = fmt.Errorf("no role %q", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func child(t *testing.T, role, dir string, before ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	args := append(before, self)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), roleKey+"="+role, "EARSHOT_ARCHIVE_DIR="+dir)
	cmd.Stderr = os.Stderr
	return cmd
}

func storeOnce(dir string) error {
	ctx := context.Background()
	a, err := archive.Open(ctx, dir, nil, nil)
	if err != nil {
		return err
	}
	fmt.Println("BEGIN")
	err = a.Put(ctx, "ev_1", 3, []byte("two seconds of audio"))
	fmt.Println("END")
	return errors.Join(err, a.Close())
}

// What is acknowledged is on disk: before Put returns, the content is synced, then renamed to its name, then the folder is
// synced, and every folder above it that is new. The page cache would hide a missing sync from any test but a trace.
func TestSyncedBeforeReturn(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(t.TempDir(), "trace")
	cmd := child(t, "once", filepath.Join(dir, "data"), "strace", "-f", "-y", "-o", log, "-s", "64",
		"-e", "trace=write,pwrite64,fsync,fdatasync,rename,renameat,renameat2")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	// Each step must be complete before the next begins.
	text := string(raw)
	rest := text
	for _, step := range []string{
		`"BEGIN`, `"two seconds of audio"`, `fsync(*0000000003.m4s.*.tmp>`, `rename*0000000003.m4s"`, `fsync(*/data/events/ev_1>`,
		`fsync(*/data/events>`, `fsync(*/data>`, `"END`,
	} {
		var ok bool
		if rest, ok = trace.After(rest, step); !ok {
			t.Fatalf("no %s in its place in the trace:\n%s", step, text)
		}
	}
}

func storeForever(dir string) error {
	ctx := context.Background()
	a, err := archive.Open(ctx, dir, nil, nil)
	if err != nil {
		return err
	}
	for n := uint64(0); ; n++ {
		if err := a.Put(ctx, "ev_1", n, bytes.Repeat([]byte{byte(n)}, 10_000)); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

// Killed at any moment, the archive has all that it acknowledged, whole.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	cmd := child(t, "forever", dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	acknowledged := -1
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if _, err := fmt.Sscan(lines.Text(), &acknowledged); err != nil {
			t.Fatal(err)
		}
		if acknowledged == 100 {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("it was not killed")
	}
	a := open(t, dir)
	last, ok, err := a.LastSegment(t.Context(), "ev_1")
	if err != nil || !ok || int(last) < acknowledged {
		t.Fatalf("last %d, %v, %v; acknowledged %d", last, ok, err, acknowledged)
	}
	for n := range last + 1 {
		data, err := a.Segment(t.Context(), "ev_1", n)
		if err != nil || !bytes.Equal(data, bytes.Repeat([]byte{byte(n)}, 10_000)) {
			t.Errorf("segment %d: %d bytes, %v", n, len(data), err)
		}
	}
}

// A disk that is really full, where this user may mount a small one in a namespace of their own, and in any case one that
// refuses bytes half-way through a file (RLIMIT_FSIZE).
func TestFullDisk(t *testing.T) {
	t.Run("file size limit", func(t *testing.T) {
		if err := child(t, "full", t.TempDir()).Run(); err != nil {
			t.Error(err)
		}
	})
	small := child(t, "full", t.TempDir())
	small.Env = append(small.Env, "EARSHOT_ARCHIVE_MOUNT=1")
	small.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	if err := small.Start(); err != nil {
		t.Logf("no namespace with a small disk can be had here (%v): tried with the file size limit only", err)
		return
	}
	if err := small.Wait(); err != nil {
		t.Error("small disk:", err)
	}
}

func fillUp(dir string) error {
	var fill, free func() error
	if os.Getenv("EARSHOT_ARCHIVE_MOUNT") != "" {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
			return fmt.Errorf("mount: %w", err)
		}
		filler := filepath.Join(dir, "filler")
		fill = func() error {
			err := os.WriteFile(filler, make([]byte, 2<<20), 0o600)
			if !errors.Is(err, syscall.ENOSPC) {
				return fmt.Errorf("filling the disk: %w", err)
			}
			full, err := os.Stat(filler)
			if err != nil {
				return err
			}
			return os.Truncate(filler, full.Size()-20<<10) // a little room: the segment breaks off in the middle
		}
		free = func() error { return os.Remove(filler) }
	} else {
		var whole syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &whole); err != nil {
			return err
		}
		fill = func() error {
			return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 10_000, Max: whole.Max})
		}
		free = func() error { return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &whole) }
	}

	ctx := context.Background()
	a, err := archive.Open(ctx, dir, nil, nil)
	if err != nil {
		return err
	}
	data := bytes.Repeat([]byte("x"), 100_000)
	if err := a.Put(ctx, "ev_1", 1, data); err != nil {
		return fmt.Errorf("before: %w", err)
	}
	if err := fill(); err != nil {
		return err
	}
	err = a.Put(ctx, "ev_1", 2, data)
	domain, ok := errors.AsType[*event.Error](err)
	if !ok || domain.Code != event.CodeUnavailable || !strings.Contains(domain.Message, "disk is full") {
		return fmt.Errorf("on a full disk: %w", err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "events", "ev_1"))
	if err != nil || len(entries) != 1 {
		return fmt.Errorf("left behind: %v, %w", entries, err)
	}
	if err := free(); err != nil {
		return err
	}
	if err := a.Put(ctx, "ev_1", 2, data); err != nil {
		return fmt.Errorf("with room again: %w", err)
	}
	for n := range uint64(2) {
		if got, err := a.Segment(ctx, "ev_1", n+1); err != nil || !bytes.Equal(got, data) {
			return fmt.Errorf("segment %d has %d bytes: %w", n+1, len(got), err)
		}
	}
	return a.Close()
}
