package web

import (
	"context"
	"log/slog"
	"net/http"
	"slices"

	"earshot/internal/event"
	"earshot/internal/stage"
)

// stageJSON is the stage as one of its people sees it.
type stageJSON struct {
	stage.State
	You string         `json:"you,omitempty" doc:"The caller's own ID; absent for the operator."`
	May []event.Action `json:"may" nullable:"false" doc:"What the caller may do at this moment."`
}

type stageOut struct {
	Body stageJSON
}

type handIn struct {
	Slug string `path:"slug" doc:"The event's address."`
	Body struct {
		Name  string `json:"name" doc:"How one is called on stage, at most 60 characters."`
		Named bool   `json:"named,omitempty" doc:"Whether all may read the name beside the hand, or only those who tend the hands."`
	}
}

type handOut struct {
	Cookie string `header:"Set-Cookie"`
}

type personIn struct {
	Slug string `path:"slug" doc:"The event's address."`
	ID   string `path:"id" doc:"The person's ID."`
}

func (a api) people() {
	s := a.web
	add(a, operation{
		id: "get-stage", method: http.MethodGet, path: eventPath + "/stage", tag: tagStage, summary: "The stage as it is", need: event.See,
	}, func(_ context.Context, c call, _ *slugIn) (*stageOut, error) {
		room, err := s.stage(c.event)
		if err != nil {
			return nil, err
		}
		return &stageOut{Body: s.showStage(c, room.Stage)}, nil
	})
	a.watch()
	add(a, operation{
		id: "raise-hand", method: http.MethodPost, path: eventPath + "/hand", tag: tagStage, summary: "Ask for the floor",
		about: "Makes a session if there is none.", status: http.StatusNoContent,
	}, s.raiseHand)
	add(a, operation{
		id: "lower-own-hand", method: http.MethodDelete, path: eventPath + "/hand", tag: tagStage, summary: "Take one's hand down",
		need: part, status: http.StatusNoContent,
	}, s.lowerHand)

	person := func(verb, summary string, n need, do func(context.Context, *stage.Stage, call, string) error) {
		add(a, operation{
			id: verb + "-person", method: http.MethodPost, path: eventPath + "/people/{id}/" + verb, tag: tagStage, summary: summary,
			need: n, status: http.StatusNoContent,
		}, func(ctx context.Context, c call, in *personIn) (*struct{}, error) {
			return s.command(ctx, c, func(st *stage.Stage) error { return do(ctx, st, c, in.ID) })
		})
	}
	person("admit", "Let a raised hand speak", event.Admit, func(ctx context.Context, st *stage.Stage, _ call, id string) error {
		return st.Admit(ctx, id)
	})
	person("lower", "Dismiss a raised hand", event.Admit, func(ctx context.Context, st *stage.Stage, _ call, id string) error {
		return st.LowerHand(ctx, id)
	})
	person("remove", "End somebody's connection", event.Remove, func(ctx context.Context, st *stage.Stage, c call, id string) error {
		if p, ok := onStage(st, id); ok && !c.over(p.Role) {
			return aboveYou
		}
		return st.Remove(ctx, id)
	})
	person("mute", "Drop a voice", event.See, mute(true))
	person("unmute", "Let a voice through again", event.See, mute(false))
}

// showStage gives the stage as the caller sees it: the names of hands whose owners did not want that are for those who tend them.
func (s *web) showStage(c call, st *stage.Stage) stageJSON {
	out := stageJSON{State: st.State(), You: c.me.ID, May: c.rights()}
	for i, h := range out.Hands {
		if !h.Named && h.ID != c.me.ID && !c.may(event.Admit) {
			out.Hands[i].Name = ""
		}
	}
	return out
}

// mute lets each mute themself, and those who may mute others all. What one of them muted only one of them unmutes, also on themself.
func mute(muted bool) func(context.Context, *stage.Stage, call, string) error {
	return func(ctx context.Context, st *stage.Stage, c call, id string) error {
		by := stage.ByHost
		switch own := c.has && c.me.ID == id; {
		case own && c.may(event.Mute) && !muted && mutedBy(st, id) == stage.ByHost:
		case own:
			by = stage.BySelf
		case !c.may(event.Mute):
			return event.Forbidden(refusals[event.Mute])
		}
		return st.Mute(ctx, id, by, muted)
	}
}

