// Package vault seals secrets under the key of their context. A key context is
// environment, organization and user; each context that occurs has one
// key-encrypting key, made when first needed, whose seed the root key wraps for
// exactly that context. Every sealed value is bound to its [Place]: the context
// and the object, version and provider that it belongs to. The format is drawn
// in package crypt. Nothing in the database opens without the root key.
//
// Unwrapped keys are held in memory, so that the keeper of the root key is not
// asked for each value; they count only as long as its guard says so, and are
// forgotten when it does not. What does not open in its place is an alarm.
//
// Two things are built on [Vault.Seal] and [Vault.Open]: other rooms keep their
// own sealed columns (tokens of connections, TOTP secrets), and this room keeps
// named secrets with versions, which applications store and read by API.
package vault

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Place is where a sealed value belongs. The first three fields are its key
// context; all of them are bound into the envelope, so that a value copied to
// any other place does not open (threats.md K1).
type Place struct {
	Environment  id.Environment
	Organization id.Organization // empty: of the whole environment
	User         id.User         // empty: of the whole organization
	Kind         string          // what sort of thing is sealed, such as "credential"
	Object       string          // the id of the row
	Version      int64           // of the row; a new value has a new version
	Provider     string
}

func (p Place) bytes() []byte {
	return crypt.Fields("ambit place 1", string(p.Environment), string(p.Organization), string(p.User), p.Kind, p.Object,
		strconv.FormatInt(p.Version, 10), p.Provider)
}

func (p Place) context() keyContext {
	c := keyContext{environment: p.Environment, items: map[string]string{}}
	if p.Organization != "" {
		c.items[organizationItem] = string(p.Organization)
	}
	if p.User != "" {
		c.items[userItem] = string(p.User)
	}
	return c
}

// keyContext is the environment and the set of names and values that one KEK
// belongs to. All of them are needed: there is one key for the whole set, not
// one for each item.
type keyContext struct {
	environment id.Environment
	items       map[string]string
}

// The items that say whose a sealed value is.
const (
	organizationItem = "organization_id"
	userItem         = "user_id"
)

// canonical is injective: equal bytes mean equal contexts.
func (c keyContext) canonical() []byte {
	parts := []string{"ambit key context 1", string(c.environment)}
	for _, k := range slices.Sorted(maps.Keys(c.items)) {
		parts = append(parts, k, c.items[k])
	}
	return crypt.Fields(parts...)
}

func (c keyContext) hash() string { return contextHash(c.canonical()) }

func contextHash(canonical []byte) string {
	sum := sha256.Sum256(canonical)
	return hex.EncodeToString(sum[:])
}

// organization and user are the items that are ids of ours; an application may
// have filed anything under these names.
func (c keyContext) organization() id.Organization {
	var o id.Organization
	_ = parseID(&o, c.items[organizationItem])
	return o
}

func (c keyContext) user() id.User {
	var u id.User
	_ = parseID(&u, c.items[userItem])
	return u
}

// parseID is id.Parse for the kind that dst has; dst is empty after an error.
func parseID[K id.Kind](dst *id.ID[K], s string) (err error) {
	*dst, err = id.Parse[K](s)
	return err
}

// Config is what a Vault needs. DB, Keeper and Audit are required.
type Config struct {
	DB     *sqldb.DB
	Keeper *keyring.Guard
	Audit  *audit.Log
	Now    func() time.Time
	Logger *slog.Logger
}

// Vault seals and opens. It is safe for concurrent use.
type Vault struct {
	db     *sqldb.DB
	keeper *keyring.Guard
	audit  *audit.Log
	now    func() time.Time
	log    *slog.Logger

	making singleflight.Group
	mu     sync.Mutex
	byHash map[string]contextKey   // unwrapped keys, by context
	byID   map[[16]byte]contextKey // the same, by id

	trouble atomic.Bool // with the keeper, of which an alarm was raised
}

// contextKey is an unwrapped key and the hash of the context that it is for.
type contextKey struct {
	*crypt.KEK
	hash string
}

// maxCachedKEKs bounds the unwrapped keys held in memory. Losing one from the
// cache costs one read and one unwrap.
const maxCachedKEKs = 4096

// New makes a Vault.
func New(cfg Config) *Vault {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	v := &Vault{db: cfg.DB, keeper: cfg.Keeper, audit: cfg.Audit, now: cfg.Now, log: cfg.Logger,
		byHash: map[string]contextKey{}, byID: map[[16]byte]contextKey{}}
	cfg.Keeper.Watch(v.keeperChanged)
	return v
}

// keeperChanged forgets every unwrapped key when the keeper no longer vouches
// for them, and puts on record what an operator must know (threats.md K4).
func (v *Vault) keeperChanged(is keyring.State) {
	action, code := "key.unreachable", is.Class.String()
	switch {
	case !is.Usable:
		v.forget()
		action = "key.unusable"
	case is.Class == keyring.Fine:
		if !v.trouble.Swap(false) {
			return
		}
		action, code = "key.usable", ""
	}
	v.trouble.Store(code != "")
	v.audit.Alarm(audit.Entry{Actor: audit.Actor{Kind: "system", ID: "vault"}, Action: action, Object: v.keeper.Describe().Ref, Code: code})
}

