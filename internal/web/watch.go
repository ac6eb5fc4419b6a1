package web

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"earshot/internal/event"
)

// heartbeat keeps proxies from taking a quiet event stream for a dead one.
const heartbeat = 15 * time.Second

// maxWatches bounds one person's streams of a stage at once. Each costs an encoding five times a second, and anybody may raise a hand.
const maxWatches = 16

// watches counts streams by person.
type watches struct {
	mu sync.Mutex
	by map[string]int
}

// begin counts one in; the returned function counts it out.
func (w *watches) begin(person string) (done func(), ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.by[person] >= maxWatches {
		return nil, false
	}
	if w.by == nil {
		w.by = make(map[string]int)
	}
	w.by[person]++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.by[person]--; w.by[person] == 0 {
			delete(w.by, person)
		}
	}, true
}

// watch adds the event stream of a stage. It is not huma's: it has no end, and no schema that OpenAPI could say.
func (a api) watch() {
	path := eventPath + "/stage/watch"
	a.web.handleLong("GET "+path, a.web.watchStage)
	op := a.describe(operation{
		id: "watch-stage", method: http.MethodGet, path: path, tag: tagStage, summary: "The stage as it changes", need: event.See,
		about: "An event stream: `stage` (the stage, at once and on change) and `levels` (dBFS by person, five times a second; \"\" is the programme).",
	})
	op.Parameters = []*huma.Param{pathParam("slug", "The event's address.")}
	op.Responses["200"] = streamed("text/event-stream", "The stream.")
	a.huma.OpenAPI().AddOperation(&op)
}

// watchStage sends the stage to one of its people until they go, leave the stage, or the stage ends.
func (s *web) watchStage(w http.ResponseWriter, r *http.Request) {
	c, err := s.judge(r, r.PathValue("slug"), event.See)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	room, err := s.stage(c.event)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if !c.operator {
		done, ok := s.watches.begin(c.me.ID) // unique over all events
		if !ok {
			s.fail(w, r, event.Busy("You watch this stage on too many screens already. Close one first."))
			return
		}
		defer done()
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // proxies that gather responses are asked not to
	if r.Method == http.MethodHead {
		return
	}
	out := &eventStream{w: w, ctl: http.NewResponseController(w)}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	st := room.Stage
	for {
		// The channels come before the state, so that no change falls between.
		changed, levels, parts := st.Changed(), st.LevelsChanged(), room.Timeline.PartClosed()
		// Judged again each time: who was taken off the stage, or whose invite was withdrawn, sees no more of it.
		if c, err = s.judge(r, c.event.Slug, event.See); err != nil {
			return
		}
		out.send("stage", s.showStage(c, st))
		if !out.ok() || room.Timeline.Closed() {
			return
		}
		for again := false; !again; {
			select {
			case <-r.Context().Done():
				return
			case <-changed:
				again = true
			case <-levels:
				levels = st.LevelsChanged()
				out.send("levels", st.Levels())
			case <-parts:
				parts = room.Timeline.PartClosed()
				again = room.Timeline.Closed()
			case <-beat.C:
				out.comment()
			}
			if !out.ok() {
				return
			}
		}
	}
}

// eventStream writes server-sent events, each to be taken within writeWait.
type eventStream struct {
	w   http.ResponseWriter
	ctl *http.ResponseController
	err error
}

func (e *eventStream) ok() bool { return e.err == nil }

func (e *eventStream) send(name string, data any) {
	b, err := json.Marshal(data)
	if err != nil {
		e.err = err
		return
	}
	e.write("event: " + name + "\ndata: " + string(b) + "\n\n") // JSON has no line breaks
}

func (e *eventStream) comment() { e.write(":\n\n") }

func (e *eventStream) write(text string) {
	if e.err != nil {
		return
	}
	_ = e.ctl.SetWriteDeadline(time.Now().Add(writeWait)) // a writer without deadlines is a test's
	if _, e.err = e.w.Write([]byte(text)); e.err == nil {
		e.err = e.ctl.Flush()
	}
}
