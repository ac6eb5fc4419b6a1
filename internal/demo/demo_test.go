package demo_test

import (
	"math"
	"slices"
	"testing"

	"earshot/internal/demo"
)

const frame = 960

func rms(pcm []float32) float64 {
	var sum float64
	for _, x := range pcm {
		sum += float64(x) * float64(x)
	}
	return 10 * math.Log10(sum/float64(len(pcm))+1e-12)
}

// Somebody speaks nearly always, never both; turns are 3 to 6 s; the level is that of speech, and nothing clips or clicks.
func TestTurns(t *testing.T) {
	for _, seed := range []uint64{0, 20241128} {
		a, b := demo.Pair(seed)
		pcm := [2][]float32{make([]float32, frame), make([]float32, frame)}
		var last [2]float32
		var sound [2][]float32
		turn, began, turns, pause := 0, 0, 0, 0
		for n := range 36 * 50 {
			a.Frame(uint64(n), pcm[0])
			b.Frame(uint64(n), pcm[1])
			loud := [2]bool{rms(pcm[0]) > -60, rms(pcm[1]) > -60}
			if loud[0] && loud[1] {
				t.Fatalf("seed %d: both speak in frame %d", seed, n)
			}
			if pause++; loud[0] || loud[1] {
				pause = 0
			}
			if pause > 60 {
				t.Fatalf("seed %d: silent for more than 1.2 s before frame %d", seed, n)
			}
			who := 0
			if b.Speaks(uint64(n)) {
				who = 1
			}
			if a.Speaks(uint64(n)) == b.Speaks(uint64(n)) || loud[1-who] {
				t.Fatalf("seed %d: it is not clear whose turn frame %d is", seed, n)
			}
			if who != turn {
				if l := n - began; l < 150 || l > 300 {
					t.Errorf("seed %d: a turn of %d frames", seed, l)
				}
				turn, began, turns = who, n, turns+1
			}
			for k := range pcm {
				for _, x := range pcm[k] {
					if d := math.Abs(float64(x - last[k])); d > 0.15 || math.Abs(float64(x)) > 0.9 {
						t.Fatalf("seed %d: a sample of %v after %v in frame %d", seed, x, last[k], n)
					}
					last[k] = x
				}
				if loud[k] {
					sound[k] = append(sound[k], pcm[k]...)
				}
			}
		}
		if turns < 7 {
			t.Errorf("seed %d: %d turns in 36 s", seed, turns)
		}
		var hz [2]float64
		for k := range sound {
			if l := rms(sound[k]); l < -22 || l > -18 {
				t.Errorf("seed %d: voice %d speaks at %.1f dBFS", seed, k, l)
			}
			hz[k] = pitch(sound[k])
			t.Logf("seed %d: voice %d: %.1f dBFS, pitch about %.0f Hz, peak %.2f", seed, k, rms(sound[k]), hz[k], peak(sound[k]))
		}
		if pa, pb := hz[0], hz[1]; pa < 150 || pa > 260 || pb < 85 || pb > 140 {
			t.Errorf("seed %d: pitches %.0f and %.0f Hz", seed, pa, pb)
		}
	}
}

// A frame is the same whenever it is asked for, and another seed makes another conversation.
func TestFramesStandAlone(t *testing.T) {
	a, _ := demo.Pair(7)
	again, _ := demo.Pair(7)
	other, _ := demo.Pair(8)
	x, y, z := make([]float32, frame), make([]float32, frame), make([]float32, frame)
	same := 0
	for n := uint64(0); n < 400; n++ {
		a.Frame(399-n, x)
		again.Frame(399-n, y)
		other.Frame(399-n, z)
		if !slices.Equal(x, y) {
			t.Fatalf("frame %d differs", 399-n)
		}
		if slices.Equal(x, z) {
			same++
		}
	}
	if same > 300 {
		t.Errorf("%d of 400 frames are the same with another seed", same)
	}
	if n := testing.AllocsPerRun(10, func() { a.Frame(3, x) }); n != 0 {
		t.Errorf("a frame allocates %v times", n)
	}
}

func peak(pcm []float32) (p float32) {
	for _, x := range pcm {
		p = max(p, x, -x)
	}
	return p
}

// pitch is the median over windows of 50 ms of the period at which the sound repeats itself, in Hz.
func pitch(pcm []float32) float64 {
	const window = 2400
	var all []float64
	for i := 0; i+2*window <= len(pcm); i += 24 * window {
		best, lag := 0.0, 0
		for l := rate / 350; l < rate/70; l++ {
			sum, e := 0.0, 1e-9
			for k := i; k < i+window; k += 2 {
				sum += float64(pcm[k]) * float64(pcm[k+l])
				e += float64(pcm[k+l]) * float64(pcm[k+l])
			}
			if c := sum / math.Sqrt(e); c > best*1.05 {
				best, lag = c, l
			}
		}
		if lag > 0 {
			all = append(all, rate/float64(lag))
		}
	}
	slices.Sort(all)
	return all[len(all)/2]
}

const rate = 48000

func BenchmarkFrame(b *testing.B) {
	a, _ := demo.Pair(1)
	pcm := make([]float32, frame)
	n := uint64(0)
	for b.Loop() {
		a.Frame(n%50, pcm)
		n++
	}
}
