package app

import (
	"slices"
	"testing"
	"time"

	"earshot/internal/event"
	"earshot/internal/stage"
)

// mute is an outlet that hears nothing.
type mute struct{}

func (mute) Hear(uint64, []byte) {}
func (mute) Close(stage.Reason)  {}

// TestWhatWasDecidedOutlivesTheStage: a co-host follows a host who was lost in the store first and on the stage after, and a stage that
// opens anew knows who is banned.
func TestWhatWasDecidedOutlivesTheStage(t *testing.T) {
	h, store, _ := testHouse(t)
	ctx := t.Context()
	ev := event.Event{ID: "ev_1", Slug: "people", Phase: event.Live, Origin: time.Now(), LiveAt: time.Now(), Start: time.Now(), IdleEnd: event.MaxIdleEnd}
	r, err := h.openRoom(ctx, ev, 0, func() {})
	if err != nil {
		t.Fatal(err)
	}
	var seats []*stage.Seat
	for _, p := range []event.Person{{ID: "p_host", Name: "Ada", Role: event.Host}, {ID: "p_co", Name: "Di", Role: event.Cohost}} {
		seat, err := r.stage.Join(ctx, p, mute{}, false)
		if err != nil {
			t.Fatal(err)
		}
		seats = append(seats, seat)
	}
	seats[0].Lost()
	for began := time.Now(); r.stage.State().HostLost.IsZero(); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			t.Fatal("the host is not missed")
		}
	}
	for range 3 { // the stage asks again while nothing came of it, and must not wait for anybody
		r.wish(stage.Handover{From: "p_host", To: "p_co", Lost: true})
	}
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		people := r.stage.State().People
		if people[0].Role == event.Cohost && people[1].Role == event.Host {
			break
		}
		if time.Since(began) > 10*time.Second {
			t.Fatalf("nobody follows: %+v", people)
		}
	}
	roll, err := store.Roll(ctx, ev.ID)
	if err != nil || roll.Roles["p_host"] != event.Cohost || roll.Roles["p_co"] != event.Host {
		t.Errorf("the store has %+v, %v", roll, err)
	}
	if _, err := store.UpdateRoll(ctx, ev.ID, func(r *event.Roll) error { return r.Ban(event.Banned{Person: "p_bad"}) }); err != nil {
		t.Fatal(err)
	}
	r.close(ctx)
	if r, err = h.openRoom(ctx, ev, r.head(), func() {}); err != nil {
		t.Fatal(err)
	}
	defer r.close(ctx)
	if _, err := r.stage.Join(ctx, event.Person{ID: "p_bad", Role: event.Speaker}, mute{}, false); event.CodeOf(err) != event.CodeForbidden {
		t.Errorf("somebody who is banned joins: %v", err)
	}
	if slices.ContainsFunc(r.stage.State().People, func(p stage.Person) bool { return p.ID == "p_bad" }) {
		t.Error("and is there")
	}
}
