package web_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing/fstest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"earshot/internal/archive"
	"earshot/internal/cluster"
	"earshot/internal/event"
	"earshot/internal/observatory"
	"earshot/internal/rig"
	"earshot/internal/stage"
	"earshot/internal/timeline"
	"earshot/internal/web"
)

// world is a server with everything real behind it but WebRTC and the listeners' engine: those are the edges, and their place
// is taken by the two small types at the end of this file.
type world struct {
	store    *rig.FaultyStore
	cluster  *cluster.Cluster
	archive  *archive.Archive
	operator string // secret
	server   *httptest.Server
	log      *rig.Log
	ready    error
	stop     context.CancelFunc
	run      sync.WaitGroup

	mu    sync.Mutex
	later time.Duration // how far the clock of the server is ahead
	still bool          // rooms opened from now on get their frames from the test
	rooms map[string]*testRoom
}

type testRoom struct {
	web.Room
	running bool
	frame   uint64        // the next that a still room gets
	stored  chan struct{} // closed when the archive has all
}

// fataler is what newWorld needs of a test, a benchmark or a script.
type fataler interface{ Fatal(args ...any) }

// newWorld starts one; close ends it.
func newWorld(t fataler, dir string) *world { return newWorldWith(t, dir, func(*web.Config) {}) }

