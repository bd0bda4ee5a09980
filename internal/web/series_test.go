package web_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
)

// A8: the page of a change offers to allow the next ones like it, by number and by what
// may be different in them; that of a deletion does not.
func TestApproveTheNextOnesLikeIt(t *testing.T) {
	t.Parallel()
	s := sceneOnSQLite(t)
	r := s.Ask(t, s.bot, "tracker", policy.Read, policy.Write, policy.Destructive)
	s.mia.get(s.page(r)).submit(s.page(r)+"/approve", func(v url.Values) { v.Set("confirm", "write") }).follow().says("Approved")
	_, err := s.Call(t, s.bot, r.Handle, "tracker_delete_issue", map[string]any{"number": 1})
	s.mia.get(approvalOf(t, err)).want(http.StatusOK).says("Approves this one call, once").not("Allow more calls like this", "more like it")
	_, err = s.Call(t, s.bot, r.Handle, "tracker_create_issue", map[string]any{"title": "One"})
	call := approvalOf(t, err)
	page := s.mia.get(call).want(http.StatusOK).says("Approves this one call, once, and more like it only if you say so below", "Allow more calls like this", "at most 20", "What may be different in them", "title")
	form := fields(page.form(call + "/approve"))
	form.Set("like", "21")
	s.mia.post(call+"/challenge", form).want(http.StatusUnprocessableEntity).says("1 to 20")
	page.submit(call+"/approve", func(v url.Values) { v.Set("like", "2"); v.Set("differ", "title") }).follow().
		says("Approved", "2 more calls like it, in which only title may differ", "It has made 0 of those")
	for _, title := range []string{"One", "Two"} {
		_, err = s.Call(t, s.bot, r.Handle, "tracker_create_issue", map[string]any{"title": title})
		gatewaytest.Must(t, err)
	}
	s.mia.get(call).says("Approved and used", "It has made 1 of those")
	// Of a call in the words of HTTP the body alone is offered, in words.
	_, err = s.Call(t, s.bot, r.Handle, "tracker_write", map[string]any{"method": "POST", "path": "/issues", "query": map[string]any{"a": "b"}, "body": map[string]any{"title": "One"}})
	s.mia.get(approvalOf(t, err)).says("What may be different in them", "what it sends (the whole body)").not(`value="method"`, `value="path"`, `value="query"`)
}
