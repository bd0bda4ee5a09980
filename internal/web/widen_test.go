package web_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
)

// Issue 6: whoever is asked for more in a session that runs sees what it has and what
// would be new, says nothing of how long, and takes single tools out.
func TestApproveMoreForASession(t *testing.T) {
	t.Parallel()
	s := sceneOnSQLite(t)
	handle := s.active(t, policy.Read)
	r, err := s.Sessions.Request(t.Context(), s.bot, session.Ask{Widen: handle, Providers: []string{"tracker"}, Effects: []policy.Effect{policy.Write}, Purpose: "Mend it."}, "")
	gatewaytest.Must(t, err)
	s.mia.get("/ui/").says("wants more in a session that runs: to change data in")
	page := s.mia.get(s.page(r)).want(http.StatusOK).says("More for a session", "What it has in", "which does not change", "Has it", "New")
	form := fields(page.form(s.page(r) + "/approve"))
	for _, name := range []string{"minutes", "calls", "hand_on"} {
		if form.Has(name) {
			t.Errorf("the form asks for %s", name)
		}
	}
	page.submit(s.page(r)+"/approve", func(v url.Values) {
		tools := v["tool."+string(s.conn.ID)]
		v.Del("tool." + string(s.conn.ID))
		for _, name := range tools {
			if name != "tracker_update_issue" {
				v.Add("tool."+string(s.conn.ID), name)
			}
		}
	}).follow().says("Approved", "was allowed more in a session that runs", "The agent can do this too until its session ends")
	got, err := s.Sessions.Check(t.Context(), s.bot, handle, 0)
	gatewaytest.Must(t, err)
	names := map[string]bool{}
	for _, tool := range got.Grants[0].Tools {
		names[tool.Name] = true
	}
	if !names["tracker_create_issue"] || !names["tracker_list_issues"] || names["tracker_update_issue"] {
		t.Errorf("granted: %v", names)
	}
	s.mia.get("/ui/sessions/"+string(got.ID)).says("More that it asked for while it ran", "Create an issue", "Granted mia@example.com, just now")
	s.mia.get("/ui/sessions/"+string(r.Session.ID)).not("More that it asked for while it ran").says("It was granted, and is a part of the session that it was asked for", "It asked for more in a session")
}
