package wire

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

var errSDP = errors.New("unusable SDP answer")

// Answer is what a listener needs of an SDP answer (RFC 8866) to a WHEP offer.
type Answer struct {
	User, Password string // ICE
	Fingerprint    []byte // SHA-256 of the DTLS certificate
	Active         bool   // the other side begins DTLS
	Candidates     []netip.AddrPort
	Opus, RED      uint8 // payload types; RED is 0 if it was not taken
	NACK           bool
	PacketMS       int // a=ptime; 0 if it does not say
}

// ReadAnswer reads an answer. Candidates are those over UDP that are addresses; names are left out.
func ReadAnswer(sdp []byte) (*Answer, error) {
	a := &Answer{}
	audio, media := true, 0
	text := string(sdp)
	if len(text) > 64<<10 || !strings.HasPrefix(text, "v=0") {
		return nil, errSDP
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if rest, ok := strings.CutPrefix(line, "m="); ok {
			f := strings.Fields(rest)
			audio = len(f) > 3 && f[0] == "audio" && f[1] != "0"
			if audio {
				media++
			}
			continue
		}
		attr, ok := strings.CutPrefix(line, "a=")
		if !ok || !audio {
			continue
		}
		key, value, _ := strings.Cut(attr, ":")
		if err := a.attribute(key, value); err != nil {
			return nil, err
		}
	}
	switch {
	case media == 0:
		return nil, fmt.Errorf("%w: no audio", errSDP)
	case len(a.User) < 4 || len(a.Password) < 22 || len(a.User) > 256 || len(a.Password) > 256:
		return nil, fmt.Errorf("%w: no ICE credentials", errSDP)
	case len(a.Fingerprint) != 32:
		return nil, fmt.Errorf("%w: no SHA-256 fingerprint", errSDP)
	case a.Opus == 0:
		return nil, fmt.Errorf("%w: no Opus", errSDP)
	}
	return a, nil
}

func (a *Answer) attribute(key, value string) error {
	switch key {
	case "ice-ufrag":
		a.User = value
	case "ice-pwd":
		a.Password = value
	case "setup":
		a.Active = value == "active"
	case "ptime":
		if n, err := strconv.Atoi(value); err == nil && n > 0 && n <= 120 {
			a.PacketMS = n
		}
	case "fingerprint":
		hash, digits, _ := strings.Cut(value, " ")
		if !strings.EqualFold(hash, "sha-256") {
			return nil
		}
		b, err := hex.DecodeString(strings.ReplaceAll(digits, ":", ""))
		if err != nil {
			return fmt.Errorf("%w: fingerprint", errSDP)
		}
		a.Fingerprint = b
	case "candidate":
		a.candidate(value)
	case "rtcp-fb":
		_, what, _ := strings.Cut(value, " ")
		a.NACK = a.NACK || strings.TrimSpace(what) == "nack"
	case "rtpmap":
		number, codec, _ := strings.Cut(value, " ")
		n, err := strconv.ParseUint(number, 10, 7)
		if err != nil {
			return fmt.Errorf("%w: rtpmap %q", errSDP, value)
		}
		switch codec = strings.ToLower(codec); {
		case strings.HasPrefix(codec, "opus/48000") && a.Opus == 0:
			a.Opus = uint8(n)
		case strings.HasPrefix(codec, "red/48000") && a.RED == 0:
			a.RED = uint8(n)
		}
	}
	return nil
}

// candidate reads RFC 8839, 5.1: foundation component transport priority address port "typ" type.
func (a *Answer) candidate(value string) {
	f := strings.Fields(value)
	if len(f) < 8 || f[1] != "1" || !strings.EqualFold(f[2], "udp") || f[6] != "typ" || len(a.Candidates) == 16 {
		return
	}
	ip, err := netip.ParseAddr(f[4])
	port, perr := strconv.ParseUint(f[5], 10, 16)
	if err == nil && perr == nil && port > 0 {
		a.Candidates = append(a.Candidates, netip.AddrPortFrom(ip.Unmap().WithZone(""), uint16(port)))
	}
}
