package whep

import (
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"earshot/internal/event"
	"earshot/internal/observatory"
	"earshot/internal/timeline"
)

// How a shard spreads its work. A frame that is made is due to all at once, and sent to all at once it would be a burst that overruns
// queues on the way and keeps the processor from everybody else.
const (
	slot      = 5 * time.Millisecond // of which a frame has four
	slots     = int(event.FrameDuration / slot)
	slotLeast = 512                    // so many are sent at once anyhow: two milliseconds
	tick      = 100 * time.Millisecond // in each a tenth of the sessions is looked after
	ticks     = 10                     // so each once in a second

	behindMost = 50 // frames: a shard that is further behind goes on at the head
)

// order is what others want of a shard. It is done by the shard's goroutine, in order.
type order struct {
	what orderKind
	s    *session
	to   path
	nack nackPair
}

type orderKind uint8

const (
	orderJoin orderKind = iota
	orderLeave
	orderMove // send elsewhere
	orderRepeat
)

// repeatsMost bounds how many requests for retransmission wait for a shard; what comes beyond is dropped, and asked for again.
const repeatsMost = 4096

// shard sends to its share of the sessions, from one goroutine that owns what it needs for that.
type shard struct {
	in     *Engine
	number int // in Engine.shards
	wake   chan struct{}

	mu      sync.Mutex
	orders  []order
	repeats int // of orders
	size    int // sessions, with those that are still to join

	busy atomic.Int64 // ns spent working since the start

	// Owned by the goroutine.
	spare  []order
	feeds  []*feed
	all    []*session
	sweep  int   // where in all the tick goes on
	ticked int64 // when it last did
	bytes  uint64
	out    *outbox
	iv     [saltSize]byte
	small  [packetMax]byte // for those over TCP
}

// feed is one event's programme on one shard.
type feed struct {
	ch     *channel
	next   uint64 // frame
	level  int    // frames in a packet, at the least
	lanes  []*lane
	active int // sessions
}

func newShard(e *Engine, number int) *shard {
	s := &shard{in: e, number: number, wake: make(chan struct{}, 1)}
	s.out = newOutbox(e.cfg.Port.sock, &e.stats.dropped[droppedQueue], &e.stats.dropped[droppedUnreachable])
	return s
}

// poke has the shard look at its orders and its timelines.
func (sh *shard) poke() {
	select {
	case sh.wake <- struct{}{}:
	default:
	}
}

func (sh *shard) post(o order) {
	sh.mu.Lock()
	switch o.what {
	case orderRepeat:
		if sh.repeats == repeatsMost {
			sh.mu.Unlock()
			sh.in.stats.inbound[inboundFlood].Add(1)
			return
		}
		sh.repeats++
	case orderJoin:
		sh.size++
	case orderLeave:
		sh.size--
	}
	sh.orders = append(sh.orders, o)
	sh.mu.Unlock()
	sh.poke()
}

// run works until stop is closed.
func (sh *shard) run(stop <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-sh.wake:
		case <-timer.C:
		case <-stop:
			return
		}
		began := sh.in.now()
		next := sh.work(began)
		now := sh.in.now()
		sh.busy.Add(now - began)
		timer.Reset(time.Duration(max(0, next-now)))
	}
}

// work does what is due, and says when there is more.
func (sh *shard) work(now int64) (next int64) {
	sh.obey(now)
	for i := 0; i < len(sh.feeds); i++ {
		f := sh.feeds[i]
		if !sh.pull(f, now) || f.active == 0 {
			f.ch.feeds[sh.number].Store(false)
			sh.feeds[i] = sh.feeds[len(sh.feeds)-1]
			sh.feeds = sh.feeds[:len(sh.feeds)-1]
			i--
		}
	}
	next = sh.look(now)
	for _, f := range sh.feeds {
		for _, l := range f.lanes {
			if at := sh.serve(f, l, now); at != 0 {
				next = min(next, at)
			}
		}
	}
	sh.out.flush()
	sh.in.stats.bytes.Add(sh.bytes)
	sh.bytes = 0
	return next
}

