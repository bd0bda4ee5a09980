package vault

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// NewObject is a named secret to store. Only Name and the value are required.
type NewObject struct {
	Name    string
	Context map[string]string // key context
	Value
	Facts
	WriteOnly bool
}

// Create stores a new named secret.
func (v *Vault) Create(ctx context.Context, c Caller, n NewObject) (Object, error) {
	o, _, err := v.CreateOnce(ctx, c, Once{}, n)
	return o, err
}

// CreateOnce is Create for a request that may be a repetition; replayed says
// that it was. The same key with another digest is an Invalid fault with the
// code "idempotency_mismatch".
func (v *Vault) CreateOnce(ctx context.Context, c Caller, once Once, n NewObject) (o Object, replayed bool, err error) {
	replayed, err = v.replay(ctx, c, once, &o)
	if err != nil {
		return Object{}, false, err
	}
	if replayed {
		return o, true, v.record(ctx, c.entry("secret.described", o, "replayed", "true"))
	}
	o, err = v.newObject(ctx, c, &n)
	if err != nil {
		return Object{}, false, err
	}
	row, err := v.sealVersion(ctx, &o, n.Secret)
	if err != nil {
		return Object{}, false, err
	}
	digest, err := v.sealDigest(ctx, c, once)
	if err != nil {
		return Object{}, false, err
	}
	first := true
	err = v.update(ctx, string(o.Environment)+" "+o.Name, func(ctx context.Context, tx *sqldb.Tx) error {
		if first, err = v.remember(ctx, tx, c, once, digest, o); err != nil || !first {
			return err
		}
		if err := insertObject(ctx, tx, o); err != nil {
			return err
		}
		if err := insertLabels(ctx, tx, o.ID, o.Environment, labelsOf(o.Context, o.Tags)); err != nil {
			return err
		}
		if err := insertVersion(ctx, tx, row); err != nil {
			return err
		}
		v.audit.AppendEvent(tx, c.entry("secret.created", o, "key_context", contextText(o.Context)))
		return nil
	})
	switch {
	case sqldb.IsUnique(err):
		return Object{}, false, nameExists()
	case err != nil:
		return Object{}, false, sqldb.Wrap("store a secret", err)
	case !first:
		return v.CreateOnce(ctx, c, once, n)
	}
	return o, false, nil
}

func nameExists() error {
	return fault.New(fault.Conflict, "name_exists", "An object with this name already exists.").
		WithHint("Choose another name, or update the secret that has it.")
}

// newObject checks n, completes its value, and decides whether c may store it.
func (v *Vault) newObject(ctx context.Context, c Caller, n *NewObject) (o Object, err error) {
	now := micro(v.now())
	o = Object{ID: id.NewSecret(), Environment: c.Environment, Version: 1, VersionID: id.Sortable(), CreatedAt: now,
		UpdatedAt: now, UpdatedBy: c.Actor, UpdatedByName: c.Name, WriteOnly: n.WriteOnly}
	if o.Name, err = canonicalName(n.Name); err != nil {
		return Object{}, err
	}
	if o.Context, err = canonicalContext(n.Context); err != nil {
		return Object{}, err
	}
	if o.Facts, err = n.Facts.canonical(); err != nil {
		return Object{}, err
	}
	if n.Value, err = n.Value.checked(); err != nil {
		return Object{}, err
	}
	o.hold(n.Value)
	if err := v.mayMake(ctx, c, "secret.created", o.Name, o.Context); err != nil {
		return Object{}, err
	}
	return o, nil
}

// mayMake decides whether c may seal something new under this name and context.
func (v *Vault) mayMake(ctx context.Context, c Caller, action, name string, items map[string]string) error {
	if c.Organization != "" && items[organizationItem] != string(c.Organization) {
		denied := fault.New(fault.Denied, "organization_required", "This caller may store secrets of its own organization only.").
			WithHint(fmt.Sprintf("Set key_context.%s to %q.", organizationItem, c.Organization))
		return v.deny(ctx, c, action, name, denied)
	}
	if may, _ := c.Reach.may(Write, name, items); !may {
		return v.deny(ctx, c, action, name, outOfReach(Write))
	}
	return nil
}

// hold makes o's facts about its value those of a checked one.
func (o *Object) hold(value Value) {
	o.Content, o.Size, o.ExpiresAt, o.RotateBy = value.Content, int64(value.Secret.Len()), value.ExpiresAt, value.RotateBy
}

