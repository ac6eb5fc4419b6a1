package peer

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"earshot/internal/event"
)

// Limits of an offer. A browser's audio offer has about 2 KB, OBS's with video 4 KB; what is far beyond is not read.
const (
	MaxOffer     = 64 << 10 // bytes
	maxLines     = 1500
	maxMedia     = 4
	maxFormats   = 64
	maxAttribute = 4096 // bytes of one line
)

// Offer is what this server needs to know of an SDP offer (RFC 8866, RFC 3264), after it was judged usable.
type Offer struct {
	SDP      string // normalised: CRLF, and without candidates, which a lite agent does not need
	Sends    bool   // the other side wants to send audio
	Receives bool   // the other side wants to receive audio
	Passive  bool   // the other side insists on being the DTLS server (RFC 5763, 5)
	Opus     uint8  // payload type of Opus
	RED      uint8  // payload type of RED over that Opus (RFC 2198), 0 if not offered in the usual form
	NACK     bool   // generic NACK was offered for Opus (RFC 4585)

	User     string // the other side's ICE credentials (RFC 8839, 5.4)
	Password string

	Hash   string  // of the fingerprint: sha-256, sha-384 or sha-512 (RFC 8122, 5)
	Print  []byte  // the fingerprint: that hash of the certificate of the other side
	Bundle bool    // the sections may share one transport (RFC 9143)
	RSize  bool    // reduced-size RTCP was offered (RFC 5506)
	Media  []Media // all sections, in order
}

// Media is one media section of an offer, as far as an answer must repeat it.
type Media struct {
	Kind, Proto, Format string // of the m= line; Format is the first
	Mid                 string // "" if it has none
	Audio               bool   // it is the one that is answered; the others are rejected
}

// section is one m= line and what stands below it, or the session part above the first.
type section struct {
	media    string
	proto    string
	rejected bool
	formats  []string
	attrs    []attr
}

type attr struct{ key, value string }

func (s *section) get(key string) (string, bool) {
	for _, a := range s.attrs {
		if a.key == key {
			return a.value, true
		}
	}
	return "", false
}

// ReadOffer judges an SDP offer before anything else looks at it. It guards the WebRTC library: what passes is bounded in
// size, in media sections and in lines, offers exactly one audio track with Opus, and carries the credentials without which no
// connection can come about. Candidates are taken out: a lite server needs none (RFC 8445, 2.5), so nobody can make it
// resolve a name or connect somewhere. Errors are *event.Error with the field "offer".
func ReadOffer(b []byte) (*Offer, error) {
	if len(b) > MaxOffer {
		return nil, &event.Error{Code: event.CodeTooLarge, Field: "offer", Message: "The offer is larger than 64 KiB."}
	}
	lines, err := split(b)
	if err != nil {
		return nil, err
	}
	session, media, err := sections(lines)
	if err != nil {
		return nil, err
	}
	audio, err := audioOf(media)
	if err != nil {
		return nil, err
	}
	o := &Offer{}
	for _, m := range media {
		mid, _ := m.get("mid")
		o.Media = append(o.Media, Media{Kind: m.media, Proto: m.proto, Format: m.formats[0], Mid: mid, Audio: m == audio})
	}
	group, _ := session.get("group")
	o.Bundle = strings.HasPrefix(group, "BUNDLE")
	_, o.RSize = audio.get("rtcp-rsize")
	if err := o.credentials(session, audio); err != nil {
		return nil, err
	}
	if err := o.codecs(audio); err != nil {
		return nil, err
	}
	o.direction(session, audio)
	var sdp strings.Builder
	sdp.Grow(len(b) + len(lines))
	for _, l := range lines {
		if strings.HasPrefix(l, "a=candidate:") || l == "a=end-of-candidates" || strings.HasPrefix(l, "a=remote-candidates:") {
			continue
		}
		sdp.WriteString(l)
		sdp.WriteString("\r\n")
	}
	o.SDP = sdp.String()
	return o, nil
}

func invalid(message string) *event.Error { return event.Invalid("offer", message) }

// split cuts into lines of the form x=… (RFC 8866, 5), which must begin with v=0.
func split(b []byte) ([]string, error) {
	if len(bytes.TrimSpace(b)) == 0 {
		return nil, invalid("The request has no SDP offer. Send one as its body.")
	}
	if bytes.Count(b, []byte("\n")) > maxLines {
		return nil, invalid("The offer has too many lines.")
	}
	var lines []string
	for l := range strings.SplitSeq(string(b), "\n") {
		l = strings.TrimSuffix(l, "\r")
		if l == "" {
			continue
		}
		if len(l) > maxAttribute {
			return nil, invalid(fmt.Sprintf("Line %d of the offer is too long.", len(lines)+1))
		}
		if len(l) < 2 || l[1] != '=' || l[0] < 'a' || l[0] > 'z' || strings.ContainsFunc(l, control) {
			return nil, invalid(fmt.Sprintf("Line %d is not SDP. The body must be an SDP offer.", len(lines)+1))
		}
		lines = append(lines, l)
	}
	if lines[0] != "v=0" {
		return nil, invalid("The body is not an SDP offer: it does not begin with v=0.")
	}
	return lines, nil
}

func control(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f || r == 0xfffd }

