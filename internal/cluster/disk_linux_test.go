package cluster_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"earshot/internal/cluster"
	"earshot/internal/event"
	"earshot/internal/rig/trace"
)

// Some tests need a process of their own: one that is traced, killed, or has a bad disk. It is this test binary again, told its
// role by the environment.
const (
	roleKey  = "EARSHOT_CLUSTER_ROLE"
	dirKey   = "EARSHOT_CLUSTER_DIR"
	mountKey = "EARSHOT_CLUSTER_MOUNT"
)

func TestMain(m *testing.M) {
	roles := map[string]func(dir string) error{
		"once": createOnce, "forever": writeForever, "full": fillUp, "faults": writeThroughFaults, "readonly": openReadOnly,
	}
	role := os.Getenv(roleKey)
	if role == "" {
		os.Exit(m.Run())
	}
	if err := roles[role](os.Getenv(dirKey)); err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		os.Exit(1)
	}
}

func child(t *testing.T, role, dir string, before ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	args := append(before, self)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), roleKey+"="+role, dirKey+"="+dir)
	cmd.Stderr = t.Output()
	cmd.WaitDelay = time.Second
	return cmd
}

func start(dir string) (*cluster.Cluster, error) {
	return cluster.Open(context.Background(), cluster.Config{Dir: dir, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
}

func createOnce(dir string) error {
	c, err := start(dir)
	if err != nil {
		return err
	}
	fmt.Println("BEGIN")
	_, err = c.CreateEvent(context.Background(), town("traced-event"))
	fmt.Println("END")
	return errors.Join(err, c.Close(context.Background()))
}

// What is acknowledged is on disk. After the folders above were synced, and between the start of CreateEvent and its return: the
// record's bytes go to the bucket's block file, then that file is synced, then the folder in which it is new. Each step is
// complete before the next begins. The page cache would hide a missing sync from any test but a trace.
func TestSyncedBeforeReturn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	log := filepath.Join(t.TempDir(), "trace")
	cmd := child(t, "once", dir, "strace", "-f", "-y", "-o", log, "-s", "512", "-e", "trace=write,pwrite64,writev,fsync,fdatasync")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	for _, steps := range [][]string{
		{`fsync(*` + filepath.Dir(dir) + `>`, `"BEGIN`},
		{`fsync(*` + dir + `/nats>`, `"BEGIN`},
		{`fsync(*/$G/streams>`, `"BEGIN`},
		{`fsync(*/KV_events>`, `"BEGIN`},
		{`"BEGIN`, `pwrite64(*/KV_events/msgs/1.blk>*traced-event`, `fsync(*/KV_events/msgs/1.blk>`, `fsync(*/KV_events/msgs>`, `"END`},
	} {
		rest := text
		for _, step := range steps {
			var ok bool
			if rest, ok = trace.After(rest, step); !ok {
				t.Errorf("of %q, no %s in its place in the trace:\n%s", steps, step, text)
				break
			}
		}
	}
}

// writeForever writes records of all kinds, from several goroutines, and says of each that it was acknowledged.
func writeForever(dir string) error {
	ctx := context.Background()
	c, err := start(dir)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf(format+"\n", args...)
	}
	fail := make(chan error)
	for w := range 3 {
		go func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("r-%d-%d", w, i)
				lease, err := c.Acquire(ctx, fmt.Sprint("ev_", w))
				if err == nil {
					say("lease %d %d", w, lease.Epoch())
					_, err = c.CreateEvent(ctx, town(name))
				}
				if err == nil {
					say("event %s", name)
					_, err = c.UpdateEvent(ctx, name, func(e *event.Event) error { e.Phase = event.Live; return nil })
				}
				if err == nil {
					say("live %s", name)
					err = putSession(c, ctx, name, event.Session{Expires: time.Now().Add(time.Hour)})
				}
				if err == nil {
					say("session %s", name)
				}
				if err == nil && i%2 == 1 {
					if err = c.DeleteSession(ctx, name); err == nil {
						say("deleted %s", name)
					}
				}
				if err != nil {
					fail <- err
				}
			}
		}()
	}
	return <-fail
}

// Killed at any moment, the store has all that it acknowledged, and epochs go on rising.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	for round := range 3 {
		cmd := child(t, "forever", filepath.Join(dir, fmt.Sprint(round)))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var said []string
		for lines := bufio.NewScanner(out); lines.Scan(); {
			said = append(said, lines.Text())
			if len(said) == 37*(round+1) {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("it was not killed")
		}
		c := open(t, filepath.Join(dir, fmt.Sprint(round)))
		wantAll(t, c, said)
		shut(t, c)
	}
}

