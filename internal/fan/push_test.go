package fan_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"earshot/internal/fan"
	"earshot/internal/timeline"
)

// client is a WebSocket client that can also misbehave.
type client struct {
	t    testing.TB
	conn net.Conn
	in   io.Reader
}

func (h *house) dial() *client {
	h.t.Helper()
	d := ws.Dialer{Protocols: []string{"earshot.1"}, Timeout: 10 * time.Second}
	conn, br, hs, err := d.Dial(h.ctx, "ws"+strings.TrimPrefix(h.web.URL, "http")+"/live")
	must(h.t, err)
	if hs.Protocol != "earshot.1" {
		h.t.Errorf("subprotocol %q", hs.Protocol)
	}
	h.t.Cleanup(func() { _ = conn.Close() })
	c := &client{t: h.t, conn: conn, in: conn}
	if br != nil {
		c.in = br
	} else {
		c.in = bufio.NewReader(conn)
	}
	return c
}

// next reads one message; after a close it gives OpClose and its body.
func (c *client) next() (ws.OpCode, []byte, error) {
	_ = c.conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	head, err := ws.ReadHeader(c.in)
	if err != nil {
		return 0, nil, err
	}
	if head.Masked || !head.Fin || head.Length > 1<<20 {
		c.t.Fatalf("a server's frame: %+v", head)
	}
	b := make([]byte, head.Length)
	_, err = io.ReadFull(c.in, b)
	return head.OpCode, b, err
}

// closed reads on to the end and gives the close code and reason.
func (c *client) closed() (ws.StatusCode, string) {
	c.t.Helper()
	for {
		op, b, err := c.next()
		if err != nil {
			c.t.Fatalf("no close frame: %v", err)
		}
		if op == ws.OpClose {
			return ws.ParseCloseFrameData(b)
		}
	}
}

func (c *client) send(f ws.Frame) {
	c.t.Helper()
	must(c.t, ws.WriteFrame(c.conn, ws.MaskFrame(f)))
}

// A push listener gets hello, the initialisation segment, a burst and then each part, gapless, with its cues before it.
func TestPush(t *testing.T) {
	h := newHouse(t)
	c := h.dial()
	op, b, err := c.next()
	must(t, err)
	var hello struct {
		Kind    string `json:"kind"`
		Origin  time.Time
		Epoch   uint64
		Frame   uint64
		Cadence int `json:"cadence_ms"`
	}
	must(t, json.Unmarshal(b, &hello))
	if op != ws.OpText || hello.Kind != "hello" || hello.Epoch != 3 || hello.Cadence != 200 || !hello.Origin.Equal(h.timeline.Origin()) {
		t.Fatalf("hello: %v %s", op, b)
	}
	if op, b, err = c.next(); err != nil || op != ws.OpBinary || string(b) != string(timeline.Init()) {
		t.Fatalf("not the initialisation segment: %v %v, %d bytes", op, err, len(b))
	}
	begun := time.Now()
	want, cues := hello.Frame, 0
	sawStage := false
	for i := range 12 {
		op, b, err := c.next()
		must(t, err)
		for op == ws.OpText {
			var list []timeline.Cue
			must(t, json.Unmarshal(b, &list))
			for _, cue := range list {
				sawStage = sawStage || cue.Kind == "stage"
			}
			cues += len(list)
			op, b, err = c.next()
			must(t, err)
		}
		if i == 0 && !sawStage {
			t.Error("the first cues lack the sticky one")
		}
		frames, _, err := timeline.ReadChunks(b)
		must(t, err)
		if op != ws.OpBinary || len(frames) != 10 {
			t.Fatalf("message %d: %v with %d frames", i, op, len(frames))
		}
		for _, f := range frames {
			if f.Number != want {
				t.Fatalf("frame %d where %d was due", f.Number, want)
			}
			want++
		}
		if i == 1 && time.Since(begun) > time.Second {
			t.Errorf("the burst took %v", time.Since(begun))
		}
	}
	if cues < 12 {
		t.Errorf("%d cues in 12 parts", cues)
	}
	if count, by := h.audience.Sweep(time.Now()); count.Now != 1 || by[1] != 1 {
		t.Errorf("the audience: %+v %v", count, by)
	}
	c.send(ws.NewPingFrame([]byte("are you there")))
	for {
		op, b, err := c.next()
		must(t, err)
		if op == ws.OpPong {
			if string(b) != "are you there" {
				t.Errorf("pong: %q", b)
			}
			break
		}
	}
	c.send(ws.NewCloseFrame(ws.NewCloseFrameBody(1000, "")))
	if code, _ := c.closed(); code != 1000 {
		t.Errorf("closed with %d", code)
	}
	h.wait("it left", func() bool { return h.count("earshot_listener_connections", "push") == 0 })
	if count, _ := h.audience.Sweep(time.Now()); count.Now != 0 || count.TunedIn != 1 {
		t.Errorf("the audience after: %+v", count)
	}
}

