package sweep_test

import (
	"bufio"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"earshot/internal/fan/sweep"
)

// Whatever the sizes, stalls and skips: each listener receives exact chunks, in order, each once, starting and resuming between two;
// what it did not get is counted.
func TestExactChunks(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if v, err := strconv.ParseUint(os.Getenv("SWEEP_SEED"), 10, 64); err == nil {
		seed = v
	}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			t.Logf("again with SWEEP_SEED=%d", seed)
			s := newStand(t, k)
			chance := rand.New(rand.NewPCG(seed, 1))
			for range 20 {
				s.append(1 + chance.IntN(3000))
			}
			var clients sync.WaitGroup
			var wanted, missed, received atomic.Uint64
			for i := range 60 {
				mine := rand.New(rand.NewPCG(seed, uint64(i)+2))
				burst := mine.IntN(15)
				client, first := s.join([]byte("head"), burst, sweep.Cadence(mine.IntN(2)))
				if c, ok := client.(*net.TCPConn); ok && i%3 == 0 {
					must(t, c.SetReadBuffer(16<<10))
				}
				clients.Go(func() {
					in := bufio.NewReaderSize(client, 1+mine.IntN(4000))
					head := make([]byte, 4)
					if _, err := io.ReadFull(in, head); err != nil || string(head) != "head" {
						t.Errorf("client %d: began with %q: %v", i, head, err)
						return
					}
					want := first
					for {
						if i%3 == 0 { // slow, by fits and starts
							time.Sleep(time.Duration(mine.IntN(10)) * time.Millisecond)
						}
						n, err := decode(in)
						if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
							wanted.Add(want)
							return
						}
						if err != nil {
							t.Errorf("client %d: %v", i, err)
							return
						}
						if n < want {
							t.Errorf("client %d: chunk %d after chunk %d", i, n, want-1)
							return
						}
						missed.Add(n - want)
						received.Add(1)
						want = n + 1
					}
				})
			}
			for range 500 {
				s.append(1 + chance.IntN(6000)) // none is empty: the clients could not tell it from one that was skipped
				time.Sleep(time.Duration(chance.IntN(4)) * time.Millisecond)
			}
			s.stream.Close(nil)
			clients.Wait()
			missed.Add(60*s.frame/10 - wanted.Load()) // at the end
			if got := s.tally.Skipped.Load(); got != missed.Load() {
				t.Errorf("%d chunks counted as skipped, %d were missed", got, missed.Load())
			}
			if missed.Load() == 0 || received.Load() < 60*100 {
				t.Errorf("%d missed, %d received: nobody was slow, or everybody", missed.Load(), received.Load())
			}
		})
	}
}

// Hundreds come, stall, leave in every way and at every point, and the one who stays notices nothing.
func TestComingAndGoing(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			s := newStand(t, k)
			for range 10 {
				s.append(800)
			}
			steady, want := s.join(nil, 0, sweep.Cadence200)
			done := make(chan error, 1)
			stop := make(chan struct{})
			go func() {
				in := bufio.NewReader(steady)
				for {
					n, err := decode(in)
					select {
					case <-stop:
						done <- nil
						return
					default:
					}
					if err != nil || n != want {
						done <- errors.Join(err, errors.New("the steady listener missed a chunk"))
						return
					}
					want = n + 1
				}
			}()
			growing, left := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(growing)
				for {
					select {
					case <-left:
						return
					case <-time.After(10 * time.Millisecond):
						s.append(800)
					}
				}
			}()
			var others sync.WaitGroup
			for i := range 300 {
				client, _ := s.join(nil, i%15, sweep.Cadence(i%4))
				others.Go(func() {
					in := bufio.NewReader(client)
					for range i % 20 {
						if _, err := decode(in); err != nil {
							t.Errorf("client %d: %v", i, err)
							break
						}
					}
					switch tcp, _ := client.(*net.TCPConn); {
					case i%3 == 0 && tcp != nil: // in the middle of what is being sent
						_ = tcp.SetLinger(0)
					case i%3 == 1 && tcp != nil:
						_ = tcp.CloseWrite()
						_, _ = io.Copy(io.Discard, client)
					}
					_ = client.Close()
				})
			}
			others.Wait()
			s.wait("all but one left", func() bool { return s.tally.Listeners.Load() == 1 })
			close(stop) // the stream goes on until that is seen: on a busy machine the steady one may have been slowed down meanwhile
			if err := <-done; err != nil {
				t.Error(err)
			}
			close(left)
			<-growing
			// Not everybody stayed long enough to take something.
			if n, _ := s.audience.Sweep(time.Now()); s.tally.Joined.Load() != 301 || n.TunedIn < 250 || n.TunedIn > 301 {
				t.Errorf("%d joined, the audience counts %d", s.tally.Joined.Load(), n.TunedIn)
			}
		})
	}
}

