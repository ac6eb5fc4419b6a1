package app_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"earshot/internal/app"
	"earshot/internal/rig"
	"earshot/internal/rig/broker"
)

// natsServer is a NATS server of the test's own, which nodes can share.
type natsServer struct{ *broker.Server }

// node starts a node that shares this server.
func (s natsServer) node(t *testing.T, dir string, change func(*app.Config), roles ...app.Role) *node {
	t.Helper()
	return start(t, dir, func(c *app.Config) {
		c.NATS, c.Roles = s.URL(""), roles
		if change != nil {
			change(c)
		}
	})
}

// ear is a push listener: it keeps the chunks that it was sent, by the number of their first frame.
type ear struct {
	conn net.Conn
	in   io.Reader
	done chan struct{}

	mu     sync.Mutex
	chunks map[uint64][]byte
	order  []uint64
	cues   string
	closed ws.StatusCode // 0 while open
	reason string
}

func listen(t *testing.T, n *node, slug string) *ear {
	t.Helper()
	conn, br, _, err := ws.Dial(t.Context(), "ws"+strings.TrimPrefix(n.url, "http")+"/e/"+slug+"/live")
	if err != nil {
		t.Fatal(err)
	}
	e := &ear{conn: conn, in: conn, done: make(chan struct{}), chunks: map[uint64][]byte{}}
	if br != nil {
		e.in = br
	}
	go e.run()
	t.Cleanup(func() { conn.Close(); <-e.done })
	return e
}

func (e *ear) run() {
	defer close(e.done)
	for {
		head, err := ws.ReadHeader(e.in)
		if err != nil {
			e.end(ws.StatusAbnormalClosure, err.Error())
			return
		}
		b := make([]byte, head.Length)
		if _, err := io.ReadFull(e.in, b); err != nil {
			e.end(ws.StatusAbnormalClosure, err.Error())
			return
		}
		switch head.OpCode {
		case ws.OpPing:
			_ = ws.WriteFrame(e.conn, ws.MaskFrame(ws.NewPongFrame(b)))
		case ws.OpClose:
			e.end(ws.ParseCloseFrameData(b))
			return
		case ws.OpText:
			e.mu.Lock()
			e.cues += string(b) + "\n"
			e.mu.Unlock()
		case ws.OpBinary:
			e.take(b)
		}
	}
}

func (e *ear) end(code ws.StatusCode, reason string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed, e.reason = code, reason
}

// take splits a message into its chunks, moof and mdat each. The initialisation segment is none.
func (e *ear) take(b []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for begin, at := 0, 0; at+8 <= len(b); {
		kind := string(b[at+4 : at+8])
		at += int(binary.BigEndian.Uint32(b[at:]))
		switch kind {
		case "moof":
			begin = at - int(binary.BigEndian.Uint32(b[begin:]))
		case "mdat":
			chunk := b[begin:at]
			tfdt := bytes.Index(chunk, []byte("tfdt"))
			frame := binary.BigEndian.Uint64(chunk[tfdt+8:]) / 960
			e.chunks[frame] = chunk
			e.order = append(e.order, frame)
			begin = at
		default:
			begin = at
		}
	}
}

// heard gives what came so far.
func (e *ear) heard() (chunks map[uint64][]byte, order []uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.chunks), slices.Clone(e.order)
}

func (e *ear) last() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.order) == 0 {
		return 0
	}
	return e.order[len(e.order)-1]
}

func (e *ear) over() (ws.StatusCode, string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.closed, e.reason
}

// agree says how many chunks two listeners have in common, and fails where they differ.
func agree(t *testing.T, a, b *ear) (common int) {
	t.Helper()
	one, _ := a.heard()
	two, _ := b.heard()
	for frame, chunk := range one {
		if other, ok := two[frame]; ok {
			common++
			if !bytes.Equal(chunk, other) {
				t.Fatalf("the part of frame %d has %d bytes on one node, and others, %d, on the other", frame, len(chunk), len(other))
			}
		}
	}
	return common
}

// noJumps fails if what a listener heard jumps anywhere but to a segment; it gives the jumps' ends.
func (e *ear) jumps(t *testing.T) (to []uint64) {
	t.Helper()
	_, order := e.heard()
	for i := 1; i < len(order); i++ {
		switch {
		case order[i] == order[i-1]+10:
		case order[i] <= order[i-1] || order[i]%100 != 0:
			t.Fatalf("frame %d came after %d", order[i], order[i-1])
		default:
			to = append(to, order[i])
		}
	}
	return to
}

