// Package event is the vocabulary of Earshot: what an event is, which phases it passes through, who may do what in it, and
// which errors people are told. Every other package speaks these words; this one imports none of them and does no I/O.
package event

import (
	"slices"
	"strings"
	"time"
)

// The programme's clock. Everything in an event is placed on a timeline of frames.
const (
	SampleRate    = 48000                            // samples per second, the only rate Opus in WebRTC runs its RTP clock at (RFC 7587, 4.1)
	FrameDuration = 20 * time.Millisecond            // one frame
	FrameSamples  = SampleRate * 20 / 1000           // samples per frame and channel: 960
	FramesPerSec  = int(time.Second / FrameDuration) // 50
)

// Defaults of an event.
const (
	DoorsBefore    = 15 * time.Minute // doors open by themselves this long before the start
	DefaultIdleEnd = 15 * time.Minute // an event with nobody on stage ends after this long
	MinIdleEnd     = 10 * time.Second
	MaxIdleEnd     = 24 * time.Hour
	MaxTitle       = 120  // characters (grapheme clusters counted as runes)
	MaxDescription = 4000 // characters
	MaxName        = 60   // characters of a person's name
)

// Event is a scheduled conversation. A copy is a snapshot; the store holds the truth, and Revision says which snapshot.
type Event struct {
	ID          string        `json:"id"`   // opaque, never reused
	Slug        string        `json:"slug"` // the address, never reused
	Title       string        `json:"title"`
	Description string        `json:"description"`
	Start       time.Time     `json:"start"` // announced minute
	Zone        string        `json:"zone"`  // IANA name, such as Europe/Berlin; the start is announced in it
	Listed      bool          `json:"listed"`
	Recorded    bool          `json:"recorded"`
	AutoLive    bool          `json:"auto_live"` // go live by itself at Start
	IdleEnd     time.Duration `json:"idle_end"`  // nanoseconds at rest; the API speaks seconds
	Phase       Phase         `json:"phase"`

	// Origin is the time of frame 0, set when the doors open and never changed after: frame n of this event belongs to
	// Origin + n × FrameDuration, also after a crash. Zero before the doors opened.
	Origin  time.Time `json:"origin,omitzero"`
	LiveAt  time.Time `json:"live_at,omitzero"`
	EndedAt time.Time `json:"ended_at,omitzero"`
	Created time.Time `json:"created"`

	Revision uint64 `json:"-"` // of the store
}

// DoorsAt is when the doors open by themselves.
func (e Event) DoorsAt() time.Time { return e.Start.Add(-DoorsBefore) }

// FrameAt is the number of the frame that belongs to t: 0 before the origin.
func (e Event) FrameAt(t time.Time) uint64 {
	d := t.Sub(e.Origin)
	if e.Origin.IsZero() || d < 0 {
		return 0
	}
	return uint64(d / FrameDuration)
}

// Clean normalises what people typed and checks the rest. It returns an *Error with Code Invalid that names the field.
func (e *Event) Clean() error {
	var err error
	if e.Title, err = CleanLine("title", e.Title, MaxTitle); err != nil {
		return err
	}
	if e.Description, err = CleanText("description", e.Description, MaxDescription); err != nil {
		return err
	}
	if err = CheckSlug(e.Slug); err != nil {
		return err
	}
	if e.Start.IsZero() {
		return Invalid("start", "Say when the event starts.")
	}
	if y := e.Start.Year(); y < 2000 || y > 9000 {
		return Invalid("start", "The start must lie between the years 2000 and 9000.")
	}
	if e.Zone == "" {
		e.Zone = "UTC"
	}
	if strings.EqualFold(e.Zone, "local") {
		return Invalid("zone", "Give the time zone by its name, such as Europe/Berlin.")
	}
	if _, zerr := time.LoadLocation(e.Zone); zerr != nil {
		return Invalid("zone", "This time zone is not known. Use a name such as Europe/Berlin.")
	}
	if e.IdleEnd == 0 {
		e.IdleEnd = DefaultIdleEnd
	}
	if e.IdleEnd < MinIdleEnd || e.IdleEnd > MaxIdleEnd {
		return Invalid("idle_end_s", "An empty event may wait between 10 seconds and 24 hours before it ends.")
	}
	if !e.Phase.Valid() {
		return Invalid("phase", "This phase does not exist.")
	}
	return nil
}

// Person is somebody with a part in one event. The same ID on a second connection is the same person come again: the newer
// connection displaces the older.
type Person struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Role Role   `json:"role"`
}

// Grant is a session's part in one event.
type Grant struct {
	Event  string `json:"event"` // Event.ID
	Slug   string `json:"slug"`
	Invite string `json:"invite,omitempty"` // Invite.ID; empty for somebody who raised a hand
	Person Person `json:"person"`
}

// Session is what a browser's cookie stands for. Its key, a random secret's SHA-256, is the store's.
type Session struct {
	Operator bool      `json:"operator,omitempty"`
	Key      string    `json:"key,omitempty"` // SHA-256 (hex) of the operator's key that opened it; with another key Operator lapses
	Grants   []Grant   `json:"grants,omitempty"`
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires"`
}

// Add gives the session a part in an event, and the last counts: there is one for each event. At most most are kept, the oldest makes
// room.
func (s *Session) Add(g Grant, most int) {
	s.Grants = slices.DeleteFunc(slices.Clone(s.Grants), func(o Grant) bool { return o.Event == g.Event })
	s.Grants = append(s.Grants, g)
	if n := len(s.Grants); n > most {
		s.Grants = s.Grants[n-most:]
	}
}

// Grant gives the session's part in the event with this ID.
func (s Session) Grant(eventID string) (Grant, bool) {
	for _, g := range s.Grants {
		if g.Event == eventID {
			return g, true
		}
	}
	return Grant{}, false
}

// Count is an event's audience in figures, by Definition.
type Count struct {
	Now     int `json:"now"`      // connections that took audio in the last ten seconds
	Peak    int `json:"peak"`     // the highest Now
	TunedIn int `json:"tuned_in"` // connections that ever took audio
}

// CountDefinition says in plain words what Count counts.
const CountDefinition = "Connections that took audio: now = in the last ten seconds; peak = the most at any moment since the doors opened; " +
	"tuned_in = all since the doors opened, so somebody who comes back counts again. HLS players are told apart by address and player name."
