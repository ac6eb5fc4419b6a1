package crowd

import (
	"context"
	"net/http"
	"sync"
	"time"

	"earshot/internal/crowd/tally"
)

// auditEvery is how many seconds an ear listens between two comparisons.
const auditEvery = 8

// auditor compares what the sample hears, in a goroutine beside the loop, one comparison at a time.
type auditor struct {
	w      *worker
	client *http.Client
	ears   []*ear
	busy   bool
	wg     sync.WaitGroup
	ctx    context.Context
	cancel context.CancelFunc
}

// listenIn makes listeners of the sample listen with an ear.
func (w *worker) listenIn() {
	a := &w.audit
	a.w = w
	a.ctx, a.cancel = context.WithCancel(context.Background())
	a.client = w.job.Target.client()
	n, of := int64(w.cfg.Sample), int64(w.cfg.Listeners)
	for i := range w.crowd {
		l := &w.crowd[i]
		if id := int64(l.id); !l.slow && n > 0 && id*n/of != (id-1+of)*n/of-n {
			l.ear = &ear{}
			a.ears = append(a.ears, l.ear)
		}
	}
}

// tick is called once a second.
func (a *auditor) tick(second int) {
	if second%auditEvery != 0 || a.busy || len(a.ears) == 0 {
		return
	}
	a.busy = true
	full := a.fetch()
	a.wg.Go(func() {
		t, err := a.check(full)
		a.w.loop.hand(func() {
			a.busy = false
			a.found(&t, err)
		})
	})
}

func (a *auditor) fetch() []*ear {
	full := make([]*ear, len(a.ears))
	for i, e := range a.ears {
		full[i] = e.empty()
	}
	return full
}

func (a *auditor) check(full []*ear) (tally.Tally, error) {
	ctx, cancel := context.WithTimeout(a.ctx, 10*time.Second)
	defer cancel()
	return audit(ctx, &a.w.job.Target, a.client, full)
}

func (a *auditor) found(t *tally.Tally, err error) {
	if err != nil {
		a.w.tally.AudioFaults++
	}
	a.w.tally.Merge(t)
}

// close compares what is left.
func (a *auditor) close() {
	a.wg.Wait()
	a.w.loop.handed()
	if len(a.ears) > 0 {
		t, err := a.check(a.fetch())
		a.found(&t, err)
	}
	a.cancel()
	a.client.CloseIdleConnections()
}
