package rtc_test

import (
	"os"
	"path/filepath"
	"testing"

	"earshot/internal/event"
)

// FuzzSpeak sends offers all the way through the WebRTC library: whatever comes is answered or refused as the sender's fault, and
// leaves nothing behind.
func FuzzSpeak(f *testing.F) {
	files, err := filepath.Glob("../peer/testdata/offers/*.sdp")
	if err != nil || len(files) == 0 {
		f.Fatalf("no offers: %v", err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	h := newHouse(f)
	f.Fuzz(func(t *testing.T, offer []byte) {
		id, answer, err := h.gate.Speak(h.ctx, h.stage, person("fuzz"), offer, false)
		if err != nil {
			if c := event.CodeOf(err); c != event.CodeInvalid && c != event.CodeTooLarge {
				t.Fatalf("refused with %s: %v", c, err)
			}
			return
		}
		if len(answer) == 0 || !h.gate.End(id) {
			t.Fatalf("answered with %d bytes, session %q", len(answer), id)
		}
	})
}