// wantAll checks that what writeForever said is so.
func wantAll(t *testing.T, c *cluster.Cluster, said []string) {
	t.Helper()
	ctx := t.Context()
	for _, line := range said {
		var what, name string
		var epoch uint64
		if _, err := fmt.Sscan(line, &what, &name); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		var err error
		switch what {
		case "event":
			_, err = c.Event(ctx, name)
		case "live":
			var e event.Event
			if e, err = c.Event(ctx, name); err == nil && e.Phase != event.Live {
				err = fmt.Errorf("the event is %s", e.Phase)
			}
		case "session":
			if _, err = c.Session(ctx, name); event.CodeOf(err) == event.CodeNotFound && name[len(name)-1]%2 == 1 {
				err = nil // its deletion was under way, or is below
			}
		case "deleted":
			if _, err = c.Session(ctx, name); event.CodeOf(err) == event.CodeNotFound {
				err = nil
			} else {
				err = errors.New("it is still there")
			}
		case "lease":
			var l *cluster.Lease
			if _, err = fmt.Sscan(line, &what, &name, &epoch); err == nil {
				if l, err = c.Acquire(ctx, "ev_"+name); err == nil && l.Epoch() <= epoch {
					err = fmt.Errorf("epoch %d after it", l.Epoch())
				}
			}
		default:
			err = errors.New("unknown")
		}
		if err != nil {
			t.Errorf("acknowledged %q: %v", line, err)
		}
	}
}

// The disk refuses calls, on either side of the commit point: strace lets a write fail (then the record is not stored), or a sync
// of the block file or of its folder (then it is there, and nobody was promised it). The store says so, comes back by itself, and
// has all that it acknowledged, also for the process after it.
func TestFaults(t *testing.T) {
	const folder = "nats/jetstream/$G/streams/KV_events/msgs"
	for _, c := range []struct{ name, path, fault string }{
		{"write, disk full", folder + "/1.blk", "pwrite64:error=ENOSPC:when=2+5"},
		{"write, disk broken", folder + "/1.blk", "pwrite64:error=EIO:when=3+6"},
		{"sync of the file, disk full", folder + "/1.blk", "fsync:error=ENOSPC:when=2+5"},
		{"sync of the file, disk broken", folder + "/1.blk", "fsync:error=EIO:when=3+6"},
		{"sync of the folder, disk broken", folder, "fsync:error=EIO:when=4+7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cmd := child(t, "faults", dir, "strace", "-f", "-o", "/dev/null", "-P", filepath.Join(dir, c.path),
				"-e", "trace=pwrite64,fsync", "-e", "inject="+c.fault)
			var out bytes.Buffer
			cmd.Stdout = &out
			if err := cmd.Run(); err != nil {
				t.Fatal(err)
			}
			said := strings.Fields(out.String())
			if len(said) < 20 || !slices.Contains(said, "refused") {
				t.Fatalf("said %q", said)
			}
			s := open(t, dir)
			for _, slug := range said {
				if slug == "refused" {
					continue
				}
				if _, err := s.Event(t.Context(), slug); err != nil {
					t.Errorf("acknowledged %s: %v", slug, err)
				}
			}
		})
	}
}

// writeThroughFaults says which events were acknowledged, in a store that fails now and then.
func writeThroughFaults(dir string) error {
	ctx := context.Background()
	c, err := start(dir)
	if err != nil {
		return err
	}
	var acknowledged []string
	refused := 0
	for i := 0; i < 20 || refused == 0; i++ {
		if i == 1000 {
			return errors.New("no fault came")
		}
		slug := fmt.Sprintf("event-%d", i)
		_, err := c.CreateEvent(ctx, town(slug))
		if err == nil {
			acknowledged = append(acknowledged, slug)
			fmt.Println(slug)
		} else {
			fmt.Println("refused")
			refused++
			if err := wantRefusal(err, "cannot store anything at the moment"); err != nil {
				return err
			}
			if err := untilReady(c); err != nil {
				return err
			}
		}
		for _, slug := range acknowledged { // readable at all times
			if _, err := c.Event(ctx, slug); err != nil {
				return fmt.Errorf("%s after %d events: %w", slug, i, err)
			}
		}
	}
	return c.Close(ctx)
}

func wantRefusal(err error, words string) error {
	e, ok := errors.AsType[*event.Error](err)
	if !ok || e.Code != event.CodeUnavailable || !strings.Contains(e.Message, words) {
		return fmt.Errorf("want unavailable and %q: %w", words, err)
	}
	return nil
}

func untilReady(c *cluster.Cluster) error {
	for deadline := time.Now().Add(20 * time.Second); c.Ready() != nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("the store did not come back: %w", c.Ready())
		}
	}
	return nil
}

