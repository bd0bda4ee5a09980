package vault_test

import (
	"fmt"
	"testing"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
)

// pairRow is a version of a secret of a tenant, and what it should read as.
type pairRow struct {
	object   id.Secret
	version  int64
	id       string // of the version
	want     secret.Value
	envelope []byte
}

// Issue 4, proofs; K1: over all pairs of three tenants, their objects and their
// versions, the sealed value of one in the row of another does not open; nor does
// anything under a key whose wrapped seed is that of another key or version.
func TestK1AllPairsOfRowsFail(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		n := newNode(t, db, newKeeper(t))
		c := newCaller()
		var rows []pairRow
		for tenant := range 3 {
			for object := range 2 {
				o, err := n.Create(t.Context(), c, vault.NewObject{Name: fmt.Sprint("secret ", tenant, object),
					Context: map[string]string{"organization_id": fmt.Sprint("org ", tenant)}, Value: vault.Value{Secret: value(10*tenant+object, 1)}})
				if err != nil {
					t.Fatal(err)
				}
				rows = append(rows, pairRow{object: o.ID, version: 1, id: o.VersionID, want: value(10*tenant+object, 1)})
				if object == 0 && tenant > 0 { // so that values are under two versions of a key
					mustReplace(t, n.Vault, o.KEK, false)
				}
				if o, err = n.Update(t.Context(), c, o.ID, vault.Value{Secret: value(10*tenant+object, 2)}, ""); err != nil {
					t.Fatal(err)
				}
				rows = append(rows, pairRow{object: o.ID, version: 2, id: o.VersionID, want: value(10*tenant+object, 2)})
			}
		}
		sealed := envelopes(t, db)
		for i := range rows {
			rows[i].envelope = sealed[fmt.Sprint(rows[i].object, " ", rows[i].version)]
		}
		put := func(r pairRow, envelope []byte) {
			exec(t, db, []any{`update secret_version set envelope = $1 where object_id = $2 and version = $3`, envelope, r.object, r.version})
		}
		reads := func(v *vault.Vault, r pairRow) bool {
			_, got, err := v.GetVersion(t.Context(), c, r.object, r.id)
			if err == nil && !got.Equal(r.want) {
				t.Errorf("version %d of %s reads as something else", r.version, r.object)
			}
			return err == nil
		}
		pairs := 0
		for i, to := range rows {
			for j, from := range rows {
				if i == j {
					continue
				}
				put(to, from.envelope)
				if pairs++; reads(n.Vault, to) {
					t.Errorf("the value of version %d of %s opens as version %d of %s", from.version, from.object, to.version, to.object)
				}
			}
			put(to, to.envelope)
			if !reads(n.Vault, to) {
				t.Errorf("put back, version %d of %s does not open", to.version, to.object)
			}
		}
		if pairs != 12*11 {
			t.Errorf("%d pairs of values", pairs)
		}
		pairs = 0
		type seedRow struct {
			key                 string
			version             int64
			wrapped, commitment []byte
		}
		var all []seedRow
		found, err := db.Reader().QueryContext(t.Context(), `select kek_id, version, wrapped_seed, commitment from kek_version order by kek_id, version`)
		if err != nil {
			t.Fatal(err)
		}
		for found.Next() {
			var r seedRow
			if err := found.Scan(&r.key, &r.version, &r.wrapped, &r.commitment); err != nil {
				t.Fatal(err)
			}
			all = append(all, r)
		}
		_ = found.Close()
		opens := func() (open int) {
			v := n.restarted()
			for _, r := range rows {
				if reads(v.Vault, r) {
					open++
				}
			}
			return open
		}
		putSeed := func(r seedRow) {
			exec(t, db, []any{`update kek_version set wrapped_seed = $1, commitment = $2 where kek_id = $3 and version = $4`, r.wrapped, r.commitment, r.key, r.version})
		}
		for i, to := range all {
			for j, from := range all {
				if i == j {
					continue
				}
				pairs++
				for what, r := range map[string]seedRow{"seed": {to.key, to.version, from.wrapped, to.commitment}, "seed and commitment": {to.key, to.version, from.wrapped, from.commitment}} {
					putSeed(r)
					if got := opens(); got >= len(rows) {
						t.Errorf("all values open although a key has the %s of another", what)
					}
				}
			}
			putSeed(to)
		}
		if pairs < 5*4 {
			t.Errorf("%d pairs of seeds", pairs)
		}
		if got := opens(); got != len(rows) {
			t.Errorf("put back, %d of %d values open", got, len(rows))
		}
	})
}
