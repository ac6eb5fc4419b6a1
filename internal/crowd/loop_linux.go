package crowd

import (
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"earshot/internal/turnstile"
)

// readSize is how much is read at once: a burst of three seconds fits, so that a listener has no buffer of its own.
const readSize = 64 << 10

// pollee is what a descriptor in the loop belongs to.
type pollee interface{ ready(events uint32) }

// loop is one goroutine that owns some thousands of non-blocking sockets, by epoll, level-triggered. Everything of a worker but the
// handshakes of TLS and DTLS runs in it, so nothing in it is locked.
type loop struct {
	epfd    int
	wake    int // an eventfd, for what other goroutines hand in
	pollees []pollee
	buf     []byte // what is being read: of one connection, until its handler returns
	plain   []byte // a TLS record's content
	spare   [][]byte
	timers  timers
	alarm   int64  // when done has to be asked at the latest; 0: soon enough
	in      *inbox // of UDP
	nap     int64  // ns

	base time.Time
	now  int64 // ns since base, as of the latest event
	wall int64 // Unix ns at base

	mu     sync.Mutex
	inbox  []func() // from other goroutines
	signed bool     // the eventfd was written to and not read

	gate *turnstile.Gate // for TLS handshakes: those who listen already would hear their own machine's haste

	turn func(busy time.Duration) // told after each turn how long it took
}

func newLoop() (*loop, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll instance: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		_ = unix.Close(epfd)
		return nil, fmt.Errorf("make an eventfd: %w", err)
	}
	l := &loop{epfd: epfd, wake: wake, buf: make([]byte, readSize), plain: make([]byte, 16<<10), gate: turnstile.New(1)}
	l.begin(time.Now())
	if err := l.add(wake, unix.EPOLLIN, wakeUp{l}); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// begin sets the instant from which time is counted.
func (l *loop) begin(at time.Time) {
	now := time.Now() // at may come from another process, without this one's monotonic clock
	l.base = now.Add(at.Sub(now))
	l.wall = l.base.UnixNano()
	l.clock()
}

type wakeUp struct{ l *loop }

func (w wakeUp) ready(uint32) {
	var b [8]byte
	_, _ = unix.Read(w.l.wake, b[:])
}

func (l *loop) close() {
	l.gate.Close()
	_ = unix.Close(l.wake)
	_ = unix.Close(l.epfd)
}

// hand runs f in the loop, soon. It is the only method for other goroutines.
func (l *loop) hand(f func()) {
	l.mu.Lock()
	l.inbox = append(l.inbox, f)
	first := !l.signed
	l.signed = true
	l.mu.Unlock()
	if first {
		_, _ = unix.Write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

func (l *loop) handed() {
	l.mu.Lock()
	in := l.inbox
	l.inbox, l.signed = nil, false
	l.mu.Unlock()
	for _, f := range in {
		f()
	}
}

func (l *loop) clock() int64 {
	l.now = int64(time.Since(l.base))
	return l.now
}

func (l *loop) add(fd int, events uint32, p pollee) error {
	for fd >= len(l.pollees) {
		l.pollees = append(l.pollees, make([]pollee, 1024)...)
	}
	l.pollees[fd] = p
	return unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

func (l *loop) change(fd int, events uint32) error {
	return unix.EpollCtl(l.epfd, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

// forget closes the descriptor, which takes it out of epoll too.
func (l *loop) forget(fd int) {
	l.pollees[fd] = nil
	_ = unix.Close(fd)
}

// run turns until done says so, which it is asked once a turn, at least every 100 ms.
func (l *loop) run(done func() bool) error {
	events := make([]unix.EpollEvent, 512)
	for !done() {
		if l.nap > 0 {
			nap(l.nap)
		}
		n, err := unix.EpollWait(l.epfd, events, l.patience())
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for events: %w", err)
		}
		begun := l.clock()
		for i := range max(n, 0) {
			if i&15 == 15 {
				l.clock()
			}
			// A pollee may be gone by what came before it, and its number given to another, who then reads in vain.
			if p := l.pollees[events[i].Fd]; p != nil {
				p.ready(events[i].Events)
			}
		}
		l.handed()
		l.clock()
		for {
			t, ok := l.timers.due(l.now)
			if !ok {
				break
			}
			t.do()
			if l.clock()-begun > 5*ms { // sockets first: what is due late is counted as late
				break
			}
		}
		l.turn(time.Duration(l.clock() - begun))
	}
	return nil
}

// nap sleeps in the kernel without a word to the scheduler, which would give the goroutine's processor away and take it back: that costs as
// much again as the sleep, 40 µs where this was measured. Others on this processor wait so long.
func nap(d int64) {
	ts := unix.NsecToTimespec(d)
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}

// patience is how many milliseconds may pass before a timer is due.
func (l *loop) patience() int {
	at, ok := l.timers.first()
	if l.alarm > 0 && (!ok || l.alarm < at) {
		at, ok = l.alarm, true
	}
	if !ok {
		return 100
	}
	d := at - l.clock()
	if d <= 0 {
		return 0
	}
	return int(min((d+ms-1)/ms, 100))
}

// timer is something that a listener has to do later.
type timer struct {
	at  int64
	l   *listener
	gen uint32 // of the listener; one who has hung up since is not disturbed
	job uint8
}

func (t *timer) do() {
	if t.gen == t.l.gen {
		t.l.timeout(t.job)
	}
}

// timers is a heap by time. (container/heap would allocate for each.)
type timers []timer

func (h timers) first() (int64, bool) {
	if len(h) == 0 {
		return 0, false
	}
	return h[0].at, true
}

func (h *timers) push(t timer) {
	*h = append(*h, t)
	s := *h
	i := len(s) - 1
	for i > 0 {
		up := (i - 1) / 2
		if s[up].at <= s[i].at {
			return
		}
		s[up], s[i] = s[i], s[up]
		i = up
	}
}

func (h *timers) due(now int64) (t timer, ok bool) {
	s := *h
	if len(s) == 0 || s[0].at > now {
		return t, false
	}
	t = s[0]
	n := len(s) - 1
	s[0] = s[n]
	s[n] = timer{}
	s = s[:n]
	*h = s
	for i := 0; ; {
		down := 2*i + 1
		if down >= n {
			break
		}
		if down+1 < n && s[down+1].at < s[down].at {
			down++
		}
		if s[i].at <= s[down].at {
			break
		}
		s[i], s[down] = s[down], s[i]
		i = down
	}
	return t, true
}
