package web

import (
	"net/http"
	"net/netip"
	"time"
)

// The parsers of what comes over the network, for their fuzz tests.

// Reload is a playlist's query as it was understood.
func Reload(raw string) (block bool, msn uint64, part int, err error) {
	r, err := parseReload(raw)
	return r.block, r.msn, r.part, err
}

// File is a segment's name as it was understood.
func File(name string, hasPart bool) (seg uint64, part int, err error) {
	return parseFile(name, ".m4s", hasPart)
}

// Codings is Accept-Encoding as it was understood.
func Codings(header string) map[string]bool { return codings(header) }

// Revision is If-Match as it was understood.
func Revision(header string) (uint64, error) { return ifMatch(header) }

// Start is an event's start as it was understood.
func Start(text, zone string) (time.Time, error) { return startIn(text, zone) }

// Seen is whom a request comes from, and what was asked for, behind proxies.
func Seen(trusted []netip.Prefix, r *http.Request) (remote, host, asked string) {
	r = proxies(trusted).seen(r)
	return r.RemoteAddr, r.Host, scheme(r)
}
