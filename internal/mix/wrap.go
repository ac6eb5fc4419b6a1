package mix

// All arithmetic on numbers that wrap around (RFC 3550, 5.1) is in this file. Everything else counts in int64.

// seqDiff is how far a lies after b: from -32768 to 32767.
func seqDiff(a, b uint16) int64 { return int64(int16(a - b)) }

// tsDiff is how far a lies after b, in samples.
func tsDiff(a, b uint32) int64 { return int64(int32(a - b)) }

// How far a number may lie after or before the newest and still belong to the same stream (RFC 3550, A.1, which has 3000 and 100). At
// 20 ms a sender may be gone for a minute, and five seconds late.
const (
	maxDropout  = 3000
	maxMisorder = 256
)

// maxClockError is by how much a timestamp may disagree with the clock on the wall before it is taken for a restarted clock, in
// samples: two seconds.
const maxClockError = 2 * Rate

// maxBehind is how far the timestamp of an older packet may lie behind: maxMisorder packets of 120 ms.
const maxBehind = maxMisorder * maxSamples

// place says where a packet stands among those that came before.
type place int

const (
	placeNew     place = iota // after all others
	placeOld                  // between or before others
	placeFirst                // the first of a stream, or of a new stream in the place of the old one: all before it is void
	placeStrange              // belongs nowhere; if the next follows it, a new stream begins
)

// unwrapper turns the numbers of one RTP stream, which start anywhere, wrap around, jump when a sender changes its source and
// restart when it changes its clock, into counts that never go back and never jump by more than what time passed.
type unwrapper struct {
	started bool
	seq     uint16 // the newest packet, as received
	ts      uint32
	arrived int64 // samples
	samples int64 // its duration

	seq64, ts64 int64 // the newest packet, unwrapped

	strange bool // the packet before was strange, and this is it
	oddSeq  uint16

	jumps uint64 // new streams and restarted clocks
}

// take unwraps the numbers of a packet that arrived at the given sample of the local clock.
func (u *unwrapper) take(seq uint16, ts uint32, arrived, samples int64) (seq64, ts64 int64, where place) {
	if !u.started {
		u.started, u.samples = true, Frame
		// A sender may reorder from the first packet on; the counts stay positive.
		u.seq64, u.ts64 = 1<<16, 1<<32
		u.set(seq, ts, arrived, samples)
		return u.seq64, u.ts64, placeFirst
	}
	ds, dt := seqDiff(seq, u.seq), tsDiff(ts, u.ts)
	older := ds <= 0 && ds >= -maxMisorder && dt <= 0 && dt >= -maxBehind && (ds != 0 || dt == 0)
	switch {
	case older:
		u.strange = false
		return u.seq64 + ds, u.ts64 + dt, placeOld
	case ds <= 0 || ds > maxDropout:
		// One number out of the blue is noise; two in a row are another source (RFC 3550, A.1).
		if !u.strange || seqDiff(seq, u.oddSeq) != 1 {
			u.strange, u.oddSeq = true, seq
			return 0, 0, placeStrange
		}
		u.strange = false
		u.jumps++
		u.seq64 += 1 << 16
		u.ts64 += u.samples + max(arrived-u.arrived, 0)
		u.set(seq, ts, arrived, samples)
		return u.seq64, u.ts64, placeFirst
	}
	u.strange = false
	passed := max(arrived-u.arrived, 0)
	if off := dt - passed; off > maxClockError || off < -maxClockError {
		// The sender's clock was restarted, or it stood still: go on as though the packets between had been as long as the last.
		if next := ds * u.samples; dt != next {
			if d := dt - next; d > maxClockError || d < -maxClockError {
				u.jumps++
				dt = min(next, maxClockError)
			}
		}
	}
	u.seq64 += ds
	u.ts64 += max(dt, 0)
	u.set(seq, ts, arrived, samples)
	return u.seq64, u.ts64, placeNew
}

func (u *unwrapper) set(seq uint16, ts uint32, arrived, samples int64) {
	u.seq, u.ts, u.arrived = seq, ts, arrived
	if samples > 0 {
		u.samples = samples
	}
}
