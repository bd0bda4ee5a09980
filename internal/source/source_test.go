package source_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest/awstest"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/source"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) { keyringtest.RemoveTransit(); os.Exit(code) }))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const org = "org_01jz0000000000000000000000"

// opened gives the sources of a file, asked as a server asks them.
func opened(t *testing.T, file string, allow ...string) (*source.Sources, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sources.yaml")
	must(t, os.WriteFile(path, []byte(file), 0o600))
	out, err := outbound.New(outbound.Policy{Allow: allow})
	must(t, err)
	t.Cleanup(out.Close)
	lib := out.Library(outbound.Library{Party: "source"})
	return source.Open(t.Context(), path, source.Options{Vault: lib, AWS: lib})
}

func vaultFile(addr, organization, tokenFile string) string {
	return "sources:\n- {name: corp, organization: " + organization + ", kind: vault, address: 'http://" + addr + "', namespace: team, mount: secret, kv: 2, prefix: ambit, token_file: '" + tokenFile + "'}\n" +
		"- {name: old, organization: " + organization + ", kind: vault, address: 'http://" + addr + "', mount: kv, kv: 1, token_file: '" + tokenFile + "'}\n"
}

// Issue 8: a secret stays in a Vault, whose own engine answers here, and is read for the
// organization that the operator named, below the prefix, with errors in classes that hold
// nothing of what the Vault says.
func TestVaultIsReadThrough(t *testing.T) {
	t.Parallel()
	v := keyringtest.NewTransit(t)
	put := func(path string, fields map[string]any) {
		v.Do("POST", "/ns/team/v1/secret/data/"+path, map[string]any{"data": fields})
	}
	put("ambit/openai", map[string]any{"api_key": "canary-key-1", "n": 5})
	put("ambit/one", map[string]any{"value": "canary-value", "other": "x"})
	put("outside", map[string]any{"value": "canary-outside"})
	v.Do("POST", "/v1/kv/plain", map[string]any{"token": "canary-v1"})
	token := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(token, []byte("admin\n"), 0o600))
	s, err := opened(t, vaultFile(v.Addr, org, token), v.Addr)
	must(t, err)
	for ref, want := range map[string]string{
		"corp/openai#api_key": "canary-key-1", "corp/openai": "canary-key-1", "corp/one": "canary-value", "corp/one#other": "x", "old/plain": "canary-v1", "old/plain#token": "canary-v1",
		"corp/openai#nothing": "source_missing", "corp/nowhere": "source_missing", "corp/../outside": "source_path_invalid", "corp/./openai": "source_path_invalid", "corp/a//b": "source_path_invalid",
		"corp/%2e%2e/outside": "source_path_invalid", "corp/one?version=1": "source_path_invalid", "corp/": "source_path_invalid", "corp": "source_path_invalid", "other/openai": "source_unknown", "": "source_unknown",
	} {
		got, err := s.Read(t.Context(), org, ref)
		if err != nil && !fault.Is(err, want) || err == nil && string(got.Reveal()) != want {
			t.Errorf("%s: %v", ref, err)
		}
		if err != nil && strings.Contains(fmt.Sprintf("%+v", err), "canary") {
			t.Errorf("%s: the error holds a value", ref)
		}
	}
	if _, err := s.Read(t.Context(), "org_01jz0000000000000000000001", "corp/openai"); !fault.Is(err, "source_unknown") {
		t.Errorf("another organization: %v", err)
	}
	var none *source.Sources
	if _, err := none.Read(t.Context(), org, "corp/openai"); !fault.Is(err, "source_unknown") {
		t.Errorf("without sources: %v", err)
	}
	put("ambit/openai", map[string]any{"api_key": "canary-key-2"})
	if got, err := s.Read(t.Context(), org, "corp/openai"); err != nil || string(got.Reveal()) != "canary-key-2" {
		t.Errorf("a newer one: %v", err)
	}
	v.Token("weak", map[string][]string{}, 0, false)
	must(t, os.WriteFile(token, []byte("weak"), 0o600)) // as an agent of Vault's renews it
	if _, err := s.Read(t.Context(), org, "corp/openai"); !fault.Is(err, "source_denied") {
		t.Errorf("a token without rights: %v", err)
	}
	for _, mode := range []string{"sealed", "throttle", "broken", "html", "redirect"} {
		v.Be(mode)
		if _, err := s.Read(t.Context(), org, "corp/openai"); !fault.Is(err, "source_unavailable") {
			t.Errorf("%s: %v", mode, err)
		}
	}
	must(t, os.Remove(token))
	if _, err := s.Read(t.Context(), org, "corp/openai"); !fault.Is(err, "source_denied") {
		t.Errorf("without a token: %v", err)
	}
	// threats.md S1: an address of this machine is asked only where the operator lists it.
	must(t, os.WriteFile(token, []byte("admin"), 0o600))
	v.Be("")
	closed, err := opened(t, vaultFile(v.Addr, org, token))
	must(t, err)
	n := v.Seen("calls")
	if _, err := closed.Read(t.Context(), org, "corp/openai"); !fault.Is(err, "source_unavailable") || v.Seen("calls") != n {
		t.Errorf("an address that is not listed: %v", err)
	}
}

