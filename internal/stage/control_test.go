package stage_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"earshot/internal/event"
	"earshot/internal/stage"
	"earshot/internal/timeline"
)

func TestAHandIsRaisedAdmittedAndUsedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ctx := open(t), t.Context()
		_, err := h.st.Join(ctx, cy, newListener(t), true)
		refused(t, err, event.CodeForbidden)
		refused(t, h.st.RaiseHand(ctx, bo, false), event.CodeConflict) // may speak anyway
		refused(t, h.st.RaiseHand(ctx, event.Person{ID: "p_x", Role: event.Moderator}, false), event.CodeForbidden)
		refused(t, h.st.RaiseHand(ctx, event.Person{Role: event.Listener}, false), event.CodeInvalid)
		refused(t, h.st.Admit(ctx, cy.ID), event.CodeNotFound)
		refused(t, h.st.LowerHand(ctx, cy.ID), event.CodeNotFound)

		since := time.Now()
		h.must(h.st.RaiseHand(ctx, cy, false))
		if !h.st.Has(cy.ID) {
			t.Error("a hand is up, and Has does not know")
		}
		_, err = h.st.Join(ctx, cy, newListener(t), true)
		refused(t, err, event.CodeForbidden)
		pass(time.Second)
		renamed := cy
		renamed.Name = "Cyd"
		h.must(h.st.RaiseHand(ctx, renamed, false)) // again
		want := []stage.Hand{{ID: cy.ID, Name: "Cyd", Since: since.UTC()}}
		if got := h.st.State().Hands; !slices.Equal(got, want) {
			t.Errorf("hands %+v, want %+v", got, want)
		}
		h.must(h.st.LowerHand(ctx, cy.ID))
		if h.st.Has(cy.ID) || len(h.st.State().Hands) != 0 {
			t.Error("lowered, and still up")
		}

		h.must(h.st.RaiseHand(ctx, cy, false))
		h.must(h.st.Admit(ctx, cy.ID))
		h.must(h.st.Admit(ctx, cy.ID))
		if got := h.st.State().Hands; len(got) != 1 || !got[0].Admitted {
			t.Errorf("hands %+v", got)
		}
		seat, l := h.silent(cy, true)
		if st := h.st.State(); len(st.Hands) != 0 || len(st.People) != 1 || st.People[0].Role != event.Listener {
			t.Errorf("state %+v", st)
		}
		refused(t, h.st.RaiseHand(ctx, cy, false), event.CodeConflict)
		// While the place is theirs, a lost connection needs no new hand.
		seat.Lost()
		pass(10 * time.Second)
		_, l2 := h.silent(cy, true)
		h.must(h.st.Remove(ctx, cy.ID))
		pass(20 * time.Millisecond)
		if l.why() != stage.Lost || l2.why() != stage.Removed {
			t.Errorf("outlets were told %q and %q", l.why(), l2.why())
		}
		_, err = h.st.Join(ctx, cy, newListener(t), true)
		refused(t, err, event.CodeForbidden)
		refused(t, h.st.Remove(ctx, cy.ID), event.CodeNotFound)
		h.must(h.st.RaiseHand(ctx, cy, false))
		h.must(h.st.Remove(ctx, cy.ID)) // takes the hand down
		if h.st.Has(cy.ID) {
			t.Error("removed, and still there")
		}
		// A speaker's invite lets them come back.
		_, _ = h.silent(bo, false)
		h.must(h.st.Remove(ctx, bo.ID))
		_, _ = h.silent(bo, false)
		h.end()
	})
}

