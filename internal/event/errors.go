package event

import "errors"

// Code is what a machine reads off an error. internal/web maps each to one HTTP status.
type Code string

// The domain's codes.
const (
	CodeInvalid      Code = "invalid"      // what was sent cannot be used; Field says which part
	CodeUnauthorized Code = "unauthorized" // no or an unknown credential
	CodeForbidden    Code = "forbidden"    // known, but not allowed
	CodeNotFound     Code = "not_found"
	CodeConflict     Code = "conflict"  // the state does not allow it now
	CodeTooLarge     Code = "too_large" // more bytes than are read
	CodeBusy         Code = "busy"      // a limit is reached; later may work
	CodeUnavailable  Code = "unavailable"
	CodeInternal     Code = "internal"
)

// Error separates what the user is told (Message: one or two plain sentences, the second a next step), what machines read
// (Code, Field), and what the operator's log gets (Err, the chain).
type Error struct {
	Code    Code
	Field   string
	Message string
	Err     error
}

// Error gives the operator's view: message, then cause.
func (e *Error) Error() string {
	if e.Err != nil {
		return e.Message + ": " + e.Err.Error()
	}
	return e.Message
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Invalid is an error about one field of what was sent.
func Invalid(field, message string) *Error {
	return &Error{Code: CodeInvalid, Field: field, Message: message}
}

// Unauthorized says that a credential is missing or unknown.
func Unauthorized(message string) *Error { return &Error{Code: CodeUnauthorized, Message: message} }

// Forbidden says that this credential does not reach so far.
func Forbidden(message string) *Error { return &Error{Code: CodeForbidden, Message: message} }

// NotFound says that there is no such thing, or none that the asker may know of.
func NotFound(message string) *Error { return &Error{Code: CodeNotFound, Message: message} }

// Conflict says that the state of things does not allow it now.
func Conflict(message string) *Error { return &Error{Code: CodeConflict, Message: message} }

// Busy says that a limit is reached.
func Busy(message string) *Error { return &Error{Code: CodeBusy, Message: message} }

// Unavailable says that the server cannot do it at the moment, through no fault of the asker's.
func Unavailable(message string, cause error) *Error {
	return &Error{Code: CodeUnavailable, Message: message, Err: cause}
}

// CodeOf gives the code of the first *Error in the chain, CodeInternal if there is none.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}
