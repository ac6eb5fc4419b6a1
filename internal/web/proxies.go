package web

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// The headers of a proxy that are understood. RFC 7239's Forwarded is not: a proxy that does not know it passes on what a stranger wrote.
const (
	forwardedFor   = "X-Forwarded-For"
	forwardedProto = "X-Forwarded-Proto"
	forwardedHost  = "X-Forwarded-Host"
)

// mostHops is more proxies than anybody puts in a row; of a chain that goes on, the rest is not looked at.
const mostHops = 16

// proxies are the peers whose word on whom they speak for is taken.
type proxies []netip.Prefix

func (p proxies) trust(a netip.Addr) bool {
	for _, prefix := range p {
		if prefix.Contains(a) {
			return true
		}
	}
	return false
}

type schemeKey struct{}

// scheme is that of the address at which the client asked.
func scheme(r *http.Request) string {
	if s, ok := r.Context().Value(schemeKey{}).(string); ok {
		return s
	}
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

// seen gives a request as its client sent it: with that client's address, and the host and scheme that it asked for. From anybody but a
// listed proxy the headers mean nothing, and the request stays as it is.
//
// Each proxy appends the address of whoever connected to it, so the list is believed from its right end on, as long as those who wrote
// are trusted: the client is the first from there who is not. What stands further left is the client's own word. Host and scheme are lists
// too where proxies append, and a single value where one of them sets it: the entry that belongs to the client's hop is taken, or the
// leftmost where there are fewer.
func (p proxies) seen(r *http.Request) *http.Request {
	if len(p) == 0 {
		return r
	}
	peer, ok := parseHop(r.RemoteAddr)
	if !ok || !p.trust(peer) {
		return r
	}
	client, hops := peer, 0
	list := fromTheRight(r.Header, forwardedFor)
	for p.trust(client) && hops < min(len(list), mostHops) {
		next, ok := parseHop(list[hops])
		if !ok { // a proxy that does not say: it is the last of whom anything is known
			break
		}
		client = next
		hops++
	}
	ctx := r.Context()
	if s := strings.ToLower(atHop(r.Header, forwardedProto, hops)); s == "http" || s == "https" {
		ctx = context.WithValue(ctx, schemeKey{}, s)
	}
	r = r.WithContext(ctx) // a copy
	if host := atHop(r.Header, forwardedHost, hops); plainHost(host) {
		r.Host = host
	}
	r.RemoteAddr = net.JoinHostPort(client.String(), "0") // its port is not known
	return r
}

// fromTheRight gives the entries of a header that is a list, over all its lines, the last first: at most mostHops.
func fromTheRight(h http.Header, name string) (list []string) {
	lines := h.Values(name)
	for i := len(lines) - 1; i >= 0; i-- {
		for rest, more := lines[i], true; more; {
			if len(list) == mostHops {
				return list
			}
			comma := strings.LastIndexByte(rest, ',')
			list = append(list, strings.TrimSpace(rest[comma+1:]))
			if more = comma >= 0; more {
				rest = rest[:comma]
			}
		}
	}
	return list
}

// atHop is the entry that the proxy wrote to which the client spoke, hops proxies away.
func atHop(h http.Header, name string, hops int) string {
	list := fromTheRight(h, name)
	if len(list) == 0 {
		return ""
	}
	return list[min(max(hops, 1), len(list))-1]
}

// parseHop reads an address as proxies write it: with a port or without, IPv6 in brackets or not. An IPv4 address inside IPv6 is the
// former, and a zone means nothing elsewhere.
func parseHop(s string) (netip.Addr, bool) {
	if len(s) > 64 {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		if ap, perr := netip.ParseAddrPort(s); perr == nil {
			a, err = ap.Addr(), nil
		} else if inside, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(inside, "]") {
			a, err = netip.ParseAddr(strings.TrimSuffix(inside, "]"))
			if err == nil && !a.Is6() {
				return netip.Addr{}, false
			}
		}
	}
	if err != nil || a.IsUnspecified() || a.IsMulticast() {
		return netip.Addr{}, false
	}
	return a.Unmap().WithZone(""), true
}

// plainHost says whether a host is a plain name or address, with a port or without: fit to be repeated in an address.
func plainHost(host string) bool {
	return host != "" && len(host) <= 260 && !strings.ContainsFunc(host, func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && !strings.ContainsRune(".-:[]_", c)
	})
}
