package crypt

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"slices"

	"github.com/ambit-dev/ambit/internal/secret"
)

// OpenLocal decrypts what an application encrypted by itself under a 32-byte key:
// AES-256-GCM with a nonce of 12 or, from old libraries, 32 bytes. The tag stands
// last in sealed. A FIPS-only process refuses the long nonces.
func OpenLocal(key secret.Value, nonce, sealed, additional []byte) (secret.Value, error) {
	if len(nonce) != nonceLen && len(nonce) != 32 {
		return secret.Value{}, errors.New("a nonce has 12 or 32 bytes")
	}
	aead, err := newAEAD(key.Reveal())
	if err != nil {
		return secret.Value{}, err
	}
	if len(nonce) == nonceLen {
		nonce, sealed = nil, slices.Concat(nonce, sealed)
	} else if aead, err = longNonce(key, len(nonce)); err != nil {
		return secret.Value{}, err
	}
	plain, err := aead.Open(nil, nonce, sealed, additional)
	if err != nil {
		return secret.Value{}, ErrIntegrity
	}
	defer clear(plain)
	return secret.New(plain), nil
}

func longNonce(key secret.Value, n int) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key.Reveal())
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithNonceSize(block, n)
}