// A client of a WebSocket is answered; one that does what no client may is told and let go.
func TestClientFrames(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			s := newStand(t, k, func(_ *sweep.Config, c *sweep.StreamConfig) { c.Socket = true })
			client, _ := s.join(nil, 0, sweep.Cadence200)
			ping := must2(ws.CompileFrame(ws.MaskFrame(ws.NewPingFrame([]byte("here?")))))
			for _, b := range ping { // a byte at a time
				_, err := client.Write([]byte{b})
				must(t, err)
			}
			op, payload, err := readFrame(client)
			if err != nil || op != ws.OpPong || string(payload) != "here?" {
				t.Fatalf("%v %q %v", op, payload, err)
			}
			must(t, ws.WriteFrame(client, ws.MaskFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(1000, "")))))
			if op, _, err = readFrame(client); err != nil || op != ws.OpClose {
				t.Fatalf("%v %v", op, err)
			}
			if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("after the close: %v", err)
			}
			_ = client.Close()
			rude, _ := s.join(nil, 0, sweep.Cadence200)
			must(t, ws.WriteFrame(rude, ws.NewPingFrame(nil))) // not masked
			if op, _, err = readFrame(rude); err != nil || op != ws.OpClose {
				t.Fatalf("%v %v", op, err)
			}
			if n := s.engine.Dropped()["protocol"]; n != 1 {
				t.Errorf("%d counted", n)
			}
			s.wait("both left", func() bool { return s.tally.Listeners.Load() == 0 })
		})
	}
}

// Whoever talks without end where nothing is expected is let go.
func TestChatter(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			s := newStand(t, k)
			client, _ := s.join(nil, 0, sweep.Cadence200)
			for range 100 {
				if _, err := client.Write(make([]byte, 4<<10)); err != nil {
					break
				}
			}
			s.wait("it is gone", func() bool { return s.tally.Listeners.Load() == 0 })
			if n := s.engine.Dropped()["protocol"]; n != 1 {
				t.Errorf("%d counted", n)
			}
		})
	}
}

// The last words reach everybody, those who lag too.
func TestLastWords(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			s := newStand(t, k)
			s.append(100)
			var clients []net.Conn
			for i := range 40 {
				c, _ := s.join(nil, 1, sweep.Cadence(i%4))
				clients = append(clients, c)
			}
			for range 40 {
				s.append(2000)
			}
			s.stream.Close([]byte("bye"))
			for i, c := range clients {
				b, err := io.ReadAll(c)
				if err != nil || len(b) < 3 || string(b[len(b)-3:]) != "bye" {
					t.Errorf("client %d: %d bytes, %v", i, len(b), err)
				}
				if want := 112 + 40*2012 + 3; len(b) != want {
					t.Errorf("client %d: %d bytes, want %d", i, len(b), want)
				}
			}
		})
	}
}

// A change of the cadence is told to each listener once, before it, at a boundary of chunks, and then it is so; who wished for a slower one
// is told nothing that does not concern them.
func TestAnnouncedCadence(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			s := newStand(t, k, func(_ *sweep.Config, c *sweep.StreamConfig) {
				c.Announce = func(c sweep.Cadence, at, from uint64) []byte {
					b := encode(1<<40|uint64(c)<<32|from, 1)
					return b
				}
			})
			s.append(100)
			quick, _ := s.join(nil, 0, sweep.Cadence200)
			slow, _ := s.join(nil, 0, sweep.Cadence2000)
			s.engine.SetFloor(sweep.Cadence1000)
			got := make(chan []uint64, 2)
			read := func(c net.Conn) {
				var notes []uint64
				in := bufio.NewReader(c)
				for {
					n, err := decode(in)
					if err != nil {
						got <- notes
						return
					}
					if n >= 1<<40 {
						notes = append(notes, n)
					}
				}
			}
			go read(quick)
			for range 120 { // more than the announcement's ten seconds
				s.append(100)
				time.Sleep(3 * time.Millisecond)
			}
			_, late := s.engine.Admit(sweep.Cadence200, sweep.Own)
			must(t, late)
			s.engine.Release(sweep.Own)
			if p := s.engine.Pace(); p.Cadence != sweep.Cadence1000 {
				t.Errorf("the cadence is %v", p.Cadence.Duration())
			}
			s.stream.Close(nil)
			notes := <-got
			if len(notes) != 1 || sweep.Cadence(notes[0]>>32&0xff) != sweep.Cadence1000 || notes[0]&0xffffffff < 500 {
				t.Errorf("the quick one was told %x", notes)
			}
			go read(slow)
			if notes := <-got; len(notes) != 0 {
				t.Errorf("the slow one was told %x", notes)
			}
		})
	}
}

// No more than the limit; a place that was given back can be had again.
func TestFull(t *testing.T) {
	s := newStand(t, kinds[0], func(c *sweep.Config, _ *sweep.StreamConfig) { c.Max = 2 })
	_, _ = s.join(nil, 0, 0)
	second, _ := s.join(nil, 0, 0)
	if _, err := s.engine.Admit(0, sweep.Own); !errors.Is(err, sweep.ErrFull) {
		t.Errorf("the one too many: %v", err)
	}
	_ = second.Close()
	s.wait("there is room again", func() bool { _, err := s.engine.Admit(0, sweep.Own); return err == nil })
	s.engine.Release(sweep.Own)
}

// readFrame reads a frame of a server's, which are all short here.
func readFrame(r io.Reader) (ws.OpCode, []byte, error) {
	h, err := ws.ReadHeader(r)
	if err != nil {
		return 0, nil, err
	}
	b := make([]byte, min(h.Length, 1<<10))
	_, err = io.ReadFull(r, b)
	return h.OpCode, b, err
}

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
