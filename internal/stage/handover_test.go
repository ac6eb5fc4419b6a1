package stage_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"earshot/internal/event"
	"earshot/internal/stage"
)

var di = event.Person{ID: "p_di", Name: "Di", Role: event.Cohost}

// heirs collects who was to follow, and lets them, as a house does once the store has it.
func heirs(asked chan stage.Handover) func(*stage.Config) {
	return func(c *stage.Config) { c.OnHostLost = func(h stage.Handover) { asked <- h } }
}

func (h *house) role(id string) event.Role {
	p, _ := h.person(id)
	return p.Role
}

func TestAHostWhoIsLostIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := make(chan stage.Handover, 9)
		h := open(t, live, heirs(asked))
		host, _ := h.silent(ada, false)
		_, _ = h.silent(bo, false)
		first, _ := h.silent(di, false)
		second, _ := h.silent(event.Person{ID: "p_el", Name: "El", Role: event.Cohost}, false)

		// Back in time, nothing happens.
		since := time.Now()
		host.Lost()
		pass(40 * time.Second)
		if got := h.st.State().HostLost; got.Sub(since).Abs() > time.Second {
			t.Errorf("the state says lost since %v, want %v", got, since)
		}
		host, _ = h.silent(ada, false)
		pass(40 * time.Second)
		if len(asked) != 0 || !h.st.State().HostLost.IsZero() {
			t.Fatal("the host was back, and is followed")
		}

		// Lost for a minute, the co-host follows who came first of those who are connected.
		host.Lost()
		pass(20 * time.Second)
		first.Lost()
		pass(39 * time.Second)
		if len(asked) != 0 {
			t.Fatal("followed too soon")
		}
		pass(2 * time.Second)
		want := stage.Handover{From: ada.ID, To: "p_el", Lost: true}
		if got := <-asked; got != want {
			t.Fatalf("asked for %+v", got)
		}
		// Nothing came of it: asked again, not at each frame.
		pass(8 * time.Second)
		if len(asked) != 0 {
			t.Fatal("asked again at once")
		}
		pass(3 * time.Second)
		h.must(h.st.HandOver(t.Context(), <-asked))
		pass(time.Second)
		if h.role("p_el") != event.Host || !h.st.State().HostLost.IsZero() {
			t.Errorf("state %+v", h.st.State())
		}
		if note := read[map[string]any](t, last(h.cues("notice"))); note["code"] != "host" || !strings.Contains(note["text"].(string), "El is the host now") {
			t.Errorf("notice %v", note)
		}
		cue := read[stageCue](t, last(h.cues("stage")))
		if p := cue.People[len(cue.People)-1]; p.ID != "p_el" || p.Role != event.Host {
			t.Errorf("stage cue %+v", cue)
		}
		// Who comes back is what the store says: co-host. That asks for nobody.
		back := ada
		back.Role = event.Cohost
		_, _ = h.silent(back, false)
		pass(65 * time.Second)
		if len(asked) != 0 || h.role(ada.ID) != event.Cohost {
			t.Error("followed again")
		}
		// The new host is followed in turn.
		second.Lost()
		pass(61 * time.Second)
		if got := <-asked; got != (stage.Handover{From: "p_el", To: ada.ID, Lost: true}) {
			t.Errorf("asked for %+v", got)
		}
		h.end()
	})
}

