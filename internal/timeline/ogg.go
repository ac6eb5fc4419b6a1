package timeline

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Ogg (RFC 3533) carries Opus by RFC 7845: a page with OpusHead, a page with OpusTags, pages with packets. A page's granule
// position is the number of samples at its end, pre-skip included.

const (
	// A listener joins the shared stream in the middle, where its decoder knows nothing of what came before; 3840 samples
	// (80 ms) to be dropped are what RFC 7845, 4.6 recommends there.
	livePreSkip = 3840
	liveSerial  = 0x45617273 // any fixed number: each response is a stream of its own

	filePreSkip = 312 // the encoder's look-ahead at 48 kHz: the recording starts where the sound does

	pageContinues = 1
	pageFirst     = 2
	pageLast      = 4

	pageHeader  = 27  // bytes before the lacing values
	maxLacing   = 255 // lacing values in a page
	pageSamples = 48000
)

var le = binary.LittleEndian

// OggHeaders are the first two pages, OpusHead and OpusTags, of the shared stream whose further pages are each part's Ogg;
// shared, not to be modified. After them any part may follow, then each in its order: granule position = 960 × the number of
// frames before the page's end + pre-skip, so a frame sounds at its number × 20 ms, and a player that joins late sees
// a stream that starts late. Page numbers go on from the part's number, so a lost part shows as a lost page.
func OggHeaders() []byte { return liveHeaders }

var liveHeaders = appendHeaders(nil, liveSerial, livePreSkip, nil)

// OggHeadersSkipping are OggHeaders for a decoder of one's own: after them it drops so many samples (at 48 kHz) of what follows.
func OggHeadersSkipping(samples uint16) []byte { return appendHeaders(nil, liveSerial, samples, nil) }

// livePage is a part's page in the shared stream.
func livePage(number, first uint64, packets [][]byte) []byte {
	size := pageHeader
	for _, p := range packets {
		size += len(p)/255 + 1 + len(p)
	}
	granule := (first+uint64(len(packets)))*samplesPerFrame + livePreSkip
	return appendPage(make([]byte, 0, size), 0, granule, liveSerial, uint32(number)+2, packets...)
}

// appendPage adds a page of whole packets, which must fit: 255 lacing values.
func appendPage(b []byte, kind byte, granule uint64, serial, number uint32, packets ...[]byte) []byte {
	start := len(b)
	b = append(b, "OggS\x00"...)
	b = append(b, kind)
	b = le.AppendUint64(b, granule)
	b = le.AppendUint32(b, serial)
	b = le.AppendUint32(b, number)
	b = append(b, 0, 0, 0, 0) // checksum, below
	count := len(b)
	b = append(b, 0)
	for _, p := range packets {
		n := len(p)
		for ; n >= 255; n -= 255 {
			b = append(b, 255)
		}
		b = append(b, byte(n))
	}
	b[count] = byte(len(b) - count - 1)
	for _, p := range packets {
		b = append(b, p...)
	}
	le.PutUint32(b[start+22:], oggSum(b[start:]))
	return b
}

func appendHeaders(b []byte, serial uint32, preSkip uint16, tags []string) []byte {
	head := append([]byte("OpusHead"), 1, 1) // version, channels
	head = le.AppendUint16(head, preSkip)
	head = le.AppendUint32(head, timescale)
	head = append(head, 0, 0, 0) // gain, mapping family
	const vendor = "Earshot"
	comment := le.AppendUint32([]byte("OpusTags"), uint32(len(vendor)))
	comment = append(comment, vendor...)
	comment = le.AppendUint32(comment, uint32(len(tags)))
	for _, t := range tags {
		comment = le.AppendUint32(comment, uint32(len(t)))
		comment = append(comment, t...)
	}
	b = appendPage(b, pageFirst, 0, serial, 0, head)
	return appendPage(b, 0, 0, serial, 1, comment)
}

