package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"earshot/internal/event"
	"earshot/internal/timeline"
)

// Where frames pass. Only nodes with stages may publish there, which the server's permissions must say.
const (
	framePrefix = "earshot.frames." // and the event's ID
	frameStream = "EARSHOT_FRAMES"
	frameKept   = time.Minute // as long as a timeline's ring
)

// frameStreamConfig is the memory of the last minute. Nothing waits for it: frames are published by core NATS, and what the stream
// could not take is missing from it.
var frameStreamConfig = jetstream.StreamConfig{
	Name: frameStream, Description: "Earshot: the last minute of every open event", Subjects: []string{framePrefix + "*"},
	Storage: jetstream.MemoryStorage, Discard: jetstream.DiscardOld, MaxAge: frameKept,
	MaxMsgsPerSubject: 2 * int64(frameKept/event.FrameDuration), MaxMsgSize: maxMessage, NoAck: true, AllowDirect: true,
}

const (
	// unsent is how many frames wait while there is no server: half a minute, for which a slow listener keeps its place, too. The oldest
	// is dropped when there are more.
	unsent = int(30 * time.Second / event.FrameDuration)
	// doubtful is how many that were sent are kept, to be sent again over the next connection: as many as are made before it shows that
	// a server is dead, which has then passed on none of them.
	doubtful = int((pingsLost + 1) * pingEvery / event.FrameDuration)
)

// Publisher sends one event's frames to the nodes that follow it. Frame never blocks: it belongs to the goroutine that makes frames.
// Another carries them to the server, and keeps up to half a minute of them while none is there.
type Publisher struct {
	c       *Cluster
	subject string
	epoch   uint64
	done    chan struct{} // closed when the goroutine has ended
	wake    chan struct{} // capacity 1

	// Messages are counted from 0. Those from kept to next were sent, those from next to end wait. That of number n is ring[n%unsent].
	mu              sync.Mutex
	ring            [][]byte
	spare           [][]byte // buffers of messages that are not kept any more
	kept, next, end uint64
	last            uint64 // number of the last frame
	begun           bool
	over            bool // nothing more comes
}

// Publisher makes the publisher of what is made under a lease, nil with the engine embedded: a nil Publisher is of use to whoever
// need not know. Close must be called.
func (l *Lease) Publisher() *Publisher {
	if l.c.join == nil {
		return nil
	}
	p := &Publisher{
		c: l.c, subject: framePrefix + l.event, epoch: l.epoch,
		done: make(chan struct{}), wake: make(chan struct{}, 1), ring: make([][]byte, unsent),
	}
	if !l.c.spawn(func() { defer close(p.done); p.run() }) {
		close(p.done)
	}
	return p
}

// Frame takes the next frame and its cues; both stay the caller's.
func (p *Publisher) Frame(f timeline.Frame, cues []timeline.Cue) {
	if p == nil {
		return
	}
	m := message{epoch: f.Epoch, number: f.Number, packet: f.Packet, cues: cues}
	p.add(&m)
}

// Close sends what waits, and with ended, behind it, that the event is over and that head is where its timeline ends. It returns when
// all was sent or ctx ends.
func (p *Publisher) Close(ctx context.Context, ended bool, head uint64) error {
	if p == nil {
		return nil
	}
	if ended {
		p.add(&message{end: true, epoch: p.epoch, number: head})
	}
	p.mu.Lock()
	p.over = true
	p.mu.Unlock()
	p.notify()
	if _, err := p.c.working(); err != nil { // nothing is worth waiting for: edges end by what the store says, once it can
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		cancel()
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	left := p.end - p.next
	p.next = p.end // the goroutine sees that nothing is left, or ends with the cluster
	p.mu.Unlock()
	return fmt.Errorf("send the last frames of %s: %d are left: %w", p.subject, left, ctx.Err())
}

func (p *Publisher) add(m *message) {
	p.mu.Lock()
	if p.over {
		p.mu.Unlock()
		return
	}
	if p.begun {
		m.back = m.number - p.last
	}
	if !m.end {
		p.begun, p.last = true, m.number
	}
	if p.end-p.kept == uint64(len(p.ring)) {
		p.drop()
	}
	var b []byte
	if n := len(p.spare); n > 0 {
		b, p.spare = p.spare[n-1], p.spare[:n-1]
	}
	*p.at(p.end) = m.appendTo(b[:0])
	p.end++
	p.mu.Unlock()
	p.notify()
}

func (p *Publisher) notify() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *Publisher) at(n uint64) *[]byte { return &p.ring[n%uint64(len(p.ring))] }

// drop forgets the oldest message that is kept, which waits only if none that was sent is.
func (p *Publisher) drop() {
	if p.kept == p.next {
		p.next++
		p.c.relay.unsent.Add(1)
	}
	b := p.at(p.kept)
	p.spare = append(p.spare, *b)
	*b = nil
	p.kept++
}

// copyNext appends the oldest message that waits, the nth, to b. Without one, over says whether any will come.
func (p *Publisher) copyNext(b []byte) (msg []byte, n uint64, over bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next == p.end {
		return nil, 0, p.over
	}
	return append(b, *p.at(p.next)...), p.next, false
}

// sent says that the nth message was sent.
func (p *Publisher) sent(n uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = max(p.next, n+1)
	for p.next-p.kept > uint64(doubtful) {
		p.drop()
	}
}

// again lets what was sent wait once more.
func (p *Publisher) again() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = p.kept
}

func (p *Publisher) run() {
	var on *engine // where the last message went
	var buf []byte
	for {
		b, n, over := p.copyNext(buf[:0])
		switch {
		case b != nil:
			buf = b
			eng, err := p.c.await(p.c.life)
			if err != nil {
				return
			}
			if on != nil && on != eng {
				on = nil
				p.again()
				continue
			}
			on = eng
			if err := eng.nc.Publish(p.subject, b); err == nil {
				p.sent(n)
				p.c.relay.published.Add(1)
			} else if eng.life.Err() == nil {
				eng.fail(fmt.Errorf("publish to %s: %w", p.subject, err))
			}
		case over:
			p.flush()
			return
		default:
			select {
			case <-p.wake:
			case <-p.c.life.Done():
				return
			}
		}
	}
}

// flush waits until the server has what was sent, briefly: nobody could do more about it.
func (p *Publisher) flush() {
	eng, err := p.c.working()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(p.c.life, time.Second)
	defer cancel()
	_ = eng.nc.FlushWithContext(ctx)
}
