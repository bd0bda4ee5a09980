package provider_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
)

const shop = `
id: shop
name: Shop
auth: database
api: {base: ["postgres://db.example/shop"]}
tools:
  - name: orders_of
    title: Orders of a customer
    description: Lists the orders of a customer.
    effect: read
    input: {type: object, required: [customer], properties: {customer: {type: integer}, states: {type: array, default: []}, since: {type: string}}}
    sql: {statement: "select id from orders where customer = $1 and since > $2", parameters: ["{customer}", "{since}", "{states}"]}
  - name: run
    title: Run
    description: Runs a statement.
    effect: write
    input: {type: object, required: [statement], properties: {statement: {type: string}}}
    sql: {statement: "{statement}"}
    classify: {language: sql, dialect: postgres, argument: statement}
    target: {tool: tables, name: [rows.0.0]}
  - name: tables
    title: Tables
    description: Names tables.
    effect: read
    input: {type: object, required: [statement], properties: {statement: {type: string}}}
    sql: {names: "{statement}"}
`

// Issue 5: what a person approves of a statement is the statement and its values,
// and no value becomes part of a text.
func TestStatementIsShown(t *testing.T) {
	t.Parallel()
	r := parse(t, shop)
	build := func(name, args string) *provider.Request {
		req, err := tool(t, r, name).Build(json.RawMessage(args), r.API.Base...)
		if err != nil {
			t.Fatal(err)
		}
		return req
	}
	req := build("shop_orders_of", `{"customer": 7, "states": ["a'; drop table orders", null, true]}`)
	want := provider.Summary{Method: "QUERY", Host: "db.example", Path: "/shop", Body: []provider.Field{{Name: "statement on shop", Value: "select id from orders where customer = $1 and since > $2"},
		{Name: "$1", Value: "7"}, {Name: "$2 (null)", Value: "null"}, {Name: "$3", Value: "a'; drop table orders"}, {Name: "$4 (null)", Value: "null"}, {Name: "$5", Value: "true"}},
		Shown: &provider.Shown{As: "sql", Parts: map[string]string{"statement": "statement on shop"}}}
	if d := cmp.Diff(want, req.Summary); d != "" || req.Effect != policy.Read {
		t.Errorf("effect %s, shown (-want +got):\n%s", req.Effect, d)
	}
	if req := build("shop_run", `{"statement": "truncate orders"}`); req.Effect != policy.Destructive || req.Why == "" || req.Summary.Method != "EXECUTE" {
		t.Errorf("got %s, %q, %s", req.Effect, req.Why, req.Summary.Method)
	}
	if req := build("shop_run", `{"statement": "grant all on orders to mia"}`); req.Effect != policy.Access {
		t.Errorf("got %s", req.Effect)
	}
	if _, err := tool(t, r, "shop_run").Build(json.RawMessage(`{"statement": "select 1"}`), "postgres://db.example/other"); !fault.Is(err, "destination_denied") {
		t.Errorf("a place that the connection does not pin: got %v", err)
	}
	one, other := tool(t, r, "shop_orders_of").Digest(), tool(t, parse(t, strings.Replace(shop, "since > $2", "since < $2", 1)), "shop_orders_of").Digest()
	if one == other {
		t.Error("a tool with another statement counts as the one that was approved")
	}
}

// A record of a database says what is wrong with it, one problem for one fault.
func TestDatabaseRecordProblems(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ from, to, field string }{
		{"postgres://db.example/shop", "https://db.example/shop", "api.base[0]"},
		{"postgres://db.example/shop", "postgres://db.example/shop?sslmode=disable", "api.base[0]"},
		{"select id from orders where", "delete from orders where", "tools[0].effect"},
		{"    classify: {language: sql, dialect: postgres, argument: statement}\n", "", "tools[1].sql"},
		{"dialect: postgres", "dialect: snowflake", "tools[1].sql"},
		{`sql: {names: "{statement}"}`, `request: {method: GET, path: /}`, "tools[2].sql"},
		{`{names: "{statement}"}`, `{names: "{statement}", seconds: 61}`, "tools[2].sql.seconds"},
		{`{names: "{statement}"}`, `{names: "{statement}", statement: "select 1"}`, "tools[2].sql"},
		{`, parameters: ["{customer}", "{since}", "{states}"]`, `, parameters: ["{customer}", "{since}"]`, "tools[0].sql"},
		{"api: {base", "generic: {read: true}\napi: {base", "generic"},
		{"api: {base", "fields: [{name: a, title: A}]\napi: {base", "fields"},
		{"auth: database", "auth: api_key\ninject: {header: X-Key, format: \"{api_key}\"}", "api.base[0]"},
	} {
		_, err := provider.Parse([]byte(strings.Replace(shop, row.from, row.to, 1)))
		problems := provider.Problems(err)
		if len(problems) == 0 || !slices.ContainsFunc(problems, func(p provider.Problem) bool { return p.Field == row.field }) {
			t.Errorf("%s: got %v, want a problem of %s", row.to, problems, row.field)
		}
		if row.to != "" && !strings.HasPrefix(row.to, "auth") && len(problems) > 1 {
			t.Errorf("%s: one fault gives %d problems: %v", row.to, len(problems), problems)
		}
	}
}
