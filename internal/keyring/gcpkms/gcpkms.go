// Package gcpkms keeps the root key in Google Cloud KMS: a symmetric key that
// never leaves the service, in software, HSM or an external manager. A seed is
// encrypted there as it is; the blob is what KMS returns, and names its version.
//
//	gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/K?impersonate=ACCOUNT
//
// impersonate is the e-mail address of a service account to act as.
//
// Each blob is bound to its context by additional authenticated data, its SHA-256.
// KMS does not log additional data, so its owner sees the calls and not whose they
// are. CRC32C sums (Castagnoli) guard both ways against a broken memory or wire.
//
// Credentials are the server's own: the file of GOOGLE_APPLICATION_CREDENTIALS (a
// service account, or the federation of another identity), or the instance. See
// docs/keys.md for the rights.
package gcpkms

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"regexp"
	"strings"

	kms "cloud.google.com/go/kms/apiv1"
	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/api/option"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/secret"
)

const (
	scheme = "gcpkms"
	form   = "gcpkms://projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY?impersonate=SERVICE_ACCOUNT"
	// maxBlob is more than KMS makes of a seed, in bytes.
	maxBlob = 4096
)

var (
	keyForm = regexp.MustCompile(`^projects/([a-z0-9.-]{1,64}:)?[a-z0-9-]{1,64}/locations/[a-z0-9-]{1,64}/keyRings/[A-Za-z0-9_-]{1,63}/cryptoKeys/[A-Za-z0-9_-]{1,63}$`)
	account = regexp.MustCompile(`^[a-z0-9-]{1,64}@[a-z0-9.-]{1,128}\.gserviceaccount\.com$`)
)

// keeper is a key of Cloud KMS. It is safe for concurrent use.
type keeper struct {
	client *kms.KeyManagementClient
	name   string
	desc   keyring.Description
}

// Open reads the URI and prepares to ask; it asks nobody.
func Open(ctx context.Context, uri string, o keyring.Options) (keyring.Keeper, error) {
	u, params, err := keyring.ParseURI(uri, scheme, form, "impersonate")
	if err != nil {
		return nil, err
	}
	name := u.Host + u.Path
	if !keyForm.MatchString(name) {
		return nil, keyring.BadURI(scheme, "it names no key (without its version)", form)
	}
	if params["impersonate"] != "" && !account.MatchString(params["impersonate"]) {
		return nil, keyring.BadURI(scheme, "impersonate is not the e-mail address of a service account", form)
	}
	if o.HTTP == nil {
		return nil, keyring.Failure(keyring.CodeUnavailable, errors.New("no way out to Google Cloud"))
	}
	endpoint, err := o.Endpoint("CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDKMS")
	if err != nil {
		return nil, err
	}
	way, err := authorized(o, params["impersonate"])
	if err != nil {
		return nil, err
	}
	// The SDK's own logger can be told by the environment to write down what is
	// sent, plaintexts among it.
	options := []option.ClientOption{option.WithHTTPClient(way.HTTP), option.WithLogger(slog.New(slog.DiscardHandler))}
	if endpoint != "" {
		options = append(options, option.WithEndpoint(endpoint))
	}
	client, err := kms.NewKeyManagementRESTClient(context.WithoutCancel(ctx), options...)
	if err != nil {
		return nil, keyring.Failure(keyring.CodeUnavailable, fmt.Errorf("the client of Cloud KMS cannot be made (%T)", err))
	}
	// The SDK would try for a minute; the Guard decides about that.
	client.CallOptions.Encrypt, client.CallOptions.Decrypt = nil, nil
	return &keeper{client: client, name: name, desc: keyring.Description{Ref: keyring.Ref(scheme, name), Location: "Google Cloud KMS " + name}}, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sum(b []byte) int64 { return int64(crc32.Checksum(b, castagnoli)) }

func wrapped(b []byte) *wrapperspb.Int64Value { return wrapperspb.Int64(sum(b)) }

// errSum is a message that changed on its way.
var errSum = errors.New("a checksum does not fit what came with it")

// Wrap encrypts a seed under the primary version.
func (k *keeper) Wrap(ctx context.Context, seed secret.Value, c keyring.Context) ([]byte, error) {
	if err := crypt.CheckSeed(seed); err != nil {
		return nil, err
	}
	aad := c.Digest()
	out, err := k.client.Encrypt(ctx, &kmspb.EncryptRequest{
		Name: k.name, Plaintext: seed.Reveal(), PlaintextCrc32C: wrapped(seed.Reveal()),
		AdditionalAuthenticatedData: aad, AdditionalAuthenticatedDataCrc32C: wrapped(aad),
	})
	switch {
	case err != nil:
		return nil, classify(ctx, "encrypt", err)
	case !out.GetVerifiedPlaintextCrc32C() || !out.GetVerifiedAdditionalAuthenticatedDataCrc32C(),
		out.GetCiphertextCrc32C() == nil || out.GetCiphertextCrc32C().GetValue() != sum(out.GetCiphertext()):
		return nil, keyring.Failure(keyring.CodeUnavailable, errSum)
	case !strings.HasPrefix(out.GetName(), k.name+"/cryptoKeyVersions/"):
		return nil, keyring.Failure(keyring.CodeUnavailable, errors.New("an answer of another key"))
	case len(out.GetCiphertext()) == 0 || len(out.GetCiphertext()) > maxBlob:
		return nil, keyring.Failure(keyring.CodeUnavailable, fmt.Errorf("a ciphertext of %d bytes", len(out.GetCiphertext())))
	}
	return out.GetCiphertext(), nil
}

// Unwrap is the inverse, with whatever version the blob was made.
func (k *keeper) Unwrap(ctx context.Context, blob []byte, c keyring.Context) (secret.Value, error) {
	if len(blob) == 0 || len(blob) > maxBlob {
		return secret.Value{}, crypt.ErrIntegrity
	}
	aad := c.Digest()
	out, err := k.client.Decrypt(ctx, &kmspb.DecryptRequest{
		Name: k.name, Ciphertext: blob, CiphertextCrc32C: wrapped(blob),
		AdditionalAuthenticatedData: aad, AdditionalAuthenticatedDataCrc32C: wrapped(aad),
	})
	if err != nil {
		return secret.Value{}, classify(ctx, "decrypt", err)
	}
	defer clear(out.GetPlaintext())
	switch {
	case out.GetPlaintextCrc32C() == nil || out.GetPlaintextCrc32C().GetValue() != sum(out.GetPlaintext()):
		return secret.Value{}, keyring.Failure(keyring.CodeUnavailable, errSum)
	case len(out.GetPlaintext()) != crypt.SeedLen:
		return secret.Value{}, keyring.Failure(keyring.CodeUnavailable, fmt.Errorf("a seed of %d bytes", len(out.GetPlaintext())))
	}
	return secret.New(out.GetPlaintext()), nil
}

// Describe names the key.
func (k *keeper) Describe() keyring.Description { return k.desc }
