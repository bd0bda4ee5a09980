package api

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/session"
)

// Issue 6: who reads an approval over the API reads of a call what its page shows.
func TestApprovalShowsWhatThePageShows(t *testing.T) {
	t.Parallel()
	got := (&API{}).approvalOf(session.Approval{Stands: []session.Field{{Name: "body state", Value: "open"}}, First: session.First{By: "user_1"}, Consent: &session.Consent{Host: "app.example"},
		Call: &session.CallSubject{Tool: "mail_send", Why: "it drops a table", Unnamed: "It has no name.", Fields: []session.Field{{Name: "body to", Value: "a@example.com"}},
			Shown: &provider.Shown{As: "mail", Parts: map[string]string{"to": "body to"}}}})
	want := &ApprovalCall{Tool: "mail_send", Why: "it drops a table", Unnamed: "It has no name.", Fields: []ApprovalField{{"body to", "a@example.com"}}, Stands: []ApprovalField{{"body state", "open"}},
		Shown: &ApprovalShown{As: "mail", Parts: map[string]string{"to": "body to"}}}
	if diff := cmp.Diff(want, got.Call); diff != "" || got.FirstBy != "user_1" || got.SignIn != "app.example" {
		t.Errorf("%s; first by %q, answered at %q", diff, got.FirstBy, got.SignIn)
	}
}

// Issue 5: what a call is about, in the provider's words, is in the API too.
func TestApprovalNamesItsTarget(t *testing.T) {
	t.Parallel()
	if got := (&API{}).approvalOf(session.Approval{Call: &session.CallSubject{Tool: "cloud_delete_volume"}, Target: "production-db"}); got.Call == nil || got.Call.Target != "production-db" {
		t.Errorf("got %+v", got.Call)
	}
}
