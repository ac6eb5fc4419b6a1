package crowd

import (
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"

	"earshot/internal/crowd/tally"
)

// WriteHTML writes the report as one page that needs nothing else: words, tables, and plots as SVG.
func (r *Report) WriteHTML(w io.Writer) error {
	return page.Execute(w, map[string]any{"R": r, "Plots": r.plots(), "Failed": sorted(r.Failed), "Lost": sorted(r.Lost), "Spreads": r.spreads()})
}

func (r *Report) spreads() []namedSpread {
	return []namedSpread{
		{"first audio", "from dialling to the first audio there", r.FirstAudio},
		{"plays", "from dialling to the modelled player's sounding", r.Plays},
		{"yes", "from dialling to the server's answer", r.Join},
		{"delay", "arrival minus the instant of the oldest frame that came with it", r.Delay},
		{"lateness", "arrival minus the instant of the newest frame", r.Late},
		{"variation", "that minus the listener's own least so far: what a player's buffer has to bridge", r.Pdv},
		{"heard after", "what is heard minus its instant", r.Ear},
		{"the crowd's turn", "what came meanwhile was read so much later at most", r.Own.Turn},
	}
}

// namedSpread is a row of the page's table.
type namedSpread struct {
	Name, What string
	tally.Spread
}

// curve is a line of a plot: a value per row; NaN where there is none.
type curve struct {
	name string
	at   func(*Row) float64
}

// plots draws what is worth looking at over time.
func (r *Report) plots() []template.HTML {
	quantile := func(get func(*Row) int64) func(*Row) float64 {
		return func(row *Row) float64 {
			if v := get(row); v >= 0 {
				return float64(v) / 1000
			}
			return math.NaN()
		}
	}
	late := func(q float64) func(*Row) float64 {
		return quantile(func(row *Row) int64 {
			if row.Tally.Late.Count() == 0 {
				return -1
			}
			return row.Tally.Late.Quantile(q)
		})
	}
	sound := func(q float64) func(*Row) float64 {
		return quantile(func(row *Row) int64 {
			if row.Tally.Sound.Count() == 0 {
				return -1
			}
			return row.Tally.Sound.Quantile(q)
		})
	}
	each := func(get func(*Row) int64) func(*Row) float64 {
		return func(row *Row) float64 { return float64(get(row)) / max(row.Seconds, .001) }
	}
	all := []struct {
		title  string
		curves []curve
	}{
		{"Listeners who hear", []curve{{"hear", func(row *Row) float64 { return float64(row.Hearing) }}}},
		{"Arrivals, joins and failures, per second", []curve{
			{"due", each(func(r *Row) int64 { return r.Tally.Due })},
			{"joined", each(func(r *Row) int64 { return r.Tally.Joined + r.Tally.Rejoined })},
			{"failed", each(func(r *Row) int64 { return sum(r.Tally.Failed) })},
			{"cut off", each(func(r *Row) int64 { return sum(r.Tally.Lost) })},
		}},
		{"First audio, ms after dialling", []curve{{"p50", sound(.5)}, {"p95", sound(.95)}, {"max", sound(1)}}},
		{"Lateness, ms", []curve{{"p50", late(.5)}, {"p95", late(.95)}, {"p99", late(.99)}}},
		{"Gaps and lost frames, per second", []curve{
			{"gaps", each(func(r *Row) int64 { return r.Tally.Gaps })}, {"frames", each(func(r *Row) int64 { return r.Tally.LostFrames })},
		}},
		{"Mbit/s", []curve{{"received", func(row *Row) float64 { return float64(row.Tally.Bytes) * 8e-6 / max(row.Seconds, .001) }}}},
		{"The crowd itself, % of a processor", []curve{
			{"CPU", func(row *Row) float64 { return float64(row.CPUUS) / 1e4 / max(row.Seconds, .001) }},
			{"busiest loop", func(row *Row) float64 { return float64(row.BusyUS) / 1e4 / max(row.Seconds, .001) }},
		}},
	}
	var out []template.HTML
	for _, p := range all {
		out = append(out, template.HTML(draw(p.title, r.Rows, p.curves))) //nolint:gosec // all text in it is escaped or ours
	}
	return out
}

// draw makes one plot.
func draw(title string, rows []Row, curves []curve) string {
	const width, height, left, bottom, top = 640.0, 180.0, 56.0, 22.0, 26.0
	end, most := 1.0, 0.0
	for i := range rows {
		end = max(end, rows[i].At)
		for _, c := range curves {
			if v := c.at(&rows[i]); !math.IsNaN(v) {
				most = max(most, v)
			}
		}
	}
	step := tick(most)
	most = max(step, math.Ceil(most/step)*step)
	x := func(at float64) float64 { return left + at/end*(width-left-8) }
	y := func(v float64) float64 { return height - bottom - v/most*(height-bottom-top) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %g %g" role="img" aria-label="%s"><text class="title" x="0" y="14">%[3]s</text>`,
		width, height, template.HTMLEscapeString(title))
	for v := 0.0; v <= most+step/2; v += step {
		fmt.Fprintf(&b, `<line class="grid" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/><text class="y" x="%g" y="%.1f">%s</text>`,
			left, width-8, y(v), y(v), left-6, y(v)+4, number(v))
	}
	for s, by := 0.0, tick(end); s <= end; s += by {
		fmt.Fprintf(&b, `<text class="x" x="%.1f" y="%g">%s s</text>`, x(s), height-6, number(s))
	}
	for i, c := range curves {
		var points []string
		line := func() {
			if len(points) == 1 {
				points = append(points, points[0])
			}
			if len(points) > 0 {
				fmt.Fprintf(&b, `<polyline class="c%d" points="%s"/>`, i, strings.Join(points, " "))
			}
			points = nil
		}
		for k := range rows {
			if v := c.at(&rows[k]); math.IsNaN(v) {
				line()
			} else {
				points = append(points, fmt.Sprintf("%.1f,%.1f", x(rows[k].At), y(v)))
			}
		}
		line()
		if len(curves) > 1 {
			fmt.Fprintf(&b, `<text class="legend c%d" x="%g" y="14">%s</text>`, i, width-8-float64(len(curves)-1-i)*70, template.HTMLEscapeString(c.name))
		}
	}
	b.WriteString("</svg>")
	return b.String()
}

