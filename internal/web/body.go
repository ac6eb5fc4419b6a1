package web

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// body is something that is sent whole, in the encodings that there are. It never changes once made.
type body struct {
	kind  string
	plain []byte
	gz    []byte
	br    []byte
	tag   string // of the plain one, without quotes
}

// newBody keeps gz and br where they are given. Without gz it makes one, if that is shorter.
func newBody(kind string, plain, gz, br []byte) *body {
	if gz == nil {
		var out bytes.Buffer
		// Writing to memory at a level that exists cannot fail.
		if z, err := gzip.NewWriterLevel(&out, gzip.BestSpeed); err == nil {
			_, _ = z.Write(plain)
			_ = z.Close()
			gz = out.Bytes()
		}
	}
	if len(gz) >= len(plain) {
		gz = nil
	}
	return &body{kind: kind, plain: plain, gz: gz, br: br, tag: strings.Trim(etag("b", plain), `"`)}
}

func (b *body) serve(w http.ResponseWriter, r *http.Request, cache string) {
	b.serveAs(w, r, http.StatusOK, cache)
}

// serveAs sends the body with another status; conditions count only with 200 (RFC 9110, 13.2.1).
func (b *body) serveAs(w http.ResponseWriter, r *http.Request, status int, cache string) {
	data, tag, coding := b.plain, b.tag, ""
	accepted := codings(r.Header.Get("Accept-Encoding"))
	switch {
	case b.br != nil && accepted["br"]:
		data, tag, coding = b.br, b.tag+"-br", "br"
	case b.gz != nil && accepted["gzip"]:
		data, tag, coding = b.gz, b.tag+"-gz", "gzip"
	}
	h := w.Header()
	h.Set("Cache-Control", cache)
	h.Set("ETag", `"`+tag+`"`)
	h.Add("Vary", "Accept-Encoding")
	if status == http.StatusOK && matches(r.Header.Get("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", b.kind)
	h.Set("Content-Length", strconv.Itoa(len(data)))
	if coding != "" {
		h.Set("Content-Encoding", coding)
	}
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(data) // an error is the reader's going
	}
}

// matches reads If-None-Match (RFC 9110, 13.1.2): "*", or tags, compared weakly.
func matches(header, tag string) bool {
	for one := range strings.SplitSeq(header, ",") {
		one = strings.TrimPrefix(strings.TrimSpace(one), "W/")
		if one == "*" || one == `"`+tag+`"` {
			return true
		}
	}
	return false
}

// codings reads Accept-Encoding (RFC 9110, 12.5.3) for the codings that we have; "*" stands for gzip, which everything speaks.
func codings(header string) map[string]bool {
	out := make(map[string]bool, 2)
	for one := range strings.SplitSeq(header, ",") {
		name, params, _ := strings.Cut(one, ";")
		name = strings.ToLower(strings.TrimSpace(name))
		weight, given := strings.CutPrefix(strings.ToLower(strings.ReplaceAll(params, " ", "")), "q=")
		wanted := true
		if given {
			q, err := strconv.ParseFloat(weight, 64)
			wanted = err == nil && q > 0
		}
		if _, said := out["gzip"]; name == "*" && !said {
			name = "gzip"
		}
		if name == "br" || name == "gzip" {
			out[name] = wanted
		}
	}
	return out
}

// shelf keeps the latest body of each key, so that a thousand players of one event, all woken by the same part, cost one compression.
// When it is full it is emptied: what is in use is back at the next request.
type shelf struct {
	mu     sync.Mutex
	bodies map[string]shelved
}

type shelved struct {
	version string
	raw     []byte
	body    func() *body // made once, by the first who asks; the others wait for it
}

const shelfSize = 256

// get gives the body for these very bytes (compared by identity: a playlist is shared until it changes) and version.
func (s *shelf) get(key, version string, raw []byte) *body {
	return s.of(key, version, raw, func() *body { return newBody(playlistType, raw, nil, nil) })
}

// of gives the body of a key, made by fresh unless it is there for this version and these bytes.
func (s *shelf) of(key, version string, raw []byte, fresh func() *body) *body {
	s.mu.Lock()
	held, ok := s.bodies[key]
	if !ok || held.version != version || !same(held.raw, raw) {
		held = shelved{version: version, raw: raw, body: sync.OnceValue(fresh)}
		if s.bodies == nil || len(s.bodies) >= shelfSize {
			s.bodies = make(map[string]shelved)
		}
		s.bodies[key] = held
	}
	s.mu.Unlock()
	return held.body()
}

func same(a, b []byte) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }
