// Package wire reads what a server sends to the load generator's listeners: HTTP heads and bodies, WebSocket frames, fMP4 boxes, Ogg
// pages, HLS playlists, RTP and the few lines of SDP that matter. It shares no code with the server's writers, on purpose: what
// both got wrong would otherwise look right.
//
// Every reader takes the bytes there are and says how many it used; 0 used and no error means that more is needed. Nothing is copied
// and, but for playlists and SDP, nothing is allocated. All of it comes from a network, so nothing is trusted and everything is bounded.
package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Bounds of HTTP.
const (
	maxHead = 16 << 10
	maxBody = 8 << 20
)

var (
	errHead  = errors.New("not an HTTP/1 response")
	errChunk = errors.New("malformed chunked body")
)

// Head is the part of an HTTP/1 response's head that a listener acts on. Its slices point into what was read.
type Head struct {
	Status     int
	Length     int64 // of the body; -1: until the connection ends, or chunked
	Chunked    bool
	Close      bool   // the connection ends after this response
	Upgrade    bool   // to a WebSocket
	Accept     []byte // Sec-WebSocket-Accept
	Location   []byte
	RetryAfter []byte
	Type       []byte
}

// ReadHead reads a response's status line and header fields (RFC 9112), up to the empty line.
func ReadHead(b []byte) (h Head, used int, err error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) > maxHead {
			return h, 0, fmt.Errorf("%w: the head is longer than %d bytes", errHead, maxHead)
		}
		if n := min(len(b), 5); !bytes.Equal(b[:n], []byte("HTTP/")[:n]) {
			return h, 0, errHead
		}
		return h, 0, nil
	}
	if end > maxHead {
		return h, 0, fmt.Errorf("%w: the head is longer than %d bytes", errHead, maxHead)
	}
	h.Length = -1
	line, rest, _ := bytes.Cut(b[:end+2], []byte("\r\n"))
	// "HTTP/1.1 200 OK"; Icecast says HTTP/1.0.
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.")) || line[8] != ' ' {
		return h, 0, errHead
	}
	h.Close = line[7] == '0'
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return h, 0, errHead
		}
		h.Status = h.Status*10 + int(c-'0')
	}
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			return h, 0, errHead
		}
		value = bytes.TrimSpace(value)
		switch {
		case named(name, "content-length"):
			n, ok := decimal(value)
			if !ok {
				return h, 0, fmt.Errorf("%w: Content-Length %q", errHead, value)
			}
			h.Length = n
		case named(name, "transfer-encoding"):
			h.Chunked = named(value, "chunked")
		case named(name, "connection"):
			switch {
			case named(value, "close"):
				h.Close = true
			case named(value, "keep-alive"):
				h.Close = false
			}
		case named(name, "upgrade"):
			h.Upgrade = named(value, "websocket")
		case named(name, "sec-websocket-accept"):
			h.Accept = value
		case named(name, "location"):
			h.Location = value
		case named(name, "retry-after"):
			h.RetryAfter = value
		case named(name, "content-type"):
			h.Type = value
		}
	}
	if h.Chunked {
		h.Length = -1
	}
	if h.Status == 204 || h.Status == 304 {
		h.Length, h.Chunked = 0, false
	}
	return h, end + 4, nil
}

// named compares without regard to case, and without allocating.
func named(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := range b {
		c := b[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

func decimal(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 15 {
		return 0, false
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// Body takes the body of a response apart as it arrives.
type Body struct {
	left    int64 // of the body or the chunk; -1: until the connection ends
	chunked bool
	state   uint8
}

const (
	inSize uint8 = iota
	inData
	inDataEnd
	inTrailer
)

// Body makes the reader of the body that follows the head.
func (h Head) Body() Body { return Body{left: h.Length, chunked: h.Chunked} }

// Take gives the next run of the body's data in b, and how many bytes of b it used. At the body's end err is io.EOF, beside used.
func (d *Body) Take(b []byte) (data []byte, used int, err error) {
	if !d.chunked {
		if d.left < 0 {
			return b, len(b), nil
		}
		n := int(min(d.left, int64(len(b))))
		if d.left -= int64(n); d.left == 0 {
			err = io.EOF
		}
		return b[:n], n, err
	}
	for used < len(b) {
		rest := b[used:]
		if d.state == inData {
			n := int(min(d.left, int64(len(rest))))
			if d.left -= int64(n); d.left == 0 {
				d.state = inDataEnd
			}
			return rest[:n], used + n, nil
		}
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			if len(rest) > 1024 {
				return nil, used, errChunk
			}
			return nil, used, nil
		}
		line := bytes.TrimSuffix(rest[:i], []byte("\r"))
		used += i + 1
		switch d.state {
		case inSize:
			if d.left, err = chunkSize(line); err != nil {
				return nil, used, err
			}
			d.state = inData
			if d.left == 0 {
				d.state = inTrailer
			}
		case inDataEnd:
			if len(line) != 0 {
				return nil, used, errChunk
			}
			d.state = inSize
		case inTrailer:
			if len(line) == 0 {
				return nil, used, io.EOF
			}
		}
	}
	return nil, used, nil
}

func chunkSize(line []byte) (int64, error) {
	digits, _, _ := bytes.Cut(line, []byte(";"))
	digits = bytes.TrimSpace(digits)
	if len(digits) == 0 || len(digits) > 7 {
		return 0, errChunk
	}
	var n int64
	for _, c := range digits {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, errChunk
		}
		n = n<<4 | int64(c)
	}
	return n, nil
}

// ReadResponse reads a response whole; ended says that nothing follows b. A chunked body is copied, any other points into b.
func ReadResponse(b []byte, ended bool) (h Head, body []byte, used int, err error) {
	h, used, err = ReadHead(b)
	if err != nil || used == 0 {
		return h, nil, 0, err
	}
	rest := b[used:]
	switch {
	case h.Status < 200 && h.Status != 101: // more heads follow (RFC 9110, 15.2)
		h, body, n, err := ReadResponse(rest, ended)
		if n > 0 {
			n += used
		}
		return h, body, n, err
	case h.Length > maxBody || len(rest) > 2*maxBody:
		return h, nil, 0, fmt.Errorf("%w: a body of %d bytes", errHead, max(h.Length, int64(len(rest))))
	case h.Chunked:
		d := h.Body()
		for at := 0; ; {
			data, n, err := d.Take(rest[at:])
			body = append(body, data...)
			at += n
			if errors.Is(err, io.EOF) {
				return h, body, used + at, nil
			}
			if err != nil {
				return h, nil, 0, err
			}
			if n == 0 || at == len(rest) {
				return h, nil, 0, nil
			}
		}
	case h.Length < 0:
		if !ended {
			return h, nil, 0, nil
		}
		return h, rest, len(b), nil
	case int64(len(rest)) < h.Length:
		return h, nil, 0, nil
	}
	return h, rest[:h.Length], used + int(h.Length), nil
}
