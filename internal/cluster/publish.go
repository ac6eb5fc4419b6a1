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

// unsent is how many frames wait while there is no server: half a minute, for which a slow listener keeps its place, too. The oldest
// is dropped when there are more.
const unsent = int(30 * time.Second / event.FrameDuration)

// Publisher sends one event's frames to the nodes that follow it. Frame never blocks: it belongs to the goroutine that makes frames.
// Another carries them to the server, and keeps up to half a minute of them while none is there.
type Publisher struct {
	c       *Cluster
	subject string
	epoch   uint64
	done    chan struct{} // closed when the goroutine has ended
	wake    chan struct{} // capacity 1

	mu      sync.Mutex
	waiting [][]byte // a ring; its buffers are used again
	oldest  int
	count   int
	last    uint64 // number of the last frame
	begun   bool
	over    bool // nothing more comes
}

// Publisher makes the publisher of what is made under a lease, nil with the engine embedded: a nil Publisher is of use to whoever
// need not know. Close must be called.
func (l *Lease) Publisher() *Publisher {
	if l.c.join == nil {
		return nil
	}
	p := &Publisher{
		c: l.c, subject: framePrefix + l.event, epoch: l.epoch,
		done: make(chan struct{}), wake: make(chan struct{}, 1), waiting: make([][]byte, unsent),
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
	p.ring()
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
	left := p.count
	p.count = 0 // the goroutine sees that nothing is left, or ends with the cluster
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
	if p.count == len(p.waiting) {
		p.oldest = (p.oldest + 1) % len(p.waiting)
		p.count--
		p.c.relay.unsent.Add(1)
	}
	at := (p.oldest + p.count) % len(p.waiting)
	p.waiting[at] = m.appendTo(p.waiting[at][:0])
	p.count++
	p.mu.Unlock()
	p.ring()
}

func (p *Publisher) ring() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// take gives the oldest message for the buffer of one that was sent. Without one, over says whether any will come.
func (p *Publisher) take(spare []byte) (b []byte, over bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count == 0 {
		return nil, p.over
	}
	b, p.waiting[p.oldest] = p.waiting[p.oldest], spare
	p.oldest = (p.oldest + 1) % len(p.waiting)
	p.count--
	return b, false
}

func (p *Publisher) run() {
	var spare []byte
	for {
		b, over := p.take(spare)
		spare = nil
		switch {
		case b != nil:
			if !p.send(b) {
				return
			}
			spare = b
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

// send hands a message to the connection, waiting for one if there is none.
func (p *Publisher) send(b []byte) bool {
	for {
		eng, err := p.c.await(p.c.life)
		if err != nil {
			return false
		}
		if err := eng.nc.Publish(p.subject, b); err == nil {
			p.c.relay.published.Add(1)
			return true
		} else if eng.life.Err() == nil {
			eng.fail(fmt.Errorf("publish to %s: %w", p.subject, err))
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
