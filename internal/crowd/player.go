package crowd

// habits are how a kind of player plays.
type habits struct {
	startWith int64 // sound starts with this much in hand
	lead      int64 // and is held back by this much more
	low       int64 // what should be left when the next piece arrives; 0: the player does not steer
	tooMuch   int64 // more than this in hand is skipped
	cadenced  bool  // an announced cadence changes what is held in hand
}

const ms = int64(1e6) // of the nanoseconds in which all is counted here

// The players that are modelled.
var (
	// pushHabits are those of the web client's push (its Media Source player).
	pushHabits = habits{startWith: 400 * ms, low: 120 * ms, tooMuch: 3000 * ms, cadenced: true}
	// rtpHabits are those of a browser's jitter buffer with a target of 40 ms beside one packet.
	rtpHabits = habits{startWith: 1, lead: 40 * ms, low: 40 * ms, tooMuch: 2000 * ms, cadenced: true}
	// fileHabits are those of a player that reads a long response: it starts with a second, and plays as it comes.
	fileHabits = habits{startWith: 1000 * ms}
	// hlsHabits are those of hls.js: it starts at its hold-back from the end, as soon as there is anything.
	hlsHabits = habits{startWith: 1}
	// cueHabits are no player's: cues are not heard.
	cueHabits = habits{startWith: 1}
)

const (
	slowest = 0.88
	fastest = 1.10
	// together is how close two pieces are that count as one arrival.
	together = 10 * ms
)

// player models a listener's player: media comes in, sound goes out at its own pace, and when the sound has caught up with the media there
// is a gap. It steers as the web client does: the playback rate holds what is left when a piece arrives at the low water, and a
// slower cadence that was announced raises what must be left beforehand. All times are nanoseconds; media time begins with the
// first piece.
type player struct {
	end     int64 // media that has come
	pos     int64 // media that was played, at the instant at
	at      int64
	last    int64 // when the last piece came
	rate    float64
	lows    [5]int64
	nlows   uint8
	playing bool
	dry     bool  // stands still: nothing is left
	owed    int64 // for how long it has

	cadence int32 // ms between pieces, as announced
	next    int32 // the cadence from frame from on; 0: no change is announced
	from    uint64
}

// advance plays up to now.
func (p *player) advance(now int64) {
	if !p.playing || now <= p.at {
		return
	}
	d := now - p.at
	p.at = now
	if p.dry {
		p.owed += d
		return
	}
	played := d
	if p.rate != 1 {
		played = int64(float64(d) * p.rate)
	}
	if left := p.end - p.pos; played > left {
		p.pos, p.dry = p.end, true
		p.owed += int64(float64(played-left) / p.rate)
		return
	}
	p.pos += played
}

// settle gives for how long the player has stood dry since it was last asked; 0: there was no gap. Lost is media that is known by
// now to be lost on the way: a player conceals that while it waits, and is not late afterwards.
func (p *player) settle(lost int64) (gap int64) {
	concealed := min(p.owed, lost)
	gap, p.owed = p.owed-concealed, 0
	p.pos += concealed
	return gap
}

// arrive takes a piece of media that came now, after advance and settle. It says whether the player began to sound.
func (p *player) arrive(h *habits, now, length int64) (starts bool) {
	if p.playing && h.low > 0 && now-p.last > together {
		p.steer(h)
	}
	p.last = now
	p.end += length
	if length > 0 {
		p.dry = false
	}
	if !p.playing && p.end >= p.need(h) {
		p.playing, p.at, p.rate = true, now, 1
		p.pos = -h.lead
		return true
	}
	return false
}

// need is what must be in hand for the player to start: at a slow cadence more, as the next piece is further away.
func (p *player) need(h *habits) int64 {
	if !h.cadenced || h.lead > 0 {
		return h.startWith
	}
	return max(h.startWith, int64(max(p.cadence, p.next))*ms+h.startWith/2)
}

func (p *player) steer(h *habits) {
	low := p.end - p.pos
	if int(p.nlows) < len(p.lows) {
		p.lows[p.nlows] = low
		p.nlows++
	} else {
		copy(p.lows[:], p.lows[1:])
		p.lows[len(p.lows)-1] = low
	}
	least := low
	for _, l := range p.lows[:p.nlows] {
		least = min(least, l)
	}
	if least > h.tooMuch {
		p.pos, p.nlows, p.rate = p.end-max(h.startWith, h.lead), 0, 1
		return
	}
	want := h.low
	if p.next > p.cadence {
		want += int64(p.next-p.cadence) * ms
	}
	p.rate = rateFor(least - want)
}

// rateFor is the web client's: nothing within 30 ms, then half a per cent for each 10 ms.
func rateFor(excess int64) float64 {
	if excess > -30*ms && excess < 30*ms {
		return 1
	}
	return min(fastest, max(slowest, 1+float64(excess)/2e9))
}

// announce is told of a change of cadence when it arrives: from frame from on, pieces come every ms.
func (p *player) announce(ms int32, from uint64) {
	p.next, p.from, p.nlows = ms, from, 0
}

// reached is told the frame up to which media has come.
func (p *player) reached(frame uint64) {
	if p.next != 0 && frame >= p.from {
		p.cadence, p.next, p.nlows = p.next, 0, 0
	}
}

// inHand is how much media is not played yet.
func (p *player) inHand() int64 { return p.end - p.pos }
