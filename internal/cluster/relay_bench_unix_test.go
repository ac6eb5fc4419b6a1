//go:build unix

package cluster_test

import (
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"earshot/internal/cluster"
	"earshot/internal/timeline"
)

// The relay at the rate of twenty events, over loopback TCP, server and all nodes in this process: how late a frame is on the last
// edge that gets it, and what processor time one frame costs with so many edges. The difference between two numbers of edges is what
// one more costs, the server's share included.
//
//	go test -run '^$' -bench Relay -benchtime 5000x ./internal/cluster
func BenchmarkRelay(b *testing.B) {
	for _, edges := range []int{1, 5, 9} {
		b.Run(fmt.Sprint("edges=", edges), func(b *testing.B) {
			s := runNATS(b)
			stage := s.join(b, true, "")
			p, epoch := stageOf(b, stage, "ev_1")
			sent := make([]time.Time, b.N)
			late := make([]time.Duration, b.N) // of the last edge
			var mu sync.Mutex
			var wg sync.WaitGroup
			wg.Add(edges)
			for range edges {
				c := s.join(b, false, "")
				follow(b, c, "ev_1", &heard{each: func(r cluster.Relayed) {
					mu.Lock()
					late[r.Number] = max(late[r.Number], time.Since(sent[r.Number]))
					mu.Unlock()
					if r.Number == uint64(b.N-1) {
						wg.Done()
					}
				}})
			}
			time.Sleep(200 * time.Millisecond) // subscriptions
			packet, cues := make([]byte, 80), []timeline.Cue{{Kind: "levels", Data: []byte(`{"p_1":-20.5,"p_2":-31.0}`)}}
			before := cpu()
			b.ResetTimer()
			tick := time.NewTicker(time.Millisecond)
			for n := range b.N {
				<-tick.C
				mu.Lock()
				sent[n] = time.Now()
				mu.Unlock()
				now := cues[:0]
				if n%timeline.FramesPerPart == timeline.FramesPerPart-1 {
					now = cues
				}
				p.Frame(timeline.Frame{Number: uint64(n), Epoch: epoch, Packet: packet}, now)
			}
			tick.Stop()
			wg.Wait()
			b.StopTimer()
			spent := cpu() - before
			slices.Sort(late)
			b.ReportMetric(float64(late[b.N/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(late[b.N*99/100].Microseconds()), "p99-µs")
			b.ReportMetric(float64(spent.Microseconds())/float64(b.N), "cpu-µs/frame")
		})
	}
}

// cpu is the processor time of this process.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
