package authority

import (
	"context"
	"time"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/vault"
)

// row is one authority.
type row struct {
	id               string
	environment      id.Environment
	certificate      []byte // DER
	sealed           []byte // its key, PKCS #8
	created, expires time.Time
}

func (r row) place() vault.Place {
	return vault.Place{Environment: r.environment, Kind: "proxy_authority", Object: r.id, Version: 1}
}

func keeps() vault.Sealed {
	return vault.Sealed{Table: "proxy_authority", Column: "sealed_key", Key: []string{"id"}, Fields: `s.id, s.environment_id`,
		Place: func(scan func(dest ...any) error) (vault.Place, error) {
			var r row
			err := scan(&r.id, &r.environment)
			return r.place(), err
		}}
}

const (
	authorityColumns = `id, environment_id, certificate, sealed_key, created_at, expires_at`
	authoritiesSQL   = `select ` + authorityColumns + ` from proxy_authority where environment_id = $1 and expires_at > $2 order by created_at desc, id desc`
	insertSQL        = `insert into proxy_authority (` + authorityColumns + `) values ($1, $2, $3, $4, $5, $6)`
)

// authorities lists those of an environment that have not expired, newest first.
func authorities(ctx context.Context, q sqldb.Querier, env id.Environment, now time.Time) ([]row, error) {
	return sqldb.Collect(func(from sqldb.Scanner) (row, error) {
		var r row
		var created, expires int64
		err := from.Scan(&r.id, &r.environment, &r.certificate, &r.sealed, &created, &expires)
		r.created, r.expires = sqldb.Time(created), sqldb.Time(expires)
		return r, err
	})(q.QueryContext(ctx, authoritiesSQL, env, sqldb.Micros(now)))
}

func insertAuthority(ctx context.Context, tx *sqldb.Tx, r row) error {
	_, err := tx.ExecContext(ctx, insertSQL, r.id, r.environment, r.certificate, r.sealed, sqldb.Micros(r.created), sqldb.Micros(r.expires))
	return sqldb.Wrap("store the proxy's authority", err)
}
