package web_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/custody"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/integration"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/mail"
	"github.com/ambit-dev/ambit/internal/mail/mailtest"
	"github.com/ambit-dev/ambit/internal/provider/discovery"
	"github.com/ambit-dev/ambit/internal/provider/openapi"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/web"
	"github.com/ambit-dev/ambit/internal/webhook"
)

// site is the pages on the real rooms, behind a real server.
type site struct {
	*gatewaytest.World
	server *httptest.Server
	URL    string
	Pages  *web.Server
	Rooms  *integration.Service
	Hooks  *webhook.Service
	told   *told
	mail   *mailtest.Server

	Custody *custody.Service
	Spare   string // a root key that can be bound
}

func newSite(t *testing.T) *site {
	t.Helper()
	return siteOn(t, sqldbtest.Open(t, sqldb.SQLite))
}

func siteOn(t *testing.T, db *sqldb.DB) *site {
	t.Helper()
	return siteWith(t, db, web.Limits{RefusalRate: 1e6, RefusalBurst: 1e6})
}

func siteWith(t *testing.T, db *sqldb.DB, limits web.Limits) *site {
	t.Helper()
	return siteOf(t, gatewaytest.New(t, db), db, limits)
}

// siteOf serves the pages of a world.
func siteOf(t *testing.T, w *gatewaytest.World, db *sqldb.DB, limits web.Limits) *site {
	t.Helper()
	spare := keyringtest.File(t, filepath.Join(t.TempDir(), "customer.key"))
	w.Roots.Add(spare)
	keys := custody.New(custody.Config{DB: db, Vault: w.Vault, Audit: w.Audit, People: w.Accounts})
	rooms := integration.New(integration.Config{DB: w.DB, Audit: w.Audit, People: w.Accounts, Providers: w.Providers, Connections: w.Connections, Credentials: w.Credentials, PublicURL: w.PublicURL, Now: w.Clock.Now})
	w.OnTicket = rooms.Connected
	receiver, to := newTold(t)
	post := mailtest.New(t)
	sender, err := mail.New(mail.Config{URL: "smtp://" + post.Address, From: "Ambit <ambit@example.com>"})
	if err != nil {
		t.Fatal(err)
	}
	hooks := webhook.New(webhook.Config{Mail: sender, DB: w.DB, Vault: w.Vault, Audit: w.Audit, People: w.Accounts, Outbound: to, Kinds: []string{connection.ChangeConnected, connection.ChangeRevoked, session.EventAsked}, Now: w.Clock.Now})
	pages, err := web.New(web.Config{People: w.Accounts, Agents: w.Agents, Providers: w.Providers, Importer: openapi.NewImporter(w.Outbound), Finder: discovery.New(discovery.Config{Outbound: w.Outbound, Public: w.PublicURL, Path: credential.CallbackPath, DocumentPath: web.ClientPath}), Connections: w.Connections, Credentials: w.Credentials,
		Integrations: rooms,
		Sessions:     w.Sessions, Audit: w.Audit, Vault: w.Vault, Custody: keys, Webhooks: hooks, Subscribe: db.Subscribe, PublicURL: w.PublicURL, Limits: limits, Now: w.Clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	pages.Mount(mux)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	t.Cleanup(pages.Stop)
	return &site{World: w, server: srv, URL: srv.URL, Pages: pages, Rooms: rooms, Hooks: hooks, told: receiver, mail: post, Custody: keys, Spare: spare.Describe().Ref}
}

// browser is one person's browser with a passkey; it sends what a form holds
// and nothing else.
type browser struct {
	t    *testing.T
	site *site
	http *http.Client
	*accounttest.Human
}

// open is a browser that nobody is signed in with.
func (s *site) open(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := s.server.Client()
	return &browser{t: t, site: s, http: &http.Client{Transport: c.Transport, Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// person is a browser in which a new member with role is signed in.
func (s *site) person(t *testing.T, email string, role account.Role) *browser {
	t.Helper()
	b := s.open(t)
	b.Human = accounttest.Join(t, s.Accounts, s.Environment, s.Organization, role, email)
	b.signIn("/ui/")
	return b
}

func (b *browser) signIn(next string) {
	b.t.Helper()
	page := b.get("/ui/signin?next=" + url.QueryEscape(next)).want(http.StatusOK)
	page.submit("/ui/signin/passkey", nil).want(http.StatusSeeOther).to(next)
}

// doc is an answer.
type doc struct {
	b      *browser
	status int
	header http.Header
	url    *url.URL
	body   string
	root   *html.Node
}

func (b *browser) do(req *http.Request) *doc {
	b.t.Helper()
	resp, err := b.http.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	root, err := html.Parse(strings.NewReader(string(body)))
	if err != nil {
		b.t.Fatal(err)
	}
	return &doc{b: b, status: resp.StatusCode, header: resp.Header, url: req.URL, body: string(body), root: root}
}

func (b *browser) get(path string) *doc {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, b.site.URL+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.do(req)
}

func (b *browser) post(path string, form url.Values, header ...string) *doc {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.site.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return b.do(req)
}

func (d *doc) want(status int) *doc {
	d.b.t.Helper()
	if d.status != status {
		d.b.t.Fatalf("%s: got status %d, want %d; %s", d.url.Path, d.status, status, d.text("main"))
	}
	return d
}

// to checks where a redirect goes.
func (d *doc) to(prefix string) *doc {
	d.b.t.Helper()
	if got := d.header.Get("Location"); !strings.HasPrefix(got, prefix) {
		d.b.t.Fatalf("%s: redirects to %q, want %q", d.url.Path, got, prefix)
	}
	return d
}

func (d *doc) follow() *doc {
	d.b.t.Helper()
	return d.b.get(d.want(http.StatusSeeOther).header.Get("Location")).want(http.StatusOK)
}

// says checks that the page's text holds all of these.
func (d *doc) says(words ...string) *doc {
	d.b.t.Helper()
	text := d.text("main")
	for _, w := range words {
		if !strings.Contains(text, w) {
			d.b.t.Fatalf("%s: got %q, want it to say %q", d.url.Path, text, w)
		}
	}
	return d
}

func (d *doc) not(words ...string) *doc {
	d.b.t.Helper()
	for _, w := range words {
		if strings.Contains(d.body, w) {
			d.b.t.Fatalf("%s: says %q", d.url.Path, w)
		}
	}
	return d
}

// submit sends the form with this action as the page has it, changed by change,
// with a passkey's answer if the form asks for one.
func (d *doc) submit(action string, change func(url.Values)) *doc {
	d.b.t.Helper()
	form := d.form(action)
	values := fields(form)
	if change != nil {
		change(values)
	}
	if begin := attr(form, "data-begin"); begin != "" {
		d.b.prove(begin, attr(form, "data-passkey"), values)
	}
	to, _, _ := strings.Cut(attr(form, "action"), "#")
	return d.b.post(to, values)
}

// confirmed sends a form whose change must be confirmed, checks that the page
// which asks says words, and confirms it.
func (d *doc) confirmed(action string, change func(url.Values), words ...string) *doc {
	d.b.t.Helper()
	ask := d.submit(action, change).want(http.StatusOK).says(words...)
	return ask.submit(action, nil)
}

// prove asks for a challenge over values and adds the passkey's answer.
func (b *browser) prove(begin, kind string, values url.Values) {
	b.t.Helper()
	answer := b.post(begin, values, "Accept", "application/json").want(http.StatusOK)
	var begun struct {
		Options json.RawMessage
		Flow    string
	}
	if err := json.Unmarshal([]byte(answer.body), &begun); err != nil {
		b.t.Fatal(err)
	}
	ceremony := b.Assert
	if kind == "create" {
		ceremony = b.Register
	}
	credential, err := ceremony(begun.Options)
	if err != nil {
		b.t.Fatal(err)
	}
	values.Set("credential", string(credential))
	values.Set("flow", begun.Flow)
}

// form finds the form with this action; an empty one is the form that a passkey
// answers.
func (d *doc) form(action string) *html.Node {
	d.b.t.Helper()
	for n := range d.root.Descendants() {
		if n.Type == html.ElementNode && n.Data == "form" && (strings.FieldsFunc(attr(n, "action")+"?", func(r rune) bool { return r == '?' || r == '#' })[0] == action || action == "" && has(n, "data-begin")) {
			return n
		}
	}
	d.b.t.Fatalf("%s has no form for %s: %s", d.url.Path, action, d.text("main"))
	return nil
}

func fields(form *html.Node) url.Values {
	values := url.Values{}
	for n := range form.Descendants() {
		if n.Type != html.ElementNode || has(n, "disabled") || attr(n, "name") == "" {
			continue
		}
		name := attr(n, "name")
		switch kind := attr(n, "type"); {
		case n.Data == "input" && (kind == "checkbox" || kind == "radio") && !has(n, "checked"):
		case n.Data == "input":
			values.Add(name, attr(n, "value"))
		case n.Data == "textarea":
			values.Add(name, textOf(n))
		case n.Data == "select":
			values.Add(name, selected(n))
		}
	}
	return values
}

func selected(n *html.Node) (value string) {
	first := true
	for o := range n.Descendants() {
		if o.Data == "option" && (first || has(o, "selected")) {
			value, first = attr(o, "value"), false
		}
	}
	return value
}

func (d *doc) text(element string) string {
	for n := range d.root.Descendants() {
		if n.Type == html.ElementNode && n.Data == element {
			return strings.Join(strings.Fields(textOf(n)), " ")
		}
	}
	return d.body
}

// link finds the address behind the words.
func (d *doc) link(words string) string {
	d.b.t.Helper()
	for n := range d.root.Descendants() {
		if n.Type == html.ElementNode && n.Data == "a" && strings.Contains(textOf(n), words) {
			return attr(n, "href")
		}
	}
	d.b.t.Fatalf("%s has no link %q", d.url.Path, words)
	return ""
}

func textOf(n *html.Node) string {
	var b strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode {
			b.WriteString(c.Data)
		}
	}
	return b.String()
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func has(n *html.Node, name string) bool {
	return slices.ContainsFunc(n.Attr, func(a html.Attribute) bool { return a.Key == name })
}

// cookie gives the browser's login cookie.
func (b *browser) cookie() string {
	u, _ := url.Parse(b.site.URL)
	for _, c := range b.http.Jar.Cookies(u) {
		if c.Name == "ambit" {
			return c.Value
		}
	}
	return ""
}

// live reads the live stream; each message comes as JSON.
func (b *browser) live() <-chan string {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, b.site.URL+"/ui/events", nil)
	if err != nil {
		b.t.Fatal(err)
	}
	resp, err := b.http.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		b.t.Fatalf("events: got status %d", resp.StatusCode)
	}
	out := make(chan string, 16)
	go func() {
		defer close(out)
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				out <- data
			}
		}
	}()
	return out
}

// fieldOf gives a public field of a fault.
func fieldOf(err error, name string) string {
	if err == nil {
		return ""
	}
	return fault.Of(err).Fields[name]
}
