// Package whep serves listeners over WebRTC (draft-ietf-wish-whep), and owns the one port, UDP and TCP, over which all WebRTC comes
// and goes: that of speakers too, who get their packets through [Port.UDPMux] and [Port.TCPMux].
//
// The engine only sends. A listener is a [session]: a few hundred bytes and one cipher, without a goroutine. What comes from listeners is
// read by the port's goroutine, which answers ICE checks and passes on the rest; DTLS is a goroutine that ends with the handshake; audio
// goes out from a few shards, each of which makes every packet once and seals it for each of its sessions. All of a listener's state is
// made after a check with the right password came, but for what the answer to the offer promised.
package whep

import (
	"context"
	"crypto"
	"crypto/rand"
	_ "crypto/sha512" // the other hashes that an offer may name
	"encoding/binary"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"earshot/internal/event"
	"earshot/internal/observatory"
	"earshot/internal/peer"
	"earshot/internal/timeline"
)

// Source is the programme of one event, as its listeners read it.
type Source struct {
	Slug     string
	Timeline *timeline.Timeline
	Audience *observatory.Audience
}

// Refusal says why nobody can begin to listen: nil while the timeline grows.
func (s Source) Refusal() error {
	switch {
	case !s.Timeline.Closed():
		return nil
	case s.Timeline.Ended():
		return event.Conflict("The event has ended.")
	}
	return event.Unavailable("The server restarts. Try again in a few seconds.", nil)
}

// Config of an Engine.
type Config struct {
	Port *Port

	// Advertise replaces the addresses in the answers. Empty: the listening address, or where that is unspecified, all interfaces'
	// addresses.
	Advertise []netip.Addr

	Max            int // listeners at once, default 20,000; each takes about 3 KB
	MaxPending     int // of these, not yet connected, default 1000: what a flood of offers can hold
	MaxPendingHost int // of these, from one IPv4 address or IPv6 /64 while more than half of MaxPending are there, default 64
	MaxHandshakes  int // of these, in the middle of DTLS, default 128, about 50 KB each; the others wait in line

	Shards int           // goroutines that send, default one less than processors, at least one
	Silent time.Duration // how long nothing authentic may come before a listener is given up, default 30 s (RFC 7675, 5.1)

	// Announce is called before the packets of an event's listeners change their length: from frame from on they are of ms
	// milliseconds, but for those listeners who wished for longer ones. It must not block, nor call the Engine. nil: nobody is told.
	Announce func(src Source, ms int, from uint64)

	FixedPace bool // packets change their length only by SetPacket, not by load

	Log *slog.Logger
	Now func() time.Time // default time.Now
}

