//go:build linux

package main

import "slices"

// spreadOf gives the percentiles of values, by nearest rank.
func spreadOf(v []float64) spread {
	if len(v) == 0 {
		return spread{}
	}
	v = slices.Sorted(slices.Values(v))
	at := func(p int) float64 { return v[min(len(v)-1, (len(v)*p+99)/100-1)] }
	return spread{N: int64(len(v)), P50: at(50), P95: at(95), P99: at(99), Max: v[len(v)-1]}
}
