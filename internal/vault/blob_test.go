package vault_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
)

func leb128(n int) (out []byte) {
	for ; n >= 0x80; n >>= 7 {
		out = append(out, byte(n)|0x80)
	}
	return append(out, byte(n))
}

// blobs are the same data as each SDK would keep them.
func blobs(t testing.TB, key, wrapped []byte, text, additional string) map[string][]byte {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	seal := func(n int) (nonce, ct, tag []byte) {
		nonce = bytes.Repeat([]byte{7}, n)
		var out []byte
		fips140.WithoutEnforcement(func() { // it is the application that seals
			aead, err := cipher.NewGCMWithNonceSize(block, n)
			if err != nil {
				t.Fatal(err)
			}
			out = aead.Seal(nil, nonce, []byte(text), []byte(additional))
		})
		return nonce, out[:len(out)-16], out[len(out)-16:]
	}
	length := leb128(len(wrapped))
	n12, ct12, tag12 := seal(12)
	n32, ct32, tag32 := seal(32)
	return map[string][]byte{
		"node": slices.Concat(n12, tag12, length, wrapped, ct12), "go": slices.Concat(length, wrapped, n12, ct12, tag12),
		"legacy": slices.Concat(n32, tag32, length, wrapped, ct32),
	}
}

// Issue 4 (workos.md §1.4): what any of the SDKs encrypted opens, whichever order of
// parts it has; nothing else does.
func TestBlobsOfEverySDK(t *testing.T) {
	t.Parallel()
	n := newNode(t, sqldbtest.Open(t, sqldb.SQLite), newKeeper(t))
	c := newCaller()
	k, err := n.CreateDataKey(t.Context(), c, vault.Once{}, map[string]string{"organization_id": "org_1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "x", "text \u00e9", strings.Repeat("long ", 2000)} {
		for layout, blob := range blobs(t, k.Key.Reveal(), k.Wrapped, text, "row 1") {
			doc := base64.StdEncoding.EncodeToString(blob)
			got, value, err := n.DecryptBlob(t.Context(), c, " "+doc+"\n", []byte("row 1"))
			if layout == "legacy" && fips140.Enforced() {
				if err == nil {
					t.Error("its long nonce was taken under FIPS 140 only")
				}
				continue
			}
			if err != nil || got != layout || !value.Equal(secret.FromString(text)) {
				t.Errorf("%s with %d bytes: layout %q, %v", layout, len(text), got, err)
			}
			if _, _, err := n.DecryptBlob(t.Context(), c, doc, []byte("row 2")); !fault.Is(err, "blob_not_opened") {
				t.Errorf("%s with other associated data: got %v", layout, err)
			}
			if _, _, err := n.DecryptBlob(t.Context(), newCaller(), doc, []byte("row 1")); !fault.Is(err, "invalid_encrypted_keys") {
				t.Errorf("%s for a stranger: got %v", layout, err)
			}
			if len(text) != 1 {
				continue
			}
			for i := range blob {
				changed := bytes.Clone(blob)
				changed[i] ^= 1
				if _, _, err := n.DecryptBlob(t.Context(), c, base64.StdEncoding.EncodeToString(changed), []byte("row 1")); fault.KindOf(err) != fault.Invalid {
					t.Errorf("%s with byte %d changed: got %v", layout, i, err)
				}
			}
		}
	}
	for what, doc := range map[string]string{"nothing": "", "no base64": "!", "short": "AAAA", "no keys": base64.StdEncoding.EncodeToString(make([]byte, 300))} {
		if _, _, err := n.DecryptBlob(t.Context(), c, doc, nil); !fault.Is(err, "invalid_blob") {
			t.Errorf("%s: got %v", what, err)
		}
	}
	theirs := blobs(t, k.Key.Reveal(), []byte("WOS.EKM.v1\x00"+strings.Repeat("k", 195)), "x", "")
	for layout, blob := range theirs {
		if _, _, err := n.DecryptBlob(t.Context(), c, base64.StdEncoding.EncodeToString(blob), nil); !fault.Is(err, "foreign_keys") {
			t.Errorf("%s wrapped by WorkOS: got %v", layout, err)
		}
	}
}

// K10: no blob makes the parser panic or read past its end, and each way to read one
// accounts for all of its bytes.
func FuzzBlob(f *testing.F) {
	wrapped := []byte(vault.DataKeyMagic + "0123456789abcdef\x02{}envelope")
	for _, b := range blobs(f, make([]byte, 32), wrapped, "text", "") {
		f.Add(b)
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, doc []byte) {
		b, ok := vault.ParseBlob(doc)
		if !ok {
			return
		}
		if n := len(b.Keys) + vault.BlobRest(b) + len(leb128(len(b.Keys))); n != len(doc) || !bytes.Contains(doc, b.Keys) {
			t.Errorf("%q: read %d of %d bytes as %s", doc, n, len(doc), b.Layout)
		}
	})
}
