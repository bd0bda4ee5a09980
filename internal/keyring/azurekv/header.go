package azurekv

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/ambit-dev/ambit/internal/crypt"
)

// algorithm is one of the service's for wrapping keys (RFC 7518, section 4.1, and
// A256KW for AES), as it stands in a blob.
type algorithm byte

const (
	rsaOAEP256 algorithm = 1
	a256KW     algorithm = 2
)

func (a algorithm) String() string {
	if a == a256KW {
		return "A256KW"
	}
	return "RSA-OAEP-256"
}

// version is that of a key: 128 bits, written in hexadecimal.
type version [16]byte

func (v version) String() string { return hex.EncodeToString(v[:]) }

const (
	formatV1  = 1
	frontLen  = 1 + 1 + 16 + 2
	sealedLen = 12 + crypt.SeedLen + 16
	kwLen     = 40  // of 32 bytes under RFC 3394
	minRSA    = 256 // a key of 2048 bits
	maxRSA    = 512
)

// header is what stands before the sealed seed.
type header struct {
	algorithm algorithm
	version   version
	wrapped   []byte // the one-time key
}

func (h header) check() error {
	n := len(h.wrapped)
	if h.algorithm == a256KW && n == kwLen || h.algorithm == rsaOAEP256 && n >= minRSA && n <= maxRSA {
		return nil
	}
	return fmt.Errorf("a wrapped key of %d bytes by %s", n, h.algorithm)
}

func (h header) bytes() []byte {
	out := append(make([]byte, 0, frontLen+len(h.wrapped)+sealedLen), formatV1, byte(h.algorithm))
	out = append(out, h.version[:]...)
	out = binary.BigEndian.AppendUint16(out, uint16(len(h.wrapped)))
	return append(out, h.wrapped...)
}

// parseHeader takes a blob apart. Every failure is crypt.ErrIntegrity.
func parseHeader(blob []byte) (h header, sealed []byte, err error) {
	if len(blob) < frontLen+sealedLen || blob[0] != formatV1 {
		return h, nil, crypt.ErrIntegrity
	}
	n := len(blob) - frontLen - sealedLen
	h.algorithm = algorithm(blob[1])
	copy(h.version[:], blob[2:])
	h.wrapped, sealed = blob[frontLen:frontLen+n], blob[frontLen+n:]
	if int(binary.BigEndian.Uint16(blob[18:])) != n || h.check() != nil {
		return h, nil, crypt.ErrIntegrity
	}
	return h, sealed, nil
}
