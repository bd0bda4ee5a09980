package vault

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Canonical is the encoding of a key context from which its key is found.
func Canonical(environment id.Environment, items map[string]string) []byte {
	return keyContext{environment: environment, items: items}.canonical()
}

// CanonicalName and CanonicalContext are the forms decided at the edge.
var (
	CanonicalName    = canonicalName
	CanonicalContext = canonicalContext
)

// Held is how many unwrapped keys are in memory.
func (v *Vault) Held() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.byID) + len(v.byHash)
}

// ParseDataKey takes a wrapped data key apart.
func ParseDataKey(doc []byte) (head, envelope []byte, ok bool) {
	_, head, envelope, ok = parseDataKey(doc)
	return head, envelope, ok
}

// Holds reports whether doc has the bytes of v in it, raw or in base64 or hex.
func Holds(doc []byte, v secret.Value) bool {
	raw := v.Reveal()
	for _, form := range [][]byte{raw, []byte(base64.StdEncoding.EncodeToString(raw)), []byte(hex.EncodeToString(raw))} {
		if bytes.Contains(doc, form) {
			return true
		}
	}
	return false
}

// BlobRest is how many bytes of a blob are not the wrapped key or its length.
func BlobRest(b Blob) int { return len(b.nonce) + len(b.sealed) }

// InBlocksOf reserves uses of keys n at a time.
func (r Rotation) InBlocksOf(n int64) Rotation {
	r.block = n
	return r
}

// Together runs do in a transaction that others share.
func (v *Vault) Together(ctx context.Context, key string, do func(ctx context.Context, tx *sqldb.Tx) error) error {
	return v.update(ctx, key, do)
}
