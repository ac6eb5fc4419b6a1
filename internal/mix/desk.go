// Package mix makes one programme of many voices, and for each voice the mix without it.
//
// A Desk is fed with the RTP packets of its voices as they come (Voice.Push) and asked for one frame every 20 ms (Desk.Mix). On the
// way a voice passes
//
//	packets ► unwrapper ► queue ► decode, FEC or concealment ► line ► level ► fade ► mix
//
// where queue and line together are an adaptive jitter buffer: the queue puts packets in order and waits for the late, the line
// holds what was decoded and takes up, by resampling and splicing, what the two clocks disagree on. The mix of all goes through a
// limiter and an encoder and is the programme; the mix without one's own voice, the same way, is what one hears.
//
// Each hearing voice has an encoder of its own, also while it is silent and hears what all the silent hear. To give these one packet
// was tried: when a voice speaks up, its listener's decoder has to go over to another encoder's packets. From an encoder that heard
// the same for a second the change is 28 dB below the signal or better, but such an encoder has to be run all the time, which saves
// nothing; a fresh one makes the first 80 ms up to 10 dB louder. All encoders together cost less than half of what a stage may.
//
// One goroutine owns a Desk and its voices: nothing here locks, starts a goroutine or reads a clock, and a frame allocates nothing.
package mix

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/hraban/opus"
)

// Config is a desk's. Zero values are the defaults.
type Config struct {
	Bitrate      int // of the programme, bit/s; 32000. Below 26000 libopus narrows the band to afford FEC
	MinusBitrate int // of each mix-minus, bit/s; 32000
	// Complexity is libopus's, 1 to 10; 5. From 7 on it costs half as much again, and the TOC changes with the signal.
	Complexity int
}

// Desk mixes.
type Desk struct {
	config Config
	voices []*Voice
	main   bus
	meter  meter
	onAir  float32 // factor at the end of the last frame
	sum    [Frame]float32
}

// bus is one mix on its way out: level, limiter, encoder.
type bus struct {
	share  float32 // what each voice's share is scaled by, so that many aren't much louder than one
	lim    limiter
	enc    *Encoder
	pcm    [Frame]float32
	data   [maxPacket]byte
	packet []byte
}

// NewDesk makes a desk without voices.
func NewDesk(c Config) (*Desk, error) {
	if c.Complexity < 0 || c.Complexity > 10 {
		return nil, fmt.Errorf("make desk: complexity %d is not within 1 to 10", c.Complexity)
	}
	d := &Desk{config: c}
	enc, err := newEncoder(opus.AppVoIP, c.Bitrate, c.Complexity)
	if err != nil {
		return nil, fmt.Errorf("make desk: %w", err)
	}
	d.main.init(enc)
	return d, nil
}

// Close lets go of all voices. The desk is not to be used after it.
func (d *Desk) Close() { d.voices = nil }

// Add makes a voice. It is heard once its packets come.
func (d *Desk) Add(o VoiceOptions) (*Voice, error) {
	dec, err := NewDecoder()
	if err != nil {
		return nil, fmt.Errorf("add voice: %w", err)
	}
	v := &Voice{dec: dec, hears: o.Hears, level: newLeveller()}
	enc, err := newQuickEncoder(d.config.MinusBitrate, d.config.Complexity)
	if err != nil {
		return nil, fmt.Errorf("add voice: %w", err)
	}
	v.minus.init(enc)
	v.queue.init()
	v.line.reset()
	d.voices = append(d.voices, v)
	return v, nil
}

// Remove takes a voice out. It fades within the next Mix; it hears nothing more, and what is pushed is ignored.
func (d *Desk) Remove(v *Voice) { v.left, v.hears = true, false }

// Level is the programme's RMS over the last 200 ms, in dBFS.
func (d *Desk) Level() float64 { return d.meter.level() }

// Mix makes the next frame: 20 ms of each voice as of now, which is on the clock of Packet.Arrived. It returns the programme as one
// Opus packet, valid until the next Mix: the mix of all voices on air, else silence. An error is libopus's and leaves the desk usable.
func (d *Desk) Mix(now time.Duration, onAir bool) (programme []byte, err error) {
	at := samplesOf(now)
	speaking := 0
	clear(d.sum[:])
	for _, v := range d.voices {
		v.pull(at)
		if v.loud {
			for i, x := range &v.out {
				d.sum[i] += x
			}
		}
		if v.Speaking() && !v.left {
			speaking++
		}
	}
	copy(d.main.pcm[:], d.sum[:])
	d.air(onAir)
	err = d.main.finish(speaking)
	d.meter.add(meanSquare(d.main.pcm[:]))
	for _, v := range d.voices {
		if !v.hears {
			continue
		}
		others := speaking
		if v.loud {
			for i, x := range &v.out {
				v.minus.pcm[i] = d.sum[i] - x
			}
		} else {
			copy(v.minus.pcm[:], d.sum[:])
		}
		if v.Speaking() {
			others--
		}
		if e := v.minus.finish(others); e != nil && err == nil {
			err = e
		}
	}
	d.voices = slices.DeleteFunc(d.voices, func(v *Voice) bool { return v.left })
	return d.main.packet, err
}

// air glides the programme between silence and sound, within one frame.
func (d *Desk) air(on bool) {
	goal := float32(0)
	if on {
		goal = 1
	}
	if d.onAir == goal {
		if !on {
			clear(d.main.pcm[:])
		}
		return
	}
	step := (goal - d.onAir) / Frame
	for i := range d.main.pcm {
		d.onAir += step
		d.main.pcm[i] *= d.onAir
	}
	d.onAir = goal
}

func (b *bus) init(enc *Encoder) {
	b.enc, b.share = enc, 1
	b.lim.init()
}

// start makes ready a bus that stood still.
func (b *bus) start() {
	b.lim = limiter{}
	b.lim.init()
	_ = b.enc.Reset() // can only fail for a nil encoder
	b.packet = nil
}

// finish scales, limits and encodes b.pcm, the sum of voices of which so many speak.
//
// Voices of equal level add up by 10 log n dB: 11 dB for 13. A third of that is left (3 dB), enough to hear that many talk at once.
func (b *bus) finish(speaking int) error {
	goal := float32(1)
	if speaking > 1 {
		goal = float32(math.Pow(float64(speaking), -1.0/3))
	}
	const glide = 0.1 // of the way in a frame: 200 ms
	share := b.share + (goal-b.share)*glide
	if d := share - goal; d < 1e-3 && d > -1e-3 {
		share = goal
	}
	if share != 1 || b.share != 1 {
		at, step := b.share, (share-b.share)/Frame
		for i := range b.pcm {
			at += step
			b.pcm[i] *= at
		}
		b.share = share
	}
	b.lim.frame(b.pcm[:])
	n, err := b.enc.Encode(b.pcm[:], b.data[:])
	b.packet = b.data[:n]
	return err
}
