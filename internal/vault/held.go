package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// contextKey is an unwrapped version of a key, held in memory.
type contextKey struct {
	*crypt.KEK
	id      id.KEK
	hash    string         // of the context that it is for
	root    *keyring.Guard // that vouches for it
	checked atomic.Int64   // when the database last said that it stands, since Vault.born
	left    atomic.Int64   // wraps that are reserved and not made yet
	wraps   atomic.Int64   // reserved in all, as far as we know
}

// holds is the prefix of what this key sealed, as a key of maps.
func (k *contextKey) holds() string { return prefixOf(k.ID(), k.Version()) }

func prefixOf(kek [16]byte, version uint32) string { return string(crypt.Prefix(kek, version)) }

const (
	// maxCachedKEKs bounds the unwrapped keys held in memory. Losing one from the
	// cache costs one read and one unwrap.
	maxCachedKEKs = 4096
	// recheck is how long a held key is used without asking the database whether
	// it still stands. Notices make it quicker; while none arrive it is always asked.
	recheck = time.Minute
	// maxReserves is how often somebody tries whose share of what was reserved
	// others take.
	maxReserves = 1000
)

// keyChannel carries what every node must forget: "key ID" of a key that has
// another version or was shredded, "root REF" of a root key that must prove itself
// anew, "bound" when contexts are under another root key, "primary" when the server's
// own root key is another, and nothing for everything.
const keyChannel = "key"

func (v *Vault) keyChanged(payload string) {
	what, which, _ := strings.Cut(payload, " ")
	switch what {
	case "key":
		v.evict(func(k *contextKey) bool { return string(k.id) == which })
	case "root":
		if g, err := v.roots.ByRef(which); err == nil {
			v.evict(func(k *contextKey) bool { return k.root == g })
			g.Doubt()
		}
	case "bound":
		v.mu.Lock()
		clear(v.byHash)
		v.mu.Unlock()
	case "primary", "":
		if what == "" { // all, or notices may have been missed
			v.evict(func(*contextKey) bool { return true })
		}
		v.rotator.readPrimary.Store(true)
	}
}

func (v *Vault) evict(which func(*contextKey) bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for at, k := range v.byID {
		if which(k) {
			delete(v.byID, at)
		}
	}
	for at, k := range v.byHash {
		if which(k) {
			delete(v.byHash, at)
		}
	}
}

// rootChanged forgets every key under a root key that no longer vouches for them,
// and those alone, and puts on record what an operator must know (threats.md K4).
func (v *Vault) rootChanged(g *keyring.Guard, is keyring.State) {
	action, code, ref := "key.unreachable", is.Class.String(), g.Describe().Ref
	v.troubleMu.Lock()
	was := v.trouble[ref]
	switch {
	case !is.Usable:
		v.evict(func(k *contextKey) bool { return k.root == g })
		action = "key.unusable"
	case is.Class == keyring.Fine:
		delete(v.trouble, ref)
		action, code = "key.usable", ""
	}
	if code != "" {
		v.trouble[ref] = true
	}
	v.troubleMu.Unlock()
	if code == "" && !was {
		return
	}
	v.audit.Alarm(audit.Entry{Actor: audit.Actor{Kind: "system", ID: "vault"}, Action: action, Object: ref, Code: code})
}

// rootOf finds the root key that wrapped a version of a key.
func (v *Vault) rootOf(ctx context.Context, ref string) (*keyring.Guard, error) {
	g, err := v.roots.ByRef(ref)
	if err == nil {
		return g, nil
	}
	uri, uerr := v.broughtURI(ctx, v.db.Reader(), ref)
	if sqldb.NoRows(uerr) {
		return nil, err
	}
	if uerr != nil {
		return nil, sqldb.Wrap("look up a root key", uerr)
	}
	labels, err := rootLabels(ctx, v.db.Reader(), ref)
	if err != nil {
		return nil, sqldb.Wrap("look up whose a root key is", err)
	}
	return v.roots.Bring(ref, uri, labels), nil
}

const rootLabelsSQL = `select environment_id, organization_id from key_binding where root_ref = $1
union all select k.environment_id, k.organization_id from kek_version v join kek k on k.id = v.kek_id where v.root_ref = $1 limit 1`

