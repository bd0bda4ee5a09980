//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp/kb"
	"github.com/jackc/pgx/v5"

	"github.com/ambit-dev/ambit/internal/id"
)

// oneScreen wants these, and the buttons of the decision, whole on the first
// screen of a small and of a usual phone (product.md section 1: understood in
// five seconds; threats.md A3).
func (b *browser) oneScreen(selectors ...string) {
	b.t.Helper()
	defer b.desktop()
	for _, size := range [][2]int64{{360, 640}, {390, 844}} {
		b.size(size[0], size[1], true)
		for _, s := range append(selectors, ".verdict button.primary", ".verdict button.danger") {
			hidden := ask[string](b, fmt.Sprintf(`(() => {
				scrollTo(0, 0);
				const e = document.querySelector(%q), r = e?.getBoundingClientRect(), buttons = document.querySelector(".verdict").getBoundingClientRect();
				if (!e || !r.height) return "is not there";
				if (r.top < 0 || r.bottom > innerHeight) return "ends at " + r.bottom + " of " + innerHeight;
				return !e.closest(".verdict") && r.bottom > buttons.top ? "is under the buttons" : "";
			})()`, s))
			if hidden != "" {
				b.t.Errorf("on a screen of %dx%d, %s %s", size[0], size[1], s, hidden)
			}
		}
		b.shoot(fmt.Sprintf("first-screen-%d", size[0]))
	}
}

// script switches the page's own scripts on or off.
func (b *browser) script(on bool) {
	b.t.Helper()
	b.do("switching scripts", command(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !on}))
}

// withoutScript denies, ends a session and filters the audit in a browser that
// runs no script. What needs one says so.
func withoutScript(t *testing.T, b *browser, a *agent) {
	t.Helper()
	b.script(false)
	defer b.script(true)
	handle, approval := a.request(map[string]any{"providers": []string{"sandbox"}, "effects": []string{"read"}, "purpose": "Count the issues.", "minutes": 10})
	b.open(approval)
	if got := b.text("main"); !strings.Contains(got, "Passkeys need JavaScript") {
		t.Errorf("a page that needs a passkey does not say that it needs JavaScript: %s", got)
	}
	if !ask[bool](b, `document.querySelector(".verdict button.primary").disabled`) {
		t.Error("Approve can be pressed where nothing would come of it")
	}
	session := a.mustCall("check_session", map[string]any{"session": handle}).fact("session_id")
	b.open("/ui/sessions/" + session)
	b.clickText("End this session")
	b.click("dialog#revoke button.danger")
	b.until("the session has ended", `document.querySelector("h1")?.textContent.includes("ended")`)
	if r := a.state(handle); r.fact("reason") != "revoked" {
		t.Errorf("after ending it without script: got %s, want revoked", r.raw)
	}
	b.open("/ui/audit")
	b.fill("#action", "session.*")
	b.clickText("Show")
	b.until("the audit is filtered", `location.search.includes("action=session") && document.querySelector(".entry") && !document.querySelector("main").textContent.includes("passkey.registered")`)
	b.open("/ui/enroll#cut")
	if got := b.text("main"); !strings.Contains(got, "Making a passkey needs JavaScript") {
		t.Errorf("the page of a sign-in link does not say that it needs JavaScript: %s", got)
	}
}

// rows writes copies of rows into the database of a server, as many days of use
// would have left them there.
type rows struct {
	t       *testing.T
	conn    *pgx.Conn
	columns map[string][]string // by table
}

// copy writes a row of table like the one with this id, with other values.
func (r rows) copy(table, from string, with map[string]any) {
	r.t.Helper()
	ctx := r.t.Context()
	columns := r.columns[table]
	if columns == nil {
		found, err := r.conn.Query(ctx, `select column_name from information_schema.columns where table_name = $1 and table_schema = current_schema()`, table)
		if err == nil {
			columns, err = pgx.CollectRows(found, pgx.RowTo[string])
		}
		if err != nil || len(columns) == 0 {
			r.t.Fatalf("the columns of %s: %v, %v", table, columns, err)
		}
		r.columns[table] = columns
	}
	args, values := []any{from}, slices.Clone(columns)
	for i, c := range columns {
		if v, ok := with[c]; ok {
			args = append(args, v)
			values[i] = fmt.Sprintf("$%d", len(args))
		}
	}
	key := "id"
	if !slices.Contains(columns, key) {
		key = "session_id"
	}
	query := fmt.Sprintf("insert into %s (%s) select %s from %s where %s = $1 limit 1", table, strings.Join(columns, ", "), strings.Join(values, ", "), table, key)
	if tag, err := r.conn.Exec(ctx, query, args...); err != nil || tag.RowsAffected() != 1 {
		r.t.Fatalf("copying a row of %s: %v, %v", table, tag, err)
	}
}

func (r rows) one(query string, args ...any) (s string) {
	r.t.Helper()
	if err := r.conn.QueryRow(r.t.Context(), query, args...).Scan(&s); err != nil {
		r.t.Fatalf("%s: %v", query, err)
	}
	return s
}

