package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

func checkDatabase(ctx context.Context, p *patient) []finding {
	if p.cfg.DataDir == "" {
		return nil
	}
	if p.cfg.DatabaseURL == "" && p.about != nil && p.about.Engine == sqldb.PostgreSQL.String() {
		return []finding{{Level: note, Says: "the server uses PostgreSQL, which is not looked at", Mend: "Set AMBIT_DATABASE_URL to what the server has, and run this again."}}
	}
	found, err := sqldb.Inspect(ctx, sqldb.Config{DataDir: p.cfg.DataDir, URL: p.cfg.DatabaseURL, Logger: p.cfg.Logger})
	switch f := fault.Of(err); {
	case err == nil:
		return judge(found)
	case sqldb.Missing(err):
		return []finding{{Level: note, Says: "there is none yet; the first start makes it"}}
	case f.Code == "data_folder_locked":
		return []finding{{Level: fine, Says: "a server uses it, and looks after it"}}
	case slices.Contains([]string{"data_folder_missing", "data_folder_owner", "data_folder_mode"}, f.Code):
		return nil // told of the folder
	default:
		return []finding{{Level: problem, Says: f.Message + deeper(err), Why: "No server starts without it.", Mend: f.Hint}}
	}
}

// deeper is what the database itself said, without our own words around it.
func deeper(err error) string {
	f := fault.Of(err)
	cause := f.Unwrap()
	if cause == nil {
		return ""
	}
	text := strings.Join(strings.Fields(cause.Error()), " ")
	return fmt.Sprintf(" (%.300s)", text)
}

// judge says what an inspection means.
func judge(i sqldb.Inspection) []finding {
	name := map[sqldb.Engine]string{sqldb.SQLite: "SQLite", sqldb.PostgreSQL: "PostgreSQL"}[i.Engine]
	list := []finding{{Level: fine, Says: name + " " + i.Version + " answers"}}
	if i.Damage != "" {
		list = append(list, finding{Level: problem, Says: "the database file is damaged: " + i.Damage, Why: "What is read from it may be wrong.", Mend: "Stop the server, keep a copy, and restore the newest backup."})
	}
	if p := i.Postgres; p != nil {
		list = append(list, judgePostgres(i, p)...)
	}
	list = append(list, judgeSchema(i))
	for _, l := range i.Leases {
		if l.Over {
			says := "the holder of " + l.Name + " went without giving it back"
			if ago := when(l.Until, time.Now()); ago != "" { // a lease may have no time
				says += ", " + ago
			}
			list = append(list, finding{Check: "leases", Level: note, Says: says, Why: "It is over, and any node may take it: there is nothing to do."})
		}
	}
	return list
}

func judgeSchema(i sqldb.Inspection) finding {
	f := finding{Check: "schema", Level: fine, Says: fmt.Sprintf("is at step %d of %d", i.Applied, i.Known)}
	switch {
	case i.Schema != nil:
		bad := fault.Of(i.Schema)
		f.Level, f.Says, f.Why, f.Mend = problem, bad.Message, "This program does not start on it.", bad.Hint
	case i.Applied == 0:
		f.Level, f.Says = note, "is not there yet; the first start makes it"
	case i.Applied < i.Known && i.Postgres != nil && i.Postgres.Serves():
		f.Level, f.Says = problem, fmt.Sprintf("is at step %d, and this program knows %d", i.Applied, i.Known)
		f.Why, f.Mend = i.Postgres.User+" does not change the schema, so no server of this version starts.", "Make a backup, then run ambit migrate with the URL of the role that owns it."
	case i.Applied < i.Known:
		f.Level, f.Says, f.Mend = note, fmt.Sprintf("is at step %d, and this program knows %d; its start applies what is missing", i.Applied, i.Known), "Make a backup before that."
	}
	return f
}

// ownSQL runs SQL as the server's own user.
const ownSQL = `psql "$AMBIT_DATABASE_URL" -c `

// tested is the oldest major version that the tests run on.
const tested = 15

