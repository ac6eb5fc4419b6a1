package rig

import (
	"math"
)

// rate is the one sample rate, samples per second.
const rate = 48000

// Tone gives the samples of a steady sine: hz, at level dBFS (RMS), beginning at sample n.
func Tone(hz, level float64) Signal {
	peak := math.Sqrt2 * math.Pow(10, level/20)
	return func(n int64, pcm []float32) {
		for i := range pcm {
			pcm[i] = float32(peak * math.Sin(2*math.Pi*hz*float64(n+int64(i))/rate))
		}
	}
}

// Signal writes the samples of some sound from its sample n on.
type Signal func(n int64, pcm []float32)

// Chirpy is a signal that is different at every moment, so that correlation finds when it was heard: a tone whose pitch
// wanders over some 600 Hz in the range of speech, at level dBFS (RMS).
func Chirpy(seed, level float64) Signal {
	peak := math.Sqrt2 * math.Pow(10, level/20)
	return func(n int64, pcm []float32) {
		for i := range pcm {
			t := float64(n+int64(i)) / rate
			// The phase is the integral of the pitch: 700 Hz, and two slow waves that never meet again.
			phase := 700*t - 45*math.Cos(2*math.Pi*0.97*t+seed) - 20*math.Cos(2*math.Pi*2.31*t+2*seed)
			pcm[i] = float32(peak * math.Sin(2*math.Pi*phase))
		}
	}
}

// Sum adds signals.
func Sum(of ...Signal) Signal {
	return func(n int64, pcm []float32) {
		part := make([]float32, len(pcm))
		clear(pcm)
		for _, s := range of {
			s(n, part)
			for i, v := range part {
				pcm[i] += v
			}
		}
	}
}

// Level is the RMS in dBFS, -120 for silence.
func Level(pcm []float32) float64 {
	sum := 0.0
	for _, v := range pcm {
		sum += float64(v) * float64(v)
	}
	if sum == 0 {
		return -120
	}
	return max(-120, 10*math.Log10(sum/float64(len(pcm))))
}

// Goertzel is the level in dBFS (RMS) of one frequency, under a Hann window, whose side lobes fall off fast enough to tell
// tones 100 Hz apart in a tenth of a second.
func Goertzel(pcm []float32, hz float64) float64 {
	if len(pcm) == 0 {
		return -120
	}
	w := 2 * math.Pi * hz / rate
	coeff := 2 * math.Cos(w)
	var s1, s2, sum float64
	for i, v := range pcm {
		h := 0.5 - 0.5*math.Cos(2*math.Pi*float64(i)/float64(len(pcm)))
		s1, s2 = float64(v)*h+coeff*s1-s2, s1
		sum += h
	}
	power := s1*s1 + s2*s2 - coeff*s1*s2
	amplitude := 2 * math.Sqrt(max(0, power)) / sum
	return max(-120, 20*math.Log10(max(1e-9, amplitude/math.Sqrt2)))
}

// Hole is a stretch in which there was nothing to hear.
type Hole struct{ From, Samples int }

// Holes finds stretches of at least least samples whose level stays below floor dBFS, measured in windows of 2.5 ms.
func Holes(pcm []float32, floor float64, least int) []Hole {
	const step = 120
	var out []Hole
	begun := -1
	end := func(at int) {
		if begun >= 0 && at-begun >= least {
			out = append(out, Hole{begun, at - begun})
		}
		begun = -1
	}
	at := 0
	for ; at+step <= len(pcm); at += step {
		if Level(pcm[at:at+step]) < floor {
			if begun < 0 {
				begun = at
			}
		} else {
			end(at)
		}
	}
	end(at)
	return out
}

// Correlate finds where in heard the wanted sound lies: the lag in samples (heard[lag+i] goes with want[i]), 0 to most, with the
// highest normalised correlation, and that correlation, -1 to 1. Gain does not matter.
func Correlate(heard, want []float32, most int) (lag int, r float64) {
	most = min(most, len(heard)-len(want))
	r = -1
	// First every eighth lag on every fourth sample, as signals here stay far below 3 kHz, then around the best.
	coarse, best := 0, -1.0
	for l := 0; l <= most; l += 8 {
		if c := alike(heard[l:], want, 4); c > best {
			coarse, best = l, c
		}
	}
	for l := max(0, coarse-16); l <= min(most, coarse+16); l++ {
		if c := alike(heard[l:], want, 1); c > r {
			lag, r = l, c
		}
	}
	return lag, r
}

func alike(a, b []float32, step int) float64 {
	var ab, aa, bb float64
	for i := 0; i < len(b); i += step {
		x, y := float64(a[i]), float64(b[i])
		ab += x * y
		aa += x * x
		bb += y * y
	}
	if aa == 0 || bb == 0 {
		return 0
	}
	return ab / math.Sqrt(aa*bb)
}
