package provider

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// What a server lists under one credential is kept with the connection: the
// digests for calls, which read nothing else, and the definitions for the page on
// which a person compares them with the record.

const (
	selectPinsSQL  = `select looked_at, pins from mcp_look where connection_id = $1`
	selectToolsSQL = `select looked_at, revision, tools from mcp_look where connection_id = $1`
	hasLookSQL     = `select exists (select 1 from mcp_look where connection_id = $1)`
	upsertLookSQL  = `insert into mcp_look (connection_id, environment_id, provider, looked_at, pins, tools, revision) values ($1, $2, $3, $4, $5, $6, $7)
		on conflict (connection_id) do update set looked_at = excluded.looked_at, pins = excluded.pins, tools = excluded.tools, revision = excluded.revision`
	forgetLookSQL = `delete from mcp_look where connection_id = $1`
	touchLookSQL  = `update mcp_look set looked_at = $2 where connection_id = $1 and pins = $3 and revision = $4`
)

// Pins are the digests of what the server of a connection listed last, by the
// server's names of the tools, and when that was; the zero time: never.
func (s *Store) Pins(ctx context.Context, conn id.Connection) (at time.Time, pins map[string]string, err error) {
	var looked int64
	var text string
	err = s.cfg.DB.Reader().QueryRowContext(ctx, selectPinsSQL, conn).Scan(&looked, &text)
	if sqldb.NoRows(err) {
		return time.Time{}, nil, nil
	}
	if err == nil {
		err = json.Unmarshal([]byte(text), &pins)
	}
	return sqldb.Time(looked), pins, sqldb.Wrap("read what an MCP server listed", err)
}

// Looked is what the server of a connection listed last; the zero time: it was
// never looked at.
func (s *Store) Looked(ctx context.Context, conn id.Connection) (at time.Time, listed Listing, err error) {
	var looked int64
	var text []byte
	err = s.cfg.DB.Reader().QueryRowContext(ctx, selectToolsSQL, conn).Scan(&looked, &listed.Revision, &text)
	if sqldb.NoRows(err) {
		return time.Time{}, Listing{}, nil
	}
	var list []json.RawMessage
	if err == nil {
		err = json.Unmarshal(text, &list)
	}
	if err != nil {
		return time.Time{}, Listing{}, sqldb.Wrap("read what an MCP server listed", err)
	}
	for _, doc := range list {
		d, err := parseDefinition(doc)
		if err != nil {
			continue // of a time when it was taken; a look tells whether it is now
		}
		listed.Tools = append(listed.Tools, d)
	}
	return sqldb.Time(looked), listed, nil
}

// KeepLook keeps what the server of a connection lists now. What is another list
// than the one before is told in the audit: a tool whose words change is what an
// attack with them looks like. e begins that entry, with who looked at which
// connection. Still says, in the same transaction, whether the connection is one whose
// server may be looked at.
func (s *Store) KeepLook(ctx context.Context, e audit.Entry, rec Record, listed Listing, still func(context.Context, sqldb.Querier) error) error {
	texts := make([]json.RawMessage, len(listed.Tools))
	for i, d := range listed.Tools {
		texts[i] = d.text
	}
	pins, err := json.Marshal(listed.Pins())
	if err != nil {
		return fmt.Errorf("encoding the pins of an MCP server: %w", err)
	}
	tools, err := json.Marshal(texts)
	if err != nil {
		return fmt.Errorf("encoding the tools of an MCP server: %w", err)
	}
	return s.cfg.DB.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if err := still(ctx, tx); err != nil {
			return err
		}
		now := sqldb.Micros(s.cfg.Now())
		res, err := tx.ExecContext(ctx, touchLookSQL, e.Connection, now, string(pins), listed.Revision)
		if err != nil {
			return sqldb.Wrap("note a look at an MCP server", err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 1 {
			return sqldb.Wrap("note a look at an MCP server", err)
		}
		var before bool
		if err := tx.QueryRowContext(ctx, hasLookSQL, e.Connection).Scan(&before); err != nil {
			return sqldb.Wrap("note a look at an MCP server", err)
		}
		if _, err := tx.ExecContext(ctx, upsertLookSQL, e.Connection, e.Environment, rec.ID, now, string(pins), tools, listed.Revision); err != nil {
			return sqldb.Wrap("keep what an MCP server lists", err)
		}
		byState := map[MCPState][]string{}
		for _, c := range rec.CompareMCP(listed.Tools) {
			byState[c.State] = append(byState[c.State], c.Upstream())
		}
		e.Action, e.Detail = "provider.tools_listed", map[string]string{"listed": fmt.Sprint(len(listed.Tools))}
		if before {
			e.Action = "provider.tools_changed"
		}
		for _, state := range []MCPState{MCPChanged, MCPNew, MCPGone} {
			if names := byState[state]; len(names) > 0 {
				e.Detail[string(state)] = short(strings.Join(names, " "), 500)
			}
		}
		s.cfg.Audit.AppendEvent(tx, e)
		return nil
	})
}

// ForgetLook forgets what the server of a connection listed, which has ended or was
// connected anew.
func (s *Store) ForgetLook(ctx context.Context, tx *sqldb.Tx, conn id.Connection) error {
	_, err := tx.ExecContext(ctx, forgetLookSQL, conn)
	return sqldb.Wrap("forget what an MCP server listed", err)
}

func short(s string, limit int) string {
	if len(s) > limit {
		return s[:limit-4] + " ..."
	}
	return s
}