// oggSum is the checksum of RFC 3533, 6, field 7: CRC-32 with 0x04c11db7, not reflected, from zero. (hash/crc32 reflects.)
func oggSum(b []byte) uint32 {
	var sum uint32
	for _, c := range b {
		sum = sum<<8 ^ oggTable[byte(sum>>24)^c]
	}
	return sum
}

var oggTable = func() (t [256]uint32) {
	for i := range t {
		r := uint32(i) << 24
		for range 8 {
			if r&0x80000000 != 0 {
				r = r<<1 ^ 0x04c11db7
			} else {
				r <<= 1
			}
		}
		t[i] = r
	}
	return t
}()

// OggWriter writes one Ogg Opus file: a recording, from its first frame. Pages hold a second at most. It belongs to one goroutine.
type OggWriter struct {
	w       io.Writer
	serial  uint32
	tags    []string
	number  uint32
	granule uint64
	pending [][]byte // packets of the page that is being filled, in store
	store   []byte
	lacing  int
	samples int
	page    []byte
	err     error
}

// NewOggWriter makes a writer to w; nothing is written before the first Write or Close. Tags are "NAME=value" (RFC 7845, 5.2);
// together they must stay below 60 KiB. What is in them is not trusted: a name that the format forbids is an error.
func NewOggWriter(w io.Writer, serial uint32, tags ...string) *OggWriter {
	o := &OggWriter{w: w, serial: serial, tags: tags}
	size := 0
	for _, t := range tags {
		name, _, ok := strings.Cut(t, "=")
		if !ok || name == "" || strings.ContainsFunc(name, func(r rune) bool { return r < 0x20 || r > 0x7d }) {
			o.err = fmt.Errorf("ogg: tag %q is not NAME=value", t)
		}
		size += 4 + len(t)
	}
	if size > 60<<10 {
		o.err = fmt.Errorf("ogg: %d bytes of tags", size)
	}
	return o
}

// Write adds packets of any duration, which it copies. A packet that is not Opus is refused, with those after it; once w has failed,
// so does everything.
func (o *OggWriter) Write(packets [][]byte) error {
	for _, p := range packets {
		if o.err != nil {
			return o.err
		}
		if err := CheckPacket(p); err != nil {
			return fmt.Errorf("ogg: %w", err)
		}
		n, _ := TOCDuration(p)
		lacing := len(p)/255 + 1
		if lacing > maxLacing {
			return fmt.Errorf("ogg: packet of %d bytes", len(p))
		}
		// A full page waits for the next packet: only then is it known not to be the last.
		if len(o.pending) > 0 && (o.lacing+lacing > maxLacing || o.samples+n > pageSamples) {
			o.flush(0)
		}
		at := len(o.store)
		o.store = append(o.store, p...)
		o.pending = append(o.pending, o.store[at:len(o.store):len(o.store)])
		o.lacing += lacing
		o.samples += n
	}
	return o.err
}

// Close writes the last page, marked as such. Without it the file is cut short, which players forgive. It does not close w.
func (o *OggWriter) Close() error {
	if errors.Is(o.err, errOggClosed) {
		return nil
	}
	o.flush(pageLast)
	if o.err != nil {
		return o.err
	}
	o.err = errOggClosed
	return nil
}

var errOggClosed = errors.New("ogg: writer is closed")

func (o *OggWriter) flush(kind byte) {
	if o.err != nil {
		return
	}
	o.page = o.page[:0]
	if o.number == 0 {
		o.page = appendHeaders(o.page, o.serial, filePreSkip, o.tags)
		o.number = 2
	}
	o.granule += uint64(o.samples)
	o.page = appendPage(o.page, kind, o.granule, o.serial, o.number, o.pending...)
	o.number++
	if _, err := o.w.Write(o.page); err != nil {
		o.err = fmt.Errorf("ogg: write: %w", err)
	}
	clear(o.pending)
	o.pending, o.store, o.lacing, o.samples = o.pending[:0], o.store[:0], 0, 0
}