// sealVersion makes the row of o's current version.
func (v *Vault) sealVersion(ctx context.Context, o *Object, value secret.Value) (version, error) {
	kek, envelope, err := v.sealAt(ctx, o.context(), o.place(), value)
	if err != nil {
		return version{}, err
	}
	o.KEK = kek
	// The hash is of the envelope: that of the value would let it be guessed.
	sum := sha256.Sum256(envelope)
	return version{object: o.ID, envelope: envelope, VersionInfo: VersionInfo{ID: o.VersionID, Version: o.Version, CreatedAt: o.UpdatedAt,
		CreatedBy: o.UpdatedBy, CreatedByName: o.UpdatedByName, Content: o.Content, Size: o.Size, ETag: hex.EncodeToString(sum[:])}}, nil
}

// Once names a request that makes something, so that repeating it within 24
// hours repeats the answer and not the work. The zero Once is a request without
// a name.
type Once struct {
	Key    string
	Digest [32]byte // of the whole request
}

const requestLife = 24 * time.Hour

func (o Once) keyHash() []byte {
	sum := sha256.Sum256([]byte(o.Key))
	return sum[:]
}

// place is where the digest of a request is sealed. In clear it would let a
// thief of the database try out values: everything else it covers is known.
func (o Once) place(c Caller) Place {
	return Place{Environment: c.Environment, Kind: "secret_request", Object: c.Actor.ID + " " + hex.EncodeToString(o.keyHash()), Version: 1}
}

func (v *Vault) sealDigest(ctx context.Context, c Caller, once Once) ([]byte, error) {
	if once.Key == "" {
		return nil, nil
	}
	return v.Seal(ctx, once.place(c), secret.New(once.Digest[:]))
}

// Keep stores the answer to a request that has been carried out elsewhere, in a
// transaction of its own. The answer must hold no value and no key in clear.
func (v *Vault) Keep(ctx context.Context, c Caller, once Once, answer any) error {
	digest, err := v.sealDigest(ctx, c, once)
	if err != nil {
		return err
	}
	return v.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		_, err := v.remember(ctx, tx, c, once, digest, answer)
		return err
	})
}

// Alone waits until nobody else, on any node, works on a request of this key, for most
// at most. Call release when it is done; whoever dies before is waited for as long as
// the request may take.
func (v *Vault) Alone(ctx context.Context, c Caller, once Once, most time.Duration) (release func(), err error) {
	name := "request " + c.Actor.ID + " " + hex.EncodeToString(once.keyHash())
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		lease, got, err := v.db.Acquire(ctx, name, most)
		if err != nil {
			return nil, err
		}
		if got {
			return func() {
				if err := lease.Release(context.WithoutCancel(ctx)); err != nil {
					v.log.WarnContext(ctx, "a lease could not be given back, and ends by itself", "lease", name, "error", err)
				}
			}, nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, fault.New(fault.Conflict, "request_running", "The request of this idempotency key is still being carried out.").WithHint("Wait, then send it again with the same key.")
		}
	}
}

// Kept fills in the answer that was stored for a request; false: there is none.
func (v *Vault) Kept(ctx context.Context, c Caller, once Once, answer any) (bool, error) {
	return v.replay(ctx, c, once, answer)
}

// remember reports whether this is the first request of its name, and then keeps
// its answer, which holds no value and no key in clear.
func (v *Vault) remember(ctx context.Context, tx *sqldb.Tx, c Caller, once Once, digest []byte, answer any) (first bool, err error) {
	if once.Key == "" {
		return true, nil
	}
	doc, err := json.Marshal(answer)
	if err != nil {
		return false, fmt.Errorf("encoding an answer: %w", err)
	}
	return rememberRequest(ctx, tx, c.Actor.ID, once.keyHash(), request{digest, doc}, v.now())
}

// replay fills in the answer to a repeated request. It reports false for a new one.
func (v *Vault) replay(ctx context.Context, c Caller, once Once, answer any) (bool, error) {
	if once.Key == "" {
		return false, nil
	}
	r, err := requestByKey(ctx, v.db.Reader(), c.Actor.ID, once.keyHash(), v.now().Add(-requestLife))
	if sqldb.NoRows(err) {
		return false, nil
	}
	if err != nil {
		return false, sqldb.Wrap("look up an earlier request", err)
	}
	digest, err := v.Open(ctx, once.place(c), r.digestSealed)
	if err != nil {
		return false, err
	}
	if !digest.Equal(secret.New(once.Digest[:])) {
		return false, fault.New(fault.Invalid, "idempotency_mismatch", "This idempotency key was used for another request.").
			WithHint("Use a new key for a new request.")
	}
	if err := json.Unmarshal(r.answer, answer); err != nil {
		return false, fmt.Errorf("reading the answer to an earlier request: %w", err)
	}
	return true, nil
}
