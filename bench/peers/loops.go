//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// loop is one of bench/bare's, and its other end.
type loop struct {
	kind string // tcp, udp, join
	args []string
	sink []string
}

// loopResult is what a loop says of itself; see bench/bare.
type loopResult struct {
	Seconds   float64 `json:"seconds"`
	CPUUS     float64 `json:"cpu_us"`
	Did       int64   `json:"did"`
	PerUS     float64 `json:"per_us"`
	PerSecond float64 `json:"per_second"`
	ListenUS  float64 `json:"listener_us"`
	Failed    int64   `json:"failed"`
	LateMS    float64 `json:"late_ms"`
}

// measureLoop runs a loop with n listeners.
func (b *bench) measureLoop(l loop, n int, hold time.Duration) (*sample, error) {
	many := []string{"--n", strconv.Itoa(n)}
	args := append(append([]string{b.bare, l.kind}, many...), l.args...)
	if l.kind != "join" {
		args = append(args, "--hold", hold.String())
	}
	one := []string{"GOMAXPROCS=1"}
	var main, sink *child
	var err error
	if l.kind == "udp" { // the sink says where to send
		sink, err = b.start(task{name: "bare-sink", core: crowdCore, args: append(append([]string{b.bare, "sink", "--udp"}, many...), l.sink...), env: one, piped: true, talks: true})
		if err != nil {
			return nil, err
		}
		defer sink.stop()
		var to strings.Builder
		for range n {
			line, err := sink.line()
			if err != nil {
				return nil, err
			}
			fmt.Fprintln(&to, line)
		}
		main, err = b.start(task{name: "bare", core: serverCore, args: args, env: one, talks: true, stdin: strings.NewReader(to.String())})
		if err != nil {
			return nil, err
		}
	} else {
		main, err = b.start(task{name: "bare", core: serverCore, args: args, env: one, talks: true})
		if err != nil {
			return nil, err
		}
		line, err := main.line()
		if err != nil {
			return nil, err
		}
		flag := map[string]string{"tcp": "--tcp", "join": "--join"}[l.kind]
		sink, err = b.start(task{
			name: "bare-sink", core: crowdCore, env: one, piped: true,
			args: append(append([]string{b.bare, "sink", flag, strings.TrimPrefix(line, "listening ")}, many...), l.sink...),
		})
		if err != nil {
			main.stop()
			return nil, err
		}
		defer sink.stop()
	}
	said, err := main.rest()
	if err != nil {
		return nil, err
	}
	var r loopResult
	if err := json.Unmarshal(said, &r); err != nil {
		return nil, fmt.Errorf("bare %s said %q: %w", l.kind, said, err)
	}
	m := &sample{Listeners: n, US: r.ListenUS, Busy: r.CPUUS / 1e6 / r.Seconds, Joined: n}
	if l.kind == "join" {
		m.JoinUS, m.JoinsPS, m.Joined = r.PerUS, r.PerSecond, int(r.Did)
	}
	if r.Failed > 0 {
		m.Comments = append(m.Comments, fmt.Sprintf("%d of %d failed", r.Failed, r.Did))
	}
	m.LateMS.Max = r.LateMS
	return m, nil
}

// pair is Earshot's engine and the loop on the same sockets, one turn each: CPU per listener-second in microseconds.
type pair struct {
	Case   string  `json:"case"`
	Engine float64 `json:"engine_us"`
	Loop   float64 `json:"loop_us"`
	Spread float64 `json:"spread_us"`
}

// pairs are those that are measured.
var pairs = []struct {
	name    string
	n       int
	cadence int
	tls     bool
	less    int // 1: half as many pairs
}{
	{"pair-1000", 9000, 1000, false, 0},
	{"pair-tls-1000", 9000, 1000, true, 0},
	{"pair-200", 5000, 200, false, 1},
}

// measurePair lets both write to the same sockets in turns.
func (b *bench) measurePair(name string, n, cadence int, secure bool, times int) ([]pair, error) {
	args := []string{b.bare, "pair", "--n", strconv.Itoa(n), "--cadence", strconv.Itoa(cadence), "--pairs", strconv.Itoa(times)}
	sink := []string{b.bare, "sink", "--n", strconv.Itoa(n), "--ask", "/live?cadence=" + strconv.Itoa(cadence)}
	if secure {
		args, sink = append(args, "--tls"), append(sink, "--tls")
	}
	main, err := b.start(task{name: "bare-pair", core: serverCore, args: args, talks: true})
	if err != nil {
		return nil, err
	}
	line, err := main.line()
	if err != nil {
		return nil, err
	}
	other, err := b.start(task{name: "bare-sink", core: crowdCore, args: append(sink, "--tcp", strings.TrimPrefix(line, "listening ")), piped: true})
	if err != nil {
		main.stop()
		return nil, err
	}
	defer other.stop()
	said, err := main.rest()
	if err != nil {
		return nil, err
	}
	var out []pair
	for line := range bytes.Lines(said) {
		p := pair{Case: name}
		if err := json.Unmarshal(line, &p); err != nil {
			return nil, fmt.Errorf("bare pair said %q: %w", line, err)
		}
		out = append(out, p)
	}
	return out, nil
}
