package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"earshot/internal/backup"
)

const progressEvery = 200 * time.Millisecond

// progress shows on a terminal how a backup passes through. It is written to with the backup's bytes, and told what is in it.
type progress struct {
	out  *os.File // nil: nobody looks
	last time.Time
	now  bool // something was shown

	bytes   int64
	total   int // segments
	done    int
	records int
}

func newProgress(out *os.File, quiet bool) *progress {
	if quiet || !isTerminal(out) {
		out = nil
	}
	return &progress{out: out}
}

// Write counts bytes.
func (p *progress) Write(b []byte) (int, error) {
	p.bytes += int64(len(b))
	return len(b), nil
}

// About, Record, OperatorKey and Segment make it a backup.Sink.
func (p *progress) About(a backup.About) error {
	p.total = a.Segments
	return nil
}

// Record counts.
func (p *progress) Record(string, string, json.RawMessage) error {
	p.records++
	p.show()
	return nil
}

// OperatorKey is nothing to show.
func (p *progress) OperatorKey(string) error { return nil }

// Segment counts.
func (p *progress) Segment(backup.Segment, []byte) error {
	p.done++
	p.show()
	return nil
}

func (p *progress) show() {
	if p.out == nil || time.Since(p.last) < progressEvery {
		return
	}
	p.last, p.now = time.Now(), true
	fmt.Fprintf(p.out, "\r%d records, %d of %d segments, %s ", p.records, p.done, p.total, size(p.bytes))
}

// end clears the line.
func (p *progress) end() {
	if p.now {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

// size says bytes as people do.
func size(n int64) string {
	switch {
	case n < 10_000:
		return fmt.Sprintf("%d bytes", n)
	case n < 10_000_000:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	case n < 10_000_000_000:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1f GB", float64(n)/1e9)
}
