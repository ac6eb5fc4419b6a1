package mix_test

import (
	"math"
	"math/cmplx"
	"testing"
	"time"

	"earshot/internal/mix"
)

const tick = 20 * time.Millisecond

// sender makes a voice's packets from a signal, with a clock of its own.
type sender struct {
	t      testing.TB
	enc    *mix.Encoder
	signal func(n int64) float64 // sample n of the sender's clock
	seq    uint16
	ts     uint32
	n      int64 // samples sent
	at     int64 // samples encoded
	loop   int   // if set, so many packets are made, and then sent again and again under new numbers
	made   [][]byte
}

func newSender(t testing.TB, signal func(n int64) float64) *sender {
	t.Helper()
	enc, err := mix.NewEncoder(0)
	if err != nil {
		t.Fatal(err)
	}
	return &sender{t: t, enc: enc, signal: signal, seq: 65500, ts: 1<<32 - 48000}
}

// next makes the packet of the next 20 ms, with memory of its own.
func (s *sender) next(arrived time.Duration) mix.Packet {
	p := mix.Packet{Seq: s.seq, TS: s.ts, Payload: s.payload(), Arrived: arrived}
	s.n += mix.Frame
	s.seq++
	s.ts += mix.Frame
	return p
}

// now is when the next packet is due.
func (s *sender) now() time.Duration { return time.Duration(s.n/mix.Frame) * tick }

func (s *sender) payload() []byte {
	if s.loop > 0 && s.made == nil {
		for range 50 { // the loop begins when the encoder has settled
			s.encode()
		}
		for range s.loop {
			s.made = append(s.made, s.encode())
		}
	}
	if s.loop > 0 {
		return s.made[s.n/mix.Frame%int64(s.loop)]
	}
	return s.encode()
}

func (s *sender) encode() []byte {
	var pcm [mix.Frame]float32
	for i := range pcm {
		pcm[i] = float32(s.signal(s.at))
		s.at++
	}
	out := make([]byte, 1276)
	n, err := s.enc.Encode(pcm[:], out)
	if err != nil {
		s.t.Fatal(err)
	}
	return out[:n]
}

func tone(hz, dbfs float64) func(int64) float64 {
	a := math.Pow(10, dbfs/20) * math.Sqrt2 // RMS
	return func(n int64) float64 { return a * math.Sin(2*math.Pi*hz*float64(n)/mix.Rate) }
}

// ear decodes a stream of packets as a listener would.
type ear struct {
	t   testing.TB
	dec *mix.Decoder
	pcm []float32
}

func newEar(t testing.TB) *ear {
	t.Helper()
	dec, err := mix.NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	return &ear{t: t, dec: dec}
}

func (e *ear) hear(packet []byte) {
	e.t.Helper()
	var pcm [5760]float32
	n, err := e.dec.Decode(packet, pcm[:])
	if err != nil {
		e.t.Fatal(err)
	}
	e.pcm = append(e.pcm, pcm[:n]...)
}

// rms is the level of pcm in dBFS.
func rms(pcm []float32) float64 {
	var sum float64
	for _, x := range pcm {
		sum += float64(x) * float64(x)
	}
	return 10 * math.Log10(sum/float64(len(pcm))+1e-12)
}

// goertzel is the level of the tone of hz within pcm, in dBFS (RMS).
func goertzel(pcm []float32, hz float64) float64 {
	var z complex128
	for i, x := range pcm {
		w := 0.5 - 0.5*math.Cos(2*math.Pi*float64(i)/float64(len(pcm))) // Hann: neighbours don't leak
		z += complex(w*float64(x), 0) * cmplx.Exp(complex(0, -2*math.Pi*hz*float64(i)/mix.Rate))
	}
	a := cmplx.Abs(z) * 4 / float64(len(pcm)) // amplitude
	return 20 * math.Log10(a/math.Sqrt2+1e-9)
}

func newDesk(t testing.TB) *mix.Desk {
	t.Helper()
	d, err := mix.NewDesk(mix.Config{Complexity: 1}) // of the encoders only: tests that measure sound do so before them
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func addVoice(t testing.TB, d *mix.Desk, hears bool) *mix.Voice {
	t.Helper()
	v, err := d.Add(mix.VoiceOptions{Hears: hears})
	if err != nil {
		t.Fatal(err)
	}
	return v
}
