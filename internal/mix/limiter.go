package mix

import "math"

// Ceiling is what no true peak of the programme or of a mix-minus exceeds before it is encoded, in dBTP (ITU-R BS.1770-4, annex 2).
const Ceiling = -1.0

const (
	// The limiter aims a little lower: its own gain moves between samples, and four points a sample miss a peak by up to 0.2 dB.
	limitTo   = -1.3
	over      = 4                 // oversampling
	overTaps  = 24                // per phase: flat to 20 kHz, which is all that Opus decodes to
	overDelay = overTaps / 2      // samples by which the oversampled signal is behind
	lookAhead = 120               // 2.5 ms: the gain is down when the peak comes
	hold      = lookAhead + 4     // samples over which the least gain is looked for: some to spare, for a peak between two
	release   = 1.0 / (Rate / 12) // share of the way back to 1 that a sample makes: 80 ms
	limDelay  = lookAhead + 1 + overDelay
	// closely is how many samples are looked at for true peaks, or not, at a time: where many talk at once most cannot have one. A
	// divisor of Frame.
	closely = 8
)

// overFIR interpolates at 1/4, 2/4 and 3/4 between two samples; the samples themselves are the fourth phase. overGain is the most
// that any of the phases can make of a signal whose samples are at most 1.
var overFIR, overGain = makeOver()

func makeOver() (fir [over - 1][overTaps]float32, gain float32) {
	for p := range fir {
		var abs, sum float64
		var row [overTaps]float64
		for i := range row {
			x := float64(i) - (overTaps/2 - 1) - float64(p+1)/over
			row[i] = kaiser(x/(overTaps/2), 5) * sincAt(x)
			sum += row[i]
		}
		for i := range row {
			fir[p][i] = float32(row[i] / sum)
			abs += math.Abs(row[i] / sum)
		}
		gain = max(gain, float32(abs))
	}
	return fir, gain
}

// limiter keeps true peaks below the ceiling. For every sample it knows the gain that the peak at it allows; the least of these
// over the look-ahead, averaged over the look-ahead, has come all the way down when the peak does and makes no corner. Its delay is
// 2.8 ms. Where nothing comes near the ceiling it costs a comparison a sample.
type limiter struct {
	delay [limDelay + overTaps + Frame]float32 // the past, then the frame

	allow [hold]float32      // gains allowed, a ring
	held  [lookAhead]float32 // least of them, with the release; a ring
	at    int                // in allow
	sumAt int                // in held
	low   float32            // least of allow
	lowAt int                // how many samples ago it was
	now   float32            // last of held
	sum   float64            // of held
	idle  bool               // all gains are 1
}

func (l *limiter) init() {
	for i := range l.allow {
		l.allow[i] = 1
	}
	for i := range l.held {
		l.held[i] = 1
	}
	l.low, l.lowAt, l.now, l.sum, l.idle = 1, 0, 1, lookAhead, true
}

var limitAt = float32(math.Pow(10, limitTo/20))

// frame limits pcm in place.
func (l *limiter) frame(pcm []float32) {
	const past = limDelay + overTaps
	copy(l.delay[:past], l.delay[Frame:])
	copy(l.delay[past:], pcm)
	// The peaks of sample i are known once overDelay more are there: they are looked for around l.delay[past+i-overDelay].
	if l.idle && greatest(l.delay[past-overTaps:])*overGain <= limitAt {
		copy(pcm, l.delay[overTaps:])
		return
	}
	for at := 0; at < len(pcm); at += closely {
		hot := greatest(l.delay[past+at-overTaps+1:past+at+closely])*overGain > limitAt
		for i := at; i < at+closely; i++ {
			g := float32(1)
			if hot {
				if p := truePeak((*[overTaps]float32)(l.delay[past+i-overTaps+1:])); p > limitAt {
					g = limitAt / p
				}
			}
			pcm[i] = l.delay[overTaps+i] * l.gain(g)
		}
	}
	l.idle = l.low == 1 && l.sum >= lookAhead-1e-4 && l.now > 1-1e-6
	if l.idle {
		l.init()
	}
}

// gain takes what the newest peak allows and returns the gain for the sample of a look-ahead ago.
func (l *limiter) gain(allowed float32) float32 {
	l.allow[l.at] = allowed
	l.lowAt++
	switch {
	case allowed <= l.low:
		l.low, l.lowAt = allowed, 0
	case l.lowAt >= hold: // the least has left the ring
		l.low = 1
		for k := range hold {
			if g := l.allow[(l.at+1+k)%hold]; g <= l.low {
				l.low, l.lowAt = g, hold-1-k
			}
		}
	}
	l.at = (l.at + 1) % hold
	l.now = min(l.low, l.now+(1-l.now)*release)
	l.sum += float64(l.now) - float64(l.held[l.sumAt])
	l.held[l.sumAt] = l.now
	l.sumAt = (l.sumAt + 1) % lookAhead
	return float32(l.sum / lookAhead)
}

// greatest is the greatest magnitude in x.
func greatest(x []float32) (peak float32) {
	for _, v := range x {
		peak = max(peak, v, -v)
	}
	return peak
}

// truePeak is the greatest magnitude between the two samples in the middle of x, the first of them included.
func truePeak(x *[overTaps]float32) float32 {
	peak := max(x[overTaps/2-1], -x[overTaps/2-1])
	for p := range overFIR {
		row := &overFIR[p]
		var a, b float32
		for k := 0; k < overTaps; k += 2 {
			a += x[k] * row[k]
			b += x[k+1] * row[k+1]
		}
		s := a + b
		peak = max(peak, s, -s)
	}
	return peak
}
