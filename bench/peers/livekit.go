//go:build linux

package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"
	"google.golang.org/protobuf/encoding/protowire"
)

// LiveKit's signalling: protobuf messages over a WebSocket, of which these fields are needed.
const (
	requestOffer    = 1 // of SignalRequest
	requestAnswer   = 2
	requestTrickle  = 3
	requestAddTrack = 4
	requestPing     = 14

	responseAnswer  = 2 // of SignalResponse
	responseOffer   = 3
	responseTrickle = 4
)

const (
	livekitKey    = "bench"
	livekitSecret = "a secret of the bench, of thirty-two letters at least"
)

// startLiveKit starts a LiveKit, and a process that speaks in its room.
func (b *bench) startLiveKit() (*site, error) {
	bin := filepath.Join(b.bin, "livekit-server")
	if _, err := os.Stat(bin); err != nil {
		return nil, fmt.Errorf("LiveKit: %w", err)
	}
	port, err := freePort("tcp")
	if err != nil {
		return nil, err
	}
	udp, err := freePort("udp")
	if err != nil {
		return nil, err
	}
	conf, err := b.config("livekit.yaml", fmt.Sprintf(livekitConf, port, udp, livekitKey, livekitSecret))
	if err != nil {
		return nil, err
	}
	c, err := b.start(task{name: "livekit", core: serverCore, args: []string{bin, "--config", conf, "--node-ip", "127.0.0.1"}})
	if err != nil {
		return nil, err
	}
	s := &site{url: fmt.Sprintf("127.0.0.1:%d", port), measured: []*child{c}}
	if err := b.await("LiveKit", func() error { return answers(b.ctx, "http://"+s.url+"/") }); err != nil {
		s.stop()
		return nil, fmt.Errorf("%w (%s)", err, c.tail())
	}
	speaker, err := b.start(task{name: "livekit-speaker", core: crowdCore, args: []string{b.self, "answer", "--livekit", s.url, "--publish"}, piped: true, talks: true})
	if err != nil {
		s.stop()
		return nil, err
	}
	s.beside = []*child{speaker}
	if _, err := speaker.line(); err != nil { // it says when it is heard
		s.stop()
		return nil, err
	}
	return s, b.sleep(time.Second)
}

const livekitConf = `port: %d
bind_addresses: ["127.0.0.1"]
rtc:
  udp_port: %d
  use_external_ip: false
  enable_loopback_candidate: true
  interfaces:
    includes: [lo]
keys:
  %s: %s
logging:
  level: error
`

// livekit is a session.
type livekit struct {
	conn net.Conn
	mu   sync.Mutex // of writing
	stop context.CancelFunc
	done chan struct{}
	in   chan message
}

// message is one of SignalResponse's fields.
type message struct {
	field protowire.Number
	body  []byte
}

func dialLiveKit(ctx context.Context, addr, identity string, speaks bool) (*livekit, error) {
	q := url.Values{"access_token": {livekitToken(identity, speaks)}, "auto_subscribe": {"1"}, "protocol": {"9"}, "sdk": {"go"}}
	conn, br, _, err := ws.Dial(ctx, "ws://"+addr+"/rtc?"+q.Encode())
	if err != nil {
		return nil, fmt.Errorf("dial LiveKit: %w", err)
	}
	var r io.Reader = conn
	if br != nil {
		r = br
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &livekit{conn: conn, in: make(chan message, 256), stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(l.done)
		l.read(r)
	}()
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	go l.ping(ctx) // ends with ctx
	return l, nil
}

// Close leaves the room.
func (l *livekit) Close() error {
	l.stop()
	<-l.done
	return nil
}

// livekitToken is the JWT that lets one in.
func livekitToken(identity string, speaks bool) string {
	b64 := base64.RawURLEncoding.EncodeToString
	claims, _ := json.Marshal(map[string]any{
		"iss": livekitKey, "sub": identity, "exp": time.Now().Add(time.Hour).Unix(),
		"video": map[string]any{"roomJoin": true, "room": "bench", "canPublish": speaks, "canSubscribe": !speaks},
	})
	signed := b64([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + b64(claims)
	mac := hmac.New(sha256.New, []byte(livekitSecret))
	mac.Write([]byte(signed))
	return signed + "." + b64(mac.Sum(nil))
}

func (l *livekit) read(r io.Reader) {
	rw := struct {
		io.Reader
		io.Writer
	}{r, l.conn}
	defer close(l.in)
	for {
		b, op, err := wsutil.ReadServerData(rw)
		if err != nil {
			return
		}
		if op != ws.OpBinary {
			continue
		}
		if n, typ, k := protowire.ConsumeTag(b); k > 0 && typ == protowire.BytesType {
			if body, m := protowire.ConsumeBytes(b[k:]); m > 0 && n <= responseTrickle {
				l.in <- message{n, body}
			}
		}
	}
}

func (l *livekit) send(field protowire.Number, body []byte) error {
	b := protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), body)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := wsutil.WriteClientBinary(l.conn, b); err != nil {
		return fmt.Errorf("signal LiveKit: %w", err)
	}
	return nil
}

func (l *livekit) ping(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-time.After(5 * time.Second):
			b := protowire.AppendVarint(protowire.AppendTag(nil, requestPing, protowire.VarintType), uint64(now.UnixMilli()))
			l.mu.Lock()
			_ = wsutil.WriteClientBinary(l.conn, b)
			l.mu.Unlock()
		}
	}
}

