package sweep

import (
	"crypto/tls"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"earshot/internal/observatory"
)

// shard owns listeners and the goroutine that serves them.
type shard struct {
	gauge
	engine *Engine
	epoll  int
	bell   chan struct{} // capacity 1: look at the mailbox and the streams

	mu      sync.Mutex
	mailbox []arrival
	closed  bool // nobody looks into the mailbox any more

	// owned by run
	pages    [][]listener
	free     []uint32 // places in pages
	groups   []*group
	leaving  []parting
	unread   []uint32 // more came than was read at once
	input    []byte   // what was read last
	joined   []byte   // what joint made last
	joint    joint
	events   []unix.EpollEvent
	now      time.Time
	rested   time.Time // when others last had the processor
	clock    uint32    // now, in tenths of a second since the engine began
	visited  int64
	arrivals []arrival // taken out of the mailbox
	received int       // of them
}

// arrival is a newcomer on the way to its shard.
type arrival struct {
	join  Join
	ear   *observatory.Listener
	conn  *Conn
	tls   *tls.Conn
	input []byte
}

// group is one stream's listeners on this shard.
type group struct {
	stream  *Stream
	step    uint64    // the head when it was last looked at
	begun   time.Time // when that was seen
	jumped  time.Time // when the head last rose by more than one
	closing bool
	classes [cadences]*schedule // nil: nobody has that cadence
	plan    *plan               // the latest that was seen
	carried bool                // the plan has taken effect
	count   int
	sent    uint64 // bytes, not yet told
	skipped uint64
}

const (
	pageBits  = 9
	pageSize  = 1 << pageBits
	inputSize = 16 << 10
	maxEvents = 64
	readLimit = 4 // reads of one listener at a time
)

func newShard(e *Engine) (*shard, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	sh := &shard{
		engine: e, epoll: ep, bell: make(chan struct{}, 1),
		input: make([]byte, inputSize), events: make([]unix.EpollEvent, maxEvents),
	}
	sh.cost.Store(int64(firstCost))
	return sh, nil
}

// nudge makes the shard look around.
func (sh *shard) nudge() {
	select {
	case sh.bell <- struct{}{}:
	default:
	}
}

// put hands a newcomer over. After the end its socket is closed.
func (sh *shard) put(a arrival) {
	sh.counts[a.join.Wish][a.join.Given].Add(1) // at once, so that the next newcomer sees the load
	sh.mu.Lock()
	closed := sh.closed
	if !closed {
		sh.mailbox = append(sh.mailbox, a)
	}
	sh.mu.Unlock()
	if closed {
		_ = unix.Close(a.conn.fd)
		sh.counts[a.join.Wish][a.join.Given].Add(-1)
		sh.engine.gone(a.join, a.ear)
		return
	}
	sh.nudge()
}

// run is the shard's life: at each step of a stream, and at each slot after it, it visits who is due; in between it reads what came.
func (sh *shard) run() {
	// A thread of its own, so that the thread's processor time is the sweep's: on a shared one, whoever ran in between would count.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer sh.close()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wait := time.Hour
		if sh.any() {
			wait = sh.untilNext()
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-sh.bell:
		case <-sh.engine.life.Done():
			return
		}
		sh.tick()
	}
}

func (sh *shard) any() bool { return len(sh.groups) > 0 || len(sh.leaving) > 0 }

// untilNext is how long nothing is due; the sockets are looked at at least once in a slot's time.
func (sh *shard) untilNext() time.Duration {
	now := time.Now()
	wait := slotTime
	for _, g := range sh.groups {
		since := now.Sub(g.begun)
		if int(since/slotTime)+1 < perStep {
			wait = min(wait, slotTime-since%slotTime)
		}
	}
	return max(wait, 200*time.Microsecond)
}

// tick does all that is due.
func (sh *shard) tick() {
	sh.look(time.Now())
	sh.rested = sh.now
	for more := true; more && sh.engine.life.Err() == nil; {
		more = false
		until := time.Now().Add(comings)
		cpu := threadTime()
		for i := 0; i < len(sh.groups); i++ {
			g := sh.groups[i]
			sh.breathe()
			sh.look(time.Now())
			if sh.step(g) {
				more = true
			}
			if g.count == 0 {
				sh.tell(g)
				sh.groups = append(sh.groups[:i], sh.groups[i+1:]...)
				i--
			}
		}
		if sh.visited > 0 {
			sh.busy.Add(threadTime() - cpu)
			sh.visits.Add(sh.visited)
			sh.visited = 0
		}
		// Who comes, or goes, waits for no long tick, and who is here for no flood of them.
		more = sh.poll(until) || more
		more = sh.receive(time.Now().Add(comings)) || more
	}
	sh.part()
}

