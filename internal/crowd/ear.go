package crowd

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"

	"earshot/internal/crowd/tally"
	"earshot/internal/crowd/wire"
	"earshot/internal/mix"
)

const (
	// earFrames is how much an ear keeps until it is compared; the server keeps a minute.
	earFrames = 30 * 50
	// settling is how many frames a decoder that begins in the middle needs until it gives what another gives that began earlier.
	settling = 50
	// alike is the least correlation of two seconds that sound the same. The packets are the same bytes, so they should be 1.
	alike = 0.98
	// silent is the energy of a second below which it has no shape to compare: -80 dBFS.
	silent = 48000 * 1e-8
)

// ear keeps the packets that one listener of the sample got, by frame.
type ear struct {
	heard []heard
	store []byte
}

// heard is an Opus packet whose first frame has this number; a packet may hold several.
type heard struct {
	frame    uint64
	from, to int // in the store
}

// take keeps a copy. What nobody fetches in time is left out.
func (e *ear) take(frame uint64, packet []byte) {
	if len(e.heard) >= earFrames || len(packet) == 0 {
		return
	}
	from := len(e.store)
	e.store = append(e.store, packet...)
	e.heard = append(e.heard, heard{frame, from, len(e.store)})
}

// chunk keeps the samples of a fMP4 chunk whose first has this number.
func (e *ear) chunk(c *wire.Chunk, number uint64) {
	at := 0
	for i := range c.Count {
		packet := c.Sample(i, at)
		if packet == nil {
			return
		}
		at += len(packet)
		e.take(number+uint64(i), packet)
	}
}

// empty hands over what was kept.
func (e *ear) empty() *ear {
	full := &ear{heard: e.heard, store: e.store}
	e.heard, e.store = nil, nil
	return full
}

// sound decodes what was kept: frames of 960 samples by number. Runs are what follows each other; each begins a decoder anew, and
// its first frames, which are not settled, are left out.
func (e *ear) sound() (map[uint64][]float32, error) {
	slices.SortStableFunc(e.heard, func(a, b heard) int { return int(int64(a.frame) - int64(b.frame)) })
	out := make(map[uint64][]float32, len(e.heard))
	var dec *mix.Decoder
	next, begun := uint64(0), uint64(0)
	pcm := make([]float32, 5760)
	for i, h := range e.heard {
		if i > 0 && h.frame < next {
			continue // came twice
		}
		if dec == nil || h.frame != next {
			var err error
			if dec, err = mix.NewDecoder(); err != nil {
				return nil, err
			}
			begun = h.frame
		}
		n, err := dec.Decode(e.store[h.from:h.to], pcm)
		if err != nil {
			return nil, fmt.Errorf("frame %d: %w", h.frame, err)
		}
		for k := range uint64(n / 960) {
			if f := h.frame + k; f >= begun+settling {
				out[f] = slices.Clone(pcm[k*960 : (k+1)*960])
			}
		}
		next = h.frame + uint64(n/960)
	}
	return out, nil
}

// compare adds the seconds in which two signals differ or agree. Seconds that either lacks a frame of are passed over.
func compare(ours, programme map[uint64][]float32, t *tally.Tally) {
	var from, to uint64
	for f := range ours {
		if from == 0 || f < from {
			from = f
		}
		to = max(to, f+1)
	}
	for s := (from + 49) / 50; (s+1)*50 <= to; s++ {
		var ab, aa, bb float64
		whole := true
		for f := s * 50; f < (s+1)*50 && whole; f++ {
			a, b := ours[f], programme[f]
			if whole = a != nil && b != nil; !whole {
				break
			}
			for i := range a {
				ab += float64(a[i]) * float64(b[i])
				aa += float64(a[i]) * float64(a[i])
				bb += float64(b[i]) * float64(b[i])
			}
		}
		if !whole {
			continue
		}
		t.AudioSeconds++
		corr := 1.0
		if aa > silent || bb > silent {
			if corr = 0; aa > 0 && bb > 0 {
				corr = ab / math.Sqrt(aa*bb)
			}
		} else {
			t.AudioSilent++
		}
		t.Unlike.Add(int64(math.Round((1 - corr) * 1e6)))
		if corr < alike {
			t.AudioDiffers++
		}
	}
}

// programme fetches and decodes what was broadcast, from the segments of HLS: another way than the listener's.
func programme(ctx context.Context, t *target, c *http.Client, from, to uint64) (map[uint64][]float32, error) {
	var e ear
	for s := from / 100; s*100 < to; s++ {
		b, err := t.get(ctx, c, fmt.Sprintf("/e/%s/hls/seg/%d.m4s", t.Slug, s), "")
		if err != nil { // it lies too far back, or is open: then what is closed of it comes in parts
			b = nil
			for k := uint64(0); k < 5 && s*100+20*k < to; k++ {
				p, err := t.get(ctx, c, fmt.Sprintf("/e/%s/hls/part/%d.%d.m4s", t.Slug, s, k), "")
				if err != nil {
					break
				}
				b = append(b, p...)
			}
		}
		for r := wire.ReadChunks(b); ; {
			chunk, ok, err := r.Next()
			if err != nil {
				return nil, fmt.Errorf("segment %d: %w", s, err)
			}
			if !ok {
				break
			}
			e.chunk(&chunk, chunk.Start/960)
		}
	}
	return e.sound()
}

// audit decodes what ears of the sample have kept and compares it with the programme. Where there is no programme to compare with, it
// says only for how long there was a sound.
func audit(ctx context.Context, t *target, c *http.Client, ears []*ear) (tally.Tally, error) {
	var out tally.Tally
	sounds := make([]map[uint64][]float32, 0, len(ears))
	from, to := uint64(math.MaxUint64), uint64(0)
	for _, e := range ears {
		s, err := e.sound()
		if err != nil {
			return out, err
		}
		sounds = append(sounds, s)
		for f := range s {
			from, to = min(from, f), max(to, f+1)
		}
	}
	if to == 0 {
		return out, nil
	}
	if !t.Earshot {
		for _, s := range sounds {
			compare(s, s, &out)
		}
		return out, nil
	}
	p, err := programme(ctx, t, c, from-min(from, 2*settling), to)
	if err != nil {
		return out, err
	}
	for _, s := range sounds {
		compare(s, p, &out)
	}
	return out, nil
}
