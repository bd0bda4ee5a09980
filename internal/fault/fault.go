// Package fault is the one error type that crosses rooms.
//
// A fault separates what may be shown (kind, stable code, public message, hint)
// from what may only be logged (operation, cause). Edges map the kind to an
// HTTP status, an MCP tool error or an exit code, each in one place. Anything
// that is not a fault is shown as an internal error without its text.
package fault

import (
	"errors"
	"time"
)

// Kind classes an error by what the caller can do about it.
type Kind int

const (
	Internal        Kind = iota // our defect; the caller can only report it
	Invalid                     // the input is wrong; change it
	Unauthenticated             // no valid credential was presented
	Denied                      // known caller, not allowed
	NotFound                    // absent, or not the caller's: the two look alike
	Conflict                    // the state moved; read again
	Expired                     // was valid once
	Limited                     // too many requests; see RetryAfter
	Unavailable                 // a dependency is down; try again
	TooLarge                    // over a stated limit
)

func (k Kind) String() string {
	return [...]string{"internal", "invalid", "unauthenticated", "denied", "not_found", "conflict", "expired", "limited", "unavailable", "too_large"}[k]
}

// Error is a fault. Message and Hint are public: plain sentences without
// secrets. Code is stable and part of the API.
type Error struct {
	Kind       Kind
	Code       string
	Message    string
	Hint       string            // what to do next
	RetryAfter time.Duration     // when Kind is Limited or Unavailable; zero is unknown
	Fields     map[string]string // public extra facts, such as approval_url or request_id
	cause      error
}

// New makes a fault.
func New(kind Kind, code, message string) *Error {
	return &Error{Kind: kind, Code: code, Message: message}
}

// WithHint returns a copy that says what to do next.
func (e *Error) WithHint(hint string) *Error { c := *e; c.Hint = hint; return &c }

// WithCause returns a copy that keeps err for the log, never for the caller.
func (e *Error) WithCause(err error) *Error { c := *e; c.cause = err; return &c }

// WithRetry returns a copy that tells the caller when to try again.
func (e *Error) WithRetry(d time.Duration) *Error { c := *e; c.RetryAfter = d; return &c }

// With returns a copy with one more public field.
func (e *Error) With(name, value string) *Error {
	c := *e
	c.Fields = map[string]string{name: value}
	for k, v := range e.Fields {
		if k != name {
			c.Fields[k] = v
		}
	}
	return &c
}

// Error gives the text for logs: message and cause. Edges show Message instead.
func (e *Error) Error() string {
	if e.cause != nil {
		return e.Message + " (" + e.Code + "): " + e.cause.Error()
	}
	return e.Message + " (" + e.Code + ")"
}

func (e *Error) Unwrap() error { return e.cause }

// Of returns the fault inside err. An error that carries none becomes an
// Internal fault with err as its cause and a message that reveals nothing.
// Of(nil) is nil.
func Of(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Kind: Internal, Code: "internal", Message: "Something went wrong on our side.",
		Hint: "Try again; if it stays, give the operator the request id.", cause: err}
}

// KindOf is Of(err).Kind. KindOf(nil) is Internal: ask only about errors.
func KindOf(err error) Kind {
	if err == nil {
		return Internal
	}
	return Of(err).Kind
}

// Is reports whether err carries a fault with this code.
func Is(err error, code string) bool { return err != nil && Of(err).Code == code }
