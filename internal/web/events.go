package web

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"earshot/internal/event"
)

const (
	listWait      = 300 * time.Millisecond // for recordings, in a list
	replaySettles = time.Minute            // after the end, until a recording is surely stored whole
)

// eventJSON is an event as the API shows it.
type eventJSON struct {
	ID          string      `json:"id"`
	Slug        string      `json:"slug" doc:"The address, never used twice."`
	Title       string      `json:"title"`
	Description string      `json:"description"`
	Start       time.Time   `json:"start" doc:"The announced minute, in UTC."`
	Zone        string      `json:"zone" doc:"The time zone in which the start is announced."`
	Listed      bool        `json:"listed"`
	Recorded    bool        `json:"recorded"`
	AutoLive    bool        `json:"auto_live" doc:"Goes live by itself at its start."`
	IdleEndS    int         `json:"idle_end_s" doc:"Ends by itself after so many seconds with nobody on stage."`
	Phase       event.Phase `json:"phase" enum:"scheduled,doors,live,ended,cancelled"`
	DoorsAt     time.Time   `json:"doors_at" doc:"When the doors open by themselves."`
	Origin      *time.Time  `json:"origin,omitempty" doc:"The time of frame 0."`
	LiveAt      *time.Time  `json:"live_at,omitempty"`
	EndedAt     *time.Time  `json:"ended_at,omitempty"`
	Created     time.Time   `json:"created"`
	Revision    uint64      `json:"revision" doc:"Rises with each change; the ETag."`
	Replay      *replayJSON `json:"replay,omitempty" doc:"Present after the end, if there is a recording."`
}

type replayJSON struct {
	DurationS float64 `json:"duration_s"`
	Segments  int     `json:"segments"`
}

type eventOut struct {
	ETag         string `header:"ETag"`
	Location     string `header:"Location"`
	CacheControl string `header:"Cache-Control"`
	Body         eventJSON
}

type eventsOut struct {
	Body struct {
		Events []eventJSON `json:"events" nullable:"false" doc:"Newest start first."`
	}
}

type slugIn struct {
	Slug string `path:"slug" doc:"The event's address."`
}

type createIn struct {
	Body struct {
		Slug        string `json:"slug,omitempty" doc:"1 to 64 of a-z, 0-9 and inner single hyphens. Left out: made from the title."`
		Title       string `json:"title" doc:"At most 120 characters."`
		Description string `json:"description,omitempty" doc:"At most 4000 characters."`
		Start       string `json:"start" doc:"RFC 3339, or local time such as 2026-11-28T19:00, read in the zone."`
		Zone        string `json:"zone,omitempty" doc:"IANA name. Default UTC."`
		Listed      bool   `json:"listed,omitempty"`
		Recorded    bool   `json:"recorded,omitempty"`
		AutoLive    bool   `json:"auto_live,omitempty"`
		IdleEndS    int    `json:"idle_end_s,omitempty" doc:"10 to 86400. Default 900."`
	}
}

type patchIn struct {
	Slug    string `path:"slug" doc:"The event's address."`
	IfMatch string `header:"If-Match" doc:"The ETag of the event that the change was made for."`
	Body    struct {
		Slug        *string `json:"slug,omitempty" doc:"Can't be changed: only the slug that it has is taken."`
		Title       *string `json:"title,omitempty"`
		Description *string `json:"description,omitempty"`
		Start       *string `json:"start,omitempty"`
		Zone        *string `json:"zone,omitempty"`
		Listed      *bool   `json:"listed,omitempty"`
		Recorded    *bool   `json:"recorded,omitempty" doc:"Can't be changed once the event is live."`
		AutoLive    *bool   `json:"auto_live,omitempty"`
		IdleEndS    *int    `json:"idle_end_s,omitempty"`
	}
}

