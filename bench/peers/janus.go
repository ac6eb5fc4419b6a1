//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/gobwas/ws/wsutil"
	"github.com/pion/webrtc/v4"

	"github.com/gobwas/ws"
)

// janusNet is what Janus is started through. It gathers no candidates on a loopback interface, so it gets a network namespace of its own
// in which another interface has an address of the loopback range; listeners use that address too, so all packets take the loopback
// device. It needs root.
const (
	janusInterface = "bench0"
	janusNet       = `ip link set lo up && ip link add bench0 type bridge && ip addr add 127.1.0.1/32 dev bench0 && ip link set bench0 up && exec janus -F "$0" -N`
)

// startJanus starts a Janus with one mountpoint of its streaming plugin, fed by RTP.
func (b *bench) startJanus(programme) (*site, error) {
	const port, feed = 8188, 5002 // free in a new namespace
	dir := filepath.Join(b.out, "janus")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("folder of Janus: %w", err)
	}
	for name, text := range map[string]string{
		"janus/janus.jcfg":                      janusConf,
		"janus/janus.plugin.streaming.jcfg":     fmt.Sprintf("live: {\n type = \"rtp\"\n id = 1\n audio = true\n video = false\n audioport = %d\n audioiface = \"lo\"\n audiopt = 111\n audiocodec = \"opus\"\n}\n", feed),
		"janus/janus.transport.websockets.jcfg": fmt.Sprintf("general: {\n json = \"compact\"\n ws = true\n ws_port = %d\n ws_ip = \"127.0.0.1\"\n wss = false\n}\nadmin: {\n admin_ws = false\n}\n", port),
	} {
		if _, err := b.config(name, text); err != nil {
			return nil, err
		}
	}
	c, err := b.start(task{name: "janus", core: serverCore, args: []string{"unshare", "--net", "sh", "-c", janusNet, dir}})
	if err != nil {
		return nil, err
	}
	s := &site{url: fmt.Sprintf("127.0.0.1:%d", port), inside: c.cmd.Process.Pid, measured: []*child{c}}
	if err := b.sleep(2 * time.Second); err != nil {
		s.stop()
		return nil, err
	}
	feeder, err := b.start(task{name: "janus-feed", core: crowdCore, inside: s.inside, piped: true, args: []string{b.self, "answer", "--feed", fmt.Sprintf("127.0.0.1:%d", feed)}})
	if err != nil {
		s.stop()
		return nil, err
	}
	s.beside = []*child{feeder}
	if err := b.sleep(time.Second); err != nil {
		s.stop()
		return nil, err
	}
	select {
	case <-c.ended:
		return nil, fmt.Errorf("process of Janus ended: %s", c.tail())
	case <-feeder.ended:
		s.stop()
		return nil, fmt.Errorf("the programme cannot be fed to Janus: %s", feeder.tail())
	default:
	}
	return s, nil
}

const janusConf = `general: {
 plugins_folder = "/usr/lib/x86_64-linux-gnu/janus/plugins"
 transports_folder = "/usr/lib/x86_64-linux-gnu/janus/transports"
 events_folder = "/usr/lib/x86_64-linux-gnu/janus/events"
 loggers_folder = "/usr/lib/x86_64-linux-gnu/janus/loggers"
 debug_level = 2
 event_loops = 1
}
nat: {
 ice_lite = true
 ice_enforce_list = "bench0"
}
media: {
 rtp_port_range = "20000-32000"
}
plugins: {
 disable = "libjanus_audiobridge.so,libjanus_duktape.so,libjanus_echotest.so,libjanus_lua.so,libjanus_nosip.so,libjanus_recordplay.so,libjanus_sip.so,libjanus_textroom.so,libjanus_videocall.so,libjanus_videoroom.so,libjanus_voicemail.so"
}
transports: {
 disable = "libjanus_http.so,libjanus_mqtt.so,libjanus_nanomsg.so,libjanus_pfunix.so,libjanus_rabbitmq.so"
}
`

// answering gives the listeners of servers that make the offer.
func (b *bench) answering(flag string) visitors {
	return func(s *site, v *visit, _ int) (*child, string, error) {
		file := filepath.Join(b.out, "answer.json")
		c, err := b.start(task{name: "answer", core: crowdCore, inside: s.inside, args: []string{
			b.self, "answer", flag, s.url, "--listeners", strconv.Itoa(v.listeners), "--arrive", v.arrive.String(), "--hold", v.hold.String(), "--json", file,
		}})
		return c, file, err
	}
}

// janus is a session with many handles, over one WebSocket.
type janus struct {
	conn    net.Conn
	session uint64
	done    chan struct{}

	mu      sync.Mutex // guards what follows, and writing
	number  int
	waiting map[string]chan janusMessage // by transaction
	handles map[uint64]*janusHandle
}

