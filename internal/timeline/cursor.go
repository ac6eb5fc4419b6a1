package timeline

// Cursor is one reader's place in a timeline, at a whole part. It belongs to one goroutine.
type Cursor struct {
	t       *Timeline
	next    uint64 // ordinal
	burst   uint64
	skipped uint64
}

// Cursor gives a place from which the last burst closed parts are read at once, then each part as it closes. A burst never
// reaches back over a gap: players stall on a jump in timestamps before they have sound.
func (t *Timeline) Cursor(burst int) *Cursor {
	c := &Cursor{t: t, burst: uint64(max(0, burst))}
	c.next = c.start(t.state.Load())
	return c
}

func (c *Cursor) start(s *state) uint64 {
	since := s.count - s.run
	return s.count - min(c.burst, since, uint64(len(c.t.parts)-PartsPerSegment))
}

// Next gives the next closed part. ErrAhead: wait on PartClosed. ErrClosed: it was the last. A cursor that fell out of the
// ring goes on like a newcomer, with its burst, and counts the parts that it lost.
func (c *Cursor) Next() (*Part, error) {
	for {
		s := c.t.state.Load()
		if c.next >= s.count {
			return nil, s.beyond()
		}
		// The state was published after the part, so the slot holds this ordinal or, since, a later one.
		p := c.t.parts[c.next%uint64(len(c.t.parts))].Load()
		if p.ordinal == c.next {
			c.next++
			return p, nil
		}
		c.Rejoin()
	}
}

// Rejoin gives up what was not read and goes on like a newcomer; never backwards.
func (c *Cursor) Rejoin() {
	if to := c.start(c.t.state.Load()); to > c.next {
		c.skipped += to - c.next
		c.next = to
	}
}

// Skipped is how many parts the cursor lost so far.
func (c *Cursor) Skipped() uint64 { return c.skipped }

// Lag is how many closed parts wait to be read.
func (c *Cursor) Lag() int { return int(c.t.state.Load().count - c.next) }
