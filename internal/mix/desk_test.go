package mix_test

import (
	"testing"
	"time"

	"earshot/internal/mix"
)

// Every voice is in the programme and in the others' mixes, and not in its own.
func TestMixMinus(t *testing.T) {
	d := newDesk(t)
	hz := []float64{440, 730, 1130}
	var voices []*mix.Voice
	var senders []*sender
	var ears []*ear
	for _, f := range hz {
		voices = append(voices, addVoice(t, d, true))
		senders = append(senders, newSender(t, tone(f, -20)))
		ears = append(ears, newEar(t))
	}
	programme := newEar(t)
	for i := range 150 {
		now := time.Duration(i) * tick
		for k, s := range senders {
			voices[k].Push(s.next(now))
		}
		p, err := d.Mix(now+5*time.Millisecond, true)
		if err != nil {
			t.Fatal(err)
		}
		programme.hear(p)
		for k, v := range voices {
			ears[k].hear(v.Minus())
		}
	}
	const from = 2 * mix.Rate
	for k, f := range hz {
		if got := goertzel(programme.pcm[from:], f); got < -30 {
			t.Errorf("%v Hz in the programme: %.1f dBFS", f, got)
		}
		for j := range hz {
			got := goertzel(ears[j].pcm[from:], f)
			if j == k && got > -65 {
				t.Errorf("voice %d hears itself at %.1f dBFS", j, got)
			}
			if j != k && got < -30 {
				t.Errorf("voice %d hears voice %d at %.1f dBFS only", j, k, got)
			}
		}
		t.Logf("%v Hz: programme %.1f, own minus %.1f; %+v", f, goertzel(programme.pcm[from:], f), goertzel(ears[k].pcm[from:], f),
			voices[k].Stats())
	}
}
