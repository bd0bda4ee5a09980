package vault

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

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

// Update stores a new value. The versions before it are kept, and so are name,
// key context and facts; its dates are those of the new value. With a
// versionCheck it succeeds only if that is the id of the current version.
func (v *Vault) Update(ctx context.Context, c Caller, s id.Secret, value Value, versionCheck string) (Object, error) {
	value, err := value.checked()
	if err != nil {
		return Object{}, err
	}
	return v.advance(ctx, c, "secret.updated", s, versionCheck, func(objectRow) (Value, []string, error) { return value, nil, nil })
}

// Restore makes the value of an old version the current one, as a new version.
// The caller does not get to see it. It has no dates.
func (v *Vault) Restore(ctx context.Context, c Caller, s id.Secret, versionID, versionCheck string) (Object, error) {
	return v.advance(ctx, c, "secret.restored", s, versionCheck, func(r objectRow) (Value, []string, error) {
		old, err := v.then(ctx, c, "secret.restored", r, versionID)
		if err != nil {
			return Value{}, nil, err
		}
		opened, err := v.openAt(ctx, old.context(), old.place(), old.envelope, old.named())
		if err != nil {
			return Value{}, nil, err
		}
		value, err := Value{Secret: opened, Content: old.Content}.checked()
		return value, []string{"restored_version_id", versionID}, err
	})
}

// advance makes a new version of the value that next gives.
func (v *Vault) advance(ctx context.Context, c Caller, action string, s id.Secret, versionCheck string,
	next func(objectRow) (value Value, detail []string, err error)) (Object, error) {
	for range maxRaces {
		r, err := v.find(ctx, c, Write, action, s)
		if err != nil {
			return Object{}, err
		}
		if err := checkVersion(r.Object, versionCheck); err != nil {
			return Object{}, err
		}
		value, detail, err := next(r)
		if err != nil {
			return Object{}, err
		}
		o := r.Object
		o.Version, o.VersionID = o.Version+1, id.Sortable()
		o.UpdatedAt, o.UpdatedBy, o.UpdatedByName = micro(v.now()), c.Actor, c.Name
		o.hold(value)
		row, err := v.sealVersion(ctx, &o, value.Secret)
		if err != nil {
			return Object{}, err
		}
		err = v.update(ctx, string(o.ID), func(ctx context.Context, tx *sqldb.Tx) error {
			if err := advanceObject(ctx, tx, o); err != nil {
				return err
			}
			v.audit.AppendEvent(tx, c.entry(action, o, append(detail, "key_context", contextText(o.Context))...))
			return insertVersion(ctx, tx, row)
		})
		if err == nil {
			return o, nil
		}
		if !errors.Is(err, errOvertaken) {
			return Object{}, sqldb.Wrap("update a secret", err)
		}
	}
	return Object{}, errRaced
}

// Edit is a change of what surrounds a value. A nil field stays as it is.
type Edit struct {
	Description *string
	Tags        *[]string
	Metadata    *map[string]string
	ExpiresAt   *time.Time // zero: never
	RotateBy    *time.Time
	WriteOnly   bool // true makes it write-only; nothing makes it readable again
}

func (e Edit) of(o Object) (Object, error) {
	facts := o.Facts
	if e.Description != nil {
		facts.Description = *e.Description
	}
	if e.Tags != nil {
		facts.Tags = *e.Tags
	}
	if e.Metadata != nil {
		facts.Metadata = *e.Metadata
	}
	var err error
	if o.Facts, err = facts.canonical(); err != nil {
		return Object{}, err
	}
	dates := Value{Content: Binary}
	dates.ExpiresAt, dates.RotateBy = o.ExpiresAt, o.RotateBy
	if e.ExpiresAt != nil {
		dates.ExpiresAt = *e.ExpiresAt
	}
	if e.RotateBy != nil {
		dates.RotateBy = *e.RotateBy
	}
	if dates, err = dates.checked(); err != nil {
		return Object{}, err
	}
	o.ExpiresAt, o.RotateBy = dates.ExpiresAt, dates.RotateBy
	o.WriteOnly = o.WriteOnly || e.WriteOnly
	return o, nil
}

