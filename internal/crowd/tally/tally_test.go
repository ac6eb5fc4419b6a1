package tally_test

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"testing"

	"earshot/internal/crowd/tally"
)

// A distribution that is split over processes, sent as JSON and merged has the quantiles of the whole, within a bucket.
func TestMergedQuantiles(t *testing.T) {
	const seed = 1
	chance := rand.New(rand.NewPCG(seed, 0))
	var all []int64
	shares := make([]tally.Tally, 5)
	for range 20000 {
		v := int64(chance.ExpFloat64() * 30000)
		if chance.IntN(100) == 0 {
			v *= 1000
		}
		all = append(all, v)
		shares[chance.IntN(len(shares))].Delay.Add(v)
	}
	slices.Sort(all)
	var merged tally.Tally
	for i := range shares {
		b, err := json.Marshal(&shares[i])
		if err != nil {
			t.Fatal(err)
		}
		var back tally.Tally
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		merged.Merge(&back)
	}
	if got := merged.Delay.Count(); got != 20000 {
		t.Errorf("%d values", got)
	}
	for _, q := range []float64{0, .01, .5, .95, .99, .999, 1} {
		want := all[min(len(all)-1, max(0, int(q*float64(len(all))+.999999)-1))]
		got := merged.Delay.Quantile(q)
		if got < want || float64(got) > float64(want)*1.017+1 {
			t.Errorf("quantile %v is %d, want %d", q, got, want)
		}
	}
	if s := merged.Delay.Spread(); s.Max != float64(all[len(all)-1])/1000 {
		t.Errorf("max %v, want %v", s.Max, all[len(all)-1])
	}
}

func TestHistogramsEnds(t *testing.T) {
	var h tally.Histogram
	if h.Quantile(.5) != 0 || h.Spread() != (tally.Spread{}) {
		t.Error("an empty histogram has values")
	}
	for _, v := range []int64{-5, 0, 1, 63, 64, 65, 1 << 40, 1 << 60} {
		var h tally.Histogram
		h.Add(v)
		if got := h.Quantile(1); got != max(v, 0) {
			t.Errorf("of %d alone the maximum is %d", v, got)
		}
	}
	h.Add(7)
	h.Reset()
	if h.Count() != 0 || h.Quantile(1) != 0 {
		t.Error("a reset histogram has values")
	}
	for _, bad := range []string{`{"p":[1]}`, `{"p":[999999,1]}`, `7`} {
		if json.Unmarshal([]byte(bad), &h) == nil {
			t.Errorf("%s was read", bad)
		}
	}
}

// Merge adds everything: a tally of ones, merged twice, is one of twos.
func TestMergeAddsAll(t *testing.T) {
	ones := map[string]any{}
	b, err := json.Marshal(&tally.Tally{})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &ones); err != nil {
		t.Fatal(err)
	}
	fields := 0
	for k, v := range ones {
		if _, number := v.(float64); number {
			ones[k] = 1
			fields++
		}
	}
	if b, err = json.Marshal(ones); err != nil {
		t.Fatal(err)
	}
	var one, two tally.Tally
	if err := json.Unmarshal(b, &one); err != nil {
		t.Fatal(err)
	}
	one.Fail("refused")
	one.Lose("reset")
	two.Merge(&one)
	two.Merge(&one)
	if b, err = json.Marshal(&two); err != nil {
		t.Fatal(err)
	}
	twos := map[string]any{}
	if err := json.Unmarshal(b, &twos); err != nil {
		t.Fatal(err)
	}
	for k, v := range twos {
		if n, number := v.(float64); number && n != 2 {
			t.Errorf("%s is %v", k, n)
		}
	}
	if two.Failed["refused"] != 2 || two.Lost["reset"] != 2 || fields < 15 {
		t.Errorf("%v %v, %d fields", two.Failed, two.Lost, fields)
	}
	two.Reset()
	if b, _ = json.Marshal(&two); string(b) == "" || two.Joined != 0 || len(two.Failed) != 0 {
		t.Errorf("after a reset: %s", b)
	}
}

func TestAddAllocatesNothing(t *testing.T) {
	var h tally.Histogram
	h.Add(1)
	if n := testing.AllocsPerRun(100, func() { h.Add(12345) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
