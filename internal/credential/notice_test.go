package credential_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

const signingSecret = "8f742231b10e8888abcd99yyyzzz85a5" // as Slack's own example has it

func macOf(key, text string) string {
	m := hmac.New(sha256.New, []byte(key))
	m.Write([]byte(text))
	return hex.EncodeToString(m.Sum(nil))
}

func slackHeader(key string, at time.Time, body string) http.Header {
	stamp := fmt.Sprint(at.Unix())
	return http.Header{"X-Slack-Request-Timestamp": {stamp}, "X-Slack-Signature": {"v0=" + macOf(key, "v0:"+stamp+":"+body)}}
}

// Issue 5, webhooks in: Slack tells that a person's tokens or a workspace's app are
// gone. Only what it signed, now, counts; the same text does nothing twice; nobody
// else's account is touched; and calls say where a person connects it again.
func TestSlackTells(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := gatewaytest.New(t, db)
		in := oauthInput(w)
		in.YAML = []byte(strings.Replace(string(in.YAML), "inject:", "capture: [{name: team, from: identity, field: id, pattern: '[A-Za-z0-9_]+', account: true, example: T1}]\nwebhooks: {style: slack}\ninject:", 1))
		_, err := w.Providers.Put(t.Context(), w.System.In(w.Environment), in, account.Agreement{})
		gatewaytest.Must(t, err)
		s := scene{World: w, owner: w.Person(t, "mia@example.com", account.RoleMember)}
		other := w.Person(t, "ben@example.com", account.RoleMember)
		s.conn = w.ConnectOAuth(t, s.owner, gatewaytest.Mia, nil)
		theirs := w.ConnectOAuth(t, other, gatewaytest.Noa, nil)
		s.bot = w.Agent(t, s.owner, "Triage bot")
		s.handle = w.Active(t, s.owner, s.bot, "sandbox", policy.Read)
		path, err := w.Providers.SetHook(t.Context(), w.System.In(w.Environment), "sandbox", secret.FromString(signingSecret))
		gatewaytest.Must(t, err)
		if want := "/hooks/" + string(w.Environment) + "/sandbox"; path != want {
			t.Errorf("notices go to %s, want %s", path, want)
		}
		send := func(h http.Header, body string) (string, error) {
			return w.Credentials.Notice(t.Context(), w.Environment, "sandbox", "127.0.0.1", h, []byte(body))
		}
		now := s.Clock.Now()
		if got, err := send(slackHeader(signingSecret, now, `{"type":"url_verification","challenge":"3eZb"}`), `{"type":"url_verification","challenge":"3eZb"}`); err != nil || got != "3eZb" {
			t.Errorf("the question of the setup: %q (%v)", got, err)
		}
		revoked := fmt.Sprintf(`{"type":"event_callback","team_id":%q,"event":{"type":"tokens_revoked","tokens":{"oauth":[%q],"bot":[]}}}`, s.conn.AccountID, s.conn.AccountID)
		for what, h := range map[string]http.Header{
			"unsigned": {}, "another secret": slackHeader("another-secret", now, revoked), "another text": slackHeader(signingSecret, now, revoked+" "),
			"of before": slackHeader(signingSecret, now.Add(-6*time.Minute), revoked), "of later": slackHeader(signingSecret, now.Add(6*time.Minute), revoked),
		} {
			if _, err := send(h, revoked); code(err) != "signature_invalid" {
				t.Errorf("%s: got %v", what, err)
			}
		}
		elsewhere := strings.Replace(revoked, `"team_id":"`+s.conn.AccountID, `"team_id":"T0OTHER`, 1)
		if _, err := send(slackHeader(signingSecret, now, elsewhere), elsewhere); err != nil || s.now(t).State != connection.Connected {
			t.Errorf("a notice of another workspace: %v, %s", err, s.now(t).State)
		}
		good := slackHeader(signingSecret, now, revoked)
		_, err = send(good, revoked)
		gatewaytest.Must(t, err)
		if c := s.now(t); c.State != connection.NeedsReauth || c.Reason != "provider_revoked" {
			t.Errorf("it is %s %s", c.State, c.Reason)
		}
		if err := s.call(t); code(err) != "reconnect" {
			t.Errorf("a call: %v", err)
		}
		if c, err := w.Connections.ByID(t.Context(), db.Reader(), w.Environment, theirs.ID); err != nil || c.State != connection.Connected {
			t.Errorf("another account is %s (%v)", c.State, err)
		}
		page, err := w.Audit.List(t.Context(), audit.Filter{Environment: w.Environment, Action: "connection.needs_reauthorization", Limit: 5})
		if err != nil || len(page.Records) != 1 || page.Records[0].Actor.ID != "provider" || page.Records[0].Connection != s.conn.ID {
			t.Errorf("on record: %+v (%v)", page.Records, err)
		}

		// The same text again, as a replay or a repetition, does nothing to the new access.
		again := s.ConnectOAuth(t, s.owner, gatewaytest.Mia, func(st *credential.Start) { st.Reconnect = s.conn.ID })
		if _, err := send(good, revoked); err != nil {
			t.Errorf("a repetition: %v", err)
		}
		if c := s.now(t); c.State != connection.Connected || again.ID != c.ID {
			t.Errorf("after a replay it is %s %s", c.State, c.Reason)
		}
		gone := fmt.Sprintf(`{"type":"event_callback","team_id":%q,"event":{"type":"app_uninstalled"}}`, s.conn.AccountID)
		if _, err := send(slackHeader(signingSecret, now, gone), gone); err != nil || s.now(t).State != connection.NeedsReauth {
			t.Errorf("the app was removed: %v, %s", err, s.now(t).State)
		}

		var sealed []byte
		gatewaytest.Must(t, db.Reader().QueryRowContext(t.Context(), `select envelope from provider_hook`).Scan(&sealed))
		if strings.Contains(string(sealed), signingSecret) {
			t.Error("the signing secret is stored in clear")
		}
		gatewaytest.Must(t, w.Providers.DropHook(t.Context(), w.System.In(w.Environment), "sandbox"))
		if _, err := send(slackHeader(signingSecret, now, gone), gone); code(err) != "not_found" {
			t.Errorf("without a secret: %v", err)
		}
	})
}

