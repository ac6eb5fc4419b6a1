//go:build linux

// Command bare measures what this machine charges for the work that no server of listeners can avoid, by loops without a framework:
// one write to each connected TCP socket per interval, one sealed RTP packet to each UDP destination per interval, one accepted
// and answered connection per joiner, one TLS 1.3 handshake per joiner. A server's figure means little without this one beside it.
//
// Each loop runs on one thread, in a process of its own; `bare sink` is the other end, in another process, pinned to another core.
// Figures go to standard output as one JSON object.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/alecthomas/kong"
)

type cli struct {
	TCP  tcpCmd  `cmd:"" help:"Write a chunk to each of N drained TCP sockets once per interval."`
	UDP  udpCmd  `cmd:"" help:"Seal and send one RTP packet to each of N drained UDP destinations once per interval."`
	Join joinCmd `cmd:"" help:"Accept, read a request, answer it; plain, or after a TLS 1.3 handshake."`
	Pair pairCmd `cmd:"" help:"Let Earshot's engine and the loop write to the same sockets in turns."`
	Sink sinkCmd `cmd:"" help:"The other end of a loop: connect, and take what comes."`
}

func main() {
	// The loops allocate only while they set up, and a collection in the middle would be charged to the machine.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(4 << 30)
	var c cli
	k := kong.Parse(&c, kong.Name("bare"), kong.Description("The machine's own price of the work that no server of listeners can avoid."))
	if err := k.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "bare:", err)
		os.Exit(1)
	}
}

// result is what a loop says of itself. Units are in the names.
type result struct {
	Loop      string  `json:"loop"`
	Listeners int     `json:"listeners"`
	Seconds   float64 `json:"seconds"`    // the measured time
	CPUUS     float64 `json:"cpu_us"`     // CPU of the loop's thread in that time
	Did       int64   `json:"did"`        // writes, packets or joins
	PerUS     float64 `json:"per_us"`     // CPU per write, packet or join
	PerSecond float64 `json:"per_second"` // writes, packets or joins per second of wall time
	ListenUS  float64 `json:"listener_us,omitempty"`
	Failed    int64   `json:"failed"`  // writes that would have blocked, joins that broke
	LateMS    float64 `json:"late_ms"` // the latest end of a round beyond its interval
}

func (r *result) tell() error {
	if r.Did > 0 {
		r.PerUS = r.CPUUS / float64(r.Did)
	}
	if r.Seconds > 0 {
		r.PerSecond = float64(r.Did) / r.Seconds
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// say tells the parent something that it waits for, such as a port.
func say(format string, a ...any) { fmt.Printf(format+"\n", a...) }

// measured is what rounds found: how many rounds, what the thread used for them, how long they took, and the latest end of one beyond
// its interval.
type measured struct {
	rounds           int
	used, took, late time.Duration
}

func (m measured) into(r *result) {
	r.Seconds, r.CPUUS, r.LateMS = m.took.Seconds(), float64(m.used.Nanoseconds())/1e3, float64(m.late.Microseconds())/1e3
	r.Did = int64(m.rounds) * int64(r.Listeners)
	r.ListenUS = r.CPUUS / r.Seconds / float64(r.Listeners)
}

// rounds calls each once per interval and slot, for warm and then for hold, which is what it measures.
func rounds(interval, warm, hold time.Duration, slots int, each func(slot int)) (m measured) {
	slots = max(1, slots)
	begun := time.Now()
	var cpu time.Duration
	var from time.Time
	for round := 0; ; round++ {
		start := begun.Add(time.Duration(round) * interval)
		pause(time.Until(start))
		if from.IsZero() && start.Sub(begun) >= warm {
			from, cpu, m = time.Now(), threadCPU(), measured{}
		}
		if !from.IsZero() && start.Sub(begun) >= warm+hold {
			m.used, m.took = threadCPU()-cpu, time.Since(from)
			return m
		}
		for slot := range slots {
			pause(time.Until(start.Add(interval * time.Duration(slot) / time.Duration(slots))))
			each(slot)
		}
		m.rounds++
		m.late = max(m.late, time.Since(start.Add(interval)))
	}
}
