package web_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// mark gives the mark of what a page does not show in full.
func (d *doc) mark(t *testing.T) string {
	t.Helper()
	for n := range d.root.Descendants() {
		if attr(n, "name") == "read" {
			return attr(n, "value")
		}
	}
	t.Fatal("the page has nothing to open")
	return ""
}

// A3, issue 6: what an agent says beyond what is shown at once has to be opened
// before a yes, with script or without; a no needs nothing.
func TestWordsAreReadBeforeAYes(t *testing.T) {
	t.Parallel()
	s := sceneOnSQLite(t)
	ask := func(purpose string) session.Requested {
		r, err := s.Sessions.Request(t.Context(), s.bot, session.Ask{Providers: []string{"tracker"}, Purpose: purpose}, "127.0.0.1")
		gatewaytest.Must(t, err)
		return r
	}
	r := ask("Look after the issues.\n" + strings.Repeat("All of them. ", 60) + "And send me the keys.")
	page := s.mia.get(s.page(r)).says("The agent says (not checked by Ambit)", "Read all that it says", "And send me the keys.")
	v := fields(page.form(s.page(r) + "/approve"))
	s.mia.post(s.page(r)+"/challenge", v, "Accept", "application/json").want(http.StatusUnprocessableEntity)
	s.mia.post(s.page(r)+"/approve", v).want(http.StatusUnprocessableEntity).says("you have not opened the rest")
	v.Set("read", page.mark(t)+"0")
	s.mia.post(s.page(r)+"/approve", v).want(http.StatusUnprocessableEntity)
	mark := page.mark(t)
	page.submit(s.page(r)+"/approve", func(v url.Values) { v.Set("read", mark) }).follow().says("Approved")

	other := ask("Something else.\n" + strings.Repeat("And more. ", 60))
	if m := s.mia.get(s.page(other)).mark(t); m == mark {
		t.Error("the mark of one request fits another")
	}
	s.mia.post(s.page(other)+"/deny", url.Values{}).follow().says("Denied")
}

// Issue 6: who decides reads what is on record of the agent, which it cannot
// write: nothing at first; then what was approved, denied and called.
func TestThePastOfAnAgent(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		first := s.Ask(t, s.bot, "tracker", policy.Read)
		s.mia.get(s.page(first)).says("New here", "In 90 days nobody has decided anything about this agent for this person.")
		s.mia.get(s.page(first)).submit(s.page(first)+"/approve", nil).want(http.StatusSeeOther)
		for range 2 {
			if _, err := s.Call(t, s.bot, first.Handle, "tracker_list_issues", nil); err != nil {
				t.Fatal(err)
			}
		}
		again := s.Ask(t, s.bot, "tracker", policy.Read)
		s.mia.get(s.page(again)).says("In 90 days: approved once", "2 calls made", "Just this: approved once before").not("denied")
		s.mia.post(s.page(again)+"/deny", url.Values{})
		more := s.Ask(t, s.bot, "tracker", policy.Read, policy.Destructive)
		s.mia.get(s.page(more)).says("approved once", "denied once", "Just this was not approved before").submit(s.page(more)+"/approve", nil).want(http.StatusSeeOther)
		s.Clock.Advance(2e9)
		// A single call is shown with its session: what that may do, and for how long yet.
		_, err := s.Call(t, s.bot, more.Handle, "tracker_delete_issue", map[string]any{"number": 1})
		page := s.mia.get(approvalOf(t, err)).says("can read and delete data in", "for another", "In this session: 0 calls made", "This tool was not approved here before", "The agent says of its session (not checked by Ambit)")
		page.submit(approvalOf(t, err)+"/approve", nil).want(http.StatusSeeOther)
		if _, err := s.Call(t, s.bot, more.Handle, "tracker_delete_issue", map[string]any{"number": 1}); err != nil {
			t.Fatal(err)
		}
		_, err = s.Call(t, s.bot, more.Handle, "tracker_delete_issue", map[string]any{"number": 2})
		s.mia.get(approvalOf(t, err)).says("1 approved one by one", "This tool here: approved once before")
	})
}

// §5.5, issue 6: of an update the person reads what stands there now beside what
// will. A long text is opened before a yes.
func TestAnUpdateBesideWhatStands(t *testing.T) {
	t.Parallel()
	s := sceneOnSQLite(t)
	handle := s.active(t, policy.Read, policy.Write)
	if _, err := s.Call(t, s.bot, handle, "tracker_create_issue", map[string]any{"title": "Broken build", "body": "On main."}); err != nil {
		t.Fatal(err)
	}
	r := s.Ask(t, s.bot, "tracker", policy.Read, policy.Write)
	s.mia.get(s.page(r)).submit(s.page(r)+"/approve", func(v url.Values) { v.Set("confirm", "write") }).want(http.StatusSeeOther)
	list, err := s.Call(t, s.bot, r.Handle, "tracker_list_issues", nil)
	gatewaytest.Must(t, err)
	number := newestIssue(t, list.Body)
	long := "It is fixed.\n" + strings.Repeat("A line of it.\n", 40) + "The last line."
	_, err = s.Call(t, s.bot, r.Handle, "tracker_update_issue", map[string]any{"number": number, "title": "Broken build", "body": long, "state": "closed"})
	call := approvalOf(t, err)
	page := s.mia.get(call).says("Beside it, what stood there when the agent asked", "own words: Broken build", "On main.", "openclosed", "as it is", "Read what is cut off", "The last line.")
	s.mia.post(call+"/approve", fields(page.form(call+"/approve"))).want(http.StatusUnprocessableEntity).says("you have not opened the rest")
	mark := page.mark(t)
	page.submit(call+"/approve", func(v url.Values) { v.Set("read", mark) }).follow().says("Approved")
	if _, err := s.Call(t, s.bot, r.Handle, "tracker_update_issue", map[string]any{"number": number, "title": "Broken build", "body": long, "state": "closed"}); err != nil {
		t.Fatal(err)
	}
}

func newestIssue(t *testing.T, body []byte) int {
	t.Helper()
	var list []struct {
		Number int    `json:"number"`
		Title  string `json:"title"`
	}
	var wrapped struct {
		Issues json.RawMessage `json:"issues"`
	}
	if json.Unmarshal(body, &wrapped) == nil && len(wrapped.Issues) > 0 {
		body = wrapped.Issues
	}
	if err := json.Unmarshal(body, &list); err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		if i.Title == "Broken build" {
			return i.Number
		}
	}
	t.Fatalf("no such issue in %s", body)
	return 0
}
