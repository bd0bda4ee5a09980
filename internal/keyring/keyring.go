// Package keyring holds the root of all keys: a [Keeper] wraps and unwraps the
// 32-byte seeds from which key-encrypting keys are derived. It does not know
// what is wrapped, only the context that it is wrapped for. Each back end is a
// sub-package; a root key never leaves its keeper.
//
// A keeper may be another machine, so nobody calls one directly: a [Guard]
// stands in front. It bounds each call in time and all calls in number, tells
// failures apart by what they mean for the keys that were unwrapped before, and
// knows without asking whether those may still be used.
package keyring

import (
	"context"
	"errors"
	"strings"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Context is what a seed is wrapped for. A blob opens only for the context that
// it was wrapped for.
type Context struct {
	// AAD is the place, in an encoding that no other place shares
	// ([crypt.Fields]). It alone decides: equal AAD must mean equal labels.
	AAD []byte
	// The labels say of the place what the owner of a root key may want to know
	// or to make conditions of: a back end that has an encryption context puts
	// them there, and its log shows them. No label is a secret. Empty: none.
	Purpose      string // what sort of key is wrapped, such as "kek"
	Environment  string
	Organization string
}

// Keeper is a root key, wherever it lives. Implementations bind every blob to
// its context: unwrapping for another one fails. They heed ctx, and say with an
// error of [ClassOf] what went wrong.
type Keeper interface {
	// Wrap seals a 32-byte seed. The blob opens only for the same c.
	Wrap(ctx context.Context, seed secret.Value, c Context) ([]byte, error)
	// Unwrap is the inverse. A blob that was changed, or wrapped for another
	// context or by another root key, gives an error that wraps crypt.ErrIntegrity.
	Unwrap(ctx context.Context, blob []byte, c Context) (secret.Value, error)
	// Describe names the root key for people and for the rows that it wrapped.
	Describe() Description
}

// Description names a root key. Ref is stored beside each wrapped seed, so that
// the right keeper can be found again; it holds no secret.
type Description struct {
	Ref      string // for example "file:3f9c…": the scheme and a fingerprint
	Location string // where it lives, for people
}

// Class is what a keeper's failure means for the keys that it unwrapped before.
type Class int

const (
	// Fine is no failure.
	Fine Class = iota
	// Unavailable is a keeper that cannot be reached, is slow, or answers
	// nonsense. What was unwrapped may be used for a limited time.
	Unavailable
	// Throttled is a keeper that wants to be asked less: like Unavailable.
	Throttled
	// Denied is a keeper that refuses the use of the root key: it was disabled,
	// or our right to it was taken away. What was unwrapped is forgotten at once.
	Denied
	// Mismatch is another root key where ours was. It is an alarm, and what was
	// unwrapped is forgotten at once.
	Mismatch
)

func (c Class) String() string {
	return [...]string{"fine", "unavailable", "throttled", "denied", "mismatch"}[c]
}

// The codes of a keeper's failures, as back ends give them and a Guard passes
// them on. Any other error of a back end is of the class Unavailable.
const (
	CodeUnavailable = "root_key_unavailable"
	CodeThrottled   = "root_key_throttled" // its RetryAfter is heeded, up to half a minute
	CodeDenied      = "root_key_denied"
	CodeMismatch    = "root_key_mismatch"
)

// Failure is how a back end says what went wrong. cause is for the log.
func Failure(code string, cause error) *fault.Error {
	f := fault.New(fault.Unavailable, code, messages[code]).WithHint(hints[code])
	if cause != nil {
		f = f.WithCause(cause)
	}
	return f
}

var messages = map[string]string{
	CodeUnavailable: "The root key cannot be reached, so stored secrets cannot be used.",
	CodeThrottled:   "The root key is asked for too often.",
	CodeDenied:      "The root key may not be used: it was disabled, or the right to it was taken away.",
	CodeMismatch:    "The root key is another one than before.",
}

// theirs is [Failure] of a root key that a customer owns: others than the operator
// can mend it, and are told so.
func theirs(code string, cause error) *fault.Error {
	f := fault.New(fault.Unavailable, code, strings.Replace(messages[code], "The root key", "The customer's own root key", 1)).WithHint(theirHints[code])
	if cause != nil {
		f = f.WithCause(cause)
	}
	return f
}

var theirHints = map[string]string{
	CodeUnavailable: "Whoever owns the key looks at its service, and the operator at this server's identity there (docs/keys.md). What is under other keys goes on.",
	CodeThrottled:   hints[CodeThrottled],
	CodeDenied:      hints[CodeDenied],
	CodeMismatch:    "Whoever owns the key must put back the one that was bound; the operator finds both names in the log.",
}

var hints = map[string]string{
	CodeUnavailable: "Try again shortly. The operator finds the reason in the log and in `ambit doctor`.",
	CodeThrottled:   "Try again shortly.",
	CodeDenied:      "Whoever owns the key must allow its use again; nothing is lost.",
	CodeMismatch:    "The operator must put back the root key that this database was made with.",
}

// ErrVersionRetired is wrapped, beside crypt.ErrIntegrity, by a keeper that has
// the root key and was told to open nothing more of the version that wrapped the
// blob.
var ErrVersionRetired = errors.New("the version of the root key is retired")

// ClassOf tells failures apart. An error that is only about one blob, which
// wraps crypt.ErrIntegrity, says nothing about the root key and is Fine here.
func ClassOf(err error) Class {
	switch {
	case err == nil, errors.Is(err, crypt.ErrIntegrity) && !fault.Is(err, CodeMismatch):
		return Fine
	case fault.Is(err, CodeDenied):
		return Denied
	case fault.Is(err, CodeMismatch):
		return Mismatch
	case fault.Is(err, CodeThrottled):
		return Throttled
	}
	return Unavailable
}

var codes = map[Class]string{Unavailable: CodeUnavailable, Throttled: CodeThrottled, Denied: CodeDenied, Mismatch: CodeMismatch}