func (v *Vault) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.byID)
	clear(v.byHash)
}

// Seal encrypts s for p. It must not be called inside a transaction: the first
// value of a context makes and stores that context's key.
func (v *Vault) Seal(ctx context.Context, p Place, s secret.Value) ([]byte, error) {
	if p.Environment == "" || p.Kind == "" || p.Object == "" {
		return nil, fmt.Errorf("sealing without a place: kind %q, object %q", p.Kind, p.Object)
	}
	_, envelope, err := v.sealAt(ctx, p.context(), p.bytes(), s)
	return envelope, err
}

// sealAt seals s under the key of c, bound to place. It says which key that is.
func (v *Vault) sealAt(ctx context.Context, c keyContext, place []byte, s secret.Value) (id.KEK, []byte, error) {
	kek, err := v.kekFor(ctx, c)
	if err != nil {
		return "", nil, err
	}
	envelope, err := kek.Seal(place, s)
	return id.KEKFromBytes(kek.ID()), envelope, err
}

// Open decrypts what Seal made for exactly this place. An envelope that was
// changed or belongs elsewhere gives a fault with the code "sealed_value_invalid".
func (v *Vault) Open(ctx context.Context, p Place, envelope []byte) (secret.Value, error) {
	return v.openAt(ctx, p.context(), p.bytes(), envelope, p)
}

// openAt is the inverse of sealAt; named tells the log what did not open.
func (v *Vault) openAt(ctx context.Context, c keyContext, place, envelope []byte, named Place) (secret.Value, error) {
	kekID, _, err := crypt.Inspect(envelope)
	if err != nil {
		return secret.Value{}, v.integrity(named)
	}
	kek, err := v.kekByID(ctx, kekID)
	if err != nil {
		return secret.Value{}, err
	}
	if kek.hash != c.hash() {
		return secret.Value{}, v.integrity(named)
	}
	s, err := kek.Open(place, envelope)
	if err != nil {
		return secret.Value{}, v.integrity(named)
	}
	return s, nil
}

// integrity is an alarm: it means a defect, a damaged disk or an intruder.
func (v *Vault) integrity(p Place) error {
	v.audit.Alarm(audit.Entry{Environment: p.Environment, Organization: p.Organization, User: p.User, Actor: audit.Actor{Kind: "system", ID: "vault"},
		Action: "vault.integrity_failed", Object: p.Object, Provider: p.Provider, Code: "sealed_value_invalid",
		Detail: map[string]string{"kind": p.Kind, "version": strconv.FormatInt(p.Version, 10)}})
	return fault.New(fault.Internal, "sealed_value_invalid", "A stored secret does not open.").
		WithHint("The database was changed outside Ambit, or the root key is another one. Run `ambit doctor`.").
		WithCause(crypt.ErrIntegrity)
}

// kekFor gives the key of a context, making it if there is none.
func (v *Vault) kekFor(ctx context.Context, c keyContext) (contextKey, error) {
	if err := v.keeper.Assure(ctx); err != nil {
		return contextKey{}, err
	}
	hash := c.hash()
	v.mu.Lock()
	kek, ok := v.byHash[hash]
	v.mu.Unlock()
	if ok {
		return kek, nil
	}
	return v.fetch(ctx, hash, func(ctx context.Context) (contextKey, error) { return v.loadOrMake(ctx, c, hash) })
}

// fetch gives a key that is not held. Of many callers who need the same one, one
// gets it; the work runs on, should that one leave.
func (v *Vault) fetch(ctx context.Context, name string, get func(context.Context) (contextKey, error)) (contextKey, error) {
	ch := v.making.DoChan(name, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		return get(ctx)
	})
	select {
	case r := <-ch:
		if r.Err != nil {
			return contextKey{}, r.Err
		}
		return r.Val.(contextKey), nil
	case <-ctx.Done():
		return contextKey{}, keyring.Failure(keyring.CodeUnavailable, ctx.Err()).WithRetry(time.Second)
	}
}

func (v *Vault) loadOrMake(ctx context.Context, c keyContext, hash string) (contextKey, error) {
	row, err := kekByHash(ctx, v.db.Reader(), hash)
	if err != nil && !sqldb.NoRows(err) {
		return contextKey{}, sqldb.Wrap("look up the key of a context", err)
	}
	if err == nil {
		return v.unwrapFor(ctx, row, c)
	}
	if row, err = v.newKEK(ctx, c, hash); err != nil {
		return contextKey{}, err
	}
	err = v.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		made, err := insertKEK(ctx, tx, row)
		if err != nil {
			return err
		}
		if made {
			v.audit.AppendEvent(tx, audit.Entry{
				Environment: c.environment, Organization: c.organization(), User: c.user(),
				Actor: audit.Actor{Kind: "system", ID: "vault"}, Action: "key.created", Object: string(row.id),
			})
			return nil
		}
		// Another node was first; its key is the key.
		row, err = kekByHash(ctx, tx, hash)
		return err
	})
	if err != nil {
		return contextKey{}, sqldb.Wrap("store the key of a context", err)
	}
	return v.unwrapFor(ctx, row, c)
}

