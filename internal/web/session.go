package web

import (
	"context"
	"errors"
	"net/http"
	"time"

	"earshot/internal/event"
)

const (
	// sessionLife is how long a browser is remembered after it last opened a link.
	sessionLife = 30 * 24 * time.Hour
	// handLife is how long somebody is remembered who only raised a hand: anybody can, so it is kept short.
	handLife = 24 * time.Hour
	// maxGrants bounds a session; the oldest grant makes room.
	maxGrants = 64
)

type sessionJSON struct {
	Operator bool        `json:"operator" doc:"Whether this session may do everything."`
	Grants   []grantJSON `json:"grants" nullable:"false" doc:"The parts in events."`
}

type grantJSON struct {
	Event  string         `json:"event" doc:"The event's slug."`
	Person string         `json:"person"`
	Name   string         `json:"name"`
	Role   event.Role     `json:"role" enum:"host,cohost,speaker,interpreter,producer,moderator,listener"`
	May    []event.Action `json:"may" nullable:"false" doc:"What the role may do there."`
}

type sessionBody struct {
	Body sessionJSON
}

type sessionCookie struct {
	Cookie http.Cookie `header:"Set-Cookie"`
	Body   sessionJSON
}

type sessionGone struct {
	Cookie http.Cookie `header:"Set-Cookie"`
}

type exchange struct {
	Body struct {
		Secret string `json:"secret" doc:"What follows #k= in a link."`
		Name   string `json:"name,omitempty" doc:"How one is called on stage. Needed for an invite, ignored for the operator."`
	}
}

func (a api) sessions() {
	s := a.web
	add(a, operation{
		id: "open-session", method: http.MethodPost, path: "/api/v1/session", tag: tagSession, summary: "Exchange a link's secret for a session",
		about: "Sets the cookie. A second exchange adds to the same session.",
	}, s.openSession)
	add(a, operation{
		id: "get-session", method: http.MethodGet, path: "/api/v1/session", tag: tagSession, summary: "Who one is",
	}, s.getSession)
	add(a, operation{
		id: "close-session", method: http.MethodDelete, path: "/api/v1/session", tag: tagSession, summary: "Forget the session",
		status: http.StatusNoContent,
	}, s.closeSession)
}

func (s *web) openSession(ctx context.Context, c call, in *exchange) (_ *sessionCookie, err error) {
	if in.Body.Secret == "" || len(in.Body.Secret) > maxSecret {
		return nil, event.Invalid("secret", "The secret is what follows #k= in the link.")
	}
	invite, isOperator, err := s.opens(ctx, in.Body.Secret)
	if err != nil {
		return nil, err
	}
	secret := c.secret
	if secret == "" {
		secret = NewSecret(sessionSecret)
	}
	change := func(held *event.Session) { held.Operator, held.Key = true, s.cfg.OperatorKeyHash }
	if !isOperator {
		var e event.Event
		if e, err = s.eventByID(ctx, invite.Event); err != nil {
			return nil, err
		}
		var name string
		if name, err = event.CleanLine("name", in.Body.Name, event.MaxName); err != nil {
			return nil, err
		}
		browser := browserOf(secret)
		who := "" // a host's invite is one person, wherever it is opened
		if invite.Role != event.Host {
			who = browser
		}
		change = func(held *event.Session) {
			held.Add(event.Grant{
				Event: e.ID, Slug: e.Slug, Invite: invite.ID,
				Person: event.Person{ID: personID(invite.ID, who), Name: name, Role: invite.Role},
			}, maxGrants)
		}
		if err = s.admits(ctx, c.caller, e.ID, personID(invite.ID, who)); err != nil {
			return nil, err
		}
		use := taker(invite, browser)
		defer func() {
			if err != nil {
				s.unuse(ctx, invite, use)
			}
		}()
		if err = s.use(ctx, invite, use); err != nil {
			return nil, err
		}
	}
	session, err := s.grow(ctx, secret, sessionLife, func(held *event.Session) error { change(held); return nil })
	if err != nil {
		return nil, err
	}
	shown, err := s.showSession(ctx, caller{operator: s.isOperator(session), secret: secret, session: session})
	if err != nil {
		return nil, err
	}
	return &sessionCookie{Cookie: s.cookie(secret, session.Expires), Body: shown}, nil
}

