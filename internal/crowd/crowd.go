// Package crowd is the load generator: some or very many simulated listeners who come to an event, listen as real players do, check
// what they hear, and leave. Every claim about what a listener costs rests on it, so it is light (no goroutine and no buffer per
// listener; the crowd shares the machine with the server), it says when it was itself the bottleneck, and it does not believe itself: a
// sample of its listeners decodes and compares, and ffmpeg can listen beside them.
//
// Run is where it starts: it resolves and pins the target, asks for consent where that is needed, spreads the listeners over
// processes and adds up what they report. A worker (worker_linux.go) owns its listeners in one loop over epoll (loop_linux.go); a
// listener (listener_linux.go) has a client, which speaks one rung's protocol, and a player (player.go), which models what
// is heard: a gap is an underrun of its buffer at the cadence that was announced, not merely a missing frame. Package wire reads what
// servers send; package tally counts.
package crowd

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"
)

// perProcess is how many descriptors a worker plans with where it may open more: one loop is busy enough with them.
const perProcess = 18000

// aside is how many descriptors a worker needs beside its listeners'.
const aside = 200

// Run sends a crowd and reports how it went. Errors are of what cannot be begun; what goes wrong with listeners is in the report.
// When ctx ends the crowd leaves, and the report says what was until then.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	due, err := arrivals(cfg.Curve, cfg.Listeners, cfg.Arrive, rand.New(rand.NewPCG(cfg.Seed, 0)))
	if err != nil {
		return nil, err
	}
	var targets []*target
	for _, address := range cfg.urls() {
		t, err := ask(ctx, &cfg, address)
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	if n := len(due); n > 0 {
		cfg.Arrive = max(cfg.Arrive, due[n-1])
	}
	procs := processes(&cfg)
	if procs > 1 && len(cfg.Worker) == 0 {
		return nil, fmt.Errorf("%d listeners need %d processes, and no command is known that starts one", cfg.Listeners, procs)
	}
	jobs := make([]job, procs)
	for i := range jobs {
		jobs[i] = job{Config: cfg, Target: *targets[i%len(targets)], First: i, Step: procs}
		for k := i; k < len(due); k += procs {
			jobs[i].Due = append(jobs[i].Due, int64(due[k]))
		}
	}
	c := &collector{cfg: &cfg, target: targets[0], procs: procs}
	if err := c.listen(ctx, jobs); err != nil {
		return nil, err
	}
	return c.report(), nil
}

// processes is how many there must be, or shall be.
func processes(cfg *Config) int {
	room := max(1, min(perProcess, descriptorLimit()-aside))
	need := (cfg.Listeners*descriptors(cfg.Rung) + room - 1) / room
	n := max(need, cfg.Procs, 1)
	if each := len(cfg.urls()); n%each != 0 { // as many for each address
		n += each - n%each
	}
	return min(n, cfg.Listeners)
}

// descriptors is how many one listener has open.
func descriptors(rung string) int {
	if rung == HLS { // hls.js waits for the playlist on one connection while it fetches parts on another
		return 2
	}
	return 1
}

// collector adds up what workers report.
type collector struct {
	cfg     *Config
	target  *target
	procs   int
	start   time.Time
	machine machine
	live    chan Row
	foreign []Foreign

	mu   sync.Mutex
	rows []pending // of each second, as far as it is known
	done []Row
}

// pending is a second that not all workers have reported.
type pending struct {
	row  Row
	from int
}

// startsIn is what lies between the last worker's being ready and the start.
const startsIn = 30 * time.Millisecond

// add takes row number n of one worker.
func (c *collector) add(n int, r *Row) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.rows) <= n {
		c.rows = append(c.rows, pending{})
	}
	p := &c.rows[n]
	p.row.merge(r)
	p.from++
	for len(c.done) < len(c.rows) && c.rows[len(c.done)].from == c.procs {
		row := c.rows[len(c.done)].row
		c.done = append(c.done, row)
		if c.live != nil {
			select {
			case c.live <- row:
			default: // a terminal that is slower than a second; the report has it all
			}
		}
	}
}

// listen runs the jobs, here if there is one, else each in a process of its own, and beside them what else shall listen.
func (c *collector) listen(ctx context.Context, jobs []job) error {
	var beside sync.WaitGroup
	defer beside.Wait()
	if c.cfg.Live != nil {
		c.live = make(chan Row, 16)
		defer close(c.live)
		beside.Go(func() { // of its own, because a loop must not wait for a terminal
			for r := range c.live {
				c.cfg.Live(r)
			}
		})
	}
	begins := func() time.Time {
		c.start = time.Now().Add(startsIn)
		if c.cfg.Foreign > 0 {
			beside.Go(func() { c.foreign = listenToo(ctx, c.cfg, c.target) })
		}
		c.machine.begin(c.start.Add(c.cfg.Arrive))
		return c.start
	}
	rows := func() func(Row) {
		n := 0
		return func(r Row) {
			c.machine.tick(time.Now())
			c.add(n, &r)
			n++
		}
	}
	if len(jobs) == 1 {
		return work(ctx, jobs[0], func() (time.Time, error) { return begins(), nil }, rows())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var workers, ready sync.WaitGroup
	start := make(chan time.Time, len(jobs))
	errs := make([]error, len(jobs))
	ready.Add(len(jobs))
	for i := range jobs {
		workers.Go(func() {
			if errs[i] = spawn(ctx, c.cfg.Worker, jobs[i], ready.Done, start, rows()); errs[i] != nil {
				cancel() // a crowd that lacks a part measures something else
			}
		})
	}
	ready.Wait()
	at := begins()
	for range jobs {
		start <- at
	}
	workers.Wait()
	for i, err := range errs {
		if err != nil {
			return fmt.Errorf("worker %d of %d: %w", i+1, len(jobs), err)
		}
	}
	return nil
}

// Work is what a worker's process does: it reads its job from standard input and writes rows to standard output, until the run is
// over or standard input ends, as it does when the process that started it is gone.
func Work(ctx context.Context) error {
	return serveJob(ctx, os.Stdin, os.Stdout)
}
