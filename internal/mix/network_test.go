package mix_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"earshot/internal/mix"
)

// network delivers packets as a bad network does.
type network struct {
	rnd    *rand.Rand
	loss   float64
	jitter time.Duration // uniform
	base   time.Duration
	flying []mix.Packet
}

func (n *network) send(p mix.Packet) {
	if n.rnd.Float64() < n.loss {
		return
	}
	p.Arrived += n.base + time.Duration(n.rnd.Float64()*float64(n.jitter))
	i, _ := slices.BinarySearchFunc(n.flying, p, func(a, b mix.Packet) int { return int(a.Arrived-b.Arrived) | 1 }) // after its equals
	n.flying = slices.Insert(n.flying, i, p)
}

func (n *network) deliver(v *mix.Voice, until time.Duration) {
	for len(n.flying) > 0 && n.flying[0].Arrived <= until {
		v.Push(n.flying[0])
		n.flying = n.flying[1:]
	}
}

// run sends a signal through a network to a voice for some time and returns the programme's sound.
func run(t *testing.T, n *network, signal func(int64) float64, length time.Duration) ([]float32, mix.VoiceStats) {
	t.Helper()
	d := newDesk(t)
	v := addVoice(t, d, false)
	s := newSender(t, signal)
	var sound []float32
	for now := time.Duration(0); now < length; now += tick {
		n.send(s.next(now))
		at := now + 7*time.Millisecond
		n.deliver(v, at)
		if _, err := d.Mix(at, true); err != nil {
			t.Fatal(err)
		}
		sound = append(sound, d.PCM()...)
	}
	return sound, v.Stats()
}

// holes counts windows of 20 ms that lie more than 40 dB below the level of the whole.
func holes(pcm []float32) (n int, least float64) {
	whole := rms(pcm)
	for i := 0; i+mix.Frame <= len(pcm); i += 480 {
		l := rms(pcm[i:i+mix.Frame]) - whole
		least = min(least, l)
		if l < -40 {
			n++
		}
	}
	return n, least
}

// Five per cent of loss and 40 ms of jitter leave no hole in a tone and hardly a mark on it, and what was made up is counted.
func TestLossAndJitter(t *testing.T) {
	for _, seed := range []uint64{1, 2} {
		n := &network{rnd: rand.New(rand.NewPCG(seed, 0)), loss: 0.05, jitter: 40 * time.Millisecond, base: 20 * time.Millisecond}
		pcm, stats := run(t, n, tone(600, -20), 20*time.Second)
		pcm = pcm[2*mix.Rate:]
		count, least := holes(pcm)
		t.Logf("seed %d: least 20 ms %.1f dB under the whole; the tone %.1f of %.1f dBFS; %+v", seed, least, goertzel(pcm, 600), rms(pcm), stats)
		if count != 0 {
			t.Errorf("seed %d: %d holes", seed, count)
		}
		if c := correlation(pcm, 600); c < 0.95 {
			t.Errorf("seed %d: correlation with a clean tone %.3f", seed, c)
		}
		if stats.Lost < 20 || stats.Lost > 100 {
			t.Errorf("seed %d: %d of 1000 packets lost", seed, stats.Lost)
		}
		if stats.Concealed+stats.FEC < stats.Lost*8/10 {
			t.Errorf("seed %d: concealed %d and restored %d of %d lost", seed, stats.Concealed, stats.FEC, stats.Lost)
		}
		if stats.Concealed > stats.Lost+30 {
			t.Errorf("seed %d: %d frames made up for %d lost", seed, stats.Concealed, stats.Lost)
		}
		if stats.LossRatio < 0.02 || stats.LossRatio > 0.10 || stats.JitterMS < 5 || stats.JitterMS > 30 {
			t.Errorf("seed %d: loss %.3f, jitter %.1f ms", seed, stats.LossRatio, stats.JitterMS)
		}
	}
}

