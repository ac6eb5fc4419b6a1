//go:build linux

// Command peers measures Earshot beside the servers that people use today and beside the bare loops of bench/bare: each pinned to one
// core, the listeners to another, in turns, all on loopback. It is what `make bench-peers` runs.
//
//	peers run [--only push,icecast] [--rounds 3] [--listeners 5000]   measures, and writes figures as JSON
//	peers page FIGURES.json                                           makes the section of RESULTS.md and the pictures from them
//	peers answer …                                                    listeners for servers that speak no WHEP; run starts it
//
// What is measured stands in plan.go, a case each. A case starts its server, lets it rest, sends the crowd, and reads the server's CPU from
// /proc while all are there. Nothing outlives the run: every child is told to end by its PID, and dies with this process.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/alecthomas/kong"
)

type cli struct {
	Run    runCmd    `cmd:"" help:"Measure, and write the figures as JSON."`
	Page   pageCmd   `cmd:"" help:"Write the section of the results page, and the pictures, from figures."`
	Answer answerCmd `cmd:"" help:"Listen to a server that makes the offer itself: Janus, LiveKit."`
}

func main() {
	// Children are to die with the thread that started them (PR_SET_PDEATHSIG), so that thread must be one that stays.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var c cli
	k := kong.Parse(&c, kong.Name("peers"), kong.Description("Earshot beside its peers and its machine's limits."), kong.BindTo(ctx, (*context.Context)(nil)))
	if err := k.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		stop()
		os.Exit(1)
	}
}
