package mix

import (
	"errors"
	"fmt"

	"github.com/hraban/opus"
)

// The one sample rate, and the length of the one frame, in samples.
const (
	Rate  = 48000
	Frame = 960
)

// maxPacket bounds what one 20 ms packet may take: the largest Opus frame (RFC 6716, 3.2.1) and its TOC.
const maxPacket = 1276

// Defaults of an Encoder.
const (
	defaultBitrate = 32000 // bit/s: full band for one voice, with room for in-band FEC
	// defaultComplexity is the highest below 7. From 7 on libopus 1.3 analyses the signal and lets the bandwidth, and with it
	// the TOC, follow it; every change of TOC ends a longer packet early on the listeners' slower rungs.
	defaultComplexity = 5
	// expectedLoss, in percent, makes libopus spend bits on FEC, and keeps it out of CELT-only mode, which has none.
	expectedLoss = 10
)

// Encoder makes Opus packets of 20 ms, mono, 48 kHz, without DTX; each packet of a stream begins with the same TOC byte. Not safe for
// use from several goroutines at once. Its memory is Go's: there is nothing to close.
type Encoder struct {
	enc   *opus.Encoder
	prime bool
}

// NewEncoder makes an encoder of about bitrate bit/s; 0 is 32 kbit/s. It refuses less than 6000 and more than 510000. Its packets
// are hybrid, full band from 30 kbit/s on, and carry FEC where there is speech.
func NewEncoder(bitrate int) (*Encoder, error) { return newEncoder(opus.AppVoIP, bitrate, 0) }

// newQuickEncoder makes an encoder that is 4 ms sooner and takes a quarter of the time of the other (4 to 6 ms of CPU a second instead
// of 15 to 20), because it is CELT only; what that lacks is FEC. It is for the mixes that are encoded for one listener.
func newQuickEncoder(bitrate, complexity int) (*Encoder, error) {
	return newEncoder(opus.AppRestrictedLowdelay, bitrate, complexity)
}

func newEncoder(app opus.Application, bitrate, complexity int) (*Encoder, error) {
	if bitrate == 0 {
		bitrate = defaultBitrate
	}
	if complexity == 0 {
		complexity = defaultComplexity
	}
	if bitrate < 6000 || bitrate > 510000 {
		return nil, fmt.Errorf("make Opus encoder: bitrate %d is not within 6000 to 510000 bit/s", bitrate)
	}
	e, err := opus.NewEncoder(Rate, 1, app)
	if err != nil {
		return nil, fmt.Errorf("make Opus encoder: %w", err)
	}
	fec := app == opus.AppVoIP
	err = errors.Join(e.SetBitrate(bitrate), e.SetComplexity(complexity), e.SetInBandFEC(fec), e.SetDTX(false))
	if fec {
		err = errors.Join(err, e.SetPacketLossPerc(expectedLoss))
	}
	if err != nil {
		return nil, fmt.Errorf("set up Opus encoder: %w", err)
	}
	enc := &Encoder{enc: e, prime: fec}
	return enc, enc.warm()
}

// warm encodes one frame of silence to nowhere: FEC costs bandwidth in libopus's reckoning until it is on, so the very first frames
// of a stream at 32 kbit/s would be narrower than the rest.
func (e *Encoder) warm() error {
	if !e.prime {
		return nil
	}
	var out [maxPacket]byte
	_, err := e.Encode(make([]float32, Frame), out[:])
	return err
}

// Encode writes the packet of 960 samples into out, of which 1276 bytes always suffice, and returns its length.
func (e *Encoder) Encode(pcm []float32, out []byte) (int, error) {
	if len(pcm) != Frame {
		return 0, fmt.Errorf("encode Opus: %d samples are not a frame of %d", len(pcm), Frame)
	}
	n, err := e.enc.EncodeFloat32(pcm, out[:len(out):len(out)])
	if err != nil {
		return 0, fmt.Errorf("encode Opus: %w", err)
	}
	return n, nil
}

// Reset forgets the past: the next packet stands alone.
func (e *Encoder) Reset() error {
	if err := e.enc.Reset(); err != nil {
		return fmt.Errorf("reset Opus encoder: %w", err)
	}
	return e.warm()
}

// Decoder turns Opus packets of any mode, duration and channel count into mono at 48 kHz. Not safe for use from several
// goroutines at once.
type Decoder struct{ dec *opus.Decoder }

// NewDecoder makes a decoder.
func NewDecoder() (*Decoder, error) {
	d, err := opus.NewDecoder(Rate, 1)
	if err != nil {
		return nil, fmt.Errorf("make Opus decoder: %w", err)
	}
	return &Decoder{dec: d}, nil
}

// Decode writes a packet's samples, at most 5760, into pcm and returns how many there are. An empty packet is an error here;
// it never reaches libopus, which would take it for a loss.
func (d *Decoder) Decode(packet []byte, pcm []float32) (int, error) {
	if len(packet) == 0 || len(pcm) == 0 {
		return 0, errEmpty
	}
	n, err := d.dec.DecodeFloat32(packet, pcm[:len(pcm):len(pcm)])
	if err != nil {
		return 0, fmt.Errorf("decode Opus: %w", err)
	}
	return n, nil
}

// Conceal fills pcm, whose length is a multiple of 2.5 ms (120 samples), with what may have been lost.
func (d *Decoder) Conceal(pcm []float32) error {
	if err := d.dec.DecodePLCFloat32(pcm[:len(pcm):len(pcm)]); err != nil {
		return fmt.Errorf("conceal %d samples: %w", len(pcm), err)
	}
	return nil
}

// DecodeFEC fills pcm with what was lost just before next, from the copy that next carries if it carries one (it then restores the
// length of one of next's frames, at the end of pcm, and conceals the rest). The length is a multiple of 120 samples.
func (d *Decoder) DecodeFEC(next []byte, pcm []float32) error {
	if len(next) == 0 || len(pcm) == 0 {
		return errEmpty
	}
	if err := d.dec.DecodeFECFloat32(next, pcm[:len(pcm):len(pcm)]); err != nil {
		return fmt.Errorf("decode Opus FEC: %w", err)
	}
	return nil
}

var errEmpty = errors.New("decode Opus: nothing given")