// breathe lets others have the processor, if it is time. A goroutine that runs on is preempted after 10 ms, and then stands behind all that the
// scheduler has, in a queue from which every 61st turn takes one: beside a thousand newcomers that took a second. Who sleeps and wakes up is
// next.
func (sh *shard) breathe() {
	if now := time.Now(); now.Sub(sh.rested) > breath {
		time.Sleep(20 * time.Microsecond)
		sh.rested = time.Now()
	}
}

const breath = 3 * time.Millisecond

func (sh *shard) look(now time.Time) {
	sh.now = now
	sh.clock = uint32(now.Sub(sh.engine.begun) / (100 * time.Millisecond))
}

// comings is the time between two slots for reading from clients, and for letting in who has come.
const comings = 2 * time.Millisecond

// receive lets in who is in the mailbox until a time, and says whether somebody still waits.
func (sh *shard) receive(until time.Time) (more bool) {
	if len(sh.arrivals) == sh.received {
		sh.mu.Lock()
		sh.arrivals, sh.mailbox = sh.mailbox, sh.arrivals[:0]
		sh.mu.Unlock()
		sh.received = 0
	}
	for sh.received < len(sh.arrivals) {
		sh.admit(&sh.arrivals[sh.received])
		sh.arrivals[sh.received] = arrival{}
		sh.received++
		if sh.received%16 == 0 && time.Now().After(until) {
			break
		}
	}
	return sh.received < len(sh.arrivals)
}

// admit makes a listener of an arrival: its head and what it has to catch up with are written at once.
func (sh *shard) admit(a *arrival) {
	id := sh.place()
	l := sh.listener(id)
	g := sh.group(a.join.Stream)
	*l = listener{
		gen: l.gen, group: g, ear: a.ear, fd: int32(a.conn.fd), next: a.join.Next, wish: a.join.Wish, cadence: a.join.Given, told: a.join.Given,
		moved: sh.clock, state: present,
	}
	if a.tls != nil {
		l.tls, l.conn = a.tls, a.conn
	}
	g.count++
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff, Fd: int32(id), Pad: int32(l.gen)}
	if err := unix.EpollCtl(sh.epoll, unix.EPOLL_CTL_ADD, int(l.fd), &ev); err != nil {
		sh.enlist(id, l)
		sh.remove(id, l)
		return
	}
	sh.enlist(id, l)
	if a.tls != nil {
		sh.later(id, l) // crypto/tls may hold what it has read already
	}
	gen := l.gen
	first := a.join.Head
	if g.plan != nil && !g.carried { // it was on its way when a change was announced
		first = append(first, l.note(g.plan)...)
	}
	sh.bring(id, l, first)
	if len(a.input) > 0 && l.gen == gen && l.state == present {
		sh.digest(id, l, a.input)
	}
}

// place finds room for a listener.
func (sh *shard) place() uint32 {
	if len(sh.free) == 0 {
		page := uint32(len(sh.pages)) << pageBits
		sh.pages = append(sh.pages, make([]listener, pageSize))
		for i := range uint32(pageSize) {
			sh.free = append(sh.free, page+pageSize-1-i)
		}
	}
	id := sh.free[len(sh.free)-1]
	sh.free = sh.free[:len(sh.free)-1]
	return id
}

func (sh *shard) listener(id uint32) *listener { return &sh.pages[id>>pageBits][id&(pageSize-1)] }

func (sh *shard) group(s *Stream) *group {
	for _, g := range sh.groups {
		if g.stream == s {
			return g
		}
	}
	g := &group{stream: s, step: s.head.Load(), begun: sh.now, plan: s.plan.Load(), carried: true}
	if g.plan != nil {
		g.carried = g.reached()
	}
	sh.groups = append(sh.groups, g)
	return g
}

// enlist puts a listener into its cadence's schedule.
func (sh *shard) enlist(id uint32, l *listener) {
	room := max(1, int(int64(slotWork)/max(1, sh.cost.Load())))
	slot, pos := sh.schedule(l).add(id, room)
	l.slot, l.pos = uint16(slot), uint32(pos)
}

// transfer moves a listener to another cadence.
func (sh *shard) transfer(id uint32, l *listener, to Cadence) {
	before := l.group.classes[l.cadence]
	visited := before.visited(int(l.slot))
	sh.delist(l)
	sh.counts.move(l.wish, l.cadence, to)
	l.cadence = to
	after := sh.schedule(l)
	slot, pos := after.addAfter(id, visited, max(len(before.slots), len(after.slots)))
	l.slot, l.pos = uint16(slot), uint32(pos)
}

