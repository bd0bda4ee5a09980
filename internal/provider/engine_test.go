package provider_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
)

func desk(t testing.TB) provider.Record {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "records", "desk.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(text))
}

func build(t *testing.T, r provider.Record, name, args string) *provider.Request {
	t.Helper()
	req, err := tool(t, r, r.ID+"_"+name).Build(json.RawMessage(args), r.Pinned().API...)
	if err != nil {
		t.Fatalf("%s %s: %v", name, args, err)
	}
	return req
}

// Issue 5: what a curated operation can send, and what is left out of it.
func TestBuildBodies(t *testing.T) {
	t.Parallel()
	r := desk(t)
	for _, row := range []struct{ tool, args, url, body string }{
		{"get_page", `{"path":"a/b c/ü"}`, "https://api.desk.example/v1/pages/a/b%20c/%C3%BC", ""},
		{"list_pages", `{}`, "https://api.desk.example/v1/pages?size=20", ""},
		{"list_pages", `{"size":5}`, "https://api.desk.example/v1/pages?size=5", ""},
		{"comment", `{"id":"1","text":"x"}`, "https://api.desk.example/v1/graph",
			`{"query":"mutation($id: ID!) { comment(id: $id) { id } }","variables":{"doc":{"content":[{"text":"x","type":"text"}],"type":"doc"},"id":"1"}}`},
		{"comment", `{"id":"1"}`, "https://api.desk.example/v1/graph", `{"query":"mutation($id: ID!) { comment(id: $id) { id } }","variables":{"id":"1"}}`},
		{"charge", `{"items":[{"price":5,"of":{"a":"b&c"}},{"tax":["x","y"]}],"note":{"k":"v"}}`, "https://api.desk.example/v1/invoices",
			"items%5B0%5D%5Bof%5D%5Ba%5D=b%26c&items%5B0%5D%5Bprice%5D=5&items%5B1%5D%5Btax%5D=x&items%5B1%5D%5Btax%5D=y&note%5Bk%5D=v"},
		{"put_content", `{"id":"7","bytes":"AAH/"}`, "https://api.desk.example/v1/files/7/content", "\x00\x01\xff"},
		{"put_content", `{"id":"7","text":"hi"}`, "https://api.desk.example/v1/files/7/content", "hi"},
	} {
		if req := build(t, r, row.tool, row.args); req.URL.String() != row.url || string(req.Body) != row.body {
			t.Errorf("%s %s:\ngot  %s %s\nwant %s %s", row.tool, row.args, req.URL, req.Body, row.url, row.body)
		}
	}
	for _, row := range []struct{ tool, args string }{
		{"get_page", `{"path":"a/../b"}`}, {"get_page", `{"path":"a//b"}`}, {"get_page", `{"path":"/a"}`}, {"get_page", `{"path":"a/%2e%2e"}`}, {"get_page", `{"path":""}`},
		{"put_content", `{"id":"7"}`}, {"put_content", `{"id":"7","text":"a","bytes":"AA=="}`}, {"put_content", `{"id":"7","bytes":"?"}`},
		{"upload", `{"name":"n","type":"text/plain\r\nX: y","text":"a"}`}, {"upload", `{"name":"n","type":"text","text":"a"}`},
		{"attach", `{"name":"a\nb","text":"t"}`},
		{"charge", `{"items":[{"a[b]":1}]}`}, {"charge", `{"items":[],"note":{"_method":"DELETE"}}`},
		{"send", `{"to":["a@x.example\r\nBcc: evil@x.example"],"subject":"s"}`}, {"send", `{"to":["nobody"],"subject":"s"}`},
		{"send", `{"to":["a@x.example"],"subject":"s\r\nBcc: evil@x.example"}`}, {"send", `{"to":["a@x.example"],"subject":"s","reply_to":"<a@b>\r\nX: y"}`},
		{"send", `{"to":["a@x.example"],"subject":"s","reply_to":"a@b"}`},
	} {
		req, err := tool(t, r, "desk_"+row.tool).Build(json.RawMessage(row.args), r.Pinned().API...)
		if fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s %s: got %v, %v", row.tool, row.args, req, err)
		}
	}
	if _, err := tool(t, r, "desk_write").Build(json.RawMessage(`{"method":"POST","path":"/shares/a/b","body":{}}`), r.Pinned().API...); !fault.Is(err, "access_refused") {
		t.Errorf("a generic tool does what the access tool does on a path of several segments: %v", err)
	}
}

