package web

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"earshot/internal/event"
)

// cookieName has the prefix that binds a cookie to this very origin, over HTTPS or localhost, for every path (RFC 6265bis, 4.1.3.2).
const cookieName = "__Host-earshot"

// caller is whoever sent a request, as far as its header says.
type caller struct {
	operator bool
	known    bool // there was a credential, and it is good

	invite *event.Invite // of a bearer token
	alias  string        // ?person= beside a bearer token

	secret  string // of the session, from the cookie; "" if there is none
	session event.Session
}

// identify reads the credential of a request. None is no error; one that opens nothing is, if it was sent on purpose (a bearer token),
// while an old cookie is like none. A cookie is never looked at beside a bearer token.
func (s *web) identify(r *http.Request) (caller, error) {
	if header := r.Header.Get("Authorization"); header != "" {
		return s.bearer(r, header)
	}
	cookie, err := r.Cookie(cookieName)
	if err != nil || cookie.Value == "" || len(cookie.Value) > maxSecret {
		return caller{}, nil
	}
	session, err := s.cfg.Store.Session(r.Context(), HashSecret(cookie.Value))
	if err != nil && event.CodeOf(err) == event.CodeNotFound {
		return caller{}, nil
	}
	if err != nil {
		return caller{}, err
	}
	if !s.now().Before(session.Expires) {
		return caller{}, nil
	}
	session.Operator = s.isOperator(session)
	return caller{operator: session.Operator, known: true, secret: cookie.Value, session: session}, nil
}

func (s *web) bearer(r *http.Request, header string) (caller, error) {
	scheme, secret, _ := strings.Cut(header, " ")
	secret = strings.TrimSpace(secret)
	if !strings.EqualFold(scheme, "Bearer") || secret == "" || len(secret) > maxSecret {
		return caller{}, newProblem(event.CodeUnauthorized, "The Authorization header must be: Bearer, a space, and the secret of a link.").
			because(reasonCredential)
	}
	alias := r.URL.Query().Get("person")
	if !aliasFits(alias) {
		return caller{}, event.Invalid("person", "The person has at most 32 letters and digits.")
	}
	invite, operator, err := s.opens(r.Context(), secret)
	if err != nil {
		return caller{}, err
	}
	c := caller{operator: operator, known: true, alias: alias}
	if !operator {
		who := taker(invite, "alias:"+alias)
		if err := s.use(r.Context(), invite, who); err != nil {
			s.unuse(r.Context(), invite, who)
			return caller{}, err
		}
		c.invite = &invite
	}
	return c, nil
}

// opens tells what a secret opens: the house, or an invite that can be used now.
func (s *web) opens(ctx context.Context, secret string) (invite event.Invite, operator bool, err error) {
	hash := HashSecret(secret)
	if s.cfg.OperatorKeyHash != "" && sameHash(hash, s.cfg.OperatorKeyHash) {
		return event.Invite{}, true, nil
	}
	// The look-up goes by the hash: how long it takes says nothing about a secret that is not known already.
	invite, err = s.cfg.Store.InviteByHash(ctx, hash)
	switch {
	case err != nil && event.CodeOf(err) == event.CodeNotFound:
		return event.Invite{}, false, newProblem(event.CodeUnauthorized, "This link does not open anything. Ask whoever sent it for a new one.").
			because(reasonCredential)
	case err != nil:
		return event.Invite{}, false, err
	case !sameHash(hash, invite.Hash):
		return event.Invite{}, false, errors.New("the store gave another invite than asked for")
	}
	return invite, false, s.refused(invite)
}