func TestWhoMayMuteWhom(t *testing.T) {
	type step struct {
		by    stage.MuteBy
		muted bool
		err   event.Code
		want  stage.MuteBy
	}
	for name, steps := range map[string][]step{
		"oneself":                     {{stage.BySelf, true, "", "self"}, {stage.BySelf, true, "", "self"}, {stage.BySelf, false, "", ""}},
		"a host alone undoes a host":  {{stage.ByHost, true, "", "host"}, {stage.BySelf, false, "forbidden", "host"}, {stage.ByHost, false, "", ""}},
		"a host opens no microphone":  {{stage.BySelf, true, "", "self"}, {stage.ByHost, false, "conflict", "self"}},
		"both, and the host lets go":  {{stage.BySelf, true, "", "self"}, {stage.ByHost, true, "", "host"}, {stage.ByHost, false, "", "self"}, {stage.BySelf, false, "", ""}},
		"oneself under a host's mute": {{stage.ByHost, true, "", "host"}, {stage.BySelf, true, "", "host"}, {stage.ByHost, false, "", "self"}},
		"unmuting who is not muted":   {{stage.BySelf, false, "", ""}, {stage.ByHost, false, "", ""}},
		"nobody in particular":        {{"", true, "invalid", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := open(t)
				refused(t, h.st.Mute(t.Context(), bo.ID, stage.BySelf, true), event.CodeNotFound)
				_, _ = h.silent(bo, false)
				for i, s := range steps {
					err := h.st.Mute(t.Context(), bo.ID, s.by, s.muted)
					if s.err != "" {
						refused(t, err, s.err)
					} else if err != nil {
						t.Errorf("step %d: %v", i, err)
					}
					if p, _ := h.person(bo.ID); p.Muted != s.want {
						t.Errorf("step %d: muted %q, want %q", i, p.Muted, s.want)
					}
				}
				h.end()
			})
		})
	}
}

func TestTheStageHoldsFiftyVoices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t)
		for i := range stage.MaxVoices {
			_, _ = h.silent(event.Person{ID: fmt.Sprint("p_", i), Name: "N", Role: event.Speaker}, false)
		}
		late := event.Person{ID: "late", Name: "N", Role: event.Speaker}
		_, err := h.st.Join(t.Context(), late, newListener(t), true)
		refused(t, err, event.CodeBusy)
		// Who has a place may always come again.
		_, _ = h.silent(event.Person{ID: "p_7", Name: "N", Role: event.Speaker}, false)
		h.must(h.st.Remove(t.Context(), "p_3"))
		_, _ = h.silent(late, false)
		if got := h.ids(); len(got) != stage.MaxVoices || got[3] != "p_4" || last(got) != late.ID {
			t.Errorf("people %v", got)
		}
		// Hosts still come in, a few.
		for i := range stage.HostVoices {
			_, _ = h.silent(event.Person{ID: fmt.Sprint("host_", i), Name: "N", Role: event.Host}, false)
		}
		_, err = h.st.Join(t.Context(), ada, newListener(t), true)
		refused(t, err, event.CodeBusy)
		for i := range stage.HostVoices {
			h.must(h.st.Remove(t.Context(), fmt.Sprint("host_", i)))
		}
		for i := range stage.MaxHands {
			h.must(h.st.RaiseHand(t.Context(), event.Person{ID: fmt.Sprint("l_", i), Role: event.Listener}, false))
		}
		refused(t, h.st.RaiseHand(t.Context(), cy, false), event.CodeBusy)
		st := h.st.Stats()
		if st.People != stage.MaxVoices || st.Connected != stage.MaxVoices || st.Hands != stage.MaxHands {
			t.Errorf("stats %+v", st)
		}
		h.end()
	})
}

func TestTheEndClosesEverything(t *testing.T) {
	for _, phase := range []event.Phase{event.Ended, event.Cancelled} {
		t.Run(string(phase), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := open(t)
				_, l := h.silent(ada, true)
				mon := newListener(t)
				_, err := h.st.Monitor(t.Context(), ada.ID, mon)
				h.must(err)
				pass(410 * time.Millisecond)
				changed, levels := h.st.Changed(), h.st.LevelsChanged()
				h.must(h.st.Turn(t.Context(), phase, time.Now()))
				if !h.tl.Closed() || !h.tl.Ended() {
					t.Error("Turn is done, and the timeline goes on")
				}
				h.must(h.wait())
				<-changed
				if l.why() != stage.Ended || mon.why() != stage.Ended {
					t.Errorf("told %q and %q", l.why(), mon.why())
				}
				st := h.st.State()
				if st.Phase != phase || len(st.People) != 0 || st.People == nil || st.Hands == nil {
					t.Errorf("state %+v", st)
				}
				cues := h.cues("")
				end := cues[len(cues)-2:]
				if end[0].Kind != "stage" || read[stageCue](t, end[0]).Phase != phase || end[0].Frame != h.tl.Head()-1 {
					t.Errorf("last stage cue %+v %s", end[0], end[0].Data)
				}
				note := read[map[string]any](t, end[1])
				if end[1].Kind != "notice" || note["code"] != "ended" || note["back_in_s"] != nil {
					t.Errorf("last cue %+v %s", end[1], end[1].Data)
				}
				_, err = h.st.Join(t.Context(), ada, l, true)
				refused(t, err, event.CodeConflict)
				refused(t, h.st.RaiseHand(t.Context(), cy, false), event.CodeConflict)
				select {
				case <-levels:
					t.Error("levels after the end")
				default:
				}
				if err := h.st.Run(t.Context()); err == nil {
					t.Error("it ran twice")
				}
			})
		})
	}
}

func TestPhasesFollowTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t)
		refused(t, h.st.Turn(t.Context(), event.Scheduled, time.Now()), event.CodeConflict)
		h.must(h.st.Turn(t.Context(), event.Live, time.Now()))
		at := h.st.State().LiveAt
		pass(time.Second)
		h.must(h.st.Turn(t.Context(), event.Live, time.Now())) // told twice
		if !h.st.State().LiveAt.Equal(at) {
			t.Error("it went live a second time")
		}
		refused(t, h.st.Turn(t.Context(), event.Doors, time.Now()), event.CodeConflict)
		refused(t, h.st.Turn(t.Context(), event.Cancelled, time.Now()), event.CodeConflict)
		h.end()
	})
	if _, err := stage.New(stage.Config{Event: event.Event{Phase: event.Scheduled}}); event.CodeOf(err) != event.CodeConflict {
		t.Errorf("a stage before the doors: %v", err)
	}
}

func TestFinishTellsWhenToComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t, live)
		_, l := h.silent(ada, true)
		pass(250 * time.Millisecond)
		h.must(h.st.Finish(t.Context(), stage.Restart, 4200*time.Millisecond))
		h.must(h.wait())
		if !h.tl.Closed() || h.tl.Ended() {
			t.Error("a restart closes the timeline, and does not end it")
		}
		note := last(h.cues("notice"))
		if got := read[map[string]any](t, note); got["code"] != "restart" || got["back_in_s"] != 5.0 || got["text"] == "" {
			t.Errorf("notice %s", note.Data)
		}
		if cue := read[stageCue](t, last(h.cues("stage"))); cue.Phase != event.Live {
			t.Errorf("phase %s", cue.Phase)
		}
		if l.why() != stage.Restart {
			t.Errorf("told %q", l.why())
		}
		_, err := h.st.Join(t.Context(), ada, l, true)
		refused(t, err, event.CodeUnavailable)
		if h.st.State().Phase != event.Live {
			t.Error("the phase changed")
		}
	})
}

func TestACommandIsDoneOrNotAtAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Not run yet, the stage answers nobody: its queue fills up.
		h := prepare(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		errs := make(chan error, 200)
		for i := range 100 {
			go func() {
				errs <- h.st.RaiseHand(ctx, event.Person{ID: fmt.Sprint("late_", i), Role: event.Listener}, false)
			}()
		}
		began := time.Now()
		for range 100 {
			err := <-errs
			refused(t, err, event.CodeUnavailable)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		}
		if d := time.Since(began); d != time.Second {
			t.Errorf("gave up after %v", d)
		}
		refused(t, h.st.RaiseHand(ctx, cy, false), event.CodeUnavailable)
		out := newListener(t)
		_, err := h.st.Join(ctx, ada, out, true)
		refused(t, err, event.CodeUnavailable)
		go func() { errs <- h.st.RaiseHand(t.Context(), event.Person{ID: "patient", Role: event.Listener}, false) }()
		synctest.Wait()
		h.run(t.Context())
		h.must(<-errs)
		if st := h.st.State(); len(st.Hands) != 1 || st.Hands[0].ID != "patient" || len(st.People) != 0 {
			t.Errorf("state %+v", st)
		}
		h.end()
		if out.why() != "" {
			t.Error("an outlet that never joined was closed")
		}
	})
}

