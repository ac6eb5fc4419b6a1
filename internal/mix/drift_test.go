package mix_test

import (
	"flag"
	"math"
	"testing"
	"time"

	"earshot/internal/mix"
)

// drifting sends a tone of 400 Hz for so long by a clock that is off by ppm, and hands each frame that comes out to hear.
func drifting(t *testing.T, ppm float64, length time.Duration, loop int, hear func(frame int, pcm []float32)) mix.VoiceStats {
	t.Helper()
	v := addVoice(t, newDesk(t), false)
	s := newSender(t, tone(400, -20)) // 8 periods a packet
	if s.loop = loop; loop > 0 {
		var err error
		if s.enc, err = mix.NewQuickEncoder(); err != nil {
			t.Fatal(err)
		}
	}
	period := float64(tick) / (1 + ppm*1e-6)
	for i := range int(length / tick) {
		now := time.Duration(i) * tick
		for {
			sent := time.Duration(float64(s.n/mix.Frame) * period)
			if sent > now {
				break
			}
			v.Push(s.next(sent))
		}
		hear(i, v.Pull(int64(i)*mix.Frame))
	}
	return v.Stats()
}

// How long the drift of a real clock is followed, such as 2h; `make soak` does it. Without, only as much drift in less time.
var driftFor = flag.Duration("mix.drift", 0, "simulated time at 100 ppm")

// As much drift as an hour at 100 ppm brings, in six minutes, is followed either way: nothing is made up, the delay stays where it is, no
// sample jumps.
func TestHoursOfDrift(t *testing.T) {
	type clock struct {
		name   string
		ppm    float64
		length time.Duration
	}
	clocks := []clock{{"fast", 1000, 6 * time.Minute}, {"slow", -1000, 6 * time.Minute}}
	if *driftFor > 0 {
		clocks = append(clocks, clock{"fast for hours", 100, *driftFor}, clock{"slow for hours", -100, *driftFor})
	}
	for _, c := range clocks {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ppm, length := c.ppm, c.length
			var last float32
			var most float64
			low, high := math.Inf(1), math.Inf(-1)
			stats := drifting(t, ppm, length, 50, func(i int, pcm []float32) {
				if i < 500 {
					last = pcm[len(pcm)-1]
					return
				}
				for _, x := range pcm {
					most = max(most, math.Abs(float64(x-last)))
					last = x
				}
				low, high = min(low, rms(pcm)), max(high, rms(pcm))
			})
			t.Logf("greatest step %.4f, level %.2f to %.2f dBFS, %+v", most, low, high, stats)
			if stats.Concealed != 0 || stats.Late != 0 || stats.Dropped != 0 {
				t.Errorf("made up, late or dropped: %+v", stats)
			}
			if stats.BufferMS < 18 || stats.BufferMS > 50 { // a slow clock looks late: by 20 ms at 1000 ppm
				t.Errorf("at the end the delay is %.1f ms", stats.BufferMS)
			}
			want := ppm * 1e-6 * length.Seconds() * mix.Rate
			if got := float64(stats.Slipped); math.Abs(got-want) > 2000 {
				t.Errorf("took up %.0f samples of %.0f", got, want)
			}
			// A sine of this level moves by at most 0.0074 from sample to sample, a click by a multiple of that.
			if most > 0.0085 || low < -20.6 || high > -19.4 {
				t.Errorf("a step of %.4f, levels from %.2f to %.2f dBFS", most, low, high)
			}
		})
	}
}

// While the ratio is followed a tone stays a tone: what isn't the tone lies as far below it as Opus alone leaves it.
func TestDriftIsInaudible(t *testing.T) {
	clean := func(ppm float64) float64 {
		var pcm []float32
		drifting(t, ppm, 20*time.Second, 0, func(i int, frame []float32) {
			if i > 500 {
				pcm = append(pcm, frame...)
			}
		})
		return noise(pcm, 400)
	}
	still, drift := clean(0), clean(100)
	t.Logf("what isn't the tone: %.1f dB without drift, %.1f dB at 100 ppm", still, drift)
	if drift > -30 || drift > still+6 {
		t.Errorf("what isn't the tone is at %.1f dB, %.1f dB without drift", drift, still)
	}
}

// noise is what is left of pcm, relative to it in dB, when the tone of hz is taken out of each window of 20 ms.
func noise(pcm []float32, hz float64) float64 {
	const window = mix.Frame
	var rest, all float64
	for i := 0; i+window <= len(pcm); i += window {
		var c, s float64
		for k, x := range pcm[i : i+window] {
			w := 2 * math.Pi * hz * float64(k) / mix.Rate
			c += float64(x) * math.Cos(w) * 2 / window
			s += float64(x) * math.Sin(w) * 2 / window
		}
		for k, x := range pcm[i : i+window] {
			w := 2 * math.Pi * hz * float64(k) / mix.Rate
			d := float64(x) - c*math.Cos(w) - s*math.Sin(w)
			rest += d * d
			all += float64(x) * float64(x)
		}
	}
	return 10 * math.Log10(rest/all+1e-12)
}
