//go:build linux

package main

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// bar is one line of a picture.
type bar struct {
	title string
	who   string // limit, Earshot, peer
	v     []float64
	note  string
}

var colours = map[string]string{"limit": "#8a8f98", "Earshot": "#1f6feb", "peer": "#d9822b", "heading": ""}

// picture draws bars on a logarithmic scale: a dot at the median, a line over the range.
func picture(title, unit string, bars []bar) string {
	const left, right, top, line = 300, 110, 58, 24
	width := 900
	low, high := math.Inf(1), math.Inf(-1)
	for _, b := range bars {
		for _, x := range b.v {
			if x > 0 {
				low, high = min(low, x), max(high, x)
			}
		}
	}
	if math.IsInf(low, 1) {
		low, high = 1, 10
	}
	from, to := math.Floor(math.Log10(low)), math.Ceil(math.Log10(high))
	if from == to {
		to++
	}
	at := func(x float64) float64 {
		return left + (math.Log10(max(x, math.Pow(10, from)))-from)/(to-from)*float64(width-left-right)
	}
	height := top + line*len(bars) + 40
	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s" font-family="system-ui, sans-serif" font-size="13">`+"\n",
		width, height, width, height, html.EscapeString(title))
	fmt.Fprintf(&s, `<rect width="%d" height="%d" fill="#ffffff"/><text x="16" y="24" font-size="16" font-weight="600" fill="#1b1f24">%s</text>`+"\n", width, height, html.EscapeString(title))
	x := 16
	for _, who := range []string{"Earshot", "peer", "limit"} {
		fmt.Fprintf(&s, `<circle cx="%d" cy="41" r="5" fill="%s"/><text x="%d" y="45" fill="#57606a">%s</text>`+"\n", x+5, colours[who], x+15,
			map[string]string{"Earshot": "Earshot", "peer": "a peer", "limit": "the machine's limit"}[who])
		x += 90
	}
	for e := from; e <= to; e++ {
		gx := at(math.Pow(10, e))
		fmt.Fprintf(&s, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#e3e6ea"/><text x="%.1f" y="%d" text-anchor="middle" fill="#57606a">%s</text>`+"\n",
			gx, top, gx, height-34, gx, height-18, short(math.Pow(10, e)))
	}
	fmt.Fprintf(&s, `<text x="%d" y="%d" text-anchor="end" fill="#57606a">%s</text>`+"\n", width-16, height-18, html.EscapeString(unit))
	for i, b := range bars {
		y := top + line*i + line/2
		if b.who == "heading" {
			fmt.Fprintf(&s, `<text x="16" y="%d" font-weight="600" fill="#1b1f24">%s</text>`+"\n", y+5, html.EscapeString(b.title))
			continue
		}
		m := median(b.v)
		fmt.Fprintf(&s, `<text x="%d" y="%d" text-anchor="end" fill="#1b1f24">%s</text>`, left-12, y+4, html.EscapeString(b.title))
		fmt.Fprintf(&s, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="%s" stroke-width="3" stroke-linecap="round"/>`, at(slices.Min(b.v)), y, at(slices.Max(b.v)), y, colours[b.who])
		fmt.Fprintf(&s, `<circle cx="%.1f" cy="%d" r="5.5" fill="%s"/>`, at(m), y, colours[b.who])
		fmt.Fprintf(&s, `<text x="%.1f" y="%d" fill="#1b1f24">%s%s</text>`+"\n", at(slices.Max(b.v))+11, y+4, short(m), html.EscapeString(b.note))
	}
	s.WriteString("</svg>\n")
	return s.String()
}

// short is a number of about three digits.
func short(x float64) string {
	switch {
	case x >= 10_000:
		return fmt.Sprintf("%.0fk", x/1000)
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.4g", math.Round(x*10)/10)
	case x >= 1:
		return fmt.Sprintf("%.2g", x)
	}
	return fmt.Sprintf("%.1g", x)
}

func (f *figures) bars(rows []row, value func(*sample) float64, keep func(row) bool) (out []bar) {
	for _, r := range rows {
		if v := f.whole(r.name, value); keep(r) && len(v) > 0 && slices.Max(v) > 0 {
			for i := range v {
				v[i] = max(v[i], 1e-2) // a difference of noise may be below nothing
			}
			out = append(out, bar{title: r.title, who: r.who, v: v})
		}
	}
	return out
}

func (f *figures) costPicture() string {
	var all []bar
	for _, g := range listening {
		all = append(all, bar{title: g.title, who: "heading"})
		all = append(all, f.bars(g.rows, us, func(row) bool { return true })...)
		if g.title == "WebRTC" {
			for _, e := range elsewhere[:3] {
				all = append(all, bar{title: e.title, who: "peer", v: []float64{e.us}, note: " (elsewhere)"})
			}
		}
	}
	return picture("CPU per listener-second", "µs", all)
}

func (f *figures) memoryPicture() string {
	var all []bar
	for _, g := range listening {
		all = append(all, f.bars(g.rows, rss, func(r row) bool { return r.who != "limit" })...)
	}
	return picture("Memory of the process per listener", "KB", all)
}

func (f *figures) joinsPicture() string {
	var all []bar
	for _, r := range joining {
		if v := f.of(r.name, joinUS); len(v) > 0 && slices.Min(v) > 0 {
			title := r.title
			if r.who != "limit" {
				title = fmt.Sprintf("%s, %.0f/s offered", title, median(f.of(r.name, func(s *sample) float64 { return s.JoinsPS })))
			}
			all = append(all, bar{title: title, who: r.who, v: v})
		}
	}
	return picture("CPU of the server per joiner", "µs", all)
}