// browserOf is what stands for the browser that has a session with this secret.
func browserOf(secret string) string { return "session:" + HashSecret(secret) }

// grow adds to the session with this secret, or makes it. change sees it as it is at that moment, and is called again if another request
// was quicker.
func (s *web) grow(ctx context.Context, secret string, life time.Duration, change func(*event.Session) error) (event.Session, error) {
	now := s.now().UTC()
	return s.cfg.Store.UpdateSession(ctx, HashSecret(secret), func(held *event.Session) error {
		if held.Created.IsZero() {
			held.Created = now
		}
		if until := now.Add(life); until.After(held.Expires) {
			held.Expires = until
		}
		return change(held)
	})
}

// isOperator says whether a session is the operator's. Who replaces the operator's key, because somebody else has seen it, means those
// too who opened a session with it.
func (s *web) isOperator(session event.Session) bool {
	return session.Operator && sameHash(session.Key, s.cfg.OperatorKeyHash)
}

// cookie carries the session's secret. Browsers take Secure cookies from http://localhost and http://127.0.0.1 too.
func (s *web) cookie(secret string, expires time.Time) http.Cookie {
	return http.Cookie{
		Name: cookieName, Value: secret, Path: "/", MaxAge: int(expires.Sub(s.now()).Round(time.Second).Seconds()),
		Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
}

func (s *web) getSession(ctx context.Context, c call, _ *struct{}) (*sessionBody, error) {
	shown, err := s.showSession(ctx, c.caller)
	if err != nil {
		return nil, err
	}
	return &sessionBody{Body: shown}, nil
}

func (s *web) closeSession(ctx context.Context, c call, _ *struct{}) (*sessionGone, error) {
	if c.secret != "" {
		if err := s.cfg.Store.DeleteSession(ctx, HashSecret(c.secret)); err != nil && event.CodeOf(err) != event.CodeNotFound {
			return nil, err
		}
	}
	return &sessionGone{Cookie: forgotten()}, nil
}

// forgotten makes a browser drop its cookie.
func forgotten() http.Cookie {
	return http.Cookie{Name: cookieName, Path: "/", MaxAge: -1, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode}
}

// showSession lists what still counts: a withdrawn invite's part is left out.
func (s *web) showSession(ctx context.Context, c caller) (sessionJSON, error) {
	out := sessionJSON{Operator: c.operator, Grants: []grantJSON{}}
	grants := c.session.Grants
	if c.invite != nil {
		e, err := s.eventByID(ctx, c.invite.Event)
		if err != nil {
			return sessionJSON{}, err
		}
		grants = []event.Grant{{Event: e.ID, Slug: e.Slug}}
	}
	for _, g := range grants {
		p, ok, err := s.person(ctx, c, g.Event)
		if err != nil && !errors.Is(err, shutOut) {
			return sessionJSON{}, err
		}
		if ok {
			out.Grants = append(out.Grants, grantJSON{Event: g.Slug, Person: p.ID, Name: p.Name, Role: p.Role, May: event.Standing{Role: p.Role}.Actions()})
		}
	}
	return out, nil
}

// eventByID is for invites, which name events by ID.
func (s *web) eventByID(ctx context.Context, id string) (event.Event, error) {
	all, err := s.cfg.Store.Events(ctx)
	if err != nil {
		return event.Event{}, err
	}
	for _, e := range all {
		if e.ID == id {
			return e, nil
		}
	}
	return event.Event{}, noEvent
}
