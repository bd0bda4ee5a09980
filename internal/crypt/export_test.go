package crypt

import (
	"crypto/rand"

	"github.com/ambit-dev/ambit/internal/secret"
)

// SealFirst makes an envelope of suite 1, which is read and no longer written.
func (k *KEK) SealFirst(place []byte, v secret.Value) ([]byte, error) {
	var dek [keyLen]byte
	_, _ = rand.Read(dek[:])
	payload, commit, err := fromDEK(dek[:])
	if err != nil {
		return nil, err
	}
	out := append(k.appendHead(nil, suiteV1), commit...)
	ad := additional(out[:prefixLen], place)
	out = append(out, k.aead.Seal(nil, nil, dek[:], ad)...)
	return payload.Seal(out, nil, v.Reveal(), ad), nil
}
