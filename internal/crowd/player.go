package crowd

// habits are how a kind of player plays.
type habits struct {
	startWith int64 // sound starts with this much in hand
	lead      int64 // and is held back by this much more
	low       int64 // what should be left when the next piece arrives; 0: the player does not steer
	ease      int64 // within this of low, nothing is done
	tooMuch   int64 // more than this left is skipped,
	afterSkip int64 // so that this much remains
	cadenced  bool  // sound starts with what lasts until the next piece, and startWith
}

// All is counted here in nanoseconds.
const (
	ms    = int64(1e6)
	frame = 20 * ms // what everything is numbered by
)

// The players that are modelled.
var (
	// pushHabits are those of the web client's push (ui/src/listen/push.ts and pace.ts), but with less in hand than its 180 ms: what is no gap
	// here is none there.
	pushHabits = habits{startWith: 200 * ms, low: 120 * ms, ease: 30 * ms, tooMuch: 3000 * ms, afterSkip: 200 * ms, cadenced: true}
	// rtpHabits are those of a browser's jitter buffer with a target of 40 ms beside one packet.
	rtpHabits = habits{startWith: 1, lead: 40 * ms, low: 40 * ms, ease: 5 * ms, tooMuch: 2000 * ms, afterSkip: 40 * ms}
	// fileHabits are those of a player that reads a long response: it starts with a second, and plays as it comes.
	fileHabits = habits{startWith: 1000 * ms}
	// hlsHabits are those of hls.js: it starts at its hold-back from the end, as soon as there is anything.
	hlsHabits = habits{startWith: 1}
	// cueHabits are no player's: cues are not heard.
	cueHabits = habits{startWith: 1}
)

// How the web client steers.
const (
	slowest  = 0.88
	fastest  = 1.10
	hurried  = 0.8       // where the time to an announced change is short
	spare    = 50 * ms   // what hurrying keeps
	early    = 2000 * ms // better to be ready so long before a change
	steering = 200 * ms  // the rate is looked at so often
	settled  = 100 * ms  // what comes sooner after the start belongs to the first burst

	stretch   = 400 * ms // of time, of which the least slack is kept
	stretches = 16       // 6.4 s: two seconds and two of the slowest cadence
)

// change is an announced change of cadence.
type change struct {
	cadence int32
	from    uint64 // the frame from which on it holds
}

// player models a listener's player: media comes in, sound goes out at its own pace, and when the sound has caught up with the media there
// is a gap. It steers as the web client does: of each piece it keeps the slack (up to when the media lasts that came before it, plus the
// cadence, less its arrival), and so knows what will be left when the next arrives, also by a cadence that is only announced; the
// playback rate holds that at the low water. All times are nanoseconds; media time begins with the first piece.
type player struct {
	end  int64 // media that has come
	pos  int64 // media that was played, at the instant at
	at   int64
	rate float64
	owed int64 // for how long nothing was left to play, since it was last settled

	since  int64            // when the sound began
	steer  int64            // when the rate is looked at next
	slacks [stretches]int64 // the least of each stretch of time, by its number modulo their count
	latest int64            // number of the latest stretch; 0: there is no slack yet
	piece  int64            // when the last piece came
	frame  uint64           // the one that follows it

	changes  [2]change // announced, and not in force, by frame
	nchanges uint8
	cadence  int32 // ms between pieces, in force
	playing  bool
	dry      bool // stands still: nothing is left
}

// advance plays up to now.
func (p *player) advance(h *habits, now int64) {
	if !p.playing || now <= p.at {
		return
	}
	for h.low > 0 && !p.dry && p.steer <= now {
		p.play(p.steer)
		p.look(h)
		p.steer += steering
	}
	p.play(now)
	if p.steer <= now { // it stood dry meanwhile
		p.steer = now + steering
	}
}

