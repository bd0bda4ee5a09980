package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// Issue 7: the token endpoint of an account is often on another host than its API. A
// client's own refresh of its placeholder is answered by the proxy there, and nothing
// else passes: a bug was that the tunnel to it was refused, and the client asked again
// and again (onecli #363).
func TestClientsOwnRefreshAtAnotherHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldbtest.Open(t, sqldb.SQLite), gateway.Egress{})
	_, err := w.Providers.Put(t.Context(), w.System.In(w.Environment), provider.Input{ClientID: "ambit-test", ClientSecret: secret.FromString("sbxs_" + gatewaytest.SandboxKey), YAML: []byte(fmt.Sprintf(`id: sandbox
name: Sandbox
website: %[1]s
auth: oauth2
oauth2:
  authorize_url: %[1]s/oauth/authorize
  token_url: %[1]s/oauth/token
  issuer: %[1]s
  client_auth: basic
  scopes: {base: ["issues:read"], catalog: [{id: "issues:read", title: Read issues, risk: read}]}
  refresh: {rotates: true}
inject: {header: Authorization, format: "Bearer {access_token}"}
identity: {url: "%[1]s/me", id: id, label: email}
api: {base: ["https://%[2]s"]}
generic: {read: true}
`, w.Sandbox.URL, w.place))}, account.Agreement{})
	must(t, err)
	w.ConnectOAuth(t, w.owner, gatewaytest.Mia, nil)
	live, err := w.Sessions.Live(t.Context(), w.who, w.Active(t, w.owner, w.who, "sandbox", policy.Read))
	must(t, err)
	w.token = w.bind(t, live)

	place := w.Sandbox.Listener.Addr().String()
	ask := func(path, body string) (int, string) {
		t.Helper()
		conn, status := w.connectTo(t, place, "Bearer "+w.token)
		if status != "200" {
			t.Fatalf("CONNECT: %s", status)
		}
		defer conn.Close()
		req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+place+path, strings.NewReader(body))
		must(t, err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		must(t, req.Write(conn))
		resp, err := http.ReadResponse(bufio.NewReader(conn), req)
		must(t, err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		must(t, err)
		return resp.StatusCode, string(text)
	}
	before := len(w.Arrivals(""))
	if status, text := ask("/oauth/token", "grant_type=refresh_token&refresh_token=ambit_refresh_token"); status != 200 || !strings.Contains(text, `"access_token":"ambit_access_token"`) {
		t.Errorf("a refresh: %d %s", status, text)
	}
	if status, text := ask("/oauth/token", "grant_type=refresh_token&refresh_token=another"); status != 403 || !strings.Contains(text, "destination_denied") {
		t.Errorf("another's refresh: %d %s", status, text)
	}
	if status, text := ask("/me", ""); status != 403 || !strings.Contains(text, "destination_denied") {
		t.Errorf("another path: %d %s", status, text)
	}
	if n := len(w.Arrivals("")) - before; n != 0 {
		t.Errorf("%d requests arrived", n)
	}
}
