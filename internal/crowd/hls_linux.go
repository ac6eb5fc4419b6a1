package crowd

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"net/url"
	"time"

	"earshot/internal/crowd/wire"
)

// Timers of an HLS listener.
const (
	jobReload = jobClient + iota // ask for the playlist again
	jobFetch                     // ask for media again
)

// hlsTries is how often something may be refused in a row before the listener gives up.
const hlsTries = 6

// hlsClient listens as hls.js does: multivariant playlist, media playlist, initialisation segment, then parts (or segments where there
// are none) from the hold-back on, one after the other, while on a second connection the playlist is reloaded, waiting for the next part
// where the server can.
type hlsClient struct {
	l     *listener
	lists hlsLink // the playlists' connection
	media hlsLink

	path  string // of the media playlist; "" until it is known
	list  *hlsList
	init  bool  // the initialisation segment was fetched, or there is none
	begun bool  // msn and part are known
	msn   int64 // what is fetched next
	part  int   // -1: the whole segment
	fails uint8
	ready bool // the server has answered once
}

// hlsLink is one of the two connections.
type hlsLink struct {
	h     *hlsClient
	c     *conn
	up    bool
	asked []byte // the request that is not answered yet
	again bool   // it was sent on a connection that had served others before, and may have been closed meanwhile
	used  bool
	fetch fetched
}

// fetched says what was asked for.
type fetched uint8

const (
	fetchedMaster fetched = iota
	fetchedList
	fetchedInit
	fetchedMedia
)

// hlsList is a media playlist, read once for all listeners who get the same bytes, with the requests that it gives rise to.
type hlsList struct {
	*wire.Playlist
	reload []byte // for what follows, waiting for it
	plain  []byte
	init   []byte
	whole  [][]byte // for each segment, nil if it is open
	parts  [][][]byte
}

func newHLSClient(l *listener) *hlsClient {
	h := &hlsClient{l: l}
	h.lists.h, h.media.h = h, h
	return h
}

func (h *hlsClient) dial() error {
	*h = hlsClient{l: h.l, lists: hlsLink{h: h}, media: hlsLink{h: h}}
	return h.lists.ask(fetchedMaster, h.l.w.request)
}

func (h *hlsClient) hangUp() {
	h.lists.shut()
	h.media.shut()
	h.list = nil
}

func (h *hlsClient) timeout(job uint8) {
	switch job {
	case jobReload:
		h.reload()
	case jobFetch:
		h.next()
	}
}

func (k *hlsLink) shut() {
	if k.c != nil {
		k.c.shut()
		k.c = nil
	}
	k.up, k.asked, k.used = false, nil, false
}

// ask sends a request, on the connection that is there or on a new one.
func (k *hlsLink) ask(what fetched, request []byte) (err error) {
	k.fetch, k.asked, k.again = what, request, k.used
	if k.c == nil {
		k.up, k.used, k.again = false, false, false
		k.c, err = k.h.l.w.connect(k.h.l, k)
		return err
	}
	if k.up {
		k.c.send(request)
	}
	return nil
}

func (k *hlsLink) opened(c *conn) {
	k.up = true
	c.send(k.asked)
}

func (k *hlsLink) received(c *conn, b []byte) (int, error) {
	if k.asked == nil {
		return 0, fmt.Errorf("%w: an answer to nothing", errMalformed)
	}
	head, body, n, err := wire.ReadResponse(b, false)
	if err != nil || n == 0 {
		return 0, err
	}
	k.answered(head, body)
	return n, nil
}

// answered takes a response; the connection goes on if the server lets it.
func (k *hlsLink) answered(head wire.Head, body []byte) {
	k.asked, k.used = nil, true
	if head.Close && k.c != nil {
		k.c.shut()
		k.c, k.up, k.used = nil, false, false
	}
	k.h.got(k, head, body)
}

func (k *hlsLink) ended(_ *conn, rest []byte, err error) {
	request, again := k.asked, k.again
	k.c, k.up, k.used = nil, false, false
	if request == nil {
		return // it was idle
	}
	if head, body, n, rerr := wire.ReadResponse(rest, true); rerr == nil && n > 0 {
		k.answered(head, body)
		return
	}
	if again { // it had been closed while the request was under way
		err = k.ask(k.fetch, request)
		if err == nil {
			return
		}
	}
	k.asked = nil
	k.h.failed(k, err)
}

// failed tries again a while later, a few times.
func (h *hlsClient) failed(k *hlsLink, err error) {
	h.fails++
	if h.fails > hlsTries || h.l.state == dialing {
		h.l.lose(reasonOf(err), false)
		return
	}
	job := uint8(jobReload)
	if k == &h.media {
		job = jobFetch
	}
	h.l.w.after(h.l, time.Second, job)
}

