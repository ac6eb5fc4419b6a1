//go:build linux

package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

type pageCmd struct {
	Figures string `arg:"" help:"What a run wrote." placeholder:"FIGURES.json"`
	Dir     string `default:"bench" help:"Where RESULTS.md, the pictures and a copy of the figures are kept (${default})."`
	Section string `help:"Write the section to this file instead of to RESULTS.md." placeholder:"FILE"`
}

// page is a section that is being written.
type page struct {
	*figures
	strings.Builder
}

func (p *page) line(format string, a ...any) { fmt.Fprintf(p, format+"\n", a...) }

// Run appends the section, draws the pictures and keeps the figures.
func (c *pageCmd) Run() error {
	f, err := load(c.Figures)
	if err != nil {
		return err
	}
	p := &page{figures: f}
	p.head()
	p.costs()
	p.pairs()
	p.joins()
	p.limits()
	p.line("### Several processes\n")
	p.holds()
	p.better()
	p.million()
	p.how()
	for name, picture := range map[string]string{"peers-cost.svg": f.costPicture(), "peers-memory.svg": f.memoryPicture(), "peers-joins.svg": f.joinsPicture()} {
		if err := os.WriteFile(filepath.Join(c.Dir, name), []byte(picture), 0o644); err != nil {
			return fmt.Errorf("write picture: %w", err)
		}
	}
	if err := f.save(filepath.Join(c.Dir, "peers.json")); err != nil {
		return err
	}
	if c.Section != "" {
		err = os.WriteFile(c.Section, []byte(p.String()), 0o644)
	} else {
		err = appendTo(filepath.Join(c.Dir, "RESULTS.md"), p.String())
	}
	if err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}

func appendTo(path, text string) error {
	out, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	if _, err := out.WriteString(text); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}

func (p *page) head() {
	p.line("\n## %s, beside peers and limits (`make bench-peers`), revision %s\n", p.Date, p.Revision)
	p.line("%s. Everything over loopback. What is measured is pinned to one core, all else (listeners, sources, other ends) to the other. "+
		"%d rounds, in turns. Programme: %.1f kbit/s Opus, mono, 20 ms packets.\n", p.Machine, p.Rounds, p.Bitrate/1e3)
	p.line("CPU is user and system time of the server's processes while all listeners are there, less what it uses without any, per listener and second: " +
		"the price of one more. Medians, with the range in brackets.\n")
	p.line("![cost per listener-second](peers-cost.svg)\n")
}

// span is a median with its range.
func span(v []float64, digits int) string {
	if len(v) == 0 {
		return "—"
	}
	m := fmt.Sprintf("%.*f", digits, median(v))
	if len(v) == 1 {
		return m
	}
	return fmt.Sprintf("%s (%.*f to %.*f)", m, digits, slices.Min(v), digits, slices.Max(v))
}

func us(s *sample) float64     { return s.US }
func joinUS(s *sample) float64 { return s.JoinUS }
func rss(s *sample) float64    { return s.RSSKB }

// whole is the samples in which everybody joined, so that figures per listener mean something.
func (f *figures) whole(name string, value func(*sample) float64) []float64 {
	var v []float64
	for i := range f.Samples {
		if s := &f.Samples[i]; s.Case == name && s.Joined >= s.Listeners {
			v = append(v, value(s))
		}
	}
	return v
}

// ratio is the median of the rounds' ratios to a loop in the same round.
func (f *figures) ratio(name, limit string, value func(*sample) float64) []float64 {
	var v []float64
	for i := range f.Samples {
		a := &f.Samples[i]
		if a.Case != name || a.Joined < a.Listeners {
			continue
		}
		for j := range f.Samples {
			if b := &f.Samples[j]; b.Case == limit && b.Round == a.Round && value(b) > 0 {
				v = append(v, value(a)/value(b))
			}
		}
	}
	return v
}