// tick is a round distance that makes four steps or a few more.
func tick(most float64) float64 {
	if most <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(most/4)))
	for _, m := range []float64{1, 2, 5} {
		if m*power*6 >= most {
			return m * power
		}
	}
	return 10 * power
}

func number(v float64) string {
	if v >= 10000 {
		return fmt.Sprintf("%gk", math.Round(v/100)/10)
	}
	return fmt.Sprintf("%g", math.Round(v*1000)/1000)
}

var page = template.Must(template.New("crowd").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Crowd at {{.R.URL}}</title>
<style>
:root { color-scheme: light dark; --ink: #1b1b1f; --paper: #fff; --soft: #8884; --c0: #0b6bcb; --c1: #c2410c; --c2: #b91c1c; --c3: #6d28d9 }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8ea; --paper: #17171a; --c0: #6cb2ff; --c1: #fb923c; --c2: #f87171; --c3: #c4a1ff } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1360px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.3rem } .bad { color: var(--c2); font-weight: 600 }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .2rem .8rem .2rem 0; text-align: left; border-bottom: 1px solid var(--soft) }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 520px), 1fr)); gap: 1.5rem }
svg { width: 100%; height: auto } svg text { fill: var(--ink); font-size: 11px } svg .title { font-size: 13px; font-weight: 600 }
svg .grid { stroke: var(--soft) } svg .y, svg .legend { text-anchor: end } svg .x { text-anchor: middle }
polyline { fill: none; stroke-width: 1.5 } polyline.c0 { stroke: var(--c0) } polyline.c1 { stroke: var(--c1) } polyline.c2 { stroke: var(--c2) } polyline.c3 { stroke: var(--c3) }
svg .legend.c0 { fill: var(--c0) } svg .legend.c1 { fill: var(--c1) } svg .legend.c2 { fill: var(--c2) } svg .legend.c3 { fill: var(--c3) }
</style></head><body>
<h1>{{.R.Listeners}} listeners by {{.R.Rung}} at {{.R.URL}}</h1>
<p>{{.R.Began.UTC.Format "2006-01-02 15:04:05"}} UTC, {{printf "%.0f" .R.Seconds}} s, {{.R.Processes}} process(es), seed {{.R.Seed}}.
{{if .R.OK}}All joined, none had a gap.{{else}}<span class="bad">{{.R.Joined}} joined, {{.R.Gaps}} gaps at {{.R.GapListeners}} listeners.</span>{{end}}</p>
{{range .R.BottleneckWhy}}<p class="bad">The crowd was itself the limit: {{.}}.</p>{{end}}
{{range .R.Notes}}<p>{{.}}</p>{{end}}
<table><tr><th>what, in ms</th><th class="n">p50</th><th class="n">p95</th><th class="n">p99</th><th class="n">max</th><th>of</th></tr>
{{range .Spreads}}{{if .Count}}<tr><td>{{.Name}}</td><td class="n">{{printf "%.1f" .P50}}</td><td class="n">{{printf "%.1f" .P95}}</td>
<td class="n">{{printf "%.1f" .P99}}</td><td class="n">{{printf "%.1f" .Max}}</td><td>{{.Count}}: {{.What}}</td></tr>{{end}}{{end}}</table>
<table>
<tr><td>joined</td><td class="n">{{.R.Joined}}</td></tr>
{{range .Failed}}<tr><td>failed: {{.}}</td><td class="n">{{index $.R.Failed .}}</td></tr>{{end}}
{{range .Lost}}<tr><td>cut off: {{.}}</td><td class="n">{{index $.R.Lost .}}</td></tr>{{end}}
<tr><td>left, came back</td><td class="n">{{.R.Left}}, {{.R.Rejoined}}</td></tr>
<tr><td>gaps</td><td class="n">{{.R.Gaps}}</td></tr>
<tr><td>lost frames</td><td class="n">{{.R.LostFrames}}</td></tr>
<tr><td>repaired frames</td><td class="n">{{.R.Repaired}}</td></tr>
<tr><td>skips, repeats, malformed</td><td class="n">{{.R.Skips}}, {{.R.Repeats}}, {{.R.Malformed}}</td></tr>
<tr><td>audio compared, differing</td><td class="n">{{.R.Audio.Seconds}} s, {{.R.Audio.Differ}} s</td></tr>
{{range .R.Foreign}}<tr><td>{{.Program}}</td><td>{{.String}}</td></tr>{{end}}
<tr><td>bytes</td><td class="n">{{.R.Bytes}}</td></tr>
<tr><td>the crowd's CPU per listener-second</td><td class="n">{{printf "%.1f" .R.Own.CPUPerListenerSecond}} µs</td></tr>
<tr><td>the crowd's memory per listener</td><td class="n">{{printf "%.1f" .R.Own.RSSPerListenerKB}} KB</td></tr>
</table>
<div class="plots">{{range .Plots}}{{.}}{{end}}</div>
</body></html>
`))
