package mix_test

import (
	"math"
	"syscall"
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

// One second of stage with 13 hearing voices that all speak. The limit is 350 ms of one core.
//
// On a Xeon at 2.5 GHz it is about 140 ms. More than half of that are the 14 encoders (the programme's, hybrid with FEC, costs as much as
// four of the others, CELT), a fifth the decoders, the rest the arithmetic in Go: resamplers, and limiters, which work hard where
// 13 talk at once. With the hybrid encoder for all it would be 350 ms and more.
func BenchmarkStageSecond(b *testing.B) { benchmarkSecond(b, 13) }

// The same with as many as a stage takes, all at once, each with a mix of their own. The limit is the core: 1000 ms.
func BenchmarkFullStageSecond(b *testing.B) { benchmarkSecond(b, 50) }

func benchmarkSecond(b *testing.B, voices int) {
	frame := stageOf(b, voices)
	for range 100 {
		frame()
	}
	var before, after syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &before); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		for range 50 {
			frame()
		}
	}
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &after); err != nil {
		b.Fatal(err)
	}
	used := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	b.ReportMetric(float64(used)/1e6/float64(b.N), "cpu-ms/s") // what others on the machine do doesn't count
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
