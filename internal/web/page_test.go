package web

import (
	"bytes"
	"io/fs"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
)

func rendered(t testing.TB, r *renderer, p page) *html.Node {
	t.Helper()
	w := httptest.NewRecorder()
	r.render(w, 200, p)
	if w.Code != 200 {
		t.Fatalf("%s: got status %d, want 200", p.template(), w.Code)
	}
	root, err := html.Parse(bytes.NewReader(w.Body.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	return root
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

func elements(root *html.Node, names ...string) (out []*html.Node) {
	for n := range root.Descendants() {
		if n.Type == html.ElementNode && slices.Contains(names, n.Data) {
			out = append(out, n)
		}
	}
	return out
}

func text(n *html.Node) string {
	var b strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode {
			b.WriteString(c.Data)
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func hasClass(n *html.Node, class string) bool {
	return slices.Contains(strings.Fields(attr(n, "class")), class)
}

// Every page, as a browser would parse it: nothing inline that the CSP would
// block or that would be a way in (W1), and nothing that a screen reader or a
// keyboard stumbles over.
func TestPages(t *testing.T) {
	t.Parallel()
	r := testRenderer(t)
	for name, p := range fixtures() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := rendered(t, r, p)
			checkNothingInline(t, root)
			checkHeadings(t, root)
			checkControls(t, root)
			ids := map[string]bool{}
			for n := range root.Descendants() {
				if id := attr(n, "id"); id != "" {
					if ids[id] {
						t.Errorf("the id %q stands twice", id)
					}
					ids[id] = true
				}
			}
			// Without script the button stays off: the page says what it needs.
			for _, n := range elements(root, "button") {
				if has(n, "data-prove") && !slices.ContainsFunc(elements(root, "p", "noscript"), func(p *html.Node) bool {
					return (has(p, "data-no-passkey") || p.Data == "noscript") && strings.Contains(text(p), "JavaScript")
				}) {
					t.Errorf("%q needs JavaScript and does not say so", text(n))
				}
			}
			for _, n := range elements(root, "a", "button") {
				// Who speaks to the machine says what they see (WCAG 2.5.3).
				if label, seen := attr(n, "aria-label"), strings.Trim(text(n), "…"); label != "" && !strings.Contains(strings.ToLower(label), strings.ToLower(seen)) {
					t.Errorf("%q is called %q", seen, label)
				}
			}
			for n := range root.Descendants() {
				for _, ref := range []string{"popovertarget", "aria-labelledby", "for"} {
					if to := attr(n, ref); to != "" && !ids[to] {
						t.Errorf("%s=%q points nowhere", ref, to)
					}
				}
			}
			if html := elements(root, "html")[0]; attr(html, "lang") != "en" {
				t.Error("the page names no language")
			}
			if got := text(elements(root, "title")[0]); !strings.HasSuffix(got, " · Ambit") {
				t.Errorf("the title is %q", got)
			}
			if n := len(elements(root, "main")); n != 1 {
				t.Errorf("%d main elements, want 1", n)
			}
		})
	}
}

func checkNothingInline(t *testing.T, root *html.Node) {
	t.Helper()
	for n := range root.Descendants() {
		for _, a := range n.Attr {
			switch {
			case strings.HasPrefix(a.Key, "on"), a.Key == "style", a.Key == "srcdoc":
				t.Errorf("<%s> has %s=%q", n.Data, a.Key, a.Val)
			case strings.Contains(a.Val, "ZgotmplZ"):
				t.Errorf("<%s> lost its %s", n.Data, a.Key)
			case (a.Key == "href" || a.Key == "src" || a.Key == "action" || a.Key == "formaction") && !safeAddress(a.Val):
				t.Errorf("<%s> goes to %q", n.Data, a.Val)
			}
		}
	}
	if scripts := elements(root, "script"); len(scripts) != 1 || scripts[0].FirstChild != nil || attr(scripts[0], "type") != "module" {
		t.Errorf("got %d scripts, want one module without text", len(scripts))
	}
	if n := len(elements(root, "style", "iframe", "object", "embed", "base", "meta[http-equiv]")); n != 0 {
		t.Errorf("%d elements that have no place here", n)
	}
}

func safeAddress(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (strings.HasPrefix(s, "/ui/") && !strings.Contains(s, "//") || s == "#main" || u.Scheme == "https" || u.Scheme == "otpauth")
}

func checkHeadings(t *testing.T, root *html.Node) {
	t.Helper()
	last, ones := 0, 0
	for _, h := range elements(root, "h1", "h2", "h3", "h4") {
		level := int(h.Data[1] - '0')
		if level == 1 {
			ones++
		}
		if level > last+1 {
			t.Errorf("%s %q follows h%d", h.Data, text(h), last)
		}
		if text(h) == "" {
			t.Errorf("an empty %s", h.Data)
		}
		last = level
	}
	if ones != 1 {
		t.Errorf("%d h1, want 1", ones)
	}
}

func checkControls(t *testing.T, root *html.Node) {
	t.Helper()
	labelled := map[string]bool{}
	for _, l := range elements(root, "label") {
		if text(l) == "" {
			t.Error("an empty label")
		}
		labelled[attr(l, "for")] = true
	}
	for _, c := range elements(root, "input", "select", "textarea") {
		inLabel := false
		for p := c.Parent; p != nil; p = p.Parent {
			inLabel = inLabel || p.Data == "label"
		}
		if attr(c, "type") != "hidden" && !inLabel && !(attr(c, "id") != "" && labelled[attr(c, "id")]) && attr(c, "aria-label") == "" {
			t.Errorf("<%s name=%q> has no label", c.Data, attr(c, "name"))
		}
	}
	for _, b := range elements(root, "button", "a", "summary") {
		if text(b) == "" && attr(b, "aria-label") == "" {
			t.Errorf("a <%s> without words", b.Data)
		}
	}
	for _, f := range elements(root, "form") {
		if m := attr(f, "method"); m != "post" && m != "get" {
			t.Errorf("a form with method %q", m)
		}
		if has(f, "data-begin") {
			for _, name := range []string{"credential", "flow"} {
				if !slices.ContainsFunc(elements(f, "input"), func(n *html.Node) bool { return attr(n, "name") == name }) {
					t.Errorf("the form %s has no field %s for the passkey's answer", attr(f, "action"), name)
				}
			}
		}
	}
	for _, b := range elements(root, "button") {
		if has(b, "data-prove") && !has(b, "disabled") {
			t.Error("a passkey button works before the page is whole (A3)")
		}
	}
}

// The page on which a person compares a server's tools names what it shows, and that
// is what they agree to (rule 5).
func TestToolsPageNamesWhatItShows(t *testing.T) {
	t.Parallel()
	shown := map[string]string{}
	for _, in := range elements(rendered(t, testRenderer(t), fixtures()["tools"]), "input") {
		if name, ok := strings.CutPrefix(attr(in, "name"), "pin."); ok {
			shown[name] = attr(in, "value")
		}
	}
	if shown["add-note"] != "pin-of-add-note" {
		t.Errorf("got %v", shown)
	}
}

// A1, A2, A3: on the page of a request the sentence is ours, the decision stands
// before the agent's words, and those are one text node without markup.
func TestAgentsWordsOnTheApprovalPage(t *testing.T) {
	t.Parallel()
	root := rendered(t, testRenderer(t), fixtures()["approval_risky"])
	order := map[*html.Node]int{}
	for n := range root.Descendants() {
		order[n] = len(order)
	}
	var words *html.Node
	for _, s := range elements(root, "section") {
		if hasClass(s, "says") {
			if words != nil {
				t.Fatal("two boxes of the agent's words")
			}
			words = elements(s, "p")[0]
			if got, want := text(elements(s, "h2")[0]), "The agent says (not checked by Ambit)"; got != want {
				t.Errorf("the box is called %q, want %q", got, want)
			}
		}
	}
	if words == nil || words.FirstChild == nil || words.FirstChild.Type != html.TextNode || words.FirstChild.NextSibling != nil {
		t.Fatal("the agent's words are not exactly one text node")
	}
	for _, b := range elements(root, "button", "select", "textarea", "fieldset", "h1") {
		if order[b] > order[words] {
			t.Errorf("<%s> %q stands after the agent's words", b.Data, text(b))
		}
	}
	if got := words.FirstChild.Data; !strings.Contains(got, "⟨U+202E⟩⟨U+200B⟩ <script>alert(1)</script>") || strings.Count(got, "\n") > 2 {
		t.Errorf("the words are shown as %q", got)
	}
	inside := map[*html.Node]bool{}
	for n := range words.Parent.Descendants() { // what is cut off is opened in the same box, as one text node too
		inside[n] = true
		if n.Type == html.ElementNode && !slices.Contains([]string{"h2", "p", "details", "summary", "label", "input", "span"}, n.Data) {
			t.Errorf("<%s> in the box of the agent's words", n.Data)
		}
	}
	for n := range root.Descendants() {
		if n.Type == html.TextNode && !inside[n] && strings.Contains(n.Data, "already checked by security") {
			t.Errorf("the agent's words also stand in <%s>", n.Parent.Data)
		}
	}
	sentence := "Unverified client, redirects to localhost:1455, wants to read, change and delete data and make keys or permissions in Sandbox · mia@sandbox.example and GitHub · octocat for 1 hour 30 minutes."
	if got := text(elements(root, "h1")[0]); got != sentence {
		t.Errorf("the sentence is %q, want %q", got, sentence)
	}
}

// A3, §5.5: what a call would send is shown exactly, and nothing of it scrolls out of
// sight by itself: what is long is cut, and opened before a yes.
func TestCallOnTheApprovalPage(t *testing.T) {
	t.Parallel()
	root := rendered(t, testRenderer(t), fixtures()["approval_call"])
	if got, want := text(elements(root, "h1")[0]), "Release notes wants to run Delete an issue on Sandbox · mia@sandbox.example, once."; got != want {
		t.Errorf("the sentence is %q, want %q", got, want)
	}
	cells := elements(root, "td")
	if last := len(cells) - 1; last != 6 || text(cells[2]) != "1000" || cells[last].FirstChild.NextSibling != nil || !strings.Contains(cells[last].FirstChild.Data, "⟨3 empty lines⟩") {
		t.Errorf("the values are not shown exactly")
	}
	// A name that stands in two places is told apart, and so is true from "true".
	page := text(root)
	for _, want := range []string{"?amount=1&notify=mia%40sandbox.example", "query amount", "body amount", "body close (boolean)", "body note"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
}

func TestDecidedRequestsOfferNothing(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"approval_decided", "approval_expired"} {
		main := elements(rendered(t, testRenderer(t), fixtures()[name]), "main")[0]
		if n := len(elements(main, "form", "button", "input")); n != 0 {
			t.Errorf("%s: %d controls, want none", name, n)
		}
	}
}

func TestInboxOfAThousand(t *testing.T) {
	t.Parallel()
	r := testRenderer(t)
	start := time.Now()
	root := rendered(t, r, manyItems(1000))
	if d := time.Since(start); d > time.Minute {
		t.Errorf("took %v", d)
	}
	rows := 0
	for _, a := range elements(root, "a") {
		if hasClass(a, "row-link") {
			rows++
		}
	}
	if rows != 1000 && rows != 1001 { // one more in the template of live rows, if the parser shows it
		t.Errorf("got %d rows, want 1000", rows)
	}
	if got := text(elements(root, "title")[0]); got != "(1000) Inbox · Ambit" {
		t.Errorf("the title is %q", got)
	}
}

// W1: the script stays small and has no way to make markup from text.
func TestScriptAndStyle(t *testing.T) {
	t.Parallel()
	lines := 0
	err := fs.WalkDir(files, "static", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		switch {
		case strings.HasSuffix(name, ".js"):
			lines += bytes.Count(body, []byte("\n"))
			for _, sink := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "DOMParser", "setHTML", "srcdoc", "createContextualFragment", ".style", "setAttribute"} {
				if bytes.Contains(body, []byte(sink)) {
					t.Errorf("%s uses %s", name, sink)
				}
			}
		case strings.HasSuffix(name, ".css"):
			if len(body) > 27<<10 {
				t.Errorf("%s has %d bytes, want at most 27 KiB", name, len(body))
			}
			for _, bad := range []string{"url(", "@import", "http:", "https:"} {
				if bytes.Contains(body, []byte(bad)) {
					t.Errorf("%s has %s", name, bad)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if lines > 300 {
		t.Errorf("%d lines of script, want at most 300", lines)
	}
}

// G10
func TestSafeNext(t *testing.T) {
	t.Parallel()
	for next, want := range map[string]string{
		"/ui/":                             "/ui/",
		"/ui/approvals/apr_01jd":           "/ui/approvals/apr_01jd",
		"/ui/audit?action=tool.call&org=x": "/ui/audit?action=tool.call&org=x",
		"":                                 home,
		"/":                                home,
		"/ui":                              home,
		"/uix/":                            home,
		"//evil.example":                   home,
		"/ui//evil.example":                home,
		"/\\evil.example":                  home,
		"/ui/\\evil.example":               home,
		"/ui/%5cevil.example":              home,
		"/ui/%2fevil.example":              home,
		"/ui/@evil.example":                home,
		"/ui/../..//evil.example":          home,
		"/ui/.%2e/x":                       home,
		"https://evil.example/ui/":         home,
		"javascript:alert(1)":              home,
		"/ui/\r\nSet-Cookie: x=y":          home,
		"/ui/?next=//evil":                 home,
		"/ui/#x":                           home,
		"/ui/;x":                           home,
		"/ui/" + strings.Repeat("x", 600):  home,
	} {
		if got := safeNext(next); got != want {
			t.Errorf("safeNext(%q): got %q, want %q", next, got, want)
		}
	}
}

func FuzzSafeNext(f *testing.F) {
	for _, s := range []string{"/ui/", "//x", "/ui/a?b=c", "/\\x", "/ui/%2e%2e", "/ui/@x", "/ui/?//", "http:/ui/"} {
		f.Add(s)
	}
	base, _ := url.Parse("https://ambit.example/ui/signin")
	f.Fuzz(func(t *testing.T, next string) {
		got := safeNext(next)
		u, err := base.Parse(got)
		if err != nil || u.Host != base.Host || u.Scheme != base.Scheme || u.User != nil || !strings.HasPrefix(u.Path, "/ui/") {
			t.Fatalf("safeNext(%q) = %q leads to %v", next, got, u)
		}
		if safeNext(got) != got {
			t.Fatalf("not stable: %q", got)
		}
	})
}

// W2
func TestCookieAttributes(t *testing.T) {
	t.Parallel()
	for public, want := range map[string]string{
		"https://ambit.example":     "__Host-ambit=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax",
		"http://localhost:7420":     "ambit=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax",
		"https://ambit.example:444": "__Host-ambit=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax",
	} {
		u, err := url.Parse(public)
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		newCookie(u).clear(w)
		if got := w.Header().Get("Set-Cookie"); got != want {
			t.Errorf("%s: got %q, want %q", public, got, want)
		}
	}
}

func TestLeavingRefusesScript(t *testing.T) {
	t.Parallel()
	for _, to := range []string{"javascript:alert(1)", "JAVASCRIPT:x", "data:text/html,x", "vbscript:x", "blob:x", "file:///etc/passwd", "", "://"} {
		if _, err := leave(to, LeavePage{}); err == nil {
			t.Errorf("a link to %q was made", to)
		}
	}
	for to, host := range map[string]string{"https://sandbox.example/a?b": "sandbox.example", "cursor://anysphere/x": "anysphere", "com.example.app:/cb": "com.example.app:"} {
		a, err := leave(to, LeavePage{})
		if err != nil {
			t.Errorf("%s: %v", to, err)
		} else if got := a.(shown).page.(*LeavePage).Host; got != host {
			t.Errorf("%s: shown as %q, want %q", to, got, host)
		}
	}
}

func TestEveryTemplateHasAFixture(t *testing.T) {
	t.Parallel()
	missing := testRenderer(t).pages
	for _, p := range fixtures() {
		delete(missing, p.template())
	}
	for name := range missing {
		t.Errorf("no fixture shows %s", name)
	}
}
