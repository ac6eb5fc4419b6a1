package fan

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"

	"earshot/internal/event"
	"earshot/internal/fan/sweep"
	"earshot/internal/observatory"
	"earshot/internal/radio"
	"earshot/internal/timeline"
)

// The forms of a programme that are streams of bytes, in the order of streamRungs.
const (
	formPush = iota
	formMP4
	formOgg
	formCues
	roomForms // those that a room makes itself; the others are stations'
)

// Of stations.
const (
	formAAC = roomForms + iota
	formMP3
)

// Bursts, in parts: what a newcomer gets of the past.
const (
	burstPush = 2  // the fewest with which a page's player starts (one is too few)
	burstLong = 15 // foreign players want about 3 s before they sound
	backlog   = 50 // what a new room reads of the past
)

// heartbeat is after how long an event stream without cues says something, so that proxies keep it.
const heartbeat = 15 * time.Second

// room is one timeline with its streams, and the goroutine that feeds them: each part is put into each form once.
type room struct {
	fan     *Fan
	src     Source
	streams [roomForms]*sweep.Stream
	epoch   atomic.Uint64 // of the latest part
	hello   atomic.Pointer[greeting]
	spoken  time.Time // when cues were last said; owned by run

	stations [radio.Forms]*station // nil: nobody wants it; guarded by Fan.mu

	mu      sync.Mutex
	said    []cadenceCue // for the event stream, with its next part
	pending cadenceCue   // the latest of these
}

// announce puts a change of the packets' length on the event stream. It is called by the WebRTC engine.
func (f *Fan) announce(src Source, ms int, from uint64) {
	r, err := f.room(src)
	if err != nil {
		return // the event is over
	}
	c := cadenceCue{Frame: src.Timeline.Head(), Kind: "cadence", Data: cadenceData{"whep", int64(ms), from}}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, c)
	r.pending = c
}

// ahead gives the announcement that has not come into force, for those who open the event stream now: none, or one.
func (r *room) ahead() []cadenceCue {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending.Data.From <= r.src.Timeline.Head() {
		return nil
	}
	return []cadenceCue{r.pending}
}

// saying takes what is to be said beside a part's own cues.
func (r *room) saying(frame uint64) []cadenceCue {
	r.mu.Lock()
	defer r.mu.Unlock()
	said := r.said
	r.said = nil
	for i := range said {
		said[i].Frame = frame
	}
	return said
}

