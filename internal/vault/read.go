package vault

import (
	"context"
	"encoding/json"
	"strconv"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Get gives a secret and its value. The read is on record before the value
// leaves; without the record there is no value (threats.md L2). A person reads
// with Reveal.
func (v *Vault) Get(ctx context.Context, c Caller, s id.Secret) (Object, secret.Value, error) {
	r, err := v.find(ctx, c, Read, "secret.read", s)
	if err != nil {
		return Object{}, secret.Value{}, err
	}
	return v.give(ctx, c, r)
}

// GetByName is Get for the secret that has this name in the caller's environment.
func (v *Vault) GetByName(ctx context.Context, c Caller, name string) (Object, secret.Value, error) {
	canonical, err := canonicalName(name)
	if err != nil {
		return Object{}, secret.Value{}, v.deny(ctx, c, "secret.read", "", absent)
	}
	r, err := objectByName(ctx, v.db.Near(), c, canonical)
	if err = v.found(ctx, c, Read, "secret.read", canonical, r, err); err != nil {
		return Object{}, secret.Value{}, err
	}
	return v.give(ctx, c, r)
}

// GetVersion is Get for the value that a secret had. The object is as it is now,
// but for version, content and size.
func (v *Vault) GetVersion(ctx context.Context, c Caller, s id.Secret, versionID string) (Object, secret.Value, error) {
	r, err := v.find(ctx, c, Read, "secret.read", s)
	if err != nil {
		return Object{}, secret.Value{}, err
	}
	if r, err = v.then(ctx, c, "secret.read", r, versionID); err != nil {
		return Object{}, secret.Value{}, err
	}
	return v.give(ctx, c, r)
}

// then is r as it was at a version; only the value is of then.
func (v *Vault) then(ctx context.Context, c Caller, action string, r objectRow, versionID string) (objectRow, error) {
	if versionID == r.VersionID {
		return r, nil
	}
	old, err := versionByID(ctx, v.db.Reader(), r.ID, versionID)
	if sqldb.NoRows(err) {
		return objectRow{}, v.deny(ctx, c, action, string(r.ID), fault.New(fault.NotFound, "version_not_found", "The secret has no such version."))
	}
	if err != nil {
		return objectRow{}, sqldb.Wrap("look up a version of a secret", err)
	}
	r.VersionID, r.Version, r.Content, r.Size, r.envelope = old.ID, old.Version, old.Content, old.Size, old.envelope
	return r, nil
}

// give opens a value for an application.
func (v *Vault) give(ctx context.Context, c Caller, r objectRow) (Object, secret.Value, error) {
	if c.Actor.Kind == "user" {
		return Object{}, secret.Value{}, v.deny(ctx, c, "secret.read", string(r.ID),
			fault.New(fault.Denied, "proof_required", "A person reads a value with their passkey, for exactly this value."))
	}
	value, err := v.openFor(ctx, c, r)
	if err != nil {
		return Object{}, secret.Value{}, err
	}
	if err := v.record(ctx, c.entry("secret.read", r.Object)); err != nil {
		return Object{}, secret.Value{}, err
	}
	return r.Object, value, nil
}

// Use gives a connection at a provider the value of a secret that has this id or
// name, also of one that is write-only. It is for what sends the value there and
// shows it to nobody; the record says where it goes.
func (v *Vault) Use(ctx context.Context, c Caller, ref, provider string) (secret.Value, error) {
	var r objectRow
	var err error
	var sid id.Secret
	if parseID(&sid, ref) == nil {
		r, err = objectByID(ctx, v.db.Near(), c, sid)
	} else if ref, err = canonicalName(ref); err == nil {
		r, err = objectByName(ctx, v.db.Near(), c, ref)
	} else {
		return secret.Value{}, v.deny(ctx, c, "secret.used", "", absent)
	}
	if err = v.found(ctx, c, Read, "secret.used", ref, r, err); err != nil {
		return secret.Value{}, err
	}
	if c.Actor.Kind == "user" {
		return secret.Value{}, v.deny(ctx, c, "secret.used", string(r.ID), fault.New(fault.Denied, "api_key_required", "A stored value is put into a connection for API keys only.").
			WithHint("Set AMBIT_API_KEY to one with the scopes connections:write and vault:read, or give the value itself."))
	}
	r.WriteOnly = false
	value, err := v.openFor(ctx, c, r)
	if err != nil {
		return secret.Value{}, err
	}
	e := c.entry("secret.used", r.Object)
	e.Provider = provider
	return value, v.record(ctx, e)
}

// openFor opens the value of r unless nobody may have it.
func (v *Vault) openFor(ctx context.Context, c Caller, r objectRow) (secret.Value, error) {
	switch {
	case r.WriteOnly:
		return secret.Value{}, v.deny(ctx, c, "secret.read", string(r.ID), fault.New(fault.Denied, "write_only", "Nobody reads the value of this secret.").
			WithHint("It is for connections. Store a new value instead."))
	case !r.ExpiresAt.IsZero() && !v.now().Before(r.ExpiresAt):
		return secret.Value{}, v.deny(ctx, c, "secret.read", string(r.ID), fault.New(fault.Expired, "secret_expired", "The value of this secret has expired.").
			WithHint("Store a new value, or move its end."))
	}
	value, err := v.openAt(ctx, r.context(), r.place(), r.envelope, r.named())
	if err != nil && ctx.Err() == nil { // its key is destroyed or away, or it was changed
		return secret.Value{}, v.deny(ctx, c, "secret.read", string(r.ID), fault.Of(err))
	}
	return value, err
}

// Weigh decides in tx whether a person may see the value of o now, and gives what
// the record keeps of their agreement.
type Weigh func(ctx context.Context, tx *sqldb.Tx, o Object) (evidence json.RawMessage, err error)

// Reveal gives a person the value of one version; an empty id is the current one.
// The value leaves only after weigh agreed, with the record in its transaction.
func (v *Vault) Reveal(ctx context.Context, c Caller, s id.Secret, versionID string, weigh Weigh) (Object, secret.Value, error) {
	r, err := v.find(ctx, c, Read, "secret.read", s)
	if err == nil && versionID != "" {
		r, err = v.then(ctx, c, "secret.read", r, versionID)
	}
	if err != nil {
		return Object{}, secret.Value{}, err
	}
	value, err := v.openFor(ctx, c, r)
	if err != nil {
		return Object{}, secret.Value{}, err
	}
	err = v.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		e := c.entry("secret.read", r.Object)
		if e.Evidence, err = weigh(ctx, tx, r.Object); err != nil {
			return err
		}
		v.audit.AppendEvent(tx, e)
		return nil
	})
	if err != nil {
		return Object{}, secret.Value{}, sqldb.Wrap("record the reading of a secret", err)
	}
	return r.Object, value, nil
}

