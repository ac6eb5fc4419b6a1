package event

import (
	"slices"
	"time"
)

// MaxUses bounds how many may open one invite, where that is bounded at all: each of them is remembered in its record.
const MaxUses = 1000

// Invite lets whoever holds its secret take a role in one event. The secret itself is never stored.
type Invite struct {
	ID      string    `json:"id"`
	Event   string    `json:"event"` // Event.ID
	Role    Role      `json:"role"`
	Label   string    `json:"label"` // for whom, in the host's words
	Hash    string    `json:"hash"`  // SHA-256 of the secret, hex
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"` // never, if zero
	Revoked bool      `json:"revoked,omitempty"`

	// Uses is how many browsers and programs may open it, at most MaxUses; 0 is any number, and they are not counted. Takers are
	// those who did, by names that nobody can tell them by: who opened it once may do so again.
	Uses   int      `json:"uses,omitempty"`
	Takers []string `json:"takers,omitempty"`
}

// Usable says whether the invite opens anything at t, to those who may use it.
func (i Invite) Usable(t time.Time) bool {
	return !i.Revoked && (i.Expires.IsZero() || t.Before(i.Expires))
}

// Open says whether the invite may be opened by who: because they did before, or because a use is left.
func (i Invite) Open(who string) bool { return i.Uses == 0 || i.Took(who) || len(i.Takers) < i.Uses }

// Took says whether who has one of the uses.
func (i Invite) Took(who string) bool { return slices.Contains(i.Takers, who) }

// Take gives who a use, and says whether they have one: false if none was left. It changes no slice that another copy shares.
func (i *Invite) Take(who string) bool {
	switch {
	case i.Uses == 0 || i.Took(who):
		return true
	case len(i.Takers) >= i.Uses:
		return false
	}
	i.Takers = append(slices.Clip(i.Takers), who)
	return true
}

// GiveBack takes back the use that who has, if any.
func (i *Invite) GiveBack(who string) {
	i.Takers = slices.DeleteFunc(slices.Clone(i.Takers), func(o string) bool { return o == who })
}
