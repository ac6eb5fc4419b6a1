package mix_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"earshot/internal/mix"
)

// truePeak is the greatest magnitude of pcm at eight times the rate, in dBTP, by a far longer filter than the limiter's own.
func truePeak(pcm []float32) float64 {
	const reach, over = 48, 8
	var fir [over][2 * reach]float64
	for p := range fir {
		for i := range fir[p] {
			x := float64(i) - (reach - 1) - float64(p)/over
			w := 0.5 + 0.5*math.Cos(math.Pi*x/reach)
			if fir[p][i] = w; x != 0 {
				fir[p][i] = w * math.Sin(math.Pi*x) / (math.Pi * x)
			}
		}
	}
	peak := 0.0
	for n := 0; n+2*reach <= len(pcm); n++ {
		for p := range fir {
			sum := 0.0
			for i, h := range fir[p] {
				sum += h * float64(pcm[n+i])
			}
			peak = max(peak, math.Abs(sum))
		}
	}
	return 20 * math.Log10(peak)
}

// No peak passes the ceiling, between samples neither, and what is below it passes unchanged.
func TestLimiter(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 0))
	quarter := func(n int) float64 { return math.Sin(math.Pi/2*float64(n) + math.Pi/4) } // its true peak lies 3 dB above its samples
	for name, signal := range map[string]func(n int) float64{
		"loud tone":             func(n int) float64 { return 3 * math.Sin(2*math.Pi*997*float64(n)/mix.Rate) },
		"between the samples":   func(n int) float64 { return 1.2 * quarter(n) },
		"sudden tone":           func(n int) float64 { return 2 * quarter(n) * float64(n/2400%2) },
		"single clicks":         func(n int) float64 { return 4 * float64(max(0, 1-n%1777)) },
		"noise up to 20 kHz":    noise20k(rnd),
		"many voices":           func(n int) float64 { return 2.5 * speech(140, -10)(int64(n)) * (1 + 0.5*math.Sin(float64(n)/9000)) },
		"high tone, and bursts": func(n int) float64 { return math.Sin(2*math.Pi*15000*float64(n)/mix.Rate) * (0.2 + 2*float64(n/700%2)) },
	} {
		limit := mix.Limit()
		var out []float32
		frame := make([]float32, mix.Frame)
		for i := range 40 {
			for k := range frame {
				frame[k] = float32(signal(i*mix.Frame + k))
			}
			limit(frame)
			out = append(out, frame...)
		}
		got := truePeak(out)
		t.Logf("%s: %.2f dBTP, %.1f dBFS", name, got, rms(out))
		if got > mix.Ceiling {
			t.Errorf("%s: %.2f dBTP", name, got)
		}
		if got < mix.Ceiling-3 {
			t.Errorf("%s: pressed down to %.2f dBTP", name, got)
		}
	}
}

// noise20k is white noise as wide as what Opus decodes to.
func noise20k(rnd *rand.Rand) func(int) float64 {
	const reach = 64
	var fir, past [2*reach + 1]float64
	for i := range fir {
		x := float64(i - reach)
		fir[i] = 5. / 6 * (0.5 + 0.5*math.Cos(math.Pi*x/(reach+1)))
		if x != 0 {
			fir[i] *= math.Sin(math.Pi*x*5/6) / (math.Pi * x * 5 / 6)
		}
	}
	return func(int) (sum float64) {
		copy(past[1:], past[:])
		past[0] = rnd.Float64()*4 - 2
		for i, h := range fir {
			sum += h * past[i]
		}
		return sum
	}
}

func TestLimiterLeavesTheQuietAlone(t *testing.T) {
	limit := mix.Limit()
	var in, out []float32
	frame := make([]float32, mix.Frame)
	for i := range 150 {
		for k := range frame {
			frame[k] = float32(0.5 * math.Sin(float64(i*mix.Frame+k)/17))
			if i == 20 && k > 100 && k < 140 {
				frame[k] = 1.5 // once it has something to do
			}
		}
		in = append(in, frame...)
		limit(frame)
		out = append(out, frame...)
	}
	const delay = mix.LimitDelay
	for i := range out[delay:] {
		if i > 19*mix.Frame && i < 100*mix.Frame {
			continue // while it acts, and a second and a half after
		}
		if d := math.Abs(float64(out[i+delay] - in[i])); d > 1e-3 {
			t.Fatalf("sample %d is %v, was %v", i, out[i+delay], in[i])
		}
	}
}
