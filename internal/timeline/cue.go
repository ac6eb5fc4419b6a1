package timeline

import (
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// Cue is a small record carried at a frame: who speaks, how loud, how many listen. A player applies it when it plays the frame.
type Cue struct {
	Frame uint64          `json:"frame"`
	About *uint64         `json:"about,omitempty"` // the earlier frame of which it speaks, if not its own
	Kind  string          `json:"kind"`
	Data  json.RawMessage `json:"data,omitempty"`
}

// Limits of cues. A stage of 50 people with the longest names is 16 KB.
const (
	MaxCueData = 64 << 10 // bytes of Data
	maxCues    = 256      // in one part
	maxKind    = 32
)

// Sticky says whether the latest cue of this kind holds until the next of its kind, so that a newcomer has to be told it.
func (c Cue) Sticky() bool {
	return c.Kind == "stage" || c.Kind == "count" || c.Kind == "hands"
}

// clean gives a copy that may be kept: data compact, in the very bytes that a part's JSON will hold, so that reading a part
// back gives equal cues.
func (c Cue) clean(frame uint64) (Cue, error) {
	c.Frame = frame
	if err := c.check(); err != nil {
		return Cue{}, err
	}
	if c.About != nil {
		about := *c.About
		c.About = &about
	}
	if len(c.Data) == 0 {
		c.Data = nil
		return c, nil
	}
	data, err := json.Marshal(c.Data)
	if err != nil {
		return Cue{}, fmt.Errorf("%w: data of %s at frame %d: %v", ErrCue, c.Kind, frame, err)
	}
	if len(data) > MaxCueData { // angle brackets grow when they are escaped
		return Cue{}, fmt.Errorf("%w: %d bytes of data", ErrCue, len(data))
	}
	c.Data = data
	return c, nil
}

// check finds what would break those who pass a cue on: the kind becomes a line of an event stream, the data a text message
// of a WebSocket, whose receiver hangs up on bytes that are not UTF-8.
func (c Cue) check() error {
	if len(c.Kind) == 0 || len(c.Kind) > maxKind {
		return fmt.Errorf("%w: kind of %d bytes", ErrCue, len(c.Kind))
	}
	for _, r := range []byte(c.Kind) {
		if (r < 'a' || r > 'z') && r != '_' {
			return fmt.Errorf("%w: kind %q", ErrCue, c.Kind)
		}
	}
	switch {
	case c.About != nil && *c.About > c.Frame:
		return fmt.Errorf("%w: frame %d about the later frame %d", ErrCue, c.Frame, *c.About)
	case len(c.Data) > MaxCueData:
		return fmt.Errorf("%w: %d bytes of data", ErrCue, len(c.Data))
	case !utf8.Valid(c.Data):
		return fmt.Errorf("%w: data of %s at frame %d is not UTF-8", ErrCue, c.Kind, c.Frame)
	}
	return nil
}

// latest replaces in held, which is not modified, what cues supersede.
func latest(held, cues []Cue) []Cue {
	for _, c := range cues {
		if !c.Sticky() {
			continue
		}
		next := make([]Cue, 0, len(held)+1)
		for _, h := range held {
			if h.Kind != c.Kind {
				next = append(next, h)
			}
		}
		held = append(next, c)
	}
	return held
}

// cueText is the JSON array of cues, nil if there are none.
func cueText(cues []Cue) []byte {
	if len(cues) == 0 {
		return nil
	}
	text, err := json.Marshal(cues)
	if err != nil {
		panic("timeline: a cue that was checked does not marshal: " + err.Error())
	}
	return text
}
