// Package crypt is the envelope: how one secret becomes bytes that are worth
// nothing without its key and worthless in any other place. It is pure: no
// files, no network, no clock.
//
// Each secret is encrypted once under its own random data key (DEK). The DEK is
// wrapped by the key-encrypting key (KEK) of the secret's context, and the KEK
// is derived from a random seed that only a root key can unwrap. Every layer is
// bound to its place by additional data, so that a row moved to another tenant,
// object or version does not open. An envelope is
//
//	suite(1) kek-id(16) kek-version(4) commitment(32) wrapped-DEK(60) nonce(12) ciphertext tag(16)
//
// with wrapped-DEK = nonce(12) DEK(32) tag(16), all AES-256-GCM (NIST SP
// 800-38D) with random 96-bit nonces. A DEK seals one message only; a KEK seals
// DEKs only, far below the 2^32 messages that random nonces allow. AES-GCM does
// not commit to its key, so the envelope carries a commitment that HKDF (RFC
// 5869) derives from the DEK, compared in constant time before decrypting.
//
// In suite 2 the ciphertext is bound to its place, and the wrapped DEK to the KEK
// and to the commitment. So a DEK can be wrapped anew under another KEK without
// knowing the place and without touching the ciphertext ([KEK.Rewrap]); what is
// exchanged between two envelopes still does not open, since each DEK opens one
// ciphertext only. In suite 1, which is read and no longer written, both were
// bound to both.
package crypt

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ambit-dev/ambit/internal/secret"
)

// ErrIntegrity says that an envelope does not belong to this place or key, or
// was changed. It never says which of these.
var ErrIntegrity = errors.New("the sealed value does not open in this place")

const (
	suiteV1    = 1
	suiteV2    = 2
	keyLen     = 32
	nonceLen   = 12
	tagLen     = 16
	idLen      = 16
	commitLen  = 32
	wrappedLen = nonceLen + keyLen + tagLen
	prefixLen  = 1 + idLen + 4
	headerLen  = prefixLen + commitLen + wrappedLen
	// Overhead is how much longer an envelope is than its plaintext, in bytes.
	Overhead = headerLen + nonceLen + tagLen
)

// Fields encodes parts so that no two lists of parts share an encoding: each
// part is preceded by its length. It is the only way that additional data and
// key-derivation inputs are built, never joined strings.
func Fields(parts ...string) []byte {
	var n int
	for _, p := range parts {
		n += 4 + len(p)
	}
	out := make([]byte, 0, n)
	for _, p := range parts {
		out = binary.BigEndian.AppendUint32(out, uint32(len(p)))
		out = append(out, p...)
	}
	return out
}

// Parts is the inverse of [Fields]. ok is false for bytes that Fields never gives.
func Parts(b []byte) (parts []string, ok bool) {
	for len(b) > 0 {
		if len(b) < 4 {
			return nil, false
		}
		n := uint64(binary.BigEndian.Uint32(b))
		if b = b[4:]; uint64(len(b)) < n {
			return nil, false
		}
		parts, b = append(parts, string(b[:n])), b[n:]
	}
	return parts, true
}

// KEK is a key-encrypting key, ready to use. It prints nothing.
type KEK struct {
	id      [idLen]byte
	version uint32
	aead    cipher.AEAD
	commit  [commitLen]byte
}

// DeriveKEK makes the KEK of a context from its seed. Context is the canonical
// encoding of the key context ([Fields]); it enters the derivation, so a seed
// filed under another context gives another key, with every kind of root key.
func DeriveKEK(seed secret.Value, context []byte, kekID [16]byte, version uint32) (*KEK, error) {
	if seed.Len() != keyLen {
		return nil, ErrIntegrity
	}
	info := string(Fields("ambit kek 1", string(context), string(kekID[:]), fmt.Sprint(version)))
	material, err := hkdf.Key(sha256.New, seed.Reveal(), nil, info, keyLen+commitLen)
	if err != nil {
		return nil, fmt.Errorf("deriving a key-encrypting key: %w", err)
	}
	defer clear(material)
	aead, err := newAEAD(material[:keyLen])
	if err != nil {
		return nil, err
	}
	k := &KEK{id: kekID, version: version, aead: aead}
	copy(k.commit[:], material[keyLen:])
	return k, nil
}

// ID is the 128-bit id of the KEK; Version its version.
func (k *KEK) ID() [16]byte    { return k.id }
func (k *KEK) Version() uint32 { return k.version }

// Commitment identifies the key without revealing it. It is stored beside the
// wrapped seed and compared when the seed comes back.
func (k *KEK) Commitment() []byte { return k.commit[:] }

// Commits reports in constant time whether stored is this key's commitment.
func (k *KEK) Commits(stored []byte) bool {
	return subtle.ConstantTimeCompare(k.commit[:], stored) == 1
}

// Seal encrypts v under a fresh data key that k wraps. The envelope opens only
// with the same key and the same place.
func (k *KEK) Seal(place []byte, v secret.Value) ([]byte, error) {
	var dek [keyLen]byte
	_, _ = rand.Read(dek[:])
	defer clear(dek[:])
	payload, commit, err := fromDEK(dek[:])
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, Overhead+v.Len())
	out = k.appendHead(out, suiteV2)
	out = append(out, commit...)
	// NewGCMWithRandomNonce puts its nonce in front of the ciphertext.
	out = append(out, k.aead.Seal(nil, nil, dek[:], additional(out[:prefixLen], commit))...)
	return payload.Seal(out, nil, v.Reveal(), additional(out[:1], place)), nil
}

func (k *KEK) appendHead(out []byte, suite byte) []byte {
	out = append(append(out, suite), k.id[:]...)
	return binary.BigEndian.AppendUint32(out, k.version)
}

