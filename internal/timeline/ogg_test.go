package timeline_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"earshot/internal/timeline"
)

// checkSums works the checksum out bit by bit, as RFC 3533 words it.
func checkSums(t *testing.T, pages []page) {
	t.Helper()
	for i, p := range pages {
		b := bytes.Clone(p.raw)
		copy(b[22:], "\x00\x00\x00\x00")
		var sum uint32
		for _, c := range b {
			sum ^= uint32(c) << 24
			for range 8 {
				top := sum >> 31
				sum <<= 1
				if top == 1 {
					sum ^= 0x04c11db7
				}
			}
		}
		if sum != p.sum {
			t.Errorf("page %d: checksum %08x, want %08x", i, p.sum, sum)
		}
	}
}

func TestLiveOgg(t *testing.T) {
	tl := newTimeline(t, timeline.Config{First: 100, Epoch: 1})
	b := bytes.Clone(timeline.OggHeaders())
	c := tl.Cursor(0)
	fill(t, tl, 100, 134)
	tl.Close()
	for {
		p, err := c.Next()
		if err != nil {
			break
		}
		b = append(b, p.Ogg...)
	}
	packets, pages := oggPackets(b)
	checkSums(t, pages)
	if string(packets[0][:8]) != "OpusHead" || string(packets[1][:8]) != "OpusTags" || len(packets) != 2+34 {
		t.Fatalf("%d packets", len(packets))
	}
	for i, want := range []struct {
		kind    byte
		number  uint32
		granule uint64
	}{{2, 0, 0}, {0, 1, 0}, {0, 12, 110*960 + 3840}, {0, 13, 120*960 + 3840}, {0, 14, 130*960 + 3840}, {0, 15, 134*960 + 3840}} {
		if p := pages[i]; p.kind != want.kind || p.number != want.number || p.granule != want.granule || p.serial != pages[0].serial {
			t.Errorf("page %d: %+v, want %+v", i, p, want)
		}
	}
}