func (sh *shard) obey(now int64) {
	sh.mu.Lock()
	sh.orders, sh.spare = sh.spare[:0], sh.orders
	sh.repeats = 0
	sh.mu.Unlock()
	for _, o := range sh.spare {
		switch o.what {
		case orderJoin:
			sh.join(o.s, o.to, now)
		case orderLeave:
			sh.leave(o.s)
		case orderMove:
			o.s.dest = o.to
		case orderRepeat:
			sh.repeat(o.s, o.nack)
		}
	}
	clear(sh.spare)
	if cap(sh.spare) > 4096 {
		sh.spare = nil // a crowd came or went
	}
}

func (sh *shard) feed(ch *channel) *feed {
	for _, f := range sh.feeds {
		if f.ch == ch {
			return f
		}
	}
	ch.feeds[sh.number].Store(true)
	f := &feed{ch: ch, next: ch.src.Timeline.Head()}
	if f.next > ch.src.Timeline.First() {
		f.next--
	}
	f.level = ch.plan.Load().at(f.next)
	for _, frames := range lengths {
		for phase := range frames {
			f.lanes = append(f.lanes, &lane{frames: frames, phase: phase})
		}
	}
	sh.feeds = append(sh.feeds, f)
	return f
}

// lane gives the emptiest one for a length.
func (f *feed) lane(frames int) *lane {
	var best *lane
	for _, l := range f.lanes {
		if l.frames == frames && (best == nil || len(l.sessions) < len(best.sessions)) {
			best = l
		}
	}
	return best
}

func (sh *shard) join(s *session, to path, now int64) {
	f := sh.feed(s.ch)
	s.feed, s.dest = f, to
	f.active++
	s.allPos = len(sh.all)
	sh.all = append(sh.all, s)
	s.ear = s.ch.src.Audience.Join(observatory.WHEP)
	s.reportAt = now + int64(reportEvery)/4
	// Whoever comes while a longer packet is announced, or while there still is one, gets that.
	plan := s.ch.plan.Load()
	l := f.lane(max(s.wish, f.level, plan.last()))
	s.lane, s.lanePos = l, len(l.sessions)
	l.sessions = append(l.sessions, s)
	// A first number below 2^15 makes sure that a lost first packet cannot be taken for one of the next roll-over (RFC 3711, 3.3.1). The
	// newest packet is sent at once, unless it is old, or nobody was there to collect what follows it.
	s.start = uint64(s.ssrc & 0x7fff)
	if l.made > 0 && (l.cursor < s.lanePos || l.follows(f.next) && now-l.since < int64(l.frames)*int64(event.FrameDuration)) {
		s.base = s.start - (l.made - 1)
	} else {
		s.base = s.start - l.made
		if l.cursor == s.lanePos {
			l.cursor++
		}
	}
	s.laneStart = s.start
}

// take takes a session off its lane, so that those who wait for the newest packet keep waiting and the others do not get it twice.
func (l *lane) take(s *session) {
	at, last := s.lanePos, len(l.sessions)-1
	put := func(to int, s *session) {
		l.sessions[to], s.lanePos = s, to
	}
	if at < l.cursor {
		l.cursor--
		put(at, l.sessions[l.cursor])
		at = l.cursor
	}
	if at < last {
		put(at, l.sessions[last])
	}
	l.sessions[last] = nil
	l.sessions = l.sessions[:last]
	s.lane = nil
}

func (sh *shard) leave(s *session) {
	if s.lane == nil {
		return
	}
	if s.sent {
		s.ear.Took(sh.in.cfg.Now())
	}
	s.ch.src.Audience.Leave(s.ear)
	s.lane.take(s)
	last := len(sh.all) - 1
	sh.all[s.allPos] = sh.all[last]
	sh.all[s.allPos].allPos = s.allPos
	sh.all[last] = nil
	sh.all = sh.all[:last]
	s.feed.active--
	if b, err := s.records.goodbye(); err == nil {
		sh.emit(s.dest, b)
	}
	s.hangUp()
	s.in.gone(s)
}

// emit sends one datagram that is ready.
func (sh *shard) emit(to path, b []byte) {
	if to.tcp != nil {
		sh.in.overTCP(to.tcp, b)
		return
	}
	sh.out.put(copy(sh.out.next(), b), to.udp)
}

