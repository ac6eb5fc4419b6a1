package mix_test

import (
	"math/rand/v2"
	"testing"

	"earshot/internal/mix"
)

const samples20 = mix.Frame

// Over several wraps of both numbers, with reordering and loss, each packet gets its true place.
func TestNumbersWrap(t *testing.T) {
	const seed = 11
	rnd := rand.New(rand.NewPCG(seed, 0))
	var u mix.Unwrapper
	const n = 300_000 // packets: 4 wraps of the sequence number; the timestamp wraps once in 4.47 million, so it starts near its end
	start, ts0 := uint16(60_000), uint32(1<<32-1_000_000)
	var seqOff, tsOff int64
	for i := int64(0); i < n; {
		run := min(1+rnd.Int64N(6), n-i) // packets that arrive in any order
		for _, k := range rnd.Perm(int(run)) {
			j := i + int64(k)
			if j > 0 && rnd.IntN(20) == 0 {
				continue
			}
			seq, ts := start+uint16(j), ts0+uint32(j*samples20)
			s, at, _, first, strange := u.Take(seq, ts, (i+run)*samples20)
			if first {
				if seqOff != 0 {
					t.Fatalf("seed %d: packet %d begins a new stream", seed, j)
				}
				seqOff, tsOff = s-j, at-j*samples20
			}
			if strange || s-j != seqOff || at-j*samples20 != tsOff {
				t.Fatalf("seed %d: packet %d came out as %d (strange %v), timestamp off by %d", seed, j, s-seqOff, strange, at-j*samples20-tsOff)
			}
		}
		i += run
	}
}

func TestNumbersAtTheEdges(t *testing.T) {
	type packet struct {
		seq uint16
		ts  uint32
		at  int64 // frames
	}
	type want struct {
		seq, ts             int64 // difference from the packet taken before; ts in frames
		old, first, strange bool
	}
	const f = samples20
	for name, c := range map[string]struct {
		before, packet packet
		want           want
	}{
		"next":                      {packet{5, 100, 1}, packet{6, 100 + f, 2}, want{seq: 1, ts: 1}},
		"sequence wraps":            {packet{65535, 100, 1}, packet{0, 100 + f, 2}, want{seq: 1, ts: 1}},
		"sequence wraps back":       {packet{0, 100, 1}, packet{65535, ^uint32(0) - f + 101, 1}, want{seq: -1, ts: -1, old: true}},
		"timestamp wraps":           {packet{5, ^uint32(0) - 9, 1}, packet{6, f - 10, 2}, want{seq: 1, ts: 1}},
		"lost some":                 {packet{5, 0, 1}, packet{15, 10 * f, 11}, want{seq: 10, ts: 10}},
		"silent for a minute":       {packet{5, 0, 1}, packet{6, 3000 * f, 3001}, want{seq: 1, ts: 3000}},
		"stalled for a minute":      {packet{5, 0, 1}, packet{6, f, 3001}, want{seq: 1, ts: 1}},
		"clock jumps ahead":         {packet{5, 0, 1}, packet{6, 1 << 30, 2}, want{seq: 1, ts: 1}},
		"clock jumps back":          {packet{5, 1 << 30, 1}, packet{6, 77, 2}, want{seq: 1, ts: 1}},
		"clock jumps half way":      {packet{5, 0, 1}, packet{6, 1 << 31, 2}, want{seq: 1, ts: 1}},
		"the same again":            {packet{5, 500, 1}, packet{5, 500, 2}, want{old: true}},
		"the same number, not time": {packet{5, 500, 1}, packet{5, 501, 2}, want{strange: true}},
		"older with a later time":   {packet{5, 500, 1}, packet{4, 501, 2}, want{strange: true}},
		"far ahead":                 {packet{5, 0, 1}, packet{5 + 3001, 0, 2}, want{strange: true}},
		"far behind":                {packet{5, 0, 1}, packet{65536 + 5 - 3001, 0, 2}, want{strange: true}},
		"half way round":            {packet{5, 0, 1}, packet{5 + 32768, 0, 2}, want{strange: true}},
	} {
		t.Run(name, func(t *testing.T) {
			var u mix.Unwrapper
			s0, t0, _, first, _ := u.Take(c.before.seq, c.before.ts, c.before.at*f)
			if !first {
				t.Fatal("the first packet isn't the first")
			}
			s, ts, old, first, strange := u.Take(c.packet.seq, c.packet.ts, c.packet.at*f)
			got := want{s - s0, (ts - t0) / f, old, first, strange}
			if strange {
				got.seq, got.ts = 0, 0
			}
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// Two packets in a row from nowhere are a new source; one is not.
func TestNewSource(t *testing.T) {
	var u mix.Unwrapper
	s0, t0, _, _, _ := u.Take(100, 1000, 0)
	if _, _, _, _, strange := u.Take(40000, 5, samples20); !strange {
		t.Error("one stray packet was believed")
	}
	if s, _, _, _, _ := u.Take(101, 1000+samples20, 2*samples20); s != s0+1 {
		t.Error("a stray packet disturbed the stream")
	}
	u.Take(40000, 5, 3*samples20)
	s, ts, _, first, _ := u.Take(40001, 5+samples20, 4*samples20)
	if !first || s <= s0+1 || ts <= t0 {
		t.Errorf("the new source begins at %d, %d after %d, %d, first %v", s, ts, s0, t0, first)
	}
	if n, at, old, first, strange := u.Take(40002, 5+2*samples20, 5*samples20); n != s+1 || at != ts+samples20 || old || first || strange {
		t.Error("the new source doesn't go on")
	}
}

// Whatever comes, the newest number never goes back, and no packet takes the timestamp further than the time that passed or the packets
// that are missing explain, and two seconds.
func FuzzNumbers(f *testing.F) {
	f.Add([]byte{0, 1, 0, 0, 3, 192, 0, 2, 0, 0, 7, 128})
	f.Add([]byte{255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 2, 192, 128, 0, 128, 0, 0, 0, 128, 1, 128, 0, 3, 192})
	f.Fuzz(func(t *testing.T, data []byte) {
		var u mix.Unwrapper
		var newest, newestTS, last int64
		for i := int64(0); len(data) >= 6; i++ {
			seq := uint16(data[0])<<8 | uint16(data[1])
			ts := uint32(data[2])<<24 | uint32(data[3])<<16 | uint32(data[4])<<8 | uint32(data[5])
			data = data[6:]
			s, at, old, first, strange := u.Take(seq, ts, i*samples20)
			if strange || old && s <= newest {
				continue
			}
			if s <= newest || at < newestTS {
				t.Fatalf("packet %d (first %v): %d after %d, timestamp %d after %d", i, first, s, newest, at, newestTS)
			}
			if explained := max(i-last+1, s-newest) * samples20; newest > 0 && !first && at-newestTS > explained+2*mix.Rate {
				t.Fatalf("packet %d: the timestamp ran ahead by %d", i, at-newestTS)
			}
			newest, newestTS, last = s, at, i
		}
	})
}
