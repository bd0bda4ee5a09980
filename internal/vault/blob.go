package vault

import (
	"bytes"
	"context"
	"encoding/base64"
	"slices"
	"strings"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Blob is what an SDK of WorkOS makes of data that it encrypts in the application,
// under a data key: that key in its wrapped form, and the rest to open it with. The
// SDKs do not agree on the order of the parts.
type Blob struct {
	Layout string // "node" (and Python), "go" or "legacy"
	Keys   []byte // the wrapped data key
	nonce  []byte
	sealed []byte // with the tag last
}

const (
	blobTag  = 16
	maxBlob  = MaxValue + maxWrapped + 256
	oldMagic = "WOS.EKM.v1\x00" // of what WorkOS itself wrapped
)

// ParseBlob recognises the three layouts by where the wrapped key stands:
//
//	node    iv[12] ‖ tag[16] ‖ leb128(len keys) ‖ keys ‖ ciphertext
//	go      leb128(len keys) ‖ keys ‖ nonce[12] ‖ ciphertext ‖ tag[16]
//	legacy  iv[32] ‖ tag[16] ‖ leb128(len keys) ‖ keys ‖ ciphertext
func ParseBlob(doc []byte) (Blob, bool) {
	for _, l := range []struct {
		name  string
		nonce int
	}{{"go", 0}, {"node", 12}, {"legacy", 32}} {
		head := 0
		if l.nonce > 0 {
			head = l.nonce + blobTag
		}
		if len(doc) < head {
			continue
		}
		keys, rest, ok := cutKeys(doc[head:])
		if !ok {
			continue
		}
		b := Blob{Layout: l.name, Keys: keys}
		if l.nonce == 0 {
			if len(rest) < 12+blobTag {
				continue
			}
			b.nonce, b.sealed = rest[:12], rest[12:]
		} else {
			b.nonce, b.sealed = doc[:l.nonce], slices.Concat(rest, doc[l.nonce:head])
		}
		return b, true
	}
	return Blob{}, false
}

// cutKeys takes a length and a wrapped key off the front.
func cutKeys(doc []byte) (keys, rest []byte, ok bool) {
	var n, shift uint
	for i, c := range doc[:min(len(doc), 4)] {
		n |= uint(c&0x7f) << shift
		shift += 7
		if c&0x80 != 0 {
			continue
		}
		rest = doc[i+1:]
		if n == 0 || n > uint(len(rest)) || i > 0 && c == 0 { // a length has one form
			return nil, nil, false
		}
		keys, rest = rest[:n], rest[n:]
		return keys, rest, bytes.HasPrefix(keys, []byte(DataKeyMagic)) || bytes.HasPrefix(keys, []byte(oldMagic))
	}
	return nil, nil, false
}

// DecryptBlob opens what any SDK made, for an application that may read under the
// data key's context. additional is what it was encrypted with as associated data.
func (v *Vault) DecryptBlob(ctx context.Context, c Caller, text string, additional []byte) (layout string, value secret.Value, err error) {
	unknown := fault.New(fault.Invalid, "invalid_blob", "That is not what an SDK's encrypt made.").
		WithHint("Send the whole text as it was stored, in base64.")
	text = strings.TrimSpace(text)
	if base64.StdEncoding.DecodedLen(len(text)) > maxBlob {
		return "", secret.Value{}, fault.New(fault.TooLarge, "value_too_large", "What was encrypted is over the limit of a value.")
	}
	doc, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return "", secret.Value{}, unknown
	}
	b, ok := ParseBlob(doc)
	if !ok {
		return "", secret.Value{}, unknown
	}
	if bytes.HasPrefix(b.Keys, []byte(oldMagic)) {
		return "", secret.Value{}, fault.New(fault.Invalid, "foreign_keys", "The data key was wrapped by WorkOS, and only WorkOS opens it.").
			WithHint("Decrypt it there, and encrypt it here.")
	}
	k, err := v.openDataKey(ctx, c, "data_key.decrypted", b.Keys)
	if err != nil {
		return "", secret.Value{}, err
	}
	value, err = crypt.OpenLocal(k.Key, b.nonce, b.sealed, additional)
	if err != nil {
		return "", secret.Value{}, v.deny(ctx, c, "data_key.decrypted", string(k.ID),
			fault.New(fault.Invalid, "blob_not_opened", "The blob does not open under its data key.").WithHint("It was changed, or encrypted with other associated data."))
	}
	return b.Layout, value, v.record(ctx, k.entry(c, "data_key.decrypted", "layout", b.Layout))
}
