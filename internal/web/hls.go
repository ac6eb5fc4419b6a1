package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"earshot/internal/event"
	"earshot/internal/observatory"
	"earshot/internal/radio"
	"earshot/internal/timeline"
)

const (
	playlistType = "application/vnd.apple.mpegurl"
	segmentType  = "audio/mp4"

	// A blocked request waits three target durations (rfc8216bis, 6.2.5.2), then the server says that it cannot.
	blockWait = 3 * timeline.SegmentDuration

	// Cache lifetimes by rfc8216bis, appendix B.1: a playlist without directives for half a target duration, one that was
	// waited for (its address says how new it is) for six.
	cachePlain   = "public, max-age=1"
	cacheBlocked = "public, max-age=12"
	cacheForever = "public, max-age=31536000, immutable"
	cacheLong    = "public, max-age=60"

	hlsPartFrames = timeline.FramesPerPart * 2 // 400 ms
	hlsPartsPer   = timeline.FramesPerSegment / hlsPartFrames

	reasonRange = "range"
)

func (s *web) routeHLS() {
	for name, h := range map[string]http.HandlerFunc{
		"index.m3u8":  s.multivariant,
		"main.m3u8":   s.playlist,
		"init.mp4":    s.initSegment,
		"seg/{name}":  s.segment,
		"part/{name}": s.part,
	} {
		s.handle("GET /e/{slug}/hls/"+name, h)
		s.share("/e/{slug}/hls/"+name, http.MethodGet)
	}
}

// programme finds what HLS is served from: an open room, or else the replay.
func (s *web) programme(ctx context.Context, slug string) (room Room, replay Replay, e event.Event, open bool, err error) {
	if room, open = s.cfg.House.Room(slug); open {
		return room, Replay{}, room.Event, true, nil
	}
	if e, err = s.event(ctx, slug); err != nil {
		return Room{}, Replay{}, e, false, err
	}
	if e.Phase != event.Ended {
		return Room{}, Replay{}, e, false, s.closed(e)
	}
	replay, err = s.replay(ctx, e)
	return Room{}, replay, e, false, err
}

func noReplay(e event.Event) error {
	p := newProblem(event.CodeNotFound, "There is no recording of this event.")
	p.Phase = e.Phase
	return p
}

// failMedia is fail for addresses that caches stand before: a stampede on what is not there yet, or no more, ends at them. What is
// the server's fault is not cached.
func (s *web) failMedia(w http.ResponseWriter, r *http.Request, err error) {
	p := *problemOf(err)
	if p.Status < 500 && p.header.Get("Cache-Control") == "" {
		p.header = p.header.Clone()
		p.with("Cache-Control", cachePlain)
	}
	s.fail(w, r, &p)
}

func (s *web) multivariant(w http.ResponseWriter, r *http.Request) {
	_, _, _, open, err := s.programme(r.Context(), r.PathValue("slug"))
	if err != nil {
		s.failMedia(w, r, err)
		return
	}
	list := multivariantBody
	if open && s.cfg.Radio.Converts(radio.AAC) == nil {
		list = multivariantWithAAC
	}
	list.serve(w, r, cacheLong)
}

var (
	multivariantBody    = newBody(playlistType, timeline.Multivariant(), nil, nil)
	multivariantWithAAC = newBody(playlistType, radio.Multivariant(), nil, nil)
)

func (s *web) initSegment(w http.ResponseWriter, r *http.Request) {
	if _, _, _, _, err := s.programme(r.Context(), r.PathValue("slug")); err != nil {
		s.failMedia(w, r, err)
		return
	}
	serveFile(s, w, r, segmentType, timeline.Init(), etag("init", timeline.Init()), cacheForever)
}

func etag(kind string, b []byte) string {
	sum := sha256.Sum256(b)
	return `"` + kind + "-" + hex.EncodeToString(sum[:8]) + `"`
}

// reload is what a playlist's query asks for (rfc8216bis, 6.2.5.2).
type reload struct {
	block bool
	msn   uint64
	part  int // -1: the whole segment
}

