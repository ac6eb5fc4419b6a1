package web

import (
	"context"
	"net/http"
	"time"

	"earshot/internal/event"
)

// Pacer is what the operator may slow down before the load does. SetPace answers *event.Error with Invalid for a value that there is not.
type Pacer interface {
	Pace() Pace
	SetPace(Pace) error
}

// Pace is what this node gives its listeners at the quickest.
type Pace struct {
	Push time.Duration // from one message of push to the next
	WHEP time.Duration // of programme in one WebRTC packet
}

type paceJSON struct {
	PushMS int64 `json:"push_ms,omitempty" enum:"200,400,1000,2000" doc:"Milliseconds from one message of push to the next, at the quickest."`
	WHEPMS int64 `json:"whep_ms,omitempty" enum:"20,60,120" doc:"Milliseconds of programme in one WebRTC packet, at the least."`
}

type paceOut struct{ Body paceJSON }

type paceIn struct{ Body paceJSON }

// pace adds the operator's hand on what listeners are given.
func (a api) pace() {
	s := a.web
	out := func() *paceOut {
		p := s.cfg.Pacer.Pace()
		return &paceOut{paceJSON{PushMS: p.Push.Milliseconds(), WHEPMS: p.WHEP.Milliseconds()}}
	}
	add(a, operation{
		id: "get-pace", method: http.MethodGet, path: "/api/v1/pace", tag: tagOperation, need: event.Operate,
		summary: "What this node gives its listeners at the quickest",
		about:   "By the operator's hand and by load.",
	}, func(context.Context, call, *struct{}) (*paceOut, error) { return out(), nil })
	add(a, operation{
		id: "set-pace", method: http.MethodPut, path: "/api/v1/pace", tag: tagOperation, need: event.Operate,
		summary: "Slow this node's listeners down, or let them be quick again",
		about: "Nothing quicker is given from then on; what is left out stays. Listeners are told at least ten seconds before it gets slower. " +
			"Under load the node slows down by itself.",
	}, func(_ context.Context, _ call, in *paceIn) (*paceOut, error) {
		err := s.cfg.Pacer.SetPace(Pace{
			Push: time.Duration(in.Body.PushMS) * time.Millisecond, WHEP: time.Duration(in.Body.WHEPMS) * time.Millisecond,
		})
		if err != nil {
			return nil, err
		}
		return out(), nil
	})
}