func (a api) events() {
	s := a.web
	add(a, operation{
		id: "list-events", method: http.MethodGet, path: "/api/v1/events", tag: tagEvents, summary: "The listed events",
		about: "For the operator all events.",
	}, s.listEvents)
	add(a, operation{
		id: "create-event", method: http.MethodPost, path: "/api/v1/events", tag: tagEvents, summary: "Plan an event",
		need: event.Operate, status: http.StatusCreated,
	}, s.createEvent)
	add(a, operation{
		id: "get-event", method: http.MethodGet, path: eventPath, tag: tagEvents, summary: "One event", public: true,
	}, s.getEvent)
	add(a, operation{
		id: "change-event", method: http.MethodPatch, path: eventPath, tag: tagEvents, summary: "Change the fields given", need: event.Change,
	}, s.changeEvent)
	for _, t := range []struct {
		name, summary string
		to            event.Phase
	}{
		{"doors", "Open the doors", event.Doors},
		{"live", "Go live", event.Live},
		{"end", "End the event", event.Ended},
		{"cancel", "Cancel the event", event.Cancelled},
	} {
		add(a, operation{
			id: t.name + "-event", method: http.MethodPost, path: eventPath + "/" + t.name, tag: tagEvents, summary: t.summary, need: event.Steer,
		}, func(ctx context.Context, c call, _ *slugIn) (*eventOut, error) {
			e, err := s.cfg.House.Turn(ctx, c.event.Slug, t.to)
			if err != nil {
				return nil, s.inPhase(ctx, err, c.event.Slug)
			}
			return s.eventOut(ctx, e), nil
		})
	}
}

// inPhase adds the event's phase to a conflict.
func (s *web) inPhase(ctx context.Context, err error, slug string) error {
	p := problemOf(err)
	if p.Code != event.CodeConflict || p.Phase != "" {
		return p
	}
	if e, err := s.cfg.Store.Event(ctx, slug); err == nil {
		p.Phase = e.Phase
	}
	return p.because(reasonPhase)
}

func (s *web) listEvents(ctx context.Context, c call, _ *struct{}) (*eventsOut, error) {
	all, err := s.cfg.Store.Events(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b event.Event) int {
		if d := b.Start.Compare(a.Start); d != 0 {
			return d
		}
		return strings.Compare(a.Slug, b.Slug)
	})
	out := &eventsOut{}
	out.Body.Events = []eventJSON{}
	// Reading recordings for the first time takes a second for ten hours of them. A list does not wait for that: what is not known
	// in time is left out, and is known the next time, as the archive reads on.
	quick, cancel := context.WithTimeout(ctx, listWait)
	defer cancel()
	for _, e := range all {
		if e.Listed || c.may(event.Operate) {
			out.Body.Events = append(out.Body.Events, s.showEvent(quick, e))
		}
	}
	return out, nil
}

func (s *web) getEvent(ctx context.Context, c call, _ *slugIn) (*eventOut, error) {
	out := s.eventOut(ctx, c.event)
	out.CacheControl = "no-cache"
	return out, nil
}

func (s *web) createEvent(ctx context.Context, _ call, in *createIn) (*eventOut, error) {
	b := in.Body
	e := event.Event{
		ID: newID("ev_"), Slug: b.Slug, Title: b.Title, Description: b.Description, Zone: b.Zone,
		Listed: b.Listed, Recorded: b.Recorded, AutoLive: b.AutoLive, Phase: event.Scheduled, Created: s.now().UTC(),
	}
	var err error
	if e.IdleEnd, err = idleEnd(b.IdleEndS); err != nil {
		return nil, err
	}
	if e.Start, err = startIn(b.Start, b.Zone); err != nil {
		return nil, err
	}
	named := b.Slug != ""
	if !named {
		e.Slug = event.SlugFrom(b.Title)
		if e.Slug == "" {
			e.Slug = newID("event-")[:len("event-")+6]
		}
	}
	if err := e.Clean(); err != nil {
		return nil, err
	}
	if !named {
		if e.Slug, err = s.freeSlug(ctx, e.Slug); err != nil {
			return nil, err
		}
	}
	made, err := s.cfg.Store.CreateEvent(ctx, e)
	if err != nil {
		return nil, s.slugTaken(ctx, err, e.Slug)
	}
	out := s.eventOut(ctx, made)
	out.Location = "/api/v1/events/" + made.Slug
	return out, nil
}