// rootLabels are those of somebody whose keys a customer's root key wraps: its owner
// may let it be used for them alone, also when it is only asked whether it is there.
func rootLabels(ctx context.Context, q sqldb.Querier, ref string) (c keyring.Context, err error) {
	err = q.QueryRowContext(ctx, rootLabelsSQL, ref).Scan(&c.Environment, &c.Organization)
	if sqldb.NoRows(err) {
		err = nil
	}
	return c, err
}

// held gives a key from memory, if it may be used: the one that seals for the
// context with this hash, or the one whose envelopes hold this prefix.
func (v *Vault) held(ctx context.Context, sealing bool, at string) (*contextKey, error) {
	v.mu.Lock()
	k := v.byID[at]
	if sealing {
		k = v.byHash[at]
	}
	v.mu.Unlock()
	if k == nil {
		return nil, nil
	}
	if err := k.root.Assure(ctx); err != nil {
		if k.root.Usable() != nil { // or else only this caller did not wait
			v.evict(func(other *contextKey) bool { return other.root == k.root })
		}
		return nil, err
	}
	now := int64(time.Since(v.born))
	if v.db.Hearing() && now-k.checked.Load() < int64(recheck) {
		return k, nil
	}
	primary, shredded, err := kekState(ctx, v.db.Reader(), k.id)
	switch {
	case sqldb.NoRows(err):
		err = keyMissing()
	case err != nil:
		return nil, sqldb.Wrap("look whether a key still stands", err)
	case shredded:
		err = errShredded
	}
	if err != nil {
		v.evict(func(other *contextKey) bool { return other.id == k.id })
		return nil, err
	}
	k.checked.Store(now)
	if primary != k.Version() {
		v.unseat(k.hash)
		if sealing {
			return nil, nil // another one seals
		}
	}
	return k, nil
}

// unseat forgets which key seals for a context.
func (v *Vault) unseat(hash string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.byHash, hash)
}

// CodeKeyMissing is the code of what is sealed under a version of a key that is not
// there. Who kept an envelope in memory reads it again: it may be under another by
// now.
const CodeKeyMissing = "key_missing"

func keyMissing() error {
	return fault.New(fault.Internal, CodeKeyMissing, "The key of a stored secret is missing.").WithHint("Run `ambit doctor`.")
}

var errShredded = fault.New(fault.Expired, "key_shredded", "The key of this secret was destroyed, so nobody can read it any more.").
	WithHint("What was sealed for this context is gone for good. Nothing new can be sealed for it either.")

// kekFor gives the key of a context for one seal, making it if there is none.
func (v *Vault) kekFor(ctx context.Context, c keyContext) (*contextKey, error) {
	hash := c.hash()
	for range maxReserves {
		k, err := v.held(ctx, true, hash)
		if err != nil {
			return nil, err
		}
		if k == nil {
			if k, err = v.fetch(ctx, hash, func(ctx context.Context) (*contextKey, error) { return v.loadOrMake(ctx, c, hash) }); err != nil {
				return nil, err
			}
		}
		if k.left.Add(-1) >= 0 {
			return k, nil
		}
		k.left.Add(1)
		if err := v.reserve(ctx, k); err != nil {
			return nil, err
		}
	}
	return nil, fault.New(fault.Unavailable, "key_busy", "The key of this context is being changed all the time.").WithHint("Try again.").WithRetry(time.Second)
}

// reserve counts a block of wraps in the database before any of them is made, so
// that a process that dies leaves the count too high and never too low
// (threats.md K2). A version that has made enough gives way to the next.
func (v *Vault) reserve(ctx context.Context, k *contextKey) error {
	_, err := v.fetch(ctx, "reserve "+k.holds(), func(ctx context.Context) (*contextKey, error) {
		if k.left.Load() > 0 {
			return k, nil // somebody was faster
		}
		var all int64
		err := v.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) (err error) {
			all, err = reserve(ctx, tx, k.id, k.Version(), v.rotation.block)
			return err
		})
		if sqldb.NoRows(err) { // retired or shredded
			v.evict(func(other *contextKey) bool { return other.id == k.id })
			return k, nil
		}
		if err != nil {
			return nil, sqldb.Wrap("count the uses of a key", err)
		}
		if k.wraps.Store(all); all > v.rotation.MaxWraps {
			v.rotator.poke()
			if all > hardMaxWraps {
				return nil, fault.New(fault.Unavailable, "key_exhausted", "The key of this context has sealed all that one key may.").
					WithHint("It is replaced by itself in a moment; try again.").WithRetry(time.Second)
			}
		}
		k.left.Add(v.rotation.block)
		return k, nil
	})
	return err
}

