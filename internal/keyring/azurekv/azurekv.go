// Package azurekv keeps the root key in Azure: an RSA key of Key Vault, or an AES
// or RSA key of Managed HSM. It never leaves the service.
//
//	azurekv://NAME.vault.azure.net/keys/KEY?tenant=…&client_id=…
//	azurekv://NAME.managedhsm.azure.net/keys/KEY?algorithm=…
//
// Key Vault wraps with RSA-OAEP-256, Managed HSM with A256KW unless the algorithm
// RSA-OAEP-256 is asked for. tenant and client_id say as whom to ask, where it is
// not the server's own tenant or identity.
//
// Neither algorithm takes additional data, so the service wraps no seed. Each seed
// gets a one-time key of 32 random bytes; the service wraps that, and it seals the
// seed here by AES-256-GCM, with the context, and all that stands before it in the
// blob, as additional data. To open a seed the service must unwrap its one-time
// key, and the seed opens only in its context:
//
//	format(1) algorithm(1) key-version(16) length(2) wrapped-one-time-key nonce(12) seed(32) tag(16)
//
// Whoever knows the public half of an RSA key can wrap. So that nobody who can
// write to the database makes seeds of their own, the seal of an RSA blob also
// needs what only the private half gives: its RS256 signature (RFC 8017,
// deterministic) of a fixed text that holds the key's name and version. It is
// never stored, and kept in memory like a key. AES keys need no such thing.
//
// Credentials are the server's own: a client secret, a federated token, or the
// machine's identity. See docs/keys.md for the rights.
package azurekv

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/secret"
)

const (
	scheme = "azurekv"
	form   = "azurekv://NAME.vault.azure.net/keys/KEY?tenant=TENANT&client_id=ID&algorithm=RSA-OAEP-256"
)

var (
	keyForm    = regexp.MustCompile(`^/keys/[A-Za-z0-9-]{1,127}$`)
	vaultForm  = regexp.MustCompile(`^[a-z][a-z0-9-]{1,22}[a-z0-9]$`)
	tenantForm = regexp.MustCompile(`^[A-Za-z0-9.-]{1,128}$`)
	clientForm = regexp.MustCompile(`^[0-9A-Fa-f-]{36}$`)
)

// keeper is a key of one vault. It is safe for concurrent use.
type keeper struct {
	client    *azkeys.Client
	name      string // of the key
	id        string // with its vault, without a version
	algorithm algorithm
	desc      keyring.Description

	mu    sync.Mutex
	marks map[version]secret.Value
}

// maxMarks bounds how many versions' signatures are held.
const maxMarks = 64

// Open reads the URI and prepares to ask; it asks nobody.
func Open(_ context.Context, uri string, o keyring.Options) (keyring.Keeper, error) {
	u, params, err := keyring.ParseURI(uri, scheme, form, "tenant", "client_id", "algorithm")
	if err != nil {
		return nil, err
	}
	bad := func(problem string) error { return keyring.BadURI(scheme, problem, form) }
	vault, suffix, _ := strings.Cut(u.Host, ".")
	home, known := clouds[suffix]
	switch {
	// The host is given a token of ours, so it must be one of the service's.
	case !known || !vaultForm.MatchString(vault):
		return nil, bad("its host is no vault")
	case !keyForm.MatchString(u.EscapedPath()):
		return nil, bad("it names no key (without its version)")
	case params["tenant"] != "" && !tenantForm.MatchString(params["tenant"]):
		return nil, bad("tenant is not an id or a domain")
	case params["client_id"] != "" && !clientForm.MatchString(params["client_id"]):
		return nil, bad("client_id is not an id")
	}
	k := &keeper{name: strings.TrimPrefix(u.Path, "/keys/"), id: "https://" + u.Host + u.Path, algorithm: rsaOAEP256, marks: map[version]secret.Value{}}
	if home.hsm {
		k.algorithm = a256KW
	}
	switch params["algorithm"] {
	case "":
	case "RSA-OAEP-256":
		k.algorithm = rsaOAEP256
	default:
		return nil, bad("its algorithm is not RSA-OAEP-256")
	}
	if o.HTTP == nil {
		return nil, keyring.Failure(keyring.CodeUnavailable, errors.New("no way out to Azure"))
	}
	options := clientOptions(o, home)
	creds, err := credential(o, options, params["tenant"], params["client_id"])
	if err != nil {
		return nil, err
	}
	if k.client, err = azkeys.NewClient("https://"+u.Host, creds, &azkeys.ClientOptions{ClientOptions: options}); err != nil {
		return nil, keyring.Failure(keyring.CodeUnavailable, fmt.Errorf("the client of Key Vault cannot be made (%T)", err))
	}
	k.desc = keyring.Description{Ref: keyring.Ref(scheme, k.id), Location: "Azure " + u.Host + u.Path}
	return k, nil
}

// retries are few: a connection that died asks for a second try, and the Guard
// decides about any more. Throttling is not tried again here.
var retries = policy.RetryOptions{MaxRetries: 1, RetryDelay: 50 * time.Millisecond, MaxRetryDelay: 250 * time.Millisecond, StatusCodes: []int{500, 502, 503, 504}}

