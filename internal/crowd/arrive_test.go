package crowd

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestArrivals(t *testing.T) {
	chance := rand.New(rand.NewPCG(1, 0))
	file := filepath.Join(t.TempDir(), "times")
	if err := os.WriteFile(file, []byte("# seconds\n2.5\n\n0.5 late\n1\n7 # more than are wanted\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const within = 10 * time.Second
	for _, c := range []struct {
		curve string
		n     int
		check func([]time.Duration) bool
	}{
		{"ramp", 5, func(at []time.Duration) bool {
			return slices.Equal(at, []time.Duration{0, 2 * time.Second, 4 * time.Second, 6 * time.Second, 8 * time.Second})
		}},
		{"flash", 1000, func(at []time.Duration) bool {
			half := 0
			for _, a := range at {
				if a < within/2 {
					half++
				}
			}
			return slices.IsSorted(at) && at[0] >= 0 && at[999] < within && half > 400 && half < 600
		}},
		{"steps:2", 4, func(at []time.Duration) bool {
			return slices.Equal(at, []time.Duration{0, 0, within / 2, within / 2})
		}},
		{"file:" + file, 3, func(at []time.Duration) bool {
			return slices.Equal(at, []time.Duration{time.Second / 2, time.Second, 2500 * time.Millisecond})
		}},
	} {
		at, err := arrivals(c.curve, c.n, within, chance)
		if err != nil || len(at) != c.n || !c.check(at) {
			t.Errorf("%s: %v, %v", c.curve, at, err)
		}
	}
	for curve, want := range map[string]string{
		"parabola": "want ramp", "steps:0": "number of steps", "steps:x": "number of steps", "file:/nowhere": "no such file", "file:" + file: "4 times for 5",
	} {
		if _, err := arrivals(curve, 5, within, chance); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", curve, err)
		}
	}
	for _, bad := range []string{"-1\n", "NaN\n", "1e9\n", "soon\n"} {
		if at, err := readTimes(strings.NewReader(bad), 1); err == nil {
			t.Errorf("%q was read as %v", bad, at)
		}
	}
}
