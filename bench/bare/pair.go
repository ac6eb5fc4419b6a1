//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"earshot/internal/demo"
	"earshot/internal/event"
	"earshot/internal/fan"
	"earshot/internal/fan/sweep"
	"earshot/internal/mix"
	"earshot/internal/observatory"
	"earshot/internal/timeline"
)

type pairCmd struct {
	N       int           `default:"5000" help:"Listeners of push."`
	Cadence int           `default:"1000" help:"Milliseconds between two writes to a listener: 200, 400, 1000 or 2000."`
	TLS     bool          `help:"The engine writes TLS 1.3; the loop still writes plain bytes, which the other end does not look at."`
	Pairs   int           `default:"8" help:"How often each has its turn."`
	Phase   time.Duration `default:"3s" help:"How long a turn is measured: a multiple of the cadence."`
	Settle  time.Duration `default:"1200ms" help:"Before that, in each turn."`
	Profile string        `help:"Instead, write a CPU profile of the engine over 20 s." placeholder:"FILE"`
}

// pairResult is one turn of each, CPU per listener-second in microseconds.
type pairResult struct {
	Engine float64 `json:"engine_us"`
	Loop   float64 `json:"loop_us"`   // all sockets at the start of each interval, which is the cheapest
	Spread float64 `json:"spread_us"` // the loop again, spread over the interval in slots of 10 ms, as the engine does
}

// house is what the engine needs around it: a timeline that grows by the clock while it may, and HTTP.
type house struct {
	timeline *timeline.Timeline
	packets  [][]byte
	next     uint64
	fan      *fan.Fan
	port     *fan.Port
	server   *http.Server
	at       string
	served   chan error
}

const firstFrame = 100

func openHouse(secure bool) (*house, error) {
	h := &house{next: firstFrame, served: make(chan error, 1)}
	if err := h.encode(); err != nil {
		return nil, err
	}
	var err error
	if h.timeline, err = timeline.New(timeline.Config{Origin: time.Now().Add(-6 * time.Second), First: firstFrame, Epoch: 1}); err != nil {
		return nil, err
	}
	quiet := slog.New(slog.DiscardHandler)
	if h.port, err = fan.Listen("127.0.0.1:0", quiet); err != nil {
		return nil, err
	}
	if h.fan, err = fan.New(fan.Config{Port: h.port, Log: quiet}); err != nil {
		return nil, err
	}
	src := fan.Source{Slug: "demo", Timeline: h.timeline, Audience: observatory.NewAudience(event.Count{})}
	h.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := h.fan.ServeLive(w, r, src); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
			}
		}),
		ReadHeaderTimeout: 30 * time.Second,
		ErrorLog:          slog.NewLogLogger(quiet.Handler(), slog.LevelError),
	}
	l, err := sweep.ListenTCP(context.Background(), "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	h.at = l.Addr().String()
	if secure {
		cert, err := selfSigned()
		if err != nil {
			return nil, err
		}
		h.server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}, DynamicRecordSizingDisabled: true}
	}
	go func() { h.served <- h.server.Serve(h.fan.Sweep().Listen(l, h.server.TLSConfig)) }()
	return h, h.append(200)
}

// encode makes a round of the demo's voices, so that sizes are those of speech.
func (h *house) encode() error {
	enc, err := mix.NewEncoder(0)
	if err != nil {
		return err
	}
	a, b := demo.Pair(1)
	one, two, buf := make([]float32, 960), make([]float32, 960), make([]byte, 1500)
	for n := range uint64(450) {
		a.Frame(n, one)
		b.Frame(n, two)
		for i := range one {
			one[i] += two[i]
		}
		k, err := enc.Encode(one, buf)
		if err != nil {
			return err
		}
		h.packets = append(h.packets, append([]byte(nil), buf[:k]...))
	}
	return nil
}

// append makes n frames, with the cues that the demo has.
func (h *house) append(n int) error {
	for range n {
		var cues []timeline.Cue
		if h.next%100 == 0 {
			cues = append(cues, timeline.Cue{Kind: "stage", Data: json.RawMessage(`{"phase":"live","live_frame":100,"people":[{"id":"p_a","name":"Ada","role":"host","muted":false},{"id":"p_b","name":"Bo","role":"speaker","muted":false}]}`)})
		}
		if h.next%10 == 0 {
			cues = append(cues, timeline.Cue{Kind: "levels", Data: json.RawMessage(`{"p_a":-20.5}`)})
		}
		f := timeline.Frame{Number: h.next, Epoch: 1, Packet: h.packets[h.next%uint64(len(h.packets))]}
		if err := h.timeline.Append(f, cues...); err != nil {
			return fmt.Errorf("append a frame: %w", err)
		}
		h.next++
	}
	return nil
}

// grow appends by the clock for so long, and measures the process after settling.
func (h *house) grow(settle, phase time.Duration) (used, took time.Duration, err error) {
	begun, first := time.Now(), h.next
	var cpu time.Duration
	var from time.Time
	for {
		due := begun.Add(time.Duration(h.next-first+1) * event.FrameDuration)
		if from.IsZero() && due.Sub(begun) > settle {
			from, cpu = time.Now(), processCPU()
		}
		if due.Sub(begun) > settle+phase {
			return processCPU() - cpu, time.Since(from), nil
		}
		time.Sleep(time.Until(due))
		if err := h.append(1); err != nil {
			return 0, 0, err
		}
	}
}

