package provider_test

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
)

// Issue 7: the catalogue's accounts serve git at the hosts where people clone from. A
// fetch reads, a push writes, one that leaves commits behind destroys; nothing else of
// these hosts is reached, however it is spelled.
func TestGitHosts(t *testing.T) {
	t.Parallel()
	const (
		fetch, push = "application/x-git-upload-pack-request", "application/x-git-receive-pack-request"
		commit      = "1111111111111111111111111111111111111111"
		other       = "2222222222222222222222222222222222222222"
		none        = "0000000000000000000000000000000000000000"
	)
	pushes := func(from, to string) string {
		line := from + " " + to + " refs/heads/main\x00report-status"
		return fmt.Sprintf("%04x%s0000", len(line)+4, line)
	}
	pkt := func(line string) string { return fmt.Sprintf("%04x%s", len(line)+4, line) }
	optioned := func(options ...string) string {
		out := pkt(none+" "+commit+" refs/heads/main\x00report-status push-options agent=git") + "0000"
		for _, o := range options {
			out += pkt(o)
		}
		return out + "0000PACK\x00\x00\x00\x02\x00\x00\x00\x00"
	}
	many := func(n int) (out string) {
		for i := range n {
			out += pkt(fmt.Sprintf("%s %s refs/heads/%s\x00report-status", none, commit, "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"[:i]+"main"))
		}
		return out + "0000"
	}
	hosts := map[string]map[string]string{
		"github":     {"client_id": "Iv1.0123456789abcdef"},
		"github_app": {"client_id": "Iv1.0123456789abcdef"},
		"gitlab":     {"host": "code.example.com"},
	}
	for id, params := range hosts {
		e, err := provider.FindEntry(id)
		if err != nil {
			t.Fatal(err)
		}
		rec, err := e.Fill(params)
		if err != nil {
			t.Fatal(err)
		}
		pinned := rec.Pinned()
		if len(pinned.Git) != 1 || len(pinned.API) != 1 {
			t.Fatalf("%s is bound to %v and %v", id, pinned.API, pinned.Git)
		}
		if at := pinned.Raw("/o/r.git/info/refs"); at[0] != pinned.Git[0] || pinned.Raw("/user")[0] != pinned.API[0] {
			t.Errorf("%s: the relay asks %v for a repository", id, at)
		}
		for _, test := range []struct{ method, path, media, body, want string }{
			{"GET", "/o/r.git/info/refs?service=git-upload-pack", "", "", "read"},
			{"GET", "/o/r/info/refs?service=git-receive-pack", "", "", "read"},
			{"POST", "/o/r.git/git-upload-pack", fetch, "0000", "read"},
			{"POST", "/o/batch.git/git-upload-pack", fetch, "0000", "read"},
			{"POST", "/o/r.git/git-receive-pack", push, pushes(none, commit), "write"},
			{"POST", "/o/r.git/git-receive-pack", push, pushes(commit, none), "destructive"},
			{"POST", "/o/r.git/git-receive-pack", push, pushes(commit, other), "destructive"},
			{"POST", "/o/r.git/git-receive-pack", push, "what is this", "destructive"},
			// Options do what the server makes of them; what is not announced is not passed over; nobody reads fifty-one refs.
			{"POST", "/o/r.git/git-receive-pack", push, optioned("merge_request.create", "merge_request.auto_merge"), "destructive"},
			{"POST", "/o/r.git/git-receive-pack", push, optioned(), "write"},
			{"POST", "/o/r.git/git-receive-pack", push, pushes(none, commit) + "0008x0000PACK", "destructive"},
			{"POST", "/o/r.git/git-receive-pack", push, many(50), "write"},
			{"POST", "/o/r.git/git-receive-pack", push, many(51), "destructive"},
			{"GET", "/o/r", "", "", "not_granted"},
			{"GET", "/settings/tokens", "", "", "not_granted"},
			{"GET", "/o/r/info/refs", "", "", "not_granted"},
			{"GET", "/o/r/info/refs?service=git-upload-pack&a=b", "", "", "not_granted"},
			{"GET", "/info/refs?service=git-upload-pack", "", "", "not_granted"},
			{"POST", "/o/r/git-upload-pack", "application/json", "{}", "not_granted"},
			{"POST", "/o/r/git-upload-pack?a=b", fetch, "0000", "not_granted"},
			{"POST", "/o/r/issues", "application/json", "{}", "not_granted"},
			{"POST", "/o/r.git/info/lfs/objects/batch", "application/vnd.git-lfs+json", "{}", "not_granted"},
			{"PUT", "/o/r/git-receive-pack", push, pushes(none, commit), "not_granted"},
			{"POST", "/o/x%2Fy/git-upload-pack", fetch, "0000", "not_granted"},
			{"POST", "/o//r/git-upload-pack", fetch, "0000", "not_granted"},
			{"POST", "/session/%2e%2e/git-upload-pack", fetch, "0000", "not_granted"},
		} {
			u, err := url.Parse(pinned.Git[0] + test.path)
			if err != nil {
				t.Fatal(err)
			}
			raw := provider.Raw{Method: test.method, URL: u, Header: http.Header{}, Body: []byte(test.body), Whole: true}
			if test.media != "" {
				raw.Header.Set("Content-Type", test.media)
			}
			readings, err := rec.Read(raw, pinned.Raw("")...)
			got := code(err)
			if err == nil {
				got = string(policy.Worse(readings[0].Tool.Effect, readings[0].Request.Effect))
			}
			if test.want == "write" && readings[0].Request.Summary.Body[0] != (provider.Field{Name: "push to refs/heads/main", Value: "new, at " + commit}) {
				t.Errorf("%s: an approver is shown %v", id, readings[0].Request.Summary.Body)
			}
			if got != test.want && !(test.want == "not_granted" && got == "destination_denied") {
				t.Errorf("%s: %s %s: %s, want %s", id, test.method, test.path, got, test.want)
			}
			if _, err := rec.Read(raw, pinned.API...); err == nil {
				t.Errorf("%s: an account that was connected before reaches %s", id, u)
			}
		}
	}
}

