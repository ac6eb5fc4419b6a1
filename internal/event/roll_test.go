package event_test

import (
	"fmt"
	"testing"

	"earshot/internal/event"
)

func TestRoll(t *testing.T) {
	var r event.Roll
	for range 2 { // a ban that is there is renewed
		if err := r.Ban(event.Banned{Person: "p_bo", Name: "Bo"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Ban(event.Banned{Person: "p_abcdefgh0x", Link: "p_abcdefgh0"}); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]bool{"p_bo": true, "p_bob": false, "": false, "p_abcdefgh0y": true, "p_abcdefghzz": false} {
		if r.Bans(id) != want {
			t.Errorf("bans %q: %v", id, !want)
		}
	}
	before := r.Clone()
	if !r.Unban("p_bo") || r.Unban("p_bo") || r.Bans("p_bo") || !before.Bans("p_bo") || len(before.Banned) != 2 {
		t.Errorf("%+v, before %+v", r, before)
	}
	ada := event.Person{ID: "p_ada", Role: event.Host}
	if r.RoleOf(ada) != event.Host {
		t.Error("nobody took the role")
	}
	before = r.Clone()
	r.Give(ada.ID, event.Cohost)
	if r.RoleOf(ada) != event.Cohost || before.RoleOf(ada) != event.Host {
		t.Errorf("%+v, before %+v", r, before)
	}
	for n := len(r.Banned); n < event.MaxBans; n++ {
		if err := r.Ban(event.Banned{Person: fmt.Sprint(n)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Ban(event.Banned{Person: "one more"}); event.CodeOf(err) != event.CodeConflict {
		t.Error(err)
	}
}

func TestUses(t *testing.T) {
	i := event.Invite{Uses: 2}
	for range 2 {
		if !i.Take("a") {
			t.Error("who has a use is refused")
		}
	}
	held := i
	if !i.Take("b") || i.Take("c") || i.Open("c") || !i.Open("a") || len(held.Takers) != 1 {
		t.Errorf("%+v, before %+v", i, held)
	}
	held = i
	i.GiveBack("a")
	i.GiveBack("nobody")
	if i.Took("a") || !i.Open("c") || !held.Took("a") {
		t.Errorf("%+v, before %+v", i, held)
	}
	if any := (event.Invite{}); !any.Take("x") || len(any.Takers) != 0 {
		t.Error("uses without a number are counted")
	}
}