// schedule is that of a listener's cadence, ready to take it.
func (sh *shard) schedule(l *listener) *schedule {
	g := l.group
	c := g.classes[l.cadence]
	if c == nil {
		c = newSchedule(l.cadence)
		g.classes[l.cadence] = c
	}
	if c.count == 0 { // nobody was visited meanwhile, so nobody is late
		c.turn, c.notes = c.present(g.step, sh.now.Sub(g.begun)), 0
		if g.closing {
			c.turn = 0
		}
	}
	return c
}

func (sh *shard) delist(l *listener) {
	c := l.group.classes[l.cadence]
	if moved, any := c.remove(int(l.slot), int(l.pos)); any {
		sh.listener(moved).pos = l.pos
	}
}

// step visits one slot of each cadence that is due, and says whether more are.
func (sh *shard) step(g *group) (more bool) {
	s := g.stream
	if head := s.head.Load(); head != g.step {
		if head > g.step+1 { // the stream was held up, or we were; what is late by that is not late by sweeping
			g.jumped = sh.now
		}
		g.step, g.begun = head, sh.now
		sh.follow(g)
	}
	if !g.closing && s.Closed() {
		g.closing, g.begun = true, sh.now
		for _, c := range g.classes { // everybody is visited once a second, until they have taken all
			if c != nil {
				c.turn, c.notes = 0, 0
			}
		}
	}
	for _, c := range g.classes {
		if c == nil || c.count == 0 {
			continue
		}
		since := sh.now.Sub(g.begun)
		var due uint64
		if g.closing {
			due = uint64(float64(len(c.slots))*since.Seconds()) + 1
		} else {
			due = c.due(g.step, since)
		}
		if c.turn >= due {
			continue
		}
		at := c.slots[c.turn%uint64(len(c.slots))]
		if len(at) > 0 && !g.closing && sh.now.Sub(g.jumped) > time.Second {
			sh.slots.Add(1)
			if lateness(c.turn, g.step, since) > lateBy {
				sh.lateSlots.Add(1)
			}
		}
		told := c.turn < c.notes
		for i := len(at) - 1; i >= 0; i-- { // from the back: a visit may remove who is visited
			sh.visit(at[i], g, told)
			if i%32 == 31 {
				sh.breathe()
			}
		}
		c.turn++
		more = more || c.turn < due
	}
	if g.sent+g.skipped > 0 {
		sh.tell(g)
	}
	return more
}

// tell publishes what was counted of a group.
func (sh *shard) tell(g *group) {
	t := g.stream.cfg.Tally
	t.Bytes.Add(g.sent)
	t.Skipped.Add(g.skipped)
	g.sent, g.skipped = 0, 0
}

// follow looks at the stream's plan, at a step: a new one is told to each listener at its next visit; one whose time has come is carried out.
func (sh *shard) follow(g *group) {
	if p := g.stream.plan.Load(); p != nil && (g.plan == nil || p.seq != g.plan.seq) {
		g.plan, g.carried = p, false
		for _, c := range g.classes {
			if c != nil && p.notes[p.to] != nil {
				c.notes = c.turn + uint64(len(c.slots))
			}
		}
	}
	if g.plan == nil || g.carried || !g.reached() {
		return
	}
	for _, c := range g.classes {
		if c != nil && c.count > 0 && c.turn < c.notes {
			return // somebody has not been told yet: we were held up
		}
	}
	g.carried = true
	for k, c := range g.classes {
		if c == nil || c.count == 0 {
			continue
		}
		for n := range uint64(len(c.slots)) {
			slot := (c.turn + n) % uint64(len(c.slots)) // who was visited longest ago has the fewest slots to choose from
			for i := len(c.slots[slot]) - 1; i >= 0; i-- {
				id := c.slots[slot][i]
				l := sh.listener(id)
				to := g.plan.cadenceOf(l.wish, l.cadence)
				if to != Cadence(k) {
					sh.transfer(id, l, to)
				}
			}
		}
	}
}

// reached says whether the plan's frame has been appended.
func (g *group) reached() bool {
	c := g.stream.at(g.step - 1)
	return c == nil || c.frame+framesPerChunk > g.plan.from
}

// close lets go of everybody.
func (sh *shard) close() {
	sh.look(time.Now())
	sh.mu.Lock()
	sh.closed = true
	sh.mu.Unlock()
	for sh.receive(sh.now.Add(time.Minute)) {
	}
	for _, p := range sh.leaving {
		if l := sh.listener(p.id); l.gen == p.gen {
			sh.release(p.id, l)
		}
	}
	for _, g := range sh.groups {
		for _, c := range g.classes {
			if c == nil {
				continue
			}
			for _, slot := range c.slots {
				for i := len(slot) - 1; i >= 0; i-- {
					sh.remove(slot[i], sh.listener(slot[i]))
				}
			}
		}
		sh.tell(g)
	}
	_ = unix.Close(sh.epoll)
}