func (h *hlsClient) got(k *hlsLink, head wire.Head, body []byte) {
	w := h.l.w
	if err := judge(head.Status, 200); err != nil {
		h.failed(k, err)
		return
	}
	if !h.ready {
		h.ready = true
		h.l.answered()
	}
	var err error
	switch k.fetch {
	case fetchedMaster:
		err = h.master(body)
	case fetchedList:
		var list *hlsList
		if list, err = w.readList(h.path, body); err == nil {
			err = h.listed(list)
		}
	case fetchedInit:
		h.init = true
		h.next()
	case fetchedMedia:
		h.fails = 0
		err = h.heard(body)
	}
	if err != nil {
		h.l.lose(reasonOf(err), false)
	}
}

// master takes the first playlist, which may be the media playlist already.
func (h *hlsClient) master(body []byte) error {
	w := h.l.w
	list, err := w.readList(w.path, body)
	if err != nil {
		return err
	}
	h.path = w.path
	if list.Variant == "" {
		return h.listed(list)
	}
	if h.path, err = w.resolve(w.path, list.Variant); err != nil {
		return err
	}
	return h.lists.ask(fetchedList, list.plain)
}

// listed takes a media playlist: fetches what is new, and asks for what comes after.
func (h *hlsClient) listed(list *hlsList) error {
	same := h.list != nil && h.list == list
	h.list = list
	if !h.begun {
		h.begin()
	}
	h.next()
	switch {
	case h.l.state == away || h.l.state == over:
		return nil // next has found the end
	case list.Ended:
		return nil
	case list.CanBlock && !same:
		return h.lists.ask(fetchedList, list.reload)
	}
	wait := list.Target
	if same { // RFC 8216, 6.3.4
		wait /= 2
	}
	h.l.w.after(h.l, wait, jobReload)
	return nil
}

func (h *hlsClient) reload() {
	if h.lists.asked != nil {
		return
	}
	request, what := h.l.w.request, fetchedMaster
	if h.list != nil {
		request, what = h.list.plain, fetchedList
	}
	if err := h.lists.ask(what, request); err != nil {
		h.failed(&h.lists, err)
	}
}

// begin finds where to start: the hold-back from the end.
func (h *hlsClient) begin() {
	list := h.list
	if len(list.Segments) == 0 {
		return
	}
	h.begun, h.init = true, list.Map == ""
	back, inParts := list.HoldBack, list.PartTarget > 0
	if inParts {
		back = list.PartHoldBack
		if back == 0 {
			back = 3 * list.PartTarget
		}
	} else if back == 0 {
		back = 3 * list.Target
	}
	for i := len(list.Segments) - 1; i >= 0; i-- {
		s := &list.Segments[i]
		h.msn, h.part = list.Sequence+int64(i), -1
		if inParts && len(s.Parts) > 0 {
			for k := len(s.Parts) - 1; k >= 0; k-- {
				h.part = k
				if back -= s.Parts[k].Duration; back <= 0 {
					return
				}
			}
		} else if back -= s.Duration; back <= 0 {
			return
		}
	}
}

// next asks for the next piece, if it is there and none is under way.
func (h *hlsClient) next() {
	if h.media.asked != nil || h.list == nil || !h.begun {
		return
	}
	var err error
	if !h.init {
		err = h.media.ask(fetchedInit, h.list.init)
	} else if request := h.wanted(); request != nil {
		err = h.media.ask(fetchedMedia, request)
	} else if h.list.Ended && h.msn >= h.list.Sequence+int64(len(h.list.Segments)) {
		h.l.lose("ended", true)
	}
	if err != nil {
		h.failed(&h.media, err)
	}
}

// wanted is the request for the next piece, nil if it is not there yet.
func (h *hlsClient) wanted() []byte {
	list := h.list
	if h.msn < list.Sequence { // too far behind: the playlist has gone on
		h.skip(list.Sequence, -1)
	}
	i := h.msn - list.Sequence
	if i >= int64(len(list.Segments)) {
		return nil
	}
	s := &list.Segments[i]
	if h.part >= 0 && len(s.Parts) == 0 && s.URI != "" { // its parts are no more listed
		if h.part == 0 {
			h.part = -1
		} else {
			h.skip(h.msn+1, -1)
			return h.wanted()
		}
	}
	if h.part < 0 {
		if s.URI != "" && (len(s.Parts) == 0 || list.PartTarget == 0) {
			return list.whole[i]
		}
		h.part = 0
	}
	if h.part < len(s.Parts) {
		return list.parts[i][h.part]
	}
	if s.URI != "" { // all its parts are had
		h.msn, h.part = h.msn+1, 0
		return h.wanted()
	}
	return nil
}

func (h *hlsClient) skip(msn int64, part int) {
	if h.l.state == hearing {
		h.l.w.tally.Skips++
	}
	h.msn, h.part = msn, part
}

