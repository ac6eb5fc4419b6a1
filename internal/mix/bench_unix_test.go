//go:build unix

package mix_test

import (
	"syscall"
	"testing"
)

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
