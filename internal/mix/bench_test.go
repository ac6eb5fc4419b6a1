package mix_test

import (
	"math"
	"testing"
	"time"

	"earshot/internal/mix"
)

// speech is something like it: a harmonic tone with syllables, so that encoders and levels have to work.
func speech(f0, dbfs float64) func(int64) float64 {
	a := math.Pow(10, dbfs/20)
	return func(n int64) float64 {
		t := float64(n) / mix.Rate
		phase := 2*math.Pi*f0*t + 6*math.Sin(2*math.Pi*0.7*t)
		last, c := math.Sincos(phase)
		before, s := 0.0, 0.0
		for h := 1.0; h < 20; h++ { // sin(h·x) from the two before it
			s += last / h
			before, last = last, 2*c*last-before
		}
		return a * s * (0.55 - 0.5*math.Cos(2*math.Pi*4*t))
	}
}

// stageOf is a desk with n hearing voices and packets for a while, on a loop.
func stageOf(tb testing.TB, n int) (frame func()) {
	tb.Helper()
	const loop = 50
	d, err := mix.NewDesk(mix.Config{})
	if err != nil {
		tb.Fatal(err)
	}
	voices := make([]*mix.Voice, n)
	packets := make([][]mix.Packet, n)
	for k := range voices {
		voices[k] = addVoice(tb, d, true)
		s := newSender(tb, speech(90+15*float64(k), -20))
		for range loop {
			packets[k] = append(packets[k], s.next(0))
		}
	}
	i := 0
	return func() {
		now := time.Duration(i) * tick
		for k, v := range voices {
			p := packets[k][i%loop]
			p.Seq, p.TS, p.Arrived = uint16(i), uint32(i*mix.Frame), now
			v.Push(p)
		}
		if _, err := d.Mix(now+3*time.Millisecond, true); err != nil {
			tb.Fatal(err)
		}
		i++
	}
}

func TestFrameAllocatesNothing(t *testing.T) {
	frame := stageOf(t, 13)
	for range 100 {
		frame()
	}
	if n := testing.AllocsPerRun(100, frame); n != 0 {
		t.Errorf("a frame with 13 voices allocates %v times", n)
	}
}