func (p *page) costs() {
	for _, group := range listening {
		p.line("### %s\n", group.title)
		p.line("| | listeners | CPU µs per listener-second | fill a core | × the loop | RSS KB per listener | arrival after the newest frame, p50 / p99 ms | first sound p99 ms | gaps, lost frames |")
		p.line("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
		for _, r := range group.rows {
			p.cost(r)
		}
		p.line("")
	}
	p.line("Measured earlier on another machine of two cores, pinned alike, and not to be had here:\n")
	for _, e := range elsewhere {
		p.line("- %s: %.0f µs per listener-second; %s", e.title, e.us, e.note)
	}
	p.line("\n![memory](peers-memory.svg)\n")
}

func (p *page) cost(r row) {
	v := p.whole(r.name, us)
	if len(v) == 0 {
		if why := p.Missing[r.name]; why != "" {
			p.line("| %s | | not measured: %s | | | | | | |", r.title, oneLine(why))
		} else if n := len(p.of(r.name, us)); n > 0 {
			p.line("| %s | | not everybody joined | | | | | | |", r.title)
		}
		return
	}
	x := ""
	if r.limit != "" {
		x = span(p.ratio(r.name, r.limit, us), 2)
	}
	if r.who == "limit" {
		p.line("| *%s* | %.0f | %s | %.0f | 1 | | | | |", r.title, median(p.of(r.name, count)), span(v, 1), 1e6/median(v))
		return
	}
	late := "—"
	if m := median(p.of(r.name, func(s *sample) float64 { return s.LateMS.P50 })); m != 0 {
		late = fmt.Sprintf("%.0f / %.0f", m, median(p.of(r.name, func(s *sample) float64 { return s.LateMS.P99 })))
	}
	p.line("| %s | %.0f | %s | %.0f | %s | %s | %s | %.0f | %.0f, %.0f |", r.title, median(p.of(r.name, count)), span(v, 1), 1e6/max(median(v), .01), x,
		span(p.whole(r.name, rss), 2), late, median(p.of(r.name, func(s *sample) float64 { return s.FirstMS.P99 })),
		median(p.of(r.name, func(s *sample) float64 { return float64(s.Gaps) })), median(p.of(r.name, func(s *sample) float64 { return float64(s.Lost) })))
}

func count(s *sample) float64 { return float64(s.Listeners) }

func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return s[:min(len(s), 160)]
}

func (p *page) pairs() {
	if len(p.Pairs) == 0 {
		return
	}
	p.line("### Push and the bare write loop on the same sockets\n")
	p.line("In one process: the engine serves its listeners for a turn, then it rests and a loop writes as many bytes to the same sockets at the same cadence. The loop writes to all " +
		"at the start of each interval, which is the cheapest; and again spread over the interval in slots of 10 ms, as the engine does and a network wants.\n")
	p.line("| | pairs | engine µs | loop µs | ratio | loop in slots µs | ratio |\n| --- | --- | --- | --- | --- | --- | --- |")
	titles := map[string]string{
		"pair-1000": "plain, one write a second", "pair-tls-1000": "TLS 1.3 (the loop writes plain), one write a second", "pair-200": "plain, five writes a second",
	}
	for _, name := range slices.Sorted(maps.Keys(titles)) {
		var engine, loop, spread, a, b []float64
		for _, q := range p.Pairs {
			if q.Case == name {
				engine, loop, spread = append(engine, q.Engine), append(loop, q.Loop), append(spread, q.Spread)
				a, b = append(a, q.Engine/q.Loop), append(b, q.Engine/q.Spread)
			}
		}
		if len(a) > 0 {
			p.line("| %s | %d | %s | %s | **%s** | %s | **%s** |", titles[name], len(a), span(engine, 1), span(loop, 1), span(a, 2), span(spread, 1), span(b, 2))
		}
	}
	p.line("")
}

