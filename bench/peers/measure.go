//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// visit is a crowd and how it comes.
type visit struct {
	rung      string
	cadence   int
	packet    int
	listeners int
	arrive    time.Duration
	hold      time.Duration
	flags     []string
}

// report is what is read of the crowd's JSON.
type report struct {
	Joined     int              `json:"joined"`
	Failed     map[string]int64 `json:"failed"`
	Lost       map[string]int64 `json:"lost"`
	Gaps       int64            `json:"gaps"`
	LostFrames int64            `json:"lost_frames"`
	Frames     int64            `json:"frames"`
	Join       spread           `json:"join_ms"`
	First      spread           `json:"first_audio_ms"`
	Delay      spread           `json:"delay_ms"`
	Late       spread           `json:"late_ms"`
	Pdv        spread           `json:"pdv_ms"`
	Ear        spread           `json:"ear_ms"`
	Bytes      float64          `json:"bytes"`
	Seconds    float64          `json:"listener_seconds"`
	Own        struct {
		PerListenerSecond float64 `json:"cpu_us_per_listener_second"`
	} `json:"crowd"`
	Why   []string `json:"bottleneck_why"`
	Notes []string `json:"notes"`
}

// crowd starts `earshot crowd`.
func (b *bench) crowd(s *site, v *visit, which int) (c *child, reportFile string, err error) {
	reportFile = filepath.Join(b.out, fmt.Sprintf("crowd%d.json", which))
	args := []string{
		b.listener, "crowd", "--url", s.urls()[which], "--rung", v.rung, "--listeners", strconv.Itoa(v.listeners), "--arrive", v.arrive.String(),
		"--hold", v.hold.String(), "--sample=-1", "--json", reportFile,
	}
	if v.cadence > 0 {
		args = append(args, "--cadence", strconv.Itoa(v.cadence))
	}
	if v.packet > 0 {
		args = append(args, "--packet", strconv.Itoa(v.packet))
	}
	args = append(append(args, s.flags...), v.flags...)
	c, err = b.start(task{name: fmt.Sprintf("crowd%d", which), core: crowdCore, args: args})
	return c, reportFile, err
}

// visitors start the listeners of a site's address with that number; they write a report when all is over.
type visitors func(s *site, v *visit, which int) (c *child, reportFile string, err error)

// group is all who listen to a site: a process for each of its addresses, with an even share of the listeners.
type group struct {
	children []*child
	files    []string
}

func (g *group) come(s *site, v *visit, with visitors) error {
	share := *v
	share.listeners = v.listeners / len(s.urls())
	for i := range s.urls() {
		c, file, err := with(s, &share, i)
		if err != nil {
			return err
		}
		g.children, g.files = append(g.children, c), append(g.files, file)
	}
	return nil
}

func (g *group) stop() {
	for _, c := range g.children {
		c.stop()
	}
}

// report waits for all, and adds up what they found: counts are summed, of percentiles the worst counts.
func (g *group) report(b *bench, limit time.Duration) (*report, error) {
	sum := &report{Failed: map[string]int64{}, Lost: map[string]int64{}}
	late := time.After(limit)
	for i, c := range g.children {
		select {
		case <-c.ended:
		case <-late:
			return nil, fmt.Errorf("the listeners did not end: %s", c.tail())
		case <-b.ctx.Done():
			return nil, fmt.Errorf("interrupted: %w", b.ctx.Err())
		}
		r, err := readReport(g.files[i])
		if err != nil {
			return nil, fmt.Errorf("%w (%s)", err, c.tail())
		}
		sum.add(r)
	}
	return sum, nil
}

func (r *report) add(o *report) {
	r.Joined += o.Joined
	for k, n := range o.Failed {
		r.Failed[k] += n
	}
	for k, n := range o.Lost {
		r.Lost[k] += n
	}
	r.Gaps, r.LostFrames, r.Frames = r.Gaps+o.Gaps, r.LostFrames+o.LostFrames, r.Frames+o.Frames
	r.Bytes, r.Seconds = r.Bytes+o.Bytes, r.Seconds+o.Seconds
	for _, s := range []struct{ to, from *spread }{{&r.Join, &o.Join}, {&r.First, &o.First}, {&r.Delay, &o.Delay}, {&r.Late, &o.Late}, {&r.Pdv, &o.Pdv}, {&r.Ear, &o.Ear}} {
		s.to.N += s.from.N
		s.to.P50, s.to.P95 = max(s.to.P50, s.from.P50), max(s.to.P95, s.from.P95)
		s.to.P99, s.to.Max = max(s.to.P99, s.from.P99), max(s.to.Max, s.from.Max)
	}
	r.Own.PerListenerSecond = max(r.Own.PerListenerSecond, o.Own.PerListenerSecond)
	r.Why, r.Notes = append(r.Why, o.Why...), append(r.Notes, o.Notes...)
}

