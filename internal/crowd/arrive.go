package crowd

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// arrivals gives the instants at which n listeners come, in order, from the run's beginning. Curves:
//
//	ramp       evenly over within
//	flash      each at any instant of within, as people are who do not know of each other
//	steps:N    N equal groups, evenly over within, each at once
//	file:PATH  as written: a number of seconds a line, as many as there are listeners; longer lines' rest and # are remarks
func arrivals(curve string, n int, within time.Duration, chance *rand.Rand) ([]time.Duration, error) {
	at := make([]time.Duration, n)
	kind, arg, _ := strings.Cut(curve, ":")
	switch kind {
	case "ramp":
		for i := range at {
			at[i] = time.Duration(float64(within) * float64(i) / float64(n))
		}
		return at, nil
	case "flash":
		for i := range at {
			at[i] = time.Duration(chance.Float64() * float64(within))
		}
		slices.Sort(at)
		return at, nil
	case "steps":
		steps, err := strconv.Atoi(arg)
		if err != nil || steps < 1 || steps > n {
			return nil, fmt.Errorf("--curve %s: want a number of steps from 1 to the number of listeners, such as steps:5", curve)
		}
		for i := range at {
			at[i] = within * time.Duration(i*steps/n) / time.Duration(steps)
		}
		return at, nil
	case "file":
		f, err := os.Open(arg)
		if err != nil {
			return nil, fmt.Errorf("--curve %s: %w", curve, err)
		}
		defer f.Close()
		at, err := readTimes(f, n)
		if err != nil {
			return nil, fmt.Errorf("--curve %s: %w", curve, err)
		}
		return at, nil
	}
	return nil, fmt.Errorf("--curve %q: want ramp, flash, steps:N or file:PATH", curve)
}

// readTimes reads n instants and puts them in order.
func readTimes(r io.Reader, n int) ([]time.Duration, error) {
	at := make([]time.Duration, 0, n)
	lines := bufio.NewScanner(r)
	for number := 1; lines.Scan(); number++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		s, err := strconv.ParseFloat(fields[0], 64)
		if err != nil || !(s >= 0 && s <= 86400) {
			return nil, fmt.Errorf("line %d: %q is not a number of seconds from 0 to 86400", number, fields[0])
		}
		at = append(at, time.Duration(s*float64(time.Second)))
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(at) < n {
		return nil, fmt.Errorf("%d times for %d listeners", len(at), n)
	}
	slices.Sort(at)
	return at[:n], nil
}
