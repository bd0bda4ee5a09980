// Package pkcs11 keeps the root key in a hardware security module, by PKCS#11. The
// key never leaves the module: seeds go there to be encrypted by AES-GCM with their
// context as additional data.
//
// PKCS#11 is a C library that is loaded into the process. So that the server stays
// free of C, and of whatever such a library does, a small process of its own does
// that, ambit-pkcs11; this package starts it, and again when it dies, and speaks to
// it over its standard input and output (package wire). Only the helper reads the
// PIN.
//
// All versions of a key have the same label. The newest has the highest CKA_ID,
// read as a number, and wraps; each blob says which one wrapped it.
package pkcs11

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/pkcs11/wire"
	"github.com/ambit-dev/ambit/internal/secret"
)

const (
	maxBlob = 256
)

// Keeper is a key of an HSM. It is safe for concurrent use. Close ends the helper.
type Keeper struct {
	desc   keyring.Description
	helper *helper
}

// Open reads the URI of a key (RFC 7512). The helper starts with the first use: an
// HSM that is not there now may be there later.
//
// A URI names a library that is loaded and a file that is read on this machine, so
// it must come from the server's operator.
func Open(_ context.Context, uri string, o keyring.Options) (keyring.Keeper, error) {
	t, err := Parse(uri)
	if err != nil {
		return nil, err
	}
	h, err := newHelper(t, o)
	if err != nil {
		return nil, err
	}
	return &Keeper{desc: keyring.Description{Ref: name(t), Location: location(t)}, helper: h}, nil
}

// Describe names the key, without its version.
func (k *Keeper) Describe() keyring.Description { return k.desc }

// Wrap seals a seed under the newest version of the key.
func (k *Keeper) Wrap(ctx context.Context, seed secret.Value, c keyring.Context) ([]byte, error) {
	if err := crypt.CheckSeed(seed); err != nil {
		return nil, err
	}
	return k.ask(ctx, wire.Request{Op: wire.OpWrap, Data: seed.Reveal(), AAD: additional(c)})
}

// Unwrap is the inverse.
func (k *Keeper) Unwrap(ctx context.Context, blob []byte, c keyring.Context) (secret.Value, error) {
	if len(blob) == 0 || len(blob) > maxBlob {
		return secret.Value{}, crypt.ErrIntegrity
	}
	seed, err := k.ask(ctx, wire.Request{Op: wire.OpUnwrap, Data: blob, AAD: additional(c)})
	defer clear(seed)
	switch {
	case err != nil:
		return secret.Value{}, err
	case len(seed) != crypt.SeedLen:
		return secret.Value{}, keyring.Failure(keyring.CodeUnavailable, fmt.Errorf("the HSM gave %d bytes", len(seed)))
	}
	return secret.New(seed), nil
}

// additional has a fixed length: many modules take little additional data, and
// questions must fit into the pipe of a helper that hangs.
func additional(c keyring.Context) []byte {
	sum := sha256.Sum256(crypt.Fields("ambit pkcs11 1", string(c.AAD)))
	return sum[:]
}

// Close ends the helper. Nothing can be asked afterwards.
func (k *Keeper) Close() error { return k.helper.close() }

func (k *Keeper) ask(ctx context.Context, r wire.Request) ([]byte, error) {
	a, err := k.helper.ask(ctx, r)
	if err != nil {
		return nil, keyring.Failure(keyring.CodeUnavailable, err)
	}
	switch a.Code {
	case wire.CodeFine:
		if len(a.Data) == 0 || len(a.Data) > maxBlob {
			return nil, keyring.Failure(keyring.CodeUnavailable, errors.New("the helper's answer is none"))
		}
		return a.Data, nil
	case wire.CodeIntegrity:
		return nil, crypt.ErrIntegrity
	case wire.CodeRetired:
		return nil, fmt.Errorf("%w: its version of the key is gone (%w)", crypt.ErrIntegrity, keyring.ErrVersionRetired)
	case wire.CodeDenied, wire.CodePIN:
		return nil, keyring.Failure(keyring.CodeDenied, errors.New(a.Text))
	}
	return nil, keyring.Failure(keyring.CodeUnavailable, errors.New(a.Text))
}