// Wrap seals a seed under a one-time key, which the newest version wraps.
func (k *keeper) Wrap(ctx context.Context, seed secret.Value, c keyring.Context) ([]byte, error) {
	if err := crypt.CheckSeed(seed); err != nil {
		return nil, err
	}
	once := crypt.NewSeed()
	name := azkeys.EncryptionAlgorithm(k.algorithm.String())
	out, err := k.client.WrapKey(ctx, k.name, "", azkeys.KeyOperationParameters{Algorithm: &name, Value: once.Reveal()}, nil)
	if err != nil {
		return nil, classify(ctx, "wrapkey", err)
	}
	v, err := k.answered(out.KID)
	if err != nil {
		return nil, err
	}
	head := header{algorithm: k.algorithm, version: v, wrapped: out.Result}
	if err := head.check(); err != nil {
		return nil, keyring.Failure(keyring.CodeUnavailable, err)
	}
	key, err := k.sealing(ctx, head, once)
	if err != nil {
		return nil, err
	}
	front := head.bytes()
	sealed, err := crypt.WrapKey(key, seed, additional(front, c))
	return append(front, sealed...), err
}

// Unwrap is the inverse, with the version that the blob names.
func (k *keeper) Unwrap(ctx context.Context, blob []byte, c keyring.Context) (secret.Value, error) {
	head, sealed, err := parseHeader(blob)
	if err != nil || head.algorithm != k.algorithm {
		return secret.Value{}, crypt.ErrIntegrity
	}
	name := azkeys.EncryptionAlgorithm(head.algorithm.String())
	out, err := k.client.UnwrapKey(ctx, k.name, head.version.String(), azkeys.KeyOperationParameters{Algorithm: &name, Value: head.wrapped}, nil)
	if err != nil {
		return secret.Value{}, k.unopened(ctx, err)
	}
	defer clear(out.Result)
	switch v, err := k.answered(out.KID); {
	case err != nil:
		return secret.Value{}, err
	case v != head.version:
		return secret.Value{}, keyring.Failure(keyring.CodeUnavailable, errors.New("an answer of another version"))
	case len(out.Result) != crypt.SeedLen:
		return secret.Value{}, crypt.ErrIntegrity // somebody else wrapped it
	}
	key, err := k.sealing(ctx, head, secret.New(out.Result))
	if err != nil {
		return secret.Value{}, err
	}
	return crypt.UnwrapKey(key, sealed, additional(blob[:len(blob)-len(sealed)], c))
}

func additional(front []byte, c keyring.Context) []byte {
	return crypt.Fields("ambit azurekv 1", string(front), string(c.Digest()))
}

// sealing is the key that seals the seed.
func (k *keeper) sealing(ctx context.Context, head header, once secret.Value) (secret.Value, error) {
	material := once.Reveal()
	if head.algorithm == rsaOAEP256 {
		mark, err := k.mark(ctx, head.version)
		if err != nil {
			return secret.Value{}, err
		}
		material = crypt.Fields(string(material), string(mark.Reveal()))
		defer clear(material)
	}
	key, err := hkdf.Key(sha256.New, material, nil, "ambit azurekv seal 1", crypt.SeedLen)
	if err != nil {
		return secret.Value{}, fmt.Errorf("deriving a key: %w", err)
	}
	defer clear(key)
	return secret.New(key), nil
}

// mark is what only the private half of an RSA key can make.
func (k *keeper) mark(ctx context.Context, v version) (secret.Value, error) {
	k.mu.Lock()
	mark, ok := k.marks[v]
	k.mu.Unlock()
	if ok {
		return mark, nil
	}
	digest := sha256.Sum256(crypt.Fields("ambit azurekv mark 1", k.id, v.String()))
	name := azkeys.SignatureAlgorithmRS256
	out, err := k.client.Sign(ctx, k.name, v.String(), azkeys.SignParameters{Algorithm: &name, Value: digest[:]}, nil)
	if err != nil {
		return secret.Value{}, classify(ctx, "sign", err)
	}
	defer clear(out.Result)
	if len(out.Result) < 256 {
		return secret.Value{}, keyring.Failure(keyring.CodeUnavailable, fmt.Errorf("a signature of %d bytes", len(out.Result)))
	}
	mark = secret.New(out.Result)
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.marks) >= maxMarks {
		clear(k.marks)
	}
	k.marks[v] = mark
	return mark, nil
}

// answered reads which version answered, and that it is one of this key.
func (k *keeper) answered(kid *azkeys.ID) (v version, err error) {
	if kid == nil || !strings.EqualFold(strings.TrimSuffix(string(*kid), "/"+kid.Version()), k.id) {
		return v, keyring.Failure(keyring.CodeUnavailable, errors.New("an answer of another key"))
	}
	n, err := hex.Decode(v[:], []byte(kid.Version()))
	if err != nil || n != len(v) {
		return v, keyring.Failure(keyring.CodeUnavailable, errors.New("an answer of no version"))
	}
	return v, nil
}

// unopened says why a one-time key does not unwrap. A version that is not there
// may be a blob that was changed, or a key that was deleted: then the key itself
// is not there either.
func (k *keeper) unopened(ctx context.Context, err error) error {
	if status(err) == 404 {
		if _, missing := k.client.GetKey(ctx, k.name, "", nil); missing == nil {
			return crypt.ErrIntegrity
		} else if status(missing) != 404 {
			return classify(ctx, "get", missing)
		}
	}
	return classify(ctx, "unwrapkey", err)
}

// Describe names the key.
func (k *keeper) Describe() keyring.Description { return k.desc }
