package provider_test

import (
	"context"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
	"github.com/ambit-dev/ambit/internal/vault"
)

type world struct {
	*provider.Store
	db      *sqldb.DB
	vault   *vault.Vault
	audit   *audit.Log
	account *account.Service
	owner   *accounttest.Human
	env     id.Environment
	inUse   int
}

func each(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := &world{db: db}
		dir := t.TempDir()
		keeper := keyringtest.File(t, filepath.Join(dir, "root.key"))
		var err error
		w.audit, err = audit.New(t.Context(), audit.Config{DB: db, Keeper: keeper, CheckpointDir: filepath.Join(dir, "checkpoints"), Node: "test"})
		check(t, err)
		w.audit.Start()
		t.Cleanup(w.audit.Stop)
		w.vault = vault.New(vault.Config{DB: db, Keeper: keeper, Audit: w.audit})
		public, err := url.Parse("http://localhost:7420")
		check(t, err)
		w.account, err = account.New(account.Config{DB: db, Vault: w.vault, Audit: w.audit, PublicURL: public})
		check(t, err)
		w.owner = accounttest.Owner(t, w.account)
		w.env = w.owner.Environment()
		client, err := outbound.New(outbound.Policy{Allow: []string{"tracker.internal:8080"}})
		check(t, err)
		t.Cleanup(client.Close)
		w.Store, err = provider.New(provider.Config{DB: db, Vault: w.vault, Audit: w.audit, People: w.account, Outbound: client,
			InUse: func(context.Context, *sqldb.Tx, id.Environment, string) (int, error) { return w.inUse, nil }})
		check(t, err)
		fn(t, w)
	})
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// put puts a record as the owner does: with their agreement.
func (w *world) put(t testing.TB, in provider.Input) (p provider.Provider, err error) {
	t.Helper()
	err = w.owner.Do(t, func(ag account.Agreement) error {
		var err error
		p, err = w.Put(t.Context(), w.by(), in, ag)
		return err
	})
	return p, err
}

func (w *world) by() account.Actor { return account.ByPerson(w.owner.Person) }

func trackerInput(t testing.TB) provider.Input {
	return provider.Input{YAML: tracker(t).Source(), ClientID: "client-1", ClientSecret: secret.FromString("client secret")}
}