// pull takes what the timeline has grown by into the lanes. It says no when the timeline is over.
func (sh *shard) pull(f *feed, now int64) bool {
	tl := f.ch.src.Timeline
	if head := tl.Head(); head > f.next+behindMost {
		sh.in.stats.skipped.Add((head - f.next) * uint64(f.active))
		sh.closeAll(f, now)
		f.next = head - 1
	}
	for {
		frame, err := tl.Frame(f.next)
		switch {
		case err == nil:
		case errors.Is(err, timeline.ErrAhead):
			return true
		case errors.Is(err, timeline.ErrGap): // a gap ends where a segment begins
			sh.closeAll(f, now)
			f.next += timeline.FramesPerSegment - f.next%timeline.FramesPerSegment
			continue
		case errors.Is(err, timeline.ErrGone):
			sh.closeAll(f, now)
			sh.in.stats.skipped.Add((tl.Head() - f.next) * uint64(f.active))
			f.next = tl.Head()
			continue
		default: // closed
			sh.closeAll(f, now)
			sh.finish(f)
			for _, s := range sh.all {
				if s.feed == f {
					sh.in.drop(s, -1)
				}
			}
			return false
		}
		if level := f.ch.plan.Load().at(f.next); level != f.level {
			sh.relevel(f, level, now)
		}
		for _, l := range f.lanes {
			if len(l.sessions) == 0 {
				l.n = 0
				continue
			}
			if l.closes(f.next, frame.Packet) {
				sh.serveAll(f, l)
				l.close(now)
			}
			if l.add(f.next, frame.Packet) {
				sh.serveAll(f, l)
				l.close(now)
			}
		}
		f.next++
	}
}

// closeAll ends every packet that is being filled.
func (sh *shard) closeAll(f *feed, now int64) {
	for _, l := range f.lanes {
		if l.n > 0 && len(l.sessions) > 0 {
			sh.serveAll(f, l)
			l.close(now)
		}
	}
}

// finish sends what is due to all of an event, whatever its slot.
func (sh *shard) finish(f *feed) {
	for _, l := range f.lanes {
		sh.serveAll(f, l)
	}
}

// relevel moves the sessions whose packets get longer or shorter. Packets end here on every lane, so nobody loses a frame or hears one
// twice, and each session's numbers go on without a gap.
func (sh *shard) relevel(f *feed, level int, now int64) {
	sh.closeAll(f, now)
	sh.finish(f)
	f.level = level
	for _, from := range f.lanes {
		for i := 0; i < len(from.sessions); {
			s := from.sessions[i]
			frames := max(s.wish, level)
			if frames == from.frames {
				i++
				continue
			}
			next := s.base + from.made
			from.take(s)
			to := f.lane(frames)
			s.lane, s.lanePos = to, len(to.sessions)
			to.sessions = append(to.sessions, s)
			to.cursor = len(to.sessions)
			s.base, s.laneStart = next-to.made, next
		}
	}
}

// serve sends the newest packet to those whose slot has come, and says when the next one's does: 0 if all have it.
func (sh *shard) serve(f *feed, l *lane, now int64) int64 {
	n := len(l.sessions)
	if l.cursor >= n {
		return 0
	}
	passed := int(max(0, now-l.since)/int64(slot)) + 1
	share := max(slotLeast, (n+slots-1)/slots)
	upTo := min(n, passed*share)
	for at := l.cursor / share; at*share < upTo; at++ {
		sh.in.stats.late(now - l.since - int64(at)*int64(slot))
	}
	for ; l.cursor < upTo; l.cursor++ {
		sh.send(f, l, l.sessions[l.cursor])
	}
	if l.cursor == n {
		return 0
	}
	return l.since + int64(passed)*int64(slot)
}

func (sh *shard) serveAll(f *feed, l *lane) {
	for ; l.cursor < len(l.sessions); l.cursor++ {
		sh.send(f, l, l.sessions[l.cursor])
	}
}

// send seals the lane's newest packet for one session.
func (sh *shard) send(f *feed, l *lane, s *session) {
	if size := sh.seal(f, l, s, l.made-1); size > 0 {
		s.octets += uint32(size)
		s.sent = true
		sh.bytes += uint64(size + rtpHeader)
	}
}