var segmentName = regexp.MustCompile(`(?m)^(?:.*/)?seg/(\d+)\.m4s$`)

// listed gives the numbers of the segments in a node's playlist.
func listed(n *node, slug string) (numbers []string) {
	_, playlist := n.try("GET", "/e/"+slug+"/hls/main.m3u8", nil)
	for _, m := range segmentName.FindAllStringSubmatch(string(playlist), -1) {
		numbers = append(numbers, m[1])
	}
	return numbers
}

// sameFiles compares the segments that both nodes list, and the HLS parts of the last, and says how many there are.
func sameFiles(t *testing.T, a, b *node, slug string) (common int) {
	t.Helper()
	others := listed(b, slug)
	var last string
	for _, s := range listed(a, slug) {
		if !slices.Contains(others, s) {
			continue
		}
		common++
		last = s
		sameFile(t, a, b, "/e/"+slug+"/hls/seg/"+s+".m4s")
	}
	if last != "" {
		sameFile(t, a, b, "/e/"+slug+"/hls/part/"+last+".4.m4s")
	}
	return common
}

func sameFile(t *testing.T, a, b *node, path string) {
	t.Helper()
	status1, one := a.try("GET", path, nil)
	status2, two := b.try("GET", path, nil)
	if status1 != http.StatusOK || status2 != http.StatusOK || !bytes.Equal(one, two) {
		t.Fatalf("%s: %d with %d bytes, and %d with %d", path, status1, len(one), status2, len(two))
	}
}

type counted struct {
	Now     int `json:"now"`
	TunedIn int `json:"tuned_in"`
}

func (n *node) count(slug string) (c counted) {
	n.t.Helper()
	n.do("GET", "/e/"+slug+"/count", nil, &c)
	return c
}

// One event, its stage on one node, listeners on three: all hear the same bytes, through the end of the stage's node and of NATS.
func TestNodes(t *testing.T) {
	t.Parallel()
	nats := natsServer{broker.Run(t)}
	dir := t.TempDir()
	demo := func(c *app.Config) { c.Demo = true }
	stage := nats.node(t, dir, demo, app.RoleStage)
	edge := nats.node(t, t.TempDir(), nil, app.RoleEdge)
	edge.key = stage.key
	await(t, 10*time.Second, "the edge has the event", func() bool {
		status, _ := edge.try("GET", "/e/demo/hls/main.m3u8", nil)
		return status == http.StatusOK
	})
	near, far := listen(t, stage, "demo"), listen(t, edge, "demo")
	await(t, 15*time.Second, "two seconds heard on both", func() bool { return agree(t, near, far) >= 10 })
	await(t, 15*time.Second, "two segments on both", func() bool { return sameFiles(t, stage, edge, "demo") >= 2 })
	for _, path := range []string{"/e/demo/hls/init.mp4", "/e/demo/hls/index.m3u8", "/api/v1/events/demo"} {
		sameFile(t, stage, edge, path)
	}
	await(t, 15*time.Second, "the listeners of both nodes are counted on both", func() bool {
		// On each node one by push, and this test by HLS: each node alone would say two.
		a, b := stage.count("demo"), edge.count("demo")
		return a.Now >= 3 && a.TunedIn >= 3 && b.Now >= 3 && b.TunedIn >= 3
	})
	edgeRefuses(t, stage, edge)
	sameSound(t, stage, edge)

	late := nats.node(t, t.TempDir(), nil, app.RoleEdge)
	head := far.last()
	await(t, 10*time.Second, "the late edge has what was before it", func() bool {
		first := listed(late, "demo")
		return len(first) > 0 && slices.Contains(listed(stage, "demo"), first[0])
	})
	if first, _ := strconv.ParseUint(listed(late, "demo")[0], 10, 64); first*100+100 > head {
		t.Errorf("the late edge begins with segment %d, frame %d was already heard", first, head)
	}
	if sameFiles(t, stage, late, "demo") < 2 {
		t.Error("the late edge lists no segment that the stage's node lists")
	}

	stage.stop()
	if code, _ := far.over(); code != 0 {
		t.Fatalf("when the stage's node left, the edge's listener was closed with %d", code)
	}
	paused := far.last()
	stage = nats.node(t, dir, demo, app.RoleStage)
	await(t, 20*time.Second, "the edge goes on", func() bool { return far.last() > paused+100 })
	if to := far.jumps(t); len(to) != 1 {
		t.Errorf("after one restart of the stage's node the listener saw jumps to %v", to)
	}
	near = listen(t, stage, "demo")
	await(t, 15*time.Second, "both hear the same again", func() bool { return agree(t, near, far) >= 5 })

	nats.Stop()
	before := near.last()
	await(t, 15*time.Second, "the stage goes on alone", func() bool { return near.last() > before+50 })
	nats.Start()
	await(t, 20*time.Second, "the edge is there again", func() bool { return far.last() > before+100 })
	if to := far.jumps(t); len(to) > 2 {
		t.Errorf("after one restart of NATS the listener saw jumps to %v", to)
	}
	await(t, 15*time.Second, "both hear the same again", func() bool { return agree(t, near, far) >= 10 })
	if code, _ := far.over(); code != 0 {
		t.Fatalf("the edge's listener was closed with %d", code)
	}

	await(t, 10*time.Second, "the stage's node stores", func() bool {
		status, _ := stage.try("POST", "/api/v1/events/demo/end", nil)
		return status == http.StatusOK
	})
	for where, e := range map[string]*ear{"stage": near, "edge": far} {
		<-e.done
		if code, reason := e.over(); code != ws.StatusNormalClosure || reason != "ended" {
			t.Errorf("%s: at the end the listener was told %d %q", where, code, reason)
		}
	}
	if agree(t, near, far); near.last() != far.last() {
		t.Errorf("the last part is of frame %d on the stage's node, and of %d on the edge", near.last(), far.last())
	}
	await(t, 10*time.Second, "the edge knows that it is over", func() bool { return edge.get("demo").Phase == "ended" })
}