func (p *page) joins() {
	p.line("### Joining\n")
	p.line("| | offered | joined, in the worst round | CPU µs per joiner | × the loop | server's yes p50 / p99 ms | first sound p50 / p99 ms | failures |\n| --- | --- | --- | --- | --- | --- | --- | --- |")
	for _, r := range joining {
		var joined, asked float64 = -1, 0
		failed := map[string]int64{}
		for i := range p.Samples {
			if s := &p.Samples[i]; s.Case == r.name {
				if joined < 0 || float64(s.Joined) < joined {
					joined = float64(s.Joined)
				}
				asked = float64(s.Listeners)
				for k, n := range s.Failed {
					failed[k] += n
				}
			}
		}
		if asked == 0 {
			if why := p.Missing[r.name]; why != "" {
				p.line("| %s | | not measured: %s | | | | | |", r.title, oneLine(why))
			}
			continue
		}
		x := ""
		if r.limit != "" {
			x = span(p.ratio(r.name, r.limit, joinUS), 2)
		}
		title, offered := r.title, fmt.Sprintf("%.0f/s", median(p.of(r.name, func(s *sample) float64 { return s.JoinsPS })))
		if r.who == "limit" {
			title, x = "*"+title+"*", "1"
			offered += " done"
		}
		if r.who == "limit" {
			p.line("| %s | %s | %.0f of %.0f | %s | %s | — | — | %s |", title, offered, joined, asked, span(p.of(r.name, joinUS), 0), x, reasons(failed))
			continue
		}
		at := func(f func(*sample) float64) float64 { return median(p.of(r.name, f)) }
		p.line("| %s | %s | %.0f of %.0f | %s | %s | %.0f / %.0f | %.0f / %.0f | %s |", title, offered, joined, asked, span(p.of(r.name, joinUS), 0), x,
			at(func(s *sample) float64 { return s.JoinMS.P50 }), at(func(s *sample) float64 { return s.JoinMS.P99 }),
			at(func(s *sample) float64 { return s.FirstMS.P50 }), at(func(s *sample) float64 { return s.FirstMS.P99 }), reasons(failed))
	}
	p.line("\n![joins](peers-joins.svg)\n")
}

func reasons[N int | int64](m map[string]N) string {
	if len(m) == 0 {
		return "none"
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, fmt.Sprintf("%d × %s", m[k], strings.ReplaceAll(k, "_", " ")))
	}
	return strings.Join(out, "; ")
}

func (p *page) limits() {
	if len(p.Limits) > 0 {
		p.line("### One too many\n")
		p.line("%d connections, 500 a second, to a server that may have 1000. What did the ones too many get, and when?\n", limitAsked)
		p.line("| server | limit | served | the others | told within, p50 / max ms | served ones cut off |\n| --- | --- | --- | --- | --- | --- |")
		for _, l := range p.Limits {
			p.line("| %s | %s | %d | %s | %.0f / %.0f | %d |", l.Server, l.Limit, l.Served, reasons(l.Outcomes), l.AnswerMS.P50, l.AnswerMS.Max, l.Cut)
		}
		p.line("")
	}
	for i := range p.Samples {
		if s := &p.Samples[i]; s.Case == "past-push" {
			p.line("Past the comfortable load: %d listeners of push who all wish for 200 ms on one core: %d joined, %d gaps, %s cut off, failures: %s; the core was %.0f %% busy, "+
				"what arrives is %.0f ms (p50) and %.0f ms (p99) after its newest frame.\n", s.Listeners, s.Joined, s.Gaps, reasons(s.Cut), reasons(s.Failed), 100*s.Busy, s.LateMS.P50, s.LateMS.P99)
		}
		if s := &p.Samples[i]; s.Case == "webrtc-busy" {
			p.line("WebRTC near its limit: %d listeners who all wish for packets of 20 ms on one core: %d joined; the core was %.0f %% busy, %d frames were lost in all, "+
				"packets come %.1f ms (p50) and %.1f ms (p99) after their newest frame, of which up to 20 are the pacing's; later than the listener's "+
				"own earliest (packet delay variation): %.1f and %.1f ms.\n", s.Listeners, s.Joined, 100*s.Busy, s.Lost, s.LateMS.P50, s.LateMS.P99, s.PdvMS.P50, s.PdvMS.P99)
		}
	}
}

