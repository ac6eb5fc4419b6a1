package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"earshot/internal/event"
	"earshot/internal/radio"
)

// routeRadio adds the addresses of forms that need another program.
func (s *web) routeRadio() {
	for form := range radio.Form(radio.Forms) {
		path := "/e/{slug}/live." + form.String()
		s.handleLong("GET "+path, func(w http.ResponseWriter, r *http.Request) { s.radio(w, r, form) })
		s.share(path, http.MethodGet)
	}
	for name, h := range map[string]http.HandlerFunc{"aac.m3u8": s.aacPlaylist, "aac/{name}": s.aacSegment} {
		s.handle("GET /e/{slug}/hls/"+name, h)
		s.share("/e/{slug}/hls/"+name, http.MethodGet)
	}
}

// noRadio is a node that has no converters.
type noRadio struct{}

func (noRadio) Converts(radio.Form) error { return radio.ErrNone }

func (noRadio) ServeRadio(http.ResponseWriter, *http.Request, Room, radio.Form, func() event.Event) error {
	return radio.ErrNone
}

func (noRadio) AACPlaylist(context.Context, Room, func() event.Event) ([]byte, error) {
	return nil, radio.ErrNone
}
func (noRadio) AACSegment(Room, uint64) ([]byte, error) { return nil, radio.ErrNone }

// unconverted says what is missing, where something is. It is 501: to come back later helps only once the operator has acted.
func unconverted(err error) error {
	if !errors.Is(err, radio.ErrNone) {
		return err
	}
	p := newProblem(event.CodeUnavailable, "AAC and MP3 need ffmpeg with its encoders aac and libmp3lame, which this server does not have. "+
		"Its operator can install it (on Debian: apt-get install ffmpeg), or name it by --ffmpeg. Until then listen at live.ogg, live.mp4 or hls/main.m3u8.").
		status(http.StatusNotImplemented)
	p.header.Del("Retry-After")
	return p
}

// about gives an event as it is now, also if it is changed while somebody listens.
func (s *web) about(room Room) func() event.Event {
	return func() event.Event {
		if now, open := s.cfg.House.Room(room.Event.Slug); open {
			return now.Event
		}
		return room.Event
	}
}

// radio is live.aac and live.mp3.
func (s *web) radio(w http.ResponseWriter, r *http.Request, form radio.Form) {
	slug := r.PathValue("slug")
	room, err := s.room(r.Context(), slug)
	if err == nil && r.Method == http.MethodHead {
		if err = s.cfg.Radio.Converts(form); err == nil {
			w.Header().Set("Content-Type", form.MediaType())
			w.Header().Set("Cache-Control", "no-store")
			return
		}
	} else if err == nil {
		err = s.cfg.Radio.ServeRadio(w, r, room, form, s.about(room))
	}
	if err != nil {
		s.fail(w, r, s.inPhase(r.Context(), unconverted(err), slug))
	}
}

// openRoom is programme for what there is only while the event is open.
func (s *web) openRoom(r *http.Request) (Room, error) {
	room, _, _, open, err := s.programme(r.Context(), r.PathValue("slug"))
	if err == nil && !open {
		err = newProblem(event.CodeNotFound, "There is no recording in AAC: its playlist is hls/main.m3u8.").with("Cache-Control", cacheLong)
	}
	return room, err
}

func (s *web) aacPlaylist(w http.ResponseWriter, r *http.Request) {
	room, err := s.openRoom(r)
	if err != nil {
		s.failMedia(w, r, err)
		return
	}
	text, err := s.cfg.Radio.AACPlaylist(r.Context(), room, s.about(room))
	if err != nil {
		s.failMedia(w, r, unconverted(err))
		return
	}
	s.lists.get(room.Event.Slug+" aac", "live "+room.Event.ID, text).serve(w, r, cachePlain)
}

func (s *web) aacSegment(w http.ResponseWriter, r *http.Request) {
	n, _, err := parseFile(r.PathValue("name"), ".aac", false)
	if err != nil {
		s.failMedia(w, r, noSegment())
		return
	}
	room, err := s.openRoom(r)
	if err != nil {
		s.failMedia(w, r, err)
		return
	}
	b, err := s.cfg.Radio.AACSegment(room, n)
	if err != nil {
		s.failMedia(w, r, unconverted(err))
		return
	}
	s.heard(r, room)
	serveFile(s, w, r, radio.SegmentType, b, fmt.Sprintf(`"%s-aac-%d"`, room.Event.ID, n), cacheForever)
}