// sameSound listens on both nodes by WebRTC: packets of the same time must be the same bytes. It also opens the long responses.
func sameSound(t *testing.T, stage, edge *node) {
	t.Helper()
	var peers []*rig.Peer
	for _, n := range []*node{stage, edge} {
		p, err := rig.NewPeer(rig.PeerConfig{Receive: true})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if err := p.Dial(t.Context(), func(offer []byte) ([]byte, error) {
			resp, err := http.Post(n.url+"/e/demo/whep", "application/sdp", bytes.NewReader(offer))
			if err != nil {
				return nil, err
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if err == nil && resp.StatusCode != http.StatusCreated {
				err = fmt.Errorf("%d %s", resp.StatusCode, b)
			}
			return b, err
		}); err != nil {
			t.Fatal(err)
		}
		peers = append(peers, p)
	}
	await(t, 15*time.Second, "fifty packets in common", func() bool {
		near := map[uint32][]byte{}
		for _, h := range peers[0].Heard() {
			near[h.TS] = h.Payload
		}
		common := 0
		for _, h := range peers[1].Heard() {
			if b, ok := near[h.TS]; ok {
				if common++; !bytes.Equal(b, h.Payload) {
					t.Fatalf("the packet of %d differs", h.TS)
				}
			}
		}
		return common >= 50
	})
	for path, begin := range map[string]string{"live.ogg": "OggS", "live.mp4": "\x00\x00", "cues": "retry: "} {
		resp, err := http.Get(edge.url + "/e/demo/" + path)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 256)
		_, err = io.ReadFull(resp.Body, b)
		resp.Body.Close()
		if err != nil || !strings.HasPrefix(string(b), begin) {
			t.Errorf("%s: %d %q, %v", path, resp.StatusCode, b, err)
		}
	}
}