func TestARunThatIsCancelledLeavesTheTimeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := prepare(t)
		ctx, cancel := context.WithCancel(t.Context())
		h.run(ctx)
		_, l := h.silent(ada, true)
		pass(time.Second)
		cancel()
		if err := h.wait(); !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
		if l.why() != stage.Restart || h.tl.Closed() {
			t.Errorf("told %q, timeline closed %v", l.why(), h.tl.Closed())
		}
		refused(t, h.st.Remove(t.Context(), ada.ID), event.CodeUnavailable)
	})
}

func TestANewerEpochStopsTheStage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t)
		_, l := h.silent(ada, true)
		pass(time.Second + 10*time.Millisecond)
		f, err := h.tl.Frame(0)
		h.must(err)
		h.must(h.tl.Append(timeline.Frame{Number: 200, Epoch: 2, Packet: f.Packet}))
		if err := h.wait(); !errors.Is(err, timeline.ErrStale) {
			t.Errorf("Run: %v", err)
		}
		if l.why() != stage.Restart {
			t.Errorf("told %q", l.why())
		}
	})
}

func TestAnEmptyStageSaysSo(t *testing.T) {
	idle := func(d time.Duration, told *atomic.Int32) func(*stage.Config) {
		return func(c *stage.Config) {
			c.IdleEnd = d
			c.OnIdle = func() { told.Add(1) }
		}
	}
	t.Run("live", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var told atomic.Int32
			h := open(t, live, idle(10*time.Second, &told))
			seat, _ := h.silent(ada, false)
			pass(15 * time.Second)
			if told.Load() != 0 {
				t.Fatal("idle with somebody on stage")
			}
			seat.Lost() // keeps the place, but nobody is there
			pass(9 * time.Second)
			if told.Load() != 0 {
				t.Fatal("idle too early")
			}
			pass(2 * time.Second)
			if told.Load() != 1 {
				t.Fatal("idle, and nobody was told")
			}
			pass(15 * time.Second)
			if told.Load() != 1 {
				t.Errorf("told %d times", told.Load())
			}
			// Who was told may have been too late to end the event before somebody came; then it is a new wait.
			seat, _ = h.silent(ada, false)
			pass(time.Second)
			seat.Leave(stage.Left)
			pass(9 * time.Second)
			if told.Load() != 1 {
				t.Error("idle again too early")
			}
			pass(2 * time.Second)
			if told.Load() != 2 {
				t.Error("idle again, and nobody was told")
			}
			h.end()
		})
	})
	t.Run("nobody has to be early", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var told atomic.Int32
			h := open(t, idle(10*time.Second, &told), func(c *stage.Config) { c.Event.Start = time.Now().Add(15 * time.Second) })
			pass(23 * time.Second)
			if told.Load() != 0 {
				t.Fatal("idle too soon after the start")
			}
			// Going live by itself begins the wait anew, and so does moving the start.
			h.must(h.st.Turn(t.Context(), event.Live, time.Now()))
			pass(9 * time.Second)
			if told.Load() != 0 {
				t.Fatal("idle too soon after going live")
			}
			pass(2 * time.Second)
			if told.Load() != 1 {
				t.Fatal("idle, and nobody was told")
			}
			h.end()
		})
	})
	t.Run("amended", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var told atomic.Int32
			h := open(t, idle(10*time.Second, &told))
			pass(5 * time.Second)
			h.must(h.st.Amend(t.Context(), event.Event{Start: time.Now(), IdleEnd: 15 * time.Second}))
			pass(14 * time.Second)
			if told.Load() != 0 {
				t.Fatal("idle too early")
			}
			pass(2 * time.Second)
			if told.Load() != 1 {
				t.Fatal("idle, and nobody was told")
			}
			h.end()
		})
	})
	t.Run("and may be ended from there", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var h *house
			done := make(chan error, 1)
			h = prepare(t, func(c *stage.Config) {
				c.IdleEnd = 10 * time.Second
				c.OnIdle = func() {
					err := h.st.Turn(context.Background(), event.Ended, time.Now())
					done <- errors.Join(err, <-h.ran) // waits for Run, too
				}
			})
			h.run(t.Context())
			h.must(<-done)
		})
	})
}