// correlation is the mean, over windows of 100 ms, of how much a window is the tone of hz, whatever its phase: the buffer may slip.
func correlation(pcm []float32, hz float64) float64 {
	const window = 4800
	sum, n := 0.0, 0.0
	for i := 0; i+window <= len(pcm); i += window {
		var c, s, e float64
		for k, x := range pcm[i : i+window] {
			w := 2 * math.Pi * hz * float64(k) / mix.Rate
			c += float64(x) * math.Cos(w)
			s += float64(x) * math.Sin(w)
			e += float64(x) * float64(x)
		}
		sum += math.Sqrt((c*c + s*s) / (e * window / 2))
		n++
	}
	return sum / n
}

// Speech carries copies of its frames, and they are used: every one that there is, once losses are known to happen.
func TestFECRestores(t *testing.T) {
	d := newDesk(t)
	v := addVoice(t, d, false)
	s := newSender(t, speech(130, -20))
	var copies, lost uint64
	for i := range 1000 {
		now := time.Duration(i) * tick
		p := s.next(now)
		_, _, fec, _, err := mix.Inspect(p.Payload)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case i%17 == 7:
			lost++
		case i%17 == 8 && fec:
			copies++
			fallthrough
		default:
			v.Push(p)
		}
		if _, err := d.Mix(now, true); err != nil {
			t.Fatal(err)
		}
	}
	stats := v.Stats()
	t.Logf("%d lost, %d copies: %+v", lost, copies, stats)
	if copies < lost/2 || stats.FEC+2 < copies || stats.FEC > copies {
		t.Errorf("restored %d of %d lost packets, with %d copies at hand", stats.FEC, lost, copies)
	}
}

func TestHalfIsLost(t *testing.T) {
	n := &network{rnd: rand.New(rand.NewPCG(5, 0)), loss: 0.5, jitter: 20 * time.Millisecond}
	pcm, stats := run(t, n, speech(130, -20), 20*time.Second)
	if r := stats.LossRatio; r < 0.4 || r > 0.6 {
		t.Errorf("loss ratio %.2f", r)
	}
	if l := rms(pcm[2*mix.Rate:]); l < -35 {
		t.Errorf("hardly a sound is left: %.1f dBFS", l)
	}
	t.Logf("%+v", stats)
}

// The delay is small where the network is quick, grows at once when it isn't, and comes back slowly.
func TestDelayFollowsTheNetwork(t *testing.T) {
	d := newDesk(t)
	v := addVoice(t, d, false)
	s := newSender(t, speech(120, -20))
	s.loop = 100
	n := &network{rnd: rand.New(rand.NewPCG(6, 0))}
	at := func(now time.Duration) float64 {
		for ; s.n < int64(now/tick)*mix.Frame; now = max(now, 0) {
			t0 := time.Duration(s.n/mix.Frame) * tick
			n.send(s.next(t0))
			n.deliver(v, t0+9*time.Millisecond)
			if _, err := d.Mix(t0+9*time.Millisecond, true); err != nil {
				t.Fatal(err)
			}
		}
		return v.Stats().BufferMS
	}
	first := at(time.Second)
	if first > 50 {
		t.Errorf("after one quick second the delay is %.1f ms", first)
	}
	quick := at(20 * time.Second)
	if quick > 36 {
		t.Errorf("on a quick network the delay stays at %.1f ms", quick)
	}
	if c := v.Stats().Concealed; c != 0 {
		t.Errorf("concealed %d frames of a perfect network", c)
	}
	n.jitter = 100 * time.Millisecond
	slow := at(21500 * time.Millisecond)
	if slow < 90 {
		t.Errorf("a second and a half after jitter of 100 ms began the delay is %.1f ms", slow)
	}
	before := v.Stats()
	at(40 * time.Second)
	after := v.Stats()
	if made := after.Concealed - before.Concealed; made > 9 {
		t.Errorf("concealed %d of 925 frames under steady jitter", made)
	}
	n.jitter = 0
	soon := at(42 * time.Second)
	if soon < 70 {
		t.Errorf("two seconds after the jitter ended the delay has gone down to %.1f ms already", soon)
	}
	later := at(80 * time.Second)
	if later > 45 {
		t.Errorf("40 seconds after the jitter ended the delay is still %.1f ms", later)
	}
	t.Logf("delay: %.1f first, %.1f quick, %.1f under jitter, %.1f and %.1f after it; %+v", first, quick, slow, soon, later, v.Stats())
}
