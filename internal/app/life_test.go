package app_test

import (
	"bufio"
	"context"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"earshot/internal/app"
)

func writeFile(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func segments(t *testing.T, dir string) (n int) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, "events"), func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".m4s") {
			n++
		}
		return nil
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return n
}

// A killed process loses at most the open segment; the next start goes on with the same event, on the same timeline, further on.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	n, cmd := child(t, dir, "")
	n.event("killed", 0, nil)
	n.do("POST", "/api/v1/events/killed/live", nil, nil)
	origin := n.get("killed").Origin
	await(t, 15*time.Second, "two segments on disk", func() bool { return segments(t, dir) >= 2 })
	before := segments(t, dir)
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()

	n, cmd = child(t, dir, "")
	ev := n.get("killed")
	if ev.Phase != "live" || !ev.Origin.Equal(origin) {
		t.Fatalf("after the kill the event is %s with origin %v, want live and %v", ev.Phase, ev.Origin, origin)
	}
	await(t, 15*time.Second, "two more segments", func() bool { return segments(t, dir) >= before+2 })
	_, playlist := n.try("GET", "/e/killed/hls/main.m3u8", nil)
	if !strings.Contains(string(playlist), "#EXTINF") {
		t.Errorf("the live playlist has no segment:\n%s", playlist)
	}
	n.do("POST", "/api/v1/events/killed/end", nil, nil)
	await(t, 15*time.Second, "the replay", func() bool { return n.get("killed").Replay != nil })
	_, playlist = n.try("GET", "/e/killed/hls/main.m3u8", nil)
	if got := strings.Count(string(playlist), "#EXT-X-DISCONTINUITY\n"); got != 1 {
		t.Errorf("the replay has %d discontinuities, want 1:\n%s", got, playlist)
	}
	if got := strings.Count(string(playlist), "#EXTINF"); got < before+2 {
		t.Errorf("the replay has %d segments, %d were on disk before the kill", got, before)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

// An orderly end closes and stores the open segment, and tells listeners to come back and when.
func TestLeavesInOrder(t *testing.T) {
	dir := t.TempDir()
	n := start(t, dir, nil)
	n.event("order", 0, nil)
	n.do("POST", "/api/v1/events/order/live", nil, nil)
	resp, err := http.Get(n.url + "/e/order/cues")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	time.Sleep(500 * time.Millisecond) // well inside the first segment
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(resp.Body); s.Scan(); {
			lines <- s.Text()
		}
	}()
	n.stop()
	if got := segments(t, dir); got != 1 {
		t.Errorf("%d segments on disk, want the one that was open", got)
	}
	var notice bool
	for line := range lines {
		notice = notice || strings.HasPrefix(line, "data:") && strings.Contains(line, `"restart"`) && strings.Contains(line, `"back_in_s":5`)
	}
	if !notice {
		t.Error("listeners were not told that the server restarts")
	}
}

// Of an event that is not recorded nothing of the audio reaches the disk.
func TestNotRecorded(t *testing.T) {
	dir := t.TempDir()
	n := start(t, dir, nil)
	n.event("quiet", 0, map[string]any{"recorded": false})
	n.do("POST", "/api/v1/events/quiet/live", nil, nil)
	time.Sleep(2500 * time.Millisecond) // past the first segment
	n.do("POST", "/api/v1/events/quiet/end", nil, nil)
	n.stop()
	if got := segments(t, dir); got != 0 {
		t.Errorf("%d segments on disk", got)
	}
}

// Doors open by themselves, the event goes live by itself at its minute, and ends by itself when nobody is on stage.
func TestByItself(t *testing.T) {
	n := start(t, t.TempDir(), nil)
	n.event("clockwork", 6*time.Second, map[string]any{"auto_live": true, "idle_end_s": 10})
	await(t, 5*time.Second, "doors", func() bool { return n.get("clockwork").Phase == "doors" })
	await(t, 5*time.Second, "silence to listen to", func() bool {
		status, _ := n.try("GET", "/e/clockwork/hls/main.m3u8", nil)
		return status == http.StatusOK
	})
	await(t, 20*time.Second, "live", func() bool { return n.get("clockwork").Phase == "live" })
	await(t, 40*time.Second, "ended", func() bool { return n.get("clockwork").Phase == "ended" })
}

// While the room of an event that has ended is still there for its players, it takes no turns, and says so at once.
func TestEndedTwice(t *testing.T) {
	n := start(t, t.TempDir(), nil)
	n.event("over", 0, nil)
	n.do("POST", "/api/v1/events/over/live", nil, nil)
	n.do("POST", "/api/v1/events/over/end", nil, nil)
	asked := time.Now()
	status, b := n.try("POST", "/api/v1/events/over/end", nil)
	if took := time.Since(asked); took > 4*time.Second { // the room stays for 6 s
		t.Errorf("the answer took %v", took)
	}
	if status != http.StatusConflict || !strings.Contains(string(b), `"phase":"ended"`) {
		t.Errorf("%d %s", status, b)
	}
	if status, b = n.try("GET", "/e/over/live.mp4", nil); status != http.StatusConflict || !strings.Contains(string(b), `"phase":"ended"`) {
		t.Errorf("a late player is told %d %s", status, b)
	}
}

// Starts that cannot work say why, in words that name the setting.
func TestBadStarts(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	takenUDP, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer takenUDP.Close()
	running := start(t, t.TempDir(), nil)

	file := filepath.Join(t.TempDir(), "file")
	writeFile(t, file, nil)
	for _, c := range []struct {
		name   string
		change func(*app.Config)
		says   string
	}{
		{"TCP port taken", func(c *app.Config) { c.Listen = taken.Addr().String() }, "--listen"},
		{"UDP port taken", func(c *app.Config) { c.UDP = takenUDP.LocalAddr().String() }, "--udp"},
		{"not our address", func(c *app.Config) { c.Listen = "192.0.2.1:0" }, "does not have that address"},
		{"data in use", func(c *app.Config) { c.Data = running.dir }, "in use"},
		{"data is a file", func(c *app.Config) { c.Data = file }, file},
		{"data below a file", func(c *app.Config) { c.Data = file + "/data" }, file},
		{"data read-only", func(c *app.Config) { c.Data = "/proc/earshot" }, "/proc"},
		{"foreign key", func(c *app.Config) { c.Data = t.TempDir(); writeFile(t, c.Data+"/operator.key", []byte("x\n")) }, "operator.key"},
		{"demo in public", func(c *app.Config) { c.Demo = true; c.Listen = "0.0.0.0:0" }, "--demo"},
	} {
		cfg := config(t.TempDir(), "", nil)
		c.change(&cfg)
		cfg.Log = discard
		a, err := app.New(context.Background(), cfg)
		if err == nil {
			t.Errorf("%s: started", c.name)
			ended, stop := context.WithCancel(context.Background())
			stop()
			_ = a.Run(ended)
			continue
		}
		if !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %q does not say %q", c.name, err, c.says)
		}
	}
}
