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
