package stage

import (
	"iter"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"earshot/internal/event"
	"earshot/internal/mix"
	"earshot/internal/timeline"
)

// State is the stage as its people see it (PROTOCOL, The stage), less `you`, which the sender knows. A copy is the caller's.
type State struct {
	Phase     event.Phase `json:"phase"`
	LiveAt    time.Time   `json:"live_at,omitzero"`
	People    []Person    `json:"people"` // in the order in which they came
	Hands     []Hand      `json:"hands"`
	HostLost  time.Time   `json:"host_lost,omitzero"` // since when the host is missed, and no other is there
	Listening int         `json:"listening"`
	Programme float64     `json:"programme"` // dBFS
}

// Person is a member in a State. Level and Speaking move every 200 ms, Loss and JitterMS every 2 s.
type Person struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Role      event.Role `json:"role"`
	Muted     MuteBy     `json:"muted"`
	Connected bool       `json:"connected"`
	Level     float64    `json:"level"` // dBFS, RMS of the last 200 ms, -90 for silence
	Speaking  bool       `json:"speaking"`
	Loss      float64    `json:"loss"` // share of packets lost recently, 0 to 1
	JitterMS  int        `json:"jitter_ms"`
}

// Hand is a raised hand in a State.
type Hand struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Named    bool      `json:"named"` // all may read the name
	Since    time.Time `json:"since"`
	Admitted bool      `json:"admitted"`
}

// Stats are a stage's figures for metrics; counters are since it was made, and up to date within 200 ms.
type Stats struct {
	Frames    uint64        // made
	LateTicks uint64        // frames made after the next one was due
	Gaps      uint64        // jumps of the timeline because the stage was too late
	Skipped   uint64        // frames that were never made, in those
	Mixing    time.Duration // spent in decoding, mixing and encoding
	Failed    uint64        // frames in which the mix of some speaker could not be encoded
	People    int           // with a place
	Connected int           // of them
	Hands     int           // up
	Drops     Drops
	Voices    VoiceTotals
}

// Drops counts what the stage threw away, by reason.
type Drops struct {
	VoiceFull     uint64 // packets: the oldest of a seat's that waited for a tick
	VoiceOversize uint64 // packets longer than anything that fits the path
	VoiceAfter    uint64 // packets for a seat that was over
	OutletSlow    uint64 // frames: a speaker's outlet was still busy with older ones
	MonitorSlow   uint64 // frames: likewise a monitor's
}

// All gives each reason, as a label for metrics, and its count.
func (d Drops) All() iter.Seq2[string, uint64] {
	return func(yield func(string, uint64) bool) {
		_ = yield("voice_full", d.VoiceFull) && yield("voice_oversize", d.VoiceOversize) &&
			yield("voice_after", d.VoiceAfter) && yield("outlet_slow", d.OutletSlow) && yield("monitor_slow", d.MonitorSlow)
	}
}

// VoiceTotals adds up the jitter buffers of all voices, also of those that left.
type VoiceTotals struct {
	Received, Lost, Late, Duplicate, Empty, Undecodable, Strange, Dropped uint64 // packets
	Concealed, FEC                                                        uint64 // frames
}

func (t *VoiceTotals) add(v mix.VoiceStats) {
	t.Received += v.Received
	t.Lost += v.Lost
	t.Late += v.Late
	t.Duplicate += v.Duplicate
	t.Empty += v.Empty
	t.Undecodable += v.Undecodable
	t.Strange += v.Strange
	t.Dropped += v.Dropped
	t.Concealed += v.Concealed
	t.FEC += v.FEC
}

// board is what outsiders read. The stage writes it when something changed, and the levels every 200 ms, in place; readers
// copy. Handing out immutable snapshots instead would cost the stage an allocation per part, also when nobody looks.
type board struct {
	afterwards atomic.Uint64 // Drops.VoiceAfter: counted by whoever pushes too late

	mu      sync.Mutex
	state   State
	stats   Stats
	changed chan struct{} // nil while nobody waits
	moved   chan struct{} // likewise, for levels
}

// State gives the stage as it is now.
func (s *Stage) State() State {
	s.board.mu.Lock()
	defer s.board.mu.Unlock()
	st := s.board.state
	st.People = slices.Clone(st.People)
	st.Hands = slices.Clone(st.Hands)
	return st
}

// Changed is closed when State changes in more than levels and speaking. Take it before State.
func (s *Stage) Changed() <-chan struct{} { return s.board.wait(&s.board.changed) }

// LevelsChanged is closed when the levels were measured anew, every 200 ms. Take it before Levels.
func (s *Stage) LevelsChanged() <-chan struct{} { return s.board.wait(&s.board.moved) }

