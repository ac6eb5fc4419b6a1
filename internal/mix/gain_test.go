package mix_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"earshot/internal/mix"
)

// listen lets a voice send a signal over a perfect network and returns the programme's sound.
func listen(t *testing.T, d *mix.Desk, v *mix.Voice, s *sender, seconds float64, each func(frame int)) (sound []float32) {
	t.Helper()
	for i := range int(seconds * 50) {
		when := s.now()
		v.Push(s.next(when))
		if _, err := d.Mix(when, true); err != nil {
			t.Fatal(err)
		}
		sound = append(sound, d.PCM()...)
		if each != nil {
			each(i)
		}
	}
	return sound
}

// Loud and quiet voices come to one level; what is too far off comes as near as the bounds allow.
func TestLevelComesToSpeech(t *testing.T) {
	for _, c := range []struct{ in, low, high float64 }{
		{-6, -23, -17}, {-20, -23, -17}, {-34, -23, -17}, {-46, -34, -26},
	} {
		d := newDesk(t)
		v := addVoice(t, d, false)
		s := newSender(t, speech(130, c.in+2.6)) // its RMS is 2.6 dB below its nominal level
		s.loop = 100
		sound := listen(t, d, v, s, 12, nil)
		tail := sound[10*mix.Rate:]
		t.Logf("%.0f dBFS in: first second %.1f, then %.1f dBFS, gain %.1f dB", c.in,
			rms(sound[mix.Rate/2:3*mix.Rate/2]), rms(tail), v.Stats().GainDB)
		if l := rms(tail); l < c.low || l > c.high {
			t.Errorf("%.0f dBFS came out at %.1f dBFS", c.in, l)
		}
		if !v.Speaking() {
			t.Errorf("%.0f dBFS doesn't count as speaking", c.in)
		}
		if math.Abs(v.Level()-rms(sound[len(sound)-10*mix.Frame:])) > 1.5 || math.Abs(d.Level()-v.Level()) > 1.5 {
			t.Errorf("levels %.1f and %.1f dBFS of a sound of %.1f dBFS", v.Level(), d.Level(), rms(sound[len(sound)-10*mix.Frame:]))
		}
	}
}

// Noise isn't pumped up, neither before speech nor in its pauses, and isn't taken for speech.
func TestNoiseIsLeftAlone(t *testing.T) {
	d := newDesk(t)
	v := addVoice(t, d, false)
	rnd := rand.New(rand.NewPCG(3, 0))
	say := speech(130, -28)
	s := newSender(t, func(n int64) float64 {
		x := 0.002 * rnd.NormFloat64() // -54 dBFS
		if sec := n / mix.Rate; sec >= 8 && sec < 15 {
			x += say(n)
		}
		return x
	})
	spoke := [22]bool{}
	sound := listen(t, d, v, s, 22, func(frame int) { spoke[frame/50] = spoke[frame/50] || v.Speaking() })
	before, after := rms(sound[4*mix.Rate:7*mix.Rate]), rms(sound[17*mix.Rate:])
	gain := v.Stats().GainDB
	t.Logf("noise %.1f dBFS before, %.1f after speech with a gain of %.1f dB; speaking %v", before, after, gain, spoke)
	if before > -52 {
		t.Errorf("noise was raised to %.1f dBFS before anybody spoke", before)
	}
	if math.Abs(after-(before+gain)) > 2 {
		t.Errorf("noise is at %.1f dBFS after speech, was at %.1f dBFS before, and the gain is %.1f dB", after, before, gain)
	}
	for sec, did := range spoke {
		if in := sec >= 8 && sec <= 15; did != in {
			t.Errorf("second %d: speaking is %v", sec, did)
		}
	}
}

// Thirteen who talk at once are a little louder than one, not eleven decibels, and stay below the ceiling.
func TestManySpeak(t *testing.T) {
	level := func(n int) (float64, float64) {
		d := newDesk(t)
		var voices []*mix.Voice
		var senders []*sender
		for k := range n {
			voices = append(voices, addVoice(t, d, false))
			s := newSender(t, speech(90+17*float64(k), -18))
			s.loop = 50
			senders = append(senders, s)
		}
		var sound []float32
		for i := range 200 {
			for k, v := range voices {
				v.Push(senders[k].next(senders[k].now()))
			}
			if _, err := d.Mix(time.Duration(i)*tick, true); err != nil {
				t.Fatal(err)
			}
			if i > 100 {
				sound = append(sound, d.PCM()...)
			}
		}
		return rms(sound), truePeak(sound[:mix.Rate/2])
	}
	one, _ := level(1)
	many, peak := level(13)
	t.Logf("one voice %.1f dBFS, thirteen %.1f dBFS, %.1f dBTP", one, many, peak)
	if many < one+1 || many > one+6 || peak > mix.Ceiling {
		t.Errorf("one voice is at %.1f dBFS, thirteen are at %.1f dBFS and %.2f dBTP", one, many, peak)
	}
}
