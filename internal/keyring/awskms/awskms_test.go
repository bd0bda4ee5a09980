package awskms_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/awskms"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest/awstest"
	"github.com/ambit-dev/ambit/internal/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, s *awstest.Server, uri string) keyring.Keeper {
	t.Helper()
	k, err := awskms.Open(t.Context(), uri, s.Options(t))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Issue 4, keepers: the official SDK against a service that verifies signatures.
func TestContract(t *testing.T) {
	t.Parallel()
	keyringtest.Contract(t, func(t *testing.T) *keyringtest.Bench {
		s := awstest.New(t)
		key, other := s.Key(), s.Key()
		return &keyringtest.Bench{
			Keeper: open(t, s, "awskms:///"+key.ARN), Other: open(t, s, "awskms:///"+other.ARN),
			Again:  func(t testing.TB) keyring.Keeper { return open(t, s, "awskms:///"+key.ARN+"?region="+awstest.Region) },
			Rotate: key.Rotate, Disable: func() { key.Be("Disabled") }, Enable: func() { key.Be("Enabled") },
			Throttle: s.Throttle, Silence: s.Silence, Break: s.Break, Garble: s.Garble, Restore: s.Restore,
			Secrets: []secret.Value{secret.FromString(awstest.SecretKey), secret.FromString(awstest.RoleToken)},
		}
	})
}

var seedFor = keyring.Context{AAD: []byte("place"), Purpose: "kek", Environment: "env_1", Organization: "org_1"}

// K4: each way in which a key or our right to it goes is a refusal; nothing else is.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		do   func(*awstest.Server, *awstest.Key)
		want keyring.Class
	}{
		{"disabled", func(_ *awstest.Server, k *awstest.Key) { k.Be("Disabled") }, keyring.Denied},
		{"pending deletion", func(_ *awstest.Server, k *awstest.Key) { k.Be("PendingDeletion") }, keyring.Denied},
		{"policy", func(_ *awstest.Server, k *awstest.Key) { k.Be("Denied") }, keyring.Denied},
		{"condition", func(_ *awstest.Server, k *awstest.Key) { k.Allow(map[string]string{"organization": "org_2"}) }, keyring.Denied},
		{"access key deleted", func(s *awstest.Server, _ *awstest.Key) { s.Forget(awstest.AccessKey) }, keyring.Denied},
		{"fine condition", func(_ *awstest.Server, k *awstest.Key) { k.Allow(map[string]string{"organization": "org_1"}) }, keyring.Fine},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := awstest.New(t)
			key := s.Key()
			k := open(t, s, "awskms:///"+key.ARN)
			blob, err := k.Wrap(t.Context(), crypt.NewSeed(), seedFor)
			if err != nil {
				t.Fatal(err)
			}
			row.do(s, key)
			if _, err := k.Unwrap(t.Context(), blob, seedFor); keyring.ClassOf(err) != row.want || row.want == keyring.Fine && err != nil {
				t.Errorf("unwrap: got %v: %v", err, errors.Unwrap(err))
			}
		})
	}
}

// The owner of the key sees whose seed is wrapped, and a blob moved to another
// organization does not open even with the same place.
func TestEncryptionContext(t *testing.T) {
	t.Parallel()
	s := awstest.New(t)
	key := s.Key("alias/ambit")
	k := open(t, s, "awskms:///alias/ambit?region="+awstest.Region)
	blob, err := k.Wrap(t.Context(), crypt.NewSeed(), seedFor)
	if err != nil {
		t.Fatal(err)
	}
	got := key.Contexts()
	if len(got) != 1 || got[0]["organization"] != "org_1" || got[0]["environment"] != "env_1" || got[0]["purpose"] != "kek" || len(got[0]["place"]) != 44 {
		t.Errorf("the log shows %v", got)
	}
	for _, c := range []keyring.Context{{AAD: seedFor.AAD}, {AAD: seedFor.AAD, Purpose: "kek", Environment: "env_1", Organization: "org_2"}} {
		if _, err := k.Unwrap(t.Context(), blob, c); !errors.Is(err, crypt.ErrIntegrity) {
			t.Errorf("for %+v: got %v", c, err)
		}
	}
}

// A role is assumed with its external id, and refused without: what a customer's
// trust policy asks for against the confused deputy.
func TestRole(t *testing.T) {
	t.Parallel()
	const role = "arn:aws:iam::444455556666:role/ambit"
	s := awstest.New(t)
	key := s.Key()
	s.Role(role, "org_1")
	k := open(t, s, "awskms:///"+key.ARN+"?role="+role+"&external_id=org_1")
	blob, err := k.Wrap(t.Context(), crypt.NewSeed(), seedFor)
	if err != nil {
		t.Fatal(err, errors.Unwrap(err))
	}
	s.Forget(awstest.AccessKey) // the session of the role lives on
	if _, err := k.Unwrap(t.Context(), blob, seedFor); err != nil {
		t.Error(err, errors.Unwrap(err))
	}
	s = awstest.New(t)
	key = s.Key()
	s.Role(role, "org_1")
	for _, uri := range []string{"?role=" + role, "?role=" + role + "&external_id=org_2", "?role=arn:aws:iam::444455556666:role/other&external_id=org_1"} {
		if _, err := open(t, s, "awskms:///"+key.ARN+uri).Wrap(t.Context(), crypt.NewSeed(), seedFor); keyring.ClassOf(err) != keyring.Denied {
			t.Errorf("%s: got %v: %v", uri, err, errors.Unwrap(err))
		}
	}
}

