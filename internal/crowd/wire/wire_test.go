package wire_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"earshot/internal/crowd/wire"
	"earshot/internal/timeline"
)

func TestReadHead(t *testing.T) {
	const whole = "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: abc=\r\n\r\nrest"
	for n := range strings.Index(whole, "rest") {
		if _, used, err := wire.ReadHead([]byte(whole[:n])); used != 0 || err != nil {
			t.Fatalf("of %d bytes it used %d: %v", n, used, err)
		}
	}
	h, used, err := wire.ReadHead([]byte(whole))
	if err != nil || whole[used:] != "rest" || h.Status != 101 || !h.Upgrade || string(h.Accept) != "abc=" || h.Length != -1 || h.Close {
		t.Fatalf("%+v, used %d, %v", h, used, err)
	}
	h, _, err = wire.ReadHead([]byte("HTTP/1.0 503 Busy\r\nRetry-After: 7\r\nContent-Length: 12\r\n\r\n"))
	if err != nil || h.Status != 503 || !h.Close || string(h.RetryAfter) != "7" || h.Length != 12 {
		t.Fatalf("%+v, %v", h, err)
	}
	for _, bad := range []string{
		"ICY 200 OK\r\n\r\n", "HTTP/2 200\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
		"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 20000),
	} {
		if h, used, err := wire.ReadHead([]byte(bad)); err == nil {
			t.Errorf("%.40q was read as %+v, %d used", bad, h, used)
		}
	}
}

