package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider/postgres"
	"github.com/ambit-dev/ambit/internal/statement"
)

// A record of auth database is a PostgreSQL server: its bases are places such as
// postgres://db.example:5432/shop, and its tools run statements there. What a tool
// of effect read runs is judged by its text and then runs in a transaction in which
// the server itself refuses every change; neither alone would do.

// SQLSpec is what a tool of a database runs.
type SQLSpec struct {
	// Statement is one statement, or the argument that holds it: "{statement}".
	Statement string `yaml:"statement"`
	// Parameters are $1, $2 and so on: constants or arguments. An argument that is
	// a list gives several, and one that is left out is null.
	Parameters []string `yaml:"parameters"`
	// Names stands in place of Statement: the tool tells which tables the statement
	// in this argument names, and runs nothing of it.
	Names   string `yaml:"names"`
	Base    string `yaml:"base"`    // one of api.base; default the first
	Seconds int    `yaml:"seconds"` // for how long at most; default 30
}

const (
	maxSQLRows     = 1000
	defaultSQLWait = 30
	maxSQLWait     = 60
)

// sqlPlan is SQLSpec, compiled.
type sqlPlan struct {
	text     string // constant, or
	arg      string
	names    bool // of the statement in arg
	params   []param
	timeout  time.Duration
	readOnly bool
}

// namesSQL names relations and schemas that there are, of those that may be named.
const namesSQL = `select current_database() || ': ' || coalesce(string_agg(what, ', ' order by what), 'nothing that is there yet') from (
	select case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'f' then 'foreign table' when 'S' then 'sequence' when 'i' then 'index' when 'I' then 'index' else 'table' end
		|| ' ' || n.nspname || '.' || c.relname || case when c.relkind in ('r', 'p', 'm') and c.reltuples >= 0 then ' (about ' || c.reltuples::bigint || ' rows)' else '' end as what
	from pg_class c join pg_namespace n on n.oid = c.relnamespace
	where c.oid in (select to_regclass(t) from json_array_elements_text($1::json) t)
	union all select 'schema ' || nspname from pg_namespace where nspname in (select t from json_array_elements_text($2::json) t)
	limit 20) found`

// compileStatement is compileRequest for a tool of a database.
func (r *Record) compileStatement(l *linter, field string, s ToolSpec, p *plan) {
	if s.SQL == nil {
		l.add(field+".sql", "Say which statement it runs.", "The tool of a database runs a statement, and this one has none.")
		return
	}
	if r := s.Request; r.Method != "" || r.Path != "" || s.Poll != nil {
		l.add(field+".request", "Remove it.", "A database is not spoken to by HTTP.")
	}
	r.compileSQL(l, field+".sql", s, p)
}

// compileSQL checks what a tool of a database runs.
func (r *Record) compileSQL(l *linter, field string, spec ToolSpec, p *plan) {
	s := spec.SQL
	if s.Seconds < 0 || s.Seconds > maxSQLWait {
		l.add(field+".seconds", fmt.Sprintf("Use 1 to %d.", maxSQLWait), "%d is out of range.", s.Seconds)
	}
	seconds := s.Seconds
	if seconds == 0 {
		seconds = defaultSQLWait
	}
	p.sql = &sqlPlan{timeout: time.Duration(seconds) * time.Second, readOnly: spec.Effect == policy.Read}
	p.base = s.Base
	if p.base == "" && len(r.API.Base) > 0 {
		p.base = r.API.Base[0]
	} else if p.base != "" && !slices.Contains(r.API.Base, p.base) {
		l.add(field+".base", "Write it as in api.base.", "%s is not one of api.base.", quoted(s.Base))
	}
	used := map[string]bool{}
	if (s.Statement == "") == (s.Names == "") {
		l.add(field, "Give statement, or names.", "Exactly one of statement and names is needed.")
		return
	}
	p.sql.names = s.Names != ""
	text := s.Statement + s.Names
	at := field + map[bool]string{false: ".statement", true: ".names"}[p.sql.names]
	l.text(at, text, 20_000, true, true)
	arg, isArg := wholePlaceholder(text)
	switch {
	case isArg:
		used[arg] = true
		p.sql.arg = arg
		if p.names != nil && !slices.Contains(p.needs, arg) {
			l.add(at, "Add it to input.required.", "{%s} is not a required argument.", arg)
		}
		judged := spec.Classify != nil && spec.Classify.Language == "sql" && spec.Classify.Dialect == string(statement.Postgres) && spec.Classify.Argument == arg
		if !p.sql.names && !judged {
			l.add(field, "Add classify: {language: sql, dialect: postgres, argument: "+arg+"}.", "Nothing judges the statement that is given.")
		}
	case p.sql.names:
		l.add(at, `Name the argument: "{statement}".`, "The statement is not an argument.")
	default:
		p.sql.text = text
		if v := statement.SQL(text, statement.Postgres); policy.Worse(spec.Effect, v.Effect) != spec.Effect {
			l.add(strings.TrimSuffix(field, ".sql")+".effect", "Declare what the statement can do.", "%s is too mild: %s.", spec.Effect, v.Why)
		}
	}
	if p.sql.names && (spec.Effect != policy.Read || len(s.Parameters) > 0) {
		l.add(field, "Set effect: read, and give no parameters.", "What only names tables reads, and takes nothing else.")
	}
	for i, text := range s.Parameters {
		at := fmt.Sprintf("%s.parameters[%d]", field, i)
		v := param{value: text}
		l.text(at, text, 1000, true, false)
		v.arg = l.placeholder(at, text, p, used)
		p.sql.params = append(p.sql.params, v)
	}
	for _, name := range sortedKeys(p.names) {
		if !used[name] {
			l.add(field, "Use it in statement or parameters, or remove it from input.", "The argument %s goes nowhere.", quoted(name))
		}
	}
}

