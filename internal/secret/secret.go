// Package secret holds one type: a value that does not print.
//
// A [Value] keeps its bytes behind a closure, so that no printer, encoder or
// logger reaches them, not even through an unexported field of another struct
// where fmt may not call methods. The only way out is [Value.Reveal], and the
// import test names the packages that may call it.
package secret

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
)

const redacted = "[redacted]"

// Value is a secret: an API key, a token, key material. The zero Value is
// empty. Values are immutable and safe to share.
type Value struct{ reveal func() []byte }

// New returns a Value holding a copy of b. The caller may clear b afterwards.
func New(b []byte) Value {
	if len(b) == 0 {
		return Value{}
	}
	own := append([]byte(nil), b...)
	return Value{reveal: func() []byte { return own }}
}

// FromString is New for the edge that received a secret as a string.
func FromString(s string) Value { return New([]byte(s)) }

// Reveal returns the bytes. The caller must not change, keep or print them.
func (v Value) Reveal() []byte {
	if v.reveal == nil {
		return nil
	}
	return v.reveal()
}

// Len is the number of bytes held.
func (v Value) Len() int { return len(v.Reveal()) }

// IsZero reports whether the value is empty.
func (v Value) IsZero() bool { return v.reveal == nil }

// Equal compares in constant time for values of equal length.
func (v Value) Equal(o Value) bool { return subtle.ConstantTimeCompare(v.Reveal(), o.Reveal()) == 1 }

// Hash is the SHA-256 of the value: what a database stores of a token with at
// least 128 bits of entropy, and what a look-up uses as its key.
func (v Value) Hash() [32]byte { return sha256.Sum256(v.Reveal()) }

// The methods below make every ordinary way of printing say "[redacted]".

func (v Value) String() string                 { return redacted }
func (v Value) GoString() string               { return redacted }
func (v Value) Format(f fmt.State, _ rune)     { _, _ = f.Write([]byte(redacted)) }
func (v Value) LogValue() slog.Value           { return slog.StringValue(redacted) }
func (v Value) MarshalText() ([]byte, error)   { return []byte(redacted), nil }
func (v Value) MarshalJSON() ([]byte, error)   { return []byte(`"` + redacted + `"`), nil }
func (v Value) MarshalBinary() ([]byte, error) { return []byte(redacted), nil }