// parseReload reads a playlist's query. Directives that are not ours are ignored, as they must be; so is _HLS_skip, since a
// playlist of ours is short enough to send whole.
func parseReload(raw string) (reload, error) {
	nonsense := newProblem(event.CodeInvalid, "_HLS_msn is the number of a segment, and _HLS_part, beside it, of a part.").
		at("_HLS_msn").status(http.StatusBadRequest).because(reasonUnparsable)
	q, err := url.ParseQuery(raw)
	if err != nil {
		return reload{}, nonsense
	}
	msn, part := q["_HLS_msn"], q["_HLS_part"]
	if len(msn) == 0 && len(part) == 0 {
		return reload{part: -1}, nil
	}
	if len(msn) != 1 || len(part) > 1 {
		return reload{}, nonsense
	}
	out := reload{block: true, part: -1}
	if out.msn, err = number(msn[0]); err != nil {
		return reload{}, nonsense
	}
	if len(part) == 1 {
		p, err := number(part[0])
		if err != nil || p > 1000 {
			return reload{}, nonsense
		}
		if out.part = int(p); p >= hlsPartsPer { // beyond the last part is the next segment's first
			out.msn, out.part = out.msn+1, 0
		}
	}
	return out, nil
}

var errNumber = errors.New("not a number as we write them")

// number reads a decimal in its one spelling, below 2^40 (70,000 years of segments), so that no sum with it overflows.
func number(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n >= 1<<40 || len(s) > 1 && s[0] == '0' || s[0] == '+' {
		return 0, errNumber
	}
	return n, nil
}

// parseFile reads "12.m4s", or "12.3.m4s" if there is a part, where the suffix is ".m4s".
func parseFile(name, suffix string, hasPart bool) (seg uint64, part int, err error) {
	name, ok := strings.CutSuffix(name, suffix)
	if !ok {
		return 0, 0, errNumber
	}
	if hasPart {
		before, after, ok := strings.Cut(name, ".")
		k, kerr := number(after)
		if !ok || kerr != nil || k >= hlsPartsPer {
			return 0, 0, errNumber
		}
		name, part = before, int(k)
	}
	seg, err = number(name)
	return seg, part, err
}

func (s *web) playlist(w http.ResponseWriter, r *http.Request) {
	ask, err := parseReload(r.URL.RawQuery)
	if err != nil {
		s.failMedia(w, r, err)
		return
	}
	slug := r.PathValue("slug")
	room, replay, e, open, err := s.programme(r.Context(), slug)
	if err != nil {
		s.failMedia(w, r, err)
		return
	}
	if !open {
		s.lists.get(slug, "replay "+e.ID, replay.Playlist).serve(w, r, cacheLong)
		return
	}
	cache := cachePlain
	if ask.block {
		ctx, cancel := context.WithTimeout(r.Context(), blockWait)
		defer cancel()
		if err := room.Timeline.Await(ctx, ask.msn, ask.part); err != nil {
			s.failMedia(w, r, waiting(err))
			return
		}
		cache = cacheBlocked
	}
	s.lists.get(slug, "live "+room.Event.ID, room.Timeline.Playlist()).serve(w, r, cache)
}

// waiting says why a playlist was waited for in vain.
func waiting(err error) error {
	if errors.Is(err, timeline.ErrFar) {
		return newProblem(event.CodeInvalid, "This lies more than two segments ahead.").at("_HLS_msn").
			status(http.StatusBadRequest).because(reasonUnparsable)
	}
	// ErrClosed (this process is leaving, another may go on) and the time that is up look alike to a player: it asks again.
	return newProblem(event.CodeUnavailable, "The playlist does not go on at the moment.").after(timeline.SegmentDuration)
}

func (s *web) segment(w http.ResponseWriter, r *http.Request) {
	n, _, err := parseFile(r.PathValue("name"), ".m4s", false)
	if err != nil {
		s.failMedia(w, r, noSegment())
		return
	}
	room, _, e, open, err := s.programme(r.Context(), r.PathValue("slug"))
	if err != nil {
		s.failMedia(w, r, err)
		return
	}
	var b []byte
	if open {
		seg, serr := room.Timeline.Segment(n)
		if err = serr; err == nil {
			b = seg.Bytes()
			s.heard(r, room)
		}
		err = notThere(err)
	} else if b, err = s.cfg.Replays.Segment(r.Context(), e.ID, n); err != nil && event.CodeOf(err) == event.CodeNotFound {
		err = noSegment().with("Cache-Control", cacheLong)
	}
	if err != nil {
		s.failMedia(w, r, err)
		return
	}
	serveFile(s, w, r, segmentType, b, `"`+e.ID+"-"+strconv.FormatUint(n, 10)+`"`, cacheForever)
}

