package fan

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"earshot/internal/event"
	"earshot/internal/observatory"
	"earshot/internal/timeline"
)

// ServeMP4 sends fragmented MP4 on one long response, for players that are not ours: the initialisation segment, about
// 3 s from before the head, so that they sound at once, then each part. An error means that nothing was written.
func (f *Fan) ServeMP4(w http.ResponseWriter, r *http.Request, src Source) error {
	return f.long(w, r, src, observatory.MP4, "audio/mp4", timeline.Init(), func(p *timeline.Part) []byte { return p.Media })
}

// ServeOgg sends Ogg Opus (RFC 7845) on one long response, what an Icecast client expects. An error means that nothing was
// written.
func (f *Fan) ServeOgg(w http.ResponseWriter, r *http.Request, src Source) error {
	return f.long(w, r, src, observatory.Ogg, "audio/ogg", timeline.OggHeaders(), func(p *timeline.Part) []byte { return p.Ogg })
}

func (f *Fan) long(w http.ResponseWriter, r *http.Request, src Source, rung observatory.Rung, kind string, head []byte,
	body func(*timeline.Part) []byte,
) error {
	if err := src.Refusal(); err != nil {
		return err
	}
	done, err := f.begin(rung.String())
	if err != nil {
		return err
	}
	defer done()
	rd := f.reader(src, rung.String(), burstLong)
	part, err := next[struct{}](r.Context(), rd, f.stop, nil)
	if err != nil {
		return beforeStart(err, src)
	}
	ear := src.Audience.Join(rung)
	defer src.Audience.Leave(ear)
	noStore(w.Header())
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Accept-Ranges", "none")
	out := f.writer(w, rung.String())
	out.add(head)
	for err == nil {
		out.add(body(part))
		if rd.cur.Lag() == 0 {
			if !out.flush() {
				return nil
			}
			ear.Took(f.cfg.Now())
		} else if out.failed {
			return nil
		}
		part, err = next[struct{}](r.Context(), rd, f.stop, nil)
	}
	out.flush()
	return nil
}

// beforeStart turns why a stream ended before its first byte into what the asker is told.
func beforeStart(err error, src Source) error {
	switch {
	case errors.Is(err, timeline.ErrClosed):
		return src.Refusal()
	case errors.Is(err, errStopping):
		return event.Unavailable("The server restarts. Try again in a few seconds.", nil)
	}
	return nil // the asker left
}

// writer is a long response with a bound on how long one write may take.
type writer struct {
	f      *Fan
	rung   string
	w      http.ResponseWriter
	rc     *http.ResponseController
	failed bool
}

func (f *Fan) writer(w http.ResponseWriter, rung string) *writer {
	return &writer{f: f, rung: rung, w: w, rc: http.NewResponseController(w)}
}

func (w *writer) add(b []byte) {
	if w.failed {
		return
	}
	_ = w.rc.SetWriteDeadline(time.Now().Add(stall)) // where it is not supported, the server's own holds
	n, err := w.w.Write(b)
	w.f.counters.rung(w.rung).bytes.Add(uint64(n))
	w.fail(err)
}

func (w *writer) flush() (ok bool) {
	if !w.failed {
		w.fail(w.rc.Flush())
	}
	return !w.failed
}

func (w *writer) fail(err error) {
	if err == nil {
		return
	}
	w.failed = true
	ne, ok := errors.AsType[net.Error](err)
	if ok && ne.Timeout() || errors.Is(err, os.ErrDeadlineExceeded) {
		w.f.counters.drop("stalled")
	}
}

// ServeCues sends the cues alone as an event stream (WHATWG HTML, 9.2): first the sticky ones in force, then each part's as it
// closes. An error means that nothing was written.
func (f *Fan) ServeCues(w http.ResponseWriter, r *http.Request, src Source) error {
	if err := src.Refusal(); err != nil {
		return err
	}
	done, err := f.begin("cues")
	if err != nil {
		return err
	}
	defer done()
	rd := f.reader(src, "cues", 0)
	sticky := src.Timeline.Sticky() // after the cursor: a part that closes in between repeats a cue, and none is lost
	noStore(w.Header())
	w.Header().Set("Content-Type", "text/event-stream")
	out := f.writer(w, "cues")
	out.add(appendCues([]byte("retry: 2000\n\n"), sticky))
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	var buf []byte
	for out.flush() {
		part, err := next(r.Context(), rd, f.stop, beat.C)
		switch {
		case err == nil && part == nil:
			out.add([]byte(":\n\n"))
		case err == nil:
			if buf = appendCues(buf[:0], part.Cues); len(buf) > 0 {
				out.add(buf)
			}
		case errors.Is(err, context.Canceled):
			return nil
		default:
			if !src.Timeline.Ended() { // the browser comes back by itself, then and not before
				out.add([]byte("retry: " + strconv.Itoa(1000*f.whenBack()) + "\n\n"))
			}
			out.flush()
			return nil
		}
	}
	return nil
}

// appendCues writes one event per cue. Neither kind nor JSON has a line break: the timeline sees to it.
func appendCues(b []byte, cues []timeline.Cue) []byte {
	for _, c := range cues {
		data, err := json.Marshal(c)
		if err != nil {
			continue // cannot be: the timeline packaged this very cue
		}
		b = append(b, "id: "...)
		b = strconv.AppendUint(b, c.Frame, 10)
		b = append(b, "\nevent: "...)
		b = append(b, c.Kind...)
		b = append(b, "\ndata: "...)
		b = append(b, data...)
		b = append(b, "\n\n"...)
	}
	return b
}
