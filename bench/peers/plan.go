//go:build linux

package main

import (
	"fmt"
	"strings"
	"time"
)

// scenario is one row of the results: a server and listeners, or a loop.
type scenario struct {
	name   string
	server string // as the pages calls it
	bare   bool
	n      int // listeners, unless told otherwise
	arrive time.Duration
	hold   time.Duration
	turns  int // in how many rounds; 0: in all. Some are about what happens, not what it costs
	run    func(b *bench, p programme, sc *scenario) (*sample, error)
}

// demoRound is how long the demo's voices take for a turn each. One costs more to synthesise than the other, so that only the mean of a whole
// round tells what Earshot uses without listeners.
const demoRound = 9 * time.Second

// scale bends a plan to what was asked for.
type scale struct {
	only      []string
	listeners int
	hold      time.Duration
}

// visitTo makes a scenario's run: start a server, send the crowd, stop it.
func visitTo(start func(b *bench, p programme) (*site, error), v visit, come func(b *bench) visitors) func(*bench, programme, *scenario) (*sample, error) {
	return func(b *bench, p programme, sc *scenario) (*sample, error) {
		s, err := start(b, p)
		if err != nil {
			return nil, err
		}
		defer s.stop()
		with := b.crowd
		if come != nil {
			with = come(b)
		}
		v := v
		v.listeners, v.arrive, v.hold = sc.n, sc.arrive, sc.hold
		return b.observe(s, &v, with)
	}
}

func earshot(secure bool, more ...string) func(*bench, programme) (*site, error) {
	return func(b *bench, _ programme) (*site, error) { return b.startEarshot(secure, 0, more...) }
}

func icecast(many, relays int) func(*bench, programme) (*site, error) {
	return func(b *bench, p programme) (*site, error) { return b.startIcecast(p, many, relays, 0, 100_000) }
}

func nginx(b *bench, p programme) (*site, error) { return b.startNginx(p, 0, 19_000) }

func bareLoop(l loop) func(*bench, programme, *scenario) (*sample, error) {
	return func(b *bench, _ programme, sc *scenario) (*sample, error) { return b.measureLoop(l, sc.n, sc.hold) }
}