// part gives 400 ms. The one that the playlist hints at is asked for before it is there, and waited for.
func (s *web) part(w http.ResponseWriter, r *http.Request) {
	n, k, err := parseFile(r.PathValue("name"), ".m4s", true)
	if err != nil {
		s.failMedia(w, r, noSegment())
		return
	}
	room, _, e, open, err := s.programme(r.Context(), r.PathValue("slug"))
	if err != nil {
		s.failMedia(w, r, err)
		return
	}
	if !open { // the replay's playlist names no parts
		s.failMedia(w, r, noSegment().with("Cache-Control", cacheLong))
		return
	}
	b, err := awaitPart(r.Context(), room.Timeline, n, k)
	if err != nil {
		s.failMedia(w, r, notThere(err))
		return
	}
	s.heard(r, room)
	serveFile(s, w, r, segmentType, b, `"`+e.ID+"-"+strconv.FormatUint(n, 10)+"."+strconv.Itoa(k)+`"`, cacheForever)
}

// awaitPart waits for the part that is being made and for the one after; a part further ahead is not hinted at by any playlist.
func awaitPart(ctx context.Context, tl *timeline.Timeline, seg uint64, k int) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, blockWait)
	defer cancel()
	first := seg*timeline.FramesPerSegment + uint64(k)*hlsPartFrames
	for {
		closing := tl.PartClosed()
		b, err := tl.HLSPart(seg, k)
		if !errors.Is(err, timeline.ErrAhead) || first > tl.Head()+hlsPartFrames {
			return b, err
		}
		select {
		case <-closing:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func noSegment() *problem {
	return newProblem(event.CodeNotFound, "There is no such piece of the programme.")
}

// notThere turns a timeline's errors into what a player is told; what will never be there may be remembered.
func notThere(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, timeline.ErrAhead), errors.Is(err, timeline.ErrClosed):
		return newProblem(event.CodeNotFound, "This piece of the programme is not made yet.")
	case errors.Is(err, timeline.ErrGone):
		return newProblem(event.CodeNotFound, "This piece of the programme lies too far back.").with("Cache-Control", cacheLong)
	case errors.Is(err, timeline.ErrGap):
		return noSegment().with("Cache-Control", cacheLong)
	}
	return err
}

// heard counts a player that fetches audio. They have no connection of their own, so address and name tell them apart; the key is
// salted, so that nobody can find an address out by trying.
func (s *web) heard(r *http.Request, room Room) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	h := sha256.New()
	h.Write(s.salt[:])
	h.Write([]byte(host))
	h.Write([]byte{0})
	h.Write([]byte(r.UserAgent()))
	room.Audience.Seen(string(h.Sum(nil)[:16]), observatory.HLS, s.now())
}

// serveFile sends bytes that never change: with ranges, HEAD and conditions, by net/http.
func serveFile(s *web, w http.ResponseWriter, r *http.Request, kind string, b []byte, tag, cache string) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Cache-Control", cache)
	h.Set("ETag", tag)
	probe := &rangeErrors{ResponseWriter: w}
	http.ServeContent(probe, r, "", time.Time{}, bytes.NewReader(b))
	if probe.refused {
		s.failMedia(w, r, newProblem(event.CodeInvalid, "This range lies outside.").at("Range").
			status(http.StatusRequestedRangeNotSatisfiable).because(reasonRange))
	}
}

// rangeErrors holds back the 416 that net/http writes as plain text. Its Content-Range, which it has set, stays.
type rangeErrors struct {
	http.ResponseWriter
	refused bool
}

func (w *rangeErrors) WriteHeader(status int) {
	if w.refused = status == http.StatusRequestedRangeNotSatisfiable; !w.refused {
		w.ResponseWriter.WriteHeader(status)
	}
}

func (w *rangeErrors) Write(b []byte) (int, error) {
	if w.refused {
		return len(b), nil
	}
	return w.ResponseWriter.Write(b)
}
