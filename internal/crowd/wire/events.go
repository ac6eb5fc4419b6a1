package wire

import (
	"bytes"
	"iter"
)

// EventData gives the data of the events of a kind in a piece of an event stream (WHATWG HTML, 9.2) that holds whole events, each with
// one line of data.
func EventData(b []byte, kind string) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		right := false
		for line := range bytes.Lines(b) {
			line = bytes.TrimRight(line, "\r\n")
			if len(line) == 0 {
				right = false
				continue
			}
			if v, ok := bytes.CutPrefix(line, []byte("event:")); ok {
				right = string(bytes.TrimSpace(v)) == kind
			} else if v, ok := bytes.CutPrefix(line, []byte("data:")); ok && right {
				if !yield(bytes.TrimSpace(v)) {
					return
				}
			}
		}
	}
}
