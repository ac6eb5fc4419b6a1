package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	countPrefix = "earshot.count." // and the event's ID
	maxReport   = 4 << 10          // bytes
	maxFigure   = 1 << 32
	reportsWait = 4096 // pending reports of one event; more are dropped: each node's next comes in two seconds
)

// Report is how many listen to an event on one node.
type Report struct {
	Node      string         `json:"node"`      // that process: a node that restarts begins from zero under another name
	Epoch     uint64         `json:"epoch"`     // of the frames that it has
	Listening map[string]int `json:"listening"` // by rung
	TunedIn   int            `json:"tuned_in"`  // since it had the first frame of that epoch
}

// Report tells the node that has an event's stage how many listen here. Nothing is kept: without a server it is lost, and the next
// one tells the same.
func (c *Cluster) Report(eventID string, r Report) {
	eng, err := c.working()
	if err != nil || c.join == nil {
		return
	}
	r.Node = c.node + "." + c.run
	body, err := json.Marshal(r)
	if err != nil {
		return // numbers and short words
	}
	_ = eng.nc.Publish(countPrefix+eventID, body) // a connection that fails ends the engine
}

// Reports calls take with what other nodes report of an event, until ctx or the store ends.
func (c *Cluster) Reports(ctx context.Context, eventID string, take func(Report)) {
	if c.join == nil {
		return
	}
	for {
		eng, err := c.await(ctx)
		if err != nil {
			return
		}
		if err := c.hear(ctx, eng, eventID, take); err != nil && eng.life.Err() == nil && ctx.Err() == nil {
			eng.fail(fmt.Errorf("follow the count: %w", err))
		}
	}
}

func (c *Cluster) hear(ctx context.Context, eng *engine, eventID string, take func(Report)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(eng.life, cancel)()
	sub, err := eng.nc.SubscribeSync(countPrefix + eventID)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := sub.SetPendingLimits(reportsWait, reportsWait*256); err != nil {
		return err
	}
	own := c.node + "." + c.run
	for {
		msg, err := sub.NextMsgWithContext(ctx)
		switch {
		case errors.Is(err, nats.ErrSlowConsumer):
			continue
		case err != nil:
			return err
		}
		r, err := parseReport(msg.Data)
		if err != nil {
			c.relay.unreadable.Add(1)
			continue
		}
		if r.Node != own {
			take(r)
		}
	}
}

func parseReport(b []byte) (Report, error) {
	if len(b) > maxReport {
		return Report{}, fmt.Errorf("a report of %d bytes", len(b))
	}
	var r Report
	if err := json.Unmarshal(b, &r); err != nil {
		return Report{}, err
	}
	if r.Node == "" || len(r.Node) > 256 || r.TunedIn < 0 || r.TunedIn > maxFigure {
		return Report{}, errors.New("a report without a node, or with impossible figures")
	}
	for _, n := range r.Listening {
		if n < 0 || n > maxFigure {
			return Report{}, errors.New("a report with impossible figures")
		}
	}
	return r, nil
}

// ReportEvery is how often nodes report.
const ReportEvery = 2 * time.Second