func TestStoreLife(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		put, err := w.put(t, trackerInput(t))
		check(t, err)
		if put.Version != 1 || put.ClientID != "client-1" || !put.HasClientSecret || put.Builtin || put.Record.ID != "tracker" {
			t.Errorf("got %+v", put)
		}
		got, err := w.Get(ctx, w.env, "tracker")
		check(t, err)
		if got.Version != 1 || got.Record.Digest() != put.Record.Digest() || got.UpdatedAt.IsZero() {
			t.Errorf("got %+v", got)
		}
		client, err := w.Client(ctx, w.env, "tracker", got.Record.Pinned())
		check(t, err)
		if client.ID != "client-1" || !client.Secret.Equal(secret.FromString("client secret")) {
			t.Errorf("got client %v", client)
		}

		// A change without the secret keeps it; the version moves.
		in := trackerInput(t)
		in.ClientSecret, in.IfVersion = secret.Value{}, 1
		in.YAML = []byte(strings.Replace(string(in.YAML), "name: Tracker", "name: Tracker 2", 1))
		put, err = w.put(t, in)
		check(t, err)
		if put.Version != 2 || put.Record.Name != "Tracker 2" || !put.HasClientSecret {
			t.Errorf("got %+v", put)
		}
		if client, err = w.Client(ctx, w.env, "tracker", got.Record.Pinned()); err != nil || !client.Secret.Equal(secret.FromString("client secret")) {
			t.Errorf("after the change: %v, %v", client, err)
		}
		if _, err := w.put(t, in); !fault.Is(err, "version_conflict") {
			t.Errorf("an old version: got %v", err)
		}

		list, err := w.List(ctx, w.env)
		check(t, err)
		if len(list) != 1 || list[0].Record.Name != "Tracker 2" {
			t.Errorf("got %+v", list)
		}
		w.inUse = 1
		if err := w.Delete(ctx, w.by(), "tracker"); !fault.Is(err, "provider_in_use") {
			t.Errorf("in use: got %v", err)
		}
		w.inUse = 0
		check(t, w.Delete(ctx, w.by(), "tracker"))
		for name, err := range map[string]error{
			"get": second(w.Get(ctx, w.env, "tracker")), "client": second(w.Client(ctx, w.env, "tracker", got.Record.Pinned())), "delete": w.Delete(ctx, w.by(), "tracker"),
		} {
			if !fault.Is(err, "not_found") {
				t.Errorf("%s after removal: got %v", name, err)
			}
		}
		if list, err = w.List(ctx, w.env); err != nil || len(list) != 0 {
			t.Errorf("after removal: %+v, %v", list, err)
		}
		// A removed provider's secret is gone: its id alone does not bring it back.
		in.IfVersion = 0
		if _, err := w.put(t, in); !fault.Is(err, "client_secret_missing") {
			t.Errorf("put again without the secret: got %v", err)
		}
		put, err = w.put(t, trackerInput(t))
		check(t, err)
		if put.Version != 4 {
			t.Errorf("got version %d", put.Version)
		}
		page, err := w.audit.List(ctx, audit.Filter{Environment: w.env})
		check(t, err)
		var actions []string
		for _, r := range page.Records {
			if r.Provider == "tracker" {
				if r.User != w.owner.User() || r.Actor.Kind != "user" {
					t.Errorf("the entry does not name the person: %+v", r.Entry)
				}
				actions = append(actions, r.Action)
			}
		}
		want := []string{"provider.updated", "provider.removed", "provider.updated", "provider.created"}
		if d := cmp.Diff(want, actions); d != "" {
			t.Error(d)
		}
	})
}

func second[T any](_ T, err error) error { return err }

func TestPutRefuses(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		edit := func(old, new string) provider.Input {
			in := trackerInput(t)
			in.YAML = []byte(strings.Replace(string(in.YAML), old, new, 1))
			return in
		}
		without := func(change func(*provider.Input)) provider.Input { in := trackerInput(t); change(&in); return in }
		key := provider.Input{YAML: []byte(minimal), ClientID: "x"}
		for name, row := range map[string]struct {
			in   provider.Input
			code string
		}{
			"bad yaml":             {edit("id: tracker", "id: [x"), "record_invalid"},
			"reserved id":          {edit("id: tracker", "id: custom_oauth"), "provider_reserved"},
			"private address":      {edit("https://api.tracker.example/v2", "https://10.0.0.1/v2"), "destination_denied"}, // O7
			"metadata":             {edit("https://tracker.example/oauth/token", "https://169.254.169.254/token"), "destination_denied"},
			"plain http":           {edit("https://api.tracker.example/v2", "http://api.tracker.example/v2"), "destination_denied"},
			"no client id":         {without(func(in *provider.Input) { in.ClientID = "" }), "client_id_invalid"},
			"no client secret":     {without(func(in *provider.Input) { in.ClientSecret = secret.Value{} }), "client_secret_missing"},
			"secret without need":  {edit("client_auth: post", "client_auth: none"), "client_not_used"},
			"client of a key":      {key, "client_not_used"},
			"a version of nothing": {without(func(in *provider.Input) { in.IfVersion = 3 }), "version_conflict"},
		} {
			if _, err := w.put(t, row.in); !fault.Is(err, row.code) {
				t.Errorf("%s: got %v, want %s", name, err, row.code)
			}
		}
		if list, err := w.List(ctx, w.env); err != nil || len(list) != 0 {
			t.Errorf("something was stored: %+v, %v", list, err)
		}
		// What the operator listed passes.
		if _, err := w.put(t, provider.Input{YAML: []byte(strings.Replace(minimal, "https://api.example.com", "http://tracker.internal:8080/api", 1))}); err != nil {
			t.Errorf("a listed host: %v", err)
		}
	})
}

