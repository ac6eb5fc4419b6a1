package web

import (
	"sync"
	"sync/atomic"
	"testing"
)

// However many ask at once for what has just changed, it is made once.
func TestShelfMakesOnce(t *testing.T) {
	var s shelf
	var made atomic.Int64
	raw := []byte("#EXTM3U\n")
	begin := make(chan struct{})
	var all sync.WaitGroup
	bodies := make([]*body, 64)
	for i := range bodies {
		all.Go(func() {
			<-begin
			bodies[i] = s.of("talk", "live", raw, func() *body {
				made.Add(1)
				return newBody(playlistType, raw, nil, nil)
			})
		})
	}
	close(begin)
	all.Wait()
	if made.Load() != 1 {
		t.Errorf("made %d times", made.Load())
	}
	for i, b := range bodies {
		if b != bodies[0] {
			t.Errorf("asker %d got a body of its own", i)
		}
	}
	if again := s.get("talk", "live", append([]byte(nil), raw...)); again == bodies[0] {
		t.Error("other bytes gave the old body")
	}
}
