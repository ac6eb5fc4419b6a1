package radio

import (
	"encoding/json"
	"strings"
	"unicode/utf8"

	"earshot/internal/timeline"
)

// MetaInterval is how many bytes of audio lie between two blocks of metadata (Icy-MetaInt): 42 frames of MP3 at 64 kbit/s, a second, so
// that those who begin behind a block begin at a frame.
const MetaInterval = 42 * 192

const (
	maxTitle  = 240    // bytes of what is shown; a block could hold 4080
	namesSaid = 3      // who speaks; more is a crowd
	recently  = 3 * 50 // frames: who was heard since then, speaks
	maxPeople = 1000   // whose voices are remembered
	blockUnit = 16     // bytes that the length of a block counts
)

// Titles knows what a radio player shows, from the cues of each part. It belongs to one goroutine.
type Titles struct {
	order []string          // of who is on stage
	names map[string]string // by person
	heard map[string]uint64 // frame at which a person was heard last
	said  string            // names as they were shown last
}

// Take reads a part's cues.
func (t *Titles) Take(p *timeline.Part) {
	for _, c := range p.Cues {
		switch c.Kind {
		case "stage":
			t.stage(c.Data)
		case "levels":
			var levels map[string]float64
			if json.Unmarshal(c.Data, &levels) != nil {
				continue // not as we write it
			}
			if t.heard == nil || len(t.heard) > maxPeople {
				t.heard = make(map[string]uint64)
			}
			for id := range levels {
				t.heard[id] = c.Frame
			}
		}
	}
	t.choose(p.First + uint64(p.Count))
}

func (t *Titles) stage(data []byte) {
	var stage struct {
		People []struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		} `json:"people"`
	}
	if json.Unmarshal(data, &stage) != nil {
		return
	}
	t.order, t.names = t.order[:0], make(map[string]string, len(stage.People))
	for _, p := range stage.People {
		t.order = append(t.order, p.ID)
		t.names[p.ID] = p.Name
	}
}

// choose decides whom to name: who was heard lately, in the stage's order. In a pause those of before stay, if they are still there.
func (t *Titles) choose(now uint64) {
	var names []string
	for _, id := range t.order {
		if at, heard := t.heard[id]; heard && at+recently > now && len(names) < namesSaid {
			names = append(names, t.names[id])
		}
	}
	if len(names) > 0 {
		t.said = strings.Join(names, ", ")
	} else if len(t.order) == 0 {
		t.said = ""
	}
}

// Line is what is shown for an event of this title: the title, and who speaks.
func (t *Titles) Line(title string) string {
	if t.said == "" {
		return clean(title)
	}
	return clean(title + " \u2013 " + t.said)
}

// clean makes a text fit to stand between quotes, in one line, and short.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\'': // players end a title at the first
			return '\u2019'
		case r < ' ' || r == 0x7f || r == utf8.RuneError:
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, " "))
	if len(s) <= maxTitle {
		return s
	}
	s = s[:maxTitle-len("…")]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + "…"
}

// AppendMetadata adds one block: a byte that counts sixteens, and the text, filled up with zeros.
func AppendMetadata(b []byte, line string) []byte {
	text := "StreamTitle='" + line + "';"
	units := (len(text) + blockUnit - 1) / blockUnit
	b = append(b, byte(units))
	b = append(b, text...)
	return append(b, make([]byte, units*blockUnit-len(text))...)
}

// Blocks puts metadata into a stream: whole blocks of MetaInterval bytes with what is shown behind them. Whoever begins at the first byte
// of what Take gives, of any call, finds the metadata where it must be; so listeners can share all bytes. It belongs to one goroutine.
type Blocks struct{ audio []byte }

// Take adds audio and gives the blocks that are complete: none or several.
func (k *Blocks) Take(audio []byte, line string) (out []byte) {
	k.audio = append(k.audio, audio...)
	for len(k.audio) >= MetaInterval {
		out = AppendMetadata(append(out, k.audio[:MetaInterval]...), line)
		k.audio = append(k.audio[:0], k.audio[MetaInterval:]...)
	}
	return out
}

// Rest gives what is left at the end: audio without a block behind it.
func (k *Blocks) Rest() []byte { return k.audio }
