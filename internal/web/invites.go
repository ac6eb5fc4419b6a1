package web

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"earshot/internal/event"
)

// maxInvites bounds an event's invites, withdrawn ones included.
const maxInvites = 1000

type inviteJSON struct {
	ID      string     `json:"id"`
	Role    event.Role `json:"role" enum:"host,cohost,speaker,interpreter,producer,moderator"`
	Label   string     `json:"label"`
	Created time.Time  `json:"created"`
	Expires *time.Time `json:"expires,omitempty"`
	Uses    *int       `json:"uses,omitempty" doc:"How many browsers and programs may open it. Absent: any number."`
	Used    *int       `json:"used,omitempty" doc:"How many did. Counted only where the number is limited."`
	Revoked bool       `json:"revoked"`
}

type invitesOut struct {
	Body struct {
		Invites []inviteJSON `json:"invites" nullable:"false" doc:"Oldest first."`
	}
}

type inviteIn struct {
	Slug string `path:"slug" doc:"The event's address."`
	Body struct {
		Role    string     `json:"role" enum:"host,cohost,speaker,producer,moderator"`
		Label   string     `json:"label,omitempty" doc:"For whom: at most 60 characters. Programs that speak with this invite go by it."`
		Expires *time.Time `json:"expires,omitempty" doc:"From then on the invite opens nothing, nor do sessions that came from it."`
		Uses    int        `json:"uses,omitempty" minimum:"1" maximum:"1000" doc:"How many browsers and programs may open it; each may come again. Left out: any number."`
	}
}

type inviteOut struct {
	Location string `header:"Location"`
	Body     struct {
		inviteJSON
		Secret string `json:"secret" doc:"Shown this once."`
		Link   string `json:"link" doc:"Opens the studio. Shown this once."`
	}
}

type inviteID struct {
	Slug string `path:"slug" doc:"The event's address."`
	ID   string `path:"id" doc:"The invite's ID."`
}

func (a api) invites() {
	s := a.web
	add(a, operation{
		id: "list-invites", method: http.MethodGet, path: eventPath + "/invites", tag: tagInvites, summary: "The invites of an event", need: event.InviteOthers,
	}, s.listInvites)
	add(a, operation{
		id: "create-invite", method: http.MethodPost, path: eventPath + "/invites", tag: tagInvites, summary: "Make a link to a role",
		about: "To no role that may do more than one's own.", need: event.InviteOthers, status: http.StatusCreated,
	}, s.createInvite)
	add(a, operation{
		id: "revoke-invite", method: http.MethodDelete, path: eventPath + "/invites/{id}", tag: tagInvites, summary: "Withdraw an invite",
		about: "Who is on stage through it is removed.", need: event.InviteOthers, status: http.StatusNoContent,
	}, s.revokeInvite)
}

func showInvite(i event.Invite) inviteJSON {
	out := inviteJSON{ID: i.ID, Role: i.Role, Label: i.Label, Created: i.Created.UTC(), Revoked: i.Revoked}
	if !i.Expires.IsZero() {
		expires := i.Expires.UTC()
		out.Expires = &expires
	}
	if i.Uses > 0 {
		used := len(i.Takers)
		out.Uses, out.Used = &i.Uses, &used
	}
	return out
}

func (s *web) listInvites(ctx context.Context, c call, _ *slugIn) (*invitesOut, error) {
	all, err := s.cfg.Store.Invites(ctx, c.event.ID)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b event.Invite) int {
		if d := a.Created.Compare(b.Created); d != 0 {
			return d
		}
		return strings.Compare(a.ID, b.ID)
	})
	out := &invitesOut{}
	out.Body.Invites = make([]inviteJSON, 0, len(all))
	for _, i := range all {
		out.Body.Invites = append(out.Body.Invites, showInvite(i))
	}
	return out, nil
}

func (s *web) createInvite(ctx context.Context, c call, in *inviteIn) (*inviteOut, error) {
	if c.event.Phase.Over() {
		return nil, s.closed(c.event)
	}
	role := event.Role(in.Body.Role)
	if !c.over(role) {
		return nil, aboveYou
	}
	label, err := event.CleanText("label", in.Body.Label, event.MaxName)
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(label, "\n\t") {
		return nil, event.Invalid("label", "This must be one line.")
	}
	all, err := s.cfg.Store.Invites(ctx, c.event.ID)
	if err != nil {
		return nil, err
	}
	// The second half is for those who run the event: who may only invite must not be able to use all up.
	if len(all) >= maxInvites || len(all) >= maxInvites/2 && !c.may(event.Steer) {
		return nil, event.Conflict("This event has as many invites as are possible. Share one that exists.")
	}
	secret := NewSecret(InviteSecret)
	invite := event.Invite{
		ID: newID("in_"), Event: c.event.ID, Role: role, Label: label, Hash: HashSecret(secret), Created: s.now().UTC(),
		Uses: in.Body.Uses,
	}
	if in.Body.Expires != nil {
		invite.Expires = in.Body.Expires.UTC()
		if !invite.Expires.After(s.now()) {
			return nil, event.Invalid("expires", "This moment has passed already.")
		}
	}
	if err := s.cfg.Store.CreateInvite(ctx, invite); err != nil {
		return nil, err
	}
	out := &inviteOut{Location: "/api/v1/events/" + c.event.Slug + "/invites/" + invite.ID}
	out.Body.inviteJSON, out.Body.Secret = showInvite(invite), secret
	out.Body.Link = c.base + "/e/" + c.event.Slug + "/studio#k=" + secret
	return out, nil
}