// room gives the streams of a timeline, made at the first call. Errors as Source.Refusal.
func (f *Fan) room(src Source) (*room, error) {
	if err := src.Refusal(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if r := f.rooms[src.Timeline]; r != nil {
		return r, nil
	}
	if f.closed {
		f.counters.refuse("stopping")
		return nil, event.Unavailable("The server restarts. Try again in a few seconds.", nil)
	}
	r := &room{fan: f, src: src, spoken: f.cfg.Now()}
	for i := range r.streams {
		cfg := sweep.StreamConfig{Tally: &f.counters.rungs[i]}
		switch i {
		case formPush:
			cfg.Audience, cfg.Rung = src.Audience, observatory.Push
			cfg.Socket, cfg.Announce = true, announcePush
		case formMP4:
			cfg.Audience, cfg.Rung = src.Audience, observatory.MP4
		case formOgg:
			cfg.Audience, cfg.Rung = src.Audience, observatory.Ogg
		}
		r.streams[i] = f.sweep.NewStream(cfg)
	}
	cur := src.Timeline.Cursor(backlog)
	for {
		p, err := cur.Next()
		if err != nil {
			break // as far as it goes; run meets the error again
		}
		r.add(p, (*sweep.Stream).Preload)
	}
	f.rooms[src.Timeline] = r
	f.wg.Go(func() {
		r.run(cur)
		f.mu.Lock()
		delete(f.rooms, src.Timeline)
		f.mu.Unlock()
	})
	return r, nil
}

// run follows the timeline to its end, or the server's.
func (r *room) run(cur *timeline.Cursor) {
	for {
		closed := r.src.Timeline.PartClosed()
		p, err := cur.Next()
		switch {
		case err == nil:
			r.add(p, (*sweep.Stream).Append)
			continue
		case !errors.Is(err, timeline.ErrAhead):
			r.end()
			return
		}
		select {
		case <-closed:
		case <-r.fan.stop:
			r.end()
			return
		}
	}
}

// add puts a part into all forms.
func (r *room) add(p *timeline.Part, to func(*sweep.Stream, uint64, []byte)) {
	r.epoch.Store(p.Epoch)
	push := make([]byte, 0, len(p.CueText)+len(p.Media)+16)
	if p.CueText != nil {
		push = sweep.AppendMessage(push, ws.OpText, p.CueText)
	}
	push = sweep.AppendMessage(push, ws.OpBinary, p.Media)
	cues := appendCues(nil, p.Cues)
	for _, c := range r.saying(p.First) {
		cues = appendEvent(cues, c.Frame, c.Kind, c)
	}
	if now := r.fan.cfg.Now(); len(cues) > 0 {
		r.spoken = now
	} else if now.Sub(r.spoken) > heartbeat {
		cues, r.spoken = []byte(":\n\n"), now
	}
	to(r.streams[formPush], p.First, push)
	to(r.streams[formMP4], p.First, p.Media)
	to(r.streams[formOgg], p.First, p.Ogg)
	to(r.streams[formCues], p.First, cues)
}

// end closes the streams: all is over, or the server restarts and says when to come back.
func (r *room) end() {
	var push, cues []byte
	if r.src.Timeline.Ended() {
		push = sweep.Message(ws.OpClose, ws.NewCloseFrameBody(ws.StatusNormalClosure, "ended"))
	} else {
		back := r.fan.whenBack()
		push = sweep.Message(ws.OpClose, ws.NewCloseFrameBody(1012, seconds(back)))
		// The browser comes back by itself, then and not before.
		cues = []byte("retry: " + strconv.FormatInt(back.Milliseconds(), 10) + "\n\n")
	}
	r.streams[formPush].Close(push)
	r.streams[formMP4].Close(nil)
	r.streams[formOgg].Close(nil)
	r.streams[formCues].Close(cues)
}

// cadenceCue tells a listener how often it will be written to from a frame on (PROTOCOL, Cues). It is the edge's, not the stage's.
type cadenceCue struct {
	Frame uint64      `json:"frame"`
	Kind  string      `json:"kind"`
	Data  cadenceData `json:"data"`
}

type cadenceData struct {
	Rung string `json:"rung"`
	MS   int64  `json:"ms"`
	From uint64 `json:"from"`
}

func announcePush(c sweep.Cadence, at, from uint64) []byte {
	text, err := json.Marshal([]cadenceCue{{Frame: at, Kind: "cadence", Data: cadenceData{"push", c.Duration().Milliseconds(), from}}})
	if err != nil {
		panic(err) // numbers and constants
	}
	return sweep.Message(ws.OpText, text)
}

// greeting is the start of a push for those who begin at one place with one cadence: most who come in the same moment.
type greeting struct {
	next, frame uint64
	cadence     sweep.Cadence
	bytes       []byte
}

// greet gives the first messages of a push: hello, the initialisation segment, and the cues that hold until the next of their kind.
func (r *room) greet(next, frame uint64, c sweep.Cadence) ([]byte, error) {
	if g := r.hello.Load(); g != nil && g.next == next && g.frame == frame && g.cadence == c {
		return g.bytes, nil
	}
	// Sticky cues of parts that follow are repeated by these parts: better twice than never.
	sticky := slices.Clone(r.src.Timeline.Sticky())
	text, err := json.Marshal(hello{
		Kind: "hello", Origin: r.src.Timeline.Origin(), Epoch: r.epoch.Load(), Frame: frame, CadenceMS: c.Duration().Milliseconds(),
	})
	if err != nil {
		return nil, err
	}
	b := sweep.Message(ws.OpText, text)
	b = sweep.AppendMessage(b, ws.OpBinary, timeline.Init())
	if len(sticky) > 0 {
		if text, err = json.Marshal(sticky); err != nil {
			return nil, err
		}
		b = sweep.AppendMessage(b, ws.OpText, text)
	}
	r.hello.Store(&greeting{next, frame, c, b})
	return b, nil
}

// appendCues writes one event per cue. Neither kind nor JSON has a line break: the timeline sees to it.
func appendCues(b []byte, cues []timeline.Cue) []byte {
	for _, c := range cues {
		b = appendEvent(b, c.Frame, c.Kind, c)
	}
	return b
}

func appendEvent(b []byte, frame uint64, kind string, cue any) []byte {
	data, err := json.Marshal(cue)
	if err != nil {
		return b // cannot be: the timeline packaged this very cue
	}
	b = append(b, "id: "...)
	b = strconv.AppendUint(b, frame, 10)
	b = append(b, "\nevent: "...)
	b = append(b, kind...)
	b = append(b, "\ndata: "...)
	b = append(b, data...)
	return append(b, "\n\n"...)
}
