package integration

import (
	"context"
	"strings"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

const (
	integrationColumns  = `id, environment_id, provider, ownership, description, enabled, scopes, clients, scopes_required, created_at, updated_at, version`
	integrationsSQL     = `select ` + integrationColumns + ` from integration where environment_id = $1 and ($2 = '' or provider = $2) order by id`
	insertIntegationSQL = `insert into integration (` + integrationColumns + `) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, 1)`
	updateSQL           = `update integration set description = $3, enabled = $4, scopes = $5, clients = $6, scopes_required = $7, updated_at = $8, version = version + 1
		where environment_id = $1 and id = $2 and version = $9`
	deleteSQL  = `delete from integration where environment_id = $1 and id = $2`
	settingSQL = `select provider, enabled, scopes, updated_at, version from integration_setting where organization_id = $1 and environment_id = $2 order by provider`
	putSQL     = `insert into integration_setting (environment_id, organization_id, provider, enabled, scopes, updated_at, version) values ($1, $2, $3, $4, $5, $6, 1)
		on conflict (organization_id, provider) do update set enabled = excluded.enabled, scopes = excluded.scopes, updated_at = excluded.updated_at,
		version = integration_setting.version + 1`
	forgetSettingsSQL = `delete from integration_setting where environment_id = $1 and provider = $2`
	addedSQL          = `insert into integration_added (connection_id, environment_id) values ($1, $2) on conflict (connection_id) do nothing`
	amongAddedSQL     = `select a.connection_id from integration_added a join connection c on c.id = a.connection_id
		where a.environment_id = $1 and c.organization_id = $2 and c.user_id = $3 and c.provider = $4 and c.state <> 'disconnected'`
)

// selectIntegrations gives rows whose provider is known by its id alone.
func selectIntegrations(ctx context.Context, q sqldb.Querier, env id.Environment, slug string) ([]Integration, error) {
	rows, err := q.QueryContext(ctx, integrationsSQL, env, slug)
	if err != nil {
		return nil, sqldb.Wrap("list integrations", err)
	}
	defer rows.Close()
	var out []Integration
	for rows.Next() {
		var i Integration
		var scopes string
		var created, updated, enabled, required int64
		err := rows.Scan(&i.ID, &i.Environment, &i.Provider.Record.ID, &i.Ownership, &i.Description, &enabled, &scopes, &i.Clients, &required, &created, &updated, &i.Version)
		if err != nil {
			return nil, sqldb.Wrap("list integrations", err)
		}
		i.Enabled, i.ScopesRequired, i.Scopes = enabled != 0, required != 0, scopesOf(scopes)
		i.CreatedAt, i.UpdatedAt = sqldb.Time(created), sqldb.Time(updated)
		out = append(out, i)
	}
	return out, sqldb.Wrap("list integrations", rows.Err())
}

// A list of scopes is stored behind a mark, since no list differs from an empty one.
const listMark = "="

func scopesOf(text string) []string {
	list, ok := strings.CutPrefix(text, listMark)
	if !ok {
		return nil
	}
	return append([]string{}, strings.Fields(list)...)
}

func textOf(scopes []string) string {
	if scopes == nil {
		return ""
	}
	return listMark + strings.Join(scopes, " ")
}

func insertIntegration(ctx context.Context, tx *sqldb.Tx, i Integration) error {
	_, err := tx.ExecContext(ctx, insertIntegationSQL, i.ID, i.Environment, i.Provider.Record.ID, string(i.Ownership), i.Description, flag(i.Enabled), textOf(i.Scopes), i.Clients,
		flag(i.ScopesRequired), sqldb.Micros(i.CreatedAt))
	if sqldb.IsUnique(err) {
		return taken()
	}
	return sqldb.Wrap("write an integration", err)
}

func taken() error {
	return fault.New(fault.Conflict, "integration_exists", "There is such a data integration already.").WithHint("Update it instead.")
}

func updateIntegration(ctx context.Context, tx *sqldb.Tx, i Integration, was int64) error {
	res, err := tx.ExecContext(ctx, updateSQL, i.Environment, i.ID, i.Description, flag(i.Enabled), textOf(i.Scopes), i.Clients, flag(i.ScopesRequired), sqldb.Micros(i.UpdatedAt), was)
	if err != nil {
		return sqldb.Wrap("write an integration", err)
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return fault.New(fault.Conflict, "version_conflict", "The integration was changed in the meantime.").WithHint("Read it again and repeat the change.")
	}
	return nil
}

func deleteIntegration(ctx context.Context, tx *sqldb.Tx, i Integration) error {
	_, err := tx.ExecContext(ctx, deleteSQL, i.Environment, i.ID)
	return sqldb.Wrap("remove an integration", err)
}

func forgetSettings(ctx context.Context, tx *sqldb.Tx, env id.Environment, slug string) error {
	_, err := tx.ExecContext(ctx, forgetSettingsSQL, env, slug)
	return sqldb.Wrap("remove the settings of organizations", err)
}

// selectSettings gives an organization's, by the id of the provider.
func selectSettings(ctx context.Context, q sqldb.Querier, env id.Environment, org id.Organization) (map[string]Setting, error) {
	rows, err := q.QueryContext(ctx, settingSQL, org, env)
	if err != nil {
		return nil, sqldb.Wrap("list settings", err)
	}
	defer rows.Close()
	out := map[string]Setting{}
	for rows.Next() {
		var s Setting
		var slug string
		var scopes string
		var enabled, updated int64
		if err := rows.Scan(&slug, &enabled, &scopes, &updated, &s.Version); err != nil {
			return nil, sqldb.Wrap("list settings", err)
		}
		s.Enabled, s.Scopes, s.UpdatedAt = enabled != 0, scopesOf(scopes), sqldb.Time(updated)
		out[slug] = s
	}
	return out, sqldb.Wrap("list settings", rows.Err())
}

func putSetting(ctx context.Context, tx *sqldb.Tx, env id.Environment, org id.Organization, slug string, s Setting) error {
	_, err := tx.ExecContext(ctx, putSQL, env, org, slug, flag(s.Enabled), textOf(s.Scopes), sqldb.Micros(s.UpdatedAt))
	return sqldb.Wrap("write a setting", err)
}

func insertAdded(ctx context.Context, tx *sqldb.Tx, env id.Environment, conn id.Connection) error {
	_, err := tx.ExecContext(ctx, addedSQL, conn, env)
	return sqldb.Wrap("note an added connection", err)
}

// selectAdded says which of an owner's connections were added on purpose.
func selectAdded(ctx context.Context, q sqldb.Querier, env id.Environment, h Holder, slug string) (map[id.Connection]bool, error) {
	rows, err := q.QueryContext(ctx, amongAddedSQL, env, h.Organization, h.User, slug)
	if err != nil {
		return nil, sqldb.Wrap("list added connections", err)
	}
	defer rows.Close()
	out := map[id.Connection]bool{}
	for rows.Next() {
		var c id.Connection
		if err := rows.Scan(&c); err != nil {
			return nil, sqldb.Wrap("list added connections", err)
		}
		out[c] = true
	}
	return out, sqldb.Wrap("list added connections", rows.Err())
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
