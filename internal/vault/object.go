package vault

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Caller is on whose behalf a named secret is touched. With an organization the
// caller sees the secrets whose key context names exactly that organization;
// all others look absent.
type Caller struct {
	Actor        audit.Actor
	Name         string // of the actor, for people
	Environment  id.Environment
	Organization id.Organization // empty: the whole environment
	Address      string
}

// Object describes a named secret, without its value.
type Object struct {
	ID            id.Secret
	Name          string
	Environment   id.Environment
	Context       map[string]string // key context, as the application gave it
	KEK           id.KEK
	VersionID     string
	Version       int64
	CreatedAt     time.Time
	UpdatedAt     time.Time
	UpdatedBy     audit.Actor
	UpdatedByName string
}

func (o Object) context() keyContext { return keyContext{environment: o.Environment, items: o.Context} }

// place binds a value to everything that says which secret it is: swapping
// rows, names, contexts or versions makes it unreadable (threats.md K1).
func (o Object) place() []byte {
	return crypt.Fields("ambit secret 1", string(o.context().canonical()), string(o.ID), o.Name, strconv.FormatInt(o.Version, 10))
}

func (o Object) named() Place { return Place{Kind: "secret", Object: string(o.ID), Version: o.Version} }

// VersionInfo describes one kept value of a named secret.
type VersionInfo struct {
	ID        string
	Version   int64
	CreatedAt time.Time
	Current   bool
	Size      int64  // of the value, in bytes
	ETag      string // differs between any two versions; says nothing about the value
}

// Once names a create request, so that repeating it within 24 hours repeats the
// answer and not the work. The zero Once is a request without a name.
type Once struct {
	Key    string
	Digest [32]byte // of the whole request
}

const requestLife = 24 * time.Hour

// Create stores a new named secret.
func (v *Vault) Create(ctx context.Context, c Caller, name string, keyContext map[string]string, value secret.Value) (Object, error) {
	o, _, err := v.CreateOnce(ctx, c, Once{}, name, keyContext, value)
	return o, err
}

// CreateOnce is Create for a request that may be a repetition; replayed says
// that it was. The same key with another digest is an Invalid fault with the
// code "idempotency_mismatch".
func (v *Vault) CreateOnce(ctx context.Context, c Caller, once Once, name string, items map[string]string, value secret.Value) (o Object, replayed bool, err error) {
	if once.Key != "" {
		if o, replayed, err = v.replay(ctx, c, once); replayed || err != nil {
			return o, replayed, err
		}
	}
	now := v.now().UTC().Truncate(time.Microsecond)
	o = Object{ID: id.NewSecret(), Environment: c.Environment, Version: 1, VersionID: newVersionID(), CreatedAt: now,
		UpdatedAt: now, UpdatedBy: c.Actor, UpdatedByName: c.Name}
	if o.Name, err = canonicalName(name); err != nil {
		return Object{}, false, err
	}
	if o.Context, err = canonicalContext(items); err != nil {
		return Object{}, false, err
	}
	if c.Organization != "" && o.Context[organizationItem] != string(c.Organization) {
		denied := fault.New(fault.Denied, "organization_required", "This caller may store secrets of its own organization only.").
			WithHint(fmt.Sprintf("Set key_context.%s to %q.", organizationItem, c.Organization))
		return Object{}, false, v.deny(ctx, c, "secret.created", o.Name, denied)
	}
	row, err := v.sealVersion(ctx, &o, value)
	if err != nil {
		return Object{}, false, err
	}
	var digest []byte
	if once.Key != "" {
		if digest, err = v.Seal(ctx, once.place(c), secret.New(once.Digest[:])); err != nil {
			return Object{}, false, err
		}
	}
	first := true
	err = v.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if once.Key != "" {
			if first, err = rememberRequest(ctx, tx, c.Actor.ID, once.keyHash(), digest, o, now.Add(-requestLife)); err != nil || !first {
				return err
			}
		}
		if err := insertObject(ctx, tx, o); err != nil {
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
		return Object{}, false, fault.New(fault.Conflict, "name_exists", "An object with this name already exists.").
			WithHint("Choose another name, or update the secret that has it.")
	case err != nil:
		return Object{}, false, sqldb.Wrap("store a secret", err)
	case !first:
		return v.replay(ctx, c, once)
	}
	return o, false, nil
}

func (o Once) keyHash() []byte {
	sum := sha256.Sum256([]byte(o.Key))
	return sum[:]
}

// place is where the digest of a request is sealed. In clear it would let a
// thief of the database try out values: everything else it covers is known.
func (o Once) place(c Caller) Place {
	return Place{Environment: c.Environment, Kind: "secret_request", Object: c.Actor.ID + " " + hex.EncodeToString(o.keyHash()), Version: 1}
}

