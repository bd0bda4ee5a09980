// Package transit keeps the root key in the transit engine of HashiCorp Vault or
// OpenBao. The key never leaves it: seeds go there to be encrypted and decrypted,
// bound to their context as associated data.
//
// Only four requests are made (encrypt, decrypt, reading the key, and renewing the
// token), so the package speaks HTTP itself. It never asks for a rewrap: the
// engine takes no associated data there. A seed is moved to the newest version by
// unwrapping and wrapping it.
//
// A blob is 1, the version of the key in four bytes, and what the engine calls
// ciphertext, as bytes.
package transit

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/secret"
)

const (
	blobFormat = 1
	blobHead   = 5
	maxBlob    = 4 << 10
)

// Keeper is a key of a transit engine. It is safe for concurrent use.
type Keeper struct {
	place  place
	desc   keyring.Description
	server *server
}

// Open reads the URI of a key and where the credentials for it are. It asks
// nobody: a key that cannot be reached now may be there later.
//
// Credentials come from the server's operator and are bound to a host, so that no
// URI can have them sent elsewhere: see [EnvCredentials], and the host that
// VAULT_ADDR names, to which VAULT_TOKEN goes.
func Open(_ context.Context, uri string, o keyring.Options) (keyring.Keeper, error) {
	p, err := parse(uri)
	if err != nil {
		return nil, err
	}
	if o.HTTP == nil {
		return nil, errors.New("a transit key needs a way to the network")
	}
	found, err := findCredentials(p, o)
	if err != nil {
		return nil, err
	}
	k := &Keeper{place: p, server: newServer(p, o, found)}
	k.desc.Ref, k.desc.Location = p.identity()
	return k, nil
}

// Describe names the key, without its version.
func (k *Keeper) Describe() keyring.Description { return k.desc }

// Wrap seals a seed under the newest version of the key. It looks at the key
// before: an encrypt for a key that is not there makes one, wherever the policy of
// the token lets it.
func (k *Keeper) Wrap(ctx context.Context, seed secret.Value, c keyring.Context) ([]byte, error) {
	if err := crypt.CheckSeed(seed); err != nil {
		return nil, err
	}
	if err := k.look(ctx); err != nil {
		return nil, err
	}
	return k.encrypt(ctx, seed.Reveal(), c.AAD)
}

// look is nil for a key that can do what we need.
func (k *Keeper) look(ctx context.Context) error {
	var key struct {
		Type    string `json:"type"`
		Derived bool   `json:"derived"`
		Encrypt bool   `json:"supports_encryption"`
		Decrypt bool   `json:"supports_decryption"`
	}
	if err := k.server.ask(ctx, "GET", k.place.mount+"/keys/"+k.place.key, nil, &key); err != nil {
		return classed(err)
	}
	switch {
	case !key.Encrypt || !key.Decrypt || key.Derived || strings.HasPrefix(key.Type, "rsa"):
		return keyring.Failure(keyring.CodeUnavailable, fmt.Errorf("the key is of the type %q (derived: %t): make one of the type aes256-gcm96", key.Type, key.Derived))
	}
	return nil
}

func (k *Keeper) encrypt(ctx context.Context, plain, aad []byte) ([]byte, error) {
	var out struct {
		Ciphertext string `json:"ciphertext"`
	}
	err := k.server.ask(ctx, "POST", k.place.mount+"/encrypt/"+k.place.key, map[string][]byte{"plaintext": plain, "associated_data": aad}, &out)
	if err != nil {
		return nil, classed(err)
	}
	return pack(out.Ciphertext)
}

// pack gives the one binary form of "vault:v3:BASE64".
func pack(text string) ([]byte, error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 || parts[0] != "vault" || !strings.HasPrefix(parts[1], "v") {
		return nil, keyring.Failure(keyring.CodeUnavailable, errors.New("the answer holds no ciphertext"))
	}
	version, err := strconv.ParseUint(parts[1][1:], 10, 31)
	sealed, err2 := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || err2 != nil || version == 0 || len(sealed) == 0 || len(sealed) > maxBlob-blobHead {
		return nil, keyring.Failure(keyring.CodeUnavailable, errors.New("the answer holds no ciphertext"))
	}
	blob := binary.BigEndian.AppendUint32([]byte{blobFormat}, uint32(version))
	return append(blob, sealed...), nil
}

func unpack(blob []byte) (string, error) {
	if len(blob) <= blobHead || len(blob) > maxBlob || blob[0] != blobFormat {
		return "", crypt.ErrIntegrity
	}
	version := binary.BigEndian.Uint32(blob[1:blobHead])
	// The engine takes 0 for 1, which would give a blob two spellings.
	if version == 0 || version > math.MaxInt32 {
		return "", crypt.ErrIntegrity
	}
	return fmt.Sprintf("vault:v%d:%s", version, base64.StdEncoding.EncodeToString(blob[blobHead:])), nil
}

// Unwrap opens a blob. Whether a refusal is about the blob or about the key, the
// engine says in words that its versions change; so the key is tried with
// something of our own before a blob is called bad.
func (k *Keeper) Unwrap(ctx context.Context, blob []byte, c keyring.Context) (secret.Value, error) {
	text, err := unpack(blob)
	if err != nil {
		return secret.Value{}, err
	}
	plain, err := k.decrypt(ctx, text, c.AAD)
	defer clear(plain)
	var a *answer
	switch {
	case errors.As(err, &a) && a.tooOld():
		return secret.Value{}, fmt.Errorf("%w: its version of the key is no longer allowed (%w)", crypt.ErrIntegrity, keyring.ErrVersionRetired)
	case errors.As(err, &a) && a.aboutRequest():
		if err := k.try(ctx); err != nil {
			return secret.Value{}, err
		}
		return secret.Value{}, crypt.ErrIntegrity
	case err != nil:
		return secret.Value{}, classed(err)
	case len(plain) != crypt.SeedLen:
		return secret.Value{}, keyring.Failure(keyring.CodeUnavailable, fmt.Errorf("the answer holds %d bytes", len(plain)))
	}
	return secret.New(plain), nil
}

func (k *Keeper) decrypt(ctx context.Context, text string, aad []byte) ([]byte, error) {
	var out struct {
		Plaintext []byte `json:"plaintext"`
	}
	err := k.server.ask(ctx, "POST", k.place.mount+"/decrypt/"+k.place.key, map[string]any{"ciphertext": text, "associated_data": aad}, &out)
	return out.Plaintext, err
}

// try is nil when the key encrypts and decrypts.
func (k *Keeper) try(ctx context.Context) error {
	aad := crypt.Fields("ambit transit trial 1")
	if err := k.look(ctx); err != nil {
		return err
	}
	blob, err := k.encrypt(ctx, crypt.NewSeed().Reveal(), aad)
	if err != nil {
		return err
	}
	text, err := unpack(blob)
	if err != nil {
		return keyring.Failure(keyring.CodeUnavailable, err)
	}
	plain, err := k.decrypt(ctx, text, aad)
	clear(plain)
	if err != nil {
		return classed(err)
	}
	return nil
}
