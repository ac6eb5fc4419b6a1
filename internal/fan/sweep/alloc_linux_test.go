package sweep

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	"earshot/internal/event"
	"earshot/internal/observatory"
)

// still is a shard that nobody runs but the test, with listeners whose clients read everything.
type still struct {
	sh     *shard
	stream *Stream
	frame  uint64
	part   []byte
}

func newStill(tb testing.TB, listeners int, secure bool) *still {
	tb.Helper()
	e, err := New(Config{Goroutines: true}) // it starts no shard of its own
	must(tb, err)
	e.end()
	e.wg.Wait() // for the governor, whose own allocations would be counted
	sh, err := newShard(e)
	must(tb, err)
	s := &still{sh: sh, part: make([]byte, 1000)}
	s.stream = e.NewStream(StreamConfig{Tally: &Tally{}, Audience: observatory.NewAudience(event.Count{}), Rung: observatory.Push})
	tcp, err := ListenTCP(context.Background(), "127.0.0.1:0")
	must(tb, err)
	l := e.Listen(tcp, nil) // it shakes hands itself
	config := selfSigned(tb)
	for range listeners {
		client, err := net.Dial("tcp", l.Addr().String())
		must(tb, err)
		c, err := l.Accept()
		must(tb, err)
		_, err = e.Admit(0, Own)
		must(tb, err)
		a := arrival{join: Join{Stream: s.stream}, conn: c.(*Conn)}
		if secure {
			a.tls = tls.Server(c, config)
			done := make(chan error, 1)
			tc := tls.Client(client, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // its own
			go func() { done <- tc.Handshake() }()
			must(tb, a.tls.Handshake())
			must(tb, <-done)
		}
		go func() { _, _ = io.Copy(io.Discard, client) }() // what TLS would do with it is not measured
		a.ear = e.enter(a.join)
		must(tb, a.conn.detach())
		a.conn.handOver()
		sh.put(a)
	}
	sh.look(time.Now())
	for sh.receive(time.Now().Add(time.Minute)) {
	}
	tb.Cleanup(func() {
		_ = l.Close()
		sh.close()
	})
	return s
}

// sweep appends a part and visits everybody.
func (s *still) sweep() {
	s.stream.add(s.frame, s.part)
	s.frame += framesPerChunk
	s.sh.look(time.Now())
	g := s.sh.groups[0]
	s.sh.step(g)
	s.sh.now = s.sh.now.Add(chunkTime) // all slots of the step are due now
	for s.sh.step(g) {
	}
	s.sh.poll(time.Now().Add(time.Second))
}

// The hot path allocates nothing for a listener, plain or over TLS: one chunk is made for all.
func TestSweepAllocatesNothing(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("secure=%v", secure), func(t *testing.T) {
			const listeners = 200
			s := newStill(t, listeners, secure)
			for range 20 {
				s.sweep()
			}
			before := s.stream.cfg.Tally.Bytes.Load()
			allocs := testing.AllocsPerRun(50, s.sweep)
			if sent := s.stream.cfg.Tally.Bytes.Load() - before; sent < 50*listeners*1000 {
				t.Fatalf("only %d bytes were sent", sent)
			}
			limit := 1.0 // the chunk
			if secure {
				limit += pooled
			}
			if allocs > limit {
				t.Errorf("%v allocations in a sweep of %d listeners", allocs, listeners)
			}
		})
	}
}

func BenchmarkVisit(b *testing.B) {
	for _, secure := range []bool{false, true} {
		b.Run(fmt.Sprintf("secure=%v", secure), func(b *testing.B) {
			s := newStill(b, 500, secure)
			b.ReportAllocs()
			for b.Loop() {
				s.sweep()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/500, "ns/visit")
		})
	}
}

func TestMeminfo(t *testing.T) {
	total, left := meminfo([]byte("MemTotal:       24000000 kB\nMemFree:          100 kB\nMemAvailable:   12000000 kB\n"))
	if total != 24_000_000 || left != 12_000_000 {
		t.Errorf("%d %d", total, left)
	}
}

func selfSigned(tb testing.TB) *tls.Config {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(tb, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	must(tb, err)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12,
		DynamicRecordSizingDisabled: true,
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// A connection that was taken over is counted once: as a place, no longer by its listener.
func TestTakenOverIsCountedOnce(t *testing.T) {
	for _, secure := range []bool{false, true} {
		s := newStill(t, 3, secure)
		e := s.sh.engine
		for id := range uint32(3) {
			l := s.sh.listener(id)
			if l.conn != nil && l.conn.in.open.Load() != 0 {
				t.Errorf("secure %v: %d connections are still counted as open", secure, l.conn.in.open.Load())
			}
		}
		if e.Listeners() != 3 {
			t.Errorf("%d places", e.Listeners())
		}
	}
}

// Somebody who was on the way to the shard when a change was announced is told of it, and an announcement that is taken back is too.
func TestToldOnTheWay(t *testing.T) {
	s := newStill(t, 1, false)
	announce := func(c Cadence, _, _ uint64) []byte { return []byte{'0' + byte(c)} }
	s.stream.cfg.Announce = announce
	s.sweep()
	first := s.sh.listener(0)
	s.stream.propose(1, verdict{to: Cadence1000, slower: true, lead: 20 * time.Second})
	s.sweep()
	if first.told != Cadence1000 || first.cadence != Cadence200 {
		t.Errorf("told %v, has %v", first.told.Duration(), first.cadence.Duration())
	}
	// One with the old cadence arrives now.
	late := &listener{wish: Cadence200, cadence: Cadence200, told: Cadence200}
	if n := late.note(s.sh.groups[0].plan); string(n) != "2" {
		t.Errorf("on its way it is told %q", n)
	}
	s.stream.propose(2, verdict{to: Cadence200, lead: 2 * time.Second})
	s.sweep()
	if first.told != Cadence200 {
		t.Errorf("not told that it is off: %v", first.told.Duration())
	}
}

// A slow reader over TLS is owed no more than a run of chunks, however far it lags.
func TestPendingIsBounded(t *testing.T) {
	s := newStill(t, 1, true)
	l := s.sh.listener(0)
	s.part = make([]byte, 4000)
	most := 0
	for range 400 { // nobody reads fast enough for this
		for range 40 {
			s.stream.add(s.frame, s.part)
			s.frame += framesPerChunk
		}
		s.sh.now = s.sh.now.Add(chunkTime)
		s.sh.step(s.sh.groups[0])
		if l.state == absent {
			t.Fatal("it was let go")
		}
		most = max(most, len(l.conn.pending))
	}
	if limit := (runLength + 1) * 4200; most > limit {
		t.Errorf("%d bytes were owed, the limit is %d", most, limit)
	}
}
