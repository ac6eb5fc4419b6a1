// Package demo makes two voices that take turns, so that somebody who starts a server hears something at the first click. They say
// nothing: each is a harmonic sound, as of vocal folds, coloured by the resonances of a mouth that forms vowels, in syllables and
// phrases with a melody. All follows from a seed and the number of the frame; there is no clock, no file and no state.
package demo

import "math"

const (
	rate  = 48000
	frame = 960 // samples
	// Syllables begin every 200 ms, and their sound begins and ends in silence: each is made by itself, from its number.
	slotFrames = 10
	slotTime   = 0.2
	// A round is a turn of each voice: 9 s, of which the first has 3 to 6 and the second the rest.
	roundSlots = 45
	minTurn    = 15
	breath     = 2    // slots of silence at a turn's end
	plateau    = 0.13 // RMS in the middle of a syllable
	highest    = 6000 // Hz; no harmonics above
	step       = 240  // samples in which amplitudes glide

	maxHarmonics = 80
)

// character is what tells one voice from the other.
type character struct {
	pitch float64 // Hz, the middle of its melody
	tract float64 // how much higher its formants lie than a man's
	tilt  float64 // fall of its harmonics: amplitude is 1/h^tilt
}

// Voice is one of a pair. Any number of goroutines may use it.
type Voice struct {
	seed uint64
	turn uint64 // 0 speaks first in each round, 1 second
	char character
}

// Pair returns two voices: while one speaks the other is silent. Equal seeds make equal voices.
func Pair(seed uint64) (a, b *Voice) {
	return &Voice{seed, 0, character{pitch: 190, tract: 1.14, tilt: 1.25}},
		&Voice{seed, 1, character{pitch: 112, tract: 1, tilt: 1.1}}
}

// formants of six vowels in Hz, after Peterson and Barney (1952), and their widths.
var (
	vowels = [...][3]float64{
		{730, 1090, 2440}, // father
		{530, 1840, 2480}, // bed
		{390, 1990, 2550}, // bit
		{570, 840, 2410},  // law
		{440, 1020, 2240}, // book
		{490, 1350, 1690}, // bird
	}
	widths = [3]float64{90, 110, 170}
)

// Frame writes frame n, 20 ms, into pcm, which has 960 samples of 48 kHz. While a voice speaks it is at about -20 dBFS.
func (v *Voice) Frame(n uint64, pcm []float32) {
	clear(pcm)
	pcm = pcm[:min(len(pcm), frame)]
	slot := n / slotFrames
	if !v.sounds(slot) {
		return
	}
	s := v.syllable(slot)
	t0 := float64(n%slotFrames) * frame / rate // since the syllable began
	var now, then [maxHarmonics]float64        // amplitudes at a step's beginning and end
	s.amplitudes(t0, &now)
	for at := 0; at < len(pcm); at += step {
		part := pcm[at:min(at+step, len(pcm))]
		s.amplitudes(t0+float64(at+step)/rate, &then)
		var rise [maxHarmonics]float64
		for h := range s.harmonics {
			rise[h] = (then[h] - now[h]) / step
		}
		for i := range part {
			im, re := math.Sincos(s.phase(t0 + float64(at+i)/rate))
			// sin(h·x) = 2·cos(x)·sin((h-1)·x) - sin((h-2)·x): one sine for all harmonics.
			before, last, sum := 0.0, im, 0.0
			for h := range s.harmonics {
				sum += last * now[h]
				now[h] += rise[h]
				before, last = last, 2*re*last-before
			}
			part[i] = float32(sum)
		}
		now = then
	}
}

// Speaks reports whether it is the voice's turn in frame n.
func (v *Voice) Speaks(n uint64) bool {
	first, at := v.turns(n / slotFrames)
	return (at < first) == (v.turn == 0)
}

// turns returns the length of the first turn of the slot's round, and the slot's place in the round.
func (v *Voice) turns(slot uint64) (first, at uint64) {
	return minTurn + hash(v.seed, 1, slot/roundSlots)%(roundSlots-2*minTurn+1), slot % roundSlots
}

