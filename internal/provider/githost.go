package provider

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/ambit-dev/ambit/internal/fault"
)

// GitHosts are places where only git's smart HTTP passes: whatever else such a host
// serves, the API has in a form that can be told apart, or a browser is for.
type GitHosts struct {
	Base []string `yaml:"base"` // as of API
	// Basic is how git signs in there, whatever a client wrote.
	Basic Basic `yaml:"basic"`
	// Repositories are paths, as of Generic.Git.
	Repositories []string `yaml:"repositories"`

	at []pathTemplate
}

// has reports whether a base is a place of git alone.
func (g *GitHosts) has(base string) bool { return g != nil && slices.Contains(g.Base, base) }

func (r *Record) lintGit(l *linter) {
	if r.API.Git == nil {
		return
	}
	g := *r.API.Git // of this record alone
	r.API.Git = &g
	if r.Auth == Database || r.Auth == None || r.Injection.Sign != "" {
		l.add("api.git", "Remove it.", "git takes a user name and a password only.")
		return
	}
	r.lintBases(l, "api.git.base", g.Base)
	for i, b := range g.Base {
		if slices.Contains(r.API.Base, b) {
			l.add(fmt.Sprintf("api.git.base[%d]", i), "Name its repositories in generic.git instead.", "The base is one of the API's too.")
		}
	}
	r.lintTexts(l, "api.git.basic", []template{{"api.git.basic.username", g.Basic.Username}, {"api.git.basic.password", g.Basic.Password}}, false)
	if len(g.Repositories) == 0 {
		l.add("api.git.repositories", "Write the path of a repository, such as /{owner}/{repo} or /**.", "None is named.")
	}
	g.at = l.repositories("api.git.repositories", g.Repositories)
}

// repositories reads the paths of repositories.
func (l *linter) repositories(field string, paths []string) (out []pathTemplate) {
	for i, path := range paths {
		t, problem := parsePath(path, true)
		if problem != "" {
			l.add(fmt.Sprintf("%s[%d]", field, i), "Write the path of a repository, such as /{owner}/{repo} or /**.", "%s %s", quoted(path), problem)
			continue
		}
		out = append(out, t)
	}
	return out
}

// onlyGit refuses at a place of git what is no fetch and no push: it asks which
// commits there are, and then for them, or sends some (gitprotocol-http).
func (r Record) onlyGit(d *dissected) error {
	if !r.API.Git.has(d.base) {
		return nil
	}
	asks := false
	if n := len(d.one); d.method == http.MethodGet && n > 2 && d.one[n-2] == "info" && d.one[n-1] == "refs" && len(d.raw.Body) == 0 && d.raw.Whole && !d.raw.Socket && len(d.query) == 1 && d.query[0].name == "service" {
		asks = slices.Contains([]string{"git-upload-pack", "git-receive-pack"}, d.query[0].value) && d.repository(r.API.Git.at, n-2)
	}
	if asks || d.gitService() != "" && len(d.query) == 0 && d.repository(r.API.Git.at, len(d.one)-1) {
		return nil
	}
	return fault.New(fault.Denied, "not_granted", "At this host only the fetches and pushes of git pass.").
		WithHint("Use git over HTTPS without LFS, or the provider's API for anything else.")
}

// Raw are the places that a request may go to whose client wrote it itself. Those of
// git come first for a path that asks for a repository, and is without a host.
func (p Pinned) Raw(path string) []string {
	if strings.HasSuffix(path, "/info/refs") || strings.HasSuffix(path, "/git-upload-pack") || strings.HasSuffix(path, "/git-receive-pack") {
		return slices.Concat(p.Git, p.API, p.Open)
	}
	return slices.Concat(p.API, p.Git, p.Open)
}