// replay answers a repeated request. It reports false for a new one.
func (v *Vault) replay(ctx context.Context, c Caller, once Once) (Object, bool, error) {
	r, err := requestByKey(ctx, v.db.Reader(), c.Actor.ID, once.keyHash(), v.now().Add(-requestLife))
	if sqldb.NoRows(err) {
		return Object{}, false, nil
	}
	if err != nil {
		return Object{}, false, sqldb.Wrap("look up an earlier request", err)
	}
	digest, err := v.Open(ctx, once.place(c), r.digestSealed)
	if err != nil {
		return Object{}, false, err
	}
	if !digest.Equal(secret.New(once.Digest[:])) {
		return Object{}, false, fault.New(fault.Invalid, "idempotency_mismatch", "This idempotency key was used for another request.").
			WithHint("Use a new key for a new request.")
	}
	var o Object
	if err := json.Unmarshal(r.answer, &o); err != nil {
		return Object{}, false, fmt.Errorf("reading the answer to an earlier request: %w", err)
	}
	return o, true, v.record(ctx, c.entry("secret.described", o, "replayed", "true"))
}

// Update stores a new value. The versions before it are kept, and so are name
// and key context. With a versionCheck the update succeeds only if that is the
// id of the current version.
func (v *Vault) Update(ctx context.Context, c Caller, s id.Secret, value secret.Value, versionCheck string) (Object, error) {
	for range maxRaces {
		r, err := v.find(ctx, c, "secret.updated", s)
		if err != nil {
			return Object{}, err
		}
		if err := checkVersion(r.Object, versionCheck); err != nil {
			return Object{}, err
		}
		o := r.Object
		o.Version, o.VersionID = o.Version+1, newVersionID()
		o.UpdatedAt, o.UpdatedBy, o.UpdatedByName = v.now().UTC().Truncate(time.Microsecond), c.Actor, c.Name
		row, err := v.sealVersion(ctx, &o, value)
		if err != nil {
			return Object{}, err
		}
		var done bool
		err = v.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
			if done, err = advanceObject(ctx, tx, o); err != nil || !done {
				return err
			}
			v.audit.AppendEvent(tx, c.entry("secret.updated", o, "key_context", contextText(o.Context)))
			return insertVersion(ctx, tx, row)
		})
		if err != nil {
			return Object{}, sqldb.Wrap("update a secret", err)
		}
		if done {
			return o, nil
		}
	}
	return Object{}, errRaced
}

// Delete removes a secret with all its versions.
func (v *Vault) Delete(ctx context.Context, c Caller, s id.Secret, versionCheck string) (Object, error) {
	for range maxRaces {
		r, err := v.find(ctx, c, "secret.deleted", s)
		if err != nil {
			return Object{}, err
		}
		if err := checkVersion(r.Object, versionCheck); err != nil {
			return Object{}, err
		}
		var done bool
		err = v.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
			if done, err = deleteObject(ctx, tx, r.Object); err != nil || !done {
				return err
			}
			v.audit.AppendEvent(tx, c.entry("secret.deleted", r.Object))
			return nil
		})
		if err != nil {
			return Object{}, sqldb.Wrap("delete a secret", err)
		}
		if done {
			return r.Object, nil
		}
	}
	return Object{}, errRaced
}

// maxRaces is how often a change that others keep overtaking is tried.
const maxRaces = 10

var errRaced = fault.New(fault.Conflict, "version_mismatch", "The secret is being changed by others all the time.").WithHint("Try again.")

func checkVersion(o Object, versionCheck string) error {
	if versionCheck == "" || versionCheck == o.VersionID {
		return nil
	}
	return fault.New(fault.Conflict, "version_mismatch", "Version mismatch: the secret has changed since that version.").
		WithHint("Read it again and decide on the version it has now.")
}

// Get gives a secret and its value. The read is on record before the value
// leaves; without the record there is no value (threats.md L2).
func (v *Vault) Get(ctx context.Context, c Caller, s id.Secret) (Object, secret.Value, error) {
	r, err := v.find(ctx, c, "secret.read", s)
	if err != nil {
		return Object{}, secret.Value{}, err
	}
	return v.reveal(ctx, c, r)
}

// GetByName is Get for the secret that has this name in the caller's environment.
func (v *Vault) GetByName(ctx context.Context, c Caller, name string) (Object, secret.Value, error) {
	canonical, err := canonicalName(name)
	if err != nil {
		return Object{}, secret.Value{}, v.deny(ctx, c, "secret.read", "", absent)
	}
	r, err := objectByName(ctx, v.db.Reader(), c, canonical)
	if err = v.found(ctx, c, "secret.read", canonical, err); err != nil {
		return Object{}, secret.Value{}, err
	}
	return v.reveal(ctx, c, r)
}

