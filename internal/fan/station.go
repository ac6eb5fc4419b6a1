package fan

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"earshot/internal/event"
	"earshot/internal/fan/sweep"
	"earshot/internal/observatory"
	"earshot/internal/radio"
)

// Bounds of conversions.
const (
	maxConverters = 32               // children at once on this node, of 50 MB each
	linger        = 15 * time.Second // that a child lives on after the last who listened; longer than HLS players are silent
	hlsBack       = 60               // parts of the past that a child begins with: six segments, what an HLS player wants to begin
	lastWords     = 2 * time.Second  // for a child to say the rest while the server stops
	firstSegment  = 8 * time.Second  // for the first segment of HLS to be there
)

var radioForms = [radio.Forms]struct {
	tally int
	rung  observatory.Rung
}{
	radio.AAC: {formAAC, observatory.AAC},
	radio.MP3: {formMP3, observatory.MP3},
}

// About is what radio players show of an event.
type About struct {
	Title       string
	Description string
	Listed      bool
}

// station is one timeline in one form that a child makes: two streams, without metadata and with it, and for AAC the segments of HLS. It
// lives as long as somebody wants it. There is no state for "idle": who comes later finds a new station.
type station struct {
	room  *room
	form  radio.Form
	about func() About
	plain *sweep.Stream
	icy   *sweep.Stream
	shelf *radio.Shelf // nil: this form has none

	since uint64 // frame from which on streams get what is converted: the past is for HLS

	// The converter's goroutine's own.
	titles radio.Titles
	blocks radio.Blocks

	// PID of the child, 0 for none.
	pid radio.PID

	mu     sync.Mutex
	wanted time.Time // when somebody came last
	over   bool      // nobody is taken any more
}

// errConverters says that no more children are started.
var errConverters = event.Unavailable("The server converts as many programmes as it can. Try again in a minute, or listen at live.ogg.", nil)

// Converts says whether this node can make a form: nil, or an error that wraps radio.ErrNone.
func (f *Fan) Converts(form radio.Form) error {
	_, err := f.tool.For(form)
	return err
}

// tune gives the station of a form, which runs for some seconds more at the least. Errors: radio.ErrNone, as Source.Refusal, Unavailable.
func (f *Fan) tune(src Source, form radio.Form, about func() About) (*station, error) {
	path, err := f.tool.For(form)
	if err != nil {
		return nil, err
	}
	room, err := f.room(src)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := room.stations[form]; s != nil && s.touch(f.cfg.Now()) {
		return s, nil
	}
	switch {
	case f.closed:
		f.counters.refuse("stopping")
		return nil, event.Unavailable("The server restarts. Try again in a few seconds.", nil)
	case f.converting >= maxConverters:
		f.counters.refuse("converters")
		return nil, errConverters
	}
	cfg := sweep.StreamConfig{Tally: &f.counters.rungs[radioForms[form].tally], Audience: src.Audience, Rung: radioForms[form].rung}
	s := &station{
		room: room, form: form, about: about, plain: f.sweep.NewStream(cfg), icy: f.sweep.NewStream(cfg), wanted: f.cfg.Now(),
	}
	if head := src.Timeline.Head(); head > burstLong*10 {
		s.since = head - burstLong*10
	}
	if form == radio.AAC {
		s.shelf = radio.NewShelf(src.Timeline)
	}
	room.stations[form] = s
	f.converting++
	f.wg.Go(func() {
		s.run(path)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.converting--
		if room.stations[form] == s {
			room.stations[form] = nil
		}
	})
	return s, nil
}

// touch says that somebody comes, and whether the station takes them.
func (s *station) touch(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.wanted = now
	}
	return !s.over
}

// needed says whether somebody listens, or did a moment ago. Once it said no, it stays so.
func (s *station) needed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.room.fan.cfg.Now()
	if s.plain.Listeners()+s.icy.Listeners() > 0 {
		s.wanted = now
	}
	s.over = s.over || now.Sub(s.wanted) > linger
	return !s.over
}

