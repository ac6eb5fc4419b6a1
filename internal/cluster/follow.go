package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"earshot/internal/event"
	"earshot/internal/timeline"
)

// Relayed is what the relay brings: a frame and its cues, or that the event is over.
type Relayed struct {
	timeline.Frame
	Cues []timeline.Cue
	End  bool // no frame: Number is the first that will never be
}

const (
	pendingMessages = 1024 // that wait for one follower: 20 s; the newest are dropped, and come from the stream later
	pendingBytes    = 4 << 20
	fillBatch       = 512 // messages of the stream asked for at once
	fillLimit       = 2 * time.Second
	fillTries       = 4
	fillAgain       = 50 * time.Millisecond // a stream may be a little behind the subject, above all one whose leader is another server
	fillMargin      = 3 * time.Second       // a stage makes up to two seconds of frames in a burst after it was held up
)

// Follow calls take with an event's frames in order, beginning with the oldest segment of the last minute of which the stream has the
// start, until ctx or the store ends, or the event is over (then the last call says End). It waits where there is no server and no
// frame.
//
// Numbers rise, and epochs never fall. A frame that does not follow the one before, or has a higher epoch, begins a segment: as a
// timeline wants it. What a subscription missed is filled from the stream; what the stream does not have is missing up to the next
// segment. Cues and packet may be kept. An error of take is counted; it may mean that frames are missing up to the next segment.
func (c *Cluster) Follow(ctx context.Context, eventID string, take func(Relayed) error) {
	t := &tail{c: c, subject: framePrefix + eventID, take: take}
	for !t.over {
		eng, err := c.await(ctx)
		if err != nil {
			return
		}
		t.follow(ctx, eng)
	}
}

// tail is one follower's place. It belongs to the goroutine in Follow.
type tail struct {
	c       *Cluster
	subject string
	take    func(Relayed) error

	begun bool
	next  uint64 // number of the frame that is wanted
	epoch uint64 // of the frame before it
	seen  uint64 // the highest epoch that was heard of
	lost  bool   // what is wanted can't be had: waiting for the next segment
	over  bool
}

// follow runs until the engine, ctx or the event ends.
func (t *tail) follow(ctx context.Context, eng *engine) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(eng.life, cancel)()
	defer context.AfterFunc(t.c.life, cancel)()
	sub, err := eng.nc.SubscribeSync(t.subject)
	if err == nil {
		defer func() { _ = sub.Unsubscribe() }() // fails if the connection is closed: then it is gone
		err = sub.SetPendingLimits(pendingMessages, pendingBytes)
	}
	if err == nil {
		// The history is asked for once the server surely sends what is new, so that nothing falls between.
		bounded, stop := context.WithTimeout(ctx, writeLimit)
		err = eng.nc.FlushWithContext(bounded)
		stop()
	}
	if err != nil {
		eng.fail(err)
		return
	}
	t.fill(ctx, eng)
	dropped := 0
	// What comes shows what is missing before it. What was sent last, and missed, shows only in the stream, which may have had it on its
	// way when it was asked: it is asked again when it is quiet.
	early, missed := fillTries-1, false
	for !t.over {
		wait, stop := ctx, context.CancelFunc(func() {})
		if early > 0 || missed {
			wait, stop = context.WithTimeout(ctx, fillAgain)
		}
		msg, err := sub.NextMsgWithContext(wait)
		stop()
		switch {
		case err == nil:
			early = 0
			t.arrive(ctx, eng, msg.Data)
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
			early, missed = early-1, false
			t.fill(ctx, eng)
		case errors.Is(err, nats.ErrSlowConsumer):
			if n, err := sub.Dropped(); err == nil && n > dropped {
				t.c.relay.slow.Add(uint64(n - dropped))
				dropped = n
			}
			missed = true
		default:
			if ctx.Err() == nil {
				eng.fail(err)
			}
			return
		}
	}
}

// arrive takes a message of the subscription.
func (t *tail) arrive(ctx context.Context, eng *engine, b []byte) {
	m, err := parse(b)
	switch {
	case err != nil:
		t.c.relay.unreadable.Add(1)
		return
	case t.begun && m.number < t.next:
		t.c.relay.known.Add(1)
		return
	case m.epoch < t.seen:
		t.c.relay.stale.Add(1)
		return
	}
	t.seen = m.epoch
	// A server may pass a frame on before its stream has those just before it: a follower that came between found no history, and asks
	// again before it begins with what it hears, as one does that missed a frame.
	if !t.lost && !t.fits(&m) {
		for try := range fillTries {
			if try > 0 {
				select {
				case <-time.After(fillAgain):
				case <-ctx.Done():
					return
				}
			}
			if reached := t.fill(ctx, eng); t.over || reached >= m.number {
				break // the stream was asked beyond the hole: it has no more
			}
		}
		if t.over || m.number < t.next {
			return
		}
	}
	t.settle(&m)
}

// fits says whether m is what is wanted.
func (t *tail) fits(m *message) bool {
	follows := m.number == t.next || m.back > 0 && m.number > t.next && m.number-m.back+1 == t.next
	return t.begun && follows && (m.end || m.number == t.next && m.epoch == t.epoch || begins(m.number))
}

