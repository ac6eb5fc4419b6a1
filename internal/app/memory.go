package app

import (
	"context"
	"os"
	"runtime/debug"
	"time"
)

// When memory is given back: once a crowd of so many has come, and then fewer than that come in a look's time.
const (
	lookEvery = 5 * time.Second
	crowd     = 500
	stillness = 50
)

// thrift decides when to collect.
type thrift struct {
	last  uint64 // joins at the last look
	since uint64 // joins at the last collection
}

// look is told how many have joined so far, and says whether it is time.
func (t *thrift) look(joined uint64) bool {
	came := joined - t.last
	t.last = joined
	if came >= stillness || joined-t.since < crowd {
		return false
	}
	t.since = joined
	return true
}

// growth is by how many percent the heap grows before it is collected (GOGC, where the operator says nothing). A crowd's arrival is all that
// allocates, so half of the usual costs nothing that could be measured, and spares a fifth of the memory at the peak.
const growth = 50

// giveMemoryBack collects after a crowd's arrival, until ctx ends. What joining takes, a TLS handshake above all, is ten times what a listener
// keeps; afterwards next to nothing is allocated, so that the runtime would not collect for minutes, and the machine would look full.
func (a *App) giveMemoryBack(ctx context.Context) {
	if os.Getenv("GOGC") == "" {
		defer debug.SetGCPercent(debug.SetGCPercent(growth))
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var t thrift
	for {
		select {
		case <-tick.C:
			if t.look(a.fan.Joined()) {
				debug.FreeOSMemory()
			}
		case <-ctx.Done():
			return
		}
	}
}
