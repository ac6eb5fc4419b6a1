package event

import "slices"

// Action is something that not everybody may do.
type Action string

// The actions. What one does to oneself (muting oneself, taking one's own hand down, leaving) is everybody's and no action.
const (
	Operate      Action = "operate"   // the house: plan events, see unlisted ones, set the pace, consent to crowds
	Steer        Action = "steer"     // open the doors, go live, end, cancel
	Change       Action = "change"    // the event's title, start and the rest
	InviteOthers Action = "invite"    // see, make and withdraw links, to roles that Over allows
	HandOver     Action = "hand_over" // make somebody on stage the host
	Admit        Action = "admit"     // let raised hands speak, or dismiss them
	Mute         Action = "mute"      // others
	Remove       Action = "remove"    // others from the stage, if Over allows
	Ban          Action = "ban"       // others from the event, if Over allows; and to take that back
	See          Action = "see"       // the stage as its people see it: levels, connections, hands
	Speak        Action = "speak"     // on stage, heard by all
	Monitor      Action = "monitor"   // hear on a second device what one hears on stage
	RaiseHand    Action = "raise_hand"
)

// Operator and Stranger are no roles that an event gives: the one has the server's key, the other nothing at all. They stand here
// because the table asks for them as for the others.
const (
	Operator Role = "operator"
	Stranger Role = ""
)

// rights is what each role may do wherever they are. What being on stage or having a hand up adds, Standing.May knows. This is the one
// place that decides it: web and stage ask, and PROTOCOL.md shows it.
//
// A co-host is a host but for giving that role away. A producer runs the show and is never heard. A moderator tends those who are on stage
// or want to be there, and cannot touch the show.
var rights = map[Role][]Action{
	Operator:    {Operate, Steer, Change, InviteOthers, HandOver, Admit, Mute, Remove, Ban, See},
	Host:        {Steer, Change, InviteOthers, HandOver, Admit, Mute, Remove, Ban, See, Speak},
	Cohost:      {Steer, Change, InviteOthers, Admit, Mute, Remove, Ban, See, Speak},
	Producer:    {Steer, Change, InviteOthers, Admit, Mute, Remove, Ban, See},
	Moderator:   {InviteOthers, Admit, Mute, Remove, Ban, See},
	Speaker:     {Speak},
	Interpreter: {Speak},
	Listener:    {RaiseHand},
	Stranger:    {RaiseHand},
}

// Actions lists all, in the order of the constants.
func Actions() []Action {
	return []Action{Operate, Steer, Change, InviteOthers, HandOver, Admit, Mute, Remove, Ban, See, Speak, Monitor, RaiseHand}
}

// Holders lists the roles that may do a wherever they are, Operator first and Stranger last.
func Holders(a Action) []Role {
	all := []Role{Operator, Host, Cohost, Producer, Moderator, Speaker, Interpreter, Listener, Stranger}
	return slices.DeleteFunc(all, func(r Role) bool { return !r.May(a) })
}

// May says whether somebody in this role may do a wherever they are.
func (r Role) May(a Action) bool { return slices.Contains(rights[r], a) }

// Over says whether r's rights reach somebody in role o: to remove or ban them, and to make or withdraw links to their role. They do not
// where o may do something to the event or to others that r may not: so nobody gets by a link what they do not have, or rid of those above
// them.
func (r Role) Over(o Role) bool {
	for _, a := range rights[o] {
		if a != Speak && a != RaiseHand && !r.May(a) {
			return false
		}
	}
	return true
}

// Standing is where somebody stands in an event at this moment: all that decides what they may do there.
type Standing struct {
	Role     Role
	OnStage  bool // has a place there
	Hand     bool // has a hand up
	Admitted bool // and may speak
}

// May says whether somebody who stands so may do a.
func (s Standing) May(a Action) bool {
	switch a {
	case See:
		return s.OnStage || s.Hand || s.Role.May(a)
	case Speak:
		return s.OnStage || s.Hand && s.Admitted || s.Role.May(a)
	case Monitor:
		return s.OnStage
	case RaiseHand:
		return !s.OnStage && s.Role.May(a)
	}
	return s.Role.May(a)
}

// Actions lists what somebody who stands so may do.
func (s Standing) Actions() []Action {
	return slices.DeleteFunc(Actions(), func(a Action) bool { return !s.May(a) })
}