func sections(lines []string) (session *section, media []*section, err error) {
	session = &section{}
	at := session
	for i, l := range lines {
		switch l[0] {
		case 'm':
			f := strings.Fields(l[2:])
			if len(f) < 4 || len(f) > 3+maxFormats {
				return nil, nil, invalid(fmt.Sprintf("Line %d of the offer is not a media description.", i+1))
			}
			if len(media) == maxMedia {
				return nil, nil, invalid("The offer has too many media sections. One audio track is all that is needed.")
			}
			port, _, _ := strings.Cut(f[1], "/")
			if _, perr := strconv.ParseUint(port, 10, 16); perr != nil {
				return nil, nil, invalid(fmt.Sprintf("Line %d of the offer has no port.", i+1))
			}
			at = &section{media: f[0], proto: f[2], rejected: port == "0", formats: f[3:]}
			if !strings.Contains(f[2], "RTP/SAVP") && f[0] != "application" {
				return nil, nil, invalid("The offer's media are not encrypted. WebRTC needs UDP/TLS/RTP/SAVPF.")
			}
			media = append(media, at)
		case 'a':
			key, value, _ := strings.Cut(l[2:], ":")
			if key == "bundle-only" {
				at.rejected = false // port 0 then means only that it shares another's (RFC 9143, 6)
			}
			at.attrs = append(at.attrs, attr{key, value})
		}
	}
	return session, media, nil
}

// audioOf finds the one audio section; sections of other kinds may stand beside it (OBS offers video too, and is
// answered that it is not wanted), but no data channel.
func audioOf(media []*section) (*section, error) {
	var audio *section
	for _, m := range media {
		switch m.media {
		case "audio":
			if m.rejected {
				continue
			}
			if audio != nil {
				return nil, invalid("The offer has more than one audio track. Offer one.")
			}
			audio = m
		case "video":
		default:
			return nil, invalid(fmt.Sprintf("The offer asks for %q. Only audio is spoken here.", m.media))
		}
	}
	if audio == nil {
		return nil, invalid("The offer has no audio track. Offer one with Opus.")
	}
	return audio, nil
}

func (o *Offer) credentials(session, audio *section) error {
	either := func(key string) string {
		if v, ok := audio.get(key); ok {
			return v
		}
		v, _ := session.get(key)
		return v
	}
	if _, lite := session.get("ice-lite"); lite {
		return invalid("The offer is ICE-lite, as this server is. One of two must be a full ICE agent.")
	}
	// RFC 8839, 5.4: 4 to 256 and 22 to 256 ice-chars.
	ufrag, pwd := either("ice-ufrag"), either("ice-pwd")
	if !iceChars(ufrag, 4) || !iceChars(pwd, 22) {
		return invalid("The offer lacks usable ICE credentials (ice-ufrag, ice-pwd).")
	}
	o.User, o.Password = ufrag, pwd
	if o.Hash, o.Print = fingerprint(either("fingerprint")); o.Print == nil {
		return invalid("The offer lacks a usable DTLS fingerprint (sha-256). Voices travel encrypted only.")
	}
	switch either("setup") {
	case "passive":
		o.Passive = true
	case "actpass", "active":
	default:
		return invalid("The offer does not say who begins DTLS (a=setup). Use actpass.")
	}
	if _, mux := audio.get("rtcp-mux"); !mux {
		return invalid("The offer must multiplex RTP and RTCP (a=rtcp-mux).")
	}
	return nil
}

func iceChars(s string, least int) bool {
	if len(s) < least || len(s) > 256 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '+' && c != '/' && c != '-' && c != '_' && c != '=' {
			return false
		}
	}
	return true
}

// fingerprint accepts the hashes of RFC 8122, 5 that are still safe: pairs of hexadecimal digits, joined by colons.
func fingerprint(s string) (hash string, print []byte) {
	hash, value, _ := strings.Cut(s, " ")
	hash = strings.ToLower(hash)
	size := map[string]int{"sha-256": 32, "sha-384": 48, "sha-512": 64}[hash]
	b, err := hex.DecodeString(strings.ReplaceAll(value, ":", ""))
	if err != nil || size == 0 || len(b) != size || len(value) != 3*size-1 {
		return "", nil
	}
	return hash, b
}

func (o *Offer) codecs(audio *section) error {
	payload := func(value, codec string) uint8 {
		pt, rest, _ := strings.Cut(value, " ")
		n, err := strconv.ParseUint(pt, 10, 7)
		if err != nil || n == 0 || !strings.EqualFold(strings.TrimSpace(rest), codec) {
			return 0
		}
		for _, f := range audio.formats {
			if f == pt {
				return uint8(n)
			}
		}
		return 0
	}
	for _, a := range audio.attrs {
		if a.key != "rtpmap" {
			continue
		}
		if pt := payload(a.value, "opus/48000/2"); pt != 0 && o.Opus == 0 {
			o.Opus = pt
		}
		if pt := payload(a.value, "red/48000/2"); pt != 0 && o.RED == 0 {
			o.RED = pt
		}
	}
	if o.Opus == 0 {
		return invalid("The offer's audio track does not offer Opus (opus/48000/2).")
	}
	opus, red := strconv.Itoa(int(o.Opus)), strconv.Itoa(int(o.RED))
	over := false
	for _, a := range audio.attrs {
		switch pt, rest, _ := strings.Cut(a.value, " "); {
		case a.key == "fmtp" && pt == red && strings.TrimSpace(rest) == opus+"/"+opus:
			over = true
		case a.key == "rtcp-fb" && (pt == opus || pt == "*") && strings.TrimSpace(rest) == "nack":
			o.NACK = true
		}
	}
	if !over || o.Opus != PayloadOpus {
		o.RED = 0
	}
	return nil
}

func (o *Offer) direction(session, audio *section) {
	o.Sends, o.Receives = true, true
	for _, s := range []*section{session, audio} {
		for _, a := range s.attrs {
			switch a.key {
			case "sendrecv":
				o.Sends, o.Receives = true, true
			case "sendonly":
				o.Sends, o.Receives = true, false
			case "recvonly":
				o.Sends, o.Receives = false, true
			case "inactive":
				o.Sends, o.Receives = false, false
			}
		}
	}
}
