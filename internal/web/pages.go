package web

import (
	"errors"
	"fmt"
	"html"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"

	"earshot/internal/event"
)

// pages holds the front end, read once.
type pages struct {
	home, operator, docs, missing *body
	event, studio                 string // with tokens to be replaced
	assets                        map[string]*body
	icon                          *body // nil if there is none
	made                          shelf // pages with their tokens replaced
}

const (
	pageType = "text/html; charset=utf-8"
	// cachePage lets a stampede end at a cache, and a new version of the page be everywhere after some seconds.
	cachePage = "public, max-age=5"
	// previewLength is how much of a description stands in a preview of a link, in characters.
	previewLength = 200
)

func (p *pages) load(ui fs.FS) error {
	read := func(name string) ([]byte, error) {
		b, err := fs.ReadFile(ui, name)
		if err != nil {
			return nil, fmt.Errorf("the front end lacks %s: %w", name, err)
		}
		return b, nil
	}
	for name, to := range map[string]**body{"home.html": &p.home, "operator.html": &p.operator, "docs.html": &p.docs, "404.html": &p.missing} {
		b, err := read(name)
		if err != nil {
			return err
		}
		*to = newBody(pageType, b, nil, nil)
	}
	for name, to := range map[string]*string{"event.html": &p.event, "studio.html": &p.studio} {
		b, err := read(name)
		if err != nil {
			return err
		}
		*to = string(b)
	}
	if err := p.loadAssets(ui); err != nil {
		return err
	}
	// For those who ask for /favicon.ico without having read a page: what the pages name.
	for name, b := range p.assets {
		if strings.HasPrefix(name, "icon") && strings.HasSuffix(name, ".svg") {
			p.icon = b
		}
	}
	return nil
}

// loadAssets reads assets/ and, beside each file, what the build compressed already.
func (p *pages) loadAssets(ui fs.FS) error {
	p.assets = make(map[string]*body)
	err := fs.WalkDir(ui, "assets", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(name, ".br") || strings.HasSuffix(name, ".gz") {
			return err
		}
		plain, err := fs.ReadFile(ui, name)
		if err != nil {
			return err
		}
		packed := func(suffix string) []byte {
			b, err := fs.ReadFile(ui, name+suffix)
			if err != nil {
				return nil
			}
			return b
		}
		p.assets[strings.TrimPrefix(name, "assets/")] = newBody(kindOf(name), plain, packed(".gz"), packed(".br"))
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a front end without assets is one file per page
	}
	return err
}

// kinds are the types of what a front end has, said here because the system's table differs between machines.
var kinds = map[string]string{
	".html": pageType, ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8",
	".json": "application/json", ".map": "application/json", ".svg": "image/svg+xml", ".png": "image/png", ".ico": "image/x-icon",
	".woff2": "font/woff2", ".txt": "text/plain; charset=utf-8", ".wasm": "application/wasm", ".webmanifest": "application/manifest+json",
}

func kindOf(name string) string {
	if kind := kinds[path.Ext(name)]; kind != "" {
		return kind
	}
	if kind := mime.TypeByExtension(path.Ext(name)); kind != "" {
		return kind
	}
	return "application/octet-stream"
}

const robots = "User-agent: *\nDisallow: /api/\nDisallow: /operator\nDisallow: /e/*/studio\nDisallow: /e/*/hls/\nDisallow: /e/*/live\n"

func (s *web) routePages() {
	plain := func(b *body) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			guardPage(w.Header())
			b.serve(w, r, cachePage)
		}
	}
	s.handle("GET /{$}", plain(s.pages.home))
	s.handle("GET /operator", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Robots-Tag", "noindex")
		plain(s.pages.operator)(w, r)
	})
	s.handle("GET /api/docs", plain(s.pages.docs))
	s.handle("GET /e/{slug}", s.eventPage(false))
	s.handle("GET /e/{slug}/studio", s.eventPage(true))
	s.handle("GET /assets/{name...}", s.asset)
	s.handle("GET /favicon.ico", func(w http.ResponseWriter, r *http.Request) {
		if s.pages.icon == nil {
			s.fail(w, r, event.NotFound("There is no icon."))
			return
		}
		s.pages.icon.serve(w, r, cacheLong)
	})
	text := newBody("text/plain; charset=utf-8", []byte(robots), nil, nil)
	s.handle("GET /robots.txt", func(w http.ResponseWriter, r *http.Request) { text.serve(w, r, cacheLong) })
}

// asset serves a file of the build. Its name has a hash of its content, so it never changes.
func (s *web) asset(w http.ResponseWriter, r *http.Request) {
	b := s.pages.assets[r.PathValue("name")]
	if b == nil {
		s.fail(w, r, event.NotFound("There is no such file. The page is from another version: load it again."))
		return
	}
	b.serve(w, r, cacheForever)
}

// eventPage serves an event's page or its studio: the same bytes for everyone, with the title and description in them, for previews of
// the link. All else the page asks for itself.
func (s *web) eventPage(studio bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		e, err := s.event(r.Context(), r.PathValue("slug"))
		if err != nil {
			if event.CodeOf(err) == event.CodeNotFound && wantsPage(r) {
				s.missingPage(w, r)
				return
			}
			s.fail(w, r, err)
			return
		}
		guardPage(w.Header())
		if studio || !e.Listed {
			w.Header().Set("X-Robots-Tag", "noindex")
		}
		s.rendered(r, e, studio).serve(w, r, cachePage)
	}
}

func (s *web) rendered(r *http.Request, e event.Event, studio bool) *body {
	address := s.base(r) + "/e/" + e.Slug
	template, key := s.pages.event, "event "+address
	if studio {
		template, key = s.pages.studio, "studio "+address
	}
	return s.pages.made.of(key, strconv.FormatUint(e.Revision, 10), nil, func() *body {
		text := strings.NewReplacer(
			"__TITLE__", html.EscapeString(e.Title),
			"__DESCRIPTION__", html.EscapeString(preview(e.Description)),
			"__URL__", html.EscapeString(address),
		).Replace(template)
		return newBody(pageType, []byte(text), nil, nil)
	})
}

// preview is a description's beginning on one line.
func preview(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if runes := []rune(s); len(runes) > previewLength {
		return string(runes[:previewLength-1]) + "…"
	}
	return s
}

// base is what addresses begin with. A Host that is no plain name and port is not repeated.
func (s *web) base(r *http.Request) string {
	if s.cfg.BaseURL != "" {
		return s.cfg.BaseURL
	}
	host := r.Host
	if !plainHost(host) {
		host = "localhost"
	}
	return scheme(r) + "://" + host
}

// wantsPage says whether a browser is asking for something to look at.
func wantsPage(r *http.Request) bool { return strings.Contains(r.Header.Get("Accept"), "text/html") }

func (s *web) missingPage(w http.ResponseWriter, r *http.Request) {
	s.counters.refused(string(event.CodeNotFound))
	guardPage(w.Header())
	s.pages.missing.serveAs(w, r, http.StatusNotFound, "no-store")
}
