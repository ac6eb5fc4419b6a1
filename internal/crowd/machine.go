package crowd

import (
	"bytes"
	"os"
	"strconv"
	"sync"
	"time"
)

// machine watches how busy the whole machine is while all listeners are there: the crowd shares it with the server, and a machine without
// idle time judges neither.
type machine struct {
	mu    sync.Mutex
	from  time.Time
	begun bool
	first ticks
	last  ticks
}

// ticks are the kernel's counts of processor time.
type ticks struct{ idle, all uint64 }

// begin says when all have come.
func (m *machine) begin(from time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.from = from
}

// tick looks at the counts.
func (m *machine) tick(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now.Before(m.from) {
		return
	}
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return
	}
	t, ok := readTicks(b)
	if !ok {
		return
	}
	if !m.begun {
		m.begun, m.first = true, t
	}
	m.last = t
}

// idle is the share of its processor time that the machine had nothing to do; -1 if it is not known.
func (m *machine) idle() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.last.all - m.first.all
	if !m.begun || all == 0 {
		return -1
	}
	return float64(m.last.idle-m.first.idle) / float64(all)
}

// readTicks reads the first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal.
func readTicks(b []byte) (t ticks, ok bool) {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	f := bytes.Fields(line)
	if len(f) < 6 || string(f[0]) != "cpu" {
		return t, false
	}
	for i, v := range f[1:min(len(f), 9)] {
		n, err := strconv.ParseUint(string(v), 10, 64)
		if err != nil {
			return t, false
		}
		t.all += n
		if i == 3 || i == 4 {
			t.idle += n
		}
	}
	return t, true
}
