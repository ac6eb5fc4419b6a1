package web

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"earshot/internal/event"
	"earshot/internal/observatory"
	"earshot/internal/timeline"
)

const (
	sdpType     = "application/sdp"
	trickleType = "application/trickle-ice-sdpfrag"
)

// routeMedia adds the addresses of an event's audio but HLS.
func (s *web) routeMedia() {
	s.handle("POST /e/{slug}/stage", s.postStage)
	s.handle("POST /e/{slug}/whip", s.postWHIP)
	s.handle("POST /e/{slug}/whep", s.postWHEP)
	s.share("/e/{slug}/whip", http.MethodPost)
	s.share("/e/{slug}/whep", http.MethodPost)
	for _, kind := range []string{"stage", "whip", "whep"} {
		path := "/e/{slug}/" + kind + "/{id}"
		s.handle("DELETE "+path, s.endSession)
		s.handle("PATCH "+path, s.trickle)
		if kind != "stage" {
			s.share(path, http.MethodDelete, http.MethodPatch)
		}
	}
	s.longAudio("live", "", Listeners.ServeLive)
	s.longAudio("live.mp4", segmentType, Listeners.ServeMP4)
	s.longAudio("live.ogg", "audio/ogg", Listeners.ServeOgg)
	s.longAudio("cues", "text/event-stream", Listeners.ServeCues)
	s.handle("GET /e/{slug}/count", s.count)
	s.share("/e/{slug}/count", http.MethodGet)
	s.handleLong("GET /e/{slug}/replay.opus", s.replayOpus)
	s.share("/e/{slug}/replay.opus", http.MethodGet)
}

// offer reads an SDP offer. Whether it is one, the engine says.
func offer(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if err := wantType(r, sdpType); err != nil {
		return nil, err
	}
	b, err := readBody(w, r)
	if err != nil {
		return nil, err
	}
	if len(b) == 0 {
		return nil, newProblem(event.CodeInvalid, "The body must be an SDP offer.").at("offer").status(http.StatusBadRequest).because(reasonUnparsable)
	}
	return b, nil
}

// answer is the 201 of RFC 9725, 4.2. The ETag names the ICE session: the answer is the only one with these credentials.
func answer(w http.ResponseWriter, r *http.Request, id string, sdp []byte) {
	sum := sha256.Sum256(sdp)
	h := w.Header()
	h.Set("Content-Type", sdpType)
	h.Set("Location", "/e/"+r.PathValue("slug")+r.URL.Path[len("/e/")+len(r.PathValue("slug")):]+"/"+url.PathEscape(id))
	h.Set("ETag", `"`+hex.EncodeToString(sum[:8])+`"`)
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusCreated)
	w.Write(sdp) // an error is the client's going; its session ends with its silence
}

// postStage takes a voice and gives the mix without it.
func (s *web) postStage(w http.ResponseWriter, r *http.Request) {
	s.speak(w, r, false)
}

// postWHIP takes a program's voice. It asks for the bearer token itself: a browser has postStage.
func (s *web) postWHIP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") == "" {
		s.fail(w, r, newProblem(event.CodeUnauthorized, "Send the secret of an invite as the bearer token.").because(reasonCredential))
		return
	}
	s.speak(w, r, true)
}