// unwrapFor unwraps the key that was found by the hash of c. The hash and the
// environment are look-up columns and prove nothing: what the root key vouches
// for is the context, so that is compared.
func (v *Vault) unwrapFor(ctx context.Context, row kekRow, c keyContext) (contextKey, error) {
	if !bytes.Equal(row.context, c.canonical()) || row.environment != c.environment {
		return contextKey{}, v.integrity(Place{Kind: "kek", Object: string(row.id)})
	}
	return v.unwrap(ctx, row)
}

func (v *Vault) newKEK(ctx context.Context, c keyContext, hash string) (kekRow, error) {
	seed := crypt.NewSeed()
	row := kekRow{id: id.NewKEK(), environment: c.environment, hash: hash, context: c.canonical(), version: 1,
		rootRef: v.keeper.Describe().Ref, createdAt: v.now()}
	kek, err := crypt.DeriveKEK(seed, row.context, row.id.Bytes(), row.version)
	if err != nil {
		return kekRow{}, err
	}
	row.commitment = kek.Commitment()
	if row.wrapped, err = v.keeper.Wrap(ctx, seed, row.binding()); err != nil {
		return kekRow{}, fmt.Errorf("wrapping the key of a context: %w", err)
	}
	return row, nil
}

func (v *Vault) kekByID(ctx context.Context, kekID [16]byte) (contextKey, error) {
	if err := v.keeper.Assure(ctx); err != nil {
		return contextKey{}, err
	}
	v.mu.Lock()
	kek, ok := v.byID[kekID]
	v.mu.Unlock()
	if ok {
		return kek, nil
	}
	return v.fetch(ctx, "id "+string(kekID[:]), func(ctx context.Context) (contextKey, error) {
		row, err := kekRowByID(ctx, v.db.Reader(), id.KEKFromBytes(kekID))
		if sqldb.NoRows(err) {
			return contextKey{}, fault.New(fault.Internal, "key_missing", "The key of a stored secret is missing.").WithHint("Run `ambit doctor`.")
		}
		if err != nil {
			return contextKey{}, sqldb.Wrap("look up a key", err)
		}
		return v.unwrap(ctx, row)
	})
}

// unwrap turns a row into a usable key and caches it.
func (v *Vault) unwrap(ctx context.Context, row kekRow) (contextKey, error) {
	seed, err := v.keeper.Unwrap(ctx, row.wrapped, row.binding())
	if errors.Is(err, crypt.ErrIntegrity) && row.rootRef == v.keeper.Describe().Ref {
		return contextKey{}, v.integrity(Place{Kind: "kek", Object: string(row.id)})
	}
	if errors.Is(err, crypt.ErrIntegrity) {
		return contextKey{}, fault.New(fault.Unavailable, keyring.CodeMismatch, "The root key does not open this vault.").
			WithHint("Start the server with the root key that this database was made with (AMBIT_ROOT_KEY).").WithCause(err)
	}
	if err != nil {
		return contextKey{}, fmt.Errorf("unwrapping a key: %w", err)
	}
	kek, err := crypt.DeriveKEK(seed, row.context, row.id.Bytes(), row.version)
	if err != nil {
		return contextKey{}, err
	}
	if !kek.Commits(row.commitment) {
		return contextKey{}, v.integrity(Place{Kind: "kek", Object: string(row.id)})
	}
	key := contextKey{KEK: kek, hash: contextHash(row.context)}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.keeper.Usable() != nil {
		return key, nil // refused while this was under way: not to be held
	}
	if len(v.byID) >= maxCachedKEKs {
		clear(v.byID)
		clear(v.byHash)
	}
	v.byID[kek.ID()] = key
	v.byHash[key.hash] = key
	return key, nil
}

const anyKEKSQL = `select count(*) from (select id from kek limit 1) k`

// Empty reports whether nothing has ever been sealed in db: only then may a
// missing root key be made anew. It takes a database that nobody has migrated yet.
func Empty(ctx context.Context, db *sqldb.DB) (bool, error) {
	if made, err := db.HasTable(ctx, "kek"); err != nil || !made {
		return !made, err
	}
	var n int
	if err := db.Reader().QueryRowContext(ctx, anyKEKSQL).Scan(&n); err != nil {
		return false, sqldb.Wrap("look whether anything is sealed", err)
	}
	if n > 0 {
		return false, nil
	}
	return audit.Empty(ctx, db)
}