// place is how far the slot is into the voice's turn, in slots, and how long that is.
func (v *Voice) place(slot uint64) (at, length uint64, mine bool) {
	first, at := v.turns(slot)
	if v.turn == 0 {
		return at, first, at < first
	}
	return at - first, roundSlots - first, at >= first
}

// sounds reports whether the slot has a syllable: not at a turn's end, and now and then a pause between phrases.
func (v *Voice) sounds(slot uint64) bool {
	at, length, mine := v.place(slot)
	if !mine || at+breath >= length {
		return false
	}
	return at == 0 || hash(v.seed, 2+v.turn, slot)%7 != 0
}

// tune is the pitch at a slot's beginning in Hz: it falls over the turn by five semitones, steps up and down, and ends low.
func (v *Voice) tune(slot uint64) float64 {
	at, length, mine := v.place(slot)
	if !mine {
		return v.char.pitch * semitones(-4)
	}
	fall := 2.5 - 5*float64(at)/float64(length)
	wander := float64(hash(v.seed, 4+v.turn, slot)%500)/100 - 2.5
	return v.char.pitch * semitones(fall+wander)
}

func semitones(n float64) float64 { return math.Exp2(n / 12) }

// syllable is all that is fixed about one.
type syllable struct {
	from, to   float64    // pitch at its beginning and at the next one's, Hz
	here, next [3]float64 // formants of its vowel and of the next, Hz
	length     float64    // s
	loudness   float64
	harmonics  int
	source     [maxHarmonics]float64 // their amplitudes before the mouth
}

func (v *Voice) syllable(slot uint64) syllable {
	s := syllable{from: v.tune(slot), to: v.tune(slot + 1)}
	for k := range s.here {
		s.here[k] = vowels[v.vowel(slot)][k] * v.char.tract
		s.next[k] = vowels[v.vowel(slot+1)][k] * v.char.tract
	}
	chance := hash(v.seed, 8+v.turn, slot)
	s.length = 0.15 + 0.05*float64(chance%100)/100
	s.loudness = plateau * (0.75 + 0.35*float64(chance/100%100)/100)
	s.harmonics = min(int(highest/max(s.from, s.to)), maxHarmonics)
	for h := range s.harmonics {
		s.source[h] = math.Pow(float64(h+1), -v.char.tilt)
	}
	return s
}

// phase is that of the fundamental, t seconds into the syllable: the pitch glides to the next one's.
func (s *syllable) phase(t float64) float64 {
	return 2 * math.Pi * (s.from*t + (s.to-s.from)*t*t/(2*slotTime))
}

// amplitudes sets those of all harmonics, t seconds into the syllable.
func (s *syllable) amplitudes(t float64, amp *[maxHarmonics]float64) {
	loud := s.loudness * smooth(t/0.035) * smooth((s.length-t)/0.06)
	pitch := s.from + (s.to-s.from)*t/slotTime
	way := 0.6 * smooth((t-0.1)/0.1) // from the middle on the mouth is on its way to the next vowel
	power := 0.0
	for h := range s.harmonics {
		hz := pitch * float64(h+1)
		gain := 1.0 // of three resonances, squared
		for k, width := range widths {
			centre := s.here[k] + (s.next[k]-s.here[k])*way
			x, y := centre*centre-hz*hz, width*hz
			gain *= centre * centre * centre * centre / (x*x + y*y)
		}
		amp[h] = s.source[h] * math.Sqrt(gain) * smooth((highest-hz)/1500)
		power += amp[h] * amp[h] / 2
	}
	for h := range s.harmonics {
		amp[h] *= loud / math.Sqrt(power)
	}
}

func (v *Voice) vowel(slot uint64) uint64 { return hash(v.seed, 6+v.turn, slot) % uint64(len(vowels)) }

// smooth goes from 0 to 1 as x does, without corners.
func smooth(x float64) float64 {
	x = min(max(x, 0), 1)
	return x * x * (3 - 2*x)
}

// hash is a number that follows from the three and looks like chance (the finisher of SplitMix64).
func hash(seed, kind, n uint64) uint64 {
	x := seed + kind*0x9e3779b97f4a7c15 + n*0xd1b54a32d192ed03
	for range 2 {
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		x ^= x >> 31
	}
	return x
}
