package app

import (
	"context"
	"net/http"
	"time"

	"earshot/internal/archive"
	"earshot/internal/event"
	"earshot/internal/fan"
	"earshot/internal/observatory"
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
