package app

import (
	"context"
	"net/http"
	"time"

	"earshot/internal/archive"
	"earshot/internal/event"
	"earshot/internal/fan"
	"earshot/internal/observatory"
	"earshot/internal/radio"
	"earshot/internal/timeline"
	"earshot/internal/web"
)

// listeners shows fan to web: adapters do not know each other's types.
type listeners struct{ *fan.Fan }

func (l listeners) WHEP(ctx context.Context, slug string, tl *timeline.Timeline, aud *observatory.Audience, offer []byte, packet int) (
	string, []byte, error,
) {
	return l.Fan.WHEP(ctx, fan.Source{Slug: slug, Timeline: tl, Audience: aud}, offer, packet)
}

func (l listeners) ServeLive(w http.ResponseWriter, r *http.Request, slug string, tl *timeline.Timeline, aud *observatory.Audience) error {
	return l.Fan.ServeLive(w, r, fan.Source{Slug: slug, Timeline: tl, Audience: aud})
}

func (l listeners) ServeMP4(w http.ResponseWriter, r *http.Request, slug string, tl *timeline.Timeline, aud *observatory.Audience) error {
	return l.Fan.ServeMP4(w, r, fan.Source{Slug: slug, Timeline: tl, Audience: aud})
}

func (l listeners) ServeOgg(w http.ResponseWriter, r *http.Request, slug string, tl *timeline.Timeline, aud *observatory.Audience) error {
	return l.Fan.ServeOgg(w, r, fan.Source{Slug: slug, Timeline: tl, Audience: aud})
}

func (l listeners) ServeCues(w http.ResponseWriter, r *http.Request, slug string, tl *timeline.Timeline, aud *observatory.Audience) error {
	return l.Fan.ServeCues(w, r, fan.Source{Slug: slug, Timeline: tl, Audience: aud})
}

// radios shows fan's stations to web.
type radios struct{ fan *fan.Fan }

func (r radios) Converts(form radio.Form) error { return r.fan.Converts(form) }

func (r radios) ServeRadio(w http.ResponseWriter, req *http.Request, room web.Room, form radio.Form, about func() event.Event) error {
	return r.fan.ServeRadio(w, req, source(room), form, shown(about))
}

func (r radios) AACPlaylist(ctx context.Context, room web.Room, about func() event.Event) ([]byte, error) {
	return r.fan.AACPlaylist(ctx, source(room), shown(about))
}

func (r radios) AACSegment(room web.Room, n uint64) ([]byte, error) {
	return r.fan.AACSegment(source(room), n)
}

func source(room web.Room) fan.Source {
	return fan.Source{Slug: room.Event.Slug, Timeline: room.Timeline, Audience: room.Audience}
}

func shown(about func() event.Event) func() fan.About {
	return func() fan.About {
		ev := about()
		return fan.About{Title: ev.Title, Description: ev.Description, Listed: ev.Listed}
	}
}

// pacer shows the fan's hand on the pace to web.
type pacer struct{ fan *fan.Fan }

func (p pacer) Pace() web.Pace { return web.Pace(p.fan.Pace()) }

func (p pacer) SetPace(to web.Pace) error { return p.fan.SetPace(fan.Pace(to)) }

// replays gives what web asks for recordings.
func (a *App) replays() web.Replays {
	if a.archive == nil {
		return noReplays{}
	}
	return replays{a.archive}
}

// noReplays is the archive of a node without stages: what other nodes recorded lies with them.
type noReplays struct{}

func (noReplays) Replay(context.Context, string, time.Time) (web.Replay, error) {
	return web.Replay{}, errNoRecordings
}

func (noReplays) Segment(context.Context, string, uint64) ([]byte, error) {
	return nil, errNoRecordings
}

var errNoRecordings = event.Unavailable("This node serves listeners of live events. The recording is with the node that made it.", nil)

// replays shows archive to web.
type replays struct{ *archive.Archive }

func (r replays) Replay(ctx context.Context, eventID string, origin time.Time) (web.Replay, error) {
	rec, err := r.Archive.Replay(ctx, eventID, origin)
	if err != nil {
		return web.Replay{}, err
	}
	return web.Replay{Playlist: rec.Playlist(), Duration: rec.Duration, Segments: rec.Segments, WriteOpus: rec.WriteOpus}, nil
}