func TestPushCloses(t *testing.T) {
	t.Run("ended", func(t *testing.T) {
		h := newHouse(t)
		c := h.dial()
		_, _, err := c.next()
		must(t, err)
		h.stop(true)
		if code, reason := c.closed(); code != 1000 || reason != "ended" {
			t.Errorf("closed with %d %q", code, reason)
		}
	})
	t.Run("restart", func(t *testing.T) {
		h := newHouse(t)
		c := h.dial()
		_, _, err := c.next()
		must(t, err)
		h.stop(false)
		must(t, h.fan.Shutdown(context.Background(), 7*time.Second))
		if code, reason := c.closed(); code != 1012 || reason != "7" {
			t.Errorf("closed with %d %q", code, reason)
		}
	})
	t.Run("full", func(t *testing.T) {
		h := newHouse(t, func(c *fan.Config) { c.MaxStreams = 1 })
		_, _, err := h.dial().next()
		must(t, err)
		d := ws.Dialer{Timeout: 10 * time.Second}
		_, _, _, err = d.Dial(h.ctx, "ws"+strings.TrimPrefix(h.web.URL, "http")+"/live")
		if status, ok := errors.AsType[ws.StatusError](err); !ok || status != 503 {
			t.Errorf("the one too many is told %v", err)
		}
		if n := h.count("earshot_listener_refused_total", "full"); n != 1 {
			t.Errorf("refused %v", n)
		}
	})
	t.Run("misbehaviour", func(t *testing.T) {
		h := newHouse(t)
		for name, c := range map[string]struct {
			frame ws.Frame
			want  ws.StatusCode
		}{
			"big text":  {ws.MaskFrame(ws.NewTextFrame(make([]byte, 126))), 1009},
			"unmasked":  {ws.NewPingFrame(nil), 1002},
			"reserved":  {ws.MaskFrame(ws.NewFrame(0x5, true, nil)), 1002},
			"huge ping": {ws.MaskFrame(ws.Frame{Header: ws.Header{Fin: true, OpCode: ws.OpPing, Length: 70000}, Payload: make([]byte, 70000)}), 1009},
		} {
			cl := h.dial()
			_ = ws.WriteFrame(cl.conn, c.frame)
			if code, _ := cl.closed(); code != c.want {
				t.Errorf("%s: closed with %d, want %d", name, code, c.want)
			}
		}
		cl := h.dial()
		go func() {
			for range 5000 {
				if ws.WriteFrame(cl.conn, ws.MaskFrame(ws.NewPingFrame(nil))) != nil {
					return
				}
			}
		}()
		if code, _ := cl.closed(); code != 1008 {
			t.Errorf("a flood of pings: closed with %d", code)
		}
		if n := h.count("earshot_listener_dropped_total", "protocol"); n != 5 {
			t.Errorf("%v counted as misbehaviour, want 5", n)
		}
	})
}

func TestPushRefusesWhatIsNoWebSocket(t *testing.T) {
	h := newHouse(t)
	for name, head := range map[string]http.Header{
		"plain GET":   {},
		"no key":      {"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}},
		"old version": {"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"8"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}},
	} {
		req, err := http.NewRequestWithContext(h.ctx, http.MethodGet, h.web.URL+"/live", nil)
		must(t, err)
		req.Header = head
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		b, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != 422 || !strings.Contains(string(b), "WebSocket") {
			t.Errorf("%s: %d %s", name, resp.StatusCode, b)
		}
	}
}

// A reader who is slow keeps its place for 30 s, then continues at the head; others do not notice.
func TestPushSlowReader(t *testing.T) {
	h := newHouse(t)
	slow := h.dial()
	tcp := slow.conn.(*net.TCPConn)
	must(t, tcp.SetReadBuffer(16<<10))
	_, _, err := slow.next()
	must(t, err)
	// Time is made to fly: the sockets' buffers take what they take; a cursor that is more than 30 s behind then continues
	// at the head.
	h.pause()
	sent := func() float64 { return h.count("earshot_listener_sent_bytes_total", "push") }
	for before, same := 0.0, 0; same < 5; time.Sleep(10 * time.Millisecond) { // until a write is stuck
		h.append(500)
		if now := sent(); now == before {
			same++
		} else {
			before, same = now, 0
		}
	}
	h.append(10 * 200)
	h.timeline.End()
	must(t, tcp.SetReadBuffer(4<<20))
	var last uint64
	jumped := false
	for {
		op, b, err := slow.next()
		if errors.Is(err, io.EOF) || op == ws.OpClose {
			break
		}
		must(t, err)
		if op != ws.OpBinary || string(b) == string(timeline.Init()) {
			continue
		}
		frames, _, err := timeline.ReadChunks(b)
		must(t, err)
		if last != 0 && frames[0].Number != last+1 {
			if frames[0].Number < last || frames[0].Number%10 != 0 {
				t.Fatalf("after frame %d came %d", last, frames[0].Number)
			}
			jumped = true
		}
		last = frames[len(frames)-1].Number
	}
	if !jumped || last+1 != h.timeline.Head() {
		t.Errorf("jumped %v, last frame %d of %d", jumped, last, h.timeline.Head())
	}
	h.wait("the skipped parts are counted", func() bool { return h.count("earshot_listener_skipped_parts_total", "push") > 0 })
}