// fetch gives a key that is not held. Of many callers who need the same one, one
// gets it; the work runs on, should that one leave.
func (v *Vault) fetch(ctx context.Context, name string, get func(context.Context) (*contextKey, error)) (*contextKey, error) {
	ch := v.making.DoChan(name, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		return get(ctx)
	})
	select {
	case r := <-ch:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*contextKey), nil
	case <-ctx.Done():
		return nil, keyring.Failure(keyring.CodeUnavailable, ctx.Err()).WithRetry(time.Second)
	}
}

// loadOrMake gives the version that seals for c. It is the place where a binding
// takes hold: what is sealed from then on is sealed under the customer's root key.
func (v *Vault) loadOrMake(ctx context.Context, c keyContext, hash string) (*contextKey, error) {
	b, err := v.bindingFor(ctx, v.db.Reader(), c)
	if err != nil {
		return nil, err
	}
	row, err := kekByHash(ctx, v.db.Reader(), hash)
	switch {
	case sqldb.NoRows(err):
		return v.make(ctx, c, hash, b)
	case err != nil:
		return nil, sqldb.Wrap("look up the key of a context", err)
	case !row.shredded.IsZero():
		return nil, errShredded
	}
	if err := v.belongs(row, c); err != nil {
		return nil, err
	}
	if b != nil && row.rootRef != b.RootRef {
		next, err := v.nextVersion(ctx, row, b.RootRef, false, "bound")
		if err == nil {
			return v.unwrap(ctx, next, false)
		}
		if b.Mode == Required {
			return nil, err
		}
	}
	k, err := v.unwrap(ctx, row, false)
	if err != nil && b != nil && b.Mode == Preferred && row.rootRef == b.RootRef && keyring.ClassOf(err) != keyring.Fine {
		next, nerr := v.nextVersion(ctx, row, v.primary(ctx).Describe().Ref, false, "fallen_back")
		if nerr != nil {
			return nil, errors.Join(err, nerr)
		}
		return v.unwrap(ctx, next, false)
	}
	return k, err
}

// belongs refuses a key that was found by the hash of c and is of another context.
// The hash and the environment are look-up columns and prove nothing: what the
// root key vouches for is the context, so that is compared.
func (v *Vault) belongs(row kekRow, c keyContext) error {
	if !bytes.Equal(row.context, c.canonical()) || row.environment != c.environment {
		return v.integrity(Place{Kind: "kek", Object: string(row.id)})
	}
	return nil
}

// make makes the first version of the key of a context, under the root key that
// the context is bound to or else the server's own.
func (v *Vault) make(ctx context.Context, c keyContext, hash string, b *Binding) (*contextKey, error) {
	row := kekRow{id: id.NewKEK(), environment: c.environment, hash: hash, context: c.canonical(), primary: 1, version: 1, wraps: v.rotation.block, createdAt: v.now()}
	ref := v.primary(ctx).Describe().Ref
	if b != nil {
		ref = b.RootRef
	}
	err := v.newSeed(ctx, &row, ref)
	if err != nil && b != nil && b.Mode == Preferred {
		err = v.newSeed(ctx, &row, v.primary(ctx).Describe().Ref)
	}
	if err != nil {
		return nil, err
	}
	first := false
	err = v.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if first, err = insertKEK(ctx, tx, row, c); err != nil {
			return err
		}
		if first {
			v.audit.AppendEvent(tx, keyEntry(row, "key.created", nil))
			return nil
		}
		// Another node was first; its key is the key.
		row, err = kekByHash(ctx, tx, hash)
		return err
	})
	if err != nil {
		return nil, sqldb.Wrap("store the key of a context", err)
	}
	if !row.shredded.IsZero() {
		return nil, errShredded
	}
	if err := v.belongs(row, c); err != nil {
		return nil, err
	}
	return v.unwrap(ctx, row, first)
}

// keyEntry is the record of what happens to a key.
func keyEntry(row kekRow, action string, detail map[string]string) audit.Entry {
	e := audit.Entry{Environment: row.environment, Actor: audit.Actor{Kind: "system", ID: "vault"}, Action: action, Object: string(row.id), Detail: detail}
	if c, ok := parseContext(row.context); ok {
		e.Organization, e.User = c.organization(), c.user()
	}
	return e
}