// An editor of records cannot have the stored client secret sent elsewhere.
func TestClientSecretStaysWithItsEndpoints(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		first, err := w.put(t, trackerInput(t))
		check(t, err)
		for _, change := range [][2]string{
			{"https://tracker.example/oauth/token", "https://evil.example/oauth/token"}, {"https://tracker.example/oauth/revoke", "https://evil.example/oauth/revoke"},
		} {
			in := trackerInput(t)
			in.YAML = []byte(strings.Replace(string(in.YAML), change[0], change[1], 1))
			in.ClientSecret = secret.Value{}
			if _, err := w.put(t, in); !fault.Is(err, "client_secret_missing") {
				t.Errorf("%s: got %v", change[1], err)
			}
			in.ClientSecret = secret.FromString("the new one")
			if _, err := w.put(t, in); err != nil {
				t.Error(err)
			}
			// Rule 6: the new secret is not for the places that were pinned before.
			if _, err := w.Client(ctx, w.env, "tracker", first.Record.Pinned()); !fault.Is(err, "provider_changed") {
				t.Errorf("client at the old places: got %v", err)
			}
			_, err = w.put(t, trackerInput(t))
			check(t, err)
		}
		in := trackerInput(t)
		in.ClientID, in.ClientSecret = "client-2", secret.Value{}
		if _, err := w.put(t, in); !fault.Is(err, "client_secret_missing") {
			t.Errorf("another client id: got %v", err)
		}
	})
}

func TestStoreAuthority(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		org := w.owner.Organizations()[0].Organization
		key := func(env id.Environment, org id.Organization, scopes ...string) account.Actor {
			_, token, err := w.account.IssueKey(ctx, account.NewKey{Environment: env, Organization: org, Name: "k", Scopes: scopes})
			check(t, err)
			k, err := w.account.AuthenticateKey(ctx, token)
			check(t, err)
			return account.ByKey(k)
		}
		member := accounttest.Join(t, w.account, w.env, org, account.RoleMember, "m@example.com")
		for name, by := range map[string]account.Actor{
			"nobody": {}, "member": account.ByPerson(member.Person), "key without scope": key(w.env, "", account.ScopeVaultRead), "key of one organization": key(w.env, org, account.ScopeProvidersWrite),
		} {
			if _, err := w.Put(ctx, by, trackerInput(t), account.Agreement{}); err == nil {
				t.Errorf("%s stored a provider", name)
			}
			if err := w.Delete(ctx, by, "tracker"); err == nil || fault.Is(err, "provider_in_use") {
				t.Errorf("%s: delete got %v", name, err)
			}
		}
		if _, err := w.Put(ctx, key(w.env, "", account.ScopeProvidersWrite), trackerInput(t), account.Agreement{}); err != nil {
			t.Errorf("key with the scope: %v", err)
		}
		// T1: an environment knows nothing of another one's.
		other, err := w.account.CreateEnvironment(ctx, account.System("test"), "other", account.Agreement{})
		check(t, err)
		if _, err := w.Get(ctx, other.ID, "tracker"); !fault.Is(err, "not_found") {
			t.Errorf("from another environment: got %v", err)
		}
		if list, err := w.List(ctx, other.ID); err != nil || len(list) != 0 {
			t.Errorf("from another environment: %+v, %v", list, err)
		}
		elsewhere := account.System("test").In(other.ID)
		in := trackerInput(t)
		in.ClientSecret = secret.FromString("other secret")
		_, err = w.Put(ctx, elsewhere, in, account.Agreement{})
		check(t, err)
		// K1: the sealed secret of one environment does not open in another.
		err = w.db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
			_, err := tx.ExecContext(ctx, `update provider set client_secret = (select client_secret from provider where environment_id = $1) where environment_id = $2`, w.env, other.ID)
			return err
		})
		check(t, err)
		if c, err := w.Client(ctx, other.ID, "tracker", tracker(t).Pinned()); err == nil || !c.Secret.IsZero() {
			t.Errorf("a swapped secret opened: %v", err)
		}
		check(t, w.Delete(ctx, elsewhere, "tracker"))
		if _, err := w.Get(ctx, w.env, "tracker"); err != nil {
			t.Errorf("removed elsewhere, gone here: %v", err)
		}
	})
}