// A body of parts reads back as what was given, whatever it holds, and the
// person who approves reads all of it.
func TestBuildParts(t *testing.T) {
	t.Parallel()
	r := desk(t)
	req := build(t, r, "attach", `{"name":"no\"te.md","text":"--part\r\nContent-Type: x\r\n\r\nhi"}`)
	media, params, err := mime.ParseMediaType(req.Header.Get("Content-Type"))
	if err != nil || media != "multipart/form-data" {
		t.Fatal(media, err)
	}
	var got []string
	for reader := multipart.NewReader(strings.NewReader(string(req.Body)), params["boundary"]); ; {
		part, err := reader.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(part)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, part.FormName()+" "+part.FileName()+" "+part.Header.Get("Content-Type")+" "+string(text))
	}
	if d := cmp.Diff([]string{"kind  text/plain; charset=utf-8 plain", "file no%22te.md text/markdown --part\r\nContent-Type: x\r\n\r\nhi"}, got); d != "" {
		t.Error(d)
	}
	req = build(t, r, "upload", `{"name":"n","type":"application/pdf","bytes":"JVBERg=="}`)
	if !strings.HasPrefix(req.Header.Get("Content-Type"), "multipart/related; boundary=") || !strings.Contains(string(req.Body), "\r\n\r\n{\"name\":\"n\"}\r\n") ||
		!strings.Contains(string(req.Body), "Content-Type: application/pdf\r\n\r\n%PDF\r\n") {
		t.Errorf("got %s\n%s", req.Header, req.Body)
	}
	want := []provider.Field{{Name: "part 1 (type)", Value: "application/json; charset=utf-8"}, {Name: "part 1 name", Value: "n"},
		{Name: "part 3 (type)", Value: "application/pdf"}, {Name: "part 3 (base64 of 4 bytes)", Value: "JVBERg=="}}
	if d := cmp.Diff(want, req.Summary.Body); d != "" {
		t.Error(d)
	}
}