// run converts until it is over, and ends the streams.
func (s *station) run(path string) {
	f := s.room.fan
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var stopping sync.WaitGroup
	defer stopping.Wait()
	stopping.Go(func() {
		select {
		case <-ctx.Done():
			return
		case <-f.stop:
		}
		if s.room.src.Timeline.Closed() {
			timer := time.NewTimer(lastWords)
			defer timer.Stop()
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
		}
		cancel()
	})
	radio.Convert(ctx, radio.Config{
		Path: path, Form: s.form, Timeline: s.room.src.Timeline, Back: hlsBack, Counters: &f.counters.radio[s.form],
		Log: f.cfg.Log.With("event", s.room.src.Slug), Emit: s.take, Wanted: s.needed,
	}, &s.pid)
	cancel()
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	if s.shelf != nil {
		s.shelf.End()
	}
	s.plain.Close(nil)
	s.icy.Close(s.blocks.Rest())
}

// take puts a piece where it is wanted.
func (s *station) take(p radio.Piece) {
	s.titles.Take(p.Part)
	if s.shelf != nil {
		s.shelf.Add(p)
	}
	if p.Part.First < s.since {
		return
	}
	s.plain.Append(p.Part.First, p.Bytes)
	s.icy.Append(p.Part.First, s.blocks.Take(p.Bytes, s.titles.Line(s.about().Title)))
}

// ServeRadio sends the programme in a form that ffmpeg makes, on one long response, for radio players: about 3 s from before the head, then
// each part. With "Icy-MetaData: 1" in the request there is metadata in between, as SHOUTcast began it: every radio.MetaInterval bytes. An
// error means that nothing was written: radio.ErrNone, or an *event.Error.
func (f *Fan) ServeRadio(w http.ResponseWriter, r *http.Request, src Source, form radio.Form, about func() About) error {
	wish, given, err := f.admit(r) // first: who gets nothing starts no child either
	if err != nil {
		return err
	}
	s, err := f.tune(src, form, about)
	if err != nil {
		f.sweep.Release(sweep.Way(r.ProtoMajor != 1))
		return err
	}
	a := about()
	h := w.Header()
	h.Set("Content-Type", form.MediaType())
	// In small letters, as there are radios that know no others.
	icy := func(name, value string) { h["icy-"+name] = []string{oneLine(value)} }
	icy("name", a.Title)
	if a.Description != "" {
		icy("description", a.Description)
	}
	icy("br", strconv.Itoa(radio.BitRate/1000))
	icy("pub", map[bool]string{true: "1", false: "0"}[a.Listed])
	stream := s.plain
	if r.Header.Get("Icy-MetaData") == "1" {
		icy("metaint", strconv.Itoa(radio.MetaInterval))
		stream = s.icy
	}
	j := sweep.Join{Stream: stream, Wish: wish, Given: given}
	j.Next, _ = stream.Place(burstLong)
	f.join(w, r, j)
	return nil
}

// oneLine makes a text fit for a header, and short.
func oneLine(s string) string {
	short := []rune(s)
	short = short[:min(len(short), 200)]
	for i, c := range short {
		if c < ' ' || c == 0x7f {
			short[i] = ' '
		}
	}
	return string(short)
}

// AACPlaylist gives the playlist of HLS in AAC, which has a child begin where none runs, and waits until there is something. Errors as
// ServeRadio, and Unavailable.
func (f *Fan) AACPlaylist(ctx context.Context, src Source, about func() About) ([]byte, error) {
	s, err := f.tune(src, radio.AAC, about)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, firstSegment)
	defer cancel()
	text, err := s.shelf.Playlist(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, event.Unavailable("The programme is not there in AAC yet. Try again in a few seconds.", nil)
	}
	return text, err
}

// AACSegment gives a segment of HLS in AAC: NotFound where there is none.
func (f *Fan) AACSegment(src Source, n uint64) ([]byte, error) {
	f.mu.Lock()
	var s *station
	if r := f.rooms[src.Timeline]; r != nil {
		s = r.stations[radio.AAC]
	}
	f.mu.Unlock()
	if s != nil {
		s.touch(f.cfg.Now())
		if b := s.shelf.Segment(n); b != nil {
			return b, nil
		}
	}
	return nil, event.NotFound("There is no such piece of the programme.")
}