// Change edits what surrounds the value of a secret; no version is made.
func (v *Vault) Change(ctx context.Context, c Caller, s id.Secret, edit Edit) (Object, error) {
	for range maxRaces {
		r, err := v.find(ctx, c, Write, "secret.edited", s)
		if err != nil {
			return Object{}, err
		}
		o, err := edit.of(r.Object)
		if err != nil {
			return Object{}, err
		}
		o.UpdatedAt, o.UpdatedBy, o.UpdatedByName = micro(v.now()), c.Actor, c.Name
		before, after := labelsOf(r.Context, r.Tags), labelsOf(o.Context, o.Tags)
		var done bool
		err = v.update(ctx, string(o.ID), func(ctx context.Context, tx *sqldb.Tx) error {
			if done, err = editObject(ctx, tx, o, r.UpdatedAt); err != nil || !done {
				return err
			}
			for _, l := range before {
				if !slices.Contains(after, l) {
					if err := deleteLabel(ctx, tx, o.ID, l); err != nil {
						return err
					}
				}
			}
			fresh := slices.DeleteFunc(after, func(l string) bool { return slices.Contains(before, l) })
			if err := insertLabels(ctx, tx, o.ID, o.Environment, fresh); err != nil {
				return err
			}
			v.audit.AppendEvent(tx, c.entry("secret.edited", o, edited(r.Object, o)...))
			return nil
		})
		if err != nil {
			return Object{}, sqldb.Wrap("edit a secret", err)
		}
		if done {
			return o, nil
		}
	}
	return Object{}, errRaced
}

// edited says which parts differ, for the record.
func edited(a, b Object) (detail []string) {
	for what, same := range map[string]bool{"description": a.Description == b.Description, "tags": slices.Equal(a.Tags, b.Tags),
		"metadata": maps.Equal(a.Metadata, b.Metadata), "expires_at": a.ExpiresAt.Equal(b.ExpiresAt), "rotate_by": a.RotateBy.Equal(b.RotateBy),
		"write_only": a.WriteOnly == b.WriteOnly} {
		if !same {
			detail = append(detail, "changed_"+what, "true")
		}
	}
	return detail
}

// RestoreWindow is for how long a deleted secret can be taken back. After it the
// secret is purged with all its versions.
const RestoreWindow = 30 * 24 * time.Hour

// Delete takes a secret away. Its name is free at once; for the restore window
// Undelete takes it back.
func (v *Vault) Delete(ctx context.Context, c Caller, s id.Secret, versionCheck string) (Object, error) {
	for range maxRaces {
		r, err := v.find(ctx, c, Delete, "secret.deleted", s)
		if err != nil {
			return Object{}, err
		}
		if err := checkVersion(r.Object, versionCheck); err != nil {
			return Object{}, err
		}
		o := r.Object
		o.DeletedAt = micro(v.now())
		o.PurgeAt = o.DeletedAt.Add(RestoreWindow)
		var done bool
		err = v.update(ctx, string(o.ID), func(ctx context.Context, tx *sqldb.Tx) error {
			if done, err = deleteObject(ctx, tx, o); err != nil || !done {
				return err
			}
			v.audit.AppendEvent(tx, c.entry("secret.deleted", o, "purge_at", o.PurgeAt.Format(time.RFC3339)))
			return nil
		})
		if err != nil {
			return Object{}, sqldb.Wrap("delete a secret", err)
		}
		if done {
			return o, nil
		}
	}
	return Object{}, errRaced
}

// Undelete takes a secret back that was deleted, with its name, versions and
// dates. It is a Conflict if another secret has the name by now.
func (v *Vault) Undelete(ctx context.Context, c Caller, s id.Secret) (Object, error) {
	r, err := anyObjectByID(ctx, v.db.Reader(), c, s)
	if err = v.found(ctx, c, Delete, "secret.undeleted", string(s), r, err); err != nil {
		return Object{}, err
	}
	if r.DeletedAt.IsZero() {
		return r.Object, nil
	}
	o := r.Object
	o.DeletedAt, o.PurgeAt = time.Time{}, time.Time{}
	o.UpdatedAt, o.UpdatedBy, o.UpdatedByName = micro(v.now()), c.Actor, c.Name
	var done bool
	err = v.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if done, err = undeleteObject(ctx, tx, o); err != nil || !done {
			return err
		}
		v.audit.AppendEvent(tx, c.entry("secret.undeleted", o, "version", strconv.FormatInt(o.Version, 10)))
		return nil
	})
	switch {
	case sqldb.IsUnique(err):
		return Object{}, nameExists()
	case err != nil:
		return Object{}, sqldb.Wrap("take back a secret", err)
	case !done:
		return Object{}, v.deny(ctx, c, "secret.undeleted", string(s), absent) // purged meanwhile
	}
	return o, nil
}
