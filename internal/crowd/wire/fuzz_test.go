package wire_test

import (
	"bytes"
	"testing"

	"earshot/internal/crowd/wire"
	"earshot/internal/timeline"
)

// All readers get any bytes. They may refuse them, but use no more than there are, and say the same of bytes that come in two steps.

func FuzzResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), true)
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), false)
	f.Add([]byte("HTTP/1.0 100 Continue\r\n\r\nHTTP/1.1 101 X\r\nUpgrade: websocket\r\n\r\n"), false)
	f.Fuzz(func(t *testing.T, b []byte, ended bool) {
		h, used, err := wire.ReadHead(b)
		if used < 0 || used > len(b) || err != nil && used != 0 {
			t.Fatalf("head: used %d of %d, %v", used, len(b), err)
		}
		if used > 0 {
			d := h.Body()
			for rest := b[used:]; ; {
				data, n, err := d.Take(rest)
				if n < 0 || n > len(rest) || len(data) > n {
					t.Fatalf("body: %d bytes, used %d of %d", len(data), n, len(rest))
				}
				if rest = rest[n:]; err != nil || n == 0 {
					break
				}
			}
		}
		if _, body, used, err := wire.ReadResponse(b, ended); used < 0 || used > len(b) || len(body) > len(b) || err != nil && used != 0 {
			t.Fatalf("response: used %d of %d, %v", used, len(b), err)
		}
	})
}

func FuzzFrame(f *testing.F) {
	f.Add(frame(wire.WSBinary, []byte("hello")))
	f.Add(frame(wire.WSClose, []byte{3, 232}))
	f.Add(frame(wire.WSText, make([]byte, 300)))
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, used, err := wire.ReadFrame(b)
		if used < 0 || used > len(b) || len(fr.Payload) > used || err != nil && used != 0 {
			t.Fatalf("used %d of %d, payload %d, %v", used, len(b), len(fr.Payload), err)
		}
		wire.CloseCode(fr.Payload)
	})
}

func FuzzChunks(f *testing.F) {
	p, err := programme(f, 0, 100).Part(2)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(timeline.Init())
	f.Add(p.CMAF)
	f.Add(append(bytes.Clone(timeline.Init()), p.Media...))
	f.Fuzz(func(t *testing.T, b []byte) {
		wire.Timescale(b)
		if used, err := wire.WholeBoxes(b); used < 0 || used > len(b) || err != nil && used != 0 {
			t.Fatalf("used %d of %d, %v", used, len(b), err)
		}
		for r := wire.ReadChunks(b); ; {
			c, ok, err := r.Next()
			if err != nil || !ok {
				return
			}
			for i, at := 0, 0; i < min(c.Count, 1000); i++ {
				s := c.Sample(i, at)
				if s == nil {
					break
				}
				at += len(s)
			}
		}
	})
}

func FuzzPage(f *testing.F) {
	p, err := programme(f, 0, 100).Part(2)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(timeline.OggHeaders())
	f.Add(p.Ogg)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, used, err := wire.ReadPage(b)
		if used < 0 || used > len(b) || err != nil && used != 0 {
			t.Fatalf("used %d of %d, %v", used, len(b), err)
		}
		wire.Sound(b)
		for i, at := 0, 0; used > 0 && i < len(p.Lacing); {
			packet, next, end, _ := p.Packet(i, at)
			if next <= i || end > len(p.Data) {
				t.Fatalf("packet %d ends at %d of %d", i, end, len(p.Data))
			}
			wire.OpusSamples(packet)
			i, at = next, end
		}
	})
}

func FuzzPlaylist(f *testing.F) {
	f.Add(timeline.Multivariant())
	f.Add(programme(f, 0, 500).Playlist())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := wire.ReadPlaylist(b)
		if err != nil {
			return
		}
		for i, s := range p.Segments {
			if s.URI == "" && i < len(p.Segments)-1 || s.Duration < 0 {
				t.Fatalf("segment %d of %d: %+v", i, len(p.Segments), s)
			}
		}
	})
}

func FuzzRTP(f *testing.F) {
	f.Add([]byte{0x80, 63, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0x80 | 111, 15, 0, 1, 111, 'a', 'b'})
	f.Fuzz(func(t *testing.T, b []byte) {
		wire.IsRTCP(b)
		h, err := wire.ReadRTP(b)
		if err != nil {
			return
		}
		blocks, n, err := wire.ReadRED(b[h.Header:])
		sum := 0
		for _, block := range blocks[:n] {
			sum += len(block.Payload)
			wire.OpusSamples(block.Payload)
		}
		if err == nil && (n == 0 || sum >= len(b)) {
			t.Fatalf("%d blocks of %d bytes in %d", n, sum, len(b))
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(sdp))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := wire.ReadAnswer(b)
		if err == nil && (a.Opus == 0 || len(a.Fingerprint) != 32 || len(a.Candidates) > 16) {
			t.Fatalf("%+v", a)
		}
	})
}

func FuzzEventData(f *testing.F) {
	f.Add([]byte("event: cadence\ndata: {}\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for d := range wire.EventData(b, "cadence") {
			if !bytes.Contains(b, d) {
				t.Fatalf("%q", d)
			}
		}
	})
}