// A body comes out the same, however it is cut.
func TestBodyInPieces(t *testing.T) {
	const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1A;x=y\r\n, this is a body in chunks\r\n0\r\nTrailer: x\r\n\r\n"
	const want = "hello, this is a body in chunks"
	h, at, err := wire.ReadHead([]byte(chunked))
	if err != nil || !h.Chunked {
		t.Fatalf("%+v, %v", h, err)
	}
	for size := 1; size < len(chunked); size++ {
		d := h.Body()
		var got, have []byte
		ended := false
		for rest := chunked[at:]; len(rest) > 0 && !ended; {
			n := min(size, len(rest))
			have, rest = append(have, rest[:n]...), rest[n:]
			for len(have) > 0 {
				data, used, err := d.Take(have)
				got, have = append(got, data...), have[used:]
				if ended = errors.Is(err, io.EOF); ended {
					break
				}
				if err != nil {
					t.Fatalf("pieces of %d: %v", size, err)
				}
				if used == 0 {
					break
				}
			}
		}
		if string(got) != want || !ended {
			t.Fatalf("pieces of %d: %q, ended %v", size, got, ended)
		}
	}
	for n := range len(chunked) {
		if _, _, used, err := wire.ReadResponse([]byte(chunked[:n]), false); used != 0 || err != nil {
			t.Fatalf("of %d bytes it used %d: %v", n, used, err)
		}
	}
	_, body, used, err := wire.ReadResponse([]byte(chunked+"HTTP"), false)
	if string(body) != want || used != len(chunked) || err != nil {
		t.Fatalf("%q, used %d, %v", body, used, err)
	}
	h, body, _, err = wire.ReadResponse([]byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\nto the end"), true)
	if string(body) != "to the end" || h.Status != 200 || err != nil {
		t.Fatalf("%q, %+v, %v", body, h, err)
	}
	for _, bad := range []string{"zz\r\n", "\r\n", "5\r\nhelloX\r\n", "fffffffff\r\n", strings.Repeat("1", 2000)} {
		d := wire.Head{Chunked: true, Length: -1}.Body()
		var err error
		for b, n := []byte(bad), 0; len(b) > 0 && err == nil; b = b[n:] {
			if _, n, err = d.Take(b); n == 0 {
				break
			}
		}
		if err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
}

func TestReadFrame(t *testing.T) {
	for _, size := range []int{0, 1, 125, 126, 127, 65535, 65536, 70000} {
		payload := bytes.Repeat([]byte{7}, size)
		b := frame(wire.WSBinary, payload)
		f, used, err := wire.ReadFrame(append(b, 1, 2, 3))
		if err != nil || used != len(b) || f.Op != wire.WSBinary || !f.Fin || !bytes.Equal(f.Payload, payload) {
			t.Fatalf("%d bytes: used %d of %d, %v", size, used, len(b), err)
		}
		for _, n := range []int{0, 1, len(b) / 2, len(b) - 1} {
			if n < len(b) {
				if _, used, err := wire.ReadFrame(b[:n]); used != 0 || err != nil {
					t.Fatalf("%d of %d bytes: used %d, %v", n, len(b), used, err)
				}
			}
		}
	}
	for _, bad := range [][]byte{
		{0xc2, 0}, {0x82, 0x80}, {0x83, 0}, {0x8b, 0}, {0x08, 0}, {0x88, 126, 0, 200}, {0x82, 127, 0, 0, 1, 0, 0, 0, 0, 0},
	} {
		if f, _, err := wire.ReadFrame(bad); err == nil {
			t.Errorf("% x was read as %+v", bad, f)
		}
	}
	if code, reason := wire.CloseCode([]byte("\x03\xf45")); code != 1012 || reason != "5" {
		t.Errorf("%d %q", code, reason)
	}
	if code, _ := wire.CloseCode(nil); code != 1005 {
		t.Errorf("%d", code)
	}
}

func frame(op byte, payload []byte) []byte {
	b := []byte{0x80 | op}
	switch n := len(payload); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = append(b, 126, byte(n>>8), byte(n))
	default:
		b = append(b, 127, 0, 0, 0, 0, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return append(b, payload...)
}

// programme is a timeline of our server's, from frame first on, made by its own code: what it writes must be what is read here.
func programme(t testing.TB, first uint64, frames int) *timeline.Timeline {
	t.Helper()
	tl, err := timeline.New(timeline.Config{Origin: time.Unix(1_800_000_000, 0), First: first})
	if err != nil {
		t.Fatal(err)
	}
	for n := first; n < first+uint64(frames); n++ {
		if err := tl.Append(timeline.Frame{Number: n, Packet: packet(n)}, timeline.Cue{Kind: "levels", Data: []byte(`{"p_x":-20}`)}); err != nil {
			t.Fatal(err)
		}
	}
	return tl
}

func packet(n uint64) []byte {
	return append([]byte{0x78}, bytes.Repeat([]byte{byte(n)}, 60+int(n%40))...)
}

func TestChunks(t *testing.T) {
	tl := programme(t, 300, 200)
	seg, err := tl.Segment(3)
	if err != nil {
		t.Fatal(err)
	}
	whole := append(bytes.Clone(timeline.Init()), seg.Bytes()...)
	if got := wire.Timescale(whole); got != 48000 {
		t.Errorf("timescale %d", got)
	}
	next := uint64(300)
	for r := wire.ReadChunks(whole); ; {
		c, ok, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		if c.Start != next*960 || c.Duration != 9600 || c.Count != 10 {
			t.Fatalf("chunk at %d: %d, %d, %d", next, c.Start, c.Duration, c.Count)
		}
		at := 0
		for i := range c.Count {
			p := c.Sample(i, at)
			if !bytes.Equal(p, packet(next)) {
				t.Fatalf("frame %d: % x", next, p)
			}
			at += len(p)
			next++
		}
	}
	if next != 400 {
		t.Errorf("the segment ends at frame %d", next)
	}
	// In a stream, only whole chunks are taken, and all of them.
	taken := 0
	for n := range len(whole) + 1 {
		used, err := wire.WholeBoxes(whole[:n])
		if err != nil {
			t.Fatal(err)
		}
		if used < taken {
			t.Fatalf("%d bytes: %d used, %d before", n, used, taken)
		}
		if used > taken {
			r := wire.ReadChunks(whole[taken:used])
			if _, _, err := r.Next(); err != nil {
				t.Fatalf("%d to %d: %v", taken, used, err)
			}
		}
		taken = used
	}
	if taken != len(whole) {
		t.Errorf("%d of %d bytes are whole chunks", taken, len(whole))
	}
}

func TestPages(t *testing.T) {
	tl := programme(t, 500, 30)
	b := bytes.Clone(timeline.OggHeaders())
	for n := uint64(50); n < 53; n++ {
		p, err := tl.Part(n)
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, p.Ogg...)
	}
	next := uint64(500)
	for pages := 0; len(b) > 0; pages++ {
		p, used, err := wire.ReadPage(b)
		if err != nil || used == 0 || !wire.Sound(b[:used]) {
			t.Fatalf("page %d: used %d, %v", pages, used, err)
		}
		for n := range used {
			if _, got, err := wire.ReadPage(b[:n]); got != 0 || err != nil {
				t.Fatalf("%d of %d bytes: %d, %v", n, used, got, err)
			}
		}
		b[used-1] ^= 1
		if wire.Sound(b[:used]) {
			t.Error("a damaged page is sound")
		}
		b[used-1] ^= 1
		b = b[used:]
		if pages == 0 && !p.First || pages > 0 && p.First {
			t.Errorf("page %d: first %v", pages, p.First)
		}
		if pages < 2 {
			continue
		}
		for i, at := 0, 0; i < len(p.Lacing); {
			got, ni, end, whole := p.Packet(i, at)
			if !whole || !bytes.Equal(got, packet(next)) {
				t.Fatalf("frame %d: %v % x", next, whole, got)
			}
			next++
			i, at = ni, end
		}
		if p.Granule != next*960+3840 {
			t.Errorf("page %d ends at %d", pages, p.Granule)
		}
	}
	if next != 530 {
		t.Errorf("the pages end at frame %d", next)
	}
}

func TestPlaylist(t *testing.T) {
	if p, err := wire.ReadPlaylist(timeline.Multivariant()); err != nil || p.Variant != "main.m3u8" {
		t.Fatalf("%+v, %v", p, err)
	}
	tl := programme(t, 0, 1450)
	p, err := wire.ReadPlaylist(tl.Playlist())
	if err != nil {
		t.Fatal(err)
	}
	if p.Target != 2*time.Second || p.PartTarget != 400*time.Millisecond || p.PartHoldBack != 1200*time.Millisecond || !p.CanBlock ||
		p.Map != "init.mp4" || p.Ended || p.Sequence != 4 || len(p.Segments) != 11 {
		t.Fatalf("%+v", p)
	}
	first, open := p.Segments[0], p.Segments[10]
	if first.URI != "seg/4.m4s" || first.Duration != 2*time.Second || len(first.Parts) != 0 ||
		!first.Date.Equal(time.Unix(1_800_000_008, 0)) {
		t.Errorf("%+v", first)
	}
	if open.URI != "" || len(open.Parts) != 2 || open.Parts[1].URI != "part/14.1.m4s" || open.Parts[1].Duration != 400*time.Millisecond {
		t.Errorf("%+v", open)
	}
	for _, bad := range []string{
		"", "#EXTM3U", "#EXTM3U\nseg.ts", "#EXTM3U\n#EXT-X-TARGETDURATION:x", "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:-1",
		"#EXTM3U\n#EXT-X-TARGETDURATION:1e99",
	} {
		if p, err := wire.ReadPlaylist([]byte(bad)); err == nil {
			t.Errorf("%q was read as %+v", bad, p)
		}
	}
}

func TestRTP(t *testing.T) {
	b := []byte{0x91, 111, 1, 2, 0, 0, 0x27, 0x10, 9, 9, 9, 9, 1, 1, 1, 1, 0xbe, 0xde, 0, 1, 0, 0, 0, 0, 'x'}
	h, err := wire.ReadRTP(b)
	if err != nil || h != (wire.RTP{Type: 111, Seq: 258, Time: 10000, SSRC: 0x09090909, Header: 24}) {
		t.Fatalf("%+v, %v", h, err)
	}
	for n := range 24 {
		if n < 12 || n > 12 {
			if _, err := wire.ReadRTP(b[:n]); err == nil {
				t.Errorf("%d bytes are a header", n)
			}
		}
	}
	if wire.IsRTCP(b) || !wire.IsRTCP([]byte{0x80, 200}) {
		t.Error("RTP and RTCP are not told apart")
	}
	blocks, n, err := wire.ReadRED([]byte{0x80 | 111, 960 >> 6, 960 & 0x3f << 2, 3, 111, 'a', 'b', 'c', 'd', 'e'})
	if err != nil || n != 2 || blocks[0].Back != 960 || string(blocks[0].Payload) != "abc" || string(blocks[1].Payload) != "de" {
		t.Fatalf("%+v, %d, %v", blocks, n, err)
	}
	for _, bad := range [][]byte{{}, {0x80}, {0x80 | 111, 0, 0, 9, 111, 'a'}, bytes.Repeat([]byte{0x80}, 64)} {
		if _, _, err := wire.ReadRED(bad); err == nil {
			t.Errorf("% x was read", bad)
		}
	}
}

func TestOpusSamples(t *testing.T) {
	for _, c := range []struct {
		packet []byte
		want   int
	}{
		{nil, 0},
		{[]byte{0x78}, 960},
		{[]byte{0x79, 0}, 1920},
		{[]byte{0x7b}, 0},
		{[]byte{0x7b, 0x83}, 2880},
		{[]byte{0x7b, 6}, 5760},
		{[]byte{0x7b, 7}, 0},
		{[]byte{0x18}, 2880},
		{[]byte{0xe0}, 120},
	} {
		if got := wire.OpusSamples(c.packet); got != c.want {
			t.Errorf("% x: %d samples, want %d", c.packet, got, c.want)
		}
		if want, err := timeline.TOCDuration(c.packet); err == nil && want != c.want {
			t.Errorf("% x: the server says %d, here it is %d", c.packet, want, c.want)
		}
	}
}

const sdp = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=ice-lite\r\na=fingerprint:sha-256 " +
	"00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F\r\n" +
	"m=audio 9 UDP/TLS/RTP/SAVPF 63 111\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=setup:passive\r\n" +
	"a=rtpmap:63 red/48000/2\r\na=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 nack\r\na=ptime:60\r\n" +
	"a=candidate:1 1 udp 2130706431 192.0.2.7 8443 typ host\r\na=candidate:2 1 tcp 1 192.0.2.7 8443 typ host tcptype passive\r\n" +
	"a=candidate:3 2 udp 1 192.0.2.8 8443 typ host\r\na=candidate:4 1 udp 1 host.local 8443 typ host\r\na=candidate:5 1 udp 1 ::1 99 typ host\r\n" +
	"m=video 0 UDP/TLS/RTP/SAVPF 96\r\na=ice-ufrag:zzzz\r\na=rtpmap:96 VP8/90000\r\n"

func TestAnswer(t *testing.T) {
	a, err := wire.ReadAnswer([]byte(sdp))
	if err != nil {
		t.Fatal(err)
	}
	if a.User != "abcd" || a.Password != "0123456789012345678901" || a.Active || a.Opus != 111 || a.RED != 63 || !a.NACK || a.PacketMS != 60 ||
		len(a.Fingerprint) != 32 || a.Fingerprint[31] != 0x1f {
		t.Errorf("%+v", a)
	}
	if got := fmt.Sprint(a.Candidates); got != "[192.0.2.7:8443 [::1]:99]" {
		t.Errorf("candidates %s", got)
	}
	for _, gone := range []string{"a=ice-ufrag:abcd\r\n", "a=ice-pwd:0123456789012345678901\r\n", "a=rtpmap:111 opus/48000/2\r\n", "v=0\r\n", ":1F\r\n"} {
		if a, err := wire.ReadAnswer([]byte(strings.Replace(sdp, gone, "\r\n", 1))); err == nil {
			t.Errorf("without %q it was read as %+v", gone, a)
		}
	}
}

func TestEventData(t *testing.T) {
	const stream = "retry: 2000\n\nid: 1\nevent: levels\ndata: {}\n\nid: 2\nevent: cadence\ndata: {\"a\":1}\n\nevent:cadence\r\ndata:b\r\n\r\n:\n\ndata: c\n\n"
	var got []string
	for d := range wire.EventData([]byte(stream), "cadence") {
		got = append(got, string(d))
	}
	if fmt.Sprint(got) != `[{"a":1} b]` {
		t.Errorf("%q", got)
	}
}

// What reads a stream's bytes allocates nothing: it is done for each listener and message.
func TestReadersAllocateNothing(t *testing.T) {
	tl := programme(t, 0, 100)
	p, err := tl.Part(3)
	if err != nil {
		t.Fatal(err)
	}
	message := frame(wire.WSBinary, p.Media)
	head := []byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: audio/mp4\r\nCache-Control: no-store\r\n\r\nhello")
	red := []byte{0x80 | 111, 960 >> 6, 960 & 0x3f << 2, 3, 111, 'a', 'b', 'c', 'd', 'e'}
	rtp := make([]byte, 90)
	rtp[0] = 0x80
	for name, f := range map[string]func(){
		"a push message": func() {
			f, _, _ := wire.ReadFrame(message)
			r := wire.ReadChunks(f.Payload)
			_, _, _ = r.Next()
		},
		"a response": func() { _, _, _, _ = wire.ReadResponse(head, false) },
		"a page":     func() { _, _, _ = wire.ReadPage(p.Ogg) },
		"a packet": func() {
			_, _ = wire.ReadRTP(rtp)
			_, _, _ = wire.ReadRED(red)
		},
	} {
		if n := testing.AllocsPerRun(200, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
