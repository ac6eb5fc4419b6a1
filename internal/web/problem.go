package web

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"earshot/internal/event"
)

// problem is what is told when something cannot be done (RFC 9457). It is an error, so that handlers return it, and
// huma writes it as it stands.
type problem struct {
	Type       string      `json:"type" doc:"Always about:blank: the code says more than a page could." example:"about:blank"`
	Title      string      `json:"title" doc:"The status in words." example:"Conflict"`
	Status     int         `json:"status" doc:"The HTTP status." example:"409"`
	Code       event.Code  `json:"code" enum:"invalid,unauthorized,forbidden,not_found,conflict,too_large,busy,unavailable,internal" doc:"For machines."`
	Detail     string      `json:"detail" doc:"For people." example:"The event has ended."`
	Field      string      `json:"field,omitempty" doc:"The part of the request that is at fault."`
	Phase      event.Phase `json:"phase,omitempty" doc:"The event's phase, where that is why."`
	Suggestion string      `json:"suggestion,omitempty" doc:"A value for the field that would be taken."`

	header http.Header
	cause  error  // for the log; never shown
	reason string // for the metrics
}

func (p *problem) Error() string {
	if p.cause != nil {
		return p.Detail + ": " + p.cause.Error()
	}
	return p.Detail
}

// Unwrap shows a problem to event.CodeOf.
func (p *problem) Unwrap() error {
	return &event.Error{Code: p.Code, Field: p.Field, Message: p.Detail, Err: p.cause}
}

// GetStatus, GetHeaders and ContentType are huma's view of an error.
func (p *problem) GetStatus() int              { return p.Status }
func (p *problem) GetHeaders() http.Header     { return p.header }
func (p *problem) ContentType(_ string) string { return "application/problem+json" }

// with adds a header.
func (p *problem) with(key, value string) *problem {
	if p.header == nil {
		p.header = make(http.Header)
	}
	p.header.Set(key, value)
	return p
}

func (p *problem) because(reason string) *problem {
	p.reason = reason
	return p
}

// after sets Retry-After: whole seconds, at least one, at most an hour, so that a client that waits that long notices a changed plan.
func (p *problem) after(d time.Duration) *problem {
	s := math.Ceil(d.Seconds())
	return p.with("Retry-After", strconv.Itoa(int(min(max(s, 1), 3600))))
}

// statuses maps the domain's codes, once for all.
var statuses = map[event.Code]int{
	event.CodeInvalid:      http.StatusUnprocessableEntity,
	event.CodeUnauthorized: http.StatusUnauthorized,
	event.CodeForbidden:    http.StatusForbidden,
	event.CodeNotFound:     http.StatusNotFound,
	event.CodeConflict:     http.StatusConflict,
	event.CodeTooLarge:     http.StatusRequestEntityTooLarge,
	event.CodeBusy:         http.StatusTooManyRequests,
	event.CodeUnavailable:  http.StatusServiceUnavailable,
	event.CodeInternal:     http.StatusInternalServerError,
}

// reasons of refusals, for the metrics. Those that a status tells are the code; the others are set where they arise.
const (
	reasonCrossOrigin  = "cross_origin"
	reasonCredential   = "credential"
	reasonUnparsable   = "unparsable"
	reasonType         = "media_type"
	reasonMethod       = "method"
	reasonPhase        = "phase"
	reasonPrecondition = "precondition"
	reasonSlow         = "slow_body"
	reasonPanic        = "panic"
)

func newProblem(code event.Code, detail string) *problem {
	p := &problem{Code: code, Detail: detail, Status: statuses[code]}
	if p.Status == 0 {
		p.Status = http.StatusInternalServerError
	}
	switch code {
	case event.CodeUnauthorized:
		p.with("WWW-Authenticate", "Bearer")
	case event.CodeBusy:
		p.after(2 * time.Second)
	case event.CodeUnavailable:
		p.after(5 * time.Second)
	}
	return p
}

// status overrides the code's usual one.
func (p *problem) status(status int) *problem {
	p.Status = status
	return p
}

func (p *problem) at(field string) *problem {
	p.Field = field
	return p
}

// problemOf turns any error into what is told. Only the message of an *event.Error is shown; of all else, nothing.
func problemOf(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	if e, ok := errors.AsType[*event.Error](err); ok {
		p := newProblem(e.Code, e.Message).at(e.Field)
		if e.Code == event.CodeInternal {
			p.Detail = unexpected
		}
		p.cause = e.Err
		return p
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		p := newProblem(event.CodeUnavailable, "This took too long. Please try again.")
		p.cause = err
		return p
	}
	p := newProblem(event.CodeInternal, unexpected)
	p.cause = err
	return p
}

