package stage

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"

	"earshot/internal/event"
	"earshot/internal/timeline"
)

// The kinds of cue that the stage places (PROTOCOL, Cues).
const (
	cueStage  = "stage"
	cueLevels = "levels"
	cueCount  = "count"
	cueHands  = "hands"
	cueNotice = "notice"
)

// handsShown is how many hands a cue tells of one by one, those that have been up for the longest: a cue goes to everybody.
const handsShown = 20

// audible is the level, in dBFS, from which on a voice is said to be heard.
const audible = -60.0

// cues is what is to be said with the next frame, and what was said last. Owned by the stage's goroutine.
type cues struct {
	stale   bool            // people or phase may have changed since stage was made
	stage   json.RawMessage // as placed last; shared by all cues that repeat it
	count   event.Count     // as placed last
	counted bool
	hands   json.RawMessage // as placed last
	notices []notice
	list    []timeline.Cue // of this frame; its memory is used again
}

type stageCue struct {
	Phase     event.Phase   `json:"phase"`
	LiveFrame *uint64       `json:"live_frame,omitempty"`
	People    []stagePerson `json:"people"`
}

type stagePerson struct {
	ID    string     `json:"id"`
	Name  string     `json:"name"`
	Role  event.Role `json:"role"`
	Muted bool       `json:"muted"`
}

type handsCue struct {
	Up    int       `json:"up"` // all of them
	First []handCue `json:"first"`
}

type handCue struct {
	ID       string `json:"id"`
	Name     string `json:"name,omitempty"` // only where its owner wished that
	Admitted bool   `json:"admitted,omitempty"`
}

type notice struct {
	Code   string `json:"code"`
	Text   string `json:"text"`
	BackIn int    `json:"back_in_s,omitempty"`
}

// place gives the cues of frame n. They stay the stage's until taken says that the timeline has them.
//
// The stage's and the count's come with the first frame of a segment, so that whoever begins there knows where they are; the
// stage's, and notices, also when something changed. The hands' come there, too, where they changed: whoever has fun with their hand does
// not send more to the whole audience than that. Levels come with the last frame of a part, whose 200 ms they measure.
func (s *Stage) place(n uint64, now time.Time) []timeline.Cue {
	c := &s.cues
	c.list = c.list[:0]
	begins := n%timeline.FramesPerSegment == 0
	changed := false
	if c.stale || c.stage == nil {
		data := s.stageData()
		changed = !bytes.Equal(data, c.stage)
		if changed {
			c.stage = data
		}
		c.stale = false
	}
	if begins || changed {
		c.list = append(c.list, timeline.Cue{Frame: n, Kind: cueStage, Data: c.stage})
	}
	if begins {
		if count := s.sweep(now); !c.counted || count != c.count {
			c.count, c.counted = count, true
			c.list = append(c.list, timeline.Cue{Frame: n, Kind: cueCount, Data: marshal(count)})
		}
	}
	if begins {
		if data := s.handsData(); !bytes.Equal(data, c.hands) {
			c.hands = data
			c.list = append(c.list, timeline.Cue{Frame: n, Kind: cueHands, Data: data})
		}
	}
	for _, note := range c.notices {
		c.list = append(c.list, timeline.Cue{Frame: n, Kind: cueNotice, Data: marshal(note)})
	}
	if endsPart(n) && s.phase == event.Live {
		if data := s.levelsData(); data != nil {
			c.list = append(c.list, timeline.Cue{Frame: n, Kind: cueLevels, Data: data})
		}
	}
	return c.list
}

// taken forgets what was placed.
func (c *cues) taken() {
	clear(c.list)
	c.notices = c.notices[:0]
}

func endsPart(n uint64) bool { return n%timeline.FramesPerPart == timeline.FramesPerPart-1 }

func (s *Stage) stageData() json.RawMessage {
	cue := stageCue{Phase: s.phase, People: make([]stagePerson, 0, len(s.members))}
	if !s.liveAt.IsZero() {
		cue.LiveFrame = &s.liveFrame
	}
	for _, m := range s.members {
		p := m.person
		cue.People = append(cue.People, stagePerson{ID: p.ID, Name: p.Name, Role: p.Role, Muted: m.muted() != ""})
	}
	return marshal(cue)
}

// handsData is nil before the first hand.
func (s *Stage) handsData() json.RawMessage {
	if len(s.hands) == 0 && s.cues.hands == nil {
		return nil
	}
	cue := handsCue{Up: len(s.hands), First: make([]handCue, 0, min(len(s.hands), handsShown))}
	for _, h := range s.hands[:min(len(s.hands), handsShown)] {
		one := handCue{ID: h.person.ID, Admitted: h.admitted}
		if h.named {
			one.Name = h.person.Name
		}
		cue.First = append(cue.First, one)
	}
	return marshal(cue)
}

// levelsData is nil when nobody is to be heard.
func (s *Stage) levelsData() json.RawMessage {
	var b []byte
	for _, m := range s.members {
		level := m.voice.Level()
		if level < audible || m.muted() != "" {
			continue
		}
		if b == nil {
			b = append(make([]byte, 0, 24*len(s.members)+2), '{')
		} else {
			b = append(b, ',')
		}
		b = append(append(b, m.key...), ':')
		b = strconv.AppendFloat(b, level, 'f', 1, 64)
	}
	if b == nil {
		return nil
	}
	return append(b, '}')
}

// sweep counts the audience, every 2 s.
func (s *Stage) sweep(now time.Time) event.Count {
	count, _ := s.cfg.Audience.Sweep(now)
	if count.Now != s.listening {
		s.listening, s.dirty = count.Now, true
	}
	return count
}

// marshal is for what can't fail: structs of strings and numbers.
func marshal(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
