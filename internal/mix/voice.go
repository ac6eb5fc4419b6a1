package mix

import "time"

// VoiceOptions are chosen when a voice is added.
type VoiceOptions struct {
	Hears bool // wants its mix-minus
}

// VoiceStats count since the voice was added. Frames are of 20 ms; audio of other lengths is added up.
type VoiceStats struct {
	Received    uint64 // packets taken into the buffer
	Lost        uint64 // packets that were not there when they were due, late ones among them
	Late        uint64 // packets that came after they were due, and were dropped
	Duplicate   uint64 // packets that had come already
	Empty       uint64 // packets without payload
	Undecodable uint64 // payloads that are not Opus
	Strange     uint64 // packets whose numbers belong nowhere
	Dropped     uint64 // packets dropped because too many were held
	Jumps       uint64 // times the sender changed its source or its clock
	Concealed   uint64 // frames made up: lost and not restored, or late
	FEC         uint64 // frames restored from the copy in the next packet
	Slipped     int64  // samples taken up for drift and delay: more than given out (positive: the sender's clock is fast) or fewer

	BufferMS  float64 // delay of the jitter buffer; 0 while nothing plays
	TargetMS  float64 // what it aims at
	JitterMS  float64 // interarrival jitter (RFC 3550, 6.4.1)
	LossRatio float64 // share of packets lost, over the last ten seconds or so
	GainDB    float64 // of the automatic level
}

const (
	dryFade  = 2880      // samples, 60 ms, of concealment before it fades out
	dryStop  = 5760      // 120 ms: then the voice is silent and starts anew
	dtxStop  = 48000     // a second without an update of comfort noise is an end as well
	fadeStep = 1.0 / 480 // a voice comes and goes in 10 ms
	cutAbove = 12 * Rate / 1000
	hasten   = 60 * Rate / 1000 // too much delay by this is cut whatever the signal
	cutEvery = 20               // frames between two cuts: 15 ms of 400 at most
	cutSoon  = 5                // and where there is far too much delay
	// From this share of packets lost on, the delay is a packet longer, so that the one after a lost one, with its copy, is there in
	// time; below the lower share it isn't again.
	fecFrom = 0.02
	fecTill = 0.005
	toLong  = 2 * maxDelay // too much delay by this is dropped at once
)

// Voice is one person's sound on its way into the mix. All methods belong to the goroutine that owns the Desk.
type Voice struct {
	muted bool
	hears bool
	left  bool // removed; it fades out in the next Mix

	dec   *Decoder
	nums  unwrapper
	queue queue
	late  lateness
	line  line

	playing  bool
	ending   bool  // another source took over: fade out, then start anew
	play     int64 // the timestamp that the next sample decoded stands for
	gap      bool  // packets before queue.next were lost
	dry      int64 // samples made up since the queue ran dry, not accounted for in play
	dtx      bool  // the sender said that it is silent
	fec      bool  // the sender's packets carry copies
	awaitFEC bool  // and so many are lost that these are worth waiting for
	sinceCut int   // frames

	level leveller
	meter meter
	fade  float32
	out   [Frame]float32
	loud  bool // out isn't silence

	minus bus

	stats      VoiceStats
	made       int64 // samples concealed
	restored   int64 // samples of FEC
	slipped    float64
	delay      int64
	losses     float64 // decaying counts for LossRatio
	deliveries float64
}

// Push takes a packet in. It never fails and never grows the voice: what can't be used is counted.
func (v *Voice) Push(p Packet) {
	if v.left {
		return
	}
	var info packetInfo
	if len(p.Payload) > 0 {
		var err error
		if info, err = inspect(p.Payload); err != nil || len(p.Payload) > maxPayload {
			v.stats.Undecodable++
			return
		}
	}
	at := samplesOf(p.Arrived)
	seq, ts, where := v.nums.take(p.Seq, p.TS, at, int64(info.samples))
	v.stats.Jumps = v.nums.jumps
	switch where {
	case placeStrange:
		v.stats.Strange++
		return
	case placeFirst:
		v.queue.reset(seq)
		v.late.reset()
		v.ending = v.playing
	default:
		if v.queue.seen(seq) {
			v.stats.Duplicate++
			return
		}
	}
	if len(p.Payload) == 0 {
		// Browsers probe with padding, which takes a number: it has to be known as not lost.
		v.stats.Empty++
	} else {
		v.late.arrived(at, ts)
	}
	q := &v.queue
	switch {
	case !v.playing && seq < q.next && q.newest-seq < slots && v.fresh():
		q.next = seq // reordered before the start
	case seq < q.next:
		v.stats.Late++
		return
	}
	if seq-q.next >= slots { // no place for it: what is oldest makes room
		v.skip(seq - slots + 1)
	}
	v.stats.Received++
	v.deliveries++
	q.put(seq, ts, info, p.Payload)
	for q.queued > maxQueued {
		v.skip(q.first().seq + 1)
	}
}

