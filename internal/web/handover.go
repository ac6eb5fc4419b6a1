package web

import (
	"context"
	"net/http"
	"strings"

	"earshot/internal/event"
	"earshot/internal/stage"
)

func (a api) handOver() {
	add(a, operation{
		id: "make-host", method: http.MethodPost, path: eventPath + "/people/{id}/host", tag: tagStage, summary: "Hand over the host's role",
		about: "To somebody on stage. A host who does it is co-host then; the operator makes another host.", need: event.HandOver,
		status: http.StatusNoContent,
	}, a.web.handOver)
}

// handOver stores the new roles first and shows them on stage after: a crash between leaves them stored, and whoever comes then has them.
func (s *web) handOver(ctx context.Context, c call, in *personIn) (*struct{}, error) {
	return s.command(ctx, c, func(st *stage.Stage) error {
		to, there := onStage(st, in.ID)
		switch {
		case !there:
			return event.NotFound("This person is not on stage. The host's role goes to somebody who is.")
		case to.Role == event.Host:
			return event.Conflict("They are a host already.")
		}
		shared, err := s.sharedProgram(ctx, c.event.ID, to.ID)
		switch {
		case err != nil:
			return err
		case shared:
			return event.Conflict("They speak with a program, by a link that others could use under the same name. Give the role to somebody who came by a browser, or by a link for one use.")
		}
		h := stage.Handover{To: to.ID}
		if c.at.Role == event.Host {
			h.From = c.me.ID
		}
		_, err = s.cfg.Store.UpdateRoll(ctx, c.event.ID, func(r *event.Roll) error {
			if h.From != "" && r.RoleOf(c.me) != event.Host {
				return event.Conflict("You gave this role away already.")
			}
			r.HandOver(h.From, h.To)
			return nil
		})
		if err != nil {
			return err
		}
		return st.HandOver(ctx, h)
	})
}

// sharedProgram says whether a person is a program by an invite that others may use, too: then the name is whose turn it is to use it.
func (s *web) sharedProgram(ctx context.Context, eventID, person string) (bool, error) {
	i, err := s.inviteOf(ctx, eventID, person)
	return i.ID != "" && !ofOne(i) && strings.HasPrefix(person, programTag(i.ID)), err
}
