package agent_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/agent/agenttest"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

const editorDoc = `{"client_id":"%s/editor.json","client_name":"Editor","redirect_uris":["http://127.0.0.1/cb","https://editor.example/cb"],
	"grant_types":["authorization_code","refresh_token"],"token_endpoint_auth_method":"none","unknown":1}`

// G4, S1: a client that is named by the address of its document is that document,
// read again when it is old, and its host is what a person is shown.
func TestClientDocument(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		ctx := t.Context()
		name := w.Web.Put("/editor.json", editorDoc)
		find := func() agent.Client {
			t.Helper()
			c, err := w.Agents.FindClient(ctx, name, "203.0.113.9")
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		c := find()
		if c.Wire() != name || "http://"+c.DocumentHost() != w.Web.URL || !agent.MatchRedirect(c.RedirectURIs, "http://127.0.0.1:4711/cb") {
			t.Errorf("got %+v", c)
		}
		if again := find(); again.ID != c.ID || w.Web.Seen("/editor.json") != 1 {
			t.Errorf("a fresh document was fetched %d times", w.Web.Seen("/editor.json"))
		}
		w.Web.Put("/editor.json", strings.Replace(editorDoc, "editor.example", "moved.example", 1))
		w.Clock.Advance(5 * time.Minute)
		if again := find(); again.ID != c.ID || again.RedirectURIs[1] != "https://moved.example/cb" {
			t.Errorf("an old document still counts: %+v", again)
		}
		// Whoever consents keeps it; the tokens are this client's.
		verifier, challenge := agenttest.PKCE()
		flow, err := w.Agents.BeginAuthorize(ctx, agent.AuthRequest{Client: agent.Client{ID: c.ID}, RedirectURI: "http://127.0.0.1:4711/cb", Challenge: challenge})
		if err != nil {
			t.Fatal(err)
		}
		code := w.Agree(t, alice, flow, "my editor").Get("code")
		by := w.Caller(t, agent.ClientAuth{ID: name})
		g := agenttest.Grant{Code: code, Verifier: verifier}.CodeGrant()
		g.RedirectURI = "http://127.0.0.1:4711/cb"
		tokens, err := w.Agents.Exchange(ctx, by, g)
		if err != nil || tokens.Refresh.IsZero() {
			t.Fatalf("exchange: %+v, %v", tokens, err)
		}
		w.Clock.Advance(48 * time.Hour)
		if _, err := w.Agents.AuthenticateClient(ctx, agent.ClientAuth{ID: name}); err != nil {
			t.Errorf("a client that somebody consented to is gone: %v", err)
		}
		w.Web.Put("/editor.json", `{"client_id":"other"}`)
		_, err = w.Agents.FindClient(ctx, name, "203.0.113.9")
		refused(t, "a document that became another's", err, "invalid_request")
	})
}

