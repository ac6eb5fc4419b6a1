package whep

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pion/rtcp"

	"earshot/internal/event"
	"earshot/internal/observatory"
	"earshot/internal/timeline"
)

// The load benchmark measures what one more listener costs, in a process of its own, against the bare loop: the same packets, sealed with
// the same ciphers and sent to the same sockets in the same batches, by a program that does nothing else. Run it alone:
//
//	go test ./internal/fan/whep -run '^$' -bench Listener -benchtime 1x [-cpuprofile …]
//
// EARSHOT_LISTENERS says how many there are (default 1000), EARSHOT_PIN=1 pins the server to core 0 and the clients to core 1.

const serverEnv = "EARSHOT_WHEP_LOAD_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(serverEnv) != "" {
		if err := serveLoad(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

type loadOrder struct {
	Do     string
	Offer  string
	Packet int
	For    time.Duration
	File   string
}

type loadReply struct {
	ID, Answer, Err string
	CPU             time.Duration
	Packets         uint64
	Heap, RSS       uint64
	Stats           Stats
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func rss() uint64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for l := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(l, "VmRSS:"); ok {
			n, _ := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
			return n << 10
		}
	}
	return 0
}

// serveLoad is the server's process: orders as lines of JSON, answers likewise.
func serveLoad(in io.Reader, out io.Writer) error {
	log := slog.New(slog.DiscardHandler)
	port, err := Listen("127.0.0.1:0", log)
	if err != nil {
		return err
	}
	e, err := New(Config{Port: port, Log: log, FixedPace: true, MaxPending: 4000})
	if err != nil {
		return err
	}
	tl, err := timeline.New(timeline.Config{Origin: time.Now()})
	if err != nil {
		return err
	}
	src := Source{Slug: "load", Timeline: tl, Audience: observatory.NewAudience(event.Count{})}
	var (
		wg   sync.WaitGroup
		halt chan struct{}
		next uint64
	)
	stop := func() {
		if halt != nil {
			close(halt)
			wg.Wait()
			halt = nil
		}
	}
	for dec, enc := json.NewDecoder(bufio.NewReader(in)), json.NewEncoder(out); ; {
		var o loadOrder
		if err := dec.Decode(&o); err != nil {
			stop()
			e.Close()
			return port.Close()
		}
		var r loadReply
		switch o.Do {
		case "answer":
			id, answer, err := e.Answer(context.Background(), src, []byte(o.Offer), o.Packet)
			r.ID, r.Answer = id, string(answer)
			if err != nil {
				r.Err = err.Error()
			}
		case "play":
			halt = make(chan struct{})
			wg.Go(func() {
				begun, first := time.Now(), next
				for {
					select {
					case <-halt:
						return
					case <-time.After(time.Until(begun.Add(time.Duration(next-first+1) * event.FrameDuration))):
						_ = tl.Append(timeline.Frame{Number: next, Packet: voice(next)})
						next++
					}
				}
			})
		case "pause":
			stop()
		case "loop":
			r.Packets = bareLoop(e, o.Packet, o.For)
		case "profile":
			f, err := os.Create(o.File)
			if err == nil {
				err = pprof.StartCPUProfile(f)
			}
			if err != nil {
				return err
			}
		case "profiled":
			pprof.StopCPUProfile()
		case "collect":
			runtime.GC()
			debug.FreeOSMemory()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		r.CPU, r.Heap, r.RSS, r.Stats = cpuTime(), m.HeapAlloc, rss(), e.Stats()
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
}

// bareLoop is the limit: sessions in an array, one payload for all, seal and send, sleep until the next.
func bareLoop(e *Engine, ms int, d time.Duration) (packets uint64) {
	type to struct {
		keys *keyring
		at   where
		ssrc uint32
	}
	var all []to
	e.mu.RLock()
	for _, s := range e.sessions {
		if s.keys != nil {
			all = append(all, to{s.keys, s.to.udp, s.ssrc + 2})
		}
	}
	e.mu.RUnlock()
	full, bad := &e.stats.dropped[droppedQueue], &e.stats.dropped[droppedUnreachable]
	out := newOutbox(e.cfg.Port.sock, full, bad)
	var iv [saltSize]byte
	var payload []byte
	var many [][]byte
	for n := range ms / 20 {
		many = append(many, voice(uint64(n)))
	}
	payload, _ = timeline.Repack(nil, many...)
	began, index := time.Now(), uint64(1)
	for end := began.Add(d); time.Now().Before(end); index++ {
		for i := range all {
			t := &all[i]
			b := out.next()
			b[0], b[1] = 0x80, 111
			binary.BigEndian.PutUint16(b[2:], uint16(index))
			binary.BigEndian.PutUint32(b[4:], uint32(index*960))
			binary.BigEndian.PutUint32(b[8:], t.ssrc)
			n, err := t.keys.sealRTP(b, payload, t.ssrc, index, &iv)
			if err != nil {
				panic(err)
			}
			out.put(n, t.at)
		}
		out.flush()
		packets += uint64(len(all))
		time.Sleep(time.Until(began.Add(time.Duration(index) * time.Duration(ms) * time.Millisecond)))
	}
	return packets
}

func BenchmarkListener(b *testing.B) {
	listeners := 1000
	if n, err := strconv.Atoi(os.Getenv("EARSHOT_LISTENERS")); err == nil {
		listeners = n
	}
	const (
		each  = 2 * time.Second
		turns = 4
	)
	args := []string{os.Args[0]}
	if os.Getenv("EARSHOT_PIN") != "" {
		args = append([]string{"taskset", "-c", "0"}, args...)
		_ = exec.Command("taskset", "-a", "-p", "-c", "1", strconv.Itoa(os.Getpid())).Run()
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), serverEnv+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(b, err)
	out, err := cmd.StdoutPipe()
	must(b, err)
	must(b, cmd.Start())
	defer func() {
		_ = in.Close()
		_ = cmd.Wait()
	}()
	var mu sync.Mutex
	dec, enc := json.NewDecoder(bufio.NewReader(out)), json.NewEncoder(in)
	do := func(o loadOrder) (r loadReply) {
		mu.Lock()
		defer mu.Unlock()
		must(b, enc.Encode(o))
		must(b, dec.Decode(&r))
		return r
	}
	offer := lightOffer(b)
	if os.Getenv("EARSHOT_PLAIN") != "" {
		offer = plainOffer(b)
	}
	for _, packet := range []int{20, 60, 120} {
		b.Run(fmt.Sprintf("%dms", packet), func(b *testing.B) {
			for b.Loop() {
				do(loadOrder{Do: "collect"})
				if file := os.Getenv("EARSHOT_PROFILE"); file != "" {
					do(loadOrder{Do: "profile", File: fmt.Sprintf("%s.%d.join", file, packet)})
				}
				before := do(loadOrder{Do: "stats"})
				ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
				join := func(all []*light) {
					var wg sync.WaitGroup
					room := make(chan struct{}, 16)
					for i := range all {
						room <- struct{}{}
						wg.Go(func() {
							defer func() { <-room }()
							l, err := dialLight(ctx, offer, func(offer []byte) (string, []byte, error) {
								r := do(loadOrder{Do: "answer", Offer: string(offer), Packet: packet})
								if r.Err != "" {
									return "", nil, fmt.Errorf("%s", r.Err)
								}
								return r.ID, []byte(r.Answer), nil
							}, nil, false)
							if err != nil {
								b.Error(err)
								return
							}
							l.deaf()
							all[i] = l
						})
					}
					wg.Wait()
				}
				all := make([]*light, listeners)
				began := time.Now()
				join(all)
				if b.Failed() {
					cancel()
					return
				}
				joined := do(loadOrder{Do: "stats"})
				if os.Getenv("EARSHOT_PROFILE") != "" {
					do(loadOrder{Do: "profiled"})
				}
				took := time.Since(began)
				do(loadOrder{Do: "collect"})
				settled := do(loadOrder{Do: "collect"})

				// Checks every 2.5 s and reports every 5 s, as a browser's.
				keep := func() (stop func()) {
					halt := make(chan struct{})
					var keeping sync.WaitGroup
					keeping.Go(func() {
						for n := 0; ; n++ {
							for i, l := range all {
								if i%64 == 0 {
									select {
									case <-halt:
										return
									case <-time.After(2500 * time.Millisecond * 64 / time.Duration(len(all))):
									}
								}
								_ = l.write(l.check(false))
								if n%2 == 0 {
									_ = l.report(&rtcp.ReceiverReport{SSRC: 1, Reports: []rtcp.ReceptionReport{{SSRC: l.ssrc}}})
								}
							}
						}
					})
					return func() { close(halt); keeping.Wait() }
				}
				// In turns, as the machine is never quiet: the engine with all that it does, and the loop.
				var engine, loop, ratio []float64
				var second loadReply
				for turn := range turns {
					rest := keep()
					do(loadOrder{Do: "play"})
					time.Sleep(time.Second)
					if file := os.Getenv("EARSHOT_PROFILE"); file != "" && turn == 0 {
						do(loadOrder{Do: "profile", File: fmt.Sprintf("%s.%d", file, packet)})
					}
					first := do(loadOrder{Do: "stats"})
					time.Sleep(each)
					second = do(loadOrder{Do: "stats"})
					if os.Getenv("EARSHOT_PROFILE") != "" && turn == 0 {
						do(loadOrder{Do: "profiled"})
					}
					do(loadOrder{Do: "pause"})
					rest()
					time.Sleep(300 * time.Millisecond)
					third := do(loadOrder{Do: "stats"})
					fourth := do(loadOrder{Do: "loop", Packet: packet, For: each})
					a := float64(second.CPU-first.CPU) / float64(time.Microsecond) / float64(listeners) / each.Seconds()
					z := float64(fourth.CPU-third.CPU) / float64(time.Microsecond) / (float64(fourth.Packets) * float64(packet) / 1000)
					engine, loop, ratio = append(engine, a), append(loop, z), append(ratio, a/z)
				}
				// Joins while all the others listen.
				do(loadOrder{Do: "play"})
				time.Sleep(time.Second)
				more := make([]*light, max(200, listeners/4))
				fifth := do(loadOrder{Do: "stats"})
				hurried := time.Now()
				join(more)
				rate := float64(len(more)) / time.Since(hurried).Seconds()
				sixth := do(loadOrder{Do: "stats"})
				do(loadOrder{Do: "pause"})
				cancel()
				all = append(all, more...)
				for i := range fifth.Stats.Late {
					sixth.Stats.Late[i] -= fifth.Stats.Late[i]
				}
				b.Logf("%.0f joins/s while %d listen: late %v, dropped %v", rate, listeners, sixth.Stats.Late, sixth.Stats.Dropped)
				b.Logf("turns: engine %.0f, loop %.0f, ratio %.2f", engine, loop, ratio)
				b.ReportMetric(median(engine), "µs/listener-s")
				b.ReportMetric(median(loop), "loop-µs/listener-s")
				b.ReportMetric(median(ratio), "×loop")
				b.ReportMetric((float64(settled.Heap)-float64(before.Heap))/float64(listeners), "heap-B/listener")
				b.ReportMetric((float64(settled.RSS)-float64(before.RSS))/float64(listeners), "rss-B/listener")
				b.ReportMetric((float64(second.RSS)-float64(before.RSS))/float64(listeners), "rss-playing-B/listener")
				b.ReportMetric(float64(joined.CPU-before.CPU)/float64(time.Microsecond)/float64(listeners), "join-µs")
				b.ReportMetric(float64(listeners)/took.Seconds(), "joins/s")
				b.Logf("alone: late %v, dropped %v, inbound %v, busy %.2f", second.Stats.Late, second.Stats.Dropped, second.Stats.Inbound, second.Stats.Busy)
				for _, l := range all {
					_ = l.report(&rtcp.Goodbye{Sources: []uint32{1}})
				}
				for do(loadOrder{Do: "stats"}).Stats.Listeners > 0 {
					time.Sleep(50 * time.Millisecond)
					for _, l := range all {
						_ = l.report(&rtcp.Goodbye{Sources: []uint32{1}})
					}
				}
				for _, l := range all {
					_ = l.conn.Close()
				}
			}
		})
	}
}

// deaf ends the library's connection and the reader, without a word: from here on the client only writes.
func (l *light) deaf() {
	l.quiet.Store(true)
	_ = l.conn.SetReadDeadline(time.Now())
	l.wg.Wait()
	_ = l.conn.SetReadDeadline(time.Time{})
	keep := l.conn
	l.conn = noClose{keep}
	_ = l.dtls.Close()
	l.conn, l.dtls = keep, nil
	// What nobody reads is dropped alike in the loop and in the engine, rather than queued until the buffer is full.
	_ = keep.(*net.UDPConn).SetReadBuffer(1)
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// noClose stays open.
type noClose struct{ net.PacketConn }

func (noClose) Close() error { return nil }