func TestOggWriter(t *testing.T) {
	var b bytes.Buffer
	o := timeline.NewOggWriter(&b, 77, "TITLE=Town hall", "ARTIST=Ada & Bo")
	var want [][]byte
	for len(want) < 333 {
		n := min(7, 333-len(want))
		batch := make([][]byte, n)
		for i := range batch {
			batch[i] = bytes.Clone(packet(uint64(len(want) + i)))
			want = append(want, bytes.Clone(batch[i]))
		}
		if err := o.Write(batch); err != nil {
			t.Fatal(err)
		}
		for i := range batch {
			clear(batch[i]) // Write copies
		}
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	size := b.Len()
	if err := o.Close(); err != nil || b.Len() != size {
		t.Errorf("closing again: %v, %d bytes more", err, b.Len()-size)
	}
	if err := o.Write(want[:1]); err == nil {
		t.Error("Write after Close")
	}

	packets, pages := oggPackets(b.Bytes())
	checkSums(t, pages)
	if got := packets[0]; string(got) != "OpusHead\x01\x01\x38\x01\x80\xbb\x00\x00\x00\x00\x00" {
		t.Errorf("OpusHead %q", got)
	}
	if got := packets[1]; string(got) != "OpusTags\x07\x00\x00\x00Earshot\x02\x00\x00\x00\x0f\x00\x00\x00TITLE=Town hall\x0f\x00\x00\x00ARTIST=Ada & Bo" {
		t.Errorf("OpusTags %q", got)
	}
	if len(packets)-2 != len(want) {
		t.Fatalf("%d packets, want %d", len(packets)-2, len(want))
	}
	for i, p := range want {
		if !bytes.Equal(packets[i+2], p) {
			t.Fatalf("packet %d differs", i)
		}
	}
	if len(pages) != 2+7 {
		t.Errorf("%d pages for 6.66 s", len(pages))
	}
	for i, p := range pages {
		kind, granule := byte(0), uint64(max(0, i-1))*48000
		switch i {
		case 0:
			kind = 2
		case len(pages) - 1:
			kind, granule = 4, 333*960
		}
		if p.kind != kind || p.granule != granule || p.serial != 77 || p.number != uint32(i) {
			t.Errorf("page %d: kind %d granule %d serial %d number %d; want kind %d granule %d", i, p.kind, p.granule, p.serial, p.number, kind, granule)
		}
	}
}

// TestOggWriterLongPackets: 255 lacing values are the end of a page before the second is.
func TestOggWriterLongPackets(t *testing.T) {
	var b bytes.Buffer
	o := timeline.NewOggWriter(&b, 1)
	long := append([]byte{31<<3 | 3, 6}, make([]byte, 6*1275)...) // 120 ms, 31 lacing values
	multiple := append([]byte{31 << 3}, make([]byte, 254)...)     // 255 bytes: a lacing value of 0 ends it
	var want [][]byte
	for range 9 {
		want = append(want, long, multiple)
	}
	if err := o.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	packets, pages := oggPackets(b.Bytes())
	checkSums(t, pages)
	if len(packets) != 20 {
		t.Fatalf("%d packets", len(packets))
	}
	for i, p := range packets[2:] {
		if !bytes.Equal(p, want[i]) {
			t.Errorf("packet %d differs", i)
		}
	}
	if len(pages) != 4 || pages[2].granule != 15*0+7*5760+7*960 || pages[3].granule != 9*(5760+960) || pages[3].kind != 4 {
		t.Errorf("pages %d, granules %d and %d", len(pages), pages[2].granule, pages[len(pages)-1].granule)
	}
}

func TestOggWriterEmpty(t *testing.T) {
	var b bytes.Buffer
	if err := timeline.NewOggWriter(&b, 1).Close(); err != nil {
		t.Fatal(err)
	}
	pages := oggPages(b.Bytes())
	if len(pages) != 3 || pages[2].kind != 4 || pages[2].granule != 0 || len(pages[2].body) != 0 {
		t.Errorf("an empty recording: %+v", pages)
	}
}

type failing struct{ after int }

var errDisk = errors.New("disk full")

func (f *failing) Write(b []byte) (int, error) {
	if f.after--; f.after < 0 {
		return 0, errDisk
	}
	return len(b), nil
}

func TestOggWriterErrors(t *testing.T) {
	for after := range 3 { // 120 packets are three pages
		o := timeline.NewOggWriter(&failing{after: after}, 1)
		var err error
		for range 3 {
			err = errors.Join(err, o.Write(tone[:40]))
		}
		err = errors.Join(err, o.Close())
		if !errors.Is(err, errDisk) {
			t.Errorf("failing after %d writes: %v", after, err)
		}
		if err := o.Close(); !errors.Is(err, errDisk) {
			t.Errorf("closed again: %v", err)
		}
	}
	for _, tag := range []string{"", "TITLE", "=x", "TI\nTLE=x", "TITLE~=x", "TITEL\u00e9=x", "A=" + strings.Repeat("x", 61<<10)} {
		var b bytes.Buffer
		o := timeline.NewOggWriter(&b, 1, tag)
		if err := errors.Join(o.Write(tone[:1]), o.Close()); err == nil || b.Len() > 0 {
			t.Errorf("tag %.20q: %v, %d bytes written", tag, err, b.Len())
		}
	}
	var b bytes.Buffer
	o := timeline.NewOggWriter(&b, 1)
	if err := o.Write([][]byte{tone[0], {}, tone[1]}); err == nil {
		t.Error("an empty packet was taken")
	}
	if err := errors.Join(o.Write(tone[2:3]), o.Close()); err != nil {
		t.Errorf("after a refused packet: %v", err)
	}
	if packets, _ := oggPackets(b.Bytes()); len(packets) != 4 {
		t.Errorf("%d packets, want the two that were good", len(packets)-2)
	}
}
