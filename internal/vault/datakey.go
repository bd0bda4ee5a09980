package vault

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// DataKey is a key with which an application encrypts data that it keeps itself.
// It keeps Wrapped beside them, and gets Key back for it as long as the key of the
// context stands. Nothing of it is stored here.
type DataKey struct {
	ID      id.DataKey
	Key     secret.Value // 32 bytes
	Wrapped []byte
	Context map[string]string
	KEK     id.KEK
}

// DataKeyMagic is how a wrapped data key begins.
const DataKeyMagic = "AMB.EKM.v1\x00"

// A wrapped data key is
//
//	magic ‖ id, 16 bytes ‖ uvarint(len context) ‖ context, canonical JSON ‖ envelope
//
// The envelope is bound to everything before it: the key of the context opens it
// in this place only.
const maxWrapped = 32 << 10

// dataKeyAnswer is what is remembered of a request that made a data key: nothing
// that opens by itself.
type dataKeyAnswer struct{ Wrapped []byte }

// CreateDataKey makes a data key under the key of a context. A repeated request
// gets the same one.
func (v *Vault) CreateDataKey(ctx context.Context, c Caller, once Once, items map[string]string) (DataKey, error) {
	return v.makeDataKey(ctx, c, once, "data_key.created", id.NewDataKey(), crypt.NewSeed(), items)
}

// RekeyDataKey wraps a data key again, for another context. Data that it
// encrypted stay as they are; the wrapped form from before stays good as long as
// the key of its context stands.
func (v *Vault) RekeyDataKey(ctx context.Context, c Caller, once Once, wrapped []byte, items map[string]string) (DataKey, error) {
	k, err := v.openDataKey(ctx, c, "data_key.rekeyed", wrapped)
	if err != nil {
		return DataKey{}, err
	}
	return v.makeDataKey(ctx, c, once, "data_key.rekeyed", k.ID, k.Key, items)
}

func (v *Vault) makeDataKey(ctx context.Context, c Caller, once Once, action string, kid id.DataKey, key secret.Value, items map[string]string) (DataKey, error) {
	var before dataKeyAnswer
	if replayed, err := v.replay(ctx, c, once, &before); err != nil {
		return DataKey{}, err
	} else if replayed {
		k, err := v.openDataKey(ctx, c, action, before.Wrapped)
		if err != nil {
			return DataKey{}, err
		}
		return k, v.record(ctx, k.entry(c, action, "replayed", "true"))
	}
	items, err := canonicalContext(items)
	if err != nil {
		return DataKey{}, err
	}
	if err := v.mayMake(ctx, c, action, "", items); err != nil {
		return DataKey{}, err
	}
	k := DataKey{ID: kid, Key: key, Context: items}
	head, err := k.head()
	if err != nil {
		return DataKey{}, err
	}
	kek, envelope, err := v.sealAt(ctx, keyContext{c.Environment, items}, head, key)
	if err != nil {
		return DataKey{}, err
	}
	k.KEK, k.Wrapped = kek, append(head, envelope...)
	digest, err := v.sealDigest(ctx, c, once)
	if err != nil {
		return DataKey{}, err
	}
	first := true
	err = v.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if first, err = v.remember(ctx, tx, c, once, digest, dataKeyAnswer{k.Wrapped}); err != nil || !first {
			return err
		}
		if err := keepVersion(ctx, tx, envelope); err != nil {
			return err
		}
		v.audit.AppendEvent(tx, k.entry(c, action))
		return nil
	})
	if err != nil {
		return DataKey{}, sqldb.Wrap("record a data key", err)
	}
	if !first {
		return v.makeDataKey(ctx, c, once, action, kid, key, items)
	}
	return k, nil
}