// words makes a message of strings, fields 1, 2, …
func words(of ...string) (b []byte) {
	for i, s := range of {
		b = protowire.AppendString(protowire.AppendTag(b, protowire.Number(i+1), protowire.BytesType), s)
	}
	return b
}

// field gives a message's string field; empty if it is not there.
func field(b []byte, want protowire.Number) string {
	for len(b) > 0 {
		n, typ, k := protowire.ConsumeTag(b)
		if k < 0 {
			return ""
		}
		b = b[k:]
		if n == want && typ == protowire.BytesType {
			s, _ := protowire.ConsumeString(b)
			return s
		}
		if k = protowire.ConsumeFieldValue(n, typ, b); k < 0 {
			return ""
		}
		b = b[k:]
	}
	return ""
}

func candidate(b []byte) (c webrtc.ICECandidateInit, ok bool) {
	return c, json.Unmarshal([]byte(field(b, 1)), &c) == nil
}

func (l *livekit) listen(ctx context.Context, answer func(string) (string, error), add func(webrtc.ICECandidateInit) error) error {
	answered := make(chan error, 1)
	go func() { // serves later offers too, which come as others enter; ends with the connection
		first := true
		for m := range l.in {
			switch m.field {
			case responseOffer:
				reply, err := answer(field(m.body, 2))
				if err == nil {
					err = l.send(requestAnswer, words("answer", reply))
				}
				if first {
					answered <- err
					first = false
				}
			case responseTrickle:
				if c, ok := candidate(m.body); ok {
					_ = add(c) // one that cannot be used is not missed: there are others
				}
			}
		}
	}()
	select {
	case err := <-answered:
		return err
	case <-time.After(15 * time.Second):
		return errors.New("no offer within 15 s")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// publishLiveKit speaks the programme in the room until standard input ends.
func publishLiveKit(ctx context.Context, api *webrtc.API, addr string) error {
	p, err := makeProgramme()
	if err != nil {
		return err
	}
	l, err := dialLiveKit(ctx, addr, "speaker", true)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	pc, err := api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return fmt.Errorf("connection: %w", err)
	}
	defer func() { _ = pc.Close() }()
	track, err := webrtc.NewTrackLocalStaticSample(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus}, "voice", "voice")
	if err != nil {
		return fmt.Errorf("track: %w", err)
	}
	if _, err := pc.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly}); err != nil {
		return fmt.Errorf("track: %w", err)
	}
	if err := l.send(requestAddTrack, words("voice", "voice")); err != nil { // cid, name; the type 0 is audio
		return err
	}
	offer, err := pc.CreateOffer(nil)
	if err != nil {
		return fmt.Errorf("offer: %w", err)
	}
	gathered := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(offer); err != nil {
		return fmt.Errorf("offer: %w", err)
	}
	<-gathered
	if err := l.send(requestOffer, words("offer", pc.LocalDescription().SDP)); err != nil {
		return err
	}
	up := make(chan struct{})
	var once sync.Once
	pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		if s == webrtc.PeerConnectionStateConnected {
			once.Do(func() { close(up) })
		}
	})
	wait := &early{pc: pc}
	go func() { // ends with the connection
		for m := range l.in {
			switch m.field {
			case responseAnswer:
				if pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: field(m.body, 2)}) == nil {
					_ = wait.ready()
				}
			case responseTrickle:
				if c, ok := candidate(m.body); ok {
					_ = wait.candidate(c)
				}
			}
		}
	}()
	select {
	case <-up:
	case <-time.After(10 * time.Second):
		return errors.New("LiveKit took no speaker within 10 s")
	}
	ctx, cancel := context.WithCancel(ctx)
	f := p.feed(ctx, 1, func(_ int, frames [][]byte) error {
		return track.WriteSample(media.Sample{Data: frames[0], Duration: frameTime})
	})
	defer f.stop()
	fmt.Println("speaking")
	go func() { // ends with the process
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	<-ctx.Done()
	return nil
}
