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
	"errors"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"earshot/internal/event"
	"earshot/internal/observatory"
	"earshot/internal/peer"
	"earshot/internal/timeline"
)

const (
	// handshake is how long a WebRTC listener may take from the answer to DTLS being done.
	handshake = 15 * time.Second

	// hurryAfter is how long a handshake may take while others wait for theirs.
	hurryAfter = 2 * time.Second

	// guarded is how long the address of one who plays is theirs after a check: somewhat longer than the longest pause between checks (RFC
	// 7675, 5.1: six seconds).
	guarded = 7 * time.Second

	// maxPaths bounds the addresses from which one session's checks are answered. One is usual; somebody who moves between networks has
	// some more. A listener with 64 Ki ports, or with addresses that are not theirs, could fill the memory. Who needs more connects anew.
	maxPaths = 128
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

// shaker is a goroutine that does handshakes, one after the other.
type shaker struct {
	since  int64 // of the one that it does now
	cancel context.CancelFunc
}

// channel is one event's programme, as long as somebody listens to it.
type channel struct {
	src   Source
	plan  atomic.Pointer[plan]
	users int // guarded by Engine.mu
	stop  chan struct{}
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
	for range cfg.Shards {
		sh := newShard(e)
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

func (e *Engine) admit(s *session, src Source) error {
	var gone *session
	defer func() {
		if gone != nil {
			e.end(gone, droppedHandshake)
		}
	}()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		e.stats.refused[refusedStopping].Add(1)
		return event.Unavailable("The server restarts. Try again in a few seconds.", nil)
	}
	full := len(e.sessions) >= e.cfg.Max
	if !full && e.pending.size() >= e.cfg.MaxPending {
		// One who has been half-open for too long gives way.
		if gone = e.pending.oldest(e.now()); gone != nil {
			e.forget(gone)
		}
		full = gone == nil
	}
	if full {
		e.stats.refused[refusedFull].Add(1)
		return event.Unavailable("The server has as many WebRTC listeners as it can take. Listen another way, or try again in a minute.", nil)
	}
	ch := e.channels[src.Timeline]
	if ch == nil {
		ch = &channel{src: src, stop: make(chan struct{})}
		ch.plan.Store(planFrom(e.pace.frames()))
		e.channels[src.Timeline] = ch
		e.wg.Go(func() { e.follow(ch) })
	}
	ch.users++
	s.ch = ch
	e.sessions[s.id], e.byUfrag[s.ufrag] = s, s
	e.pending.add(s)
	e.alive.Add(1)
	return nil
}

// follow wakes the shards whenever the programme has grown.
func (e *Engine) follow(ch *channel) {
	for {
		changed := ch.src.Timeline.Changed()
		for _, sh := range e.shards {
			sh.poke()
		}
		if ch.src.Timeline.Closed() {
			changed = nil // nothing more will
		}
		select {
		case <-changed:
		case <-ch.stop:
			return
		}
	}
}

// forget takes a session out of all maps, and says whether it was there. The caller holds mu.
func (e *Engine) forget(s *session) bool {
	if e.sessions[s.id] != s {
		return false
	}
	delete(e.sessions, s.id)
	delete(e.byUfrag, s.ufrag)
	e.pending.remove(s)
	for _, w := range s.paths {
		if e.byPath[w] == s {
			delete(e.byPath, w)
		}
	}
	s.paths = nil
	if s.ch.users--; s.ch.users == 0 {
		delete(e.channels, s.ch.src.Timeline)
		close(s.ch.stop)
	}
	return true
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

// End ends a session by its id and says whether there was one. The client learns by DTLS's close_notify that it is over.
func (e *Engine) End(id string) bool {
	e.mu.RLock()
	s := e.sessions[id]
	e.mu.RUnlock()
	return s != nil && e.drop(s, -1)
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

// find gives the session behind a check's user name.
func (e *Engine) find(name []byte) *session {
	if len(name) != len(ufrag{}) {
		return nil
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.byUfrag[ufrag(name)]
}

// at gives the session that an address belongs to.
func (e *Engine) at(from where) *session {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.byPath[from]
}

// checked takes an authentic check, and says whether its address is one of the session's. Whether the session moves there is decided
// elsewhere, see wonder.
func (e *Engine) checked(s *session, transaction uint32, from path) bool {
	known := from.tcp == nil && e.at(from.udp) == s
	if known || from.tcp != nil && s.reached.Load() {
		if s.seen(transaction, from) && !known {
			e.stats.inbound[inboundReplay].Add(1)
			return false
		}
		return true
	}
	why := e.enter(s, transaction, from)
	if why >= 0 {
		e.stats.inbound[why].Add(1)
	}
	return why == entered
}

// What enter answers if it is not a reason.
const (
	entered = -1 - iota
	ended
)

// enter takes a check from an address that is not its session's, and gives the inbound reason why it does not become so.
func (e *Engine) enter(s *session, transaction uint32, from path) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	first := !s.reached.Load()
	owner := e.byPath[from.udp]
	switch {
	case e.sessions[s.id] != s:
		return ended
	case from.tcp == nil && owner != nil && owner.place == nil && owner.lives(from):
		return inboundTaken
	case from.tcp == nil && len(s.paths) >= maxPaths:
		return inboundPaths
	}
	if first {
		most := e.cfg.MaxPending
		if e.pending.size() > e.cfg.MaxPending/2 {
			most = e.cfg.MaxPendingHost
		}
		if !e.pending.comes(s, hostOf(from.at()), most) {
			return inboundHost
		}
		s.reached.Store(true)
	}
	// Only now: a check that is refused for another reason may come again.
	if s.seen(transaction, from) {
		return inboundReplay
	}
	if from.tcp == nil {
		// An address that was another's is this one's now: it has the password, and the other's page was left.
		if !slices.Contains(s.paths, from.udp) {
			if len(s.paths) == 0 {
				s.paths = make([]where, 0, 1) // nearly all have one
			}
			s.paths = append(s.paths, from.udp)
		}
		e.byPath[from.udp] = s
	}
	return entered
}

// lineMost bounds those who wait for their handshake.
func (e *Engine) lineMost() int { return 2 * e.cfg.MaxPending }

// hurry ends the handshakes that take long while others wait in line: half-open ones must keep nobody out.
func (e *Engine) hurry(now int64) {
	e.shakeMu.Lock()
	defer e.shakeMu.Unlock()
	if len(e.line) == 0 {
		return
	}
	for k := range e.shaking {
		if k.cancel != nil && now-k.since > int64(hurryAfter) {
			k.cancel()
			k.cancel = nil
		}
	}
}

// queue lets a session shake hands, at once or when others are done.
func (e *Engine) queue(s *session) {
	e.mu.Lock()
	e.pending.shakes(s, e.now())
	e.mu.Unlock()
	s.mu.Lock()
	if s.life != inLine {
		s.mu.Unlock()
		return
	}
	// The goroutine's own, for as long as it runs. It is counted while the session's count must be there: Close may wait already.
	e.alive.Add(1)
	s.mu.Unlock()
	e.shakeMu.Lock()
	if len(e.shaking) < e.cfg.MaxHandshakes {
		k := &shaker{}
		e.shaking[k] = struct{}{}
		e.shakeMu.Unlock()
		go e.shake(k, s)
		return
	}
	defer e.alive.Done()
	full := len(e.line) >= e.lineMost()
	if !full {
		e.line = append(e.line, s)
	}
	e.shakeMu.Unlock()
	if full {
		e.stats.inbound[inboundLine].Add(1)
		s.mu.Lock()
		if s.life == inLine {
			s.life, s.shaking = waiting, nil // the client says hello again
		}
		s.mu.Unlock()
	}
}

// shake does the given session's handshake, then those that wait in line.
func (e *Engine) shake(k *shaker, s *session) {
	defer e.alive.Done()
	for s != nil {
		left := handshake - time.Duration(e.now()-s.since)
		ctx, cancel := context.WithTimeout(e.ctx, left)
		e.shakeMu.Lock()
		k.since, k.cancel = e.now(), cancel
		e.shakeMu.Unlock()
		e.shakeOne(ctx, cancel, s)
		cancel()
		e.shakeMu.Lock()
		s, k.cancel = nil, nil
		if len(e.line) > 0 {
			s = e.line[0]
			e.line[0] = nil
			if e.line = e.line[1:]; len(e.line) == 0 {
				e.line = nil
			}
		} else {
			delete(e.shaking, k)
		}
		e.shakeMu.Unlock()
	}
}

func (e *Engine) shakeOne(ctx context.Context, cancel context.CancelFunc, s *session) {
	s.mu.Lock()
	if s.life != inLine {
		s.mu.Unlock()
		return
	}
	s.life, s.cancel = shakes, cancel
	k := s.shaking
	s.mu.Unlock()

	got, err := k.shake(ctx, e.id, s.hash, s.print)

	s.mu.Lock()
	s.shaking, s.cancel, s.print = nil, nil, nil
	if s.life == over {
		to := s.to
		s.mu.Unlock()
		if err == nil { // the client may think that it is connected
			if b, err := got.dtls.goodbye(); err == nil {
				e.sendTo(to, b)
			}
		}
		s.hangUp()
		e.alive.Done()
		return
	}
	if err != nil {
		s.life = waiting // so that drop counts it out
		s.mu.Unlock()
		e.cfg.Log.Debug("a listener's handshake failed", "err", err)
		why := droppedHandshake
		if errors.Is(err, errPrint) {
			why = droppedCertificate
		}
		e.drop(s, why)
		return
	}
	s.life, s.via = playing, e.emptiest()
	s.keys, s.records, s.flight = got.keys, got.dtls, got.last
	e.stats.listeners.Add(1)
	e.stats.joined.Add(1)
	s.via.post(order{what: orderJoin, s: s, to: s.to})
	s.mu.Unlock()
	e.mu.Lock()
	e.pending.remove(s)
	e.mu.Unlock()
}

// emptiest is the shard with the fewest sessions.
func (e *Engine) emptiest() *shard {
	var best *shard
	least := 0
	for _, sh := range e.shards {
		sh.mu.Lock()
		n := sh.size
		sh.mu.Unlock()
		if best == nil || n < least {
			best, least = sh, n
		}
	}
	return best
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