// DecryptDataKey gives a data key back for its wrapped form. What does not open
// in the caller's environment and reach is an Invalid fault, whatever the reason.
func (v *Vault) DecryptDataKey(ctx context.Context, c Caller, wrapped []byte) (DataKey, error) {
	k, err := v.openDataKey(ctx, c, "data_key.decrypted", wrapped)
	if err != nil {
		return DataKey{}, err
	}
	return k, v.record(ctx, k.entry(c, "data_key.decrypted"))
}

func (k DataKey) entry(c Caller, action string, detail ...string) audit.Entry {
	e := c.entry(action, Object{Environment: c.Environment, Context: k.Context, KEK: k.KEK}, append(detail, "key_context", contextText(k.Context))...)
	delete(e.Detail, "name")
	delete(e.Detail, "version_id")
	e.Object = string(k.ID)
	return e
}

// head is the part of a wrapped key that says what it is.
func (k DataKey) head() ([]byte, error) {
	items, err := strictjson.CanonicalOf(k.Context)
	if err != nil {
		return nil, err
	}
	kid := k.ID.Bytes()
	head := append([]byte(DataKeyMagic), kid[:]...)
	return append(binary.AppendUvarint(head, uint64(len(items))), items...), nil
}

// openDataKey opens what a caller sent. It is no alarm when that fails: anybody
// with a key can send anything.
func (v *Vault) openDataKey(ctx context.Context, c Caller, action string, wrapped []byte) (DataKey, error) {
	refuse := func(kid string) error {
		return v.deny(ctx, c, action, kid, fault.New(fault.Invalid, "invalid_encrypted_keys", "These encrypted keys do not open.").
			WithHint("They were changed, or belong to another environment, or their key is gone."))
	}
	k, head, envelope, ok := parseDataKey(wrapped)
	if !ok {
		return DataKey{}, refuse("")
	}
	if c.Organization != "" && k.Context[organizationItem] != string(c.Organization) {
		return DataKey{}, refuse(string(k.ID))
	}
	if may, knows := c.Reach.may(Read, "", k.Context); !may && !knows {
		return DataKey{}, refuse(string(k.ID))
	} else if !may {
		return DataKey{}, v.deny(ctx, c, action, string(k.ID), outOfReach(Read))
	}
	kekID, version, err := crypt.Inspect(envelope)
	if err != nil {
		return DataKey{}, refuse(string(k.ID))
	}
	kek, err := v.kekByID(ctx, kekID, version)
	if fault.Is(err, CodeKeyMissing) {
		return DataKey{}, refuse(string(k.ID))
	}
	if err != nil {
		return DataKey{}, err
	}
	if kek.hash != (keyContext{c.Environment, k.Context}).hash() {
		return DataKey{}, refuse(string(k.ID))
	}
	if k.Key, err = kek.Open(head, envelope); err != nil {
		return DataKey{}, refuse(string(k.ID))
	}
	k.KEK = id.KEKFromBytes(kekID)
	return k, nil
}

// parseDataKey takes a wrapped key apart. It accepts what head writes and nothing else.
func parseDataKey(wrapped []byte) (k DataKey, head, envelope []byte, ok bool) {
	rest, ok := bytes.CutPrefix(wrapped, []byte(DataKeyMagic))
	if !ok || len(wrapped) > maxWrapped || len(rest) < 16 {
		return DataKey{}, nil, nil, false
	}
	k.ID, rest = id.DataKeyFromBytes([16]byte(rest)), rest[16:]
	n, used := binary.Uvarint(rest)
	if used <= 0 || n > uint64(len(rest)-used) {
		return DataKey{}, nil, nil, false
	}
	items, envelope := rest[used:used+int(n)], rest[used+int(n):]
	if json.Unmarshal(items, &k.Context) != nil {
		return DataKey{}, nil, nil, false
	}
	head, err := k.head()
	if err != nil || !bytes.HasPrefix(wrapped, head) {
		return DataKey{}, nil, nil, false
	}
	k.Wrapped = wrapped
	return k, head, envelope, true
}