// fresh reports whether nothing of the stream was played yet.
func (v *Voice) fresh() bool { return v.queue.slot(v.queue.next-1).state != slotDone }

// skip goes on with the number next, and drops what is held before it.
func (v *Voice) skip(next int64) {
	q := &v.queue
	missing := next - q.next
	for e := q.first(); e != nil && e.seq < next; e = q.first() {
		q.done(e)
		v.stats.Dropped++
		missing--
	}
	q.next = next
	v.lost(missing)
	if e := q.first(); e != nil {
		v.play = e.ts
	}
}

func (v *Voice) lost(packets int64) {
	v.stats.Lost += uint64(packets)
	v.losses += float64(packets)
}

// SetMuted says whether the voice is kept out of the mix. A muted voice is decoded and thrown away, so that its buffer stays in step.
func (v *Voice) SetMuted(muted bool) { v.muted = muted }

// SetHears says whether the voice wants its mix-minus.
func (v *Voice) SetHears(hears bool) {
	if hears && !v.hears {
		v.minus.start()
	}
	v.hears = hears && !v.left
}

// Level is the voice's RMS over the last 200 ms after the automatic level, in dBFS; Silence if it is muted.
func (v *Voice) Level() float64 {
	if v.muted {
		return Silence
	}
	return v.meter.level()
}

// Speaking reports whether speech was heard within the last 400 ms, and the voice isn't muted.
func (v *Voice) Speaking() bool { return !v.muted && v.level.speaking() }

// Minus is the mix without this voice, one Opus packet, of the last Mix and valid until the next; nil if the voice doesn't hear.
func (v *Voice) Minus() []byte {
	if !v.hears {
		return nil
	}
	return v.minus.packet
}

// Stats returns the counts.
func (v *Voice) Stats() VoiceStats {
	s := v.stats
	s.Concealed, s.FEC = uint64(v.made/Frame), uint64(v.restored/Frame)
	s.Slipped = int64(v.slipped)
	if v.playing {
		s.BufferMS = float64(v.delay) * 1000 / Rate
	}
	s.TargetMS = float64(v.target()) * 1000 / Rate
	s.JitterMS = v.late.jitter * 1000 / Rate
	s.LossRatio = v.lossRatio()
	s.GainDB = v.level.gain
	return s
}

func (v *Voice) lossRatio() float64 {
	if all := v.losses + v.deliveries; all > 1 {
		return v.losses / all
	}
	return 0
}

// target is the delay to aim at, in samples.
func (v *Voice) target() int64 {
	t := v.late.target()
	if v.awaitFEC {
		t = min(t+v.nums.samples, maxDelay)
	}
	return t
}

// samplesOf is a time on the local clock in samples; in two steps, so that it overflows in centuries only.
func samplesOf(d time.Duration) int64 {
	return int64(d/time.Millisecond)*48 + int64(d%time.Millisecond)*48/int64(time.Millisecond)
}

// pull makes the voice's next frame in v.out.
func (v *Voice) pull(now int64) {
	const forget = 0.998 // a frame: ten seconds
	v.losses *= forget
	v.deliveries *= forget
	if r := v.lossRatio(); r > fecFrom && v.fec || r < fecTill {
		v.awaitFEC = r > fecFrom
	}
	v.loud = false
	if !v.playing && !v.begin(now) {
		clear(v.out[:])
		v.level.frame(v.out[:])
		v.meter.add(0)
		v.fade = 0
		return
	}
	if !v.ending {
		v.adjust(now)
	}
	v.fill(v.line.need(Frame))
	v.slipped += v.line.take(v.out[:])
	v.level.frame(v.out[:])
	v.shape()
	if v.ending || v.dry >= dryStop && !v.dtx || v.dry >= dtxStop {
		v.stop()
	}
}

// begin starts to play once the oldest packet held has waited long enough.
func (v *Voice) begin(now int64) bool {
	q, target := &v.queue, v.target()
	e := q.first()
	for e != nil && e.info.samples == 0 {
		q.done(e)
		e = q.first()
	}
	if e == nil {
		return false
	}
	wait := target - (now - e.ts - v.late.base)
	if wait >= Frame {
		return false
	}
	for wait < -Frame && q.held > 1 { // a jam came in at once: begin with its end
		q.done(e)
		v.stats.Dropped++
		e = q.first()
		if e == nil {
			return false
		}
		wait = target - (now - e.ts - v.late.base)
	}
	v.playing, v.gap, v.dry, v.dtx = true, false, 0, false
	v.lost(e.seq - q.next) // while the voice was away
	q.next, v.play = e.seq, e.ts
	v.line.reset()
	if wait > 0 {
		clear(v.line.room(int(min(wait, Frame))))
	}
	return true
}

func (v *Voice) stop() {
	v.playing, v.ending, v.dry, v.gap, v.dtx = false, false, 0, false, false
	v.fade = 0
	v.line.reset()
}

