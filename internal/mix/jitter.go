package mix

// The bounds of the buffer's delay, in samples. The delay of a sample is the time between the earliest moment at which it could
// have been there (had its packet come as quickly as the quickest of late) and the tick of the mixer that takes it.
const (
	minDelay   = 20 * Rate / 1000
	maxDelay   = 200 * Rate / 1000
	startDelay = 20 * Rate / 1000 // lateness that is expected of a stranger
	slack      = 3 * Rate / 1000  // for the scheduler's whims and the resampler's reach

	maxQueued = 2 * maxDelay // audio held at most; beyond it the oldest goes
	slots     = 256          // packets held at most: 640 ms of the shortest, 2.5 ms
)

// maxPayload is more than what fits an Ethernet frame.
const maxPayload = 1500

type slotState uint8

const (
	slotFree slotState = iota
	slotHeld
	slotDone // played, skipped or given up, and kept to recognise its copies
)

type slot struct {
	seq, ts int64
	info    packetInfo
	state   slotState
	payload []byte // the slot's own memory, kept for the next
}

// usualPayload is what each slot has room for from the start: 100 kbit/s at 20 ms. Larger packets make theirs grow, up to maxPayload.
const usualPayload = 256

// queue keeps packets by number, a ring of fixed size: a flood displaces, it never grows.
type queue struct {
	ring   [slots]slot
	next   int64 // the number to be played next; all before it are late
	newest int64
	held   int
	queued int64 // samples held
}

func (q *queue) init() {
	memory := make([]byte, slots*usualPayload)
	for i := range q.ring {
		q.ring[i].payload = memory[i*usualPayload : i*usualPayload : (i+1)*usualPayload]
	}
}

func (q *queue) slot(seq int64) *slot { return &q.ring[uint64(seq)%slots] }

// reset voids all that was ever there; seq is the first of what comes.
func (q *queue) reset(seq int64) {
	for i := range q.ring {
		q.ring[i].state = slotFree
	}
	q.next, q.newest, q.held, q.queued = seq, seq-1, 0, 0
}

// first returns the oldest packet held, nil if there is none.
func (q *queue) first() *slot {
	if q.held == 0 {
		return nil
	}
	for s := q.next; s <= q.newest; s++ {
		if e := q.slot(s); e.state == slotHeld && e.seq == s {
			return e
		}
	}
	return nil
}

// at returns the packet with the number seq if it is held.
func (q *queue) at(seq int64) *slot {
	if e := q.slot(seq); e.state == slotHeld && e.seq == seq {
		return e
	}
	return nil
}

// seen reports whether the packet is held or was.
func (q *queue) seen(seq int64) bool {
	e := q.slot(seq)
	return e.state != slotFree && e.seq == seq
}

func (q *queue) put(seq, ts int64, info packetInfo, payload []byte) {
	e := q.slot(seq)
	e.seq, e.ts, e.info, e.state = seq, ts, info, slotHeld
	e.payload = append(e.payload[:0], payload...)
	q.newest = max(q.newest, seq)
	q.held++
	q.queued += int64(info.samples)
}

// done takes the packet e out. Its payload stays readable until the slot is used again.
func (q *queue) done(e *slot) {
	e.state = slotDone
	q.held--
	q.queued -= int64(e.info.samples)
	q.next = max(q.next, e.seq+1)
}

// lateness measures by how much packets come later than the quickest of late, and decides on the delay to aim at. Units: samples.
//
// The target is the largest lateness seen, held for some seconds, then falling off slowly: it grows at once, and takes its time
// to trust a network again. A quantile of a histogram (what browsers do) saves some delay where single packets come very late,
// but learns of a worse network only after many packets were lost to it.
type lateness struct {
	base     int64    // the quickest transit of late: arrival less timestamp, both on the local clock
	windows  [2]int64 // quickest transit in the current window and in the one before
	turned   int64    // start of the current window
	started  bool
	peak     float64 // the lateness to be ready for
	heldTill int64
	decayed  int64 // when peak was last let down

	jitter      float64 // RFC 3550, 6.4.1
	lastTransit int64
}

const (
	baseWindow = 10 * Rate // a clock that runs slow by 100 ppm looks 2 ms late by its end
	peakHold   = 5 * Rate
	peakTau    = 8.0 * Rate // time constant of the target's fall
)

func (l *lateness) reset() {
	peak := max(l.peak, startDelay) // the network is the same, whoever's clock it was
	*l = lateness{peak: peak, jitter: l.jitter}
}

// arrived takes note of a packet and returns its lateness.
func (l *lateness) arrived(at, ts int64) int64 {
	transit := at - ts
	if !l.started {
		l.started = true
		l.windows = [2]int64{transit, transit}
		l.base, l.turned, l.lastTransit, l.decayed = transit, at, transit, at
		l.peak = max(l.peak, startDelay)
		l.heldTill = at + peakHold/5
	}
	if at-l.turned >= baseWindow {
		l.windows[1], l.windows[0], l.turned = l.windows[0], transit, at
	}
	l.windows[0] = min(l.windows[0], transit)
	l.base = min(l.windows[0], l.windows[1])

	d := float64(transit - l.lastTransit)
	l.lastTransit = transit
	l.jitter += (min(max(d, -d), Rate) - l.jitter) / 16

	late := transit - l.base
	if dt := at - l.decayed; dt > 0 {
		if at > l.heldTill {
			l.peak -= l.peak * min(float64(dt)/peakTau, 1)
		}
		l.decayed = at
	}
	if float64(late) >= l.peak {
		l.peak, l.heldTill = min(float64(late), maxDelay), at+peakHold
	}
	return late
}

// target is the delay to aim at: a whole frame is taken at each tick, so its last sample has to be there 20 ms before it is due.
func (l *lateness) target() int64 {
	return min(max(Frame+slack+int64(l.peak), minDelay), maxDelay)
}
