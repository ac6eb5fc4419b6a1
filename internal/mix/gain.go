package mix

import "math"

// Silence is the floor of all levels, in dBFS.
const Silence = -90.0

// What the automatic level aims at and what it may do, in dB and dBFS (RMS; a full-scale sine is -3).
const (
	speechLevel = -20.0
	maxGain     = 18.0
	minGain     = -18.0
	overNoise   = 9.0   // above the noise floor by this much is speech
	leastSpeech = -52.0 // and below this nothing is
	lowestFloor = -75.0
	// highestFloor keeps a long, steady tone, or somebody who never pauses, from being taken for noise.
	highestFloor = -45.0
	floorRise    = 1.0 / 50 // dB a frame: the noise floor follows pauses at once and noise slowly
	gainRise     = 3.0 / 50 // dB a frame, where there is speech
	gainFall     = 10.0 / 50
	learning     = 50  // frames of speech in which the gain may rise as quickly as fall
	memory       = 150 // frames of speech, 3 s, over which the level of speech is averaged
	hangOver     = 20  // frames, 400 ms, for which somebody who pauses still speaks
	onset        = 2   // frames of speech that make somebody speak, so that a click doesn't
)

// leveller brings one voice to the level of speech. It listens only to frames that stand out from the noise, and its gain moves only
// then, so that pauses and noise are never pumped up.
type leveller struct {
	floor   float64 // of noise, dBFS
	power   float64 // mean square of speech
	frames  int     // of speech heard, up to memory
	gain    float64 // dB
	applied float32 // factor at the end of the last frame
	run     int     // frames of speech in a row
	hang    int     // frames for which the voice still counts as speaking
}

func newLeveller() leveller { return leveller{floor: lowestFloor + 20, applied: 1} }

// frame judges one frame and scales it, gliding from the last frame's factor to this one's.
func (g *leveller) frame(pcm []float32) {
	power := meanSquare(pcm)
	level := decibel(power)
	if level < g.floor {
		g.floor += (level - g.floor) * 0.3
	} else {
		g.floor += floorRise
	}
	g.floor = min(max(g.floor, lowestFloor), highestFloor)
	if level > max(g.floor+overNoise, leastSpeech) {
		g.speech(power)
	} else {
		g.run = 0
		g.hang = max(g.hang-1, 0)
	}
	factor := float32(math.Pow(10, g.gain/20))
	if factor == 1 && g.applied == 1 {
		return
	}
	at, step := g.applied, (factor-g.applied)/float32(len(pcm))
	for i := range pcm {
		at += step
		pcm[i] *= at
	}
	g.applied = factor
}

func (g *leveller) speech(power float64) {
	if g.run++; g.run >= onset {
		g.hang = hangOver
	}
	g.frames = min(g.frames+1, memory)
	g.power += (power - g.power) / float64(g.frames)
	want := min(max(speechLevel-decibel(g.power), minGain), maxGain)
	rise := gainRise
	if g.frames < learning {
		rise = gainFall
	}
	g.gain += min(max(want-g.gain, -gainFall), rise)
}

func (g *leveller) speaking() bool { return g.hang > 0 }

// meter is the level over the last 200 ms.
type meter struct {
	power [10]float64
	sum   float64
	at    int
}

func (m *meter) add(power float64) {
	m.sum = 0
	m.power[m.at] = power
	m.at = (m.at + 1) % len(m.power)
	for _, p := range m.power {
		m.sum += p
	}
}

func (m *meter) level() float64 { return decibel(m.sum / float64(len(m.power))) }

func meanSquare(pcm []float32) float64 {
	var a, b float32
	for i := 0; i+1 < len(pcm); i += 2 {
		a += pcm[i] * pcm[i]
		b += pcm[i+1] * pcm[i+1]
	}
	return float64(a+b) / float64(len(pcm))
}

// decibel is a mean square in dBFS, where a square wave at full scale is 0.
func decibel(power float64) float64 {
	if power < 1e-9 {
		return Silence
	}
	return max(10*math.Log10(power), Silence)
}
