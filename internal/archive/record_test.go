package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"earshot/internal/archive"
	"earshot/internal/event"
	"earshot/internal/timeline"
)

func contextWithCancel(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithCancel(t.Context())
}

// fault is what a shelf does to a write.
type fault int

const (
	none      fault = iota
	notStored       // fails before the commit point
	stored          // fails after it: an error, but the blob is there
)

// memory is a shelf with faults, for time that doesn't pass.
type memory struct {
	mu    sync.Mutex
	blobs map[string][]byte
	puts  int
	next  func(put int) fault // none if nil
	read  error               // what every read gives
}

var errDisk = errors.New("the disk is on fire")

func (m *memory) Put(_ context.Context, key string, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := none
	if m.next != nil {
		f = m.next(m.puts)
	}
	m.puts++
	if f == notStored {
		return errDisk
	}
	if _, ok := m.blobs[key]; !ok {
		m.blobs[key] = bytes.Clone(data)
	}
	if f == stored {
		return errDisk
	}
	return nil
}

func (m *memory) Get(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.read != nil {
		return nil, m.read
	}
	data, ok := m.blobs[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return data, nil
}

func (m *memory) Keys(_ context.Context, prefix string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var keys []string
	for k := range m.blobs {
		if strings.HasPrefix(k, prefix) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

func (m *memory) Close() error { return nil }

func onMemory(m *memory) opened {
	m.blobs = map[string][]byte{}
	o := opened{reg: prometheus.NewRegistry(), log: new(bytes.Buffer)}
	o.Archive = archive.New(m, logTo(o.log), o.reg)
	return o
}

// speak makes the frames of a stretch as a stage does: one every 20 ms.
func speak(t *testing.T, tl *timeline.Timeline, from uint64, d time.Duration) (to uint64) {
	t.Helper()
	for n := from; n < from+uint64(d/event.FrameDuration); n++ {
		time.Sleep(event.FrameDuration)
		if err := tl.Append(timeline.Frame{Number: n, Epoch: 1, Packet: packet(n)}); err != nil {
			t.Fatal(err)
		}
	}
	return from + uint64(d/event.FrameDuration)
}

// Faults on either side of the commit point, and of several lengths. Up to what the ring remembers nothing is lost.
func TestRecordThroughFaults(t *testing.T) {
	for _, c := range []struct {
		name   string
		fault  fault
		during time.Duration // from second 10 on
		lose   bool
	}{
		{"none", none, 0, false},
		{"not stored, 3 s", notStored, 3 * time.Second, false},
		{"stored but failed, 3 s", stored, 3 * time.Second, false},
		{"not stored, 45 s", notStored, 45 * time.Second, false},
		{"stored but failed, 45 s", stored, 45 * time.Second, false},
		{"not stored, 3 min", notStored, 3 * time.Minute, true},
		{"stored but failed, 3 min", stored, 3 * time.Minute, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				m := &memory{next: func(int) fault {
					if since := time.Since(began); since > 10*time.Second && since < 10*time.Second+c.during {
						return c.fault
					}
					return none
				}}
				a := onMemory(m)
				tl := newTimeline(t)
				recorded := make(chan error, 1)
				go func() { recorded <- a.Record(t.Context(), "ev_1", tl, 0) }()
				const seconds = 300
				speak(t, tl, 0, seconds*time.Second)
				tl.Close()
				if err := <-recorded; err != nil {
					t.Fatal(err)
				}
				have := len(m.blobs)
				lost := int(a.count(t, "earshot_archive_segments_lost_total", "overrun"))
				if have+lost != seconds/2 {
					t.Errorf("%d segments stored and %d lost of %d", have, lost, seconds/2)
				}
				if (lost > 0) != c.lose {
					t.Errorf("%d segments lost", lost)
				}
				// The one in hand, the ring's minute, and what the last wait may take.
				if most := int(c.during/timeline.SegmentDuration) - 30 + 4; c.lose && lost > most {
					t.Errorf("%d segments lost, at most %d should be", lost, most)
				}
				lines := 0
				if c.during > 0 {
					lines = 2 // it failed; it works
				}
				if c.lose {
					lines++ // what is lost
				}
				if n := strings.Count(a.log.String(), "\n"); n != lines {
					t.Errorf("%d log lines, want %d:\n%s", n, lines, a.log)
				}
				r, err := a.Replay(t.Context(), "ev_1", origin)
				if err != nil {
					t.Fatal(err)
				}
				if want := time.Duration(have) * timeline.SegmentDuration; r.Duration != want {
					t.Errorf("the replay lasts %v, want %v", r.Duration, want)
				}
			})
		})
	}
}

