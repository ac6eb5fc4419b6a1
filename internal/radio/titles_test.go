package radio_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"earshot/internal/radio"
	"earshot/internal/timeline"
)

func cue(frame uint64, kind, data string) timeline.Cue {
	return timeline.Cue{Frame: frame, Kind: kind, Data: json.RawMessage(data)}
}

// Who was heard in the last three seconds is named, in the stage's order; in a pause who spoke last stays.
func TestTitles(t *testing.T) {
	var titles radio.Titles
	part := func(first uint64, cues ...timeline.Cue) string {
		titles.Take(&timeline.Part{First: first, Count: 10, Cues: cues})
		return titles.Line("Town Hall")
	}
	const people = `{"phase":"live","people":[{"id":"a","name":"Ada"},{"id":"b","name":"Bo's"},{"id":"c","name":"Cy"},{"id":"d","name":"Di"}]}`
	for i, x := range []struct {
		got, want string
	}{
		{part(0), "Town Hall"},
		{part(10, cue(10, "stage", people)), "Town Hall"},
		{part(20, cue(29, "levels", `{"b":-20}`)), "Town Hall – Bo’s"},
		{part(30, cue(39, "levels", `{"b":-20,"a":-30}`)), "Town Hall – Ada, Bo’s"},
		{part(170), "Town Hall – Ada, Bo’s"},
		{part(180, cue(189, "levels", `{"a":-30}`)), "Town Hall – Ada"},
		{part(900), "Town Hall – Ada"},
		{part(910, cue(919, "levels", `{"a":-1,"b":-1,"c":-1,"d":-1}`)), "Town Hall – Ada, Bo’s, Cy"},
		{part(920, cue(920, "stage", `nonsense`), cue(921, "levels", `[]`)), "Town Hall – Ada, Bo’s, Cy"},
		{part(930, cue(930, "stage", `{"people":[]}`)), "Town Hall"},
	} {
		if x.got != x.want {
			t.Errorf("%d: %q, want %q", i, x.got, x.want)
		}
	}
}

// Whatever a title is, a block is whole: its length byte is right, and nothing ends the title before its end.
func FuzzMetadata(f *testing.F) {
	f.Add("Town Hall")
	f.Add("';StreamUrl='http://example.org/';")
	f.Add(strings.Repeat("ü", 300) + "\r\n\x00")
	f.Fuzz(func(t *testing.T, title string) {
		var titles radio.Titles
		b := radio.AppendMetadata(nil, titles.Line(title))
		if len(b) != 1+16*int(b[0]) {
			t.Fatalf("%d bytes, the first is %d", len(b), b[0])
		}
		text := string(bytes.TrimRight(b[1:], "\x00"))
		inner, ok := strings.CutPrefix(text, "StreamTitle='")
		inner, end := strings.CutSuffix(inner, "';")
		if !ok || !end || strings.ContainsAny(inner, "'\r\n\x00") || !utf8.ValidString(inner) || len(inner) > 250 {
			t.Errorf("%q", text)
		}
	})
}

// Every Take gives whole blocks, so a listener may begin with any.
func TestBlocks(t *testing.T) {
	var k radio.Blocks
	var audio, heard []byte
	for i := range 400 {
		piece := bytes.Repeat([]byte{byte(i)}, 100+i*37%2000)
		audio = append(audio, piece...)
		for out := k.Take(piece, "x"); len(out) > 0; {
			if len(out) < radio.MetaInterval+1 {
				t.Fatal("half a block")
			}
			heard = append(heard, out[:radio.MetaInterval]...)
			n := int(out[radio.MetaInterval])
			if n != 1 || string(out[radio.MetaInterval+1:][:16]) != "StreamTitle='x';" {
				t.Fatalf("metadata %q", out[radio.MetaInterval:][:17])
			}
			out = out[radio.MetaInterval+1+16*n:]
		}
	}
	if heard = append(heard, k.Rest()...); !bytes.Equal(heard, audio) {
		t.Error("the audio is not what went in")
	}
}