// G4, W5: what is no plain document about itself names no client, and addresses
// inside are not looked at.
func TestClientDocumentsRefused(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, _ *agenttest.Person) {
		ctx := t.Context()
		n := 0
		try := func(what, name string) {
			t.Helper()
			n++
			if _, err := w.Agents.FindClient(ctx, name, "203.0.113."+string(rune('0'+n%10))); fault.KindOf(err) != fault.Invalid && !fault.Is(err, "denied_address") {
				t.Errorf("%s: got %v", what, err)
			}
		}
		for what, doc := range map[string]string{
			"another name":         `{"client_id":"%s/x.json?","redirect_uris":["https://a.example/cb"],"token_endpoint_auth_method":"none"}`,
			"no name":              `{"redirect_uris":["https://a.example/cb"]}`,
			"a secret":             `{"client_id":"%s/d.json","redirect_uris":["https://a.example/cb"],"client_secret":"s"}`,
			"a method of secrets":  `{"client_id":"%s/d.json","redirect_uris":["https://a.example/cb"],"token_endpoint_auth_method":"client_secret_basic"}`,
			"no redirect":          `{"client_id":"%s/d.json"}`,
			"http elsewhere":       `{"client_id":"%s/d.json","redirect_uris":["http://a.example/cb"]}`,
			"a name twice":         `{"client_id":"%s/d.json","client_id":"%s/d.json","redirect_uris":["https://a.example/cb"]}`,
			"keys and their place": `{"client_id":"%s/d.json","redirect_uris":["https://a.example/cb"],"token_endpoint_auth_method":"private_key_jwt","jwks_uri":"http://169.254.169.254/k"}`,
			"a redirect":           "->/editor.json",
			"too much":             `{"client_id":"%s/d.json","redirect_uris":["https://a.example/cb"],"x":"` + strings.Repeat("x", agent.MaxMetadata) + `"}`,
			"no JSON":              `<html>`,
		} {
			try(what, w.Web.Put("/d.json", doc))
		}
		w.Web.Put("/editor.json", editorDoc)
		try("nothing there", w.Web.URL+"/absent.json")
		for _, name := range []string{w.Web.URL, w.Web.URL + "/", w.Web.URL + "/editor.json?a=1", w.Web.URL + "/editor.json#f", w.Web.URL + "/a/../editor.json",
			strings.Replace(w.Web.URL, "http://", "http://u@", 1) + "/editor.json", "ftp://a.example/x", "http://169.254.169.254/latest", "http://localhost:1/x", "https://10.0.0.1/x", "https://EDITOR.example/x"} {
			before := w.Web.Seen("/editor.json")
			try(name, name)
			if w.Web.Seen("/editor.json") != before {
				t.Errorf("%s was fetched", name)
			}
		}
		for i := range 40 {
			_, err := w.Agents.FindClient(ctx, w.Web.Put("/many/"+strings.Repeat("x", i+1), editorDoc), "198.51.100.7")
			if i == 39 {
				refused(t, "a caller that names many", err, "temporarily_unavailable")
			}
		}
	})
}

// S8: an operator says at whose hosts clients may be described; at any other, neither a
// new client counts nor one that got tokens before.
func TestClientDocumentHosts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		hosts, address string
		want           bool
	}{
		{"", "https://a.example/c", true}, {"none", "https://a.example/c", false}, {"a.example", "https://a.example/c", true}, {"A.example", "https://a.example/c", true},
		{"a.example", "https://b.a.example/c", false}, {"a.example", "https://a.example:8443/c", false}, {"a.example:8443", "https://a.example:8443/c", true},
		{"*.a.example", "https://b.a.example/c", true}, {"*.a.example", "https://a.example/c", false}, {"*.a.example", "https://eviltaa.example/c", false}, {"*.a.example", "https://evila.example/c", false},
		{"x.example b.example", "https://b.example/c", true}, {"b.example", "https://b.example.evil.example/c", false},
	} {
		hosts, err := agent.ParseHosts(strings.Fields(c.hosts))
		if err != nil || hosts.Have(c.address) != c.want {
			t.Errorf("%q and %s: want %v, %v", c.hosts, c.address, c.want, err)
		}
	}
	for _, bad := range []string{"https://a.example", "a.example/x", "*", "a.*.example", "a.example:", "a b"} {
		if _, err := agent.ParseHosts([]string{bad}); !fault.Is(err, "client_documents_invalid") {
			t.Errorf("%q is taken: %v", bad, err)
		}
	}
	each(t, func(t *testing.T, w *agenttest.World, _ *agenttest.Person) {
		name := w.Web.Put("/editor.json", editorDoc)
		if _, err := w.Agents.FindClient(t.Context(), name, "203.0.113.9"); err != nil {
			t.Fatal(err)
		}
		w.Agents.AllowDocuments(agent.Hosts{"elsewhere.example"})
		_, err := w.Agents.FindClient(t.Context(), name, "203.0.113.9")
		refused(t, "a document elsewhere", err, "invalid_client")
		_, err = w.Agents.AuthenticateClient(t.Context(), agent.ClientAuth{ID: name})
		refused(t, "a client that was known", err, "invalid_client")
	})
}

