package cli

import (
	"slices"
	"testing"

	"github.com/ambit-dev/ambit/client"
)

// A bug: a session on two accounts of one provider was listed as on "mine, mine",
// and what ended a session, or stood in its way, was shown nowhere.
func TestSessionsAreToldApart(t *testing.T) {
	t.Parallel()
	got := grantedOn([]client.Grant{{Provider: "acme", AccountLabel: "mia"}, {Provider: "acme", AccountLabel: "noa"}, {Provider: "mine", AccountLabel: "Mine", ConnectionID: "conn_1"},
		{Provider: "mine", AccountLabel: "Mine", ConnectionID: "conn_2"}, {Provider: "one", AccountLabel: "x"}})
	if want := []string{"acme mia", "acme noa", "mine conn_1", "mine conn_2", "one"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if s := sessionState(client.Session{State: "ended", Reason: "withdrawn", Cause: "account_disconnected"}); s != "ended (withdrawn: account disconnected)" {
		t.Errorf("got %q", s)
	}
}
