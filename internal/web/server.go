package web

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"time"
	"unicode/utf8"

	"earshot/internal/event"
)

// handle adds a route. Its pattern is also its label in the metrics.
func (s *web) handle(pattern string, h http.HandlerFunc) {
	s.mux.HandleFunc(pattern, h)
	s.counters.know(pattern)
}

// handleLong adds a route whose response lasts; it sets its own deadlines.
func (s *web) handleLong(pattern string, h http.HandlerFunc) {
	s.long[pattern] = true
	s.handle(pattern, h)
}

// share makes an address readable from every origin by these methods, and answers its preflight.
func (s *web) share(path string, methods ...string) {
	for _, method := range methods {
		s.open[method+" "+path] = true
	}
	s.open["OPTIONS "+path] = true
	s.handle("OPTIONS "+path, preflight(methods))
}

// ServeHTTP is the way of every request: guard, find the route, set deadlines, serve, count.
func (s *web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	r = s.proxies.seen(r) // from here on it is the client's
	w := &response{ResponseWriter: rw}
	_, pattern := s.mux.Handler(r)
	defer func() { s.counters.served(pattern, w.status) }() // also what rescue cuts off
	defer func() {
		if cause := recover(); cause != nil {
			s.rescue(w, r, cause)
		}
	}()
	guardAll(w.Header())
	if pattern == "" {
		s.lost(w, r)
		return
	}
	r.Pattern = pattern
	if s.open[pattern] {
		shareWithAll(w.Header())
	}
	// A deadline stays with a kept connection, so each request sets its own, also if that is none.
	deadline := time.Time{}
	if !s.long[pattern] {
		deadline = time.Now().Add(shortTime + writeWait)
		ctx, cancel := context.WithTimeout(r.Context(), shortTime)
		defer cancel()
		r = r.WithContext(ctx)
	}
	_ = http.NewResponseController(rw).SetWriteDeadline(deadline) // a writer without deadlines is a test's
	if err := s.crossOrigin(r); err != nil {
		s.fail(w, r, err)
		return
	}
	if r.ContentLength > maxBody {
		s.fail(w, r, newProblem(event.CodeTooLarge, tooLarge))
		return
	}
	s.mux.ServeHTTP(w, r)
}

// lost answers where there is no route: 405 if only the method is wrong.
func (s *web) lost(w http.ResponseWriter, r *http.Request) {
	probe := &headOnly{header: make(http.Header)}
	h, _ := s.mux.Handler(r)
	h.ServeHTTP(probe, r)
	if probe.status == http.StatusMethodNotAllowed {
		s.fail(w, r, newProblem(event.CodeInvalid, "This address does not know the method "+clip(r.Method, 20)+".").
			status(http.StatusMethodNotAllowed).because(reasonMethod).with("Allow", probe.header.Get("Allow")))
		return
	}
	if r.Method == http.MethodGet && wantsPage(r) {
		s.missingPage(w, r)
		return
	}
	s.fail(w, r, event.NotFound("There is nothing at this address."))
}

// rescue ends a request whose handler panicked: with a problem if nothing was said yet, else by cutting the connection, so that
// nobody takes half an answer for a whole one.
func (s *web) rescue(w *response, r *http.Request, cause any) {
	if cause == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
		panic(cause)
	}
	s.log.Error("panic in a handler", "route", r.Pattern, "panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
	if w.status != 0 {
		s.counters.refused(reasonPanic)
		panic(http.ErrAbortHandler)
	}
	p := newProblem(event.CodeInternal, unexpected).because(reasonPanic)
	p.cause = errors.New("panic")
	s.fail(w, r, p)
}

// readBody reads a request's body whole: at most maxBody bytes within bodyWait.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	ctl := http.NewResponseController(w)
	_ = ctl.SetReadDeadline(time.Now().Add(bodyWait)) // a writer without deadlines is a test's
	b, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if len(b) > maxBody {
		return nil, newProblem(event.CodeTooLarge, tooLarge)
	}
	if err != nil {
		w.Header().Set("Connection", "close")
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, newProblem(event.CodeInvalid, "The body did not arrive in time.").status(http.StatusRequestTimeout).because(reasonSlow)
		}
		return nil, newProblem(event.CodeInvalid, "The body could not be read.").status(http.StatusBadRequest).because(reasonUnparsable)
	}
	// Off again: the connection is watched for its end while the handler works, and a deadline would look like that.
	_ = ctl.SetReadDeadline(time.Time{})
	return b, nil
}

// readJSON reads a body that must be JSON and puts it back for huma to parse. Huma then never sees a failing reader, nor a type or
// an encoding that it would take for JSON.
func readJSON(w http.ResponseWriter, r *http.Request) error {
	b, err := readBody(w, r)
	if err != nil {
		return err
	}
	if len(b) > 0 {
		if err := wantType(r, "application/json"); err != nil {
			return err
		}
		if !utf8.Valid(b) {
			return newProblem(event.CodeInvalid, "The body is not valid UTF-8.").at("body").status(http.StatusBadRequest).because(reasonUnparsable)
		}
	}
	r.Body = io.NopCloser(bytes.NewReader(b))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json") // the only one we speak, whatever was asked for
	return nil
}

// wantType refuses a body of another media type.
func wantType(r *http.Request, want string) error {
	got, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || got != want {
		return newProblem(event.CodeInvalid, "The body must be of the type "+want+".").at("Content-Type").
			status(http.StatusUnsupportedMediaType).because(reasonType).with("Accept-Post", want)
	}
	return nil
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

// response remembers the status. It passes on everything that engines ask a connection for.
type response struct {
	http.ResponseWriter
	status int
}

func (w *response) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *response) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.status = http.StatusSwitchingProtocols
	}
	return conn, rw, err
}

// headOnly takes a response's status and header and drops its body.
type headOnly struct {
	header http.Header
	status int
}

func (h *headOnly) Header() http.Header         { return h.header }
func (h *headOnly) Write(b []byte) (int, error) { return len(b), nil }
func (h *headOnly) WriteHeader(status int)      { h.status = status }

// routeOperation adds what an operator's tools ask.
func (s *web) routeOperation() {
	line := func(w http.ResponseWriter, status int, text string) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		fmt.Fprintln(w, text)
	}
	s.handle("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { line(w, http.StatusOK, "alive") })
	s.handle("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.cfg.Ready(); err != nil {
			text := "not ready"
			if e, ok := errors.AsType[*event.Error](err); ok {
				text = e.Message
			}
			s.quiet.warn(slog.LevelWarn, "not ready", "err", err)
			line(w, http.StatusServiceUnavailable, text)
			return
		}
		text := "ready"
		if s.cfg.Notes != nil {
			for _, note := range s.cfg.Notes() {
				text += "\n" + note
			}
		}
		line(w, http.StatusOK, text)
	})
	s.handle("GET "+consentPath, s.consent)
	s.handleLong("GET "+backupPath, s.backup)
	if s.cfg.Metrics != nil {
		s.handle("GET /metrics", s.cfg.Metrics.ServeHTTP)
	}
}