// holds says how many were held in one run of several processes.
func (p *page) holds() {
	for _, name := range []string{"hold-push", "hold-icecast"} {
		what := map[string]string{"hold-push": "Earshot, push at 2 s, from edges fed over NATS", "hold-icecast": "Icecast, pages of 2 s, from relays"}[name]
		if why := p.Missing[name]; why != "" {
			p.line("- %s: not measured: %s", what, oneLine(why))
		}
		for i := range p.Samples {
			s := &p.Samples[i]
			if s.Case != name {
				continue
			}
			p.line("- %s: %d processes on one core, %d of %d listeners there at once (%.0f a second came), %d gaps, %s cut off, failures: %s; the core was %.0f %% busy, %.1f µs per listener-second, "+
				"%.2f KB RSS and %.1f KB of the kernel's per listener; p99 to the first sound %.0f ms.", what, holdProcesses, s.Joined, s.Listeners, s.JoinsPS, s.Gaps, reasons(s.Cut), reasons(s.Failed),
				100*s.Busy, s.US, s.RSSKB, s.KernelKB, s.FirstMS.P99)
		}
	}
	p.line("")
}

func (p *page) how() {
	p.line("### How\n")
	versions := []string{}
	for _, k := range slices.Sorted(maps.Keys(p.Versions)) {
		if v := p.Versions[k]; v != "" {
			versions = append(versions, k+": "+v)
		}
	}
	p.line("- Versions: %s.", strings.Join(versions, "; "))
	p.line("- Icecast: Debian's, its configuration as shipped but for `clients` 100,000 and a burst of 12 KB (3 s, as Earshot gives). A source sends Ogg pages of 50 or 10 packets; Icecast writes a page at a time.")
	p.line("- nginx: Debian's, one worker, sendfile, open files cached, no log, connections kept; ffmpeg's muxer writes fMP4 segments of 2 s from the same packets into its folder.")
	p.line("- Janus: Debian's, the streaming plugin with one RTP mountpoint, `event_loops = 1`, ICE-lite, in a network namespace of its own. LiveKit: one room, one speaker, defaults but for one UDP port. " +
		"Their listeners are Pion connections, 300, 25 a second.")
	p.line("- Earshot: `serve --demo`: it mixes and encodes the two voices itself, which is what it uses without listeners. TLS is its own, with an ECDSA key.")
	p.line("- The loops are `bench/bare`: one thread; the TCP loop in slots of 10 ms; the UDP loop in slots of 2 ms, `sendmmsg` of up to 64, AES-128-GCM. The other ends of the TCP loop look on a beat of 5 ms.")
	p.line("- Memory is the process's RSS. What the kernel has per connection (about %.1f KB in the push rows, idle buffers included) comes on top, for every server alike.", p.kernelKB())
	p.line("- What could not be had:")
	for _, a := range absent {
		p.line("  - %s: %s.", a.name, a.why)
	}
	limited := map[string]bool{}
	for i := range p.Samples {
		for _, why := range p.Samples[i].Limited {
			limited[p.Samples[i].Case+": "+why] = true
		}
	}
	if len(limited) > 0 {
		p.line("- Rows in which the crowd said that it was itself the limit in some round:")
		for _, l := range slices.Sorted(maps.Keys(limited)) {
			p.line("  - %s", l)
		}
	}
}

// kernelKB is the kernel's memory per connection in the rows of push.
func (f *figures) kernelKB() float64 {
	var v []float64
	for _, name := range []string{"push-1000", "push-2000", "push-200"} {
		v = append(v, f.whole(name, func(s *sample) float64 { return s.KernelKB })...)
	}
	return max(0, median(v))
}