// An e-mail reads back as it was given, and no argument adds a header.
func TestBuildMessage(t *testing.T) {
	t.Parallel()
	r := desk(t)
	req := build(t, r, "send", `{"to":["Ada <ada@x.example>, bob@x.example"],"cc":["Ü Ö <c@x.example>"],"subject":"Grüße: Bcc: x","text":"line\n.\n","html":"<p>","reply_to":"<1@m.example>"}`)
	var body struct{ Raw string }
	if err := json.Unmarshal(req.Body, &body); err != nil {
		t.Fatal(err)
	}
	raw, err := base64.URLEncoding.DecodeString(body.Raw)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := mail.ReadMessage(strings.NewReader(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(msg.Header.Get("Subject"))
	to, terr := msg.Header.AddressList("To")
	cc, cerr := msg.Header.AddressList("Cc")
	if err != nil || terr != nil || cerr != nil || subject != "Grüße: Bcc: x" || len(to) != 2 || to[0].Address != "ada@x.example" || cc[0].Name != "Ü Ö" ||
		msg.Header.Get("In-Reply-To") != "<1@m.example>" || msg.Header.Get("Bcc") != "" || len(msg.Header) != 6 {
		t.Errorf("got %v %q %v %v", msg.Header, subject, to, cc)
	}
	_, params, err := mime.ParseMediaType(msg.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for reader := multipart.NewReader(msg.Body, params["boundary"]); ; {
		part, err := reader.NextPart()
		if err != nil {
			break
		}
		text, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, part))
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	if d := cmp.Diff([]string{"line\n.\n", "<p>"}, texts); d != "" {
		t.Error(d)
	}
	var shown []string
	for _, f := range req.Summary.Body {
		shown = append(shown, f.Name+"="+f.Value)
	}
	want := []string{"body raw.cc[0]=Ü Ö <c@x.example>", "body raw.html=<p>", "body raw.in_reply_to=<1@m.example>", "body raw.subject=Grüße: Bcc: x",
		"body raw.text=line\n.\n", "body raw.to[0]=Ada <ada@x.example>, bob@x.example"}
	if d := cmp.Diff(want, shown); d != "" {
		t.Errorf("what a person reads before they approve: %s", d)
	}
}

// A tool's day of trial is its own, else its record's; what approves it covers
// the tool that looks its target up.
func TestTriedAndTarget(t *testing.T) {
	t.Parallel()
	r := desk(t)
	if a, b := tool(t, r, "desk_get_page"), tool(t, r, "desk_send"); a.Tried != "2026-11-02" || a.Untried() || !b.Untried() || tool(t, tracker(t), "tracker_comment").Untried() {
		t.Errorf("got %q, %q", a.Tried, b.Tried)
	}
	del := tool(t, r, "desk_delete_page")
	other := parse(t, strings.Replace(string(r.Source()), "keep: [id,", "keep: [name, id,", 1))
	if del.Digest() == tool(t, other, "desk_delete_page").Digest() {
		t.Error("the look-up changed and the approval of its tool still counts")
	}
	req := build(t, r, "delete_page", `{"path":"a/b"}`)
	found, look, err := del.LookUp(r, req, r.Pinned().API...)
	if err != nil || found.Name != "desk_get_page" || look.Method != "GET" || look.URL.String() != "https://api.desk.example/v1/pages/a/b" {
		t.Fatalf("got %v %v %v", found.Name, look, err)
	}
	for body, want := range map[string]string{
		`{"id":"production-db","owner":{"name":"Ops"}}`: "production-db · Ops",
		`{"id":"a\u202eb\nc"}`:                          "a\uFFFDb c",
		`{"id":"` + strings.Repeat("x", 300) + `"}`:     strings.Repeat("x", 200) + "…",
		`{"other":1}`: "",
	} {
		name, ok := del.Target.Named(provider.Answer{Status: 200, JSON: true, Body: []byte(body)})
		if name != want || ok != (want != "") {
			t.Errorf("%s: got %q", body, name)
		}
	}
	if tl, none, err := tool(t, r, "desk_send").LookUp(r, build(t, r, "send", `{"to":["a@x.example"],"subject":"s"}`), r.Pinned().API...); none != nil || err != nil {
		t.Errorf("got %v %v %v", tl, none, err)
	}
}

// FuzzBuildBodies' oracle: whatever the arguments, what is built lies below the
// base, has no header that an argument began, and reads back as it was given.
func FuzzBuildBodies(f *testing.F) {
	for _, s := range []string{"a/b", "..", "a/../b", "x\r\nBcc: y", "a@b.example", "text/plain", "--part-", "AA==", "\x00", "Ü <u@x.example>", "%2e%2e/x"} {
		f.Add(s, s)
	}
	r := desk(f)
	bases := outbound.Bound{Bases: r.Pinned().API}
	f.Fuzz(func(t *testing.T, a, b string) {
		a, b = strings.ToValidUTF8(a, "?"), strings.ToValidUTF8(b, "?")
		for name, args := range map[string]map[string]any{
			"get_page": {"path": a}, "upload": {"name": a, "type": b, "text": a}, "attach": {"name": b, "text": a, "note": b},
			"put_content": {"id": b, "bytes": a}, "send": {"to": []string{a}, "subject": b, "text": a, "reply_to": b}, "charge": {"items": []any{map[string]any{a: b}}},
		} {
			doc, err := json.Marshal(args)
			if err != nil {
				t.Skip()
			}
			req, err := tool(t, r, "desk_"+name).Build(doc, r.Pinned().API...)
			if err != nil {
				if fault.KindOf(err) == fault.Internal {
					t.Fatalf("%s %s: %v", name, doc, err)
				}
				continue
			}
			if !bases.Contains(req.URL) || strings.ContainsAny(req.URL.String(), "\r\n\x00\\ ") {
				t.Fatalf("%s %s: built %s", name, doc, req.URL)
			}
			for header, values := range req.Header {
				if strings.ContainsAny(header+strings.Join(values, ""), "\r\n\x00") {
					t.Fatalf("%s %s: header %q: %q", name, doc, header, values)
				}
			}
			switch name {
			case "attach":
				if b == "" {
					continue // then it is no file to any reader
				}
				_, params, err := mime.ParseMediaType(req.Header.Get("Content-Type"))
				if err != nil {
					t.Fatal(err)
				}
				form, err := multipart.NewReader(strings.NewReader(string(req.Body)), params["boundary"]).ReadForm(1 << 20)
				if err != nil || len(form.File["file"]) != 1 || len(form.Value) != 2 || form.Value["note"][0] != args["note"] {
					t.Fatalf("%s: got %v, %v of %q", doc, form, err, req.Body)
				}
			case "send":
				var body struct{ Raw string }
				check(t, json.Unmarshal(req.Body, &body))
				raw, err := base64.URLEncoding.DecodeString(body.Raw)
				check(t, err)
				msg, err := mail.ReadMessage(strings.NewReader(string(raw)))
				if err != nil || msg.Header.Get("Bcc") != "" || len(msg.Header) > 6 {
					t.Fatalf("%s: got %v, %v", doc, msg, err)
				}
			}
		}
	})
}

// Issue 5: what a statement can change raises the effect of its call, never
// lowers it; so does GraphQL on generic tools, wherever it may hide.
func TestBuildJudgesStatements(t *testing.T) {
	t.Parallel()
	r := desk(t)
	for _, row := range []struct {
		tool, args string
		want       policy.Effect
	}{
		{"query", `{"statement":"select 1"}`, policy.Read},
		{"query", `{"statement":"update t set a = 1"}`, policy.Write},
		{"query", `{"statement":"drop table t"}`, policy.Destructive},
		{"query", `{"statement":"grant a to b"}`, policy.Access},
		{"destroy_rows", `{"statement":"select 1"}`, policy.Destructive},
		{"destroy_rows", `{"statement":"create user u"}`, policy.Access},
		{"read", `{"path":"/graphql","method":"POST","body":{"query":"{ a }","variables":{}}}`, policy.Read},
		{"read", `{"path":"/graphql","method":"POST","body":[{"query":"{ a }"},{"query":"mutation { update }"}]}`, policy.Write},
		{"read", `{"path":"/GraphQL;x","method":"POST","body":{"query":"mutation { update }"}}`, policy.Write},
		{"read", `{"path":"/graphql","query":{"query":"mutation { deleteAll }"}}`, policy.Destructive},
		{"read", `{"path":"/graphql","query":{"query":"{ a }"}}`, policy.Read},
		{"read", `{"path":"/graphql","query":{"id":"stored"}}`, policy.Destructive},
		{"read", `{"path":"/graphql"}`, policy.Destructive},
		{"read", `{"path":"/pages"}`, policy.Read},
		{"write", `{"path":"/graphql","method":"POST","body":{"query":"{ a }"}}`, policy.Write},
		{"write", `{"path":"/graphql","method":"POST","body":{"query":"{ a }","extensions":{"persistedQuery":{}}}}`, policy.Destructive},
		{"write", `{"path":"/graphql","method":"POST","body":{"query":"mutation { webhookCreate }"}}`, policy.Access},
		{"write", `{"path":"/graphql","method":"POST","query":{"query":"mutation { deleteAll }"},"body":{"query":"{ a }"}}`, policy.Destructive},
		{"write", `{"path":"/graphql","method":"POST","body":[]}`, policy.Destructive},
		{"write", `{"path":"/pages","method":"POST","body":{"query":"mutation { deleteAll }"}}`, policy.Write},
	} {
		if req := build(t, r, row.tool, row.args); req.Effect != row.want || (req.Why != "") != (req.Effect != tool(t, r, "desk_"+row.tool).Effect) {
			t.Errorf("%s %s: got %s (%s), want %s", row.tool, row.args, req.Effect, req.Why, row.want)
		}
	}
	for _, args := range []string{`{"path":"/pages","method":"POST","body":{"query":"{ a }"}}`, `{"path":"/graphql","method":"POST"}`, `{"path":"/graphql","body":{"query":"{ a }"}}`, `{"path":"/graphql/x","method":"POST","body":{}}`} {
		if _, err := tool(t, r, "desk_read").Build(json.RawMessage(args), r.Pinned().API...); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: got %v", args, err)
		}
	}
}

// What a record cannot say of its tools, and that each mistake is told where it
// is.
func TestToolsThatCannotBe(t *testing.T) {
	t.Parallel()
	whole := string(desk(t).Source())
	for _, row := range []struct{ old, new, field string }{
		{"argument: statement}\n  - name: destroy_rows", "argument: other}\n  - name: destroy_rows", "classify.argument"},
		{"language: sql, dialect", "language: cobol, dialect", "classify.language"},
		{"dialect: snowflake", "dialect: oracle", "classify.dialect"},
		{"language: sql, dialect: snowflake", "language: sql", "classify.dialect"},
		{"tool: get_page, name: [id, owner.name]", "tool: send, name: [id]", "target.tool"},
		{"tool: get_page, name: [id, owner.name]", "tool: query, arguments: {statement: \"{path}\"}, name: [id]", "target.tool"},
		{"tool: get_page, name: [id, owner.name]", "tool: get_page", "target.name"},
		{"tool: get_page, name: [id, owner.name]", "tool: get_page, name: [id], unnamed: x", "target"},
		{"tool: get_page, name: [id, owner.name]", "tool: get_page, name: [id], arguments: {other: x}", "target.arguments"},
		{"/pages/{path*}\"}\n    output", "/pages/{path*}/x\"}\n    output", "request.path"},
		{"/pages/{path*}\"}\n    output", "/pages/a{path*}\"}\n    output", "request.path"},
		{`poll: {path: "/jobs/{job}"}`, `poll: {path: "/jobs/{job}", seconds: 600}`, "poll.seconds"},
		{`poll: {path: "/jobs/{job}"}`, `poll: {path: "/jobs/{job}", status: 404}`, "poll.status"},
		{`poll: {path: "/jobs/{job}"}`, `poll: {path: "jobs"}`, "poll.path"},
		{"default: 20", "default: 200", "input"},
		{"{name: note, text:", "{text:", "parts[0].name"},
		{"type: text/markdown", "type: markdown", "parts[2].type"},
		{`html: "{html}"`, `from: "{html}"`, "request.body"},
		{"tried: \"2026-11-02\"", "tried: yesterday", "tried"},
		{"graphql: [/graphql]", `graphql: ["/{x}"]`, "generic.graphql[0]"},
	} {
		text := strings.Replace(whole, row.old, row.new, 1)
		if text == whole {
			t.Fatalf("%q is not in the record", row.old)
		}
		_, err := provider.Parse([]byte(text))
		if problems := provider.Problems(err); !strings.Contains(fmt.Sprint(problems), row.field) {
			t.Errorf("%s: got %v", row.new, problems)
		}
	}
}
