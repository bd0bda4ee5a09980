package web

import (
	"testing"

	"github.com/ambit-dev/ambit/internal/session"
)

// A bug: a request for two accounts whose provider does not tell whose they are
// asked for "Mine · Mine, Mine · Mine".
func TestAccountsOfOneLabelAreToldApart(t *testing.T) {
	t.Parallel()
	got := accounts([]session.Grant{{Provider: "mine", ProviderName: "Mine", AccountLabel: "Mine", Connection: "conn_1aaaa"}, {Provider: "mine", ProviderName: "Mine", AccountLabel: "Mine", Connection: "conn_1bbbb"},
		{Provider: "acme", ProviderName: "Acme", AccountLabel: "mia@example.com", Connection: "conn_2cccc"}})
	for i, want := range []string{"Mine \u2026aaaa", "Mine \u2026bbbb", "mia@example.com"} {
		if got[i].Label != want {
			t.Errorf("got %q, want %q", got[i].Label, want)
		}
	}
}
