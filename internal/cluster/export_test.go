package cluster

// StoredSessions counts sessions in the store, expired ones too.
func (c *Cluster) StoredSessions() int { return len(c.sessions.all()) }

// Message is one message of the relay, as bytes.
func Message(epoch, number, back uint64, packet []byte) []byte {
	m := message{epoch: epoch, number: number, back: back, packet: packet}
	return m.appendTo(nil)
}

// Relay gives the relay's counters by name.
func (c *Cluster) Relay() map[string]uint64 {
	r := &c.relay
	return map[string]uint64{
		"published": r.published.Load(), "taken": r.taken.Load(), "filled": r.filled.Load(), "holes": r.holes.Load(),
		"unsent": r.unsent.Load(), "stale": r.stale.Load(), "known": r.known.Load(), "slow": r.slow.Load(),
		"unaligned": r.unaligned.Load(), "unreadable": r.unreadable.Load(), "refused": r.refused.Load(),
	}
}

const (
	LeaseLife   = leaseLife
	FramePrefix = framePrefix
	Unsent      = unsent
)

// Unconnected makes a publisher of which nothing is ever sent.
func Unconnected(epoch uint64) (p *Publisher, dropped func() uint64) {
	c := &Cluster{}
	p = &Publisher{c: c, epoch: epoch, done: make(chan struct{}), wake: make(chan struct{}, 1), ring: make([][]byte, unsent)}
	return p, c.relay.unsent.Load
}
