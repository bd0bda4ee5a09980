package vault

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// KeyInfo describes the key of one context. It holds no secret.
type KeyInfo struct {
	ID          id.KEK
	Environment id.Environment
	Context     map[string]string
	Version     int64         // that seals; 0 of a shredded key
	Root        string        // ref of the root key that wraps it
	Own         bool          // that is the server's own; else a customer brought it
	State       keyring.State // of that root key
	Wraps       int64         // how many values that version may have sealed, counted ahead
	MaxWraps    int64         // how many it seals at most, before another takes its place
	Values      int64         // under all its versions; Keys counts no more than MaxCounted
	Moving      int64         // older versions under which there may be values
	CreatedAt   time.Time
	RotatedAt   time.Time // when that version was made
	DueAt       time.Time // when age alone replaces it
	ShreddedAt  time.Time // zero: it stands
	Older       []OlderVersion
}

// MaxCounted is how many values Keys counts of each key in each column.
const MaxCounted = 10_000

// OlderVersion is a version that still opens what is under it.
type OlderVersion struct {
	Version int64
	Root    string
	Values  int64 // still under it; counted by Key and not by Keys
	Kept    bool  // data keys that applications hold are under it
}

const (
	keyInfoFrom = `select k.id, k.environment_id, k.context, k.created_at, k.shredded_at, coalesce(v.version, 0), coalesce(v.root_ref, ''), coalesce(v.wraps, 0), coalesce(v.created_at, 0),
	(select count(*) from kek_version o where o.kek_id = k.id and o.version < k.version and o.emptied_at = 0)
from kek k left join kek_version v on v.kek_id = k.id and v.version = k.version`
	keyInfosSQL = keyInfoFrom + ` where k.environment_id = $1 and ($2 = '' or k.organization_id = $2) and ($3 = '' or k.user_id = $3) and k.id > $4 order by k.id limit $5`
	keyInfoSQL  = keyInfoFrom + ` where k.environment_id = $1 and ($2 = '' or k.organization_id = $2) and k.id = $3`
	olderSQL    = `select v.version, v.root_ref, v.kept from kek_version v join kek k on k.id = v.kek_id where v.kek_id = $1 and v.version < k.version order by v.version`
)

// Keys lists the keys of an environment, in the order of their ids. With an
// organization or a user only those whose context names them.
func (v *Vault) Keys(ctx context.Context, env id.Environment, org id.Organization, user id.User, after id.KEK, limit int) ([]KeyInfo, error) {
	out, err := v.keyInfos(ctx, env, org, user, after, limit)
	for i := range out {
		v.describeRoot(ctx, &out[i])
		if out[i].Values, err = v.countUpTo(ctx, out[i].ID, v.columns...); err != nil {
			return nil, err
		}
	}
	return out, err
}

func (v *Vault) keyInfos(ctx context.Context, env id.Environment, org id.Organization, user id.User, after id.KEK, limit int) ([]KeyInfo, error) {
	rows, err := v.db.Reader().QueryContext(ctx, keyInfosSQL, env, org, user, after, limit)
	if err != nil {
		return nil, sqldb.Wrap("list keys", err)
	}
	defer rows.Close()
	var out []KeyInfo
	for rows.Next() {
		k, err := v.scanInfo(rows)
		if err != nil {
			return nil, sqldb.Wrap("list keys", err)
		}
		out = append(out, k)
	}
	return out, sqldb.Wrap("list keys", rows.Err())
}

// describeRoot says how the root key of k is. One that this server cannot open is
// another key than it should be.
func (v *Vault) describeRoot(ctx context.Context, k *KeyInfo) {
	if k.Root == "" {
		return
	}
	g, err := v.rootOf(ctx, k.Root)
	if err != nil {
		k.Own, k.State = true, keyring.State{Class: keyring.Mismatch}
		return
	}
	k.Own, k.State = slices.Contains(v.roots.Own(), g), g.State()
}

// countUpTo counts the values under all versions of a key, of each column no more
// than MaxCounted.
func (v *Vault) countUpTo(ctx context.Context, kek id.KEK, columns ...Sealed) (n int64, err error) {
	parts := []string{"0"}
	for _, col := range columns {
		parts = append(parts, fmt.Sprintf(`(select count(*) from (select 1 from %s s where s.%s is not null and substr(s.%s, 2, 20) between $1 and $2 limit %d) x)`,
			col.Table, col.Column, col.Column, MaxCounted))
	}
	err = v.db.Reader().QueryRowContext(ctx, `select `+strings.Join(parts, " + "), crypt.Prefix(kek.Bytes(), 0), crypt.Prefix(kek.Bytes(), math.MaxUint32)).Scan(&n)
	return n, sqldb.Wrap("count values", err)
}

