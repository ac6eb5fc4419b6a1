//go:build linux

package crowd_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"earshot/internal/crowd"
	"earshot/internal/mix"
	"earshot/internal/timeline"
)

// fake is a server that does what its test tells it to: mostly what Earshot does, and one thing wrong.
type fake struct {
	*httptest.Server
	tl     *timeline.Timeline
	origin time.Time
	wg     sync.WaitGroup
	stop   chan struct{}
}

// startFake makes one whose programme, a tone, runs in real time.
func startFake(t *testing.T, routes map[string]http.HandlerFunc) *fake {
	t.Helper()
	f := &fake{origin: time.Now().Add(-2 * time.Second), stop: make(chan struct{})}
	var err error
	if f.tl, err = timeline.New(timeline.Config{Origin: f.origin}); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/events/x", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"phase": "live", "origin": f.origin})
	})
	mux.HandleFunc("GET /e/x/hls/seg/{name}", func(w http.ResponseWriter, r *http.Request) {
		var n uint64
		_, _ = fmt.Sscanf(r.PathValue("name"), "%d.m4s", &n)
		seg, err := f.tl.Segment(n)
		if err != nil {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(seg.Bytes())
	})
	for pattern, h := range routes {
		mux.HandleFunc(pattern, h)
	}
	f.Server = httptest.NewServer(mux)
	f.wg.Go(func() { f.speak(t) })
	t.Cleanup(func() {
		close(f.stop)
		f.CloseClientConnections()
		f.Close()
		f.wg.Wait()
	})
	return f
}

// speak makes a frame every 20 ms.
func (f *fake) speak(t *testing.T) {
	enc := tone(t, 440)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		for n := f.tl.Head(); time.Since(f.origin) >= time.Duration(n+1)*20*time.Millisecond; n++ {
			if err := f.tl.Append(timeline.Frame{Number: n, Packet: enc(n)}); err != nil {
				t.Error(err)
				return
			}
		}
		select {
		case <-f.stop:
			return
		case <-tick.C:
		}
	}
}

// tone encodes the frames of a tone that swells once a second, in their order.
func tone(t *testing.T, hertz float64) func(n uint64) []byte {
	enc, err := mix.NewEncoder(32000)
	if err != nil {
		t.Fatal(err)
	}
	pcm, out := make([]float32, 960), make([]byte, 1276)
	return func(n uint64) []byte {
		for i := range pcm {
			s := float64(n)*960 + float64(i)
			pcm[i] = float32(.3 * (1.2 + math.Sin(2*math.Pi*s/48000)) / 2.2 * math.Sin(2*math.Pi*hertz*s/48000))
		}
		size, err := enc.Encode(pcm, out)
		if err != nil {
			t.Error(err)
			return nil
		}
		return append([]byte(nil), out[:size]...)
	}
}

// push is a handler that takes a WebSocket and hands over to talk, which has what a listener is greeted with already sent.
func (f *fake) push(talk func(c net.Conn, next *timeline.Cursor)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
			"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
		send(c, 1, []byte(`{"kind":"hello","origin":"2026-01-01T00:00:00Z","epoch":1,"frame":0,"cadence_ms":200}`))
		send(c, 2, timeline.Init())
		talk(c, f.tl.Cursor(2))
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = bufio.NewReader(c).ReadByte()
	}
}

func send(c net.Conn, op byte, b []byte) {
	head := []byte{0x80 | op, byte(len(b))}
	if len(b) > 125 {
		head = []byte{0x80 | op, 126, byte(len(b) >> 8), byte(len(b))}
	}
	_, _ = c.Write(append(head, b...))
}

// parts sends part after part; edit may change a part's bytes, or return nil to leave it out, until it says that it is enough.
func (f *fake) parts(c net.Conn, cur *timeline.Cursor, edit func(i int, p *timeline.Part) (b []byte, more bool)) {
	for i := 0; ; i++ {
		var p *timeline.Part
		for {
			closing := f.tl.PartClosed()
			var err error
			if p, err = cur.Next(); err == nil {
				break
			}
			select {
			case <-closing:
			case <-f.stop:
				return
			}
		}
		b, more := edit(i, p)
		if b != nil {
			send(c, 2, b)
		}
		if !more {
			return
		}
	}
}

func good(_ int, p *timeline.Part) ([]byte, bool) { return p.Media, true }