// The server's own credentials: a web identity and the agent of a container. No
// credentials at all, and an instance's when the operator did not allow them, are
// no refusal of the key.
func TestCredentials(t *testing.T) {
	t.Parallel()
	const role = "arn:aws:iam::111122223333:role/server"
	s := awstest.New(t)
	key := s.Key()
	s.Role(role, "")
	agent := keyringtest.NewService(t, s.Agent("canary-agent-token"), nil)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(awstest.WebIdentity), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name string
		env  map[string]string
		want keyring.Class
	}{
		{"web identity", map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": file, "AWS_ROLE_ARN": role}, keyring.Fine},
		{"web identity of another role", map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": file, "AWS_ROLE_ARN": role + "2"}, keyring.Denied},
		{"container", map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": agent.URL, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "canary-agent-token"}, keyring.Fine},
		{"container with another token", map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": agent.URL, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "x"}, keyring.Unavailable},
		{"container that is not allowed", map[string]string{"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/x"}, keyring.Unavailable},
		{"instance that is not allowed", nil, keyring.Unavailable},
	} {
		o := keyringtest.HTTP(t, s.Service, agent)
		o.Env = func(name string) string {
			if strings.HasPrefix(name, "AWS_ENDPOINT") {
				return s.URL
			}
			return row.env[name]
		}
		k, err := awskms.Open(t.Context(), "awskms:///"+key.ARN, o)
		if err != nil {
			t.Fatal(err)
		}
		_, err = k.Wrap(t.Context(), crypt.NewSeed(), seedFor)
		if keyring.ClassOf(err) != row.want || row.want == keyring.Fine && err != nil {
			t.Errorf("%s: got %v: %v", row.name, err, errors.Unwrap(err))
		}
		if text := fmt.Sprint(err, errors.Unwrap(err)); strings.Contains(text, "canary") {
			t.Errorf("%s: a secret was told: %s", row.name, text)
		}
	}
}

// A secret that is not the right one, as after a rotation, signs nothing, and is
// no refusal of the key.
func TestWrongSignature(t *testing.T) {
	t.Parallel()
	s := awstest.New(t)
	o := s.Options(t)
	right := o.Env
	o.Env = func(name string) string {
		if name == "AWS_SECRET_ACCESS_KEY" {
			return "canary-wrong-secret"
		}
		return right(name)
	}
	k, err := awskms.Open(t.Context(), "awskms:///"+s.Key().ARN, o)
	if err != nil {
		t.Fatal(err)
	}
	_, err = k.Wrap(t.Context(), crypt.NewSeed(), seedFor)
	if keyring.ClassOf(err) != keyring.Unavailable || !strings.Contains(errors.Unwrap(err).Error(), "InvalidSignatureException") {
		t.Errorf("got %v: %v", err, errors.Unwrap(err))
	}
}

// A URI holds no secret and no host, and says its region.
func TestURI(t *testing.T) {
	t.Parallel()
	const arn = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	s := awstest.New(t)
	for _, uri := range []string{
		"awskms://host/" + arn, "awskms:" + arn, "aws:///" + arn, "awskms:///", "awskms:///" + arn + "x/y", "awskms:///" + arn + "#f",
		"awskms://user:canary@/" + arn, "awskms:///" + arn + "?secret_access_key=canary", "awskms:///" + arn + "?region=us-east-1",
		"awskms:///" + arn + "?region=", "awskms:///" + arn + "?region=eu-central-1&region=eu-central-1", "awskms:///alias/x?region=evil.test%2f",
		"awskms:///" + arn + "?role=me", "awskms:///" + arn + "?external_id=x", "awskms:///" + arn + "?%zz", "awskms:///../" + arn,
	} {
		if _, err := awskms.Open(t.Context(), uri, s.Options(t)); !fault.Is(err, "root_key_uri_invalid") || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: got %v", uri, err)
		}
	}
	for _, endpoint := range []string{"http://kms.internal", "http://10.0.0.1", "ftp://127.0.0.1", "https://u:p@kms.internal", "nonsense"} {
		o := s.Options(t)
		o.Env = keyringtest.Settings(map[string]string{"AWS_ENDPOINT_URL_KMS": endpoint})
		if _, err := awskms.Open(t.Context(), "awskms:///"+arn, o); !fault.Is(err, "setting_invalid") {
			t.Errorf("endpoint %s: got %v", endpoint, err)
		}
	}
	if _, err := awskms.Open(t.Context(), "awskms:///"+arn, keyring.Options{}); err == nil {
		t.Error("opened without a way out")
	}
}

func BenchmarkWrapAndUnwrap(b *testing.B) {
	s := awstest.New(b)
	k := open(b, s, "awskms:///"+s.Key().ARN)
	keyringtest.Benchmark(b, k)
}

// Issue 4: a role is assumed for its owner only. With the external id of another
// customer, or none, the role that they made could be named by anybody here.
func TestExternalIDIsTheOwners(t *testing.T) {
	t.Parallel()
	const arn = "awskms:///arn:aws:kms:eu-central-1:444455556666:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	const role = "role=arn:aws:iam::444455556666:role/ambit-key"
	for uri, want := range map[string]string{
		arn: "", arn + "?" + role + "&external_id=org_a": "", arn + "?" + role + "&external_id=org_b": "root_key_external_id", arn + "?" + role: "root_key_external_id",
		arn + "?" + role + "&external_id=org_b&external_id=org_a": "root_key_uri_invalid", "awskms://host/x": "",
	} {
		if err := awskms.Admit(uri, "org_a"); err == nil && want != "" || err != nil && !fault.Is(err, want) {
			t.Errorf("%s: got %v, want %q", uri, err, want)
		}
	}
}
