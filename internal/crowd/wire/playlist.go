package wire

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Bounds of a playlist.
const (
	maxPlaylist = 1 << 20
	maxSegments = 20000
)

var errPlaylist = errors.New("not an HLS playlist")

// Playlist is an HLS playlist (RFC 8216 and rfc8216bis): a multivariant one if Variant is set, else a media playlist.
type Playlist struct {
	Variant string // address of the first rendition

	Target       time.Duration // longest segment
	PartTarget   time.Duration // longest part; 0: there are none
	HoldBack     time.Duration // from the end to where players start; 0: three targets
	PartHoldBack time.Duration
	CanBlock     bool // a reload may wait for what is next
	Sequence     int64
	Map          string // address of the initialisation segment
	Ended        bool
	Segments     []Segment
}

// Segment is one of a media playlist's. The last may be open: it has parts, and neither address nor duration of its own.
type Segment struct {
	URI      string
	Duration time.Duration
	Date     time.Time // of its first sample; zero if it is not known
	Parts    []Part
}

// Part is a part of a segment.
type Part struct {
	URI      string
	Duration time.Duration
}

// ReadPlaylist reads a playlist whole.
func ReadPlaylist(b []byte) (*Playlist, error) {
	text := string(b)
	if len(b) > maxPlaylist || !strings.HasPrefix(text, "#EXTM3U") {
		return nil, errPlaylist
	}
	p := &Playlist{}
	var s Segment
	variant, begun := false, false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		tag, value, _ := strings.Cut(line, ":")
		var err error
		switch {
		case line == "":
		case line[0] != '#':
			switch {
			case variant:
				if p.Variant == "" {
					p.Variant = line
				}
				variant = false
			case !begun:
				return nil, fmt.Errorf("%w: an address without EXTINF", errPlaylist)
			default:
				s.URI = line
				p.Segments = append(p.Segments, s)
				next := time.Time{}
				if !s.Date.IsZero() {
					next = s.Date.Add(s.Duration)
				}
				s, begun = Segment{Date: next}, false
			}
		case tag == "#EXT-X-STREAM-INF":
			variant = true
		case tag == "#EXT-X-TARGETDURATION":
			p.Target, err = seconds(value)
		case tag == "#EXT-X-MEDIA-SEQUENCE":
			p.Sequence, err = strconv.ParseInt(value, 10, 62)
			if p.Sequence < 0 {
				err = errPlaylist
			}
		case tag == "#EXT-X-PART-INF":
			p.PartTarget, err = seconds(attribute(value, "PART-TARGET"))
		case tag == "#EXT-X-SERVER-CONTROL":
			p.CanBlock = attribute(value, "CAN-BLOCK-RELOAD") == "YES"
			if v := attribute(value, "HOLD-BACK"); v != "" {
				p.HoldBack, err = seconds(v)
			}
			if v := attribute(value, "PART-HOLD-BACK"); v != "" && err == nil {
				p.PartHoldBack, err = seconds(v)
			}
		case tag == "#EXT-X-MAP":
			p.Map = attribute(value, "URI")
		case tag == "#EXT-X-PROGRAM-DATE-TIME":
			at, perr := time.Parse(time.RFC3339Nano, value)
			if perr != nil { // as ffmpeg writes it
				at, perr = time.Parse("2006-01-02T15:04:05.999999999-0700", value)
			}
			if perr == nil {
				s.Date = at
			}
		case tag == "#EXT-X-PART":
			part := Part{URI: attribute(value, "URI")}
			part.Duration, err = seconds(attribute(value, "DURATION"))
			s.Parts = append(s.Parts, part)
		case tag == "#EXTINF":
			number, _, _ := strings.Cut(value, ",")
			s.Duration, err = seconds(number)
			begun = true
		case tag == "#EXT-X-ENDLIST":
			p.Ended = true
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %q", errPlaylist, line)
		}
		if len(p.Segments) > maxSegments || len(s.Parts) > 1000 {
			return nil, fmt.Errorf("%w: too long", errPlaylist)
		}
	}
	if len(s.Parts) > 0 {
		p.Segments = append(p.Segments, s)
	}
	if p.Variant == "" && p.Target == 0 {
		return nil, fmt.Errorf("%w: no target duration", errPlaylist)
	}
	return p, nil
}

func seconds(s string) (time.Duration, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v >= 0 && v < 1e6) {
		return 0, errPlaylist
	}
	return time.Duration(v * float64(time.Second)), nil
}

// attribute finds a value in an attribute list (RFC 8216, 4.2), without its quotes.
func attribute(list, name string) string {
	for list != "" {
		key, rest, ok := strings.Cut(list, "=")
		if !ok {
			return ""
		}
		var value string
		if strings.HasPrefix(rest, `"`) {
			value, rest, _ = strings.Cut(rest[1:], `"`)
			rest = strings.TrimPrefix(rest, ",")
		} else {
			value, rest, _ = strings.Cut(rest, ",")
		}
		if strings.TrimSpace(key) == name {
			return value
		}
		list = rest
	}
	return ""
}