func (c Config) withDefaults() Config {
	set := func(v *int, to int) {
		if *v == 0 {
			*v = to
		}
	}
	set(&c.Max, 20_000)
	set(&c.MaxPending, 1000)
	set(&c.MaxPendingHost, 64)
	set(&c.MaxHandshakes, 128)
	set(&c.Shards, max(1, runtime.GOMAXPROCS(0)-1))
	if c.Silent == 0 {
		c.Silent = 30 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Announce == nil {
		c.Announce = func(Source, int, uint64) {}
	}
	return c
}

// Engine holds the WebRTC listeners. All methods are safe from any goroutine.
type Engine struct {
	cfg    Config
	id     *identity
	begun  time.Time
	stats  counters
	shards []*shard
	places candidates
	tie    [8]byte // see ask
	pace   pace

	ctx    context.Context // ends handshakes
	cancel context.CancelFunc
	stop   chan struct{}
	wg     sync.WaitGroup // shards, followers, the keeper
	alive  sync.WaitGroup // sessions

	mu       sync.RWMutex
	sessions map[string]*session
	byUfrag  map[ufrag]*session
	byPath   map[where]*session
	pending  pending
	channels map[*timeline.Timeline]*channel
	closed   bool

	shakeMu sync.Mutex
	shaking map[*shaker]struct{}
	line    []*session
}

// New prepares to answer. The port must be open, and can serve one engine.
func New(cfg Config) (*Engine, error) {
	cfg = cfg.withDefaults()
	id, err := newIdentity(cfg.Log)
	if err != nil {
		return nil, err
	}
	e := &Engine{
		cfg: cfg, id: id, begun: time.Now(), stop: make(chan struct{}),
		sessions: make(map[string]*session), byUfrag: make(map[ufrag]*session), byPath: make(map[where]*session),
		pending: pending{hosts: make(map[host]int)}, channels: make(map[*timeline.Timeline]*channel), shaking: make(map[*shaker]struct{}),
	}
	_, _ = rand.Read(e.tie[:])
	e.places = candidates{port: cfg.Port, advertise: cfg.Advertise}
	e.pace.init()
	e.ctx, e.cancel = context.WithCancel(context.Background())
	for i := range cfg.Shards {
		sh := newShard(e, i)
		e.shards = append(e.shards, sh)
		e.wg.Go(func() { sh.run(e.stop) })
	}
	e.wg.Go(e.keep)
	cfg.Port.engine.Store(e)
	return e, nil
}

// now is the engine's clock in ns, which never goes back.
func (e *Engine) now() int64 { return int64(time.Since(e.begun)) }

// Answer answers a listener's SDP offer. packet is how long the listener's packets shall be at the least, in ms: 20, 60 or 120; 0 is 20. The
// session ends with the timeline, with End, or when the listener goes. Errors are *event.Error: Invalid for the offer or the packet,
// Conflict after the end, Unavailable while stopping and when there is no room.
func (e *Engine) Answer(_ context.Context, src Source, offer []byte, packet int) (id string, answer []byte, err error) {
	wish, ok := framesOf(packet)
	if !ok {
		return "", nil, event.Invalid("packet", "Packets are 20, 60 or 120 ms long. Leave packet out, or give one of these.")
	}
	o, err := peer.ReadOffer(offer)
	switch {
	case err != nil:
	case !o.Receives:
		err = event.Invalid("offer", "The offer does not receive audio. Offer the track recvonly.")
	case o.Passive:
		err = event.Invalid("offer", "The offer insists that the server begins DTLS (a=setup:passive). Use actpass.")
	}
	if err != nil {
		e.stats.refused[refusedOffer].Add(1)
		return "", nil, err
	}
	if err := src.Refusal(); err != nil {
		return "", nil, err
	}
	s := &session{
		in: e, id: rand.Text(), opus: o.Opus, red: o.RED, nack: o.NACK, wish: wish, since: e.now(),
		hash: map[string]crypto.Hash{"sha-256": crypto.SHA256, "sha-384": crypto.SHA384, "sha-512": crypto.SHA512}[o.Hash], print: o.Print,
		theirs: o.User, theirKey: shortKey(o.Password),
	}
	s.allowance, s.doubts, s.asks = s.since-rtcpSaved*rtcpEvery, s.since-doubtSaved*doubtEvery, s.since-questionsSaved*questionEvery
	random := rand.Text() // of 26 characters
	copy(s.pwd[:], random)
	random = rand.Text()
	copy(s.ufrag[:], random)
	var number [4]byte
	_, _ = rand.Read(number[:])
	s.ssrc = binary.BigEndian.Uint32(number[:]) | 1
	if err := e.admit(s, src); err != nil {
		return "", nil, err
	}
	return s.id, e.describe(s, o), nil
}

// End ends a session by its id and says whether there was one. The client learns by DTLS's close_notify that it is over.
func (e *Engine) End(id string) bool {
	e.mu.RLock()
	s := e.sessions[id]
	e.mu.RUnlock()
	return s != nil && e.drop(s, -1)
}

// drop ends a session; why is a dropped reason, or -1 if it is the listener's or the operator's wish. It says whether it was there.
func (e *Engine) drop(s *session, why int) bool {
	e.mu.Lock()
	there := e.forget(s)
	e.mu.Unlock()
	if there {
		e.end(s, why)
	}
	return there
}

// end lets a session that was forgotten go, wherever it was in its life.
func (e *Engine) end(s *session, why int) {
	if why >= 0 {
		e.stats.dropped[why].Add(1)
	}
	s.mu.Lock()
	was := s.life
	s.life = over
	cancel, via := s.cancel, s.via
	s.mu.Unlock()
	switch was {
	case waiting, inLine:
		s.hangUp()
		e.alive.Done()
	case shakes: // its goroutine sees that it is over
		cancel()
	case playing:
		via.post(order{what: orderLeave, s: s})
	}
}

// gone is called by the shard when a session has left it.
func (e *Engine) gone(*session) {
	e.stats.listeners.Add(-1)
	e.alive.Done()
}

// Close ends all sessions, tells their clients, and waits until nothing is left.
func (e *Engine) Close() {
	e.mu.Lock()
	first := !e.closed
	e.closed = true
	var all []*session
	for _, s := range e.sessions {
		all = append(all, s)
	}
	e.mu.Unlock()
	for _, s := range all {
		e.drop(s, -1)
	}
	e.alive.Wait()
	if first {
		e.cancel()
		close(e.stop)
		e.cfg.Port.engine.CompareAndSwap(e, nil)
	}
	e.wg.Wait()
}

// keep gives up those who never connect, and sets the pace.
func (e *Engine) keep() {
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	busy := make([]int64, len(e.shards))
	measured := e.now()
	for {
		select {
		case <-ticker.C:
		case <-e.stop:
			return
		}
		now := e.now()
		e.mu.RLock()
		late := e.pending.late(now)
		e.mu.RUnlock()
		for _, s := range late {
			e.drop(s, droppedHandshake)
		}
		e.hurry(now)
		if took := now - measured; took >= int64(paceEvery) {
			share := 0.0
			for i, sh := range e.shards {
				b := sh.busy.Load()
				share = max(share, float64(b-busy[i])/float64(took))
				busy[i] = b
			}
			measured = now
			if e.pace.observe(now, share, e.cfg.FixedPace) {
				e.setFrames()
			}
		}
	}
}

// sendTo sends one datagram, outside of the shards.
func (e *Engine) sendTo(to path, b []byte) {
	switch {
	case to.tcp != nil:
		e.overTCP(to.tcp, b)
	case to.udp != where{}:
		if _, err := e.cfg.Port.sock.WriteToUDPAddrPort(b, e.cfg.Port.sock.addr(to.udp)); err != nil {
			e.stats.dropped[droppedUnreachable].Add(1)
		}
	}
}

func (e *Engine) overTCP(t *stream, b []byte) {
	if !t.write(b) {
		e.stats.dropped[droppedQueue].Add(1)
	}
}
