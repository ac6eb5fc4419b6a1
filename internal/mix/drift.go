package mix

import "math"

// Two clocks never agree. What a voice's buffer gains or loses by that is taken up in two ways: a resampler whose ratio follows the
// delay's error, which takes care of drift and of small changes of the target, at most 3 per mille, too little to be heard as
// pitch; and a splice, which leaves out or repeats a stretch of the signal where it resembles itself, for changes that can't wait.
const (
	maxRatio   = 0.003
	ratioTau   = 4 * Rate // an error of e samples is worked off at e/ratioTau
	ratioSlew  = 0.02     // share of the way that the ratio goes in a frame: a second or so
	spliceFade = 240      // 5 ms of cross-fade
	spliceMin  = 120      // 2.5 ms, a period of 400 Hz
	spliceMax  = 720      // 15 ms, a period of 67 Hz
	spliceOff  = taps     // samples that the resampler has already looked at stay as they are
)

// The interpolator: a windowed sinc, in so many taps at so many positions between two samples. The position is rounded to the
// nearest, which leaves an error of -70 dB at 8 kHz and -88 dB at 1 kHz, below what Opus does to the signal.
const (
	taps   = 24
	phases = 1024
)

// sinc[p] interpolates at p/phases between samples taps/2-1 and taps/2 of a run of taps samples.
var sinc = makeSinc()

func makeSinc() *[phases + 1][taps]float32 {
	t := new([phases + 1][taps]float32)
	for p := range t {
		at := float64(taps/2-1) + float64(p)/phases
		sum := 0.0
		var row [taps]float64
		for i := range row {
			x := float64(i) - at
			row[i] = kaiser(x/(taps/2), 7) * sincAt(x)
			sum += row[i]
		}
		for i := range row {
			t[p][i] = float32(row[i] / sum) // a constant stays one
		}
	}
	return t
}

func sincAt(x float64) float64 {
	if x == 0 {
		return 1
	}
	return math.Sin(math.Pi*x) / (math.Pi * x)
}

// kaiser is the Kaiser window at x from -1 to 1.
func kaiser(x, beta float64) float64 {
	if x < -1 || x > 1 {
		return 0
	}
	return bessel(beta*math.Sqrt(1-x*x)) / bessel(beta)
}

// bessel is the modified Bessel function of order zero.
func bessel(x float64) float64 {
	sum, term := 1.0, 1.0
	for k := 1.0; term > sum*1e-12; k++ {
		term *= x / (2 * k) * (x / (2 * k))
		sum += term
	}
	return sum
}

// line holds decoded samples until they are due, and hands them out at the resampler's ratio.
type line struct {
	buf      [2*maxSamples + 4*Frame]float32
	from, to int
	frac     float64 // position of the next output after buf[from+taps/2-1], 0 to 1
	ratio    float64 // samples taken per sample given, less one
}

// reset empties the line. It then starts with enough silence for the resampler to reach back into.
func (l *line) reset() {
	clear(l.buf[:taps])
	l.from, l.to, l.frac, l.ratio = 0, taps/2-1, 0, 0
}

// held is how many samples are in the line that were not given out yet, on the scale of what comes in.
func (l *line) held() int64 { return int64(l.to - l.from - (taps/2 - 1)) }

// room returns n samples of space at the line's end, to be filled; n is at most maxSamples.
func (l *line) room(n int) []float32 {
	if l.to+n > len(l.buf) {
		l.to = copy(l.buf[:], l.buf[l.from:l.to])
		l.from = 0
	}
	s := l.buf[l.to : l.to+n]
	l.to += n
	return s
}

// need is how many samples have to be held for n to be given.
func (l *line) need(n int) int64 {
	return int64(math.Ceil(l.frac+float64(n)*(1+l.ratio))) + taps/2 + 1
}

// take gives out len(out) samples, and returns by how many the line gave up more or less than that.
func (l *line) take(out []float32) (slipped float64) {
	step, at, from := 1+l.ratio, l.frac, l.from
	for i := range out {
		row := &sinc[int(at*phases+0.5)]
		x := (*[taps]float32)(l.buf[from:])
		var a, b, c, d float32
		for k := 0; k < taps; k += 4 {
			a += x[k] * row[k]
			b += x[k+1] * row[k+1]
			c += x[k+2] * row[k+2]
			d += x[k+3] * row[k+3]
		}
		out[i] = (a + b) + (c + d)
		at += step
		n := int(at)
		from, at = from+n, at-float64(n)
	}
	l.from, l.frac = from, at
	return l.ratio * float64(len(out))
}

// steer lets the ratio follow the error of the delay, in samples; more delay than wanted makes the line run faster.
func (l *line) steer(err float64) {
	want := min(max(err/ratioTau, -maxRatio), maxRatio)
	l.ratio += (want - l.ratio) * ratioSlew
}

// spliceNeed is how many samples have to be held for a splice.
const spliceNeed = spliceOff + spliceMax + spliceFade

// splice finds the lag at which what is held resembles itself most, and leaves that much out (cut) or says it twice. It returns the
// samples gained (negative for a cut), or 0 where nothing is alike enough: likeness is 1 for a periodic signal, 0 for noise.
func (l *line) splice(cut bool, likeness float32) int {
	s := l.buf[l.from+spliceOff : l.to]
	if len(s) < spliceMax+spliceFade {
		return 0
	}
	lag, like := alike(s)
	if like < likeness {
		return 0
	}
	if cut {
		for i := range spliceFade {
			w := fadeIn(i)
			s[lag+i] = s[i]*(1-w) + s[lag+i]*w
		}
		// What was before the splice is moved up to it.
		copy(l.buf[l.from+lag:], l.buf[l.from:l.from+spliceOff])
		l.from += lag
		return -lag
	}
	l.room(lag)
	s = l.buf[l.from+spliceOff : l.to]
	copy(s[lag:], s[:len(s)-lag]) // now s[:lag] is how it began, and s[lag:] is all of it
	for i := range spliceFade {
		w := fadeIn(i)
		s[lag+i] = s[2*lag+i]*(1-w) + s[lag+i]*w
	}
	return lag
}

func fadeIn(i int) float32 { return float32(i) / spliceFade }

// alike finds the lag between spliceMin and spliceMax with the greatest normalised correlation over the length of a fade. Silence
// is alike at any lag.
func alike(s []float32) (lag int, like float32) {
	head := s[:spliceFade]
	var e0 float32
	for _, x := range head {
		e0 += x * x
	}
	const quiet = spliceFade * 1e-6 // -60 dBFS
	if e0 < quiet {
		var e float32
		for _, x := range s[:spliceMax+spliceFade] {
			e += x * x
		}
		if e < 4*quiet {
			return spliceMax, 1
		}
	}
	lag, like = spliceMin, -1
	var e float32
	for _, x := range s[spliceMin : spliceMin+spliceFade] {
		e += x * x
	}
	for k := spliceMin; k <= spliceMax; k++ {
		if k > spliceMin {
			e += s[k+spliceFade-1]*s[k+spliceFade-1] - s[k-1]*s[k-1]
		}
		t := s[k : k+spliceFade]
		var a, b float32
		for i := 0; i+1 < spliceFade; i += 2 {
			a += head[i] * t[i]
			b += head[i+1] * t[i+1]
		}
		if c := (a + b) / float32(math.Sqrt(float64(e0*max(e, 1e-9)))+1e-9); c > like {
			lag, like = k, c
		}
	}
	return lag, like
}
