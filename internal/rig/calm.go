package rig

import (
	"sync"
	"time"
)

// Calm watches how well the machine keeps time. A test in real time can say something about the server only where the test
// itself got the processor when it was due.
type Calm struct {
	stop chan struct{}
	wg   sync.WaitGroup

	mu    sync.Mutex
	worst time.Duration
}

// NewCalm starts watching.
func NewCalm() *Calm {
	c := &Calm{stop: make(chan struct{})}
	c.wg.Go(func() {
		const nap = 2 * time.Millisecond
		ticker := time.NewTicker(nap)
		defer ticker.Stop()
		last := time.Now()
		for {
			select {
			case <-c.stop:
				return
			case <-ticker.C:
			}
			now := time.Now()
			c.mu.Lock()
			c.worst = max(c.worst, now.Sub(last)-nap)
			c.mu.Unlock()
			last = now
		}
	})
	return c
}

// Worst gives the longest that something due had to wait since it was last asked.
func (c *Calm) Worst() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.worst
	c.worst = 0
	return w
}

// Close stops watching.
func (c *Calm) Close() {
	close(c.stop)
	c.wg.Wait()
}