// inNamespace lets a child mount what it likes, where this user may do that.
func inNamespace(t *testing.T, cmd *exec.Cmd) bool {
	t.Helper()
	cmd.Env = append(cmd.Env, mountKey+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	if err := cmd.Start(); err != nil {
		t.Logf("no namespace of one's own can be had here: %v", err)
		return false
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	return true
}

// A disk that is really full, where this user may mount a small one, and in any case one that refuses bytes half-way through a
// file (RLIMIT_FSIZE).
func TestFullDisk(t *testing.T) {
	t.Run("file size limit", func(t *testing.T) {
		t.Parallel()
		if err := child(t, "full", t.TempDir()).Run(); err != nil {
			t.Error(err)
		}
	})
	t.Run("small disk", func(t *testing.T) {
		t.Parallel()
		inNamespace(t, child(t, "full", t.TempDir()))
	})
}

func fillUp(dir string) error {
	var fill, free func() error
	if os.Getenv(mountKey) != "" {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
			return fmt.Errorf("mount: %w", err)
		}
		filler := filepath.Join(dir, "filler")
		fill = func() error {
			f, err := os.Create(filler)
			if err != nil {
				return err
			}
			_, err = io.CopyN(f, zeros{}, 8<<20)
			if !errors.Is(err, syscall.ENOSPC) {
				return fmt.Errorf("filling the disk: %w", err)
			}
			size, err := f.Seek(0, io.SeekEnd)
			if err != nil {
				return err
			}
			return errors.Join(f.Truncate(size-20<<10), f.Close()) // a little room: some record breaks off in the middle
		}
		free = func() error { return os.Remove(filler) }
	} else {
		var whole syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &whole); err != nil {
			return err
		}
		fill = func() error {
			return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 30_000, Max: whole.Max})
		}
		free = func() error { return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &whole) }
	}

	ctx := context.Background()
	c, err := start(dir)
	if err != nil {
		return err
	}
	long := func(slug string) event.Event {
		e := town(slug)
		e.Description = strings.Repeat("x", 3000)
		return e
	}
	acknowledged, epoch, n := map[string]bool{}, uint64(0), 0
	for round := range 3 {
		lease, err := c.Acquire(ctx, "ev_1")
		if err != nil {
			return fmt.Errorf("round %d, lease: %w", round, err)
		}
		if lease.Epoch() <= epoch {
			return fmt.Errorf("round %d: epoch %d after %d", round, lease.Epoch(), epoch)
		}
		epoch = lease.Epoch()
		if err := fill(); err != nil {
			return err
		}
		for err == nil {
			n++
			slug := fmt.Sprintf("event-%d", n)
			if _, err = c.CreateEvent(ctx, long(slug)); err == nil {
				acknowledged[slug] = true
			}
		}
		if err := wantRefusal(err, "disk is full"); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		if err := wantRefusal(c.Ready(), "cannot store"); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		// Refused at once from now on, also while it tries to come back; and all is readable.
		for range 3 {
			began := time.Now()
			if err := wantRefusal(c.PutCount(ctx, "ev_1", event.Count{}), "cannot store"); err != nil {
				return err
			}
			if took := time.Since(began); took > time.Second {
				return fmt.Errorf("a refusal took %v", took)
			}
			time.Sleep(300 * time.Millisecond)
		}
		for slug := range acknowledged {
			if _, err := c.Event(ctx, slug); err != nil {
				return fmt.Errorf("read %s on a full disk: %w", slug, err)
			}
		}
		select {
		case <-lease.Lost():
			return errors.New("a full disk took the lease away")
		default:
		}
		if round == 1 { // somebody starts the server anew on the full disk, and hears why it can't
			if err := c.Close(ctx); err != nil {
				return err
			}
			if _, err := start(dir); err == nil || !strings.Contains(err.Error(), "the disk is full") {
				return fmt.Errorf("start on a full disk: %w", err)
			}
		}
		if err := free(); err != nil {
			return err
		}
		if round == 1 {
			if c, err = start(dir); err != nil {
				return fmt.Errorf("start with room again: %w", err)
			}
		}
		if err := untilReady(c); err != nil {
			return err
		}
		for range 10 {
			n++
			slug := fmt.Sprintf("event-%d", n)
			if _, err := c.CreateEvent(ctx, long(slug)); err != nil {
				return fmt.Errorf("with room again: %w", err)
			}
			acknowledged[slug] = true
		}
	}
	if err := c.Close(ctx); err != nil {
		return err
	}
	if c, err = start(dir); err != nil {
		return err
	}
	for slug := range acknowledged {
		if _, err := c.Event(ctx, slug); err != nil {
			return fmt.Errorf("acknowledged %s: %w", slug, err)
		}
	}
	return c.Close(ctx)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// A disk mounted read-only is told before anything starts, and one that becomes so is told to whoever wants to write.
func TestReadOnlyDisk(t *testing.T) { inNamespace(t, child(t, "readonly", t.TempDir())) }

func openReadOnly(dir string) error {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	c, err := start(dir)
	if err != nil {
		return err
	}
	ctx := context.Background()
	if _, err := c.CreateEvent(ctx, town("kept")); err != nil {
		return err
	}
	if err := c.Close(ctx); err != nil {
		return err
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("remount: %w", err)
	}
	_, err = start(dir)
	if err == nil || !strings.Contains(err.Error(), "cannot be written") || !strings.Contains(err.Error(), dir) {
		return fmt.Errorf("start on a read-only disk: %w", err)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, ""); err != nil {
		return fmt.Errorf("remount: %w", err)
	}
	if c, err = start(dir); err != nil {
		return err
	}
	if _, err := c.Event(ctx, "kept"); err != nil {
		return err
	}
	return c.Close(ctx)
}
