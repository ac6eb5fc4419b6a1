package timeline

import (
	"encoding/json"
	"errors"
	"fmt"
)

// ReadChunks is the inverse of the packaging: the frames (of epoch 0) and cues in a sequence of CMAF chunks, such as a
// segment's Bytes. It takes only what this package writes, byte for byte but for the JSON of the cues; packets point into b.
// Chunks must come in rising order; a gap can only end, and a short chunk only be followed, where a segment begins.
func ReadChunks(b []byte) ([]Frame, []Cue, error) {
	var frames []Frame
	var cues []Cue
	total, next := len(b), uint64(0)
	for len(b) > 0 {
		c := chunkReader{b: b}
		first, err := c.chunk(&frames, &cues)
		if err == nil && len(b) < total && (first < next || first > next && first%FramesPerSegment != 0) {
			err = fmt.Errorf("%w: frame %d after frame %d", errLayout, first, next-1)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("timeline: chunk at byte %d of %d: %w", total-len(b), total, err)
		}
		next, b = frames[len(frames)-1].Number+1, c.b
	}
	return frames, cues, nil
}

var (
	errTruncated = errors.New("truncated")
	errLayout    = errors.New("not as this program writes it")
)

// chunkReader takes a chunk apart from the front. After the first error everything reads as zero, and err stays.
type chunkReader struct {
	b   []byte
	err error
}

func (r *chunkReader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.fail(errTruncated)
	}
	if r.err != nil {
		return nil
	}
	head := r.b[:n:n]
	r.b = r.b[n:]
	return head
}

func (r *chunkReader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *chunkReader) u32() uint32 {
	if b := r.take(4); b != nil {
		return be.Uint32(b)
	}
	return 0
}

func (r *chunkReader) u64() uint64 {
	if b := r.take(8); b != nil {
		return be.Uint64(b)
	}
	return 0
}

// want reads words that can only be these.
func (r *chunkReader) want(words ...uint32) {
	for _, w := range words {
		if got := r.u32(); r.err == nil && got != w {
			r.fail(fmt.Errorf("%w: %#x instead of %#x", errLayout, got, w))
		}
	}
}

// box reads a header of the given kind and gives the length of what follows it.
func (r *chunkReader) box(kind string) int {
	size := r.u32()
	if got := r.take(4); r.err == nil && string(got) != kind {
		r.fail(fmt.Errorf("%w: box %q instead of %q", errLayout, got, kind))
	}
	if r.err == nil && (size < 8 || uint64(size) > uint64(len(r.b))+8) {
		r.fail(errTruncated)
	}
	return int(size) - 8
}

func (r *chunkReader) sized(kind string, size int) {
	if got := r.box(kind); r.err == nil && got != size-8 {
		r.fail(fmt.Errorf("%w: %s of %d bytes", errLayout, kind, got+8))
	}
}

// chunk reads [emsg] moof mdat and gives the number of its first frame.
func (r *chunkReader) chunk(frames *[]Frame, cues *[]Cue) (uint64, error) {
	var message []byte
	var emsgTime uint64
	var emsgDuration, emsgID uint32
	hasCues := len(r.b) >= 8 && string(r.b[4:8]) == "emsg"
	if hasCues {
		n := r.box("emsg") - (emsgFixed - 8)
		r.want(1<<24, timescale)
		emsgTime, emsgDuration, emsgID = r.u64(), r.u32(), r.u32()
		if got := r.take(len(CueScheme) + 2); r.err == nil && string(got) != CueScheme+"\x00\x00" {
			r.fail(fmt.Errorf("%w: emsg scheme %q", errLayout, got))
		}
		message = r.take(n)
	}
	moof := r.box("moof")
	r.sized("mfhd", mfhdSize)
	r.want(0)
	seq := r.u32()
	r.sized("traf", moof-mfhdSize)
	r.sized("tfhd", tfhdSize)
	r.want(tfhdFlags, trackID, samplesPerFrame)
	r.sized("tfdt", tfdtSize)
	r.want(1 << 24)
	time := r.u64()
	trun := r.box("trun")
	r.want(trunFlags)
	count := r.u32()
	if r.err == nil && (count < 1 || count > FramesPerPart || trun+8 != trunFixed+4*int(count) || moof+8 != moofFixed+4*int(count)) {
		r.fail(fmt.Errorf("%w: %d frames", errLayout, count))
	}
	r.want(uint32(moof) + 16)
	sizes := r.take(4 * int(count))
	mdat := r.box("mdat")
	if r.err != nil {
		return 0, r.err
	}

	first, number := time/samplesPerFrame, time/samplesPerFrame/FramesPerPart
	if time%(samplesPerFrame*FramesPerPart) != 0 || seq != sequence(number) {
		return 0, fmt.Errorf("%w: decode time %d in fragment %d", errLayout, time, seq)
	}
	for i := range uint64(count) {
		n := int(be.Uint32(sizes[4*i:]))
		packet := r.take(n)
		if r.err != nil {
			return 0, r.err
		}
		if err := checkFrame(packet); err != nil {
			return 0, fmt.Errorf("frame %d: %w", first+i, err)
		}
		mdat -= n
		*frames = append(*frames, Frame{Number: first + i, Packet: packet})
	}
	if mdat != 0 {
		return 0, fmt.Errorf("%w: %d bytes of mdat beside the frames", errLayout, mdat)
	}
	if !hasCues {
		return first, nil
	}
	if emsgTime != time || emsgDuration != count*samplesPerFrame || emsgID != uint32(number) {
		return 0, fmt.Errorf("%w: emsg of another part", errLayout)
	}
	return first, readCues(message, first, first+uint64(count), cues)
}

func readCues(message []byte, from, to uint64, cues *[]Cue) error {
	var some []Cue
	if err := json.Unmarshal(message, &some); err != nil {
		return fmt.Errorf("cues: %w", err)
	}
	if len(some) == 0 || len(some) > maxCues {
		return fmt.Errorf("%w: %d cues", errLayout, len(some))
	}
	at := from
	for _, c := range some {
		if c.Frame < at || c.Frame >= to {
			return fmt.Errorf("%w: cue at frame %d", errLayout, c.Frame)
		}
		at = c.Frame
		if err := c.check(); err != nil {
			return err
		}
		*cues = append(*cues, c)
	}
	return nil
}
