package web_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
)

// Issue 6: limits are shown in words before the decision, and a person adds one,
// and a number of calls, in the form. A limit that was begun and not finished
// approves nothing.
func TestApproveWithLimits(t *testing.T) {
	t.Parallel()
	s := sceneOnSQLite(t)
	r, err := s.Sessions.Request(t.Context(), s.bot, session.Ask{Providers: []string{"tracker"}, Effects: []policy.Effect{policy.Read, policy.Write}, Purpose: "Mend it.",
		Calls: 40, Limits: []session.AskedLimit{{Limit: policy.Limit{Argument: "number", OneOf: []string{"7", "<b>8</b>"}}}}}, "")
	gatewaytest.Must(t, err)
	page := s.mia.get(s.page(r)).want(http.StatusOK).says("for 30 minutes, at most 40 calls", "Only where number is one of 7, <b>8</b>")
	limit := "limit." + string(s.conn.ID) + "."
	for why, change := range map[string]func(url.Values){
		"The limit that you began": func(v url.Values) { v.Set(limit+"argument", "state") },
		"1 to 40 calls":            func(v url.Values) { v.Set("calls", "41") },
	} {
		form := fields(page.form(s.page(r) + "/approve"))
		change(form)
		s.mia.post(s.page(r)+"/challenge", form).want(http.StatusUnprocessableEntity).says(why)
	}
	page.submit(s.page(r)+"/approve", func(v url.Values) {
		v.Set("calls", "2")
		v.Set(limit+"argument", "state")
		v.Set(limit+"kind", "one_of")
		v.Set(limit+"value", "open, closed")
	}).follow().says("Approved", "for 30 minutes, at most 2 calls")
	got, err := s.Sessions.Check(t.Context(), s.bot, r.Handle, 0)
	gatewaytest.Must(t, err)
	if g := got.Grants[0]; len(g.Tools) != 1 || g.Tools[0].Name != "tracker_update_issue" || len(g.Limits) != 2 || got.Calls != 2 {
		t.Errorf("granted: %+v, %d calls", got.Grants, got.Calls)
	}
	s.mia.get("/ui/sessions/"+string(r.Session.ID)).says("0 of at most 2 calls made", "Only where state is one of open, closed")
}
