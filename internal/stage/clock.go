package stage

import (
	"time"

	"earshot/internal/event"
	"earshot/internal/timeline"
)

// clock tells which frame is due. It is set once by the wall and then runs on the monotonic clock, because the wall's may be
// put forward or back by hand or by NTP, and a step back would silence the stage for its length. Only a step forward of more
// than a segment is followed: that is a machine that slept, whose monotonic clock stood still meanwhile.
type clock struct {
	zero   time.Time     // with a monotonic reading; zero of mix's time too
	offset time.Duration // from the origin to zero
	origin time.Time     // wall
	wall   func() time.Time
}

func newClock(origin time.Time, wall func() time.Time) clock {
	c := clock{zero: time.Now(), origin: origin.Round(0), wall: wall}
	c.offset = wall().Round(0).Sub(c.origin)
	return c
}

// at is how long after the origin now is.
func (c *clock) at(now time.Time) time.Duration { return c.offset + now.Sub(c.zero) }

// frame is the number of the frame that is due at now; 0 before the origin.
func (c *clock) frame(now time.Time) uint64 {
	d := c.at(now)
	if d < 0 {
		return 0
	}
	return uint64(d / event.FrameDuration)
}

// due is when frame n is due, since zero.
func (c *clock) due(n uint64) time.Duration { return time.Duration(n)*event.FrameDuration - c.offset }

// until is how long it is until frame n is due; negative if it is late.
func (c *clock) until(n uint64) time.Duration {
	return c.due(n) - time.Since(c.zero)
}

// resync follows the wall if it ran ahead by more than a segment.
func (c *clock) resync() {
	wall := c.wall().Round(0)
	// Read second, so that being held up between the two does not look like the wall's running ahead.
	if ahead := wall.Sub(c.origin) - c.at(time.Now()); ahead > timeline.SegmentDuration {
		c.offset += ahead
	}
}