func begins(number uint64) bool { return number%timeline.FramesPerSegment == 0 }

// settle gives m if it fits or begins a segment; else what comes is dropped until one begins.
func (t *tail) settle(m *message) {
	switch fits := t.fits(m); {
	case m.end && t.begun:
		t.over = true
		t.give(Relayed{Frame: timeline.Frame{Number: m.number, Epoch: m.epoch}, End: true})
	case m.end:
		t.over = true // it ended before anything was heard of it
	case fits || begins(m.number):
		if !fits && t.begun {
			t.c.relay.holes.Add(1)
		}
		t.begun, t.lost, t.next, t.epoch = true, false, m.number+1, m.epoch
		t.seen = max(t.seen, m.epoch)
		t.give(Relayed{Frame: timeline.Frame{Number: m.number, Epoch: m.epoch, Packet: m.packet}, Cues: m.cues})
	default:
		t.lost = true
		t.c.relay.unaligned.Add(1)
	}
}

func (t *tail) give(r Relayed) {
	if err := t.take(r); err != nil {
		t.c.relay.refused.Add(1)
		return
	}
	t.c.relay.taken.Add(1)
}

// fill takes from the stream what is wanted and what follows it there, and says how far the stream reaches.
func (t *tail) fill(ctx context.Context, eng *engine) (reached uint64) {
	ctx, cancel := context.WithTimeout(ctx, fillLimit)
	defer cancel()
	ask := getRequest{NextFor: t.subject, Batch: fillBatch, Seq: 1}
	if t.begun {
		// Frames are made by a clock, so the wanted one stands in the stream about as long before the last as their numbers say. That is
		// reckoned on the server's clock alone.
		var last time.Time
		var number uint64
		if !eng.get(ctx, getRequest{LastFor: t.subject}, func(s stored) {
			if m, err := parse(s.data); err == nil {
				last, number = s.at, m.number
			}
		}) || last.IsZero() || number < t.next {
			return number
		}
		from := last.Add(-time.Duration(number-t.next)*event.FrameDuration - fillMargin)
		ask.Seq, ask.StartTime = 0, &from
	}
	seen := t.epoch // not t.seen: what an earlier stage made before the newer one was heard of is wanted, too
	for more := true; more && !t.over; {
		more = false
		if !eng.get(ctx, ask, func(s stored) {
			ask.Seq, ask.StartTime = s.seq+1, nil
			more = s.pending > 0
			m, err := parse(s.data)
			if err != nil || t.over || m.epoch < seen {
				return
			}
			seen, reached = m.epoch, max(reached, m.number)
			if t.begun && m.number < t.next {
				return
			}
			if t.settle(&m); !t.lost {
				t.c.relay.filled.Add(1)
			}
		}) {
			break
		}
	}
	return reached
}

// LastFrame gives the number of an event's last frame, as far as the last minute knows. Alone, a node knows better itself.
func (c *Cluster) LastFrame(ctx context.Context, eventID string) (number uint64, ok bool) {
	eng, err := c.working()
	if err != nil || c.join == nil {
		return 0, false
	}
	ctx, cancel := context.WithTimeout(ctx, fillLimit)
	defer cancel()
	eng.get(ctx, getRequest{LastFor: framePrefix + eventID}, func(s stored) {
		if m, err := parse(s.data); err == nil {
			number, ok = m.number, true
		}
	})
	return number, ok
}

// getRequest is JetStream's request for messages by sequence or time (ADR-31), answered by any server that has the stream.
type getRequest struct {
	Seq       uint64     `json:"seq,omitempty"`
	StartTime *time.Time `json:"start_time,omitempty"`
	LastFor   string     `json:"last_by_subj,omitempty"`
	NextFor   string     `json:"next_by_subj,omitempty"`
	Batch     int        `json:"batch,omitempty"`
}

// stored is a message of the stream.
type stored struct {
	seq     uint64
	at      time.Time // by the server's clock
	pending uint64    // how many of the subject follow it
	data    []byte
}

// get asks and calls each with what comes. It says whether the answer was whole.
func (e *engine) get(ctx context.Context, ask getRequest, each func(stored)) bool {
	body, err := json.Marshal(ask)
	if err != nil {
		return false
	}
	inbox := e.nc.NewRespInbox()
	sub, err := e.nc.SubscribeSync(inbox)
	if err != nil {
		return false
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := e.nc.PublishRequest("$JS.API.DIRECT.GET."+frameStream, inbox, body); err != nil {
		return false
	}
	for {
		msg, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return false
		}
		if status := msg.Header.Get("Status"); status != "" {
			return status == "204" // the end of a batch; everything else is a refusal or says that there is nothing
		}
		s := stored{data: msg.Data}
		if s.seq, err = strconv.ParseUint(msg.Header.Get("Nats-Sequence"), 10, 64); err != nil {
			return false
		}
		if s.at, err = time.Parse(time.RFC3339Nano, msg.Header.Get("Nats-Time-Stamp")); err != nil {
			return false
		}
		s.pending, _ = strconv.ParseUint(msg.Header.Get("Nats-Num-Pending"), 10, 64) // none outside a batch
		each(s)
		if ask.Batch == 0 {
			return true
		}
	}
}
