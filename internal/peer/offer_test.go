package peer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"earshot/internal/event"
)

func read(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata/offers", name+".sdp"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestReadOffer(t *testing.T) {
	for name, want := range map[string]Offer{
		"chromium-studio":     {Sends: true, Receives: true, Opus: 111, RED: 63},
		"chromium-listener":   {Receives: true, Opus: 111, RED: 63},
		"chromium-whip-video": {Sends: true, Opus: 111, RED: 63},
		"firefox-studio":      {Sends: true, Receives: true, Opus: 109},
		"obs":                 {Sends: true, Opus: 111},
		"ffmpeg-whip":         {Sends: true, Opus: 111, Passive: true},
	} {
		got, err := ReadOffer([]byte(read(t, name)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if strings.Contains(got.SDP, "a=candidate") {
			t.Errorf("%s: candidates were left in", name)
		}
		if got.Sends != want.Sends || got.Receives != want.Receives || got.Opus != want.Opus || got.RED != want.RED || got.Passive != want.Passive {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
		// Line ends do not matter.
		if _, err := ReadOffer([]byte(strings.ReplaceAll(read(t, name), "\r\n", "\n"))); err != nil {
			t.Errorf("%s with bare line feeds: %v", name, err)
		}
	}
	o, err := ReadOffer([]byte(strings.Replace(read(t, "chromium-studio"), "a=rtcp-fb:111 transport-cc", "a=rtcp-fb:111 nack", 1)))
	if err != nil || !o.NACK {
		t.Errorf("NACK offered: %+v, %v", o, err)
	}
}

func TestReadOfferRefuses(t *testing.T) {
	good := read(t, "chromium-studio")
	replace := func(old, with string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("the offer has no %q", old)
		}
		return strings.ReplaceAll(good, old, with)
	}
	audio := good[strings.Index(good, "m=audio"):]
	for name, offer := range map[string]string{
		"nothing":           "",
		"white space":       " \r\n\t",
		"binary":            "v=0\r\n\x00\x01",
		"bad UTF-8":         "v=0\r\ns=\xff\r\n",
		"no version":        "o=- 1 1 IN IP4 0.0.0.0\r\n",
		"session only":      "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n",
		"no port":           replace("m=audio 9 ", "m=audio x "),
		"short media":       replace("m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126", "m=audio 9"),
		"plain RTP":         replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"),
		"rejected audio":    replace("m=audio 9 ", "m=audio 0 "),
		"two tracks":        good + audio,
		"many sections":     good + strings.Repeat("m=video 9 UDP/TLS/RTP/SAVPF 96\r\n", 9),
		"data channel":      good + "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n",
		"only video":        replace("m=audio", "m=video"),
		"no ufrag":          replace("a=ice-ufrag:", "a=x:"),
		"short ufrag":       replace("a=ice-ufrag:K7lb", "a=ice-ufrag:K7"),
		"short password":    replace("a=ice-pwd:QGRTAISzsEq7hwV0THbX5wzL", "a=ice-pwd:QGRT"),
		"odd password":      replace("a=ice-pwd:QGRTAISzsEq7hwV0THbX5wzL", "a=ice-pwd:QGRTAISzsEq7hwV0THbX5w L"),
		"lite":              replace("t=0 0\r\n", "t=0 0\r\na=ice-lite\r\n"),
		"weak hash":         replace("sha-256", "md5"),
		"short fingerprint": replace("A5:A8:", ""),
		"no setup":          replace("a=setup:actpass", "a=setup:holdconn"),
		"no rtcp-mux":       replace("a=rtcp-mux", "a=x"),
		"no opus":           replace("opus/48000/2", "opus/8000"),
		"unlisted opus":     replace("SAVPF 111 63", "SAVPF 112 63"),
		"long line":         replace("s=-", "s="+strings.Repeat("x", 5000)),
		"many lines":        good + strings.Repeat("a=x\r\n", 2000),
	} {
		_, err := ReadOffer([]byte(offer))
		if event.CodeOf(err) != event.CodeInvalid {
			t.Errorf("%s: %v, want invalid", name, err)
		}
	}
	if _, err := ReadOffer(make([]byte, MaxOffer+1)); event.CodeOf(err) != event.CodeTooLarge {
		t.Errorf("too large: %v", err)
	}
}

func FuzzReadOffer(f *testing.F) {
	files, err := filepath.Glob("testdata/offers/*.sdp")
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
	f.Add([]byte("v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := ReadOffer(b)
		if err != nil {
			if c := event.CodeOf(err); c != event.CodeInvalid && c != event.CodeTooLarge {
				t.Fatalf("refused with %s: %v", c, err)
			}
			return
		}
		if o.Opus == 0 || strings.Contains(o.SDP, "\na=candidate:") || !strings.HasPrefix(o.SDP, "v=0\r\n") {
			t.Fatalf("passed: %+v", o)
		}
		// What passed once passes again, unchanged: nothing is smuggled through normalisation.
		again, err := ReadOffer([]byte(o.SDP))
		if err != nil || again.SDP != o.SDP || again.Opus != o.Opus || again.RED != o.RED || again.Sends != o.Sends {
			t.Fatalf("second reading: %+v, %v", again, err)
		}
	})
}