type janusMessage struct {
	Janus       string `json:"janus"`
	Transaction string `json:"transaction,omitempty"`
	Session     uint64 `json:"session_id,omitempty"`
	Handle      uint64 `json:"handle_id,omitempty"`
	Sender      uint64 `json:"sender,omitempty"`
	Plugin      string `json:"plugin,omitempty"`
	Data        *struct {
		ID uint64 `json:"id"`
	} `json:"data,omitempty"`
	Body  any `json:"body,omitempty"`
	Jsep  any `json:"jsep,omitempty"`
	Error any `json:"error,omitempty"`
}

func dialJanus(ctx context.Context, addr string) (*janus, error) {
	d := ws.Dialer{Protocols: []string{"janus-protocol"}}
	conn, _, _, err := d.Dial(ctx, "ws://"+addr+"/")
	if err != nil {
		return nil, fmt.Errorf("dial Janus: %w", err)
	}
	j := &janus{conn: conn, waiting: map[string]chan janusMessage{}, handles: map[uint64]*janusHandle{}, done: make(chan struct{})}
	go j.read()
	m, err := j.ask(ctx, janusMessage{Janus: "create"})
	if err != nil {
		_ = j.Close()
		return nil, err
	}
	j.session = m.Data.ID
	return j, nil
}

// Close ends the session with all its handles.
func (j *janus) Close() error {
	err := j.conn.Close()
	<-j.done
	return err
}

func (j *janus) read() {
	defer close(j.done)
	for {
		text, err := wsutil.ReadServerText(j.conn)
		if err != nil {
			return
		}
		var m janusMessage
		if json.Unmarshal(text, &m) != nil {
			continue
		}
		j.mu.Lock()
		to := j.waiting[m.Transaction]
		if m.Janus == "ack" { // the answer comes as an event
			to = nil
		}
		if h := j.handles[m.Sender]; h != nil && m.Janus == "event" {
			to = h.events
		}
		j.mu.Unlock()
		if to != nil {
			select {
			case to <- m:
			default: // nobody waits for a second one
			}
		}
	}
}

func (j *janus) send(m janusMessage, reply chan janusMessage) (transaction string, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.number++
	m.Transaction, m.Session = strconv.Itoa(j.number), j.session
	if reply != nil {
		j.waiting[m.Transaction] = reply
	}
	text, err := json.Marshal(m)
	if err == nil {
		err = wsutil.WriteClientText(j.conn, text)
	}
	if err != nil {
		return "", fmt.Errorf("ask Janus: %w", err)
	}
	return m.Transaction, nil
}

func (j *janus) ask(ctx context.Context, m janusMessage) (janusMessage, error) {
	reply := make(chan janusMessage, 1)
	t, err := j.send(m, reply)
	if err != nil {
		return m, err
	}
	defer func() { j.mu.Lock(); delete(j.waiting, t); j.mu.Unlock() }()
	select {
	case r := <-reply:
		if r.Janus != "success" || r.Data == nil {
			return r, fmt.Errorf("answer of Janus: %s: %v", r.Janus, r.Error)
		}
		return r, nil
	case <-time.After(15 * time.Second):
		return m, errors.New("no answer of Janus within 15 s")
	case <-ctx.Done():
		return m, ctx.Err()
	}
}

// janusHandle is one listener.
type janusHandle struct {
	j      *janus
	id     uint64
	events chan janusMessage
}

func (j *janus) attach(ctx context.Context) (*janusHandle, error) {
	m, err := j.ask(ctx, janusMessage{Janus: "attach", Plugin: "janus.plugin.streaming"})
	if err != nil {
		return nil, err
	}
	h := &janusHandle{j: j, id: m.Data.ID, events: make(chan janusMessage, 4)}
	j.mu.Lock()
	j.handles[h.id] = h
	j.mu.Unlock()
	return h, nil
}

// Close leaves it to the session's end, which comes at once.
func (h *janusHandle) Close() error { return nil }

func (h *janusHandle) listen(ctx context.Context, answer func(string) (string, error), _ func(webrtc.ICECandidateInit) error) error {
	if _, err := h.j.send(janusMessage{Janus: "message", Handle: h.id, Body: map[string]any{"request": "watch", "id": 1}}, nil); err != nil {
		return err
	}
	for {
		select {
		case m := <-h.events:
			offer, ok := m.Jsep.(map[string]any)
			if !ok {
				continue
			}
			text, _ := offer["sdp"].(string)
			reply, err := answer(text)
			if err != nil {
				return err
			}
			_, err = h.j.send(janusMessage{
				Janus: "message", Handle: h.id, Body: map[string]any{"request": "start"}, Jsep: map[string]any{"type": "answer", "sdp": reply, "trickle": false},
			}, nil)
			return err
		case <-time.After(15 * time.Second):
			return errors.New("no offer within 15 s")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
