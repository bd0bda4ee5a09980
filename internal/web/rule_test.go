package web_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
)

// Issue 6: settings are tightened at once, loosened with a proof over what is said
// in words, and policies are tried and set on the same page.
func TestRulesPage(t *testing.T) {
	t.Parallel()
	s := sceneOnSQLite(t)
	r := s.Ask(t, s.bot, "tracker", policy.Read, policy.Write)
	s.mia.get(s.page(r)).submit(s.page(r)+"/approve", nil).follow().says("Approved")
	handle := r.Handle
	if _, err := s.Call(t, s.bot, handle, "tracker_create_issue", map[string]any{"title": "x"}); err != nil {
		t.Fatal(err)
	}
	page := s.mia.get("/ui/rules").want(http.StatusOK).says("Sessions and approvals", "Changes need")
	form := fields(page.form("/ui/rules/settings"))
	form.Set("longest_minutes", "60")
	form.Set("kind.write", "call")
	s.mia.post("/ui/rules/settings", form).follow().says("Saved.")
	if _, err := s.Call(t, s.bot, handle, "tracker_create_issue", map[string]any{"title": "x"}); err == nil || !strings.Contains(err.Error(), "approve exactly this call") {
		t.Errorf("a change after the settings: %v", err)
	}
	form = fields(s.mia.get("/ui/rules").form("/ui/rules/settings"))
	form.Set("longest_minutes", "120")
	form.Set("kind.write", "grant")
	asks := s.mia.post("/ui/rules/settings", form).want(http.StatusOK).says("agents may more than until now", "at most 2 hours. Until now: 30 minutes, at most 1 hour.", "Changes need: as the session's approver says. Until now: an approval each.")
	asks.submit("/ui/rules/settings", nil).follow().says("Saved.")

	const text = "@id(\"no-changes\")\nforbid(principal, action == Action::\"write\", resource);"
	policies := fields(s.mia.get("/ui/rules").form("/ui/rules/policy"))
	policies.Set("policy", "forbid(principal, action, resource) when { context.colour };")
	s.mia.post("/ui/rules/policy", policies).want(http.StatusUnprocessableEntity).says("Line 1", "context.colour")
	policies.Set("policy", text)
	s.mia.post("/ui/rules/trial", policies).want(http.StatusOK).says("tracker_create_issue", "no-changes")
	s.mia.post("/ui/rules/policy", policies).want(http.StatusOK).says("these policies decide", "would have ended otherwise").submit("/ui/rules/policy", nil).follow().says("Saved.")
	if _, err := s.Call(t, s.bot, handle, "tracker_create_issue", map[string]any{"title": "x"}); err == nil || !strings.Contains(err.Error(), "policy") {
		t.Errorf("what the policy forbids: %v", err)
	}
	s.person(t, "member@example.com", account.RoleMember).get("/ui/rules").want(http.StatusForbidden)
}

// Four eyes on the page: the second person sees who approved what, and agrees to
// exactly that.
func TestSecondPersonOnThePage(t *testing.T) {
	t.Parallel()
	s := sceneOnSQLite(t)
	set := policy.Defaults()
	set.SecondToStart = []policy.Effect{policy.Read}
	_, err := s.Sessions.SetSettings(t.Context(), s.System.In(s.Environment), s.Organization, 0, set, account.Agreement{})
	gatewaytest.Must(t, err)
	r := s.Ask(t, s.bot, "tracker")
	ada := s.person(t, "ada@example.com", account.RoleApprover)
	ada.get(s.page(r)).want(http.StatusNotFound)
	s.mia.get(s.page(r)).submit(s.page(r)+"/approve", func(v url.Values) {
		v.Set("minutes", "5")
		v.Set("instructions", "Gently.")
	}).follow().says("You approved exactly this", "A second person must agree")
	ada.get("/ui/").says("Triage bot wants to read data")
	ada.get(s.page(r)).want(http.StatusOK).says("approved exactly this. You are the second person", "for 5 minutes", "To the agent: Gently.").
		submit(s.page(r)+"/approve", func(v url.Values) { v.Set("minutes", "30") }).follow().says("Approved", "for 5 minutes")
	if got, err := s.Sessions.Check(t.Context(), s.bot, r.Handle, 0); err != nil || got.State != session.Active || got.Minutes != 5 {
		t.Errorf("got %+v, %v", got, err)
	}
}
