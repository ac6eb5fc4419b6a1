package event

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// MaxBans bounds the bans of one event, which are one record.
const MaxBans = 500

// Roll is what was decided about the people of one event beyond what their links say. A copy from the store is read only.
type Roll struct {
	Banned []Banned        `json:"banned,omitempty"`
	Roles  map[string]Role `json:"roles,omitempty"` // by Person.ID: of those who were given another role than their link's
}

// Banned is somebody who may not come back to an event.
type Banned struct {
	Person string    `json:"person"` // Person.ID
	Name   string    `json:"name"`
	Role   Role      `json:"role"`
	At     time.Time `json:"at"`
	// Link is how the IDs of all begin who come by the same link, where nobody but this person can have come by it. Else it is empty,
	// and the ban is that of one ID.
	Link string `json:"link,omitempty"`
}

// Means says whether the ban is of the person with this ID.
func (b Banned) Means(id string) bool {
	return id == b.Person || b.Link != "" && strings.HasPrefix(id, b.Link)
}

// Bans says whether the person with this ID is banned.
func (r Roll) Bans(id string) bool {
	return slices.ContainsFunc(r.Banned, func(b Banned) bool { return b.Means(id) })
}

// RoleOf gives the role that p has: the one they were given, else their own.
func (r Roll) RoleOf(p Person) Role {
	if given, ok := r.Roles[p.ID]; ok {
		return given
	}
	return p.Role
}

// Clone gives a copy to change.
func (r Roll) Clone() Roll {
	return Roll{Banned: slices.Clone(r.Banned), Roles: maps.Clone(r.Roles)}
}

// Ban adds a ban, or renews it. It answers an *Error with Code Conflict over MaxBans.
func (r *Roll) Ban(b Banned) error {
	r.Unban(b.Person)
	if len(r.Banned) >= MaxBans {
		return Conflict("This event has as many bans as are possible. Take one back first.")
	}
	r.Banned = append(r.Banned, b)
	return nil
}

// Unban takes a ban back, and says whether there was one.
func (r *Roll) Unban(person string) bool {
	n := len(r.Banned)
	r.Banned = slices.DeleteFunc(r.Banned, func(b Banned) bool { return b.Person == person })
	return len(r.Banned) < n
}

// HandOver makes somebody host, and whoever gives that away, or lost it, co-host; from is empty where nobody does.
func (r *Roll) HandOver(from, to string) {
	if from != "" {
		r.Give(from, Cohost)
	}
	r.Give(to, Host)
}

// Give gives a person a role.
func (r *Roll) Give(person string, role Role) {
	if r.Roles == nil {
		r.Roles = make(map[string]Role)
	}
	r.Roles[person] = role
}
