// Package web is everything Earshot says over HTTP: the API under /api/v1 (OpenAPI 3.1, made from the code), the pages, and the
// addresses of an event's audio. It decides who may do what, turns every error into problem JSON (RFC 9457), and hands the work
// on: what is stored to a Store, a change of phase to the House, voices and long responses to the engines behind Voices and
// Listeners. HLS it serves itself, since that is files.
//
// Start reading at New, which lists the routes; caller.go says who somebody is, problem.go what they are told when something
// cannot be done. PROTOCOL.md at the root is the contract that all this fulfils.
package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"earshot/internal/event"
	"earshot/internal/observatory"
	"earshot/internal/radio"
	"earshot/internal/stage"
	"earshot/internal/timeline"
)

// Limits of what is read.
const (
	maxBody     = 64 << 10         // bytes of a request's body
	bodyWait    = 15 * time.Second // for the body of a request to arrive
	writeWait   = 30 * time.Second // for one short response, or one piece of a long one, to be taken
	shortTime   = 20 * time.Second // for a request whose response is short, from its header on
	lingerTime  = 2 * time.Second  // of reading on after a body was refused for its size
	lingerBytes = 16 << 20
	headerWait  = 10 * time.Second // for a request's header to arrive
	idleWait    = 2 * time.Minute  // for the next request on a kept connection
	headerLimit = 16 << 10         // bytes of a request's header; cookies and bearer tokens of ours are under 100
)

// Store keeps what must survive. Each write is on disk when it returns nil; one that failed may have been stored or not.
// Errors are *event.Error: NotFound, Conflict, Unavailable.
type Store interface {
	EventStore
	InviteStore
	SessionStore
	RollStore
	Count(ctx context.Context, eventID string) (event.Count, error)
}

// EventStore keeps the events. CreateEvent claims the slug for ever, or answers Conflict with Field "slug".
type EventStore interface {
	CreateEvent(ctx context.Context, e event.Event) (event.Event, error)
	Event(ctx context.Context, slug string) (event.Event, error)
	Events(ctx context.Context) ([]event.Event, error)
	UpdateEvent(ctx context.Context, slug string, change func(*event.Event) error) (event.Event, error)
}

// InviteStore keeps the invites by event. UpdateInvite changes one by compare-and-set: change may be called again, and its error is
// returned as it is, with nothing stored.
type InviteStore interface {
	CreateInvite(ctx context.Context, i event.Invite) error
	Invites(ctx context.Context, eventID string) ([]event.Invite, error)
	InviteByHash(ctx context.Context, hash string) (event.Invite, error)
	UpdateInvite(ctx context.Context, eventID, id string, change func(*event.Invite) error) (event.Invite, error)
}

// SessionStore keeps browsers' sessions by the SHA-256 of their secret, in hex. Expired ones are NotFound. UpdateSession is as UpdateInvite;
// where there is no session, change gets an empty one.
type SessionStore interface {
	UpdateSession(ctx context.Context, key string, change func(*event.Session) error) (event.Session, error)
	Session(ctx context.Context, key string) (event.Session, error)
	DeleteSession(ctx context.Context, key string) error
}

// RollStore keeps what was decided about an event's people. Roll gives what is read only. UpdateRoll is as UpdateInvite; where there is
// nothing yet, change gets an empty one.
type RollStore interface {
	Roll(ctx context.Context, eventID string) (event.Roll, error)
	UpdateRoll(ctx context.Context, eventID string, change func(*event.Roll) error) (event.Roll, error)
}

// House knows the open rooms of this node, and turns the phase of events.
type House interface {
	// Room gives an open event's stage and timeline.
	Room(slug string) (Room, bool)
	// Turn stores the phase and then applies it. It answers *event.Error with Conflict where the phase forbids it.
	Turn(ctx context.Context, slug string, to event.Phase) (event.Event, error)
}

// Room is an open event.
type Room struct {
	Event    event.Event
	Stage    *stage.Stage // nil where another node has it: listeners are served alike, whoever needs the stage is told to go there
	StageAt  string       // then, where people reach that node, such as https://voice.example.org; empty if that is not known
	Timeline *timeline.Timeline
	Audience *observatory.Audience
}

// Voices is the engine of those who speak. An id names a WebRTC session and cannot be guessed. The context bounds the negotiation
// alone. Offers that cannot be used are *event.Error with Invalid.
type Voices interface {
	Speak(ctx context.Context, st *stage.Stage, p event.Person, offer []byte, recvonly bool) (id string, answer []byte, err error)
	Monitor(ctx context.Context, st *stage.Stage, personID string, offer []byte) (id string, answer []byte, err error)
	End(id string) bool
}

// Listeners is the engine of those who listen. The Serve methods return when the listener has gone; an error means that
// nothing was written yet.
type Listeners interface {
	// WHEP answers an offer; packet is how many milliseconds of programme a packet shall hold: 20, 60 or 120.
	WHEP(ctx context.Context, slug string, tl *timeline.Timeline, aud *observatory.Audience, offer []byte, packet int) (id string, answer []byte, err error)
	EndWHEP(id string) bool
	ServeLive(w http.ResponseWriter, r *http.Request, slug string, tl *timeline.Timeline, aud *observatory.Audience) error
	ServeMP4(w http.ResponseWriter, r *http.Request, slug string, tl *timeline.Timeline, aud *observatory.Audience) error
	ServeOgg(w http.ResponseWriter, r *http.Request, slug string, tl *timeline.Timeline, aud *observatory.Audience) error
	ServeCues(w http.ResponseWriter, r *http.Request, slug string, tl *timeline.Timeline, aud *observatory.Audience) error
}

