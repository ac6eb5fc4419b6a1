package mix

// For tests that measure the sound itself, before a codec adds its own noise.

// PCM is the programme's last frame, limited, not yet encoded.
func (d *Desk) PCM() []float32 { return d.main.pcm[:] }

// Pull makes the voice's next frame without a desk around it, so that hours pass in seconds.
func (v *Voice) Pull(now int64) []float32 {
	v.pull(now)
	return v.out[:]
}

// Limit is the limiter by itself.
func Limit() func(pcm []float32) {
	var l limiter
	l.init()
	return l.frame
}

// NewQuickEncoder makes an encoder as the mixes for one listener have it.
func NewQuickEncoder() (*Encoder, error) { return newQuickEncoder(0, 0) }

// LimitDelay is the limiter's delay in samples.
const LimitDelay = limDelay

// Unwrapper is the wraparound arithmetic by itself.
type Unwrapper struct{ u unwrapper }

// Take unwraps; old, first and strange say where the packet stands.
func (u *Unwrapper) Take(seq uint16, ts uint32, arrived int64) (seq64, ts64 int64, old, first, strange bool) {
	s, t, where := u.u.take(seq, ts, arrived, Frame)
	return s, t, where == placeOld, where == placeFirst, where == placeStrange
}

// Inspect is what a packet's framing says.
func Inspect(b []byte) (samples, frame int, fec, dtx bool, err error) {
	i, err := inspect(b)
	return i.samples, i.frame, i.fec, i.dtx, err
}