// Loss says what is unreadable without some keys.
type Loss struct {
	Keys   int
	Values map[string]int64 // by the table that they are in; of each key no more than MaxCounted in a column
	More   bool             // there are more keys than were looked at, or more values than were counted
}

// maxLossKeys is how many keys Loss looks at.
const maxLossKeys = 200

// Loss counts what would be lost with the keys of a scope, or with one of them.
func (v *Vault) Loss(ctx context.Context, s Scope, kek id.KEK) (Loss, error) {
	out := Loss{Values: map[string]int64{}}
	keys := []KeyInfo{{ID: kek}}
	if kek == "" {
		var err error
		if keys, err = v.keyInfos(ctx, s.Environment, s.Organization, s.User, "", maxLossKeys+1); err != nil {
			return Loss{}, err
		}
		out.More = len(keys) > maxLossKeys
	}
	for _, k := range keys[:min(len(keys), maxLossKeys)] {
		if !k.ShreddedAt.IsZero() {
			continue
		}
		out.Keys++
		for _, col := range v.columns {
			n, err := v.countUpTo(ctx, k.ID, col)
			if err != nil {
				return Loss{}, err
			}
			out.Values[col.Table] += n
			out.More = out.More || n == MaxCounted
		}
	}
	return out, nil
}

// Key describes one key, and counts what is still under its older versions. With an
// organization, a key whose context does not name it is absent.
func (v *Vault) Key(ctx context.Context, env id.Environment, org id.Organization, kek id.KEK) (KeyInfo, error) {
	k, err := v.scanInfo(v.db.Reader().QueryRowContext(ctx, keyInfoSQL, env, org, kek))
	if sqldb.NoRows(err) {
		return KeyInfo{}, errNoKey
	}
	if err != nil {
		return KeyInfo{}, sqldb.Wrap("read a key", err)
	}
	v.describeRoot(ctx, &k)
	rows, err := v.db.Reader().QueryContext(ctx, olderSQL, kek)
	if err != nil {
		return KeyInfo{}, sqldb.Wrap("read a key", err)
	}
	defer rows.Close()
	for rows.Next() {
		var o OlderVersion
		var kept int64
		if err := rows.Scan(&o.Version, &o.Root, &kept); err != nil {
			return KeyInfo{}, sqldb.Wrap("read a key", err)
		}
		o.Kept = kept != 0
		k.Older = append(k.Older, o)
	}
	if err := rows.Err(); err != nil {
		return KeyInfo{}, sqldb.Wrap("read a key", err)
	}
	for i := range k.Older {
		if k.Older[i].Values, err = v.countUnder(ctx, v.db.Reader(), kekRow{id: kek, version: uint32(k.Older[i].Version)}); err != nil {
			return KeyInfo{}, err
		}
		k.Values += k.Older[i].Values
	}
	newest, err := v.countUnder(ctx, v.db.Reader(), kekRow{id: kek, version: uint32(k.Version)})
	k.Values += newest
	return k, err
}

func (v *Vault) scanInfo(row interface{ Scan(...any) error }) (KeyInfo, error) {
	var k KeyInfo
	var canonical []byte
	var created, shredded, rotated int64
	if err := row.Scan(&k.ID, &k.Environment, &canonical, &created, &shredded, &k.Version, &k.Root, &k.Wraps, &rotated, &k.Moving); err != nil {
		return KeyInfo{}, err
	}
	c, _ := parseContext(canonical)
	k.MaxWraps = v.rotation.MaxWraps
	k.Context, k.CreatedAt, k.ShreddedAt, k.RotatedAt = c.items, sqldb.Time(created), sqldb.Time(shredded), sqldb.Time(rotated)
	if !k.RotatedAt.IsZero() {
		k.DueAt = k.RotatedAt.Add(v.rotation.MaxAge)
	}
	return k, nil
}

