package web

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/vault"
)

func (s *Server) apiKeyList(v *visit) (answer, error) {
	p := &APIKeysPage{Frame: Frame{Title: "API keys", Section: "apikeys"}, CanAdd: v.may(account.CreateKeys)}
	list, next, err := s.people.Keys(v.ctx(), v.actor(), v.here.Organization, account.List{After: v.form("after")})
	if err != nil {
		return nil, err
	}
	if v.form("after") == "" && v.mayWhole() {
		whole, _, err := s.people.Keys(v.ctx(), v.actor(), "", account.List{Limit: 200})
		if err != nil {
			return nil, err
		}
		list = append(slices.DeleteFunc(whole, func(k account.APIKey) bool { return k.Organization != "" }), list...)
	}
	for _, k := range list {
		p.Items = append(p.Items, s.apiKeyRow(v, k))
	}
	if next != "" {
		p.Next = v.query("/ui/apikeys", "after", next)
	}
	return show(p), nil
}

// apiKeyMoved is where the form for a new API key was once.
func (s *Server) apiKeyMoved(v *visit) (answer, error) { return goTo(v.query("/ui/apikeys/new")), nil }

func (v *visit) mayWhole() bool { return v.actor().May("", account.CreateKeys) == nil }

func (s *Server) apiKeyRow(v *visit, k account.APIKey) APIKeyRow {
	row := APIKeyRow{ID: k.ID, Name: k.Name, Reach: v.here.OrganizationName, Scopes: k.Scopes, Created: k.CreatedAt, Expires: k.ExpiresAt}
	if k.Organization == "" {
		row.Reach = "All of " + v.here.EnvironmentName
	}
	for _, r := range k.Secrets {
		row.Secrets = append(row.Secrets, ruleText(r))
	}
	switch {
	case !k.RevokedAt.IsZero():
		row.Ended = "Revoked"
	case !k.ExpiresAt.IsZero() && !s.now().Before(k.ExpiresAt):
		row.Ended = "Expired"
	}
	return row
}

// ruleText says in words which secrets a rule is about.
func ruleText(r vault.Rule) string {
	text := "secrets"
	if r.Prefix != "" {
		text += " whose name begins with " + oneLine(r.Prefix)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Context)) {
		text += ", of " + oneLine(name) + " " + oneLine(r.Context[name])
	}
	if len(r.Verbs) < len(vault.Verbs()) {
		var verbs []string
		for _, v := range r.Verbs {
			verbs = append(verbs, string(v))
		}
		text += ": " + andList(verbs) + " only"
	}
	return text
}

func (s *Server) apiKeyNew(v *visit) (answer, error) {
	if err := v.actor().May(v.here.Organization, account.CreateKeys); err != nil {
		return nil, err
	}
	return show(s.apiKeyNewPage(v)), nil
}

// apiKeyNewPage is the form as it was last filled in.
func (s *Server) apiKeyNewPage(v *visit) *APIKeyNewPage {
	p := &APIKeyNewPage{Frame: Frame{Title: "Make an API key", Section: "apikeys", Narrow: true}, Name: v.form("name"), MayWhole: v.mayWhole(), Whole: v.form("reach") == "environment", TOTP: s.codeAllowed(v)}
	for _, scope := range account.Scopes() {
		p.Scopes = append(p.Scopes, Option{Value: scope, Label: scopeLabel(scope), Chosen: slices.Contains(v.r.Form["scope"], scope)})
	}
	for _, days := range []int{7, 30, 90, 365} {
		p.Days = append(p.Days, Option{Value: strconv.Itoa(days), Label: plural(days, "day"), Chosen: v.form("days") == strconv.Itoa(days) || v.form("days") == "" && days == 90})
	}
	p.Days = append(p.Days, Option{Value: "0", Label: "Never", Chosen: v.form("days") == "0"})
	p.SecretPrefix, p.SecretContext = v.form("secret_prefix"), v.form("secret_context")
	return p
}

func scopeLabel(scope account.Scope) string {
	return map[account.Scope]string{
		account.ScopeVaultRead: "Read secrets", account.ScopeVaultWrite: "Write secrets", account.ScopeVaultDelete: "Delete secrets",
		account.ScopeConnectionsRead: "See connections", account.ScopeConnectionsWrite: "Make and end connections", account.ScopeConnectionsVend: "Fetch credentials",
		account.ScopeAgentsRead: "See agents", account.ScopeAgentsWrite: "Manage agents", account.ScopeSessionsRead: "See sessions", account.ScopeSessionsRevoke: "End sessions",
		account.ScopeProvidersWrite: "Manage providers", account.ScopeOrganizationsWrite: "Manage organizations", account.ScopeUsersRead: "See people",
		account.ScopeUsersWrite: "Manage people", account.ScopeAuditRead: "Read the audit",
		account.ScopeKeysRead: "See which keys seal what", account.ScopeKeysWrite: "Replace, bind and destroy keys", account.ScopeWebhooksWrite: "Manage webhooks", account.ScopeUsersVouch: "Sign the users that it made in once, to connect accounts",
	}[scope]
}

// newKey reads the form. Its end is a whole day, so that the challenge and the
// form that follows it mean the same moment.
func (s *Server) newKey(v *visit) (account.NewKey, error) {
	n := account.NewKey{Environment: v.here.Environment, Organization: v.here.Organization, Name: v.form("name"), Scopes: v.r.PostForm["scope"]}
	if v.form("reach") == "environment" {
		n.Organization = ""
	}
	days, err := strconv.Atoi(v.form("days"))
	if err != nil || days < 0 || days > 3650 {
		return n, fault.New(fault.Invalid, "invalid_expiry", "A key ends after 1 to 3650 days, or never.")
	}
	if n.Secrets, err = keyRules(v.r.PostForm); err != nil {
		return n, err
	}
	if days > 0 {
		n.Expires = s.now().UTC().Truncate(24*time.Hour).AddDate(0, 0, days+1)
	}
	return n, nil
}

func (s *Server) apiKeyChallenge(v *visit) (answer, error) {
	n, err := s.newKey(v)
	if err != nil {
		return nil, err
	}
	return s.challenge(v, s.people.KeyDigest(v.person, n))
}

func (s *Server) apiKeyCreate(v *visit) (answer, error) {
	n, err := s.newKey(v)
	if err != nil {
		return again(s.apiKeyNewPage(v), err)
	}
	k, value, err := s.people.CreateKey(v.ctx(), v.person, n, v.proof())
	if err != nil {
		return again(s.apiKeyNewPage(v), err)
	}
	return show(&OncePage{Frame: Frame{Title: "API key", Section: "apikeys", Narrow: true}, Word: "Made", Sentence: "The key " + oneLine(k.Name) + " is ready.",
		Values: []Fact{{Name: "API key", Value: reveal(value)}}, Back: v.query("/ui/apikeys")}), nil
}

func (s *Server) apiKeyRevoke(v *visit) (answer, error) {
	kid, err := parseID(id.Key(v.r.PathValue("id")))
	if err != nil {
		return nil, err
	}
	err = v.anywhere(func(by account.Actor) (id.Organization, error) {
		return v.here.Organization, s.people.RevokeKey(v.ctx(), by, kid)
	})
	if err != nil {
		return nil, err
	}
	return goTo(v.query("/ui/apikeys", "done", "key_revoked")), nil
}
