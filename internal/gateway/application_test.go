package gateway_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// deskRecord is a provider that gives a token of the person and one of a bot.
const deskRecord = `id: desk
name: Desk
auth: oauth2
oauth2:
  authorize_url: BASE/desk/authorize
  token_url: BASE/desk/token
  client_auth: none
  scopes: {base: [read]}
  slots:
    - {name: bot, at: bot}
identity: {path: /me, id: id}
api: {base: ["BASE/desk/api"]}
generic: {read: true}
tools:
  - name: post
    title: Post
    description: Posts a message as the bot.
    effect: write
    slot: bot
    input: {type: object, required: [text], properties: {text: {type: string}}}
    request: {method: POST, path: /messages, body: {text: "{text}"}}
`

// Issue 5: a request of an application goes with the token of the tool that it is a call
// of, and with the connection's own where it is a call of none. The bot's messages used to
// go out as the person.
func TestApplicationsGoWithTheToolsToken(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		s := newScene(t, db)
		s.Serve("desk", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = json.NewEncoder(w).Encode(map[string]any{"id": "d1", "access_token": "person-token-1", "token_type": "bearer",
				"bot": map[string]any{"access_token": "bot-token-1"}})
		}))
		_, err := s.Providers.Put(t.Context(), s.System.In(s.Environment), provider.Input{YAML: []byte(strings.ReplaceAll(deskRecord, "BASE", s.Sandbox.URL)), ClientID: "ambit"}, account.Agreement{})
		gatewaytest.Must(t, err)
		at, err := url.Parse(s.Begin(t, s.owner, func(st *credential.Start) { st.Provider = "desk" }))
		gatewaytest.Must(t, err)
		done, err := s.Credentials.Callback(t.Context(), s.owner.Signed(t), s.Environment, "desk", url.Values{"state": {at.Query().Get("state")}, "code": {"x"}})
		gatewaytest.Must(t, err)
		_, token, err := s.Accounts.IssueKey(t.Context(), account.NewKey{Environment: s.Environment, Organization: s.Organization, Name: "backend", Scopes: []account.Scope{account.ScopeConnectionsVend}})
		gatewaytest.Must(t, err)
		key, err := s.Accounts.AuthenticateKey(t.Context(), token)
		gatewaytest.Must(t, err)
		for _, row := range []struct{ method, path, body, bearer string }{
			{"POST", "/desk/api/messages", `{"text":"hello"}`, "bot-token-1"},
			{"GET", "/desk/api/things", "", "person-token-1"},
		} {
			x, err := s.Gateway.ExchangeFor(t.Context(), account.ByKey(key), done.Connection.ID, s.owner.ID, s.request(t, row.method, row.path, row.body))
			gatewaytest.Must(t, err)
			answer, err := io.ReadAll(x)
			x.Close()
			gatewaytest.Must(t, err)
			if strings.Contains(string(answer), "-token-1") {
				t.Errorf("%s %s: a token came back: %s", row.method, row.path, answer)
			}
			if got := s.Arrivals(row.path); len(got) != 1 || got[0].Header.Get("Authorization") != "Bearer "+row.bearer {
				t.Errorf("%s %s arrived %d times, with %v", row.method, row.path, len(got), got)
			}
		}
	})
}