// seal puts packet n of the lane into the outbox for a session, and gives the size of its payload.
func (sh *shard) seal(f *feed, l *lane, s *session, n uint64) int {
	p := &l.ring[n%uint64(len(l.ring))]
	payload, kind := p.plain, s.opus
	if s.red != 0 {
		payload, kind = p.red, s.red
		if payload == nil {
			payload = l.redundant(n, f.ch.src.Timeline)
		}
	}
	var b []byte
	if s.dest.tcp != nil {
		b = sh.small[:]
	} else {
		b = sh.out.next()
	}
	index := s.base + n
	b[0], b[1] = 0x80, kind
	binary.BigEndian.PutUint16(b[2:], uint16(index))
	binary.BigEndian.PutUint32(b[4:], timeline.RTPTime(p.first))
	binary.BigEndian.PutUint32(b[8:], s.ssrc)
	size, err := s.keys.sealRTP(b, payload, s.ssrc, index, &sh.iv)
	if err != nil {
		sh.in.stats.dropped[droppedUnreachable].Add(1)
		return 0
	}
	if s.dest.tcp != nil {
		sh.in.overTCP(s.dest.tcp, b[:size])
	} else {
		sh.out.put(size, s.dest.udp)
	}
	return len(payload)
}

// Retransmissions are paid for by what was sent: one for four, and 64 saved up at most. Nobody can make the server send much more than the
// programme.
const (
	repeatSaved = 64
	repeatShare = 4
)

// repeat sends again what a listener says it did not get, if that is still there.
func (sh *shard) repeat(s *session, want nackPair) {
	l := s.lane
	if l == nil || l.made == 0 {
		return
	}
	sent := s.base + l.made - s.start
	for i := range 17 {
		if i > 0 && want.lost>>(i-1)&1 == 0 {
			continue
		}
		n, ok := l.find(want.pid+uint16(i), s.base, s.laneStart)
		if !ok {
			sh.in.stats.inbound[inboundGone].Add(1)
			continue
		}
		if n == l.made-1 && s.lanePos >= l.cursor {
			continue // not sent yet
		}
		s.repeated = max(s.repeated, int64(sent/repeatShare)-repeatSaved)
		if s.repeated >= int64(sent/repeatShare)+repeatSaved/2 {
			sh.in.stats.inbound[inboundFlood].Add(1)
			return
		}
		s.repeated++
		if sh.seal(s.feed, l, s, n) > 0 {
			sh.in.stats.repeated.Add(1)
		}
	}
}

// look sees after a tenth of the sessions: who did not give consent for half a minute leaves (RFC 7675, 5.1), and who heard no report for
// some seconds gets one. It says when to look again.
func (sh *shard) look(now int64) int64 {
	if now-sh.ticked < int64(tick) {
		return sh.ticked + int64(tick)
	}
	sh.ticked = now
	wall := sh.in.cfg.Now()
	for range (len(sh.all) + ticks - 1) / ticks {
		if sh.sweep >= len(sh.all) {
			sh.sweep = 0
		}
		s := sh.all[sh.sweep]
		sh.sweep++
		if now-s.heard.Load() > int64(sh.in.cfg.Silent) {
			sh.in.drop(s, droppedLost)
			continue
		}
		if s.sent {
			s.ear.Took(wall)
			s.sent = false
		}
		if now >= s.reportAt {
			sh.report(s, wall)
			s.reportAt = now + int64(reportEvery)
		}
	}
	return now + int64(tick)
}

// samples gives a length of programme in RTP's units. Whole seconds apart: in one product, nanoseconds overflow after 53 hours.
func samples(d time.Duration) uint32 {
	return uint32(int64(d/time.Second)*event.SampleRate + int64(d%time.Second)*event.SampleRate/int64(time.Second))
}

func (sh *shard) report(s *session, wall time.Time) {
	l := s.lane
	sent := s.base + l.made - s.start
	if sent == 0 {
		return
	}
	rtp := samples(wall.Sub(s.ch.src.Timeline.Origin()))
	n := report(sh.small[:], s.ssrc, wall, rtp, uint32(sent), s.octets)
	size, err := s.keys.sealRTCP(sh.small[:], n, s.reports)
	if err != nil {
		return
	}
	s.reports++
	sh.emit(s.dest, sh.small[:size])
}
