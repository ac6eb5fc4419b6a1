package timeline_test

import (
	_ "embed"
	"encoding/binary"
	"testing"
	"time"

	"earshot/internal/timeline"
)

// Ten seconds of a sine of 440 Hz:
//
//	ffmpeg -f lavfi -i sine=f=440:r=48000:d=10 -c:a libopus -b:a 16k -frame_duration 20 -application lowdelay -ac 1 \
//	  -map_metadata -1 -fflags +bitexact -flags +bitexact tone.opus
//
//go:embed testdata/tone.opus
var toneFile []byte

// tone is the packets of toneFile, over and over: packet(n) has its place in the sine.
var tone = func() [][]byte {
	packets, _ := oggPackets(toneFile)
	return packets[2:]
}()

func packet(n uint64) []byte { return tone[n%uint64(len(tone))] }

var origin = time.Date(2026, 11, 28, 17, 45, 0, 0, time.UTC)

// page is an Ogg page as RFC 3533 has it.
type page struct {
	kind    byte
	granule uint64
	serial  uint32
	number  uint32
	sum     uint32
	lacing  []byte
	body    []byte
	raw     []byte
}

func oggPages(b []byte) (pages []page) {
	for len(b) >= 27 && string(b[:5]) == "OggS\x00" {
		p := page{
			kind: b[5], granule: binary.LittleEndian.Uint64(b[6:]), serial: binary.LittleEndian.Uint32(b[14:]),
			number: binary.LittleEndian.Uint32(b[18:]), sum: binary.LittleEndian.Uint32(b[22:]), lacing: b[27 : 27+int(b[26])],
		}
		head, size := 27+int(b[26]), 0
		for _, l := range p.lacing {
			size += int(l)
		}
		p.body, p.raw = b[head:head+size], b[:head+size]
		pages, b = append(pages, p), b[head+size:]
	}
	if len(b) > 0 {
		panic("bytes that are no Ogg page")
	}
	return pages
}

func oggPackets(b []byte) (packets [][]byte, pages []page) {
	pages = oggPages(b)
	var open []byte
	for _, p := range pages {
		body := p.body
		for _, l := range p.lacing {
			open, body = append(open, body[:l]...), body[l:]
			if l < 255 {
				packets, open = append(packets, open), nil
			}
		}
	}
	return packets, pages
}

// fill appends frames from ≤ n < to of epoch 1.
func fill(t testing.TB, tl *timeline.Timeline, from, to uint64) {
	t.Helper()
	for n := from; n < to; n++ {
		if err := tl.Append(timeline.Frame{Number: n, Epoch: 1, Packet: packet(n)}); err != nil {
			t.Fatal(err)
		}
	}
}

func newTimeline(t testing.TB, c timeline.Config) *timeline.Timeline {
	t.Helper()
	if c.Origin.IsZero() {
		c.Origin = origin
	}
	tl, err := timeline.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return tl
}
