// Package keyring holds the root of all keys: a [Keeper] wraps and unwraps the
// 32-byte seeds from which key-encrypting keys are derived. It does not know
// what is wrapped, only the context that it is wrapped for. Each back end is a
// sub-package; a root key never leaves its keeper.
package keyring

import (
	"context"

	"github.com/ambit-dev/ambit/internal/secret"
)

// Keeper is a root key, wherever it lives. Implementations bind every blob to
// aad: unwrapping with other additional data fails.
type Keeper interface {
	// Wrap seals a 32-byte seed. The blob opens only with the same aad.
	Wrap(ctx context.Context, seed secret.Value, aad []byte) ([]byte, error)
	// Unwrap is the inverse. A blob that was changed, or wrapped for other
	// aad or by another root key, gives an error that wraps crypt.ErrIntegrity;
	// a keeper that cannot answer gives a fault of kind Unavailable.
	Unwrap(ctx context.Context, blob, aad []byte) (secret.Value, error)
	// Describe names the root key for people and for the rows that it wrapped.
	Describe() Description
}

// Description names a root key. Ref is stored beside each wrapped seed, so that
// the right keeper can be found again; it holds no secret.
type Description struct {
	Ref      string // for example "file:3f9c…": the scheme and a fingerprint
	Location string // where it lives, for people
}