func TestWhoIsNotFollowed(t *testing.T) {
	for name, c := range map[string]struct {
		live bool
		do   func(h *house, host *stage.Seat)
	}{
		"a host who leaves": {true, func(_ *house, host *stage.Seat) { host.Leave(stage.Left) }},
		"one of two hosts": {true, func(h *house, host *stage.Seat) {
			_, _ = h.silent(event.Person{ID: "p_2", Role: event.Host}, false)
			host.Lost()
		}},
		"a speaker":                     {true, func(h *house, _ *stage.Seat) { s, _ := h.silent(bo, false); s.Lost() }},
		"a host before the event is on": {false, func(_ *house, host *stage.Seat) { host.Lost() }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := make(chan stage.Handover, 9)
				change := []func(*stage.Config){heirs(asked)}
				if c.live {
					change = append(change, live)
				}
				h := open(t, change...)
				host, _ := h.silent(ada, false)
				_, _ = h.silent(di, false)
				c.do(h, host)
				pass(65 * time.Second)
				if len(asked) != 0 {
					t.Errorf("asked for %+v", <-asked)
				}
				if !c.live { // but once it is, at once
					h.must(h.st.Turn(t.Context(), event.Live, time.Now()))
					pass(time.Second)
					if len(asked) != 1 {
						t.Error("going live without the host, and nobody follows")
					}
				}
				h.end()
			})
		})
	}
}

// A host without a co-host is waited for, and whoever becomes co-host then follows.
func TestAHeirMayComeLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := make(chan stage.Handover, 9)
		h := open(t, live, heirs(asked))
		host, _ := h.silent(ada, false)
		_, _ = h.silent(bo, false)
		host.Lost()
		pass(70 * time.Second)
		if len(asked) != 0 {
			t.Fatal("a speaker follows")
		}
		_, _ = h.silent(di, false)
		pass(time.Second)
		if got := <-asked; got.To != di.ID {
			t.Errorf("asked for %+v", got)
		}
		h.end()
	})
}

func TestTheHostGivesTheRoleAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t)
		_, _ = h.silent(ada, false)
		_, _ = h.silent(bo, false)
		h.must(h.st.HandOver(t.Context(), stage.Handover{From: ada.ID, To: bo.ID}))
		if h.role(ada.ID) != event.Cohost || h.role(bo.ID) != event.Host {
			t.Errorf("state %+v", h.st.State())
		}
		pass(time.Second)
		if note := read[map[string]any](t, last(h.cues("notice"))); note["code"] != "host" || note["text"] != "Bo is the host now." {
			t.Errorf("notice %v", note)
		}
		h.must(h.st.HandOver(t.Context(), stage.Handover{To: ada.ID})) // the operator
		if h.role(ada.ID) != event.Host || h.role(bo.ID) != event.Host {
			t.Errorf("state %+v", h.st.State())
		}
		h.must(h.st.HandOver(t.Context(), stage.Handover{From: ada.ID, To: "p_gone"}))
		if h.role(ada.ID) != event.Cohost {
			t.Errorf("state %+v", h.st.State())
		}
		h.end()
	})
}

func TestABanIsForTheEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, ctx := open(t, func(c *stage.Config) { c.Banned = []event.Banned{{Person: "p_old"}} }), t.Context()
		_, err := h.st.Join(ctx, event.Person{ID: "p_old", Role: event.Host}, newListener(t), true)
		refused(t, err, event.CodeForbidden)
		_, l := h.silent(bo, true)
		h.must(h.st.RaiseHand(ctx, cy, false))
		h.must(h.st.Ban(ctx, event.Banned{Person: bo.ID}))
		h.must(h.st.Ban(ctx, event.Banned{Person: "p_c1", Link: "p_c"})) // and all whose IDs begin so
		pass(20 * time.Millisecond)
		if l.why() != stage.Removed || h.st.Has(bo.ID) || h.st.Has(cy.ID) {
			t.Errorf("told %q; state %+v", l.why(), h.st.State())
		}
		_, err = h.st.Join(ctx, bo, newListener(t), true)
		refused(t, err, event.CodeForbidden)
		refused(t, h.st.RaiseHand(ctx, cy, false), event.CodeForbidden)
		h.must(h.st.Unban(ctx, bo.ID))
		h.must(h.st.Unban(ctx, "p_nobody"))
		_, _ = h.silent(bo, false)
		refused(t, h.st.RaiseHand(ctx, cy, false), event.CodeForbidden)
		h.end()
	})
}