// heard takes a piece of media.
func (h *hlsClient) heard(body []byte) error {
	l, w, list := h.l, h.l.w, h.list
	var length time.Duration
	var date time.Time
	if i := h.msn - list.Sequence; i >= 0 && i < int64(len(list.Segments)) {
		s := &list.Segments[i]
		length, date = s.Duration, s.Date
		if h.part >= 0 && h.part < len(s.Parts) {
			length = s.Parts[h.part].Duration
			for _, p := range s.Parts[:h.part] {
				if !date.IsZero() {
					date = date.Add(p.Duration)
				}
			}
		}
	}
	if h.part < 0 {
		h.msn, h.part = h.msn+1, -1
	} else {
		h.part++
	}
	l.behind = h.wanted() != nil
	if w.timed {
		if err := l.chunks(body); err != nil {
			return err
		}
	} else {
		if len(body) == 0 {
			return fmt.Errorf("%w: an empty piece of media", errMalformed)
		}
		l.piece(w.loop.now, int64(length), 0, 0, 0)
		if !date.IsZero() && !l.behind && w.loop.now-l.heard > burstTime {
			age := w.loop.wall + w.loop.now - date.UnixNano()
			w.tally.Delay.Add(age / 1000)
			w.tally.Late.Add((age - int64(length) + frame) / 1000)
		}
	}
	h.next()
	return nil
}

// listCache keeps the playlists that were read last.
type listCache struct {
	seed  maphash.Seed
	lists [32]struct {
		key  uint64
		list *hlsList
	}
	at int
}

// readList reads a playlist, unless another listener has got the same bytes just now.
func (w *worker) readList(path string, body []byte) (*hlsList, error) {
	c := &w.lists
	if c.seed == (maphash.Seed{}) {
		c.seed = maphash.MakeSeed()
	}
	var m maphash.Hash
	m.SetSeed(c.seed)
	_, _ = m.WriteString(path)
	_, _ = m.Write(body)
	key := m.Sum64()
	for i := range c.lists {
		if e := &c.lists[i]; e.list != nil && e.key == key {
			return e.list, nil
		}
	}
	p, err := wire.ReadPlaylist(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	list, err := w.prepare(path, p)
	if err != nil {
		return nil, err
	}
	e := &c.lists[c.at]
	e.key, e.list = key, list
	c.at = (c.at + 1) % len(c.lists)
	return list, nil
}

// prepare writes the requests that a playlist gives rise to.
func (w *worker) prepare(path string, p *wire.Playlist) (*hlsList, error) {
	list := &hlsList{Playlist: p}
	get := func(uri string) ([]byte, error) {
		at, err := w.resolve(path, uri)
		if err != nil {
			return nil, err
		}
		return w.get(at), nil
	}
	var err error
	if p.Variant != "" {
		list.plain, err = get(p.Variant)
		return list, err
	}
	list.plain = w.get(path)
	if p.Map != "" {
		if list.init, err = get(p.Map); err != nil {
			return nil, err
		}
	}
	next, part := p.Sequence+int64(len(p.Segments)), -1
	if p.PartTarget > 0 {
		part = 0
		if n := len(p.Segments); n > 0 && p.Segments[n-1].URI == "" {
			next, part = next-1, len(p.Segments[n-1].Parts)
		}
	}
	for _, s := range p.Segments {
		var whole []byte
		if s.URI != "" {
			if whole, err = get(s.URI); err != nil {
				return nil, err
			}
		}
		list.whole = append(list.whole, whole)
		var parts [][]byte
		for _, p := range s.Parts {
			b, err := get(p.URI)
			if err != nil {
				return nil, err
			}
			parts = append(parts, b)
		}
		list.parts = append(list.parts, parts)
	}
	u, err := url.Parse(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	q := u.Query()
	q.Set("_HLS_msn", fmt.Sprint(next))
	if part >= 0 {
		q.Set("_HLS_part", fmt.Sprint(part))
	}
	u.RawQuery = q.Encode()
	list.reload = w.get(u.RequestURI())
	return list, nil
}

var errElsewhere = errors.New("the playlist names another server")

// resolve gives the path that an address in a playlist means; another server's is refused.
func (w *worker) resolve(path, uri string) (string, error) {
	base, err := url.Parse(w.job.Target.url(path))
	if err != nil {
		return "", fmt.Errorf("%w: %w", errMalformed, err)
	}
	at, err := base.Parse(uri)
	if err != nil || bytes.ContainsAny([]byte(uri), " \r\n") {
		return "", fmt.Errorf("%w: address %q", errMalformed, uri)
	}
	if at.Host != base.Host || at.Scheme != base.Scheme {
		return "", errElsewhere
	}
	return at.RequestURI(), nil
}