// adjust measures the delay and brings it nearer to the target: by the ratio, by a splice, or by dropping what is hopeless.
func (v *Voice) adjust(now int64) {
	l := &v.line
	v.delay = now - (v.play - l.held()) - v.late.base
	excess := v.delay - v.target()
	if v.dry == 0 {
		l.steer(float64(excess))
	}
	v.sinceCut++
	switch {
	case excess > toLong:
		for v.queue.held > 1 && excess > 0 {
			e := v.queue.first()
			excess -= int64(e.info.samples)
			v.skip(e.seq + 1)
		}
	case excess > cutAbove && v.dry == 0:
		every, likeness := cutEvery, float32(0.8)
		if excess > hasten {
			every, likeness = cutSoon, -1
		}
		if v.sinceCut < every || v.queue.queued < spliceNeed {
			return
		}
		v.fill(l.need(Frame) + spliceNeed)
		if n := l.splice(true, likeness); n != 0 {
			v.sinceCut = 0
			v.slipped -= float64(n)
		}
	case excess < -cutAbove && v.dry == 0:
		v.fill(max(l.need(Frame), spliceNeed))
		v.slipped -= float64(l.splice(false, -1))
	}
}

// fill decodes until n samples are held.
func (v *Voice) fill(n int64) {
	for v.line.held() < n {
		v.more()
	}
}

// more adds to the line: the next packet, or what stands in for it.
func (v *Voice) more() {
	q := &v.queue
	if v.ending {
		v.runDry()
		return
	}
	for {
		e := q.at(q.next)
		if e == nil {
			if e = q.first(); e == nil {
				v.runDry()
				return
			}
			v.lost(e.seq - q.next)
			q.next, v.gap = e.seq, true
		}
		if e.info.samples == 0 {
			q.done(e)
			continue
		}
		hole := e.ts - v.play
		if v.dry > 0 { // what was made up while nothing came stands for what is missing
			made := max(min(hole, v.dry), 0)
			v.play += made
			hole -= made
			v.dry = 0
		}
		if hole >= Rate { // too long to be made up
			v.play, hole = e.ts, 0
		}
		if hole >= minFrame {
			v.bridge(e, hole)
			return
		}
		v.decode(e)
		return
	}
}

// minFrame is the shortest thing Opus knows, 2.5 ms.
const minFrame = 120

// bridge makes up for what is missing before the packet e.
func (v *Voice) bridge(e *slot, hole int64) {
	n := min(hole, Frame)
	frame := int64(e.info.frame)
	fec := v.gap && e.info.fec && hole < max(frame, Frame)+minFrame
	if fec {
		n = hole
	} else if v.gap && e.info.fec && hole-n < frame {
		n = hole - frame // leave what the copy restores
	}
	n = max(n-n%minFrame, minFrame) // less than the shortest frame is never left to be made up
	pcm := v.line.room(int(n))
	v.play += n
	switch {
	case fec && v.dec.DecodeFEC(e.payload, pcm) == nil:
		v.restored += min(frame, n)
		v.made += max(n-frame, 0)
	default:
		v.conceal(pcm)
		if v.gap {
			v.made += n
		}
	}
	clean(pcm)
}

func (v *Voice) decode(e *slot) {
	pcm := v.line.room(e.info.samples)
	n, err := v.dec.Decode(e.payload, pcm)
	if err != nil || n != len(pcm) {
		v.stats.Undecodable++
		v.conceal(pcm)
		v.made += int64(len(pcm))
	}
	clean(pcm)
	v.play = e.ts + int64(e.info.samples)
	v.gap, v.dtx = false, e.info.dtx
	v.fec = v.fec || e.info.fec
	v.queue.done(e)
}

// runDry makes up for packets that may still come. If they do they are played, and the delay has grown by what was made up.
func (v *Voice) runDry() {
	pcm := v.line.room(Frame / 2)
	v.conceal(pcm)
	clean(pcm)
	v.dry += int64(len(pcm))
	if !v.dtx {
		v.made += int64(len(pcm))
	}
}

func (v *Voice) conceal(pcm []float32) {
	if v.dec.Conceal(pcm) != nil {
		clear(pcm)
	}
}

// clean keeps what a hostile packet decodes to within bounds that the arithmetic after it can bear.
func clean(pcm []float32) {
	for i, x := range pcm {
		if !(x > -4 && x < 4) { // NaN as well
			pcm[i] = max(min(x, 4), -4)
			if x != x {
				pcm[i] = 0
			}
		}
	}
}

// shape fades the voice in or out and measures it.
func (v *Voice) shape() {
	goal := float32(1)
	if v.muted || v.left || v.ending || v.dry > dryFade && !v.dtx {
		goal = 0
	}
	if v.fade == goal {
		if goal == 0 {
			clear(v.out[:])
			v.meter.add(0)
			return
		}
	} else {
		step := float32(fadeStep)
		if goal < v.fade {
			step = -step
		}
		for i := range v.out {
			v.fade = min(max(v.fade+step, 0), 1)
			v.out[i] *= v.fade
		}
	}
	power := meanSquare(v.out[:])
	v.meter.add(power)
	v.loud = power > 0
}