// newSeed gives row a seed of its own, wrapped by the root key ref.
func (v *Vault) newSeed(ctx context.Context, row *kekRow, ref string) error {
	root, err := v.rootOf(ctx, ref)
	if err != nil {
		return err
	}
	seed := crypt.NewSeed()
	kek, err := crypt.DeriveKEK(seed, row.context, row.id.Bytes(), row.version)
	if err != nil {
		return err
	}
	row.rootRef, row.commitment = ref, kek.Commitment()
	if row.wrapped, err = root.Wrap(ctx, seed, row.binding()); err != nil {
		return fmt.Errorf("wrapping the key of a context: %w", err)
	}
	return nil
}

// nextVersion makes the next version of a key, under the root key ref, which seals
// from then on. Who comes second gets the version of who was first.
func (v *Vault) nextVersion(ctx context.Context, row kekRow, ref string, reseal bool, why string) (kekRow, error) {
	next := row
	next.version, next.wraps, next.createdAt = row.primary+1, 0, v.now()
	if err := v.newSeed(ctx, &next, ref); err != nil {
		return kekRow{}, err
	}
	err := v.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		done, err := promoteKEK(ctx, tx, next, reseal)
		if err != nil {
			return err
		}
		if !done {
			next, err = kekByHash(ctx, tx, row.hash)
			return err
		}
		tx.Notify(keyChannel, "key "+string(row.id))
		v.audit.AppendEvent(tx, keyEntry(next, "key.rotated", map[string]string{
			"version": fmt.Sprint(next.version), "from": row.rootRef, "to": ref, "why": why, "reseal": fmt.Sprint(reseal)}))
		return nil
	})
	if err != nil {
		return kekRow{}, sqldb.Wrap("store the next version of a key", err)
	}
	if !next.shredded.IsZero() {
		return kekRow{}, errShredded
	}
	next.primary = next.version
	v.unseat(row.hash)
	v.rotator.poke()
	return next, nil
}

func (v *Vault) kekByID(ctx context.Context, kekID [16]byte, version uint32) (*contextKey, error) {
	at := prefixOf(kekID, version)
	k, err := v.held(ctx, false, at)
	if err != nil || k != nil {
		return k, err
	}
	return v.fetch(ctx, "id "+at, func(ctx context.Context) (*contextKey, error) {
		row, err := kekVersion(ctx, v.db.Reader(), id.KEKFromBytes(kekID), version)
		switch {
		case sqldb.NoRows(err):
			return nil, keyMissing()
		case err != nil:
			return nil, sqldb.Wrap("look up a key", err)
		case !row.shredded.IsZero():
			return nil, errShredded
		}
		return v.unwrap(ctx, row, false)
	})
}

// unwrap turns a row into a usable key and holds it. made says that it was made
// here, so that what it reserved is ours.
func (v *Vault) unwrap(ctx context.Context, row kekRow, made bool) (*contextKey, error) {
	root, err := v.rootOf(ctx, row.rootRef)
	if err != nil {
		return nil, err
	}
	k, err := v.unwrapUnder(ctx, root, row)
	if err != nil {
		return nil, err
	}
	k.checked.Store(int64(time.Since(v.born)))
	if k.wraps.Store(row.wraps); made {
		k.left.Store(row.wraps)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if root.Usable() != nil {
		return k, nil // refused while this was under way: not to be held
	}
	if len(v.byID) >= maxCachedKEKs {
		clear(v.byID)
		clear(v.byHash)
	}
	if held, ok := v.byID[k.holds()]; ok && !made {
		k = held // its reservation counts
	}
	v.byID[k.holds()] = k
	if row.version == row.primary {
		v.byHash[k.hash] = k
	}
	return k, nil
}

// unwrapUnder unwraps a row with a root key, and compares what comes out with what
// was noted.
func (v *Vault) unwrapUnder(ctx context.Context, root *keyring.Guard, row kekRow) (*contextKey, error) {
	seed, err := root.Unwrap(ctx, row.wrapped, row.binding())
	if errors.Is(err, crypt.ErrIntegrity) {
		return nil, v.integrity(Place{Kind: "kek", Object: string(row.id)})
	}
	if err != nil {
		return nil, fmt.Errorf("unwrapping a key: %w", err)
	}
	kek, err := crypt.DeriveKEK(seed, row.context, row.id.Bytes(), row.version)
	if err != nil {
		return nil, err
	}
	if !kek.Commits(row.commitment) {
		return nil, v.integrity(Place{Kind: "kek", Object: string(row.id)})
	}
	return &contextKey{KEK: kek, id: row.id, hash: contextHash(row.context), root: root}, nil
}