// S8, S15: a client with keys proves itself by an assertion that is its own, for
// us, short-lived, signed with an algorithm that we take, and used once.
func TestClientAssertion(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		ctx := t.Context()
		old, next, other := agenttest.NewSigner(t, "1"), agenttest.NewSigner(t, "2"), agenttest.NewSigner(t, "1")
		n := agent.NewAgent{Environment: w.Environment, Organization: w.Organization, Name: "nightly build", Kind: agent.Delegated, Owner: alice.ID, Keys: agenttest.Set(old)}
		a, client, sec, err := w.Agents.Register(ctx, w.System, n)
		if err != nil || !sec.IsZero() {
			t.Fatalf("registering with keys: secret %v, %v", !sec.IsZero(), err)
		}
		good := w.Assertion(t, old, string(client), nil)
		by, err := w.Agents.AuthenticateClient(ctx, good)
		if err != nil || by.Public() {
			t.Fatal(err)
		}
		tokens, err := w.Agents.ClientCredentials(ctx, by, "")
		if err != nil || !alive(t, w, tokens.Access) {
			t.Fatal(err)
		}
		deny := func(what string, auth agent.ClientAuth) {
			t.Helper()
			_, err := w.Agents.AuthenticateClient(ctx, auth)
			refused(t, what, err, "invalid_client")
		}
		deny("the same assertion again", good)
		now := w.Clock.Now()
		for what, over := range map[string]map[string]any{
			"another audience": {"aud": "https://other.example"}, "two audiences": {"aud": []string{agenttest.PublicURL, "https://other.example"}}, "no audience": {"aud": nil}, "no jti": {"jti": nil}, "no end": {"exp": nil},
			"over": {"exp": now.Add(-2 * time.Minute).Unix()}, "too long": {"exp": now.Add(time.Hour).Unix()}, "not yet": {"nbf": now.Add(5 * time.Minute).Unix()},
			"made later": {"iat": now.Add(5 * time.Minute).Unix()}, "another issuer": {"iss": "x"}, "about another": {"sub": "client_x"},
		} {
			auth := w.Assertion(t, old, string(client), over)
			auth.ID = string(client)
			deny(what, auth)
		}
		deny("another's key of the same name", w.Assertion(t, other, string(client), nil))
		whole := string(w.Assertion(t, old, string(client), nil).Assertion.Reveal())
		for _, form := range []string{"", "a.b.c", whole[:len(whole)-2], strings.Replace(whole, ".", ".e", 1), "eyJhbGciOiJub25lIn0." + strings.Split(whole, ".")[1] + "."} {
			if form != "" {
				deny("altered", agent.ClientAuth{ID: string(client), Assertion: text(form)})
			}
		}
		deny("its name alone", agent.ClientAuth{ID: string(client)})
		both := w.Assertion(t, old, string(client), nil)
		both.Secret = text("amb_cs_x")
		deny("a secret beside it", both)

		// Keys change with an overlap, and then without.
		a, err = w.Agents.SetKeys(ctx, w.System, a.ID, a.Version, agenttest.Set(old, next), agent.Workload{}, account.Agreement{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Agents.ClientCredentials(ctx, by, "")
		refused(t, "a caller that proved itself before the change", err, "invalid_client")
		for _, s := range []agenttest.Signer{old, next} {
			if _, err := w.Agents.AuthenticateClient(ctx, w.Assertion(t, s, string(client), map[string]any{"aud": []string{agenttest.PublicURL + "/oauth/token"}})); err != nil {
				t.Errorf("key %s in the overlap: %v", s.ID, err)
			}
		}
		address := w.Web.Put("/keys", agenttest.Set(next))
		if a, err = w.Agents.SetKeys(ctx, w.System, a.ID, a.Version, address, agent.Workload{}, account.Agreement{}); err != nil {
			t.Fatal(err)
		}
		deny("the old key", w.Assertion(t, old, string(client), nil))
		if _, err := w.Agents.AuthenticateClient(ctx, w.Assertion(t, next, string(client), nil)); err != nil {
			t.Errorf("a key at an address: %v", err)
		}
		w.Web.Put("/keys", agenttest.Set(other))
		w.Clock.Advance(2 * time.Minute)
		if _, err := w.Agents.AuthenticateClient(ctx, w.Assertion(t, other, string(client), nil)); err != nil {
			t.Errorf("a key that came to the address since: %v", err)
		}
		if alive(t, w, tokens.Access) {
			t.Error("tokens of replaced keys are alive")
		}
		_, err = w.Agents.SetKeys(ctx, w.System, a.ID, a.Version, old.Private(), agent.Workload{}, account.Agreement{})
		refused(t, "a private key", err, "invalid_client_metadata")
		_, err = w.Agents.SetKeys(ctx, w.System, a.ID, 1, agenttest.Set(old), agent.Workload{}, account.Agreement{})
		refused(t, "an old version", err, "conflict")
		me := account.ByPerson(w.Person(t, "admin@example.com", account.RoleAdmin).Signed(t)).In(w.Environment)
		_, err = w.Agents.SetKeys(ctx, me, a.ID, a.Version, agenttest.Set(old), agent.Workload{}, account.Agreement{})
		refused(t, "a person without a proof", err, "proof_required")
	})
}

