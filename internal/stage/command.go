package stage

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"earshot/internal/event"
)

// command is one change, carried to the stage's goroutine. Exactly one side claims it: the stage, to do it, or the sender whose
// context ended, so that an error of the context means that nothing was changed.
type command struct {
	do      func() error
	reply   chan error // capacity 1
	claimed atomic.Bool
}

func (c *command) claim() bool { return c.claimed.CompareAndSwap(false, true) }

// run does the command on the stage's goroutine. State shows the change before the sender is answered.
func (c *command) run(s *Stage) {
	if !c.claim() {
		return
	}
	err := c.do()
	s.publish()
	c.reply <- err
}

// do has f called on the stage's goroutine and gives its answer. The queue holds maxCommands; when it is full senders wait,
// because a control that is silently lost (a mute, a removal) is worse than a slow one.
func (s *Stage) do(ctx context.Context, op string, f func() error) error {
	if ctx.Err() != nil {
		return late(ctx, op)
	}
	c := &command{do: f, reply: make(chan error, 1)}
	select {
	case s.commands <- c:
	case <-ctx.Done():
		return late(ctx, op)
	case <-s.done:
		return s.refusal
	}
	select {
	case err := <-c.reply:
		return err
	case <-s.done:
	case <-ctx.Done():
		if c.claim() {
			return late(ctx, op)
		}
	}
	select {
	case err := <-c.reply:
		return err
	case <-s.done:
	}
	select {
	case err := <-c.reply: // it was among the last
		return err
	default:
		return s.refusal
	}
}

func late(ctx context.Context, op string) error {
	return event.Unavailable("The stage did not answer in time. Try again.", fmt.Errorf("%s: %w", op, ctx.Err()))
}

// Join gives p a seat, whose voice it becomes, and whose outlet hears the mix without it if hears. The newer seat of a person
// displaces the older one and keeps place and mute. Errors: event.Forbidden if p's role may not speak and nobody admitted
// them, and for who is banned, event.Busy over MaxVoices (HostVoices more for a host), event.Conflict after the end, event.Unavailable on a restart or if ctx ends; out is then
// never called.
func (s *Stage) Join(ctx context.Context, p event.Person, out Outlet, hears bool) (*Seat, error) {
	if out == nil {
		return nil, fmt.Errorf("join stage: %q has no outlet", p.ID)
	}
	if err := checkPerson(p); err != nil {
		return nil, err
	}
	var seat *Seat
	err := s.do(ctx, "join stage", func() (err error) {
		seat, err = s.join(p, out, hears)
		return err
	})
	if err != nil {
		return nil, err
	}
	return seat, nil
}

// Monitor lets a second outlet hear what a member hears: the mix without them. It ends with the member's place, and by stop,
// which never blocks and may be called again.
func (s *Stage) Monitor(ctx context.Context, personID string, out Outlet) (stop func(), err error) {
	if out == nil {
		return nil, fmt.Errorf("monitor %q: no outlet", personID)
	}
	var e *ear
	err = s.do(ctx, "monitor", func() (err error) {
		e, err = s.monitor(personID, out)
		return err
	})
	if err != nil {
		return nil, err
	}
	return func() {
		e.stopped.Store(true)
		s.wake()
	}, nil
}

// RaiseHand asks for the floor. A hand that is up stays where it is; its name, and whether all may read it, are brought up to date. Errors: event.Conflict
// for those who may speak anyway or are on stage, event.Forbidden for roles that are never heard, event.Busy over MaxHands.
func (s *Stage) RaiseHand(ctx context.Context, p event.Person, named bool) error {
	if err := checkPerson(p); err != nil {
		return err
	}
	return s.do(ctx, "raise hand", func() error { return s.raise(p, named) })
}

// LowerHand takes a hand down, admitted or not. event.NotFound if it is not up.
func (s *Stage) LowerHand(ctx context.Context, id string) error {
	return s.do(ctx, "lower hand", func() error { return s.lower(id) })
}

// Admit lets the owner of a raised hand join. event.NotFound if the hand is not up.
func (s *Stage) Admit(ctx context.Context, id string) error {
	return s.do(ctx, "admit", func() error { return s.admit(id) })
}

// Mute drops or lets through a member's voice. A member's own mute and a host's are kept apart, so neither lifts the other:
// event.Forbidden for a member who was muted by a host, event.Conflict for a host who would open the microphone of somebody
// who muted themself, event.NotFound for who is not on stage. A host's mute outlasts leaving and coming back.
func (s *Stage) Mute(ctx context.Context, id string, by MuteBy, muted bool) error {
	return s.do(ctx, "mute", func() error { return s.mute(id, by, muted) })
}