// RootInfo describes a root key and what it wraps.
type RootInfo struct {
	Ref      string
	Location string
	Own      bool // of the server; else a customer brought it
	Primary  bool
	State    keyring.State
	Keys     int64 // versions of keys that it wraps
	Audit    int64 // keys of the audit that it wraps
	Missing  bool  // this server does not have it
}

// Status is where everything stands: what should be under another key and is not
// yet, is waiting.
type Status struct {
	Roots    []RootInfo
	Keys     int64 // contexts that have a key
	Shredded int64
	// Waiting: seeds that another root key should wrap, versions that hold values
	// and no longer seal, and the values under them.
	WaitingSeeds, WaitingVersions, WaitingValues int64
}

const (
	rootCountsSQL = `select root_ref, count(*) from kek_version group by root_ref`
	keyCountsSQL  = `select count(*), coalesce(sum(case when shredded_at > 0 then 1 else 0 end), 0) from kek`
	staleSeedsSQL = `select count(*) from kek_version where root_ref <> $1 and root_ref not in (select ref from root_brought)`
)

// maxWaitingVersions is how many versions that no longer seal Status counts.
const maxWaitingVersions = 10_000

// Status says where everything stands. It asks no keeper.
func (v *Vault) Status(ctx context.Context) (s Status, err error) {
	q := v.db.Reader()
	if err := q.QueryRowContext(ctx, keyCountsSQL).Scan(&s.Keys, &s.Shredded); err != nil {
		return Status{}, sqldb.Wrap("count keys", err)
	}
	if s.WaitingSeeds, err = v.Rest(ctx); err != nil {
		return Status{}, err
	}
	if s.Roots, err = v.rootInfos(ctx, v.primary(ctx)); err != nil {
		return Status{}, err
	}
	waiting, err := kekRows(ctx, q, outdatedSQL, maxWaitingVersions, 0)
	if err != nil {
		return Status{}, err
	}
	for _, r := range waiting {
		n, err := v.countUnder(ctx, q, r)
		if err != nil {
			return Status{}, err
		}
		s.WaitingVersions++
		s.WaitingValues += n
	}
	return s, nil
}

func (v *Vault) rootInfos(ctx context.Context, primary *keyring.Guard) ([]RootInfo, error) {
	counts, err := sqldb.Counts(v.db.Reader().QueryContext(ctx, rootCountsSQL))
	if err != nil {
		return nil, sqldb.Wrap("count keys", err)
	}
	audits, err := v.audit.Roots(ctx)
	if err != nil {
		return nil, err
	}
	var out []RootInfo
	add := func(g *keyring.Guard, own bool) {
		d := g.Describe()
		out = append(out, RootInfo{Ref: d.Ref, Location: d.Location, Own: own, Primary: g == primary, State: g.State(), Keys: counts[d.Ref], Audit: audits[d.Ref]})
		delete(counts, d.Ref)
		delete(audits, d.Ref)
	}
	for _, g := range v.roots.Own() {
		add(g, true)
	}
	brought, err := v.broughtRoots(ctx)
	if err != nil {
		return nil, err
	}
	for ref, uri := range brought {
		labels, err := rootLabels(ctx, v.db.Reader(), ref)
		if err != nil {
			return nil, sqldb.Wrap("look up whose a root key is", err)
		}
		if g := v.roots.Bring(ref, uri, labels); !slices.Contains(v.roots.Own(), g) {
			add(g, false)
		}
	}
	for ref := range audits {
		counts[ref] += 0
	}
	for ref, n := range counts {
		out = append(out, RootInfo{Ref: ref, Own: true, Missing: true, Keys: n, Audit: audits[ref]})
	}
	return out, nil
}

const broughtSQLAll = `select ref, uri, proof from root_brought order by ref`

func (v *Vault) broughtRoots(ctx context.Context) (map[string]string, error) {
	rows, err := v.db.Reader().QueryContext(ctx, broughtSQLAll)
	if err != nil {
		return nil, sqldb.Wrap("list root keys", err)
	}
	defer rows.Close()
	out := map[string]string{}
	for rows.Next() {
		var ref, uri string
		var proof []byte
		if err := rows.Scan(&ref, &uri, &proof); err != nil {
			return nil, sqldb.Wrap("list root keys", err)
		}
		if err := v.checkRoot(Place{Kind: "root key", Object: ref}, ref, uri, proof); err != nil {
			return nil, err
		}
		out[ref] = uri
	}
	return out, sqldb.Wrap("list root keys", rows.Err())
}