// A secret that is replaced with an overlap counts beside the new one, for that
// long; without, it and its tokens stop at once.
func TestRotateSecretWithAnOverlap(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *agenttest.World, alice *agenttest.Person) {
		ctx := t.Context()
		a, auth := w.Service(t, agent.Delegated, alice.ID)
		tokens, err := w.Agents.ClientCredentials(ctx, w.Caller(t, auth), "")
		if err != nil {
			t.Fatal(err)
		}
		fresh, err := w.Agents.RotateSecret(ctx, w.System, a.ID, time.Hour, account.Evidence{})
		if err != nil {
			t.Fatal(err)
		}
		for what, a := range map[string]agent.ClientAuth{"the old secret": auth, "the new one": {ID: auth.ID, Secret: fresh}} {
			if _, err := w.Agents.AuthenticateClient(ctx, a); err != nil {
				t.Errorf("%s in the overlap: %v", what, err)
			}
		}
		if !alive(t, w, tokens.Access) {
			t.Error("a token ended although its secret still counts")
		}
		w.Clock.Advance(time.Hour)
		_, err = w.Agents.AuthenticateClient(ctx, auth)
		refused(t, "the old secret after the overlap", err, "invalid_client")
		for _, overlap := range []time.Duration{-1, agent.MaxOverlap + 1} {
			_, err = w.Agents.RotateSecret(ctx, w.System, a.ID, overlap, account.Evidence{})
			refused(t, overlap.String(), err, "invalid_overlap")
		}
	})
}

func text(s string) secret.Value { return secret.FromString(s) }

// W5, and a bug: who registered a client with keys at somebody else's address made
// us fetch from there with each unproven token request. A look that failed counts
// for a minute, and all looks at one place are limited.
func TestKeysAreNotFetchedOnDemand(t *testing.T) {
	t.Parallel()
	w := agenttest.New(t, sqldbtest.Open(t, sqldb.SQLite))
	ctx := t.Context()
	signer := agenttest.NewSigner(t, "k")
	register := func(path string) string {
		t.Helper()
		c, _, err := w.Agents.RegisterClient(ctx, agent.NewClient{RedirectURIs: []string{agenttest.Redirect}, AuthMethod: agent.AuthKeys, KeysURL: w.Web.URL + path})
		if err != nil {
			t.Fatal(err)
		}
		return string(c.ID)
	}
	client := register("/keys")
	prove := func(client string) error {
		_, err := w.Agents.AuthenticateClient(ctx, w.Assertion(t, signer, client, nil))
		return err
	}
	for range 5 {
		if prove(client) == nil {
			t.Fatal("proven without a key")
		}
	}
	if got := w.Web.Seen("/keys"); got != 1 {
		t.Errorf("five requests made us look %d times, want once", got)
	}
	w.Web.Put("/keys", agenttest.Set(signer))
	w.Clock.Advance(time.Minute)
	if err := prove(client); err != nil {
		t.Errorf("a minute after a failure, with the keys there: %v", err)
	}
	looks := 0
	for i := range 40 {
		path := fmt.Sprintf("/victim/%d", i)
		_ = prove(register(path))
		looks += w.Web.Seen(path)
	}
	if looks == 0 || looks > 20 {
		t.Errorf("40 addresses of one place were looked at %d times, want at most 20", looks)
	}
	if err := prove(client); err != nil {
		t.Errorf("a client whose keys are known, meanwhile: %v", err)
	}
}