func TestWhatServersDoWrong(t *testing.T) {
	var f *fake
	push := func(edit func(i int, p *timeline.Part) ([]byte, bool), last func(c net.Conn)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			f.push(func(c net.Conn, cur *timeline.Cursor) {
				f.parts(c, cur, edit)
				if last != nil {
					last(c)
				}
			})(w, r)
		}
	}
	other := tone(t, 700)
	var mu sync.Mutex
	odd, err := timeline.New(timeline.Config{Origin: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	turns := make(chan struct{}, 4) // so many at once, that none of them waits for the machine
	f = startFake(t, map[string]http.HandlerFunc{
		"GET /e/x/live": push(good, nil),
	})
	for name, c := range map[string]struct {
		live  http.HandlerFunc
		check func(r *crowd.Report) bool
	}{
		"nothing": {push(good, nil), func(r *crowd.Report) bool {
			return r.Joined == 3 && r.LostFrames == 0 && r.Skips == 0 && r.Malformed == 0 && len(r.Lost) == 0 && r.Audio.Seconds > 0 &&
				r.Audio.Differ == 0 && r.Audio.Worst > .999
		}},
		"full": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "full", http.StatusServiceUnavailable) }, func(r *crowd.Report) bool {
			return r.Joined == 0 && r.Failed["status_503"] == 3 && !r.OK()
		}},
		"redirects": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		}, func(r *crowd.Report) bool {
			return r.Joined == 0 && r.Failed["redirect"] == 3
		}},
		"says nothing": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, func(r *crowd.Report) bool {
			return r.Joined == 0 && r.Failed["patience"] == 3
		}},
		"leaves a part out": {push(func(i int, p *timeline.Part) ([]byte, bool) {
			if i == 5 {
				return nil, true
			}
			return p.Media, true
		}, nil), func(r *crowd.Report) bool { return r.Joined == 3 && r.Skips == 3 && r.LostFrames == 30 }},
		"repeats a part": {push(func(i int, p *timeline.Part) ([]byte, bool) {
			if i == 5 {
				return append(append([]byte(nil), p.Media...), p.Media...), true
			}
			return p.Media, true
		}, nil), func(r *crowd.Report) bool { return r.Repeats == 30 && r.LostFrames == 0 && len(r.Lost) == 0 }},
		"damages a box": {push(func(i int, p *timeline.Part) ([]byte, bool) {
			b := append([]byte(nil), p.Media...)
			if i == 5 {
				b[3]++
			}
			return b, true
		}, nil), func(r *crowd.Report) bool { return r.Lost["malformed"] == 3 && r.Malformed == 3 && r.Gaps >= 3 }},
		"hangs up": {push(func(i int, p *timeline.Part) ([]byte, bool) { return p.Media, i < 6 }, func(c net.Conn) {
			_ = c.Close()
		}), func(r *crowd.Report) bool {
			return r.Joined == 3 && r.Lost["closed"]+r.Lost["reset"] == 3 && r.Gaps >= 3 && !r.OK()
		}},
		"restarts": {push(func(i int, p *timeline.Part) ([]byte, bool) { return p.Media, i < 6 }, func(c net.Conn) {
			send(c, 8, []byte{1012 >> 8, 1012 & 255, '5'})
		}), func(r *crowd.Report) bool { return r.Lost["ws_1012"] == 3 && r.Gaps >= 3 }},
		"ends the event": {push(func(i int, p *timeline.Part) ([]byte, bool) { return p.Media, i < 8 }, func(c net.Conn) {
			send(c, 8, []byte{1000 >> 8, 1000 & 255})
		}), func(r *crowd.Report) bool { return r.Joined == 3 && r.Lost["ws_1000"] == 3 && len(r.Lost) == 1 }},
		"falls silent": {push(func(i int, p *timeline.Part) ([]byte, bool) { return p.Media, i < 5 }, func(net.Conn) {
			<-f.stop
		}), func(r *crowd.Report) bool {
			return r.Joined == 3 && r.Gaps == 3 && r.GapSeconds > 1 && len(r.Lost) == 0
		}},
		"says something else": {push(func(_ int, p *timeline.Part) ([]byte, bool) {
			mu.Lock()
			defer mu.Unlock()
			for n := odd.Head(); n < p.First+10; n++ {
				if err := odd.Append(timeline.Frame{Number: n, Packet: other(n)}); err != nil {
					t.Error(err)
				}
			}
			q, err := odd.Part(p.Number)
			if err != nil {
				t.Error(err)
				return nil, false
			}
			return q.Media, true
		}, nil), func(r *crowd.Report) bool { return r.Joined == 3 && r.LostFrames == 0 && r.Audio.Differ > 0 && !r.OK() }},
	} {
		wg.Go(func() { // not subtests, of which only as many run at once as there are processors: these wait more than they work
			turns <- struct{}{}
			defer func() { <-turns }()
			s := startFake(t, map[string]http.HandlerFunc{"GET /e/x/live": c.live})
			// The parts are the first server's, and so is the programme they are compared with.
			s.Config.Handler = overlay(f, s.Config.Handler)
			r, err := crowd.Run(t.Context(), crowd.Config{
				URL: s.URL + "/e/x", Listeners: 3, Arrive: 100 * time.Millisecond, Hold: 3200 * time.Millisecond, Patience: 2 * time.Second, Seed: 1,
			})
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if !c.check(r) {
				t.Errorf("%s: the report does not say so:\n%s%+v", name, r, r.Audio)
			}
		})
	}
	wg.Wait()
}

// overlay asks f for all but the live stream.
func overlay(f *fake, live http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/live") {
			live.ServeHTTP(w, r)
			return
		}
		f.Config.Handler.ServeHTTP(w, r)
	})
}

// An answer that names only other machines' addresses is not followed, and neither is a playlist that names another server.
func TestElsewhere(t *testing.T) {
	answer := "v=0\r\no=- 1 2 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=ice-ufrag:abcd\r\n" +
		"a=ice-pwd:0123456789012345678901\r\na=setup:passive\r\na=fingerprint:sha-256 " + strings.Repeat("00:", 31) + "00\r\na=rtpmap:111 opus/48000/2\r\n" +
		"a=candidate:1 1 udp 1 192.0.2.1 8443 typ host\r\n"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/whep" {
			w.Header().Set("Location", "/whep/1")
			w.WriteHeader(201)
			_, _ = io.WriteString(w, answer)
			return
		}
		_, _ = io.WriteString(w, "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nhttp://192.0.2.1/seg.ts\n")
	}))
	defer s.Close()
	for rung, path := range map[string]string{crowd.WebRTC: "/whep", crowd.HLS: "/index.m3u8"} {
		r, err := crowd.Run(context.Background(), crowd.Config{URL: s.URL + path, Rung: rung, Listeners: 2, Hold: time.Second, Patience: 700 * time.Millisecond})
		if err != nil || r.Failed["elsewhere"] != 2 {
			t.Errorf("%s: %v\n%s", rung, err, r)
		}
	}
}