func (p *player) play(until int64) {
	d := until - p.at
	if d <= 0 {
		return
	}
	p.at = until
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

// arrive takes a piece of media that came now, after advance and settle: length of it, the frames from first to before upTo. It says
// whether the player began to sound.
func (p *player) arrive(h *habits, now, length int64, first, upTo uint64) (starts bool) {
	if h.low > 0 && p.playing && now-p.since >= settled {
		p.arrived(now, first, upTo)
	}
	p.end += length
	if length > 0 {
		p.dry = false
	}
	if p.playing || p.end < p.need(h) || length == 0 {
		return false
	}
	p.playing, p.at, p.since, p.steer, p.rate = true, now, now, now+steering, 1
	p.pos = -h.lead
	return true
}

// need is what must be in hand for the player to start: at a slow cadence more, as the next piece is further away.
func (p *player) need(h *habits) int64 {
	if !h.cadenced {
		return h.startWith
	}
	return p.slowestAhead() + h.startWith
}

// arrived keeps the slack of a piece.
func (p *player) arrived(now int64, first, upTo uint64) {
	// For one slow cadence around a change it is not sure which of the two a piece came by. The slower is then assumed.
	unsure := uint64(p.slowestAhead() / frame)
	for p.nchanges > 0 && first >= p.changes[0].from+unsure {
		p.cadence = p.changes[0].cadence
		p.changes[0] = p.changes[1]
		p.nchanges--
	}
	cadence := int64(p.cadence)
	for _, c := range p.changes[:p.nchanges] {
		if upTo >= c.from {
			cadence = max(cadence, int64(c.cadence))
		}
	}
	slack := p.end + cadence*ms - now
	n := now/stretch + stretches + 1 // never below the number of stretches
	if p.latest == 0 || n-p.latest >= stretches {
		p.latest = n - stretches
	}
	for p.latest < n {
		p.latest++
		p.slacks[p.latest%stretches] = maxSlack
	}
	at := &p.slacks[n%stretches]
	*at = min(*at, slack)
	p.piece, p.frame = now, upTo
}

const maxSlack = int64(1) << 62

// low is what will be left when a piece arrives, by a cadence; false as long as that is not known.
func (p *player) low(cadence int64) (left int64, ok bool) {
	if p.latest == 0 {
		return 0, false
	}
	least := maxSlack
	// Longer than any hiccup of the network, and never without a piece.
	for i := range min(stretches, (2000*ms+2*int64(p.cadence)*ms+stretch-1)/stretch+1) {
		if p.latest-i > 0 {
			least = min(least, p.slacks[(p.latest-i)%stretches])
		}
	}
	return least - cadence - (p.pos - p.at), least < maxSlack
}

// look sets the rate at which to go on.
func (p *player) look(h *habits) {
	low, ok := p.low(p.slowestAhead())
	if !ok {
		return
	}
	if low > h.tooMuch {
		p.pos += low - h.afterSkip
		low = h.afterSkip
	}
	if low >= h.low {
		p.rate = h.rateFor(low - h.low)
		return
	}
	now, _ := p.low(int64(p.cadence) * ms)
	rate := min(1, h.rateFor(now-h.low))
	for _, c := range p.changes[:p.nchanges] {
		then, _ := p.low(int64(c.cadence) * ms)
		missing := h.low - then
		if missing <= h.ease {
			continue
		}
		// The first piece that comes by the new cadence comes when that has passed.
		left := max(100*ms, (int64(c.from)-int64(p.frame))*frame-(p.at-p.piece)+int64(c.cadence-p.cadence)*ms)
		atEase := 1 - float64(missing)/max(float64(left-early), float64(left)*.75)
		inNeed := 1 - float64(missing-h.low+spare)/float64(left)
		rate = min(rate, max(slowest, atEase), max(hurried, inNeed))
	}
	p.rate = rate
}

// rateFor is the rate that brings the low water back: half a per cent for each 10 ms.
func (h *habits) rateFor(excess int64) float64 {
	if excess > -h.ease && excess < h.ease {
		return 1
	}
	return min(fastest, max(slowest, 1+float64(excess)/2e9))
}

// announce is told of a change of cadence when it arrives. What was announced for later than that no longer holds.
func (p *player) announce(ms int32, from uint64) {
	for p.nchanges > 0 && p.changes[p.nchanges-1].from >= from {
		p.nchanges--
	}
	if int(p.nchanges) == len(p.changes) {
		p.changes[0] = p.changes[1]
		p.nchanges--
	}
	p.changes[p.nchanges] = change{ms, from}
	p.nchanges++
}

// slowestAhead is the slowest cadence in force or announced.
func (p *player) slowestAhead() int64 {
	cadence := p.cadence
	for _, c := range p.changes[:p.nchanges] {
		cadence = max(cadence, c.cadence)
	}
	return int64(cadence) * ms
}

// inHand is how much media is not played yet.
func (p *player) inHand() int64 { return p.end - p.pos }
