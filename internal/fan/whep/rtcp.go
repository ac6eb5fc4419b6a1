package whep

import (
	"encoding/binary"
	"time"
)

// RTCP (RFC 3550, 6; RFC 4585) as far as a sender of audio needs it.
const (
	rtcpSR    = 200
	rtcpRR    = 201
	rtcpSDES  = 202
	rtcpBYE   = 203
	rtcpRTPFB = 205
	fbNACK    = 1

	reportEvery = 5 * time.Second
	rtcpMax     = 28 + 32 + tagSize + rtcpTrailer // a sender report, its name and the seal

	ntpEpoch = 2208988800 // seconds from 1900 to 1970
)

// feedback is what a compound packet from a listener says about our stream.
type feedback struct {
	bye     bool
	report  bool
	lost    uint8  // share of 256 since the last report
	jitter  uint32 // in samples
	strange int    // blocks and lists about streams that are not ours
	nacks   int
	nack    [maxNACKs]nackPair
}

// nackPair is a lost packet and which of the 16 after it are lost too (RFC 4585, 6.2.1).
type nackPair struct{ pid, lost uint16 }

// maxNACKs bounds what one packet may ask for: twelve pairs are up to 204 packets, more than are kept.
const maxNACKs = 12

// read takes a compound packet apart, and says no if it is not RTCP. Nothing is allocated.
func (f *feedback) read(b []byte, ours uint32) bool {
	*f = feedback{}
	if len(b) < 8 {
		return false
	}
	for len(b) > 0 {
		if len(b) < 4 || b[0]>>6 != 2 {
			return false
		}
		size := 4 + 4*int(binary.BigEndian.Uint16(b[2:]))
		if size > len(b) {
			return false
		}
		p, count := b[:size], int(b[0]&0x1f)
		b = b[size:]
		at := 8
		switch p[1] {
		case rtcpSR:
			at = 28
			fallthrough
		case rtcpRR:
			if len(p) < at+24*count {
				return false
			}
			for r := p[at:]; count > 0; r, count = r[24:], count-1 {
				if binary.BigEndian.Uint32(r) != ours {
					f.strange++
					continue
				}
				f.report, f.lost, f.jitter = true, r[4], binary.BigEndian.Uint32(r[12:])
			}
		case rtcpBYE:
			f.bye = true
		case rtcpRTPFB:
			if count != fbNACK {
				continue
			}
			if len(p) < 12 {
				return false
			}
			if binary.BigEndian.Uint32(p[8:]) != ours {
				f.strange++
				continue
			}
			for r := p[12:]; len(r) >= 4 && f.nacks < maxNACKs; r = r[4:] {
				f.nack[f.nacks] = nackPair{binary.BigEndian.Uint16(r), binary.BigEndian.Uint16(r[2:])}
				f.nacks++
			}
		}
	}
	return true
}

// report writes a sender report and our name (RFC 3550, 6.4.1 and 6.5) into b. The pair of clocks is: now, and the sample that is made now.
func report(b []byte, ssrc uint32, now time.Time, rtp, packets, octets uint32) int {
	b[0], b[1] = 0x80, rtcpSR
	binary.BigEndian.PutUint16(b[2:], 6)
	binary.BigEndian.PutUint32(b[4:], ssrc)
	seconds := uint64(now.Unix()) + ntpEpoch
	binary.BigEndian.PutUint32(b[8:], uint32(seconds))
	binary.BigEndian.PutUint32(b[12:], uint32(uint64(now.Nanosecond())<<32/1e9))
	binary.BigEndian.PutUint32(b[16:], rtp)
	binary.BigEndian.PutUint32(b[20:], packets)
	binary.BigEndian.PutUint32(b[24:], octets)
	at := b[28:]
	const text = 2 + len(cname) + 1 // with the null that ends the list
	const padded = (text + 3) &^ 3
	clear(at[:8+padded])
	at[0], at[1] = 0x81, rtcpSDES
	binary.BigEndian.PutUint16(at[2:], uint16(1+padded/4))
	binary.BigEndian.PutUint32(at[4:], ssrc)
	at[8], at[9] = 1, byte(len(cname))
	copy(at[10:], cname)
	return 28 + 8 + padded
}

// cname is the same for all: nothing else is to be played in time with the programme.
const cname = "earshot"
