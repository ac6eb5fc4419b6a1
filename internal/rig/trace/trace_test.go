package trace_test

import (
	"strings"
	"testing"

	"earshot/internal/rig/trace"
)

func TestAfter(t *testing.T) {
	const log = `7 write(1, "BEGIN\n", 6) = 6
7 fsync(4</data/a>) = -1 EIO (Input/output error)
7 fsync(4</data/a> <unfinished ...>
8 write(2, "x", 1) = 1
7 <... fsync resumed>) = 0
8 fsync(5</data/b> <unfinished ...>
7 write(1, "END\n", 4) = 4
`
	for _, c := range []struct{ pattern, next string }{
		{`"BEGIN`, `7 fsync(4</data/a>) = -1`},
		{`fsync(*/data/a>`, `8 fsync(5`}, // the one that failed does not count, and the other ends where it resumed
		{`fsync(*/data/b>`, ``},          // never came back
		{`fsync(*/data/c>`, ``},
		{`/data/a>*fsync(`, ``}, // not in this order
	} {
		rest, ok := trace.After(log, c.pattern)
		if ok != (c.next != "") || !strings.HasPrefix(rest, c.next) {
			t.Errorf("after %s: %v, %q", c.pattern, ok, rest)
		}
	}
}