// Issue 7: gh asks GitHub in GraphQL. Its queries read; no mutation passes, in whatever
// tool, since many of them make keys, members or rules.
func TestGitHubTakesQueriesOnly(t *testing.T) {
	t.Parallel()
	e, err := provider.FindEntry("github")
	if err != nil {
		t.Fatal(err)
	}
	rec, err := e.Fill(map[string]string{"client_id": "Iv1.0123456789abcdef"})
	if err != nil {
		t.Fatal(err)
	}
	tool := func(name string) provider.Tool {
		got, ok := rec.Tool("github_" + name)
		if !ok {
			t.Fatalf("there is no tool %s", name)
		}
		return got
	}
	u, err := url.Parse("https://api.github.com/graphql")
	if err != nil {
		t.Fatal(err)
	}
	for body, want := range map[string]string{
		`{"query":"query PRs($o:String!){ repository(owner:$o,name:\"r\"){ ...p } } fragment p on Repository { id }","variables":{"o":"o"}}`: "read",
		`{"query":"mutation { createIssue(input:{}) { issue { id } } }","variables":{}}`:                                                     "access_refused",
		`{"query":"query a { viewer { id } } mutation b { createPullRequest(input:{}) { id } }","operationName":"b"}`:                        "access_refused",
		`{"id":"stored"}`: "access_refused",
		`{"query":`:       "access_refused",
	} {
		raw := provider.Raw{Method: "POST", URL: u, Header: http.Header{"Content-Type": {"application/json; charset=utf-8"}}, Body: []byte(body), Whole: true}
		readings, err := rec.Read(raw, "https://api.github.com")
		got := code(err)
		if err == nil {
			got = string(policy.Worse(readings[0].Tool.Effect, readings[0].Request.Effect))
		}
		if got != want {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
		if body == `{"query":` {
			continue
		}
		for _, name := range []string{"read", "write", "destroy"} {
			_, err := tool(name).Build([]byte(`{"method":"POST","path":"/graphql","body":`+body+`}`), "https://api.github.com")
			if got := code(err); (got == "") != (want == "read") || got != "" && got != "access_refused" {
				t.Errorf("the tool %s with %s: %v", name, body, err)
			}
		}
	}
}