// The names that are hard to show: one that cannot break, and one that is
// written from right to left.
var hardNames = []string{strings.Repeat("deployment-of-", 9) + "production", "\u05de\u05e0\u05d4\u05dc \u05d4\u05d1\u05e2\u05d9\u05d5\u05ea \u05e9\u05dc \u05d4\u05e6\u05d5\u05d5\u05ea \u05d4\u05d2\u05d3\u05d5\u05dc"}

// manyRows looks at an organization with 300 agents, accounts and sessions, one
// of them with 50 grants, on the narrowest phone.
func manyRows(t *testing.T, s *server, b *browser) {
	t.Helper()
	const many, grants = 300, 50
	conn, err := pgx.Connect(t.Context(), s.node.Database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	r := rows{t, conn, map[string][]string{}}
	agent := r.one(`select id from agent limit 1`)
	client := r.one(`select client_id from agent where id = $1`, agent)
	account := r.one(`select id from connection where provider = 'sandbox' limit 1`)
	session := r.one(`select s.id from session s join session_grant g on g.session_id = s.id where s.state = 'ended' limit 1`)
	var accounts []id.Connection
	for i := range many {
		name := fmt.Sprintf("%s %d", hardNames[i%len(hardNames)], i)
		c := id.NewClient()
		r.copy("oauth_client", client, map[string]any{"id": c})
		r.copy("agent", agent, map[string]any{"id": id.NewAgent(), "client_id": c, "name": name})
		accounts = append(accounts, id.NewConnection())
		r.copy("connection", account, map[string]any{"id": accounts[i], "account_id": fmt.Sprint(i), "account_label": name + "@sandbox.example"})
		ses := id.NewSession()
		r.copy("session", session, map[string]any{"id": ses, "agent_label": name})
		r.copy("session_grant", session, map[string]any{"session_id": ses, "connection_id": accounts[i]})
	}
	big := id.NewSession()
	r.copy("session", session, map[string]any{"id": big, "agent_label": hardNames[0], "purpose": strings.Repeat(hardNames[1], 5)})
	for _, a := range accounts[:grants] {
		r.copy("session_grant", session, map[string]any{"session_id": big, "connection_id": a})
	}

	b.open("/ui/sessions/" + string(big))
	if n := ask[int](b, `document.querySelectorAll(".grants .card").length`); n != grants {
		t.Errorf("the session shows %d grants, want %d", n, grants)
	}
	b.narrow("session of 50")
	for _, list := range []string{"/ui/agents", "/ui/connections", "/ui/sessions?state=ended"} {
		b.open(list)
		b.narrow(list)
		seen := map[string]bool{}
		for pages := 0; ; pages++ {
			for _, row := range ask[[]string](b, `[...document.querySelectorAll(".rows > li")].map((e) => e.textContent)`) {
				seen[row] = true
			}
			next := ask[string](b, `[...document.querySelectorAll(".pager a")].find((e) => e.textContent.includes("Older"))?.getAttribute("href") ?? ""`)
			if next == "" || pages > 20 {
				break
			}
			b.open(next)
		}
		if len(seen) < many {
			t.Errorf("the pages of %s show %d rows, want all %d", list, len(seen), many)
		}
		b.size(360, 780, true)
		b.fits(list + " at its end")
	}
	b.open("/ui/agents/" + r.one(`select id from agent where name like $1 limit 1`, hardNames[0]+"%"))
	b.narrow("agent with a long name")
	b.open("/ui/audit")
	b.narrow("/ui/audit")
	b.open("/ui/cli?code=BCDF-GHJX")
	b.inspect("code-again")
}

// narrow judges the page that is shown at 360 px: nothing wider than the screen,
// nothing serious for axe-core, and the first press of Tab shows the way past the
// menu. Both themes of these pages are for inspect.
func (b *browser) narrow(name string) {
	b.t.Helper()
	defer b.desktop()
	b.size(360, 780, true)
	b.fits(name)
	b.shoot("narrow-" + strings.Map(func(r rune) rune {
		if strings.ContainsRune("/?= ", r) {
			return '_'
		}
		return r
	}, name))
	for _, f := range b.axe() {
		b.t.Errorf("axe-core on %s (360 px): %s %s: %s\n\t%s", name, f.Impact, f.ID, f.Help, strings.Join(f.Nodes, "\n\t"))
	}
	b.keys(kb.Tab)
	if !ask[bool](b, `(e => e.matches(".skip") && e.getBoundingClientRect().top >= 0)(document.activeElement)`) {
		b.t.Errorf("on %s the first press of Tab does not show the way past the menu", name)
	}
	if odd := ask[int](b, `document.querySelectorAll('[tabindex]:not([tabindex="0"]):not([tabindex="-1"])').length`); odd > 0 {
		b.t.Errorf("%s puts %d elements out of the order of Tab", name, odd)
	}
}
