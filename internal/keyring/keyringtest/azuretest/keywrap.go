package azuretest

import (
	"crypto/aes"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"slices"
)

var errWrapped = errors.New("not a wrapped key")

// initial is the value that an unwrapped key must come with (RFC 3394, 2.2.3.1).
const initial = 0xA6A6A6A6A6A6A6A6

// wrap is AES key wrap (RFC 3394, 2.2.1).
func wrap(kek, key []byte) ([]byte, error) {
	block, err := aes.NewCipher(kek)
	if err != nil || len(key)%8 != 0 || len(key) < 16 {
		return nil, errWrapped
	}
	n := len(key) / 8
	out := binary.BigEndian.AppendUint64(nil, initial)
	out = append(out, key...)
	b := make([]byte, 16)
	for j := range 6 {
		for i := 1; i <= n; i++ {
			copy(b, out[:8])
			copy(b[8:], out[8*i:])
			block.Encrypt(b, b)
			binary.BigEndian.PutUint64(out, binary.BigEndian.Uint64(b)^uint64(n*j+i))
			copy(out[8*i:], b[8:])
		}
	}
	return out, nil
}

// unwrap is its inverse (RFC 3394, 2.2.2).
func unwrap(kek, wrapped []byte) ([]byte, error) {
	block, err := aes.NewCipher(kek)
	if err != nil || len(wrapped)%8 != 0 || len(wrapped) < 24 {
		return nil, errWrapped
	}
	n := len(wrapped)/8 - 1
	out := slices.Clone(wrapped)
	b := make([]byte, 16)
	for j := 5; j >= 0; j-- {
		for i := n; i >= 1; i-- {
			binary.BigEndian.PutUint64(b, binary.BigEndian.Uint64(out)^uint64(n*j+i))
			copy(b[8:], out[8*i:8*i+8])
			block.Decrypt(b, b)
			copy(out, b[:8])
			copy(out[8*i:], b[8:])
		}
	}
	if subtle.ConstantTimeCompare(out[:8], binary.BigEndian.AppendUint64(nil, initial)) != 1 {
		return nil, errWrapped
	}
	return out[8:], nil
}
