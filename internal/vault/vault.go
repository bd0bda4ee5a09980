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
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
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

const contextFormat = "ambit key context 1"

// canonical is injective: equal bytes mean equal contexts.
func (c keyContext) canonical() []byte {
	var room [MaxContextItems]string // or more, of an older server
	names := slices.AppendSeq(room[:0], maps.Keys(c.items))
	slices.Sort(names)
	parts := append(make([]string, 0, 2+2*len(names)), contextFormat, string(c.environment))
	for _, k := range names {
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

// Config is what a Vault needs. DB, Audit, and Roots or Keeper are required.
type Config struct {
	DB *sqldb.DB
	// Roots are the root keys. Keeper stands for a ring of one.
	Roots  *keyring.Ring
	Keeper *keyring.Guard
	Audit  *audit.Log
	Now    func() time.Time
	Logger *slog.Logger
	Rotation
}

// Vault seals and opens. It is safe for concurrent use. Start lets it look after
// its keys.
type Vault struct {
	db    *sqldb.DB
	roots *keyring.Ring
	audit *audit.Log
	now   func() time.Time
	log   *slog.Logger
	born  time.Time // what contextKey.checked counts from

	making singleflight.Group
	mu     sync.Mutex
	byHash map[string]*contextKey // unwrapped keys that seal, by the hash of their context
	byID   map[string]*contextKey // all unwrapped keys, by what their envelopes hold (crypt.Prefix)

	troubleMu sync.Mutex
	trouble   map[string]bool // root keys of which an alarm was raised, by ref

	rotation Rotation
	columns  []Sealed
	rotator  rotator

	changes *sqldb.Line[*change] // of secrets, that share a transaction
}

// New makes a Vault.
func New(cfg Config) *Vault {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Roots == nil {
		cfg.Roots = keyring.RingOf(cfg.Keeper)
	}
	v := &Vault{db: cfg.DB, roots: cfg.Roots, audit: cfg.Audit, now: cfg.Now, log: cfg.Logger, born: time.Now(), rotation: cfg.Rotation.withDefaults(),
		byHash: map[string]*contextKey{}, byID: map[string]*contextKey{}, trouble: map[string]bool{}, rotator: newRotator()}
	v.columns = v.ownColumns()
	v.changes = v.together()
	cfg.Roots.Watch(v.rootChanged)
	cfg.DB.Subscribe(keyChannel, v.keyChanged)
	return v
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
	kekID, version, err := crypt.Inspect(envelope)
	if err != nil {
		return secret.Value{}, v.integrity(named)
	}
	kek, err := v.kekByID(ctx, kekID, version)
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