// edgeRefuses goes through all that needs a stage: an edge says so, and where to go.
func edgeRefuses(t *testing.T, stage, edge *node) {
	t.Helper()
	secret := stage.invite("demo", "speaker")
	for _, c := range []struct {
		method, path string
		body         any
		bearer       string
	}{
		{"POST", "/e/demo/stage", nil, secret},
		{"POST", "/e/demo/whip", nil, secret},
		{"POST", "/e/demo/whep?monitor=1", nil, secret},
		{"GET", "/api/v1/events/demo/stage", nil, stage.key},
		{"GET", "/api/v1/events/demo/stage", nil, secret},
		{"GET", "/api/v1/events/demo/stage/watch", nil, stage.key},
		{"POST", "/api/v1/events/demo/hand", map[string]string{"name": "Bo"}, ""},
		{"DELETE", "/api/v1/events/demo/hand", nil, secret},
		{"POST", "/api/v1/events/demo/people/p_demo1/mute", nil, stage.key},
		{"POST", "/api/v1/events/demo/people/p_demo1/remove", nil, stage.key},
		{"DELETE", "/api/v1/events/demo/invites/in_demo", nil, stage.key},
		{"POST", "/api/v1/events/demo/end", nil, stage.key},
	} {
		kind, body := "", []byte(nil)
		if strings.HasPrefix(c.path, "/e/") {
			kind, body = "application/sdp", []byte("v=0\r\n")
		} else if c.body != nil {
			kind = "application/json"
			body, _ = json.Marshal(c.body)
		}
		await(t, 5*time.Second, "the edge knows the invite", func() bool {
			req, err := http.NewRequest(c.method, edge.url+c.path, bytes.NewReader(body)) // a new one each time: the last was read
			if err != nil {
				t.Fatal(err)
			}
			if c.bearer != "" {
				req.Header.Set("Authorization", "Bearer "+c.bearer)
			}
			if kind != "" {
				req.Header.Set("Content-Type", kind)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode == http.StatusUnauthorized {
				return false // the invite is on its way
			}
			if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" ||
				!strings.Contains(string(b), "serves listeners") || !strings.Contains(string(b), stage.url) {
				t.Errorf("%s %s: %d %s", c.method, c.path, resp.StatusCode, b)
			}
			return true
		})
	}
}

// Of two nodes that may have the stage one has it, and when that one is gone the other takes it.
func TestStageMoves(t *testing.T) {
	t.Parallel()
	nats := natsServer{broker.Run(t)}
	nodes := []*node{nats.node(t, t.TempDir(), nil), nats.node(t, t.TempDir(), nil)}
	if nodes[0].key != nodes[1].key {
		t.Fatal("two nodes have two operator's keys")
	}
	nodes[0].event("moves", 0, map[string]any{"recorded": false})
	await(t, 5*time.Second, "the other node has the event", func() bool {
		status, _ := nodes[1].try("GET", "/api/v1/events/moves", nil)
		return status == http.StatusOK
	})
	nodes[1].do("POST", "/api/v1/events/moves/live", nil, nil)
	on := func(n *node) bool {
		status, b := n.try("GET", "/api/v1/events/moves/stage", nil)
		return status == http.StatusOK && strings.Contains(string(b), `"phase":"live"`)
	}
	await(t, 10*time.Second, "one node has the stage", func() bool { return on(nodes[0]) || on(nodes[1]) })
	has, other := nodes[0], nodes[1]
	if on(nodes[1]) {
		has, other = nodes[1], nodes[0]
	}
	await(t, 10*time.Second, "the other has its frames", func() bool { return sameFiles(t, has, other, "moves") >= 1 })
	if on(other) {
		t.Fatal("both have the stage")
	}
	e := listen(t, has, "moves")
	await(t, 10*time.Second, "frames", func() bool { return e.last() > 0 })
	has.stop()
	left := e.last()
	await(t, 20*time.Second, "the other takes the stage", func() bool { return on(other) })
	f := listen(t, other, "moves")
	await(t, 10*time.Second, "it makes frames, further on", func() bool { return f.last() > left })
	// What is asked of the one reaches the stage of the other.
	back := nats.node(t, t.TempDir(), nil)
	await(t, 10*time.Second, "a third node has its frames", func() bool { return len(listed(back, "moves")) > 0 })
	back.do("POST", "/api/v1/events/moves/end", nil, nil)
	<-f.done
	if code, reason := f.over(); code != ws.StatusNormalClosure || reason != "ended" {
		t.Errorf("at the end the listener was told %d %q", code, reason)
	}
}

// A node does not join others with a key of its own, nor a server that is not there.
func TestBadNodes(t *testing.T) {
	t.Parallel()
	nats := natsServer{broker.Run(t)}
	nats.node(t, t.TempDir(), nil)
	foreign := t.TempDir()
	writeFile(t, foreign+"/operator.key", []byte("a key of twenty characters\n"))
	for says, change := range map[string]func(*app.Config){
		"another key":  func(c *app.Config) { c.Data = foreign },
		"127.0.0.1:1":  func(c *app.Config) { c.NATS = "nats://u:secret@127.0.0.1:1" },
		"--node-roles": func(c *app.Config) { c.Roles = []app.Role{"cook"} },
	} {
		cfg := config(t.TempDir(), "", discard)
		cfg.NATS = nats.URL("")
		change(&cfg)
		a, err := app.New(context.Background(), cfg)
		if err == nil {
			t.Errorf("%s: started", says)
			ended, stop := context.WithCancel(context.Background())
			stop()
			_ = a.Run(ended)
			continue
		}
		if !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q does not say %q", err, says)
		}
	}
}