// The program ends while the store fails: Record gives up with it, and says what that costs.
func TestRecordStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := onMemory(&memory{next: func(int) fault { return notStored }})
		tl := newTimeline(t)
		ctx, cancel := contextWithCancel(t)
		recorded := make(chan error, 1)
		go func() { recorded <- a.Record(ctx, "ev_1", tl, 0) }()
		speak(t, tl, 0, 5*time.Second)
		cancel()
		if err := <-recorded; !errors.Is(err, context.Canceled) {
			t.Fatalf("record: %v", err)
		}
		if n := a.count(t, "earshot_archive_segments_lost_total", "stopped"); n != 2 {
			t.Errorf("counted %v times", n)
		}
		if n := a.count(t, "earshot_archive_write_failures_total", "other"); n < 4 || n > 20 {
			t.Errorf("%v tries in 3 seconds", n)
		}
	})
}

// Record ends with ctx also while it waits for audio.
func TestRecordCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := onMemory(&memory{})
		tl := newTimeline(t)
		ctx, cancel := contextWithCancel(t)
		recorded := make(chan error, 1)
		go func() { recorded <- a.Record(ctx, "ev_1", tl, 0) }()
		speak(t, tl, 0, 3*time.Second)
		synctest.Wait()
		cancel()
		if err := <-recorded; !errors.Is(err, context.Canceled) {
			t.Fatalf("record: %v", err)
		}
		if n := a.count(t, "earshot_archive_segments_stored_total", ""); n != 1 {
			t.Errorf("%v segments", n)
		}
	})
}

// A store that can't be read now is asked again; what it gives then is whole.
func TestReplayUnreadable(t *testing.T) {
	m := &memory{}
	a := onMemory(m)
	for i, data := range segments(t, 3) {
		if err := a.Put(t.Context(), "ev_1", uint64(i), data); err != nil {
			t.Fatal(err)
		}
	}
	m.read = errDisk
	if _, err := a.Replay(t.Context(), "ev_1", origin); event.CodeOf(err) != event.CodeUnavailable {
		t.Fatalf("an unreadable store: %v", err)
	}
	if _, err := a.Segment(t.Context(), "ev_1", 0); event.CodeOf(err) != event.CodeUnavailable || !errors.Is(err, errDisk) {
		t.Fatalf("an unreadable segment: %v", err)
	}
	m.read = nil
	if r, err := a.Replay(t.Context(), "ev_1", origin); err != nil || r.Segments != 3 {
		t.Fatal(r, err)
	}
	if n := a.count(t, "earshot_archive_segments_skipped_total", "unreadable"); n != 3 {
		t.Errorf("counted %v times", n)
	}
}

// More replays than are remembered: all are right.
func TestManyReplays(t *testing.T) {
	a := onMemory(&memory{})
	data := segments(t, 2)
	for i := range 100 {
		for n, d := range data {
			if err := a.Put(t.Context(), fmt.Sprintf("ev_%d", i), uint64(n), d); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range 200 {
		if r, err := a.Replay(t.Context(), fmt.Sprintf("ev_%d", i%100), origin); err != nil || r.Segments != 2 {
			t.Fatal(r, err)
		}
	}
}
