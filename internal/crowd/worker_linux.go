package crowd

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/pion/stun/v4"
	"golang.org/x/sys/unix"

	"earshot/internal/crowd/tally"
)

// worker is the listeners of one process.
type worker struct {
	job    job
	cfg    *Config
	loop   *loop
	chance *rand.Rand
	crowd  []listener

	rtc     *rtc // what WebRTC listeners share
	lists   listCache
	byes    farewells
	audit   auditor
	seconds int
	base    int64 // KB of memory before there were listeners
	tls     *tls.Config
	path    string // of the target, with the wish
	request []byte // that all listeners send
	stun    stun.Message
	stunIn  stun.Message

	cueBytes int64 // of the event stream that all WebRTC listeners share
	origin   int64 // of the timeline, Unix ns
	timed    bool  // origin is known, so it can be said how late frames come
	spread   bool  // each listener has an address of its own

	tally   tally.Tally // since the last row
	hearing int
	dialing int
	next    int  // into job.Due
	ending  bool // nobody comes any more
	starved bool // of descriptors
	busy    time.Duration
	usage   unix.Rusage // as of the last row
	begun   int64       // of the current row
	rows    func(Row)
}

func newWorker(j job, rows func(Row)) (*worker, error) {
	w := &worker{job: j, rows: rows, chance: rand.New(rand.NewPCG(j.Config.Seed, uint64(j.First)))}
	w.cfg = &w.job.Config
	w.spread = j.Target.Addr.Addr().Is4() && j.Target.loopback()
	if w.timed = !j.Target.Origin.IsZero(); w.timed {
		w.origin = j.Target.Origin.UnixNano()
	}
	if j.Target.TLS {
		w.tls = j.Target.tlsConfig()
	}
	w.opening()
	var err error
	if w.loop, err = newLoop(); err != nil {
		return nil, err
	}
	if w.cfg.Rung == WebRTC {
		if w.rtc, err = newRTC(w); err != nil {
			w.loop.close()
			return nil, err
		}
	}
	w.loop.turn = func(d time.Duration) {
		w.busy += d
		w.tally.Loop.Add(d.Microseconds())
	}
	w.crowd = make([]listener, len(j.Due))
	for i := range w.crowd {
		l := &w.crowd[i]
		*l = listener{w: w, id: int32(j.First + i*j.Step)}
		l.slow = w.cfg.Slow > 0 && w.chance.Float64() < w.cfg.Slow
		l.client, l.habits = w.client(l)
	}
	w.listenIn()
	w.base = resident()
	return w, nil
}

// client makes what a listener of this rung listens with.
func (w *worker) client(l *listener) (client, *habits) {
	switch w.cfg.Rung {
	case WebRTC:
		return &rtcClient{l: l}, &rtpHabits
	case HLS:
		return newHLSClient(l), &hlsHabits
	case Ogg:
		return &streamClient{l: l, take: &oggUnits{}}, &fileHabits
	case MP4:
		return &streamClient{l: l, take: mp4Units{}}, &fileHabits
	case Cues:
		return &streamClient{l: l, take: cueUnits{}}, &cueHabits
	}
	return &pushClient{l: l}, &pushHabits
}

// opening settles where every listener begins, and with what request.
func (w *worker) opening() {
	w.path = w.job.Target.Path
	if w.job.Target.Earshot {
		w.path = "/e/" + w.job.Target.Slug + map[string]string{
			Push: "/live", WebRTC: "/whep", HLS: "/hls/index.m3u8", Ogg: "/live.ogg", MP4: "/live.mp4",
			Cues: "/cues",
		}[w.cfg.Rung] + w.wish()
	}
	var more []string
	if w.cfg.Rung == Push {
		more = []string{
			"Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + wsKey,
			"Sec-WebSocket-Protocol: earshot.1",
		}
	}
	w.request = w.get(w.path, more...)
}

// wish is the query that asks for a cadence or a packet length.
func (w *worker) wish() string {
	switch {
	case w.cfg.Rung == WebRTC && w.cfg.Packet != 0:
		return fmt.Sprintf("?packet=%d", w.cfg.Packet)
	case w.cfg.Rung != WebRTC && w.cfg.Rung != HLS && w.cfg.Cadence != 0:
		return fmt.Sprintf("?cadence=%d", w.cfg.Cadence)
	}
	return ""
}

// get writes a GET.
func (w *worker) get(path string, fields ...string) []byte {
	return w.ask(http.MethodGet, path, fields...)
}

// ask writes a request without a body.
func (w *worker) ask(method, path string, fields ...string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: earshot-crowd\r\n", method, path, w.job.Target.Host)
	for _, f := range fields {
		b.WriteString(f)
		b.WriteString("\r\n")
	}
	b.WriteString("\r\n")
	return []byte(b.String())
}