// plan is all that is measured, in the order in which a round goes through it: who is compared stands together.
func plan() []scenario {
	var all []scenario
	add := func(server, name string, n int, run func(*bench, programme, *scenario) (*sample, error), change ...func(*scenario)) {
		sc := scenario{name: name, server: server, n: n, arrive: 3 * time.Second, hold: 8 * time.Second, run: run}
		if server == "Earshot" {
			sc.hold = demoRound + settle + leeway
		}
		for _, c := range change {
			c(&sc)
		}
		all = append(all, sc)
	}
	slowly := func(sc *scenario) { sc.arrive = 12 * time.Second } // 25 a second, which is what these servers take
	gently := func(sc *scenario) { sc.arrive = 12 * time.Second } // 300 a second: at 1,000 Icecast leaves some unserved
	once := func(sc *scenario) { sc.turns = 1 }
	twice := func(sc *scenario) { sc.turns = 2 }
	loop1 := func(sc *scenario) { sc.bare, sc.hold = true, 8*time.Second }
	flash := func(in time.Duration) func(*scenario) {
		return func(sc *scenario) { sc.arrive, sc.hold = in, 5*time.Second }
	}

	// One write a second, and what else takes a second or more.
	add("bare loop", "bare-tcp-1000", 5000, bareLoop(loop{kind: "tcp", args: []string{"--interval", "1s", "--slots", "100"}}), loop1)
	add("Earshot", "push-1000", 5000, visitTo(earshot(false), visit{rung: "push", cadence: 1000}, nil))
	add("Icecast", "icecast-1000", 3600, visitTo(icecast(50, 0), visit{rung: "ogg"}, nil), gently)
	add("Earshot", "push-tls-1000", 3000, visitTo(earshot(true), visit{rung: "push", cadence: 1000}, nil))
	add("Earshot", "ogg-1000", 5000, visitTo(earshot(false), visit{rung: "ogg", cadence: 1000}, nil), twice)
	add("Earshot", "mp4-1000", 5000, visitTo(earshot(false), visit{rung: "mp4", cadence: 1000}, nil), once)
	add("Earshot", "cues-1000", 5000, visitTo(earshot(false), visit{rung: "cues", cadence: 1000}, nil), twice)
	add("Earshot", "push-2000", 5000, visitTo(earshot(false), visit{rung: "push", cadence: 2000}, nil), twice)
	add("nginx", "nginx-hls", 5000, visitTo(nginx, visit{rung: "hls"}, nil))
	add("Earshot", "hls", 2000, visitTo(earshot(false), visit{rung: "hls"}, nil), twice)

	// Several writes a second.
	add("bare loop", "bare-tcp-200", 5000, bareLoop(loop{kind: "tcp", args: []string{"--interval", "200ms", "--slots", "20"}}), loop1)
	add("Earshot", "push-200", 5000, visitTo(earshot(false), visit{rung: "push", cadence: 200}, nil))
	add("Icecast", "icecast-200", 3600, visitTo(icecast(10, 0), visit{rung: "ogg"}, nil), gently, twice)
	add("Earshot", "push-tls-200", 3000, visitTo(earshot(true), visit{rung: "push", cadence: 200}, nil), twice)
	add("Earshot", "push-400", 5000, visitTo(earshot(false), visit{rung: "push", cadence: 400}, nil), once)

	// WebRTC. The longer the packets, the more listeners a core has; what wakes the engine up is shared by all of them.
	for _, p := range [][2]int{{20, 1000}, {60, 2000}, {120, 3000}} {
		ms, n := p[0], p[1]
		add("bare loop", fmt.Sprintf("bare-udp-%d", ms), n, bareLoop(loop{
			kind: "udp", args: []string{"--interval", fmt.Sprintf("%dms", ms)}, sink: []string{"--beat", "0"},
		}), loop1)
		add("Earshot", fmt.Sprintf("webrtc-%d", ms), n, visitTo(earshot(false), visit{rung: "webrtc", packet: ms}, nil), func(sc *scenario) {
			sc.arrive = time.Duration(n) * 3 * time.Millisecond
		})
	}
	add("Earshot", "webrtc-busy", 1900, visitTo(earshot(false), visit{rung: "webrtc", packet: 20, flags: []string{"--light"}}, nil), twice, func(sc *scenario) {
		sc.arrive = 8 * time.Second
	})
	add("Janus", "janus-20", 300, visitTo((*bench).startJanus, visit{}, func(b *bench) visitors { return b.answering("--janus") }), slowly, twice)
	add("LiveKit", "livekit-20", 300, visitTo(func(b *bench, _ programme) (*site, error) { return b.startLiveKit() }, visit{},
		func(b *bench) visitors { return b.answering("--livekit") }), slowly, twice)

	// Joining: so many at once that the core has no rest.
	add("bare loop", "bare-join", 10_000, bareLoop(loop{kind: "join"}), loop1, twice)
	add("Earshot", "join-push", 12_000, visitTo(earshot(false), visit{rung: "push", cadence: 2000, flags: []string{"--curve", "flash"}}, nil), twice, flash(time.Second))
	add("Icecast", "join-icecast-300", 3000, visitTo(icecast(50, 0), visit{rung: "ogg"}, nil), once, flash(10*time.Second))
	add("Icecast", "join-icecast-1000", 5000, visitTo(icecast(50, 0), visit{rung: "ogg"}, nil), twice, flash(5*time.Second))
	add("nginx", "join-nginx-3000", 9000, visitTo(nginx, visit{rung: "hls"}, nil), twice, flash(3*time.Second))
	add("bare loop", "bare-join-tls", 3000, bareLoop(loop{kind: "join", args: []string{"--tls"}, sink: []string{"--tls"}}), loop1, twice)
	add("Earshot", "join-push-tls", 4000, visitTo(earshot(true), visit{rung: "push", cadence: 2000, flags: []string{"--curve", "flash"}}, nil), twice, flash(2*time.Second))
	add("Earshot", "join-webrtc", 1400, visitTo(earshot(false), visit{rung: "webrtc", packet: 120}, nil), twice, flash(2*time.Second))

	// Half as many again as is comfortable.
	add("Earshot", "past-push", 18_000, visitTo(earshot(false), visit{rung: "push", cadence: 200}, nil), once, func(sc *scenario) {
		sc.arrive, sc.hold = 5*time.Second, 25*time.Second
	})

	// Several processes on the one core, as many listeners as the other core can play.
	hold := func(sc *scenario) { sc.turns, sc.arrive, sc.hold = 1, 40*time.Second, 16*time.Second }
	add("Earshot", "hold-push", holdListeners, visitTo(func(b *bench, _ programme) (*site, error) { return b.startFleet(holdProcesses) }, visit{rung: "push", cadence: 2000}, nil), hold)
	add("Icecast", "hold-icecast", holdListeners, visitTo(icecast(100, holdProcesses), visit{rung: "ogg"}, nil), hold)
	return all
}

const (
	holdProcesses = 4
	holdListeners = 4 * 17_000
)

// chosen is the part of the plan that was asked for.
func (s *scale) chosen() ([]scenario, error) {
	var out []scenario
	for _, sc := range plan() {
		if !s.wants(sc.name, sc.server) {
			continue
		}
		if s.listeners > 0 {
			sc.n = s.listeners
		}
		if s.hold > 0 {
			sc.hold = s.hold
		}
		out = append(out, sc)
	}
	return out, nil
}

// wants says whether one of the words asked for begins a name.
func (s *scale) wants(names ...string) bool {
	if len(s.only) == 0 {
		return true
	}
	for _, o := range s.only {
		for _, n := range names {
			if strings.HasPrefix(strings.ToLower(n), strings.ToLower(o)) {
				return true
			}
		}
	}
	return false
}
