package whep

import (
	"sync/atomic"
)

// channel is one event's programme, as long as somebody listens to it.
type channel struct {
	src   Source
	plan  atomic.Pointer[plan]
	users int // guarded by Engine.mu
	stop  chan struct{}

	// feeds says of each shard whether it has a feed of this channel. Only the shard's goroutine writes it: yes before it looks at the
	// timeline, no when it forgets the feed. So whoever reads no after a frame was made may leave that shard alone: it will see the frame.
	feeds []atomic.Bool
}

func newChannel(src Source, frames, shards int) *channel {
	ch := &channel{src: src, stop: make(chan struct{}), feeds: make([]atomic.Bool, shards)}
	ch.plan.Store(planFrom(frames))
	return ch
}

// follow wakes the shards that have a session of this programme whenever that has grown. The others sleep: a node may have a thousand
// events, each of which would wake them fifty times a second.
func (e *Engine) follow(ch *channel) {
	for {
		changed := ch.src.Timeline.Changed()
		ch.wake(e.shards)
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

func (ch *channel) wake(shards []*shard) {
	for _, sh := range shards {
		if ch.feeds[sh.number].Load() {
			sh.poke()
		}
	}
}