// build makes the request that runs the statement of a call.
func (p *plan) buildSQL(t Tool, canonical []byte, given arguments, api []string) (*Request, error) {
	if !slices.Contains(api, p.base) {
		return nil, unbound()
	}
	place, err := postgres.ParsePlace(p.base)
	if err != nil {
		return nil, err
	}
	at, err := url.Parse(p.base)
	if err != nil {
		return nil, fault.New(fault.Internal, "record_invalid", "The connection has no place to ask.")
	}
	req := &Request{Args: canonical, Method: "EXECUTE", URL: at, Header: http.Header{}, Effect: t.Effect, base: p.base,
		Summary: Summary{Method: "EXECUTE", Host: at.Host, Path: at.EscapedPath()}}
	if p.sql.readOnly {
		req.Method, req.Summary.Method = "QUERY", "QUERY"
	}
	run := &postgres.Statement{Text: p.sql.text, ReadOnly: p.sql.readOnly, Timeout: p.sql.timeout, Rows: maxSQLRows, Bytes: t.Output.MaxBytes}
	if p.sql.arg != "" {
		if run.Text, err = argumentText(p.sql.arg, given); err != nil {
			return nil, badArguments("The argument " + quoted(p.sql.arg) + " must be text.")
		}
	}
	req.Summary.Body = []Field{{"statement on " + place.Database, run.Text}}
	req.Summary.Shown = &Shown{As: "sql", Parts: map[string]string{"statement": "statement on " + place.Database}}
	if p.sql.names {
		run.Text, run.Parameters = namesSQL, nameLists(run.Text)
		req.sql = run
		return req, nil
	}
	if run.Parameters, err = p.sql.parameters(given); err != nil {
		return nil, err
	}
	for i, v := range run.Parameters {
		shown := Field{fmt.Sprintf("$%d", i+1), "null"}
		if v != nil {
			shown.Value = *v
		} else {
			shown.Name += " (null)"
		}
		req.Summary.Body = append(req.Summary.Body, shown)
	}
	req.sql = run
	v, ok := p.judge(given, nil)
	if !ok || policy.Worse(t.Effect, v.Effect) == t.Effect {
		return req, nil
	}
	if p.sql.readOnly {
		return nil, fault.New(fault.Invalid, "statement_not_read", "This tool runs statements that only read: "+v.Why+".").
			WithHint("Use the provider's tool that changes something, which a person can approve.")
	}
	req.Effect, req.Why = v.Effect, v.Why
	return req, nil
}

// nameLists gives the names of a statement as the two parameters of namesSQL.
func nameLists(text string) []*string {
	relations, schemas := statement.Names(text)
	list := func(names []string) *string {
		doc, _ := json.Marshal(append([]string{}, names...)) // a list of texts always has a JSON form
		out := string(doc)
		return &out
	}
	return []*string{list(relations), list(schemas)}
}