// Describe gives a secret without its value; nothing is decrypted.
func (v *Vault) Describe(ctx context.Context, c Caller, s id.Secret) (Object, error) {
	r, err := objectByID(ctx, v.db.Reader(), c, s)
	return v.described(ctx, c, s, r, err)
}

// DescribeAny is Describe, also for a secret that is deleted and can be taken back.
func (v *Vault) DescribeAny(ctx context.Context, c Caller, s id.Secret) (Object, error) {
	r, err := anyObjectByID(ctx, v.db.Reader(), c, s)
	return v.described(ctx, c, s, r, err)
}

func (v *Vault) described(ctx context.Context, c Caller, s id.Secret, r objectRow, err error) (Object, error) {
	if err = v.found(ctx, c, List, "secret.described", string(s), r, err); err != nil {
		return Object{}, err
	}
	if err := v.record(ctx, c.entry("secret.described", r.Object)); err != nil {
		return Object{}, err
	}
	return r.Object, nil
}

// DescribeByName is Describe for the secret that has this name now.
func (v *Vault) DescribeByName(ctx context.Context, c Caller, name string) (Object, error) {
	canonical, err := canonicalName(name)
	if err != nil {
		return Object{}, v.deny(ctx, c, "secret.described", "", absent)
	}
	r, err := objectByName(ctx, v.db.Near(), c, canonical)
	if err = v.found(ctx, c, List, "secret.described", canonical, r, err); err != nil {
		return Object{}, err
	}
	if err := v.record(ctx, c.entry("secret.described", r.Object)); err != nil {
		return Object{}, err
	}
	return r.Object, nil
}

// maxVersionsListed bounds one list of versions; older ones can still be read by
// their ids.
const maxVersionsListed = 1000

// Versions lists the kept versions of a secret, newest first, at most 1,000.
func (v *Vault) Versions(ctx context.Context, c Caller, s id.Secret) ([]VersionInfo, error) {
	r, err := v.find(ctx, c, List, "secret.described", s)
	if err != nil {
		return nil, err
	}
	versions, err := versionsOf(ctx, v.db.Reader(), r.ID, maxVersionsListed)
	if err != nil {
		return nil, sqldb.Wrap("list the versions of a secret", err)
	}
	if err := v.record(ctx, c.entry("secret.described", r.Object, "versions", strconv.Itoa(len(versions)))); err != nil {
		return nil, err
	}
	return versions, nil
}