// connect dials for a listener.
func (w *worker) connect(l *listener, to reader) (*conn, error) {
	return w.loop.dial(to, l.source(), &w.job.Target, w.tls, l.slow, &w.tally.Bytes)
}

// A slow reader sips half of 32 kbit/s.
const (
	jobSip   = jobClient
	sipEvery = 250 * time.Millisecond
	sipBytes = 500
)

func (w *worker) slowDown(l *listener, c *conn) {
	if l.slow {
		c.pause()
		w.after(l, sipEvery, jobSip)
	}
}

func (w *worker) sip(l *listener, c *conn, job uint8) {
	if job != jobSip || c == nil {
		return
	}
	gen := l.gen
	if c.sip(sipBytes); l.gen == gen {
		w.after(l, sipEvery, jobSip)
	}
}

// run listens until the run is over, and gives what it saw in rows on the way.
func (w *worker) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { w.loop.hand(func() {}) })
	defer stop()
	_ = unix.Getrusage(unix.RUSAGE_SELF, &w.usage)
	end := int64(w.cfg.Arrive + w.cfg.Hold)
	err := w.loop.run(func() bool {
		now := w.loop.clock()
		w.admit(now)
		w.loop.nap = w.nap()
		if now-w.begun >= int64(time.Second) {
			w.row(now)
		}
		return now >= end || ctx.Err() != nil
	})
	w.ending = true
	w.loop.clock()
	for i := range w.crowd {
		l := &w.crowd[i]
		if l.state == hearing {
			l.settle()
		} else if l.state == dialing && !l.joined {
			l.fail("unfinished")
		}
		if l.state == hearing || l.state == dialing {
			l.goAway()
		}
		l.state = over
	}
	if w.rtc != nil {
		w.tally.KernelDrops += w.rtc.lost()
		w.rtc.close()
	}
	if err == nil {
		until := w.loop.clock() + int64(farewellTime)
		err = w.loop.run(func() bool { return w.byes.none() || w.loop.clock() >= until })
	}
	w.audit.close()
	w.row(w.loop.clock())
	return err
}

// nap is how long the loop may sleep before it looks for what has come: what comes in the meantime is then read in fewer turns, and a
// turn costs more than a packet. Packets have the kernel's time of arrival, so their naps are longer; while people join there are none.
func (w *worker) nap() int64 {
	switch {
	case w.dialing > 0 || w.audit.busy:
		return 0
	case w.cfg.Rung == WebRTC:
		return 4 * ms
	}
	return 2 * ms
}

// admit lets those come whose time it is.
func (w *worker) admit(now int64) {
	defer func() {
		if w.loop.alarm = 0; w.next < len(w.job.Due) {
			w.loop.alarm = max(w.job.Due[w.next], 1)
		}
	}()
	for i := 0; w.next < len(w.job.Due) && w.job.Due[w.next] <= now; i++ {
		if i == 64 { // the sockets' turn; whoever is still due is dialled next
			return
		}
		l := &w.crowd[w.next]
		w.tally.Due++
		w.tally.Tardy.Add((now - w.job.Due[w.next]) / 1000)
		w.next++
		l.come()
		now = w.loop.now
	}
}

// row reports the last second, and begins the next.
func (w *worker) row(now int64) {
	if w.rtc != nil && !w.ending {
		w.tally.KernelDrops += w.rtc.lost()
	}
	w.seconds++
	if !w.ending {
		w.audit.tick(w.seconds)
	}
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	spent := func(u *unix.Rusage) int64 { return (u.Utime.Nano() + u.Stime.Nano()) / 1000 }
	w.rows(Row{
		At: float64(now) / 1e9, Seconds: float64(now-w.begun) / 1e9, Hearing: int64(w.hearing), Tally: w.tally, Starved: w.starved, Ending: w.ending,
		CPUUS: spent(&u) - spent(&w.usage), BusyUS: w.busy.Microseconds(), RSSKB: resident(),
		BaseKB: w.base,
	})
	w.usage, w.begun, w.busy = u, now, 0
	w.tally.Reset()
}

// work does a job in this process: when it is ready it asks for the start, and then passes on a row a second.
func work(ctx context.Context, j job, start func() (time.Time, error), rows func(Row)) error {
	w, err := newWorker(j, rows)
	if err != nil {
		return err
	}
	defer w.loop.close()
	at, err := start()
	if err != nil {
		return err
	}
	w.loop.begin(at)
	return w.run(ctx)
}

// descriptorLimit is how many descriptors a process may open.
func descriptorLimit() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 1024
	}
	return int(min(l.Cur, 1<<30))
}