const (
	restTime = 2 * time.Second         // the server alone
	settle   = 1500 * time.Millisecond // after the last arrival, before the cost of listening is measured
	leeway   = 500 * time.Millisecond  // before the first leaves
)

// observe sends listeners to a server at rest and measures it.
func (b *bench) observe(s *site, v *visit, come visitors) (*sample, error) {
	m := &sample{Listeners: v.listeners, JoinsPS: float64(v.listeners) / max(v.arrive.Seconds(), .001)}
	n := float64(v.listeners)
	restRSS, restPSS, err := memory(s.measured)
	if err != nil {
		return nil, err
	}
	rest, err := b.atRest(s)
	if err != nil {
		return nil, err
	}
	m.RestMS, m.RestRSS = 1e3*rest, float64(restRSS)/1024
	before, err := used(s.measured)
	if err != nil {
		return nil, err
	}
	slab := kernelSlab()
	begun := time.Now()
	var g group
	defer g.stop()
	if err := g.come(s, v, come); err != nil {
		return nil, err
	}
	if err := b.sleep(v.arrive + settle); err != nil {
		return nil, err
	}
	arrived, err := used(s.measured)
	if err != nil {
		return nil, err
	}
	joining := time.Since(begun)
	busy, err := b.usedIn(s, time.Until(begun.Add(v.arrive+v.hold-leeway)))
	if err != nil {
		return nil, err
	}
	rss, pss, err := memory(s.measured)
	if err != nil {
		return nil, err
	}
	m.KernelKB = (kernelSlab() - slab) / n / 2
	m.Busy, m.US = busy, 1e6*(busy-rest)/n
	m.RSSKB, m.PSSKB = float64(rss-restRSS)/n, float64(pss-restPSS)/n
	// They came evenly, so that until the end of the arrival each listened for half of it on average, and then for the rest.
	listened := n * (v.arrive.Seconds()/2 + joining.Seconds() - v.arrive.Seconds())
	m.JoinUS = (1e6*((arrived-before).Seconds()-rest*joining.Seconds()) - m.US*listened) / n
	r, err := g.report(b, v.hold+30*time.Second)
	if err != nil {
		return nil, err
	}
	m.Joined, m.Failed, m.Cut, m.Gaps, m.Lost, m.Frames = r.Joined, r.Failed, r.Lost, r.Gaps, r.LostFrames, r.Frames
	m.JoinMS, m.FirstMS, m.DelayMS, m.LateMS, m.PdvMS, m.EarMS = r.Join, r.First, r.Delay, r.Late, r.Pdv, r.Ear
	if r.Seconds > 0 {
		m.BytesPS = r.Bytes / r.Seconds
	}
	m.Limited, m.CrowdUS, m.Comments = r.Why, r.Own.PerListenerSecond, r.Notes
	if m.Joined < v.listeners {
		m.Comments = append(m.Comments, fmt.Sprintf("%d of %d joined, so the figures per listener are not to be used", m.Joined, v.listeners))
	}
	return m, nil
}

// atRest is the share of a core that the server uses without listeners.
func (b *bench) atRest(s *site) (float64, error) {
	if s.kind == "" {
		return b.usedIn(s, restTime)
	}
	if share, ok := b.rest[s.kind]; ok {
		return share, nil
	}
	share, err := b.usedIn(s, 2*demoRound)
	if err == nil {
		b.rest[s.kind] = share
	}
	return share, err
}

// usedIn is the share of a core that the server uses for a while.
func (b *bench) usedIn(s *site, d time.Duration) (share float64, err error) {
	before, err := used(s.measured)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	if err := b.sleep(d); err != nil {
		return 0, err
	}
	after, err := used(s.measured)
	return (after - before).Seconds() / time.Since(begun).Seconds(), err
}

func readReport(path string) (*report, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("the listeners' report: %w", err)
	}
	_ = os.Remove(path) // the next one must write its own
	r := &report{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, errors.Join(errors.New("the listeners' report is none"), err)
	}
	return r, nil
}

// kernelSlab is what the kernel holds in objects, sockets and their buffers among them, in KB.
func kernelSlab() (kb float64) {
	_, _ = fmt.Sscanf(proc("/proc/meminfo", "Slab"), "%f", &kb)
	return kb
}
