package vault

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Caller is on whose behalf a named secret is touched. With an organization the
// caller sees the secrets whose key context names exactly that organization;
// all others look absent. What it may do with those is its reach, without which
// it may do nothing.
type Caller struct {
	Actor        audit.Actor
	Name         string // of the actor, for people
	Environment  id.Environment
	Organization id.Organization // empty: the whole environment
	Reach        Reach
	Address      string
}

// Object describes a named secret, without its value.
type Object struct {
	ID          id.Secret
	Name        string
	Environment id.Environment
	Context     map[string]string // key context, as the application gave it
	Facts
	WriteOnly     bool // its value is for connections, and nobody reads it; for good
	KEK           id.KEK
	VersionID     string
	Version       int64
	Content       Content
	Size          int64     // of the value, in bytes
	ExpiresAt     time.Time // zero: never
	RotateBy      time.Time // zero: no reminder
	CreatedAt     time.Time
	UpdatedAt     time.Time
	UpdatedBy     audit.Actor
	UpdatedByName string
	DeletedAt     time.Time // zero: not deleted
	PurgeAt       time.Time // until when it can be taken back
}

// Facts are what people note about a secret. They are not sealed.
type Facts struct {
	Description string
	Tags        []string          // in order
	Metadata    map[string]string // nil for none
}

func (o Object) context() keyContext { return keyContext{environment: o.Environment, items: o.Context} }

// place binds a value to everything that says which secret it is: swapping
// rows, names, contexts or versions makes it unreadable (threats.md K1). So does
// calling text a file, or the other way round.
func (o Object) place() []byte {
	parts := []string{"ambit secret 1", string(o.context().canonical()), string(o.ID), o.Name, strconv.FormatInt(o.Version, 10)}
	if o.Content != Text {
		parts = append(parts, string(o.Content))
	}
	return crypt.Fields(parts...)
}

func (o Object) named() Place { return Place{Kind: "secret", Object: string(o.ID), Version: o.Version} }

// VersionInfo describes one kept value of a named secret.
type VersionInfo struct {
	ID            string
	Version       int64
	CreatedAt     time.Time
	CreatedBy     audit.Actor // empty for versions from before it was noted
	CreatedByName string
	Current       bool
	Content       Content
	Size          int64  // of the value, in bytes
	ETag          string // differs between any two versions; says nothing about the value
}

var absent = fault.New(fault.NotFound, "not_found", "No such secret.")

// find gives a secret that c may treat so. One that it may not even know of
// looks absent.
func (v *Vault) find(ctx context.Context, c Caller, verb Verb, action string, s id.Secret) (objectRow, error) {
	r, err := objectByID(ctx, v.db.Near(), c, s)
	return r, v.found(ctx, c, verb, action, string(s), r, err)
}

// found turns a look-up into what the caller may see. A secret of somebody
// else and one that never was leave the same answer and the same record.
func (v *Vault) found(ctx context.Context, c Caller, verb Verb, action, object string, r objectRow, err error) error {
	switch {
	case sqldb.NoRows(err):
		return v.deny(ctx, c, action, object, absent)
	case errors.Is(err, crypt.ErrIntegrity):
		return v.integrity(Place{Kind: "secret", Object: object})
	case err != nil:
		return sqldb.Wrap("look up a secret", err)
	}
	switch may, knows := c.Reach.may(verb, r.Name, r.Context); {
	case may:
		return nil
	case knows:
		return v.deny(ctx, c, action, object, outOfReach(verb))
	}
	return v.deny(ctx, c, action, object, absent)
}

func outOfReach(verb Verb) *fault.Error {
	return fault.New(fault.Denied, "not_allowed", "This API key may not "+string(verb)+" that secret.").
		WithHint("Its rules say which secrets it may list, read, write and delete. Use another key.")
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
	if err := v.audit.Access(ctx, e); err != nil {
		return fault.New(fault.Unavailable, "audit_unavailable", "The audit log cannot be written, so nothing was done.").
			WithHint("Try again shortly.").WithCause(err).WithRetry(time.Second)
	}
	return nil
}

// entry is the record of something that c does with o. Detail comes in pairs.
func (c Caller) entry(action string, o Object, detail ...string) audit.Entry {
	e := audit.Entry{Environment: c.Environment, Organization: o.context().organization(), Actor: c.Actor, Action: action,
		Object: string(o.ID), Decision: "allow", Address: c.Address,
		Detail: map[string]string{"name": o.Name, "key_id": string(o.KEK), "version_id": o.VersionID, "actor_name": c.Name}}
	if c.Name == "" {
		delete(e.Detail, "actor_name")
	}
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
