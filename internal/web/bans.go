package web

import (
	"context"
	"net/http"
	"strings"
	"time"

	"earshot/internal/event"
	"earshot/internal/stage"
)

type banJSON struct {
	Person string     `json:"person"`
	Name   string     `json:"name"`
	Role   event.Role `json:"role" enum:"host,cohost,speaker,interpreter,producer,moderator,listener"`
	At     time.Time  `json:"at"`
}

type bansOut struct {
	Body struct {
		Bans []banJSON `json:"bans" nullable:"false" doc:"Oldest first."`
	}
}

func (a api) bans() {
	s := a.web
	add(a, operation{
		id: "ban-person", method: http.MethodPost, path: eventPath + "/people/{id}/ban", tag: tagStage, summary: "Ban somebody from the event",
		about: "Somebody on stage, or with a hand up. They are removed, and cannot come back.", need: event.Ban, status: http.StatusNoContent,
	}, s.ban)
	add(a, operation{
		id: "list-bans", method: http.MethodGet, path: eventPath + "/bans", tag: tagStage, summary: "Who is banned from the event", need: event.Ban,
	}, s.listBans)
	add(a, operation{
		id: "unban-person", method: http.MethodDelete, path: eventPath + "/bans/{id}", tag: tagStage, summary: "Take a ban back",
		need: event.Ban, status: http.StatusNoContent,
	}, s.unban)
}

// ban stores the ban first and takes them off the stage after. Commit point: the store's acknowledgement. A crash between leaves them
// banned, and without a stage they have to come anew.
func (s *web) ban(ctx context.Context, c call, in *personIn) (*struct{}, error) {
	return s.command(ctx, c, func(st *stage.Stage) error {
		state := st.State()
		b := event.Banned{Person: in.ID, At: s.now().UTC(), Role: event.Listener}
		there := false
		for _, h := range state.Hands {
			if h.ID == in.ID {
				b.Name, there = h.Name, true
			}
		}
		for _, p := range state.People {
			if p.ID == in.ID {
				b.Name, b.Role, there = p.Name, p.Role, true
			}
		}
		switch {
		case !there:
			return event.NotFound("This person is not on stage any more, and has no hand up.")
		case in.ID == c.me.ID:
			return event.Conflict("You cannot ban yourself.")
		case !c.over(b.Role):
			return aboveYou
		}
		var err error
		if b.Link, err = s.soleLink(ctx, c.event.ID, in.ID); err != nil {
			return err
		}
		if c.has && b.Means(c.me.ID) {
			b.Link = "" // who bans shares the link: theirs is to ban one, not themself
		}
		for _, p := range state.People {
			if b.Means(p.ID) && !c.over(p.Role) {
				return aboveYou
			}
		}
		_, err = s.cfg.Store.UpdateRoll(ctx, c.event.ID, func(r *event.Roll) error {
			if !c.reaches(*r, b.Means) {
				return aboveYou
			}
			return r.Ban(b)
		})
		if err != nil {
			return err
		}
		return st.Ban(ctx, b)
	})
}

// soleLink gives how the IDs of all begin who could be the person with this ID: those of a link that one alone may open, and those of
// an invite's programs. Where others share the link it is empty: they are not to be banned with them.
func (s *web) soleLink(ctx context.Context, eventID, person string) (string, error) {
	i, err := s.inviteOf(ctx, eventID, person)
	switch {
	case err != nil || i.ID == "":
		return "", err
	case ofOne(i):
		return personTag(i.ID), nil
	case strings.HasPrefix(person, programTag(i.ID)):
		return programTag(i.ID), nil
	}
	return "", nil
}

// admits refuses a browser that would come by another link after it was banned.
func (s *web) admits(ctx context.Context, c caller, eventID, person string) error {
	roll, err := s.cfg.Store.Roll(ctx, eventID)
	if err != nil {
		return err
	}
	if c.banned(roll, eventID, person) {
		return shutOut
	}
	return nil
}

func (s *web) listBans(ctx context.Context, c call, _ *slugIn) (*bansOut, error) {
	roll, err := s.cfg.Store.Roll(ctx, c.event.ID)
	if err != nil {
		return nil, err
	}
	out := &bansOut{}
	out.Body.Bans = make([]banJSON, 0, len(roll.Banned))
	for _, b := range roll.Banned {
		out.Body.Bans = append(out.Body.Bans, banJSON{Person: b.Person, Name: b.Name, Role: b.Role, At: b.At.UTC()})
	}
	return out, nil
}

func (s *web) unban(ctx context.Context, c call, in *personIn) (*struct{}, error) {
	room, open := s.cfg.House.Room(c.event.Slug)
	if open && room.Stage == nil {
		return nil, Elsewhere(room.StageAt)
	}
	_, err := s.cfg.Store.UpdateRoll(ctx, c.event.ID, func(r *event.Roll) error {
		for _, b := range r.Banned {
			if b.Person == in.ID && !c.over(b.Role) {
				return aboveYou
			}
		}
		if !r.Unban(in.ID) {
			return event.NotFound("This person is not banned.")
		}
		return nil
	})
	if err != nil || !open {
		return nil, err
	}
	return nil, room.Stage.Unban(ctx, in.ID)
}