// An app of GitHub's is told of as installed and as authorized at one address: what
// has the same secret hears both. A suspended installation goes on by itself.
func TestGitHubTells(t *testing.T) {
	t.Parallel()
	n := newInternet(t, newScene(t, sqldbtest.Open(t, sqldb.SQLite)))
	n.provider(t, "github_app_installation", nil)
	n.answer = func(s said) reply {
		if strings.HasSuffix(s.Path, "/access_tokens") {
			return reply{status: 201, body: `{"token":"ghs_token_of_an_hour","expires_at":"2099-01-01T00:00:00Z"}`}
		}
		return reply{body: `{}`}
	}
	key, _ := rsaKey(t)
	c, err := n.give(t, "github_app_installation", nil, map[string]string{"app_id": "4711", "installation_id": "77", "private_key": key})
	gatewaytest.Must(t, err)
	if c.AccountID != "77" || c.AccountLabel != "installation 77" {
		t.Errorf("connected as %q, %q", c.AccountID, c.AccountLabel)
	}
	sys := n.System.In(n.Environment)
	_, err = n.Providers.SetHook(t.Context(), sys, "github_app_installation", secret.FromString(signingSecret))
	gatewaytest.Must(t, err)
	send := func(event, body, key string) error {
		_, err := n.Credentials.Notice(t.Context(), n.Environment, "github_app_installation", "127.0.0.1",
			http.Header{"X-Github-Event": {event}, "X-Hub-Signature-256": {"sha256=" + macOf(key, body)}}, []byte(body))
		return err
	}
	state := func(want connection.State, reason string) {
		t.Helper()
		got, err := n.Connections.ByID(t.Context(), n.DB.Reader(), n.Environment, c.ID)
		if err != nil || got.State != want || got.Reason != reason {
			t.Errorf("it is %s %s (%v), want %s %s", got.State, got.Reason, err, want, reason)
		}
	}
	if err := send("installation", `{"action":"deleted","installation":{"id":77}}`, "another-secret"); code(err) != "signature_invalid" {
		t.Errorf("another secret: %v", err)
	}
	state(connection.Connected, "")
	for _, row := range []struct {
		event, body, reason string
		state               connection.State
	}{
		{"installation", `{"action":"deleted","installation":{"id":78}}`, "", connection.Connected},
		{"github_app_authorization", `{"action":"revoked","sender":{"id":77}}`, "", connection.Connected}, // of a person, not of an installation
		{"installation", `{"action":"suspend","installation":{"id":77}}`, "provider_suspended", connection.NeedsReauth},
		{"installation", `{"action":"unsuspend","installation":{"id":77}}`, "", connection.Connected},
		{"installation", `{"action":"deleted","installation":{"id":77}}`, "provider_revoked", connection.NeedsReauth},
		{"installation", `{"action":"unsuspend","installation":{"id":77},"again":true}`, "provider_revoked", connection.NeedsReauth},
		{"push", `{"ref":"x"}`, "provider_revoked", connection.NeedsReauth},
	} {
		if err := send(row.event, row.body, signingSecret); err != nil {
			t.Errorf("%s: %v", row.body, err)
		}
		state(row.state, row.reason)
	}
	for _, body := range []string{`{`, `[]`, `{"action":1}`, `{"action":"deleted","action":"x","installation":{"id":77}}`} {
		if err := send("installation", body, signingSecret); code(err) != "notice_unreadable" {
			t.Errorf("%s: got %v", body, err)
		}
	}
}