func newWorldWith(t fataler, dir string, change func(*web.Config)) *world {
	ctx, cancel := context.WithCancel(context.Background())
	w := &world{stop: cancel, rooms: map[string]*testRoom{}, operator: web.NewSecret(web.OperatorSecret), log: &rig.Log{}}
	log := slog.New(slog.NewTextHandler(w.log, nil))
	var err error
	if w.cluster, err = cluster.Open(ctx, cluster.Config{Dir: filepath.Join(dir, "store"), Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	w.store = &rig.FaultyStore{Store: w.cluster}
	reg := prometheus.NewRegistry()
	if w.archive, err = archive.Open(ctx, filepath.Join(dir, "events"), log, reg); err != nil {
		t.Fatal(err)
	}
	cfg := web.Config{
		Store: w.store, House: w, Voices: &testVoices{}, Listeners: testListeners{}, Replays: testReplays{w.archive}, Pacer: &testPacer{}, UI: testUI,
		OperatorKeyHash: web.HashSecret(w.operator), CrowdKey: []byte("thirty-two bytes of a test's key"), Metrics: promhttp.HandlerFor(reg, promhttp.HandlerOpts{}), Registerer: reg,
		Ready: func() error { w.mu.Lock(); defer w.mu.Unlock(); return w.ready }, Log: log, Now: w.now,
	}
	change(&cfg)
	handler, err := web.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.server = httptest.NewUnstartedServer(nil)
	w.server.Config = web.NewServer(handler)
	w.server.Start()
	return w
}

func (w *world) close() {
	w.stop()
	w.server.Close()
	w.mu.Lock()
	rooms := w.rooms
	w.mu.Unlock()
	for _, r := range rooms {
		r.Timeline.Close()
	}
	w.run.Wait()
	_ = w.archive.Close()
	_ = w.cluster.Close(context.Background())
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.later)
}

func (w *world) Room(slug string) (web.Room, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r, ok := w.rooms[slug]
	if !ok {
		return web.Room{}, false
	}
	return r.Room, true
}

// Turn does what a house must: the store first, the room after.
func (w *world) Turn(ctx context.Context, slug string, to event.Phase) (event.Event, error) {
	now := time.Now().UTC()
	e, err := w.store.UpdateEvent(ctx, slug, func(e *event.Event) error {
		if err := e.Phase.Turn(to); err != nil {
			return err
		}
		e.Phase = to
		if to.Open() && e.Origin.IsZero() {
			e.Origin = now
		}
		switch to {
		case event.Live:
			e.LiveAt = now
		case event.Ended:
			e.EndedAt = now
		}
		return nil
	})
	if err != nil {
		// A write whose acknowledgement was lost: a house sees it in the store, and follows.
		if e, rerr := w.store.Event(ctx, slug); rerr == nil && e.Phase == to && to.Open() {
			if _, open := w.Room(slug); !open {
				_ = w.openRoom(e)
			}
		}
		return event.Event{}, err
	}
	w.mu.Lock()
	room := w.rooms[slug]
	w.mu.Unlock()
	switch {
	case room == nil && to.Open():
		return e, w.openRoom(e)
	case room == nil:
		return e, nil
	case room.running:
		if err := room.Stage.Turn(ctx, to, now); err != nil {
			return event.Event{}, err
		}
	case to.Over():
		room.Timeline.End()
	}
	if to.Over() {
		<-room.stored
		w.mu.Lock()
		delete(w.rooms, slug)
		w.mu.Unlock()
	}
	return e, nil
}

func (w *world) openRoom(e event.Event) error {
	tl, err := timeline.New(timeline.Config{Origin: e.Origin})
	if err != nil {
		return err
	}
	audience := observatory.NewAudience(event.Count{})
	st, err := stage.New(stage.Config{Event: e, Timeline: tl, Audience: audience})
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	room := &testRoom{
		Room: web.Room{Event: e, Stage: st, Timeline: tl, Audience: audience}, running: !w.still, stored: make(chan struct{}),
	}
	w.rooms[e.Slug] = room
	ctx, cancel := context.WithCancel(context.Background())
	w.run.Go(func() {
		defer cancel()
		defer close(room.stored)
		if room.running {
			w.run.Go(func() { _ = st.Run(ctx) })
		}
		if e.Recorded {
			_ = w.archive.Record(context.Background(), e.ID, tl, 0)
			return
		}
		for !tl.Closed() {
			<-tl.PartClosed()
		}
	})
	return nil
}

// silence is Opus for 20 ms of it.
var silence = []byte{0xf8, 0xff, 0xfe}

// frames gives a still room n more.
func (w *world) frames(slug string, n int) error {
	w.mu.Lock()
	room := w.rooms[slug]
	w.mu.Unlock()
	if room == nil || room.running {
		return fmt.Errorf("%s is no still room", slug)
	}
	for range n {
		if err := room.Timeline.Append(timeline.Frame{Number: room.frame, Packet: silence}); err != nil {
			return err
		}
		room.frame++
	}
	return nil
}

var testUI = fstest.MapFS{
	"home.html":             {Data: []byte("<!doctype html><title>Home</title>")},
	"event.html":            {Data: []byte(`<!doctype html><title>__TITLE__</title><meta name="description" content="__DESCRIPTION__"><link rel="canonical" href="__URL__">`)},
	"studio.html":           {Data: []byte("<!doctype html><title>Studio: __TITLE__</title>")},
	"operator.html":         {Data: []byte("<!doctype html><title>Operator</title>")},
	"docs.html":             {Data: []byte("<!doctype html><title>API</title>")},
	"404.html":              {Data: []byte("<!doctype html><title>Not here</title>")},
	"assets/icon-77.svg":    {Data: []byte("<svg/>")},
	"assets/app-1a2b.js":    {Data: []byte("console.log('plain')")},
	"assets/app-1a2b.js.br": {Data: []byte("brotli")},
	"assets/app-1a2b.js.gz": {Data: []byte("gzipped")},
	"assets/style-3c.css":   {Data: bytes.Repeat([]byte("a{color:red}"), 50)},
}

type testReplays struct{ *archive.Archive }

func (r testReplays) Replay(ctx context.Context, eventID string, origin time.Time) (web.Replay, error) {
	rec, err := r.Archive.Replay(ctx, eventID, origin)
	if err != nil {
		return web.Replay{}, err
	}
	return web.Replay{Playlist: rec.Playlist(), Duration: rec.Duration, Segments: rec.Segments, WriteOpus: rec.WriteOpus}, nil
}

// testVoices takes the place of WebRTC: an offer is good if it begins as SDP does, and its sender then has a seat on the real stage.
type testVoices struct {
	mu   sync.Mutex
	ends map[string]func()
}

type deaf struct{}

func (deaf) Hear(uint64, []byte) {}
func (deaf) Close(stage.Reason)  {}

func (v *testVoices) keep(offer []byte, end func()) (string, []byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ends == nil {
		v.ends = make(map[string]func())
	}
	id := web.NewSecret("session-")
	v.ends[id] = end
	return id, append([]byte("v=0\r\ns=answer\r\n"), offer...), nil
}

func (v *testVoices) Speak(ctx context.Context, st *stage.Stage, p event.Person, offer []byte, recvonly bool) (string, []byte, error) {
	if !bytes.HasPrefix(offer, []byte("v=0")) {
		return "", nil, event.Invalid("offer", "This is not SDP.")
	}
	if bytes.Contains(offer, []byte("panic")) {
		panic("as the test wished")
	}
	seat, err := st.Join(ctx, p, deaf{}, !recvonly)
	if err != nil {
		return "", nil, err
	}
	return v.keep(offer, func() { seat.Leave(stage.Left) })
}

func (v *testVoices) Monitor(ctx context.Context, st *stage.Stage, personID string, offer []byte) (string, []byte, error) {
	stop, err := st.Monitor(ctx, personID, deaf{})
	if err != nil {
		return "", nil, err
	}
	return v.keep(offer, stop)
}

func (v *testVoices) End(id string) bool {
	v.mu.Lock()
	end := v.ends[id]
	delete(v.ends, id)
	v.mu.Unlock()
	if end == nil {
		return false
	}
	end()
	return true
}

// testPacer remembers what it was told.
type testPacer struct{ pace web.Pace }

func (p *testPacer) Pace() web.Pace { return p.pace }

func (p *testPacer) SetPace(pace web.Pace) error {
	if pace.Push != 0 {
		p.pace.Push = pace.Push
	}
	if pace.WHEP != 0 {
		p.pace.WHEP = pace.WHEP
	}
	return nil
}

// testListeners takes the place of the listeners' engine.
type testListeners struct{}

func (testListeners) WHEP(_ context.Context, _ string, _ *timeline.Timeline, _ *observatory.Audience, offer []byte, packet int) (string, []byte, error) {
	if !bytes.HasPrefix(offer, []byte("v=0")) {
		return "", nil, event.Invalid("offer", "This is not SDP.")
	}
	return "listener", []byte("v=0\r\n"), nil
}

func (testListeners) EndWHEP(id string) bool { return id == "listener" }

func (testListeners) ServeLive(w http.ResponseWriter, r *http.Request, _ string, _ *timeline.Timeline, _ *observatory.Audience) error {
	if r.Header.Get("Upgrade") != "websocket" {
		return event.Invalid("Upgrade", "This address is for WebSockets.")
	}
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return err
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
	return nil
}

func (testListeners) ServeMP4(w http.ResponseWriter, _ *http.Request, _ string, _ *timeline.Timeline, _ *observatory.Audience) error {
	w.Header().Set("Content-Type", "audio/mp4")
	_, _ = io.WriteString(w, "mp4")
	w.(http.Flusher).Flush()
	return nil
}

func (testListeners) ServeOgg(http.ResponseWriter, *http.Request, string, *timeline.Timeline, *observatory.Audience) error {
	return event.Busy("The house is full.")
}

func (testListeners) ServeCues(w http.ResponseWriter, r *http.Request, _ string, _ *timeline.Timeline, _ *observatory.Audience) error {
	if r.URL.Query().Get("fail") != "" {
		return errors.New("a secret of the inside")
	}
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = io.WriteString(w, "id: 1\n\n")
	return nil
}