// Radio makes what needs another codec than ours, where a program for it is installed. ServeRadio is as Listeners' Serve methods. About gives the
// event as it is now. Errors wrap radio.ErrNone where the program is missing.
type Radio interface {
	Converts(form radio.Form) error
	ServeRadio(w http.ResponseWriter, r *http.Request, room Room, form radio.Form, about func() event.Event) error
	AACPlaylist(ctx context.Context, room Room, about func() event.Event) ([]byte, error)
	AACSegment(room Room, n uint64) ([]byte, error)
}

// Replays gives what was recorded. NotFound where there is nothing, Unavailable without a cause where another node has it.
type Replays interface {
	Replay(ctx context.Context, eventID string, origin time.Time) (Replay, error)
	Segment(ctx context.Context, eventID string, n uint64) ([]byte, error)
}

// Replay is one recording.
type Replay struct {
	Playlist  []byte        // HLS media playlist, VOD
	Duration  time.Duration // of what there is, gaps left out
	Segments  int
	WriteOpus func(ctx context.Context, w io.Writer) error // the whole as Ogg Opus, streaming
}

// Config is what a handler is made of. All fields without "may" must be set.
type Config struct {
	Store     Store
	House     House
	Voices    Voices
	Listeners Listeners
	Replays   Replays
	Pacer     Pacer
	Radio     Radio // may be nil: no AAC, no MP3

	// UI holds home.html, event.html, studio.html, operator.html, docs.html, 404.html and assets/. It is read once, by New.
	UI fs.FS

	// OperatorKeyHash is HashSecret of the operator's key. Empty: nobody is the operator.
	OperatorKeyHash string

	// CrowdKey signs the tokens by which the operator consents to load tests: it must be hard to guess, and the same on every node. Empty: no tokens are made,
	// and none is good.
	CrowdKey []byte

	// BaseURL is put before links, such as "https://voice.example.org", without a slash at its end. It may be empty: then the
	// request's Host is taken, which whoever asks can choose, for themself.
	BaseURL string

	// Backup writes all that must survive; sessions says whether browsers' sessions are in it. It may be nil.
	Backup func(ctx context.Context, sessions bool, w io.Writer) error

	// TrustedProxies are the peers whose X-Forwarded-For, -Proto and -Host are believed. From all others these headers mean nothing.
	TrustedProxies []netip.Prefix

	Metrics    http.Handler          // answers /metrics; may be nil, then it is 404
	Registerer prometheus.Registerer // may be nil: counted, but not shown
	Ready      func() error          // nil: takes listeners. May be nil
	Notes      func() []string       // what an operator should know all the same, a sentence each, nothing secret. May be nil
	Log        *slog.Logger          // may be nil
	Now        func() time.Time      // may be nil: time.Now
	Version    string                // of the program, for the API's document; may be empty
}

// web is the handler. All fields are fixed by New but those that guard themselves.
type web struct {
	cfg   Config
	log   *slog.Logger
	now   func() time.Time
	mux   *http.ServeMux
	cors  *http.CrossOriginProtection
	pages pages

	proxies proxies

	long     map[string]bool // patterns whose responses have no end that is known
	open     map[string]bool // patterns that every origin may read
	salt     [16]byte        // of the keys by which HLS players are told apart
	counters counters
	quiet    *limitedLog
	watches  watches
	backing  sync.Mutex // held while a backup is made
	lists    shelf      // playlists as they were last asked for
	replays  sync.Map   // by event ID, *replayJSON: what is known of recordings that won't change
}

// New makes the handler. It fails if the configuration or the UI is incomplete.
func New(cfg Config) (http.Handler, error) {
	if cfg.Store == nil || cfg.House == nil || cfg.Voices == nil || cfg.Listeners == nil || cfg.Replays == nil || cfg.Pacer == nil || cfg.UI == nil {
		return nil, errors.New("web: the configuration lacks one of Store, House, Voices, Listeners, Replays, Pacer, UI")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Radio == nil {
		cfg.Radio = noRadio{}
	}
	if cfg.Ready == nil {
		cfg.Ready = func() error { return nil }
	}
	if cfg.Version == "" {
		cfg.Version = "0"
	}
	s := &web{
		cfg: cfg, log: cfg.Log, now: cfg.Now,
		mux: http.NewServeMux(), cors: http.NewCrossOriginProtection(), proxies: cfg.TrustedProxies,
		long: make(map[string]bool), open: make(map[string]bool),
		salt: newSalt(), counters: newCounters(), quiet: &limitedLog{log: cfg.Log, now: cfg.Now},
	}
	if err := s.pages.load(cfg.UI); err != nil {
		return nil, fmt.Errorf("web: %w", err)
	}
	if err := s.routeAPI(); err != nil {
		return nil, fmt.Errorf("web: %w", err)
	}
	s.routeMedia()
	s.routeHLS()
	s.routeRadio()
	s.routePages()
	s.routeOperation()
	if err := s.counters.register(cfg.Registerer); err != nil {
		return nil, fmt.Errorf("web: %w", err)
	}
	return s, nil
}

// NewServer gives the server for a handler of New's. It sets no timeout on whole requests and responses, because some of them
// last as long as an event; the handler sets deadlines on the others.
func NewServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerWait,
		IdleTimeout:       idleWait,
		MaxHeaderBytes:    headerLimit,
		// A page needs a few at a time. More on one connection would let a few connections hold what is meant for thousands.
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 32},
	}
}