func (s *web) speak(w http.ResponseWriter, r *http.Request, recvonly bool) {
	c, err := s.judge(r, r.PathValue("slug"), part)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	sdp, err := offer(w, r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	room, err := s.stage(c.event)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	id, reply, err := s.cfg.Voices.Speak(r.Context(), room.Stage, c.me, sdp, recvonly)
	if err != nil {
		s.fail(w, r, s.inPhase(r.Context(), err, c.event.Slug))
		return
	}
	// Judged again: an invite may be withdrawn while its holder takes their time over the offer. A withdrawal is stored before it
	// removes who is on stage, so whoever it did not find there is found here.
	if _, err := s.judge(r, c.event.Slug, part); err != nil {
		s.cfg.Voices.End(id)
		s.fail(w, r, err)
		return
	}
	answer(w, r, id, reply)
}

// postWHEP gives the programme to all, and with ?monitor=1 the mix without them to somebody on stage.
func (s *web) postWHEP(w http.ResponseWriter, r *http.Request) {
	slug := r.PathValue("slug")
	monitor := r.URL.Query().Get("monitor")
	if monitor != "" && monitor != "1" {
		s.fail(w, r, event.Invalid("monitor", "The monitor is asked for with ?monitor=1."))
		return
	}
	packet, err := packetWish(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	sdp, err := offer(w, r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	var id string
	var reply []byte
	if monitor == "" {
		room, rerr := s.room(r.Context(), slug)
		if rerr != nil {
			s.fail(w, r, rerr)
			return
		}
		id, reply, err = s.cfg.Listeners.WHEP(r.Context(), slug, room.Timeline, room.Audience, sdp, packet)
	} else {
		c, jerr := s.judge(r, slug, part)
		if jerr != nil {
			s.fail(w, r, jerr)
			return
		}
		room, rerr := s.stage(c.event)
		if rerr != nil {
			s.fail(w, r, rerr)
			return
		}
		id, reply, err = s.cfg.Voices.Monitor(r.Context(), room.Stage, c.me.ID, sdp)
	}
	if err != nil {
		s.fail(w, r, s.inPhase(r.Context(), err, slug))
		return
	}
	answer(w, r, id, reply)
}

// packetWish is the ?packet of a listener: the shortest packets that it wants, in milliseconds.
func packetWish(r *http.Request) (int, error) {
	switch r.URL.Query().Get("packet") {
	case "", "20":
		return 20, nil
	case "60":
		return 60, nil
	case "120":
		return 120, nil
	}
	return 0, event.Invalid("packet", "A packet holds 20, 60 or 120 milliseconds.")
}

// endSession ends a WebRTC session by its address, which only who started it knows.
func (s *web) endSession(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if !s.cfg.Voices.End(id) && !s.cfg.Listeners.EndWHEP(id) {
		s.fail(w, r, event.NotFound("There is no such session. It has ended, or never was."))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// trickle takes a client's candidates and needs none of them: the server is ICE-lite and learns where a client is from its checks.
// It answers alike for every address, so that guessing at addresses here finds out nothing.
func (s *web) trickle(w http.ResponseWriter, r *http.Request) {
	if err := wantType(r, trickleType); err != nil {
		s.fail(w, r, err)
		return
	}
	if _, err := readBody(w, r); err != nil {
		s.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// serveLong is one of the Listeners' methods.
type serveLong func(Listeners, http.ResponseWriter, *http.Request, string, *timeline.Timeline, *observatory.Audience) error

// longAudio adds an address whose response lasts. HEAD, which players try first, is answered here: an engine would write to it for as
// long as the event lasts. A WebSocket (kind "") has no HEAD; its engine refuses what is no handshake.
func (s *web) longAudio(name, kind string, serve serveLong) {
	path := "/e/{slug}/" + name
	s.handleLong("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		slug := r.PathValue("slug")
		room, err := s.room(r.Context(), slug)
		if err == nil && r.Method == http.MethodHead && kind != "" {
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Cache-Control", "no-store")
			return
		}
		if err == nil {
			if err = serve(s.cfg.Listeners, w, r, slug, room.Timeline, room.Audience); err != nil {
				err = s.inPhase(r.Context(), err, slug) // the room of an event that has ended stays for a moment
			}
		}
		if err != nil {
			s.fail(w, r, err)
		}
	})
	s.share(path, http.MethodGet)
}

type countJSON struct {
	event.Count
	Definition string `json:"definition"`
}

// count gives the audience in figures: now of an open room, as it was stored of one that is over.
func (s *web) count(w http.ResponseWriter, r *http.Request) {
	var n event.Count
	if room, ok := s.cfg.House.Room(r.PathValue("slug")); ok {
		n = room.Audience.Count()
		if room.Stage == nil {
			n = counted(room.Timeline)
		}
	} else {
		e, err := s.event(r.Context(), r.PathValue("slug"))
		if err == nil {
			n, err = s.cfg.Store.Count(r.Context(), e.ID)
		}
		if err != nil && (e.ID == "" || event.CodeOf(err) != event.CodeNotFound) {
			s.fail(w, r, err)
			return
		}
		n.Now = 0
	}
	b, err := json.Marshal(countJSON{Count: n, Definition: event.CountDefinition})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "max-age=1")
	w.Write(append(b, '\n')) // an error is the reader's going
}

// counted is the whole audience as the stage's node counted it last.
func counted(tl *timeline.Timeline) (n event.Count) {
	for _, c := range tl.Sticky() {
		if c.Kind == "count" {
			_ = json.Unmarshal(c.Data, &n) // the stage made it
		}
	}
	return n
}

// replay finds an event's recording: Conflict before the end, Unavailable until it is whole, NotFound without one.
func (s *web) replay(ctx context.Context, e event.Event) (Replay, error) {
	if !e.Recorded && e.Phase != event.Cancelled {
		return Replay{}, noReplay(e)
	}
	if e.Phase != event.Ended {
		p := newProblem(event.CodeConflict, "The recording can be had after the end.").because(reasonPhase)
		p.Phase = e.Phase
		if e.Phase == event.Cancelled {
			p.Detail = "The event was cancelled."
		}
		return Replay{}, p
	}
	if e.Origin.IsZero() {
		return Replay{}, noReplay(e)
	}
	if _, open := s.cfg.House.Room(e.Slug); open { // its last segment may not be stored yet
		return Replay{}, newProblem(event.CodeUnavailable, "The recording is being completed. Try again in a few seconds.").after(2 * time.Second)
	}
	replay, err := s.cfg.Replays.Replay(ctx, e.ID, e.Origin)
	if err != nil && event.CodeOf(err) == event.CodeNotFound {
		return Replay{}, noReplay(e)
	}
	return replay, err
}

// replayOpus sends the recording as one file, made while it is sent: neither its length is known nor can it be sought in.
func (s *web) replayOpus(w http.ResponseWriter, r *http.Request) {
	e, err := s.event(r.Context(), r.PathValue("slug"))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	replay, err := s.replay(r.Context(), e)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", `audio/ogg; codecs="opus"`)
	h.Set("Content-Disposition", `attachment; filename="`+e.Slug+`.opus"`)
	h.Set("Cache-Control", "public, max-age=3600")
	h.Set("Accept-Ranges", "none")
	if r.Method == http.MethodHead {
		return
	}
	out := &patient{w: w, ctl: http.NewResponseController(w)}
	if err := replay.WriteOpus(r.Context(), out); err != nil {
		if !out.wrote {
			s.fail(w, r, err)
			return
		}
		if r.Context().Err() == nil && out.err == nil {
			s.quiet.warn(slog.LevelWarn, "replay broken off", "event", e.Slug, "err", err)
		}
		panic(http.ErrAbortHandler) // the reader must not take the part for the whole
	}
}

// patient gives the reader of a long response writeWait for each piece.
type patient struct {
	w     io.Writer
	ctl   *http.ResponseController
	wrote bool
	err   error
}

func (p *patient) Write(b []byte) (int, error) {
	_ = p.ctl.SetWriteDeadline(time.Now().Add(writeWait)) // a writer without deadlines is a test's
	p.wrote = true
	n, err := p.w.Write(b)
	if err != nil {
		p.err = err
	}
	return n, err
}
