package event_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"earshot/internal/event"
)

// TestWhatEachMayDo is the table once more, by hand and by columns, so that a right is given on purpose or not at all.
func TestWhatEachMayDo(t *testing.T) {
	roles := []event.Role{
		event.Operator, event.Host, event.Cohost, event.Producer, event.Moderator, event.Speaker, event.Interpreter, event.Listener, event.Stranger,
	}
	for action, want := range map[event.Action]string{ // operator, host, co-host, producer, moderator, speaker, interpreter, listener, stranger
		event.Operate:      "O........",
		event.Steer:        "OHCP.....",
		event.Change:       "OHCP.....",
		event.InviteOthers: "OHCPM....",
		event.HandOver:     "OH.......",
		event.Admit:        "OHCPM....",
		event.Mute:         "OHCPM....",
		event.Remove:       "OHCPM....",
		event.Ban:          "OHCPM....",
		event.See:          "OHCPM....",
		event.Speak:        ".HC..SI..",
		event.Monitor:      ".........",
		event.RaiseHand:    ".......LX",
	} {
		var got strings.Builder
		for i, r := range roles {
			if r.May(action) {
				got.WriteByte("OHCPMSILX"[i])
			} else {
				got.WriteByte('.')
			}
			if (event.Standing{Role: r}).May(action) != r.May(action) || slices.Contains(event.Holders(action), r) != r.May(action) {
				t.Errorf("%s %s: standing nowhere changes what a role may do", r, action)
			}
		}
		if got.String() != want {
			t.Errorf("%-10s %s, want %s", action, got.String(), want)
		}
	}
	if n := len(event.Actions()); n != 13 {
		t.Errorf("%d actions", n)
	}
	if event.Role("king").May(event.See) {
		t.Error("an unknown role may see the stage")
	}
}

// TestStanding: what being on stage, or having a hand up, adds and takes.
func TestStanding(t *testing.T) {
	for _, c := range []struct {
		at   event.Standing
		want string
	}{
		{event.Standing{Role: event.Listener}, "[raise_hand]"},
		{event.Standing{Role: event.Listener, Hand: true}, "[see raise_hand]"},
		{event.Standing{Role: event.Listener, Hand: true, Admitted: true}, "[see speak raise_hand]"},
		{event.Standing{Role: event.Listener, OnStage: true}, "[see speak monitor]"},
		{event.Standing{Role: event.Listener, Admitted: true}, "[raise_hand]"}, // not without a hand
		{event.Standing{Role: event.Speaker}, "[speak]"},
		{event.Standing{Role: event.Speaker, OnStage: true}, "[see speak monitor]"},
		{event.Standing{Role: event.Moderator}, "[invite admit mute remove ban see]"},
		{event.Standing{Role: event.Host, OnStage: true}, "[steer change invite hand_over admit mute remove ban see speak monitor]"},
	} {
		if got := fmt.Sprint(c.at.Actions()); got != c.want {
			t.Errorf("%+v: %s, want %s", c.at, got, c.want)
		}
	}
}

// TestOver: nobody reaches those who may do more than they.
func TestOver(t *testing.T) {
	roles := []event.Role{event.Operator, event.Host, event.Cohost, event.Producer, event.Moderator, event.Speaker, event.Listener}
	for i, want := range []string{"OHCPMSL", ".HCPMSL", "..CPMSL", "..CPMSL", "....MSL", ".....SL", ".....SL"} {
		var got strings.Builder
		for j, o := range roles {
			if roles[i].Over(o) {
				got.WriteByte("OHCPMSL"[j])
			} else {
				got.WriteByte('.')
			}
		}
		if got.String() != want {
			t.Errorf("%s over %s, want %s", roles[i], got.String(), want)
		}
	}
}
