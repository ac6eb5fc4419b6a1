//go:build linux

package main

import (
	"fmt"
	"math"
)

// better says, row against row, where Earshot costs more than a peer: a page that only praises is not believed.
func (p *page) better() {
	p.line("### Who is better where\n")
	for _, c := range []struct{ ours, theirs, what string }{
		{"push-1000", "icecast-1000", "one write a second, Earshot's push against Icecast"},
		{"ogg-1000", "icecast-1000", "Ogg at one write a second, Earshot against Icecast"},
		{"push-200", "icecast-200", "five writes a second, Earshot's push against Icecast"},
		{"hls", "nginx-hls", "HLS, Earshot's with parts of 400 ms against nginx's segments of 2 s"},
		{"webrtc-20", "janus-20", "WebRTC at 20 ms, Earshot against Janus"},
		{"webrtc-20", "livekit-20", "WebRTC at 20 ms, Earshot against LiveKit"},
	} {
		p.versus(c.what, "CPU per listener-second", "µs", p.whole(c.ours, us), p.whole(c.theirs, us))
		p.versus(c.what, "memory per listener", "KB", p.whole(c.ours, rss), p.whole(c.theirs, rss))
	}
	for _, c := range []struct{ ours, theirs, what string }{
		{"join-push", "join-icecast-1000", "a join, Earshot's push against Icecast"},
		{"join-push", "join-nginx-3000", "a join, Earshot's push against nginx"},
	} {
		p.versus(c.what, "CPU", "µs", p.of(c.ours, joinUS), p.of(c.theirs, joinUS))
	}
	p.line("")
}

// fleeting is how many KB per listener are less than what the process had lying about before anybody came.
const fleeting = .3

func (p *page) versus(what, of, unit string, ours, theirs []float64) {
	if len(ours) == 0 || len(theirs) == 0 {
		return
	}
	a, b := median(ours), median(theirs)
	verdict := "about equal"
	switch {
	case a <= 0 || b <= 0, unit == "KB" && min(a, b) < fleeting:
		verdict = "Earshot's is less than what a collection gives back"
		if b < a {
			verdict = "too small to compare"
		}
	case a < b*.95:
		verdict = fmt.Sprintf("Earshot by %.1f ×", b/a)
	case b < a*.95:
		verdict = fmt.Sprintf("**the peer by %.1f ×**", a/b)
	}
	p.line("- %s, %s: %.1f against %.1f %s: %s", what, of, a, b, unit, verdict)
}

// crowdOfTheDay is how many there were at the peak of the event that this project is about.
const crowdOfTheDay = 1_300_000

// million computes what that many need, from this run's figures.
func (p *page) million() {
	p.line("### What 1.3 million listeners need\n")
	p.line("Cores = listeners × CPU µs per listener-second ÷ 1,000,000 ÷ 0.8 (a core is filled to 80 %%). Memory = listeners × (RSS + %.1f KB that the kernel has per socket). "+
		"Network = listeners × (bytes of the stream + headers of Ethernet, IP and TCP or UDP for each write). From this machine's cores; the kernel's way through a real network card costs "+
		"other than loopback's, where the sender also pays for the receiver's half.\n", p.kernelKB())
	p.line("| how all of them listen | CPU | memory | network |\n| --- | --- | --- | --- |")
	for _, r := range []struct {
		name, title string
		writes      float64 // a second
		header      float64 // bytes on the wire for each
	}{
		{"push-2000", "push, 2 s", .5, 3 * 66}, // 8 KB are six full segments, of which offloading hides none from the wire
		{"push-1000", "push, 1 s", 1, 3 * 66},
		{"push-tls-1000", "push over TLS, 1 s", 1, 3*66 + 22},
		{"push-200", "push, 200 ms", 5, 66},
		{"push-tls-200", "push over TLS, 200 ms", 5, 66 + 22},
		{"webrtc-120", "WebRTC, 120 ms", 1000. / 120, 70},
		{"webrtc-60", "WebRTC, 60 ms", 1000. / 60, 70},
		{"webrtc-20", "WebRTC, 20 ms", 50, 70},
		{"icecast-1000", "Icecast, 1 s", 1, 3 * 66},
		{"livekit-20", "LiveKit, 20 ms", 50, 70},
	} {
		v := p.whole(r.name, us)
		if len(v) == 0 {
			continue
		}
		cpu := crowdOfTheDay * median(v) / 1e6
		kb := median(p.whole(r.name, rss)) + p.kernelKB()
		if r.writes > 5 {
			kb = median(p.whole(r.name, rss)) // WebRTC has one socket for all
		}
		stream := p.Bitrate / 8
		if b := median(p.whole(r.name, func(s *sample) float64 { return s.BytesPS })); b > 0 && r.writes <= 5 {
			stream = b
		}
		bits := crowdOfTheDay * 8 * (stream + r.writes*r.header)
		p.line("| %s | 1.3 M × %.1f µs = %.1f cores' time, %.0f cores | 1.3 M × %.1f KB = %.1f GB | 1.3 M × (%.0f + %.1f × %.0f) B/s = %.0f Gbit/s |", r.title,
			median(v), cpu, math.Ceil(cpu/.8), kb, crowdOfTheDay*kb/1e6, stream, r.writes, r.header, bits/1e9)
	}
	if v := p.of("join-push-tls", joinUS); len(v) > 0 {
		cpu := crowdOfTheDay * median(v) / 1e6
		p.line("\nIf all of them come over TLS within five minutes: 1.3 M × %.0f µs = %.0f core-seconds, %.0f cores for those five minutes; within one minute %.0f.", median(v), cpu, math.Ceil(cpu/300/.8), math.Ceil(cpu/60/.8))
	}
	p.line("")
}