// size is how many bytes a write has at that cadence, in the mean of the last parts.
func (h *house) size(cadence time.Duration) int {
	c := h.timeline.Cursor(100)
	bytes, parts := 0, 0
	for {
		p, err := c.Next()
		if err != nil {
			break
		}
		const header = 4 // of a WebSocket message of 126 bytes or more
		bytes += header + len(p.Media)
		if p.CueText != nil {
			bytes += header + len(p.CueText)
		}
		parts++
	}
	return bytes * int(cadence/timeline.PartDuration) / max(1, parts)
}

// sockets are the listeners': what is connected to the port that we listen on.
func (h *house) sockets() (fds []int) {
	for fd := 3; fd < 20_000; fd++ {
		if _, err := unix.Getpeername(fd); err != nil {
			continue
		}
		if at, err := name(fd); err == nil && at.String() == h.at {
			fds = append(fds, fd)
		}
	}
	return fds
}

// Run lets the engine and a bare loop write to the same sockets in turns: while the loop writes the timeline rests, so that
// the engine has nothing to send.
func (c *pairCmd) Run() error {
	runtime.LockOSThread()
	h, err := openHouse(c.TLS)
	if err != nil {
		return err
	}
	say("listening %v", h.at)
	halt, stopped := make(chan struct{}), make(chan error, 1)
	go func() { // the programme goes on while they come
		for {
			select {
			case <-halt:
				stopped <- nil
				return
			default:
				if _, _, err := h.grow(0, 100*time.Millisecond); err != nil {
					stopped <- err
					return
				}
			}
		}
	}()
	for deadline := time.Now().Add(time.Minute); h.fan.Sweep().Listeners() < c.N; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("only %d of %d listeners came within a minute", h.fan.Sweep().Listeners(), c.N)
		}
	}
	close(halt)
	if err := <-stopped; err != nil {
		return err
	}
	cadence := time.Duration(c.Cadence) * time.Millisecond
	chunk := make([]byte, h.size(cadence))
	n := float64(c.N)
	if c.Profile != "" {
		f, err := os.Create(c.Profile)
		if err != nil {
			return fmt.Errorf("profile: %w", err)
		}
		defer func() { _ = f.Close() }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return fmt.Errorf("profile: %w", err)
		}
		_, _, err = h.grow(0, 20*time.Second)
		pprof.StopCPUProfile()
		return err
	}
	for range c.Pairs {
		used, took, err := h.grow(c.Settle, c.Phase)
		if err != nil {
			return err
		}
		p := pairResult{Engine: float64(used.Microseconds()) / took.Seconds() / n}
		time.Sleep(c.Settle) // what was due is written
		socks := h.sockets()
		if len(socks) != c.N {
			return fmt.Errorf("%d sockets are connected, want %d", len(socks), c.N)
		}
		for _, l := range []struct {
			slots int
			into  *float64
		}{{1, &p.Loop}, {int(cadence / (10 * time.Millisecond)), &p.Spread}} {
			blocked := 0
			per := (c.N + l.slots - 1) / l.slots
			m := rounds(cadence, cadence, c.Phase, l.slots, func(slot int) {
				for _, fd := range socks[min(slot*per, c.N):min((slot+1)*per, c.N)] {
					if !write(fd, chunk) {
						blocked++
					}
				}
			})
			if blocked > 0 {
				return fmt.Errorf("%d writes of the loop blocked: the other end is too slow", blocked)
			}
			*l.into = float64(m.used.Microseconds()) / m.took.Seconds() / n
		}
		if err := json.NewEncoder(os.Stdout).Encode(p); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	return nil // the process ends, and with it everything that it opened
}

// push asks for a listener's stream and gives the socket, non-blocking; whatever comes on it from then on is not looked at.
func (c *sinkCmd) push(i int, to string, cfg *tls.Config) (fd int, err error) {
	conn, err := dialFrom(i, to)
	if err != nil {
		return 0, err
	}
	var rw io.ReadWriter = conn
	if c.TLS {
		rw = tls.Client(conn, cfg)
	}
	ask := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", c.Ask)
	if _, err = io.WriteString(rw, ask); err == nil {
		head := make([]byte, 12)
		if _, err = io.ReadFull(rw, head); err == nil && string(head) != "HTTP/1.1 101" {
			err = fmt.Errorf("answered %q", head)
		}
	}
	if err == nil {
		err = errors.Join(conn.SetDeadline(time.Time{}))
	}
	if err != nil {
		_ = conn.Close()
		return 0, fmt.Errorf("listener %d: %w", i, err)
	}
	f, err := conn.File() // a duplicate; the original is closed with its goroutine's poller entry
	_ = conn.Close()
	if err != nil {
		return 0, fmt.Errorf("listener %d: %w", i, err)
	}
	files.Lock()
	files.all = append(files.all, f) // a collected file would close its descriptor
	files.Unlock()
	return int(f.Fd()), unix.SetNonblock(int(f.Fd()), true)
}

// files keeps the descriptors of push open until the process ends.
var files struct {
	sync.Mutex
	all []*os.File
}