func (s *sqlPlan) parameters(given arguments) ([]*string, error) {
	var out []*string
	for _, p := range s.params {
		v, ok := given[p.arg]
		switch {
		case p.arg == "":
			text := p.value
			out = append(out, &text)
		case !ok:
			out = append(out, nil)
		case v.Kind() == '[':
			var list []jsontext.Value
			if err := unmarshal(v, &list); err != nil || len(list) > 1000 {
				return nil, badArguments("The argument " + quoted(p.arg) + " is a list of at most 1000 values.")
			}
			for _, item := range list {
				out = append(out, sqlValue(item))
			}
		default:
			out = append(out, sqlValue(v))
		}
	}
	return out, nil
}

// sqlValue is a value as the server reads it: text as it is, null as null, all else
// as its JSON.
func sqlValue(v jsontext.Value) *string {
	text := string(v)
	switch v.Kind() {
	case 'n':
		return nil
	case '"':
		if unmarshal(v, &text) != nil {
			text = string(v)
		}
	}
	return &text
}

// login is who a credential logs in as.
func (r Record) login(cred Credential) (postgres.Login, error) {
	l := postgres.Login{User: string(cred.Values[FieldUsername].Reveal()), Password: cred.Values[FieldPassword]}
	if ca := cred.Values[FieldCA]; !ca.IsZero() {
		l.Roots = ca.Reveal()
	}
	if l.User == "" || l.Password.IsZero() {
		return l, fault.New(fault.Conflict, "credential_incomplete", "The connection's credential has no user name or no password.").WithHint("Reconnect.")
	}
	return l, nil
}

// secretsOf is what takes a credential out of an answer again.
func (r Record) secretsOf(cred Credential) *Redactor {
	var forms formSet
	for _, name := range sortedKeys(cred.Values) {
		if !r.Public(name) {
			forms.add(cred.Values[name].Reveal())
		}
	}
	return newRedactor(&forms)
}

// runSQL runs a statement at a place that the connection pins.
func (r Record) runSQL(ctx context.Context, client *outbound.Client, bases []string, base string, run postgres.Statement, cred Credential) (postgres.Result, error) {
	if !slices.Contains(bases, base) {
		return postgres.Result{}, fault.New(fault.Denied, "destination_denied", "The request goes to a place that this connection is not bound to.").
			WithHint("If the provider's record changed, reconnect.")
	}
	place, err := postgres.ParsePlace(base)
	if err != nil {
		return postgres.Result{}, err
	}
	login, err := r.login(cred)
	if err != nil {
		return postgres.Result{}, err
	}
	return postgres.Run(ctx, client, place, login, run)
}

// callSQL runs the statement of a call, and gives its answer in the form of the
// others.
func callSQL(ctx context.Context, client *outbound.Client, pinned Pinned, rec Record, tool Tool, req *Request, cred Credential) (Answer, error) {
	result, err := rec.runSQL(ctx, client, pinned.API, req.base, *req.sql, cred)
	refused, isRefusal := errors.AsType[*postgres.Refusal](err)
	status, doc := http.StatusOK, any(nil)
	switch {
	case errors.Is(err, postgres.ErrLogin):
		status = http.StatusUnauthorized
	case isRefusal:
		status, doc = sqlStatus(refused.Code), map[string]any{"error": refusalShown(refused)}
	case err != nil:
		return Answer{}, err
	default:
		rows := make([]json.RawMessage, len(result.Rows))
		for i, row := range result.Rows {
			rows[i] = row
		}
		doc = map[string]any{"columns": append([]postgres.Column{}, result.Columns...), "rows": rows, "truncated": result.Truncated, "command": result.Command, "affected": result.Affected}
	}
	body, err := json.Marshal(doc)
	if err != nil {
		return Answer{}, fmt.Errorf("writing the rows of an answer: %w", err)
	}
	done, err := client.Hold(ctx, len(body))
	if err != nil {
		return Answer{Status: status, Header: http.Header{}, Withheld: tooBusy}, nil
	}
	defer done()
	resp := &outbound.Response{Status: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: body, Sent: true}
	roomy := tool // the rows were bounded, and what stands around them is small
	roomy.Output.MaxBytes += 64 << 10
	return clean(resp, req.URL, rec.secretsOf(cred), roomy), nil
}