// The same of AWS Secrets Manager, through Amazon's SDK, whose signatures the fake checks.
func TestAWSIsReadThrough(t *testing.T) {
	s := awstest.New(t)
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": awstest.AccessKey, "AWS_SECRET_ACCESS_KEY": awstest.SecretKey, "AWS_ENDPOINT_URL_SECRETS_MANAGER": s.URL,
		"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_EC2_METADATA_DISABLED": "true", "AWS_CA_BUNDLE": ""} {
		t.Setenv(name, value)
	}
	current := func(text string) []awstest.StoredVersion {
		return []awstest.StoredVersion{{ID: "x", Text: text, Stages: []string{"AWSCURRENT"}, Created: time.Now()}}
	}
	s.Store(awstest.StoredSecret{Name: "prod/db", Versions: current(`{"user":"u","password":"canary-pw"}`)}, awstest.StoredSecret{Name: "prod/key", Versions: current("canary-key")},
		awstest.StoredSecret{Name: "test/key", Versions: current("canary-test")}, awstest.StoredSecret{Name: "prod/file", Versions: []awstest.StoredVersion{{ID: "x", Bytes: []byte("canary\xff"), Stages: []string{"AWSCURRENT"}}}})
	out, err := outbound.New(outbound.Policy{Allow: []string{s.Addr}, Roots: s.Roots})
	must(t, err)
	t.Cleanup(out.Close)
	file := filepath.Join(t.TempDir(), "sources.yaml")
	must(t, os.WriteFile(file, []byte("sources: [{name: aws, organization: "+org+", kind: aws, region: "+awstest.Region+", prefix: prod/}]"), 0o600))
	src, err := source.Open(t.Context(), file, source.Options{AWS: out.Library(outbound.Library{Party: "source"})})
	must(t, err)
	for ref, want := range map[string]string{"aws/db#password": "canary-pw", "aws/key": "canary-key", "aws/db#nothing": "source_missing", "aws/key#field": "source_missing", "aws/file": "source_missing", "aws/gone": "source_missing", "aws/../test/key": "source_path_invalid"} {
		got, err := src.Read(t.Context(), org, ref)
		if err != nil && !fault.Is(err, want) || err == nil && string(got.Reveal()) != want {
			t.Errorf("%s: %v", ref, err)
		}
	}
	s.Forget(awstest.AccessKey)
	if _, err := src.Read(t.Context(), org, "aws/key"); !fault.Is(err, "source_denied") {
		t.Errorf("without rights: %v", err)
	}
}

