package event

// Role is the part that a person has in an event. What it allows, see Role.May.
type Role string

// The roles of the design. Producer and moderator run or tend the event and are never heard.
const (
	Host        Role = "host"
	Cohost      Role = "cohost"
	Speaker     Role = "speaker"
	Interpreter Role = "interpreter"
	Producer    Role = "producer"
	Moderator   Role = "moderator"
	Listener    Role = "listener"
)

// Valid says whether the role is one of the vocabulary.
func (r Role) Valid() bool {
	switch r {
	case Host, Cohost, Speaker, Interpreter, Producer, Moderator, Listener:
		return true
	}
	return false
}

// Phase is where an event stands in its life.
type Phase string

// Scheduled comes first; Ended and Cancelled are final.
const (
	Scheduled Phase = "scheduled"
	Doors     Phase = "doors" // open, listeners attached to a silent timeline
	Live      Phase = "live"
	Ended     Phase = "ended"
	Cancelled Phase = "cancelled"
)

// Valid says whether the phase is one of the vocabulary.
func (p Phase) Valid() bool {
	switch p {
	case Scheduled, Doors, Live, Ended, Cancelled:
		return true
	}
	return false
}

// Open says whether a stage and a timeline exist in this phase.
func (p Phase) Open() bool { return p == Doors || p == Live }

// Over says whether nothing follows this phase.
func (p Phase) Over() bool { return p == Ended || p == Cancelled }

// Turn answers nil if p may be followed by next, else an *Error with Code Conflict that says why not.
func (p Phase) Turn(next Phase) error {
	switch {
	case p == next:
		return Conflict("The event is in this phase already.")
	case p == Ended:
		return Conflict("The event has ended.")
	case p == Cancelled:
		return Conflict("The event was cancelled.")
	}
	ok := false
	switch next {
	case Doors:
		ok = p == Scheduled
	case Live:
		ok = p == Scheduled || p == Doors
	case Ended:
		ok = p == Doors || p == Live
	case Cancelled:
		ok = p == Scheduled || p == Doors
	}
	if !ok {
		return Conflict("An event that is " + string(p) + " cannot become " + string(next) + ".")
	}
	return nil
}