// Remove ends a member's connection and place, and takes their hand down. event.NotFound if there is neither.
func (s *Stage) Remove(ctx context.Context, id string) error {
	return s.do(ctx, "remove", func() error { return s.remove(id) })
}

// Ban takes everybody whom b means off the stage, and their hands down, and lets them neither join nor raise a hand until Unban. Who is
// banned when the stage begins, Config says.
func (s *Stage) Ban(ctx context.Context, b event.Banned) error {
	return s.do(ctx, "ban", func() error { s.ban(b); return nil })
}

// Unban takes a ban back. One that is not there is taken back already.
func (s *Stage) Unban(ctx context.Context, personID string) error {
	return s.do(ctx, "unban", func() error { s.roll.Unban(personID); return nil })
}

// Turn applies a phase that the store has already. Live opens the programme with the next frame. Ended and Cancelled make a
// last frame with the closing cues, close the timeline, tell the outlets Ended, and let Run return. The
// stage's own phase again is no error; event.Conflict if the phase may not follow.
func (s *Stage) Turn(ctx context.Context, phase event.Phase, at time.Time) error {
	return s.do(ctx, "turn", func() error { return s.turn(phase, at) })
}

// Finish stops the stage in order while the event goes on elsewhere or later: a last frame with a notice, the timeline closed,
// the outlets told r. backIn, if positive, is what listeners are told about when to come back, in whole seconds, rounded up.
func (s *Stage) Finish(ctx context.Context, r Reason, backIn time.Duration) error {
	return s.do(ctx, "finish", func() error { return s.finish(r, backIn) })
}

// Notice places a notice cue at the next frame. backIn is in seconds; 0 says nothing about it. event.Invalid for a text of more
// than maxNoticeText characters, event.Busy if too many wait.
func (s *Stage) Notice(ctx context.Context, code, text string, backIn int) error {
	code, err := event.CleanLine("code", code, event.MaxName)
	if err != nil {
		return err
	}
	if text, err = event.CleanText("text", text, maxNoticeText); err != nil {
		return err
	}
	return s.do(ctx, "notice", func() error { return s.notice(notice{Code: code, Text: text, BackIn: max(0, backIn)}) })
}

// Amend takes over what may be changed of an open event and matters here: Start and IdleEnd.
func (s *Stage) Amend(ctx context.Context, ev event.Event) error {
	return s.do(ctx, "amend", func() error {
		s.start = ev.Start
		s.setIdleEnd(ev.IdleEnd, s.idleEnd)
		return nil
	})
}

// checkPerson bounds what goes into each State and cue. Names were cleaned where they came in.
func checkPerson(p event.Person) error {
	switch {
	case p.ID == "" || len(p.ID) > maxID:
		return event.Invalid("person", "This person has no usable ID.")
	case utf8.RuneCountInString(p.Name) > event.MaxName:
		return event.Invalid("name", "This name is too long.")
	}
	return nil
}

func (s *Stage) turn(phase event.Phase, at time.Time) error {
	if phase == s.phase {
		return nil // told twice, by whoever asked and by whoever watches the store
	}
	if err := s.phase.Turn(phase); err != nil {
		return err
	}
	s.phase, s.dirty = phase, true
	switch {
	case phase == event.Live:
		s.liveAt, s.liveFrame = at, s.next
		if !s.idleSince.IsZero() {
			s.idleSince = time.Now() // waiting in the doors was not idling
		}
	case phase.Over():
		text := "The event has ended."
		if phase == event.Cancelled {
			text = "The event was cancelled."
		}
		s.cues.notices = append(s.cues.notices, notice{Code: "ended", Text: text})
		s.end(time.Now(), Ended)
	}
	return nil
}

func (s *Stage) finish(r Reason, backIn time.Duration) error {
	n := notice{Code: string(r), Text: "The server restarts. The event goes on in a moment."}
	if r == Ended {
		n.Text = "The event has ended."
	}
	n.BackIn = int(max(0, (backIn+time.Second-1)/time.Second))
	s.cues.notices = append(s.cues.notices, n)
	s.end(time.Now(), r)
	return nil
}

func (s *Stage) notice(n notice) error {
	if len(s.cues.notices) >= maxNotices {
		return event.Busy("Too many notices at once. Try again in a moment.")
	}
	s.cues.notices = append(s.cues.notices, n)
	return nil
}