func mutedBy(st *stage.Stage, id string) stage.MuteBy {
	p, _ := onStage(st, id)
	return p.Muted
}

// onStage finds somebody there.
func onStage(st *stage.Stage, id string) (stage.Person, bool) {
	people := st.State().People
	if i := slices.IndexFunc(people, func(p stage.Person) bool { return p.ID == id }); i >= 0 {
		return people[i], true
	}
	return stage.Person{}, false
}

// command runs a command on an event's stage.
func (s *web) command(ctx context.Context, c call, do func(*stage.Stage) error) (*struct{}, error) {
	room, err := s.stage(c.event)
	if err != nil {
		return nil, err
	}
	if err := do(room.Stage); err != nil {
		return nil, s.inPhase(ctx, err, c.event.Slug)
	}
	return nil, nil
}

// lowerHand takes the caller's own hand down. A session that was made for nothing but this hand goes with it: strangers could else have
// as many stored as they like, one after the other.
func (s *web) lowerHand(ctx context.Context, c call, _ *slugIn) (*handOut, error) {
	if _, err := s.command(ctx, c, func(st *stage.Stage) error { return st.LowerHand(ctx, c.me.ID) }); err != nil {
		return nil, err
	}
	out := &handOut{}
	if held := c.session; c.secret == "" || held.Operator || len(held.Grants) != 1 || held.Grants[0].Invite != "" {
		return out, nil
	}
	if err := s.cfg.Store.DeleteSession(ctx, HashSecret(c.secret)); err != nil && event.CodeOf(err) != event.CodeNotFound {
		s.quiet.warn(slog.LevelWarn, "a session outlives its hand", "event", c.event.Slug, "err", err)
		return out, nil // the hand is down, which is what was asked; the session lapses within a day
	}
	gone := forgotten()
	out.Cookie = gone.String()
	return out, nil
}

// raiseHand puts a hand up and makes its owner known. The hand comes first: the stage bounds how many there are, and so how many
// sessions strangers can have stored. A hand whose session could not be stored is taken down again.
func (s *web) raiseHand(ctx context.Context, c call, in *handIn) (*handOut, error) {
	if c.invite != nil || c.operator && c.secret == "" {
		return nil, event.Conflict("Programs do not raise hands: open a session, or speak with a speaker's invite.")
	}
	name, err := event.CleanLine("name", in.Body.Name, event.MaxName)
	if err != nil {
		return nil, err
	}
	room, err := s.stage(c.event)
	if err != nil {
		return nil, err
	}
	secret, me := c.secret, c.me
	if secret == "" {
		secret = NewSecret(sessionSecret)
	}
	if !c.has {
		me = event.Person{ID: newID("p_"), Role: event.Listener}
	}
	me.Name = name
	if err := room.Stage.RaiseHand(ctx, me, in.Body.Named); err != nil {
		return nil, s.inPhase(ctx, err, c.event.Slug)
	}
	before, _ := c.session.Grant(c.event.ID) // it may be of an invite that was withdrawn
	session, err := s.grow(ctx, secret, handLife, func(held *event.Session) error {
		if g, ok := held.Grant(c.event.ID); ok && g.Person.ID != me.ID && g.Person.ID != before.Person.ID {
			return event.Conflict("You got a part in this event from another window just now. Look at the page again.")
		}
		held.Add(event.Grant{Event: c.event.ID, Slug: c.event.Slug, Person: me}, maxGrants)
		return nil
	})
	if err != nil {
		if lerr := room.Stage.LowerHand(context.WithoutCancel(ctx), me.ID); lerr != nil && event.CodeOf(lerr) != event.CodeNotFound {
			s.log.Warn("a hand stays up without a session", "event", c.event.Slug, "err", lerr)
		}
		return nil, err
	}
	out := &handOut{}
	cookie := s.cookie(secret, session.Expires)
	out.Cookie = cookie.String()
	return out, nil
}