// U6: no tool can be named like a tool of another provider, not even of one that
// is gone.
func TestToolNamesAreOnes(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		record := func(slug, name string) provider.Input {
			return provider.Input{YAML: []byte(strings.Replace(minimal, "id: demo", "id: "+slug, 1) + "tools:\n  - {name: " + name +
				", title: T, description: D., effect: read, request: {method: GET, path: /x}}\n")}
		}
		_, err := w.put(t, record("acme", "crm_get"))
		check(t, err)
		if _, err := w.put(t, record("acme_crm", "GET")); !fault.Is(err, "tool_name_taken") {
			t.Errorf("got %v", err)
		}
		_, err = w.put(t, record("acme_crm", "list"))
		check(t, err)
		check(t, w.Delete(ctx, w.by(), "acme"))
		if _, err := w.put(t, record("acme_crm", "get")); !fault.Is(err, "tool_name_taken") {
			t.Errorf("of a removed provider: got %v", err)
		}
		if _, err := w.put(t, record("acme", "crm_get")); err != nil {
			t.Errorf("its own again: %v", err)
		}
	})
}

func TestTemplates(t *testing.T) {
	t.Parallel()
	s, err := provider.New(provider.Config{})
	check(t, err)
	var names []string
	for _, tpl := range s.Templates() {
		names = append(names, tpl.ID)
		for _, p := range tpl.Params {
			if p.Title == "" || p.Kind == "" {
				t.Errorf("%s: parameter %s is not described", tpl.ID, p.Name)
			}
		}
	}
	if d := cmp.Diff([]string{"custom_api_key", "custom_oauth"}, names); d != "" {
		t.Error(d)
	}
	oauth, err := s.Template("custom_oauth")
	check(t, err)
	r, err := oauth.Record(map[string]string{
		"id": "acme", "name": "Acme: \"quoted\" # {{id}}", "authorize_url": "https://acme.example/a", "token_url": "https://acme.example/t", "scopes": "read write, admin",
		"identity_url": "https://acme.example/me", "api_base": "https://api.acme.example", "access": "POST /keys\n* /admin/**", "rotates": "true", "destructive": "false",
	})
	check(t, err)
	if r.Name != `Acme: "quoted" # {{id}}` || !r.OAuth.Refresh.Rotates || r.OAuth.RevokeURL != "" || r.Website != "" || r.Generic.Destructive || !r.Generic.Write {
		t.Errorf("got %+v %+v", r, r.OAuth)
	}
	if d := cmp.Diff([]string{"read", "write", "admin"}, r.OAuth.Scopes.Base); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"POST /keys", "* /admin/**"}, r.Access); d != "" {
		t.Error(d)
	}
	if again := parse(t, string(r.Source())); again.Digest() != r.Digest() {
		t.Error("the source is another record")
	}
	key, err := s.Template("custom_api_key")
	check(t, err)
	r, err = key.Record(map[string]string{"id": "acme", "name": "Acme", "api_base": "https://api.acme.example", "header": "", "query": "key", "format": "{api_key}"})
	check(t, err)
	if r.Injection.Query != "key" || r.Injection.Header != "" || r.Identity != nil || len(r.Tools()) != 3 {
		t.Errorf("got %+v", r)
	}
	for code, params := range map[string]map[string]string{
		"template_param_missing": {"name": "Acme", "api_base": "https://api.acme.example"},
		"template_param_unknown": {"id": "acme", "tools": "x"},
		"template_param_invalid": {"id": "acme", "name": "Acme", "api_base": "https://api.acme.example", "read": "yes"},
		"record_invalid":         {"id": "acme\nauth: oauth2", "name": "Acme", "api_base": "https://api.acme.example"},
	} {
		if _, err := key.Record(params); !fault.Is(err, code) {
			t.Errorf("got %v, want %s", err, code)
		}
	}
	if _, err := s.Template("nothing"); !fault.Is(err, "not_found") {
		t.Errorf("got %v", err)
	}
}
