package vault_test

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
)

// Issue 4: a data key comes back for its wrapped form, in its environment only, and
// moves to another context; of it the database keeps nothing that opens alone.
func TestDataKeys(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		n := newNode(t, db, newKeeper(t))
		c := newCaller()
		org := id.NewOrganization()
		items := map[string]string{"organization_id": string(org)}
		k, err := n.CreateDataKey(t.Context(), c, vault.Once{}, items)
		if err != nil || k.Key.Len() != 32 || k.Context["organization_id"] != string(org) {
			t.Fatalf("made %+v, %v", k, err)
		}
		other, err := n.CreateDataKey(t.Context(), c, vault.Once{}, items)
		if err != nil || other.ID == k.ID || other.Key.Equal(k.Key) || other.KEK != k.KEK {
			t.Fatalf("another one: %+v, %v", other, err)
		}
		n = n.restarted()
		back, err := n.DecryptDataKey(t.Context(), c, k.Wrapped)
		if err != nil || back.ID != k.ID || !back.Key.Equal(k.Key) || back.KEK != k.KEK {
			t.Errorf("decrypted %+v, %v", back, err)
		}
		moved, err := n.RekeyDataKey(t.Context(), c, vault.Once{}, k.Wrapped, map[string]string{"tier": "1"})
		if err != nil || moved.ID != k.ID || !moved.Key.Equal(k.Key) || moved.KEK == k.KEK || moved.Context["tier"] != "1" {
			t.Errorf("rekeyed %+v, %v", moved, err)
		}
		if back, err := n.DecryptDataKey(t.Context(), c, moved.Wrapped); err != nil || !back.Key.Equal(k.Key) {
			t.Errorf("decrypted after rekey: %v", err)
		}
		limited, stranger, narrow, prefixed := c, newCaller(), c, c
		limited.Organization = id.NewOrganization()
		narrow.Reach = vault.Within([]vault.Rule{{Verbs: vault.Verbs(), Context: map[string]string{"tier": "1"}}})
		prefixed.Reach = vault.Within([]vault.Rule{{Verbs: vault.Verbs(), Prefix: "p"}})
		for what, who := range map[string]vault.Caller{"another organization": limited, "another environment": stranger, "out of reach": narrow, "rule about names": prefixed} {
			if _, err := n.DecryptDataKey(t.Context(), who, k.Wrapped); !fault.Is(err, "invalid_encrypted_keys") {
				t.Errorf("%s: got %v", what, err)
			}
			if _, err := n.RekeyDataKey(t.Context(), who, vault.Once{}, k.Wrapped, nil); !fault.Is(err, "invalid_encrypted_keys") {
				t.Errorf("rekey by %s: got %v", what, err)
			}
		}
		if _, err := n.DecryptDataKey(t.Context(), narrow, moved.Wrapped); err != nil {
			t.Errorf("within reach: %v", err)
		}
		if _, err := n.CreateDataKey(t.Context(), narrow, vault.Once{}, items); !fault.Is(err, "not_allowed") {
			t.Errorf("create out of reach: got %v", err)
		}
		if _, err := n.CreateDataKey(t.Context(), limited, vault.Once{}, items); !fault.Is(err, "organization_required") {
			t.Errorf("create for another organization: got %v", err)
		}
	})
}

// Every bit of a wrapped data key counts, and what does not open is no alarm: a
// caller can send anything.
func TestDataKeyBits(t *testing.T) {
	t.Parallel()
	n := newNode(t, sqldbtest.Open(t, sqldb.SQLite), newKeeper(t))
	c := newCaller()
	k, err := n.CreateDataKey(t.Context(), c, vault.Once{}, map[string]string{"a": "b"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(k.Wrapped) * 8 {
		w := bytes.Clone(k.Wrapped)
		w[i/8] ^= 1 << (i % 8)
		if _, err := n.DecryptDataKey(t.Context(), c, w); !fault.Is(err, "invalid_encrypted_keys") {
			t.Fatalf("bit %d: got %v", i, err)
		}
	}
	for _, w := range [][]byte{nil, k.Wrapped[:len(k.Wrapped)-1], append(bytes.Clone(k.Wrapped), 0), bytes.Repeat([]byte("A"), 100<<10)} {
		if _, err := n.DecryptDataKey(t.Context(), c, w); !fault.Is(err, "invalid_encrypted_keys") {
			t.Errorf("%d bytes: got %v", len(w), err)
		}
	}
	if got := count(t, n.db, `select count(*) from audit_entry where action = 'vault.integrity_failed'`); got != 0 {
		t.Errorf("%d alarms", got)
	}
}

// A repeated request gets the same data key, of which only the wrapped form is kept.
func TestDataKeyOnce(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		clock := time.Now()
		n := at(t, db, &clock)
		c := newCaller()
		once := vault.Once{Key: "retry-1", Digest: [32]byte{1}}
		keys := make([]vault.DataKey, 6)
		var wg sync.WaitGroup
		for i := range keys {
			wg.Go(func() {
				var err error
				if keys[i], err = n.CreateDataKey(t.Context(), c, once, map[string]string{"a": "b"}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, k := range keys[1:] {
			if k.ID != keys[0].ID || !k.Key.Equal(keys[0].Key) || !bytes.Equal(k.Wrapped, keys[0].Wrapped) {
				t.Errorf("got %s and %s", k.ID, keys[0].ID)
			}
		}
		var kept []byte
		if err := db.Reader().QueryRowContext(t.Context(), `select answer from secret_request`).Scan(&kept); err != nil {
			t.Fatal(err)
		}
		if vault.Holds(kept, keys[0].Key) {
			t.Error("the key itself was kept")
		}
		if _, err := n.CreateDataKey(t.Context(), c, vault.Once{Key: "retry-1", Digest: [32]byte{2}}, nil); !fault.Is(err, "idempotency_mismatch") {
			t.Errorf("another request: got %v", err)
		}
		clock = clock.Add(24 * time.Hour)
		if k, err := n.CreateDataKey(t.Context(), c, once, map[string]string{"a": "b"}); err != nil || k.ID == keys[0].ID {
			t.Errorf("a day later: %v, %v", k.ID, err)
		}
	})
}

// K10: nothing makes the decoder panic, and what it accepts it would write alike.
func FuzzWrappedDataKey(f *testing.F) {
	f.Add([]byte(vault.DataKeyMagic + "0123456789abcdef\x02{}envelope"))
	f.Add([]byte(vault.DataKeyMagic + "0123456789abcdef\x09{\"a\":\"b\"}envelope"))
	f.Add([]byte(vault.DataKeyMagic))
	f.Fuzz(func(t *testing.T, doc []byte) {
		if head, envelope, ok := vault.ParseDataKey(doc); ok && !bytes.Equal(append(bytes.Clone(head), envelope...), doc) {
			t.Errorf("%q reads as %q and %q", doc, head, envelope)
		}
	})
}