func (s *web) revokeInvite(ctx context.Context, c call, in *inviteID) (*struct{}, error) {
	if room, open := s.cfg.House.Room(c.event.Slug); open && room.Stage == nil {
		return nil, Elsewhere(room.StageAt) // who came by it must leave the stage at once, and only its own node can see to that
	}
	roll, err := s.cfg.Store.Roll(ctx, c.event.ID)
	if err != nil {
		return nil, err
	}
	tag := personTag(in.ID)
	_, err = s.cfg.Store.UpdateInvite(ctx, c.event.ID, in.ID, func(i *event.Invite) error {
		// Somebody who came by it may have been given a higher role since.
		if !c.over(i.Role) || !c.reaches(roll, func(id string) bool { return strings.HasPrefix(id, tag) }) {
			return aboveYou
		}
		i.Revoked = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	room, open := s.cfg.House.Room(c.event.Slug)
	if !open || room.Stage == nil {
		return nil, nil
	}
	for _, p := range room.Stage.State().People {
		if !strings.HasPrefix(p.ID, tag) {
			continue
		}
		// Somebody who left in the meantime is gone as was wished.
		if err := room.Stage.Remove(ctx, p.ID); err != nil && event.CodeOf(err) != event.CodeNotFound {
			return nil, err
		}
	}
	return nil, nil
}

// aboveYou refuses to touch a role that may do more than the caller's.
var aboveYou = event.Forbidden("This is about a role that may do more than yours. Ask a host or the operator.")

// use takes one of an invite's uses for who, unless they have one or the uses are not counted. It answers what there is to say where
// none is left, and writes nothing then.
func (s *web) use(ctx context.Context, i event.Invite, who string) error {
	if i.Uses == 0 || i.Took(who) {
		return nil
	}
	if !i.Open(who) {
		return usedUp
	}
	e, err := s.eventByID(ctx, i.Event)
	if err != nil {
		return err
	}
	if room, open := s.cfg.House.Room(e.Slug); open && room.Stage == nil {
		return Elsewhere(room.StageAt) // a node for listeners stores no invites
	}
	_, err = s.cfg.Store.UpdateInvite(ctx, i.Event, i.ID, func(i *event.Invite) error {
		if err := s.refused(*i); err != nil {
			return err
		}
		if !i.Take(who) {
			return usedUp
		}
		return nil
	})
	return err
}

// unuse gives a use back that opened nothing in the end, or may have been stored though that failed.
func (s *web) unuse(ctx context.Context, i event.Invite, who string) {
	if i.Uses == 0 || i.Took(who) { // they had it before
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unuseWait)
	defer cancel()
	_, err := s.cfg.Store.UpdateInvite(ctx, i.Event, i.ID, func(i *event.Invite) error {
		if !i.Took(who) {
			return errNoUse
		}
		i.GiveBack(who)
		return nil
	})
	if err != nil && !errors.Is(err, errNoUse) {
		s.quiet.warn(slog.LevelWarn, "a use of an invite is lost", "invite", i.ID, "err", err)
	}
}

// unuseWait bounds what somebody who was refused waits for their use to be given back.
const unuseWait = 5 * time.Second

var errNoUse = errors.New("there is no use to give back")

// usedUp is one value, compared with: telling it takes nothing of whoever is told.
var usedUp = event.Unauthorized("This link was opened as often as it may be. Ask the host for a new one.")

// refused says why an invite opens nothing to anybody; nil if it does.
func (s *web) refused(i event.Invite) error {
	switch {
	case i.Revoked:
		return newProblem(event.CodeUnauthorized, "This link was withdrawn. Ask the host for a new one.").because(reasonCredential)
	case !i.Usable(s.now()):
		return newProblem(event.CodeUnauthorized, "This link has expired. Ask the host for a new one.").because(reasonCredential)
	}
	return nil
}

// ofOne says whether an invite is one person's: a host's is, wherever it is opened.
func ofOne(i event.Invite) bool { return i.Uses == 1 || i.Role == event.Host }

// inviteOf finds the invite by which a person of an event came, whether usable or not: the zero one where they raised a hand.
func (s *web) inviteOf(ctx context.Context, eventID, person string) (event.Invite, error) {
	invites, err := s.cfg.Store.Invites(ctx, eventID)
	if err != nil {
		return event.Invite{}, err
	}
	for _, i := range invites {
		if strings.HasPrefix(person, personTag(i.ID)) {
			return i, nil
		}
	}
	return event.Invite{}, nil
}

// taker names who opens an invite: a session, or a program by its alias. Nobody can tell them by it.
func taker(i event.Invite, who string) string { return short("taker\x00" + i.ID + "\x00" + who)[:16] }
