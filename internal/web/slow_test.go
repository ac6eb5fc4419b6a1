package web_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"earshot/internal/event"
	"earshot/internal/observatory"
	"earshot/internal/timeline"
	"earshot/internal/web"
)

// oneRoom is a house and all else for tests of time: no store stands behind it, so its events are those it says.
type oneRoom struct {
	web.Store // nil: a test that gets that far fails by its panic
	web.House
	web.Voices
	web.Listeners
	room   web.Room
	event  event.Event
	replay web.Replay
}

func (o *oneRoom) Room(string) (web.Room, bool) { return o.room, o.room.Timeline != nil }

func (o *oneRoom) Event(context.Context, string) (event.Event, error) { return o.event, nil }

func (o *oneRoom) Replay(context.Context, string, time.Time) (web.Replay, error) {
	return o.replay, nil
}

func (o *oneRoom) Segment(context.Context, string, uint64) ([]byte, error) {
	return nil, event.NotFound("There is no such segment.")
}

func (o *oneRoom) handler(t testing.TB) http.Handler {
	t.Helper()
	h, err := web.New(web.Config{Store: o, House: o, Voices: o, Listeners: o, Replays: o, Pacer: &testPacer{}, UI: testUI, Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func openTimeline(t testing.TB) *timeline.Timeline {
	t.Helper()
	tl, err := timeline.New(timeline.Config{Origin: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return tl
}

func fill(t testing.TB, tl *timeline.Timeline, n int) {
	t.Helper()
	for range n {
		if err := tl.Append(timeline.Frame{Number: tl.Head(), Packet: silence}); err != nil {
			t.Fatal(err)
		}
	}
}

func get(h http.Handler, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

// TestPlaylistWaits: a blocking reload is answered when the part is there, not before, and not for ever.
func TestPlaylistWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tl := openTimeline(t)
		h := (&oneRoom{room: web.Room{Timeline: tl, Audience: observatory.NewAudience(event.Count{})}}).handler(t)
		fill(t, tl, 110) // one segment, and half a part
		later := func(path string) (answered chan *httptest.ResponseRecorder) {
			answered = make(chan *httptest.ResponseRecorder, 1)
			go func() { answered <- get(h, path) }()
			synctest.Wait()
			if len(answered) > 0 {
				t.Fatalf("%s was answered before it was there", path)
			}
			return answered
		}
		start := time.Now()
		answered := later("/e/talk/hls/main.m3u8?_HLS_msn=1&_HLS_part=0")
		time.Sleep(300 * time.Millisecond)
		fill(t, tl, 10)
		if w := <-answered; w.Code != 200 || !strings.Contains(w.Body.String(), `URI="part/1.0.m4s"`) || time.Since(start) != 300*time.Millisecond {
			t.Fatalf("after %v: %d %s", time.Since(start), w.Code, w.Body)
		}
		if w := get(h, "/e/talk/hls/part/1.0.m4s"); w.Code != 200 || w.Body.Len() == 0 {
			t.Fatalf("the part: %d", w.Code)
		}

		// The part that is hinted at, by its own address.
		answered = later("/e/talk/hls/part/1.1.m4s")
		fill(t, tl, 20)
		if w := <-answered; w.Code != 200 || !bytes.Contains(w.Body.Bytes(), []byte("moof")) {
			t.Fatalf("the hinted part: %d %s", w.Code, w.Body)
		}

		// Nothing comes any more: after three target durations the server says so.
		for _, path := range []string{"/e/talk/hls/main.m3u8?_HLS_msn=2", "/e/talk/hls/part/1.2.m4s"} {
			start := time.Now()
			w := get(h, path)
			if w.Code != 503 || w.Header().Get("Retry-After") == "" || w.Header().Get("Cache-Control") != "no-store" ||
				time.Since(start) != 6*time.Second {
				t.Errorf("%s: after %v: %d %v %s", path, time.Since(start), w.Code, w.Header(), w.Body)
			}
		}

		// The process leaves: whoever waits is not kept.
		start = time.Now()
		tl.Close()
		if w := get(h, "/e/talk/hls/main.m3u8?_HLS_msn=2"); w.Code != 503 || time.Since(start) != 0 {
			t.Errorf("after %v: %d %s", time.Since(start), w.Code, w.Body)
		}
	})
}

// pipes is a network in memory, so that its deadlines go by the test's clock.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// TestSlowSenders: headers and bodies that trickle in are cut off, each by its own limit; what is a long response is not.
func TestSlowSenders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tl := openTimeline(t)
		h := (&oneRoom{room: web.Room{Timeline: tl, Audience: observatory.NewAudience(event.Count{})}}).handler(t)
		server := web.NewServer(h)
		l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		var run sync.WaitGroup
		run.Go(func() { _ = server.Serve(l) })
		defer run.Wait()
		defer server.Close()
		dial := func(text string) (net.Conn, time.Time) {
			client, theirs := net.Pipe()
			l.conns <- theirs
			if _, err := io.WriteString(client, text); err != nil {
				t.Fatal(err)
			}
			return client, time.Now()
		}

		conn, start := dial("GET / HTTP/1.1\r\nHost: x\r\n")
		if _, err := io.ReadAll(conn); err != nil || time.Since(start) != 10*time.Second {
			t.Errorf("an unfinished header was cut after %v: %v", time.Since(start), err)
		}
		conn.Close()

		conn, start = dial("POST /e/talk/whep HTTP/1.1\r\nHost: x\r\nContent-Type: application/sdp\r\nContent-Length: 100\r\n\r\nv=0")
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != http.StatusRequestTimeout || time.Since(start) != 15*time.Second ||
			res.Header.Get("Content-Type") != "application/problem+json" || !res.Close {
			t.Errorf("an unfinished body: after %v %d %v", time.Since(start), res.StatusCode, res.Header)
		}
		conn.Close()

		// A kept connection that stays silent is let go.
		conn, start = dial("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		if b, err := io.ReadAll(conn); err != nil || time.Since(start) != 2*time.Minute || !bytes.Contains(b, []byte("alive")) {
			t.Errorf("a silent connection was cut after %v: %v %s", time.Since(start), err, b)
		}
		conn.Close()
	})
}

// TestBrokenReplayIsNotWhole: a download that breaks off must look broken; one that cannot begin says why.
func TestBrokenReplayIsNotWhole(t *testing.T) {
	o := &oneRoom{event: event.Event{ID: "ev_1", Slug: "talk", Phase: event.Ended, Recorded: true, Origin: time.Now()}}
	server := httptest.NewServer(o.handler(t))
	defer server.Close()
	for _, wrote := range []bool{false, true} {
		o.replay.WriteOpus = func(_ context.Context, w io.Writer) error {
			if wrote {
				if _, err := w.Write(bytes.Repeat([]byte("OggS"), 100_000)); err != nil {
					return err
				}
			}
			return event.Unavailable("The recording cannot be read at the moment.", errors.New("bad block"))
		}
		res, err := http.Get(server.URL + "/e/talk/replay.opus")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		switch {
		case wrote && (res.StatusCode != 200 || err == nil):
			t.Errorf("a broken download looks whole: %d, %d bytes", res.StatusCode, len(b))
		case !wrote && (err != nil || res.StatusCode != 503 || res.Header.Get("Content-Disposition") != "" ||
			res.Header.Get("Content-Type") != "application/problem+json"):
			t.Errorf("%v %d %v %s", err, res.StatusCode, res.Header, b)
		}
	}
}