func (b *board) wait(ch *chan struct{}) <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if *ch == nil {
		*ch = make(chan struct{})
	}
	return *ch
}

// Levels gives the level of each member by ID, and the programme's under "", in dBFS.
func (s *Stage) Levels() map[string]float64 {
	s.board.mu.Lock()
	defer s.board.mu.Unlock()
	levels := make(map[string]float64, len(s.board.state.People)+1)
	levels[""] = s.board.state.Programme
	for _, p := range s.board.state.People {
		levels[p.ID] = p.Level
	}
	return levels
}

// Has says whether a person is on stage or has a hand up.
func (s *Stage) Has(personID string) bool {
	s.board.mu.Lock()
	defer s.board.mu.Unlock()
	return slices.ContainsFunc(s.board.state.People, func(p Person) bool { return p.ID == personID }) ||
		slices.ContainsFunc(s.board.state.Hands, func(h Hand) bool { return h.ID == personID })
}

// Standing says where p stands here: all that web must know of the stage to judge them.
func (s *Stage) Standing(p event.Person) event.Standing {
	s.board.mu.Lock()
	defer s.board.mu.Unlock()
	at := event.Standing{Role: p.Role}
	at.OnStage = slices.ContainsFunc(s.board.state.People, func(o Person) bool { return o.ID == p.ID })
	if h := slices.IndexFunc(s.board.state.Hands, func(o Hand) bool { return o.ID == p.ID }); h >= 0 {
		at.Hand, at.Admitted = true, s.board.state.Hands[h].Admitted
	}
	return at
}

// Stats gives the stage's figures.
func (s *Stage) Stats() Stats {
	s.board.mu.Lock()
	defer s.board.mu.Unlock()
	st := s.board.stats
	st.Drops.VoiceAfter = s.board.afterwards.Load()
	return st
}

// publish shows what changed, if something did.
func (s *Stage) publish() {
	if !s.dirty {
		return
	}
	s.dirty = false
	s.cues.stale = true
	people := make([]Person, 0, len(s.members))
	for _, m := range s.members {
		people = append(people, m.state())
	}
	hands := make([]Hand, 0, len(s.hands))
	for _, h := range s.hands {
		hands = append(hands, Hand{ID: h.person.ID, Name: h.person.Name, Named: h.named, Since: h.since, Admitted: h.admitted})
	}
	programme := decibel(s.desk.Level())
	stats := s.figures()

	b := &s.board
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state = State{
		Phase: s.phase, LiveAt: s.liveAt, People: people, Hands: hands, HostLost: s.missing.since, Listening: s.listening, Programme: programme,
	}
	b.stats = stats
	tell(&b.changed)
}

func tell(ch *chan struct{}) {
	if *ch != nil {
		close(*ch)
		*ch = nil
	}
}

func (m *member) state() Person {
	p := m.person
	return Person{
		ID: p.ID, Name: p.Name, Role: p.Role, Muted: m.muted(), Connected: m.seat != nil,
		Level: decibel(m.voice.Level()), Speaking: m.voice.Speaking(), Loss: m.quality.loss, JitterMS: m.quality.jitter,
	}
}

// measure shows the levels at each part's end, and the connections' quality at each segment's.
func (s *Stage) measure(n uint64) {
	if !endsPart(n) {
		return
	}
	if n%timeline.FramesPerSegment == timeline.FramesPerSegment-1 {
		for _, m := range s.members {
			v := m.voice.Stats()
			q := quality{loss: math.Round(v.LossRatio*100) / 100, jitter: int(math.Round(v.JitterMS))}
			if q != m.quality {
				m.quality, s.dirty = q, true
			}
		}
	}
	s.publish() // also so that the board's people are the members, in order
	programme := decibel(s.desk.Level())
	stats := s.figures()

	b := &s.board
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, m := range s.members { // the desk's meters are the stage's own: reading them is arithmetic
		b.state.People[i].Level, b.state.People[i].Speaking = decibel(m.voice.Level()), m.voice.Speaking()
	}
	b.state.Programme = programme
	b.stats = stats
	tell(&b.moved)
}

// figures brings the counters together.
func (s *Stage) figures() Stats {
	for _, m := range s.members {
		if m.seat != nil {
			m.seat.account(false)
		}
	}
	st := s.totals
	st.People, st.Hands, st.Voices = len(s.members), len(s.hands), s.gone
	for _, m := range s.members {
		st.Voices.add(m.voice.Stats())
		if m.seat != nil {
			st.Connected++
		}
	}
	return st
}

// decibel rounds to what is worth sending.
func decibel(v float64) float64 { return math.Round(v*10) / 10 }
