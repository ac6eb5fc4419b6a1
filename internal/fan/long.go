package fan

import (
	"bytes"
	"net/http"
	"strings"

	"earshot/internal/fan/sweep"
	"earshot/internal/timeline"
)

// ServeMP4 sends fragmented MP4 on one long response, for players that are not ours: the initialisation segment, about
// 3 s from before the head, so that they sound at once, then each part. An error means that nothing was written.
func (f *Fan) ServeMP4(w http.ResponseWriter, r *http.Request, src Source) error {
	return f.long(w, r, src, formMP4, "audio/mp4", burstLong, func(*room) []byte { return timeline.Init() })
}

// ServeOgg sends Ogg Opus (RFC 7845) on one long response, what an Icecast client expects. An error means that nothing was
// written.
func (f *Fan) ServeOgg(w http.ResponseWriter, r *http.Request, src Source) error {
	return f.long(w, r, src, formOgg, "audio/ogg", burstLong, func(*room) []byte { return timeline.OggHeaders() })
}

// ServeCues sends the cues alone as an event stream (WHATWG HTML, 9.2): first the sticky ones in force, then each part's as it
// closes. An error means that nothing was written.
func (f *Fan) ServeCues(w http.ResponseWriter, r *http.Request, src Source) error {
	return f.long(w, r, src, formCues, "text/event-stream", 0, func(r *room) []byte {
		b := appendCues([]byte("retry: 2000\n\n"), r.src.Timeline.Sticky())
		for _, c := range r.ahead() {
			b = appendEvent(b, c.Frame, c.Kind, c)
		}
		return b
	})
}

// long serves a response without an end. Over HTTP/1.1 its connection is taken over and its body lasts until that closes, so that the
// same bytes go to everybody; over HTTP/2 it gets a goroutine.
func (f *Fan) long(w http.ResponseWriter, r *http.Request, src Source, form int, kind string, burst int, head func(*room) []byte) error {
	room, err := f.room(src)
	if err != nil {
		return err
	}
	wish, given, err := f.admit(r)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", kind)
	s := room.streams[form]
	j := sweep.Join{Stream: s, Wish: wish, Given: given}
	j.Next, _ = s.Place(burst) // before the sticky cues are read: a part that closes in between repeats a cue, and none is lost
	j.Head = head(room)
	f.join(w, r, j)
	return nil
}

// join hands a listener to the engine, behind the response's header.
func (f *Fan) join(w http.ResponseWriter, r *http.Request, j sweep.Join) {
	h := w.Header()
	noStore(h)
	h.Set("Accept-Ranges", "none")
	if r.ProtoMajor != 1 {
		f.sweep.Follow(r.Context(), w, j)
		return
	}
	j.Head = append(statusOK(r, h), j.Head...)
	f.take(w, j)
}

// statusOK is the head of a response whose body ends with the connection (RFC 9112, 6.3).
func statusOK(r *http.Request, h http.Header) []byte {
	var b bytes.Buffer
	b.Grow(1024)
	b.WriteString("HTTP/1.1 200 OK\r\nConnection: close\r\n")
	h.Del("Connection")
	for name, values := range h {
		for _, v := range values {
			b.WriteString(name + ": " + strings.NewReplacer("\r", "", "\n", "").Replace(v) + "\r\n")
		}
	}
	b.WriteString("\r\n")
	return b.Bytes()
}
