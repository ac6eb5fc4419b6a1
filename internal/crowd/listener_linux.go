package crowd

import (
	"errors"
	"io"
	"math"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// burstTime is how long what comes at first is of before the listener came, and says nothing of delay.
const burstTime = 30 * ms

// client is how a listener listens: one rung's protocol.
type client interface {
	// dial begins. What goes wrong is told to the listener by fail or lose.
	dial() error
	// hangUp ends without a word from the listener, whatever state it is in; its connections are closed.
	hangUp()
	// timeout is a timer of the client's own.
	timeout(job uint8)
}

// Jobs of timers. Those from jobClient on are a client's own.
const (
	jobPatience uint8 = iota
	jobLeave
	jobReturn
	jobClient
)

// listener is one simulated person with a player.
type listener struct {
	w      *worker
	client client
	ear    *ear // decodes what is heard, of those in the sample
	player player
	habits *habits

	id     int32
	gen    uint32 // of the connection; raised by each end
	state  state
	slow   bool // reads at half the pace
	joined bool // has heard something, ever
	gapped bool
	behind bool // what comes next is there already: how late this is says nothing

	dialed   int64 // when the connection was begun
	heard    int64 // when the first audio of this connection came; 0: none yet
	least    int64 // ns: the least lateness of this connection so far, from the wall clocks of server and crowd; math.MaxInt64 if none
	endFrame uint64
	numbered bool // frames have numbers, and endFrame is what follows the last
}

type state uint8

const (
	away    state = iota // before it comes, after it left
	dialing              // until there is audio
	hearing
	over // for good
)

// source is the address that a listener comes from: one of its own in 127/8, all of which is this machine. Elsewhere there is but one.
func (l *listener) source() netip.Addr {
	if !l.w.spread {
		return netip.Addr{}
	}
	n := uint32(l.id) + 1
	return netip.AddrFrom4([4]byte{127, byte(16 + n>>16), byte(n >> 8), byte(n)})
}

// come begins to listen.
func (l *listener) come() {
	w := l.w
	l.state, l.dialed, l.heard, l.least, l.endFrame, l.numbered = dialing, w.loop.clock(), 0, math.MaxInt64, 0, false
	l.player = player{}
	w.dialing++
	w.tally.Dialed++
	w.after(l, w.cfg.Patience, jobPatience)
	if err := l.client.dial(); err != nil {
		l.fail(reasonOf(err))
	}
}

// answered is the moment at which the server has said yes: the HTTP head, or DTLS done.
func (l *listener) answered() {
	l.w.tally.Join.Add((l.w.loop.now - l.dialed) / 1000)
}

// timeout is called by the loop.
func (l *listener) timeout(job uint8) {
	switch job {
	case jobPatience:
		if l.state == dialing {
			l.fail("patience")
		}
	case jobLeave:
		if l.state == hearing {
			l.w.tally.Left++
			l.settle()
			l.goAway()
		}
	case jobReturn:
		if l.state == away {
			l.come()
		}
	default:
		l.client.timeout(job)
	}
}

// fail is an attempt that came to nothing.
func (l *listener) fail(reason string) {
	if l.state != dialing {
		return
	}
	l.w.tally.Fail(reason)
	switch reason {
	case "descriptors":
		l.w.starved = true
	case "malformed":
		l.w.tally.Malformed++
	}
	l.goAway()
}

// lose is the end of what was listened to, not of the listener's will. Ended says that the event is over: then nobody minds.
func (l *listener) lose(reason string, ended bool) {
	switch l.state {
	case dialing:
		l.fail(reason)
		return
	case hearing:
	default:
		return
	}
	l.settle()
	l.w.tally.Lose(reason)
	if reason == "malformed" {
		l.w.tally.Malformed++
	}
	if !ended {
		l.gap()
	}
	l.goAway()
}

// goAway closes, and plans the return of those who return.
func (l *listener) goAway() {
	w := l.w
	switch l.state {
	case hearing:
		w.hearing--
	case dialing:
		w.dialing--
	}
	l.gen++
	l.state = away
	l.client.hangUp()
	if w.cfg.Return > 0 && !w.ending {
		w.after(l, w.chanceTime(w.cfg.Return), jobReturn)
	}
}

// settle counts what is owed at an end: the underrun that nothing that comes would tell of any more.
func (l *listener) settle() {
	l.player.advance(l.habits, l.w.loop.now)
	l.dry(l.player.settle(0))
	l.w.tally.ListenedUS += (l.w.loop.now - l.heard) / 1000
	if s, ok := l.client.(settler); ok {
		s.settle()
	}
}

// settler is a client that has something to count at an end, too.
type settler interface{ settle() }

// dry counts a gap of a length; 0: there was none.
func (l *listener) dry(length int64) {
	if length <= 0 {
		return
	}
	if !l.slow {
		l.w.tally.GapUS += length / 1000
	}
	l.gap()
}

func (l *listener) gap() {
	t := &l.w.tally
	if l.slow {
		t.SlowGaps++
		return
	}
	t.Gaps++
	if !l.gapped {
		l.gapped = true
		t.GapEars++
	}
}

// media takes count frames from first on, which have just come in one piece. Frames of a numbered timeline must follow each other.
func (l *listener) media(first uint64, count int) {
	w := l.w
	last := first + uint64(count)
	if l.numbered && first != l.endFrame {
		switch {
		case last <= l.endFrame:
			w.tally.Repeats += int64(count)
			return
		case first < l.endFrame:
			w.tally.Repeats += int64(l.endFrame - first)
			count = int(last - l.endFrame)
			first = l.endFrame
		case l.slow:
			w.tally.SlowSkips++
		default:
			w.tally.Skips++
			w.tally.LostFrames += int64(first - l.endFrame)
		}
	}
	l.endFrame, l.numbered = last, true
	l.piece(w.loop.now, int64(count)*frame, 0, first, last)
	l.delays(w.loop.now, first, last)
}

// delays measures how late the frames from first to before last came, at the instant at.
func (l *listener) delays(at int64, first, last uint64) {
	w := l.w
	if !w.timed || l.slow || l.behind || at-l.heard < burstTime {
		return // what comes at first is of before the listener came
	}
	age := w.loop.wall + at - w.origin // of frame 0
	w.tally.Delay.Add((age - int64(first)*frame) / 1000)
	late := age - int64(last-1)*frame
	l.least = min(l.least, late)
	w.tally.Late.Add(late / 1000)
	w.tally.Pdv.Add((late - l.least) / 1000)
	if l.player.playing {
		w.tally.Ear.Add((age - int64(last)*frame + l.player.inHand()) / 1000)
	}
}

// piece takes media of a length that came at an instant: the frames from first to before upTo, where those are known. Lost is how much of it is
// known never to have come.
func (l *listener) piece(at, length, lost int64, first, upTo uint64) {
	w := l.w
	w.tally.Messages++
	if l.state == dialing {
		l.state, l.heard = hearing, at
		w.hearing++
		w.dialing--
		w.tally.Sound.Add((at - l.dialed) / 1000)
		if l.joined {
			w.tally.Rejoined++
		} else {
			l.joined = true
			w.tally.Joined++
		}
		if w.cfg.Leave > 0 {
			w.after(l, w.chanceTime(w.cfg.Leave), jobLeave)
		}
	}
	l.player.advance(l.habits, at)
	l.dry(l.player.settle(lost))
	if l.player.arrive(l.habits, at, length, first, upTo) {
		w.tally.Plays.Add((at - l.dialed) / 1000)
	}
}

// reasonOf puts an error into one word.
func reasonOf(err error) string {
	var tlsErr *tlsError
	var status statusError
	switch {
	case errors.As(err, &status):
		return "status_" + strconv.Itoa(int(status))
	case errors.As(err, &tlsErr):
		return "tls"
	case errors.Is(err, errRedirect):
		return "redirect"
	case errors.Is(err, errForeign), errors.Is(err, errElsewhere):
		return "elsewhere"
	case errors.Is(err, io.EOF):
		return "closed"
	case errors.Is(err, unix.ECONNREFUSED):
		return "refused"
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return "reset"
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return "descriptors"
	case errors.Is(err, unix.EADDRNOTAVAIL), errors.Is(err, unix.EADDRINUSE):
		return "ports"
	case errors.Is(err, unix.ETIMEDOUT):
		return "timeout"
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH):
		return "unreachable"
	}
	return "malformed"
}

// judge turns a head's status into an error.
func judge(status, want int) error {
	switch {
	case status == want:
		return nil
	case status >= 300 && status < 400:
		return errRedirect
	}
	return statusError(status)
}

// after sets a timer.
func (w *worker) after(l *listener, d time.Duration, job uint8) {
	w.loop.timers.push(timer{at: w.loop.now + int64(d), l: l, gen: l.gen, job: job})
}

// chanceTime is exponentially distributed around mean.
func (w *worker) chanceTime(mean time.Duration) time.Duration {
	return time.Duration(w.chance.ExpFloat64() * float64(mean))
}
