// Package tally counts what a crowd of simulated listeners meets, in a form that adds up: over a run's seconds and over the
// processes that the crowd is spread on.
package tally

import (
	"encoding/json"
	"fmt"
	"math/bits"
)

// A histogram's buckets are 64 to each power of two: values are kept within 1.6 %. 42 powers of a microsecond are 50 days.
const (
	subBits = 6
	sub     = 1 << subBits
	buckets = sub * (42 - subBits + 1)
)

// Histogram holds a distribution of durations in microseconds. The zero value is empty. It is not safe for concurrent use.
type Histogram struct {
	counts []uint32
	total  uint64
	sum    int64
	max    int64
}

func bucketOf(us int64) int {
	if us < 0 {
		us = 0
	}
	if us < sub {
		return int(us)
	}
	power := bits.Len64(uint64(us)) - 1 // at least subBits
	i := (power-subBits+1)*sub + int(us>>(power-subBits)) - sub
	return min(i, buckets-1)
}

// upper is the largest value of a bucket.
func upper(i int) int64 {
	if i < sub {
		return int64(i)
	}
	power := i/sub - 1 // of the bucket's width
	return int64(i%sub+sub+1)<<power - 1
}

// Add counts one duration in microseconds; a negative one counts as 0.
func (h *Histogram) Add(us int64) {
	if h.counts == nil {
		h.counts = make([]uint32, buckets)
	}
	us = max(us, 0)
	h.counts[bucketOf(us)]++
	h.total++
	h.sum += us
	h.max = max(h.max, us)
}

// Count is how many there are.
func (h *Histogram) Count() uint64 { return h.total }

// Merge adds the other's.
func (h *Histogram) Merge(o *Histogram) {
	if o.total == 0 {
		return
	}
	if h.counts == nil {
		h.counts = make([]uint32, buckets)
	}
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.total += o.total
	h.sum += o.sum
	h.max = max(h.max, o.max)
}

// Reset empties it and keeps its memory.
func (h *Histogram) Reset() {
	clear(h.counts)
	h.total, h.sum, h.max = 0, 0, 0
}

// Quantile is the least duration in microseconds that q (0 to 1) of all do not exceed, within 1.6 %; 0 if there are none.
func (h *Histogram) Quantile(q float64) int64 {
	if h.total == 0 {
		return 0
	}
	want := max(uint64(q*float64(h.total)+0.999999), 1)
	var seen uint64
	for i, n := range h.counts {
		if seen += uint64(n); seen >= want && i < buckets-1 { // the last holds all that is longer
			return min(upper(i), h.max)
		}
	}
	return h.max
}

// Spread is what a report says of a distribution, in milliseconds.
type Spread struct {
	P50   float64 `json:"p50"`
	P95   float64 `json:"p95"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
	Mean  float64 `json:"mean"`
	Count uint64  `json:"count"`
}

// Spread sums up.
func (h *Histogram) Spread() Spread {
	if h.total == 0 {
		return Spread{}
	}
	ms := func(us int64) float64 { return float64(us) / 1000 }
	return Spread{
		P50: ms(h.Quantile(.5)), P95: ms(h.Quantile(.95)), P99: ms(h.Quantile(.99)), Max: ms(h.max),
		Mean: float64(h.sum/int64(h.total)) / 1000, Count: h.total,
	}
}

// sparse is a histogram on the wire between processes: pairs of bucket and count.
type sparse struct {
	Pairs []uint32 `json:"p,omitempty"`
	Sum   int64    `json:"s,omitempty"`
	Max   int64    `json:"m,omitempty"`
}

// MarshalJSON writes the buckets that are not empty.
func (h *Histogram) MarshalJSON() ([]byte, error) {
	s := sparse{Sum: h.sum, Max: h.max}
	for i, n := range h.counts {
		if n > 0 {
			s.Pairs = append(s.Pairs, uint32(i), n)
		}
	}
	return json.Marshal(s)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (h *Histogram) UnmarshalJSON(b []byte) error {
	var s sparse
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	*h = Histogram{sum: s.Sum, max: s.Max}
	if len(s.Pairs)%2 != 0 {
		return fmt.Errorf("histogram of %d numbers", len(s.Pairs))
	}
	if len(s.Pairs) > 0 {
		h.counts = make([]uint32, buckets)
	}
	for i := 0; i < len(s.Pairs); i += 2 {
		if s.Pairs[i] >= buckets {
			return fmt.Errorf("histogram with bucket %d", s.Pairs[i])
		}
		h.counts[s.Pairs[i]] += s.Pairs[i+1]
		h.total += uint64(s.Pairs[i+1])
	}
	return nil
}