// Open decrypts an envelope. Every failure is [ErrIntegrity].
func (k *KEK) Open(place, envelope []byte) (secret.Value, error) {
	dek, payload, err := k.dek(place, envelope)
	if err != nil {
		return secret.Value{}, err
	}
	clear(dek)
	bound := 1
	if envelope[0] == suiteV1 {
		bound = prefixLen
	}
	plain, err := payload.Open(nil, nil, envelope[headerLen:], additional(envelope[:bound], place))
	if err != nil {
		return secret.Value{}, ErrIntegrity
	}
	defer clear(plain)
	return secret.New(plain), nil
}

// dek unwraps the data key of an envelope, and gives what decrypts with it. Of
// suite 2 the place does not matter.
func (k *KEK) dek(place, envelope []byte) ([]byte, cipher.AEAD, error) {
	id, version, err := Inspect(envelope)
	if err != nil || id != k.id || version != k.version {
		return nil, nil, ErrIntegrity
	}
	head, commit, wrapped := envelope[:prefixLen], envelope[prefixLen:prefixLen+commitLen], envelope[prefixLen+commitLen:headerLen]
	bound := commit
	if envelope[0] == suiteV1 {
		bound = place
	}
	dek, err := k.aead.Open(nil, nil, wrapped, additional(head, bound))
	if err != nil {
		return nil, nil, ErrIntegrity
	}
	payload, want, err := fromDEK(dek)
	if err != nil {
		return nil, nil, err
	}
	if subtle.ConstantTimeCompare(want, commit) != 1 {
		clear(dek)
		return nil, nil, ErrIntegrity
	}
	return dek, payload, nil
}

// Rewrap gives the envelope of k with its data key wrapped by to instead. The
// ciphertext stays as it is and is not decrypted. It opens in the same place. An
// envelope of suite 1 cannot be wrapped anew ([Rewrappable]).
func (k *KEK) Rewrap(to *KEK, envelope []byte) ([]byte, error) {
	if !Rewrappable(envelope) {
		return nil, ErrIntegrity
	}
	dek, _, err := k.dek(nil, envelope)
	if err != nil {
		return nil, err
	}
	defer clear(dek)
	commit := envelope[prefixLen : prefixLen+commitLen]
	out := make([]byte, 0, len(envelope))
	out = append(to.appendHead(out, suiteV2), commit...)
	out = append(out, to.aead.Seal(nil, nil, dek, additional(out[:prefixLen], commit))...)
	out = append(out, envelope[headerLen:]...)
	if _, _, err := to.dek(nil, out); err != nil { // before anything takes the old one's place
		return nil, err
	}
	return out, nil
}

// Rewrappable reports whether the envelope is of a suite that [KEK.Rewrap] takes.
func Rewrappable(envelope []byte) bool {
	return len(envelope) >= Overhead && envelope[0] == suiteV2
}

// Prefix is what every envelope that this version of the KEK sealed holds from
// its second byte on: the id and the version. No other envelope does.
func Prefix(kekID [16]byte, version uint32) []byte {
	return binary.BigEndian.AppendUint32(append(make([]byte, 0, prefixLen-1), kekID[:]...), version)
}

// Inspect reads which KEK sealed an envelope, without any key.
func Inspect(envelope []byte) (kekID [16]byte, version uint32, err error) {
	if len(envelope) < Overhead || envelope[0] != suiteV1 && envelope[0] != suiteV2 {
		return kekID, 0, ErrIntegrity
	}
	copy(kekID[:], envelope[1:])
	return kekID, binary.BigEndian.Uint32(envelope[1+idLen:]), nil
}

// fromDEK splits a data key into the key that encrypts and the commitment.
func fromDEK(dek []byte) (cipher.AEAD, []byte, error) {
	material, err := hkdf.Key(sha256.New, dek, nil, "ambit dek 1", keyLen+commitLen)
	if err != nil {
		return nil, nil, fmt.Errorf("deriving a data key: %w", err)
	}
	defer clear(material[:keyLen])
	aead, err := newAEAD(material[:keyLen])
	return aead, material[keyLen:], err
}

// newAEAD uses the one GCM constructor that FIPS-only mode accepts.
func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("making a cipher: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func additional(head, bound []byte) []byte { return Fields(string(head), string(bound)) }

// WrapKey and UnwrapKey seal a 32-byte seed directly under a root key that is
// held as bytes. The result is nonce(12) ciphertext(32) tag(16).
func WrapKey(root, seed secret.Value, aad []byte) ([]byte, error) {
	if err := CheckSeed(seed); err != nil {
		return nil, err
	}
	aead, err := newAEAD(root.Reveal())
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, seed.Reveal(), aad), nil
}

// UnwrapKey is the inverse of WrapKey; every failure is [ErrIntegrity].
func UnwrapKey(root secret.Value, blob, aad []byte) (secret.Value, error) {
	aead, err := newAEAD(root.Reveal())
	if err != nil {
		return secret.Value{}, err
	}
	seed, err := aead.Open(nil, nil, blob, aad)
	if err != nil || len(seed) != keyLen {
		return secret.Value{}, ErrIntegrity
	}
	defer clear(seed)
	return secret.New(seed), nil
}

// SeedLen is the length of a seed, in bytes.
const SeedLen = keyLen

// CheckSeed refuses what is too long or too short to be a seed.
func CheckSeed(seed secret.Value) error {
	if seed.Len() != SeedLen {
		return fmt.Errorf("a seed has %d bytes, not %d", SeedLen, seed.Len())
	}
	return nil
}

// NewSeed makes 32 random bytes of key material.
func NewSeed() secret.Value {
	b := make([]byte, keyLen)
	_, _ = rand.Read(b)
	defer clear(b)
	return secret.New(b)
}