// slugTaken adds a free address to the refusal of one that was used before.
func (s *web) slugTaken(ctx context.Context, err error, slug string) error {
	p := problemOf(err)
	if p.Code != event.CodeConflict || p.Field != "slug" {
		return p
	}
	if free, err := s.freeSlug(ctx, slug); err == nil {
		p.Suggestion = free
		p.Detail = "This address was used before, and none is used twice. Free is, for example: " + free + "."
	}
	return p
}

// freeSlug gives the slug itself or, if it was used, the first of slug-2, slug-3 … that was not; a random one after 99.
// Whether it is free still when it is claimed, the store decides.
func (s *web) freeSlug(ctx context.Context, slug string) (string, error) {
	stem := strings.TrimRight(slug[:min(len(slug), 57)], "-")
	for n := 1; n < 100; n++ {
		try := slug
		if n > 1 {
			try = stem + "-" + strconv.Itoa(n)
		}
		_, err := s.cfg.Store.Event(ctx, try)
		if err != nil && event.CodeOf(err) == event.CodeNotFound {
			return try, nil
		}
		if err != nil {
			return "", err
		}
	}
	return stem + "-" + newID("")[:6], nil
}

func (s *web) changeEvent(ctx context.Context, c call, in *patchIn) (*eventOut, error) {
	want, err := ifMatch(in.IfMatch)
	if err != nil {
		return nil, err
	}
	b := in.Body
	changed, err := s.cfg.Store.UpdateEvent(ctx, c.event.Slug, func(e *event.Event) error {
		if want != 0 && e.Revision != want {
			return newProblem(event.CodeConflict, "Somebody else changed the event in the meantime. Look at it again, then repeat your change.").
				status(http.StatusPreconditionFailed).because(reasonPrecondition)
		}
		if b.Slug != nil && *b.Slug != e.Slug {
			return event.Invalid("slug", "The address of an event can't be changed.")
		}
		if b.Recorded != nil && *b.Recorded != e.Recorded && e.Phase != event.Scheduled && e.Phase != event.Doors {
			p := newProblem(event.CodeConflict, "Whether an event is recorded can't be changed once it is live.").at("recorded")
			p.Phase = e.Phase
			return p
		}
		if e.Phase.Over() && (b.Start != nil || b.Zone != nil || b.AutoLive != nil || b.IdleEndS != nil) {
			p := newProblem(event.CodeConflict, "The event is over: its time can't be changed any more.").at("start")
			p.Phase = e.Phase
			return p
		}
		set(&e.Title, b.Title)
		set(&e.Description, b.Description)
		set(&e.Zone, b.Zone)
		set(&e.Listed, b.Listed)
		set(&e.Recorded, b.Recorded)
		set(&e.AutoLive, b.AutoLive)
		var err error
		if b.IdleEndS != nil {
			if *b.IdleEndS == 0 {
				return tooIdle
			}
			if e.IdleEnd, err = idleEnd(*b.IdleEndS); err != nil {
				return err
			}
		}
		if b.Start != nil {
			if e.Start, err = startIn(*b.Start, e.Zone); err != nil {
				return err
			}
		}
		return e.Clean()
	})
	if err != nil {
		return nil, err
	}
	return s.eventOut(ctx, changed), nil
}

func set[T any](field *T, value *T) {
	if value != nil {
		*field = *value
	}
}

// ifMatch reads If-Match: one revision in quotes, or 0 for none and for "*".
func ifMatch(header string) (uint64, error) {
	header = strings.TrimSpace(header)
	if header == "" || header == "*" {
		return 0, nil
	}
	inner, quoted := strings.CutPrefix(header, `"`)
	inner, closed := strings.CutSuffix(inner, `"`)
	n, err := strconv.ParseUint(inner, 10, 64)
	if !quoted || !closed || err != nil || n == 0 || strconv.FormatUint(n, 10) != inner {
		return 0, event.Invalid("If-Match", `If-Match must be the event's ETag, such as "7".`)
	}
	return n, nil
}

