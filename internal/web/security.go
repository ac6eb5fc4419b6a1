package web

import (
	"net/http"
	"slices"
	"strings"

	"earshot/internal/event"
)

// contentPolicy is for pages. Everything comes from this very origin: 'self' in connect-src covers ws: and wss: of the same host and
// port (CSP 3, 6.7.2.8: a source without a scheme also matches its secure and WebSocket forms). blob: is what MediaSource and worklets need.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; " +
	"connect-src 'self'; media-src 'self' blob:; worker-src 'self' blob:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// guardPage sets what browsers enforce on a page.
func guardPage(h http.Header) {
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("Permissions-Policy", "microphone=(self), camera=(), geolocation=()")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
}

// guardAll sets what holds for every response.
func guardAll(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
}

// shareWithAll lets pages of every origin read the response, without cookies: the addresses of the programme are public, and a newsroom
// puts a player into its own page.
func shareWithAll(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", "Location, ETag, Link, Retry-After, Content-Range")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
}

// preflight answers OPTIONS at an address that is shared (Fetch, 4.8). Accept-Post is RFC 9725's way to say what WHIP and WHEP take.
func preflight(methods []string) http.HandlerFunc {
	list, posts := strings.Join(methods, ", "), slices.Contains(methods, http.MethodPost)
	return func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Allow", list+", OPTIONS")
		h.Set("Access-Control-Allow-Methods", list)
		h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, If-Match, Range, Last-Event-ID")
		h.Set("Access-Control-Max-Age", "7200")
		if posts {
			h.Set("Accept-Post", sdpType)
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

func unsafe(method string) bool {
	return method != http.MethodGet && method != http.MethodHead && method != http.MethodOptions
}

// crossOrigin refuses what another site makes a browser do in its user's name. A bearer token is no browser's doing, and WHIP and
// WHEP without a cookie have no user's name to abuse; all else that changes something is checked, also the log-in.
func (s *web) crossOrigin(r *http.Request) error {
	if !unsafe(r.Method) || r.Header.Get("Authorization") != "" {
		return nil
	}
	if _, err := r.Cookie(cookieName); err != nil && !strings.HasPrefix(r.URL.Path, "/api/") {
		return nil
	}
	if err := s.cors.Check(r); err != nil {
		return newProblem(event.CodeForbidden, "This request came from another site. Open Earshot's own page and try there.").
			because(reasonCrossOrigin)
	}
	return nil
}
