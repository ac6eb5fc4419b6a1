package app

import "testing"

// Memory is given back once after each crowd, not while it comes, and not for a few.
func TestThrift(t *testing.T) {
	var th thrift
	for i, step := range []struct {
		joined uint64
		want   bool
	}{
		{0, false},
		{30, false},
		{60, false}, // a few
		{4000, false},
		{9000, false}, // a crowd comes
		{9010, true},
		{9020, false}, // it is here
		{9400, false},
		{9449, false},
		{9490, false}, // more, but no crowd
		{9515, true},
		{9515, false}, // together they were one
	} {
		if got := th.look(step.joined); got != step.want {
			t.Errorf("look %d, at %d joins: %v", i, step.joined, got)
		}
	}
}