// A file that says what it must not is refused as a whole, at the start.
func TestSourcesFile(t *testing.T) {
	t.Parallel()
	good := "{name: a, organization: " + org + ", kind: vault, address: 'https://v.example', mount: secret, kv: 2, token_file: /t}"
	if _, err := opened(t, "sources: ["+good+"]"); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		"sources: [" + good + ", " + good + "]", "sources: {}", "nothing: 1", strings.Replace(good, "name: a", "name: A", 1), "sources: [{}]",
		"sources: [" + strings.Replace(good, "https://v.example", "http://v.example", 1) + "]", "sources: [" + strings.Replace(good, "https://v.example", "https://v.example/v1", 1) + "]",
		"sources: [" + strings.Replace(good, "https://v.example", "https://u:p@v.example", 1) + "]", "sources: [" + strings.Replace(good, org, "''", 1) + "]", "sources: [" + strings.Replace(good, "kv: 2", "kv: 3", 1) + "]",
		"sources: [" + strings.Replace(good, "mount: secret", "mount: ../sys", 1) + "]", "sources: [" + strings.Replace(good, "token_file: /t", "token: s.abc", 1) + "]", "sources: [" + strings.Replace(good, "kind: vault", "kind: file", 1) + "]",
	} {
		if _, err := opened(t, bad); !fault.Is(err, "sources_invalid") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// Issue 8: a connection whose key stays in a Vault is used like any other: the key is read
// for each call, what changed or was taken back there counts for the next one, and nothing of
// it is in our database, in answers or in the audit. A place that a person gives as a key
// is a key. Rule 1, rule 9; threats.md U1.
func TestACallReadsThrough(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := gatewaytest.New(t, db)
		v := keyringtest.NewTransit(t)
		put := func(key string) {
			v.Do("POST", "/ns/team/v1/secret/data/ambit/sandbox", map[string]any{"data": map[string]any{"api_key": key}})
		}
		put(gatewaytest.SandboxKey)
		token := filepath.Join(t.TempDir(), "token")
		must(t, os.WriteFile(token, []byte("admin"), 0o600))
		var err error
		w.Sources, err = opened(t, vaultFile(v.Addr, string(w.Organization), token), v.Addr)
		must(t, err)
		w.Node(t)
		w.OnUserLeft, w.OnAgentEnded = w.Sessions.OnUserLeft, w.Sessions.OnAgentEnded
		w.KeyProvider(t, "acme")
		prov, err := w.Providers.Get(t.Context(), w.Environment, "acme")
		must(t, err)
		key := account.System("test").In(w.Environment)
		at := "corp/sandbox#api_key"
		value, err := w.Credentials.ReadElsewhere(t.Context(), key, w.Organization, prov.Record, provider.FieldAPIKey, at)
		must(t, err)
		start := credential.Start{Environment: w.Environment, Organization: w.Organization, Provider: "acme", OrganizationOwned: true, Elsewhere: map[string]string{provider.FieldAPIKey: at}}
		_, err = w.Credentials.AddKey(t.Context(), key, start, id.User(""), map[string]secret.Value{provider.FieldAPIKey: value}, account.Agreement{})
		must(t, err)
		ada := w.Person(t, "ada@example.com", account.RoleApprover)
		who := w.Agent(t, ada, "worker")
		handle := w.Active(t, ada, who, "acme", policy.Read)
		call := func() error {
			res, err := w.Call(t, who, handle, "acme_list_issues", nil)
			if err == nil && strings.Contains(string(res.Answer.Body), gatewaytest.SandboxKey) {
				t.Error("the answer holds the key")
			}
			return err
		}
		before := v.Seen("calls")
		must(t, call())
		must(t, call())
		if n := v.Seen("calls") - before; n != 0 && n != 2 { // admin is the test's own token, which is not counted
			t.Errorf("the Vault was asked %d times", n)
		}
		v.Do("POST", "/ns/team/v1/secret/delete/ambit/sandbox", map[string]any{"versions": []int{1}})
		if err := call(); !fault.Is(err, "source_missing") {
			t.Errorf("after it was taken back: %v", err)
		}
		put("short")
		if err := call(); !fault.Is(err, "source_unusable") {
			t.Errorf("what could not be kept out of answers: %v", err)
		}
		must(t, os.WriteFile(token, []byte("nobody"), 0o600))
		if err := call(); !fault.Is(err, "source_denied") {
			t.Errorf("without rights: %v", err)
		}
		must(t, os.WriteFile(token, []byte("admin"), 0o600))
		put(gatewaytest.SandboxKey)
		must(t, call())
		if actions := w.Actions(t); !slices.Contains(actions, "source.read") {
			t.Errorf("audit: %v", actions)
		}
		// Only a mark that nobody can give makes a place of a text.
		start.Elsewhere = nil
		_, err = w.Credentials.AddKey(t.Context(), key, start, id.User(""), map[string]secret.Value{provider.FieldAPIKey: secret.FromString(at)}, account.Agreement{})
		if !fault.Is(err, "credential_rejected") {
			t.Errorf("a place given as a key: %v", err)
		}
		_, err = w.Credentials.AddKey(t.Context(), key, start, id.User(""), map[string]secret.Value{"~api_key": secret.FromString(at)}, account.Agreement{})
		if err == nil {
			t.Error("a mark was given as a part")
		}
	})
}