func judgePostgres(i sqldb.Inspection, p *sqldb.Postgres) []finding {
	list := durability(p)
	add := func(check, level, says, why, mend string) {
		list = append(list, finding{Check: check, Level: level, Says: says, Why: why, Mend: mend})
	}
	database := ownSQL + word(`alter database "`+p.Database+`" set `)
	if major := i.Number / 10000; major < tested {
		add("database", warning, fmt.Sprintf("PostgreSQL %d is older than what Ambit is tested with (%d)", major, tested), "Its makers stop mending old versions.", "Upgrade it.")
	}
	if p.Standby {
		add("database", problem, "it is a read-only standby", "Nothing can be written, so no call runs.", "Point AMBIT_DATABASE_URL at the primary, or add target_session_attrs=read-write.")
	} else if p.Settings["default_transaction_read_only"] == "on" {
		add("database", problem, "its transactions are read-only (default_transaction_read_only)", "Nothing can be written, so no call runs.", strings.Replace(database, " set ", " set default_transaction_read_only = off", 1))
	}
	if e := p.Settings["server_encoding"]; e != "UTF8" {
		add("database", problem, "its encoding is "+e, "Names that it cannot write make requests fail.", "Make a database with: createdb --encoding=UTF8 --template=template0 NAME")
	}
	switch {
	case p.Local || p.Verified:
	case p.Encrypted:
		add("database", warning, "the connection is encrypted, and nobody checks to whom", "Who stands in between can be the database.", "Add sslmode=verify-full and sslrootcert=FILE to AMBIT_DATABASE_URL.")
	default:
		add("database", problem, "the connection goes over the network in clear", "The audit log, and the password of the database, can be read on the way.", "Add sslmode=verify-full to AMBIT_DATABASE_URL.")
	}
	list = append(list, skew(p), hearing(p), connections(p))
	list = append(list, rights(p)...)
	for _, name := range []string{"statement_timeout", "lock_timeout"} {
		if ms, _ := strconv.Atoi(strings.TrimSuffix(p.Settings[name], "ms")); strings.HasSuffix(p.Settings[name], "ms") && ms > 0 && ms < 1000 {
			add("database", warning, name+" is "+p.Settings[name], "Under load, requests fail that would only have waited.", strings.Replace(database, " set ", " set "+name+" = '10s'", 1))
		}
	}
	return list
}

// durability: nothing that was acknowledged may be lost.
func durability(p *sqldb.Postgres) []finding {
	var list []finding
	system := func(name, why string) {
		if p.Settings[name] == "off" {
			list = append(list, finding{Check: "durability", Level: problem, Says: name + " is off", Why: why,
				Mend: "Run as a superuser: psql -c 'alter system set " + name + " = on' -c 'select pg_reload_conf()'"})
		}
	}
	system("fsync", "A crash of the machine can lose what was acknowledged, and damage the database.")
	system("full_page_writes", "A crash in the middle of a write can damage the database.")
	if p.Settings["synchronous_commit"] == "off" {
		list = append(list, finding{Check: "durability", Level: problem, Says: "synchronous_commit is off", Why: "PostgreSQL acknowledges before it has written: a crash loses audit entries of calls that were made. A server does not start like this.",
			Mend: "Run: " + ownSQL + word(`alter database "`+p.Database+`" set synchronous_commit = on`) + " -c " + word(`alter role "`+p.User+`" reset synchronous_commit`)})
	}
	if p.Standbys > 0 && p.Settings["synchronous_standby_names"] == "" {
		list = append(list, finding{Check: "durability", Level: warning, Says: count(int64(p.Standbys), "standby follows", "standbys follow") + ", and none is waited for",
			Why: "If the primary is lost, so is what it had acknowledged in its last moments.", Mend: "Run as a superuser: psql -c \"alter system set synchronous_standby_names = 'ANY 1 (*)'\" -c 'select pg_reload_conf()'"})
	}
	if len(list) == 0 {
		list = append(list, finding{Check: "durability", Level: fine, Says: "what is acknowledged is on disk"})
	}
	if p.Settings["data_checksums"] == "off" {
		list = append(list, finding{Check: "durability", Level: note, Says: "pages have no checksums, so a disk that errs is not noticed", Mend: "With the database stopped: pg_checksums --enable -D DATADIR"})
	}
	return list
}

// As app has them: calls are refused from the second on.
const (
	muchSkew = 500 * time.Millisecond
	fullSkew = 2 * time.Second
)