func (v *Vault) reveal(ctx context.Context, c Caller, r objectRow) (Object, secret.Value, error) {
	value, err := v.openAt(ctx, r.context(), r.place(), r.envelope, r.named())
	if err != nil {
		return Object{}, secret.Value{}, err
	}
	if err := v.record(ctx, c.entry("secret.read", r.Object)); err != nil {
		return Object{}, secret.Value{}, err
	}
	return r.Object, value, nil
}

// Describe gives a secret without its value; nothing is decrypted.
func (v *Vault) Describe(ctx context.Context, c Caller, s id.Secret) (Object, error) {
	r, err := v.find(ctx, c, "secret.described", s)
	if err != nil {
		return Object{}, err
	}
	if err := v.record(ctx, c.entry("secret.described", r.Object)); err != nil {
		return Object{}, err
	}
	return r.Object, nil
}

// Versions lists the kept versions of a secret, newest first.
func (v *Vault) Versions(ctx context.Context, c Caller, s id.Secret) ([]VersionInfo, error) {
	r, err := v.find(ctx, c, "secret.described", s)
	if err != nil {
		return nil, err
	}
	versions, err := versionsOf(ctx, v.db.Reader(), r.ID)
	if err != nil {
		return nil, sqldb.Wrap("list the versions of a secret", err)
	}
	if err := v.record(ctx, c.entry("secret.described", r.Object, "versions", strconv.Itoa(len(versions)))); err != nil {
		return nil, err
	}
	return versions, nil
}

// sealVersion makes the row of o's current version.
func (v *Vault) sealVersion(ctx context.Context, o *Object, value secret.Value) (version, error) {
	if value.Len() > MaxValue {
		return version{}, fault.New(fault.TooLarge, "value_too_large", fmt.Sprintf("The value has over %d bytes.", MaxValue))
	}
	kek, envelope, err := v.sealAt(ctx, o.context(), o.place(), value)
	if err != nil {
		return version{}, err
	}
	o.KEK = kek
	// The hash is of the envelope: that of the value would let it be guessed.
	sum := sha256.Sum256(envelope)
	return version{object: o.ID, number: o.Version, id: o.VersionID, envelope: envelope, size: value.Len(),
		etag: hex.EncodeToString(sum[:]), createdAt: o.UpdatedAt}, nil
}

func newVersionID() string { return strings.ToLower(rand.Text()) }

var absent = fault.New(fault.NotFound, "not_found", "No such secret.")

func (v *Vault) find(ctx context.Context, c Caller, action string, s id.Secret) (objectRow, error) {
	r, err := objectByID(ctx, v.db.Reader(), c, s)
	return r, v.found(ctx, c, action, string(s), err)
}

// found turns the error of a look-up into what the caller may see. A secret of
// somebody else and one that never was leave the same answer and the same record.
func (v *Vault) found(ctx context.Context, c Caller, action, object string, err error) error {
	switch {
	case sqldb.NoRows(err):
		return v.deny(ctx, c, action, object, absent)
	case errors.Is(err, crypt.ErrIntegrity):
		return v.integrity(Place{Kind: "secret", Object: object})
	}
	return sqldb.Wrap("look up a secret", err)
}

// deny puts a refusal on record and returns it.
func (v *Vault) deny(ctx context.Context, c Caller, action, object string, why *fault.Error) error {
	e := c.entry(action, Object{})
	e.Object, e.Decision, e.Code, e.Organization, e.Detail = object, "deny", why.Code, c.Organization, nil
	if err := v.record(ctx, e); err != nil {
		return err
	}
	return why
}

func (v *Vault) record(ctx context.Context, e audit.Entry) error {
	if err := v.audit.Record(ctx, e); err != nil {
		return fault.New(fault.Unavailable, "audit_unavailable", "The audit log cannot be written, so nothing was done.").
			WithHint("Try again shortly.").WithCause(err).WithRetry(time.Second)
	}
	return nil
}

// entry is the record of something that c does with o. Detail comes in pairs.
func (c Caller) entry(action string, o Object, detail ...string) audit.Entry {
	e := audit.Entry{Environment: c.Environment, Organization: o.context().organization(), Actor: c.Actor, Action: action,
		Object: string(o.ID), Decision: "allow", Address: c.Address,
		Detail: map[string]string{"name": o.Name, "key_id": string(o.KEK), "version_id": o.VersionID}}
	if e.Organization == "" {
		e.Organization = c.Organization
	}
	if c.Actor.Kind == "user" {
		e.User = id.User(c.Actor.ID)
	}
	for i := 0; i+1 < len(detail); i += 2 {
		e.Detail[detail[i]] = detail[i+1]
	}
	return e
}

func contextText(items map[string]string) string {
	doc, err := json.Marshal(items)
	if err != nil {
		return "" // a map of strings always encodes
	}
	return string(doc)
}