var tooIdle = event.Invalid("idle_end_s", "An empty event may wait between 10 seconds and 24 hours before it ends.")

// idleEnd reads seconds; 0 means the default.
func idleEnd(seconds int) (time.Duration, error) {
	if seconds != 0 && (seconds < int(event.MinIdleEnd/time.Second) || seconds > int(event.MaxIdleEnd/time.Second)) {
		return 0, tooIdle
	}
	return time.Duration(seconds) * time.Second, nil
}

// startIn reads the start: RFC 3339, or local time in the zone. A local time that the clocks skip is refused, not moved.
func startIn(text, zone string) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t.UTC().Truncate(time.Second), nil
	}
	if zone == "" {
		zone = "UTC"
	}
	loc, err := time.LoadLocation(zone)
	if err != nil || strings.EqualFold(zone, "local") {
		return time.Time{}, event.Invalid("zone", "This time zone is not known. Use a name such as Europe/Berlin.")
	}
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05"} {
		t, err := time.ParseInLocation(layout, text, loc)
		if err != nil {
			continue
		}
		if t.Format(layout) != text {
			return time.Time{}, event.Invalid("start", "There is no such time in "+zone+" on that day: the clocks are put forward.")
		}
		return t.UTC(), nil
	}
	return time.Time{}, event.Invalid("start", "Give the start as 2026-11-28T18:00:00Z, or as local time, 2026-11-28T19:00.")
}

func (s *web) eventOut(ctx context.Context, e event.Event) *eventOut {
	return &eventOut{ETag: `"` + strconv.FormatUint(e.Revision, 10) + `"`, Body: s.showEvent(ctx, e)}
}

func (s *web) showEvent(ctx context.Context, e event.Event) eventJSON {
	at := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		t = t.UTC()
		return &t
	}
	out := eventJSON{
		ID: e.ID, Slug: e.Slug, Title: e.Title, Description: e.Description, Start: e.Start.UTC(), Zone: e.Zone,
		Listed: e.Listed, Recorded: e.Recorded, AutoLive: e.AutoLive, IdleEndS: int(e.IdleEnd / time.Second), Phase: e.Phase,
		DoorsAt: e.DoorsAt().UTC(), Origin: at(e.Origin), LiveAt: at(e.LiveAt), EndedAt: at(e.EndedAt), Created: e.Created.UTC(),
		Revision: e.Revision,
	}
	out.Replay = s.showReplay(ctx, e)
	return out
}

// showReplay tells how long an event's recording is, nil if there is none. Once the recording is surely whole this is remembered:
// the archive remembers few recordings, and a list would make it read all others again each time.
func (s *web) showReplay(ctx context.Context, e event.Event) *replayJSON {
	if e.Phase != event.Ended || !e.Recorded {
		return nil
	}
	if known, ok := s.replays.Load(e.ID); ok {
		return known.(*replayJSON)
	}
	if _, open := s.cfg.House.Room(e.Slug); open {
		return nil // being completed
	}
	replay, err := s.replay(ctx, e)
	var out *replayJSON
	switch code := event.CodeOf(err); {
	case err == nil:
		out = &replayJSON{DurationS: replay.Duration.Seconds(), Segments: replay.Segments}
	case code == event.CodeUnavailable && causeless(err):
		return nil // on purpose: another node has the recordings
	case code != event.CodeNotFound:
		// The event is shown without it: its page is of use also while the archive is not.
		if ctx.Err() == nil {
			s.quiet.warn(slog.LevelWarn, "replay not readable", "event", e.Slug, "err", err)
		}
		return nil
	}
	if s.now().Sub(e.EndedAt) > replaySettles {
		s.replays.Store(e.ID, out) // one small entry for each event that ended
	}
	return out
}

// causeless tells what a part of the server says on purpose from what went wrong in it.
func causeless(err error) bool {
	e, ok := errors.AsType[*event.Error](err)
	return ok && e.Err == nil
}