func skew(p *sqldb.Postgres) finding {
	off := fmt.Sprintf("this machine's is %s from the database's", max(p.Skew.Abs(), time.Millisecond).Round(time.Millisecond))
	f := finding{Check: "clock", Level: fine, Says: off}
	const mend = "Run on both machines: timedatectl set-ntp true"
	switch d := p.Skew.Abs() - p.RoundTrip/2; { // what is certain
	case d > fullSkew:
		f.Level, f.Why, f.Mend = problem, "A node that is off by more than 2 s refuses all calls.", mend
	case d > muchSkew:
		f.Level, f.Why, f.Mend = warning, "From 2 s on this node refuses all calls.", mend
	}
	return f
}

func hearing(p *sqldb.Postgres) finding {
	if p.Hears == nil {
		return finding{Check: "notices", Level: fine, Says: "pass from one connection to another"}
	}
	return finding{Check: "notices", Level: problem, Says: "a notice did not arrive: " + fault.Of(p.Hears).Message,
		Why: "With several nodes, a revoke on one would be late to cut calls that run on another.", Mend: "Connect to PostgreSQL itself, or through a pooler in session mode: LISTEN does not pass a pooler in transaction mode."}
}

func connections(p *sqldb.Postgres) finding {
	node := p.Pool + 1 // one hears notices
	free := p.Limit - p.Reserved - p.Others
	nodes := max(0, free/node)
	f := finding{Check: "connections", Level: fine, Says: fmt.Sprintf("there is room for %s of %d connections each (limit %d, others use %d, Ambit %d)", count(int64(nodes), "node", "nodes"), node, p.Limit, p.Others, p.Ours)}
	const mend = "Run as a superuser: psql -c 'alter system set max_connections = 200', and restart PostgreSQL; or raise the limit of the role or the database."
	switch {
	case nodes == 0:
		f.Level, f.Why, f.Mend = problem, "Under load, requests fail for want of a connection.", mend
	case nodes == 1:
		f.Level, f.Why, f.Mend = note, "A second node, or a rolling upgrade, needs more.", mend
	}
	return f
}

func rights(p *sqldb.Postgres) []finding {
	if p.Serves() {
		return []finding{{Check: "rights", Level: fine, Says: p.User + " reads and writes in the schema " + p.Namespace + " and cannot change it: ambit migrate does, with the role that owns it"}}
	}
	var list []finding
	switch {
	case p.Namespace == "":
		list = append(list, finding{Check: "rights", Level: problem, Says: "there is no schema to work in", Why: "Tables have no place.",
			Mend: "If there is one, as another role: psql -c " + word(`alter role "`+p.User+`" in database "`+p.Database+`" set search_path = SCHEMA`) + " -c " + word(`grant usage on schema SCHEMA to "`+p.User+`"`) +
				"; else run: " + ownSQL + word(`create schema "`+p.User+`" authorization "`+p.User+`"`)})
	case !p.CanCreate:
		list = append(list, finding{Check: "rights", Level: problem, Says: p.User + " cannot make tables in the schema " + p.Namespace, Why: "The next upgrade needs to.", Mend: "Run as its owner: psql -c " + word(`grant create, usage on schema "`+p.Namespace+`" to "`+p.User+`"`)})
	}
	if some := slices.Concat(p.Lacking, p.Foreign); len(some) > 0 {
		list = append(list, finding{Check: "rights", Level: problem, Says: p.User + " does not own these tables, or cannot read and write them: " + words(some[:min(len(some), 20)]), Why: "Requests that need them fail, and so does the next upgrade.",
			Mend: "Run as a superuser: psql -c " + word(`alter table "`+p.Namespace+`"."`+some[0]+`" owner to "`+p.User+`"`) + ", and so for each."})
	}
	if p.Superuser {
		list = append(list, finding{Check: "rights", Level: warning, Says: p.User + " is a superuser", Why: "Whoever gets hold of the URL can do anything in the whole PostgreSQL, and read files of its machine.",
			Mend: "Run as a superuser: createuser --pwprompt ambit && createdb --owner=ambit --encoding=UTF8 --template=template0 ambit"})
	}
	if len(list) == 0 {
		list = append(list, finding{Check: "rights", Level: fine, Says: p.User + " can do what it needs, in the schema " + p.Namespace})
	}
	return list
}