func refusalShown(r *postgres.Refusal) map[string]any {
	out := map[string]any{"code": r.Code, "message": r.Message}
	for name, v := range map[string]string{"detail": r.Detail, "hint": r.Hint} {
		if v != "" {
			out[name] = v
		}
	}
	if r.Position > 0 {
		out["position"] = r.Position
	}
	return out
}

// sqlStatus is the status of HTTP that says the same as an SQLSTATE.
func sqlStatus(code string) int {
	switch {
	case code == "42501" || code == "25006":
		return http.StatusForbidden
	case code == "57014":
		return http.StatusRequestTimeout
	case strings.HasPrefix(code, "40") || strings.HasPrefix(code, "23"):
		return http.StatusConflict
	case strings.HasPrefix(code, "53") || strings.HasPrefix(code, "57") || strings.HasPrefix(code, "58") || strings.HasPrefix(code, "XX"):
		return http.StatusServiceUnavailable
	}
	return http.StatusBadRequest
}

// identifySQL logs in, and tells as whom.
func (r Record) identifySQL(ctx context.Context, client *outbound.Client, pinned Pinned, cred Credential) (Account, error) {
	if len(pinned.API) == 0 {
		return Account{}, fault.New(fault.Internal, "record_invalid", "The connection has no place to ask.")
	}
	run := postgres.Statement{Text: "select current_user::text, current_database()::text", ReadOnly: true, Timeout: 10 * time.Second, Rows: 1, Bytes: maxProbe}
	result, err := r.runSQL(ctx, client, pinned.API, pinned.API[0], run, cred)
	refused, isRefusal := errors.AsType[*postgres.Refusal](err)
	switch {
	case errors.Is(err, postgres.ErrLogin):
		return Account{}, fault.New(fault.Denied, CodeRefused, "The database refused the login.").WithHint("Check user name, password and database, and reconnect.")
	case isRefusal:
		return Account{}, fault.New(fault.Unavailable, "upstream_error", "The database did not answer ("+refused.Code+").").WithHint("Try again later.")
	case err != nil:
		return Account{}, err
	}
	var who []string
	if len(result.Rows) != 1 || json.Unmarshal(result.Rows[0], &who) != nil || len(who) != 2 {
		return Account{}, fault.New(fault.Unavailable, "identity_unreadable", "The database does not tell as whom it takes the login.")
	}
	at, err := url.Parse(pinned.API[0])
	if err != nil {
		return Account{}, fault.New(fault.Internal, "record_invalid", "The connection has no place to ask.")
	}
	label := who[0] + "@" + at.Host + "/" + who[1]
	if len(label) > maxAccountField || strings.ContainsFunc(label, unprintable) || r.secretsOf(cred).Finds([]byte(label)) {
		return Account{}, fault.New(fault.Unavailable, "identity_unreadable", "The database does not tell as whom it takes the login.")
	}
	return Account{ID: label, Label: label}, nil
}

// Reachable judges a place of a record when it is configured.
func Reachable(ctx context.Context, client *outbound.Client, place string) error {
	if !strings.HasPrefix(place, postgres.Scheme) {
		return client.Check(ctx, place)
	}
	p, err := postgres.ParsePlace(place)
	if err != nil {
		return err
	}
	return p.Check(client)
}

// lintDatabase checks what only a database has, and what it has not.
func (r *Record) lintDatabase(l *linter) {
	if r.Auth != Database {
		for i, s := range r.ToolSpecs {
			if s.SQL != nil && r.knownAuth() {
				l.add(fmt.Sprintf("tools[%d].sql", i), "Write request, or set auth: database.", "Only a database runs statements.")
			}
		}
		return
	}
	for _, s := range []struct {
		field string
		set   bool
	}{
		{"identity", r.Identity != nil}, {"health", r.Health != nil}, {"access", len(r.Access) > 0}, {"default_headers", len(r.DefaultHeaders) > 0}, {"inject", !r.Injection.empty()},
		{"generic", r.Generic.Read || r.Generic.Write || r.Generic.Destructive},
	} {
		if s.set {
			l.add(s.field, "Remove it.", "A database is not spoken to by HTTP, and tells itself as whom it takes a login.")
		}
	}
}