// aliasFits says whether a is what ?person= may be: at most 32 of A-Z, a-z and 0-9.
func aliasFits(a string) bool {
	if len(a) > 32 {
		return false
	}
	for i := range len(a) {
		if c := a[i]; (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// person tells which part the caller has in an event. A grant lasts no longer than the invite it came from; a role that was given in the
// event takes the place of the invite's. For somebody who is banned it is an error, shutOut.
func (s *web) person(ctx context.Context, c caller, eventID string) (event.Person, bool, error) {
	p, ok, err := s.invited(ctx, c, eventID)
	if err != nil {
		return event.Person{}, false, err
	}
	roll, err := s.cfg.Store.Roll(ctx, eventID)
	if err != nil {
		return event.Person{}, false, err
	}
	if c.banned(roll, eventID, p.ID) {
		return event.Person{}, false, shutOut
	}
	if !ok {
		return event.Person{}, false, nil
	}
	p.Role = s.roleOf(roll, c, p)
	return p, true, nil
}

// banned says whether the caller is, as the person with this ID, if any, or as who they were in the event before: a ban outlives the link by
// which somebody came.
func (c caller) banned(roll event.Roll, eventID, person string) bool {
	g, held := c.session.Grant(eventID)
	return roll.Bans(person) || held && roll.Bans(g.Person.ID)
}

// roleOf gives the role that p has. What was given to a program's name on a link that others share is nobody's in particular: whoever has
// the link could take the name. And who came by a host's link has given the host's role away under each name that the link allows.
func (s *web) roleOf(roll event.Roll, c caller, p event.Person) event.Role {
	given := roll.RoleOf(p)
	switch {
	case c.invite == nil:
	case c.invite.Role == event.Host:
		if _, own := roll.Roles[p.ID]; !own {
			return roll.RoleOf(event.Person{ID: personID(c.invite.ID, ""), Role: p.Role})
		}
	case !ofOne(*c.invite) && given.May(event.HandOver):
		return p.Role
	}
	return given
}

// shutOut refuses who was banned. It is one value, compared with.
var shutOut = event.Forbidden("You were banned from this event. Only those who run it can take that back.")

// invited tells which part the caller's link or hand gave them in an event.
func (s *web) invited(ctx context.Context, c caller, eventID string) (event.Person, bool, error) {
	if c.invite != nil {
		if c.invite.Event != eventID {
			return event.Person{}, false, nil
		}
		return invitedPerson(*c.invite, c.alias), true, nil
	}
	grant, ok := c.session.Grant(eventID)
	if !ok {
		return event.Person{}, false, nil
	}
	if grant.Invite == "" {
		return grant.Person, true, nil
	}
	invites, err := s.cfg.Store.Invites(ctx, eventID)
	if err != nil {
		return event.Person{}, false, err
	}
	for _, i := range invites {
		if i.ID == grant.Invite {
			// A session whose use was given back, because opening it seemed to fail, opens nothing either.
			held := i.Uses == 0 || i.Took(taker(i, browserOf(c.secret)))
			return grant.Person, held && i.Usable(s.now()), nil
		}
	}
	return event.Person{}, false, nil
}

// invitedPerson is who a program is that sends an invite's secret: one person, or one per alias.
func invitedPerson(i event.Invite, alias string) event.Person {
	p := event.Person{ID: programID(i, alias), Name: i.Label, Role: i.Role}
	if alias != "" {
		p.Name = alias
	}
	if p.Name == "" {
		p.Name = map[event.Role]string{
			event.Host: "Host", event.Cohost: "Co-host", event.Speaker: "Speaker", event.Interpreter: "Interpreter",
			event.Producer: "Producer", event.Moderator: "Moderator",
		}[i.Role]
	}
	return p
}

// need is what an address asks of its caller: an event.Action, or one of these.
type need = event.Action

const (
	anyone need = ""
	part   need = "part" // to have a part in the event, or to have had a hand up
)

// call is a request after it was judged.
type call struct {
	caller
	event event.Event    // zero if the address names none
	me    event.Person   // the caller's part in the event
	has   bool           // whether there is one
	at    event.Standing // where they stand with it: their role and their place on this stage
	base  string         // what links begin with, for this caller
}

// may says whether the caller may do a: as the operator, or by their part.
func (c call) may(a event.Action) bool {
	return c.operator && event.Operator.May(a) || c.at.May(a)
}

// over says whether the caller's rights reach somebody in a role.
func (c call) over(r event.Role) bool {
	return c.operator || c.at.Role.Over(r)
}

// reaches says whether the caller's rights reach all to whom roll gave a role and whom means means.
func (c call) reaches(roll event.Roll, means func(id string) bool) bool {
	for id, role := range roll.Roles {
		if means(id) && !c.over(role) {
			return false
		}
	}
	return true
}

// rights lists what the caller may do.
func (c call) rights() []event.Action {
	return slices.DeleteFunc(event.Actions(), func(a event.Action) bool { return !c.may(a) })
}

// judge finds the event that the address names (slug may be "") and says whether the caller may do what it does.
func (s *web) judge(r *http.Request, slug string, n need) (call, error) {
	c := call{base: s.base(r)}
	var err error
	if slug != "" {
		if c.event, err = s.event(r.Context(), slug); err != nil {
			return call{}, err
		}
	}
	if n == anyone && slug != "" && !unsafe(r.Method) {
		return c, nil // reading what all may read asks for no credential, and a bad one does not matter
	}
	if c.caller, err = s.identify(r); err != nil {
		return call{}, err
	}
	if slug != "" {
		c.me, c.has, err = s.person(r.Context(), c.caller, c.event.ID)
		if err != nil && !(c.operator && errors.Is(err, shutOut)) { // nobody bans the operator
			return call{}, err
		}
	}
	room, open := s.cfg.House.Room(slug)
	switch {
	case !c.has:
	case open && room.Stage != nil:
		c.at = room.Stage.Standing(c.me)
	default:
		c.at.Role = c.me.Role
	}
	switch {
	case n == anyone, n == part && c.has, n != part && c.may(n):
		return c, nil
	case n == event.See && c.has && open && room.Stage == nil:
		return c, nil // without a stage there is nothing to see, and the handler says where it is
	case !c.known:
		return call{}, newProblem(event.CodeUnauthorized, "Open this with your personal link first.").because(reasonCredential)
	}
	return call{}, event.Forbidden(refusals[n])
}

// refusals say who may do what the caller may not.
var refusals = map[need]string{
	part:               "You have no part in this event.",
	event.Operate:      "Only the operator of this server can do this.",
	event.Steer:        "Only a host, co-host or producer of this event or the operator can do this.",
	event.Change:       "Only a host, co-host or producer of this event or the operator can do this.",
	event.InviteOthers: "Only those who run or moderate this event can do this. Ask a host.",
	event.HandOver:     "Only a host gives this role away. Ask them, or the operator.",
	event.Admit:        "Only those who run or moderate this event can do this. Ask a host.",
	event.Mute:         "Only those who run or moderate this event mute others.",
	event.Remove:       "Only those who run or moderate this event can do this. Ask a host.",
	event.Ban:          "Only those who run or moderate this event can do this. Ask a host.",
	event.See:          "Only those on stage, with a hand up, or who run or moderate the event see the stage.",
	event.Speak:        "Only speakers may do this. Raise your hand and wait until a host lets you speak.",
	event.Monitor:      "This is for those on stage.",
	event.RaiseHand:    "Your role needs no hand.",
}

// event finds an event. What cannot be a slug is not even looked up.
func (s *web) event(ctx context.Context, slug string) (event.Event, error) {
	if event.CheckSlug(slug) != nil {
		return event.Event{}, noEvent
	}
	e, err := s.cfg.Store.Event(ctx, slug)
	if err != nil && event.CodeOf(err) == event.CodeNotFound {
		return event.Event{}, noEvent
	}
	return e, err
}

var noEvent = event.NotFound("There is no event at this address.")

// room finds an open event's room, or says why there is none: too early with how long to wait, or over.
func (s *web) room(ctx context.Context, slug string) (Room, error) {
	if room, ok := s.cfg.House.Room(slug); ok {
		return room, nil
	}
	e, err := s.event(ctx, slug)
	if err != nil {
		return Room{}, err
	}
	return Room{}, s.closed(e)
}

// stage finds an open event's stage, or says where it is.
func (s *web) stage(e event.Event) (Room, error) {
	room, ok := s.cfg.House.Room(e.Slug)
	if !ok {
		return Room{}, s.closed(e)
	}
	if room.Stage == nil {
		return Room{}, Elsewhere(room.StageAt)
	}
	return room, nil
}

// Elsewhere says that this node has no stage, and who has.
func Elsewhere(at string) error {
	if at == "" {
		return newProblem(event.CodeUnavailable, "This node serves listeners. Speakers join at another address of this server.")
	}
	return newProblem(event.CodeUnavailable, "This node serves listeners. Speakers join at "+at+".")
}

// closed says why an event has no room.
func (s *web) closed(e event.Event) *problem {
	var p *problem
	switch e.Phase {
	case event.Scheduled:
		p = newProblem(event.CodeConflict, "The doors are not open yet.").after(e.DoorsAt().Sub(s.now()))
	case event.Ended:
		p = newProblem(event.CodeConflict, "The event has ended.")
	case event.Cancelled:
		p = newProblem(event.CodeConflict, "The event was cancelled.")
	default:
		// Open by its phase, but not here yet: this process has just started, or is just leaving.
		p = newProblem(event.CodeUnavailable, "The event is about to come back. Please try again in a moment.").after(2 * time.Second)
	}
	p.Phase = e.Phase
	return p.because(reasonPhase)
}