const unexpected = "Something went wrong on the server. It was logged; please try again."

// told finishes a problem, counts it, and logs what an operator must see.
func (s *web) told(ctx context.Context, route string, p *problem) *problem {
	p.Type, p.Title = "about:blank", http.StatusText(p.Status)
	reason := p.reason
	if reason == "" {
		reason = string(p.Code)
	}
	s.counters.refused(reason)
	if errors.Is(ctx.Err(), context.Canceled) {
		return p // whoever asked has gone; their going is no news
	}
	switch {
	case p.Code == event.CodeInternal:
		s.quiet.warn(slog.LevelError, "request failed", "route", route, "err", p)
	case p.Code == event.CodeUnavailable && p.cause != nil:
		s.quiet.warn(slog.LevelWarn, "request refused", "route", route, "err", p)
	}
	return p
}

// fail answers a request with an error. Nothing may have been written before.
func (s *web) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := s.told(r.Context(), r.Pattern, problemOf(err))
	h := w.Header()
	if p.Code == event.CodeTooLarge {
		h.Set("Connection", "close")
		_ = http.NewResponseController(w).EnableFullDuplex() // for linger; HTTP/2 always is
	}
	for _, key := range []string{"Content-Length", "Content-Encoding", "Content-Disposition", "ETag", "Last-Modified", "Accept-Ranges"} {
		h.Del(key)
	}
	for key, values := range p.header {
		h[key] = values
	}
	if h.Get("Cache-Control") == "" || p.header.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-store")
	}
	h.Set("Content-Type", p.ContentType(""))
	if p.Code == event.CodeTooLarge {
		defer linger(w, r)
	}
	b, err := json.Marshal(p)
	if err != nil || r.Method == http.MethodHead { // strings can always be written as JSON
		b = nil
	}
	w.WriteHeader(p.Status)
	if b != nil {
		w.Write(append(b, '\n')) // an error is the reader's going
	}
}

// linger reads on for a while after a body was refused for its size. Whoever is still sending would otherwise meet a reset
// connection and never see the answer (RFC 9112, 9.6). What takes longer than that is cut.
func linger(w http.ResponseWriter, r *http.Request) {
	ctl := http.NewResponseController(w)
	if ctl.Flush() != nil || ctl.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, lingerBytes)) // what matters is that it was taken
}

// fromHuma gives huma's own errors (a body that does not fit the schema) the shape of all others.
func fromHuma(m *huma.ErrorModel) *problem {
	code, reason := event.CodeInvalid, ""
	switch {
	case m.Status == http.StatusRequestEntityTooLarge:
		code = event.CodeTooLarge
	case m.Status == http.StatusBadRequest:
		reason = reasonUnparsable
	case m.Status == http.StatusUnsupportedMediaType:
		reason = reasonType
	case m.Status >= 500:
		code = event.CodeInternal
	}
	p := newProblem(code, "").status(m.Status).because(reason)
	switch {
	case code == event.CodeInternal:
		p.Detail, p.cause = unexpected, m
	case code == event.CodeTooLarge:
		p.Detail = tooLarge
	case m.Status == http.StatusBadRequest && len(m.Errors) == 0:
		p.Detail, p.Field = "A JSON object is needed as the body.", "body"
	case m.Status == http.StatusBadRequest:
		p.Detail, p.Field = "The body is not valid JSON.", "body"
	default:
		p.Detail = "The request does not fit."
		if len(m.Errors) > 0 {
			p.Field, p.Detail = explain(m.Errors[0])
		}
	}
	return p
}

const tooLarge = "This is too large: at most 64 KiB are read."

// limitedLog writes at most one line a second for each message and says how many it left out: whoever can cause an error could
// otherwise fill a disk.
type limitedLog struct {
	log *slog.Logger
	now func() time.Time

	mu   sync.Mutex
	last map[string]*heldBack
}

type heldBack struct {
	at   time.Time
	more int
}

func (l *limitedLog) warn(level slog.Level, msg string, args ...any) {
	now := l.now()
	l.mu.Lock()
	if l.last == nil {
		l.last = make(map[string]*heldBack)
	}
	h := l.last[msg] // the messages are constants of this package, so the map is small
	if h == nil {
		h = &heldBack{}
		l.last[msg] = h
	}
	if !h.at.IsZero() && now.Sub(h.at) < time.Second {
		h.more++
		l.mu.Unlock()
		return
	}
	more := h.more
	h.at, h.more = now, 0
	l.mu.Unlock()
	if more > 0 {
		args = append(args, "left_out", more)
	}
	l.log.Log(context.Background(), level, msg, args...)
}
