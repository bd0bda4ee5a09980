// Package awskms keeps the root key in AWS KMS: a symmetric key that never leaves
// the service. A seed is encrypted there as it is; the blob is what KMS returns.
//
//	awskms:///KEY?region=…&role=…&external_id=…
//
// KEY is the ARN of the key (best), the ARN of an alias, a key id or alias/NAME;
// all but ARNs need a region, here or in AWS_REGION. An alias that is pointed at
// another key is another root key: what was wrapped before does not open. role is
// the ARN of a role to assume, with the external id that its trust policy asks
// for.
//
// Each blob is bound to its context by the encryption context of KMS, which is
// authenticated there, logged by CloudTrail, and can be made a condition of a
// policy as kms:EncryptionContext:organization and so on:
//
//	place         SHA-256 of the context, base64
//	purpose       what sort of key is wrapped
//	environment
//	organization  absent where there is none
//
// Credentials are the server's own: keys in the environment, a web identity, the
// agent of a container, the instance. See docs/keys.md for those and the policies.
package awskms

import (
	"context"
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/secret"
)

const (
	scheme = "awskms"
	form   = "awskms:///KEY_ARN?region=REGION&role=ROLE_ARN&external_id=ID"
	// maxBlob is what KMS gives at most, in bytes.
	maxBlob = 6144
	// attempts is how often one call is tried: a connection that died asks for a
	// second try, and the Guard decides about any more.
	attempts   = 2
	maxBackoff = 250 * time.Millisecond
)

var (
	arnForm   = regexp.MustCompile(`^arn:aws[a-z-]{0,16}:kms:([a-z0-9-]{5,30}):\d{12}:(key/[A-Za-z0-9-]{8,64}|alias/[A-Za-z0-9/_-]{1,256})$`)
	plainForm = regexp.MustCompile(`^([A-Za-z0-9-]{8,64}|alias/[A-Za-z0-9/_-]{1,256})$`)
	region    = regexp.MustCompile(`^[a-z]{2}(-[a-z]{2,12}){1,3}-\d{1,2}$`)
	roleForm  = regexp.MustCompile(`^arn:aws[a-z-]{0,16}:iam::\d{12}:role/[A-Za-z0-9+=,.@_/-]{1,512}$`)
	external  = regexp.MustCompile(`^[A-Za-z0-9+=,.@:/_-]{2,256}$`)
)

// keeper is a key of KMS. It is safe for concurrent use.
type keeper struct {
	client *kms.Client
	key    string
	desc   keyring.Description
}

// place is what a URI says.
type place struct{ key, region, role, external string }

// Open reads the URI and prepares to ask; it asks nobody.
func Open(_ context.Context, uri string, o keyring.Options) (keyring.Keeper, error) {
	p, err := parse(uri, o)
	if err != nil {
		return nil, err
	}
	if o.HTTP == nil {
		return nil, keyring.Failure(keyring.CodeUnavailable, fmt.Errorf("no way out to AWS"))
	}
	endpoint, err := o.Endpoint("AWS_ENDPOINT_URL_KMS", "AWS_ENDPOINT_URL")
	if err != nil {
		return nil, err
	}
	cfg, err := settings(p, o)
	if err != nil {
		return nil, err
	}
	client := kms.NewFromConfig(cfg, func(ko *kms.Options) {
		if endpoint != "" {
			ko.BaseEndpoint = aws.String(endpoint)
		}
	})
	name := p.key
	if !strings.HasPrefix(name, "arn:") {
		name = p.region + "/" + name
	}
	return &keeper{client: client, key: p.key, desc: keyring.Description{Ref: keyring.Ref(scheme, name), Location: "AWS KMS " + name}}, nil
}

// Admit refuses a role that another of this server's customers has made: the role is
// assumed with the id of the owner as external id and with no other, which is what
// its trust policy is to ask for.
func Admit(uri, owner string) error {
	_, params, err := keyring.ParseURI(uri, scheme, form, "region", "role", "external_id")
	if err == nil && params["role"] != "" && params["external_id"] != owner {
		return fault.New(fault.Invalid, "root_key_external_id", "The external id is another one than that of whose key it is to be.").
			WithHint("Write external_id=" + owner + ", and have the trust policy of the role ask for it.")
	}
	return err
}

func parse(uri string, o keyring.Options) (place, error) {
	u, params, err := keyring.ParseURI(uri, scheme, form, "region", "role", "external_id")
	if err != nil {
		return place{}, err
	}
	bad := func(problem string) (place, error) { return place{}, keyring.BadURI(scheme, problem, form) }
	p := place{key: strings.TrimPrefix(u.Path, "/"), region: params["region"], role: params["role"], external: params["external_id"]}
	if u.Host != "" {
		return bad("it names a host: write three slashes")
	}
	switch arn := arnForm.FindStringSubmatch(p.key); {
	case arn != nil && p.region != "" && p.region != arn[1]:
		return bad("its region is not that of the ARN")
	case arn != nil:
		p.region = arn[1]
	case !plainForm.MatchString(p.key):
		return bad("it names no key, alias or ARN of one")
	}
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION"} {
		if p.region == "" {
			p.region = o.Getenv(name)
		}
	}
	switch {
	case !region.MatchString(p.region): // it becomes part of a host name
		return bad("it says no region")
	case p.role != "" && !roleForm.MatchString(p.role):
		return bad("role is not the ARN of a role")
	case p.external != "" && (p.role == "" || !external.MatchString(p.external)):
		return bad("external_id goes with a role")
	}
	return p, nil
}

// encryptionContext is what KMS binds the blob to and writes into its log.
func encryptionContext(c keyring.Context) map[string]string {
	items := map[string]string{"place": base64.StdEncoding.EncodeToString(c.Digest())}
	for name, v := range map[string]string{"purpose": c.Purpose, "environment": c.Environment, "organization": c.Organization} {
		if v != "" {
			items[name] = v
		}
	}
	return items
}

// Wrap encrypts a seed.
func (k *keeper) Wrap(ctx context.Context, seed secret.Value, c keyring.Context) ([]byte, error) {
	if err := crypt.CheckSeed(seed); err != nil {
		return nil, err
	}
	out, err := k.client.Encrypt(ctx, &kms.EncryptInput{KeyId: aws.String(k.key), Plaintext: seed.Reveal(), EncryptionContext: encryptionContext(c)})
	if err != nil {
		return nil, classify(ctx, "Encrypt", err)
	}
	if err := k.sameKey(out.KeyId); err != nil {
		return nil, err
	}
	if len(out.CiphertextBlob) == 0 || len(out.CiphertextBlob) > maxBlob {
		return nil, keyring.Failure(keyring.CodeUnavailable, fmt.Errorf("a ciphertext of %d bytes", len(out.CiphertextBlob)))
	}
	return out.CiphertextBlob, nil
}

// Unwrap is the inverse. The key is named, so that a blob of another key to
// which the credentials have a right does not open.
func (k *keeper) Unwrap(ctx context.Context, blob []byte, c keyring.Context) (secret.Value, error) {
	if len(blob) == 0 || len(blob) > maxBlob {
		return secret.Value{}, crypt.ErrIntegrity
	}
	out, err := k.client.Decrypt(ctx, &kms.DecryptInput{KeyId: aws.String(k.key), CiphertextBlob: blob, EncryptionContext: encryptionContext(c)})
	if err != nil {
		return secret.Value{}, classify(ctx, "Decrypt", err)
	}
	defer clear(out.Plaintext)
	if err := k.sameKey(out.KeyId); err != nil {
		return secret.Value{}, err
	}
	if len(out.Plaintext) != crypt.SeedLen {
		return secret.Value{}, keyring.Failure(keyring.CodeUnavailable, fmt.Errorf("a seed of %d bytes", len(out.Plaintext)))
	}
	return secret.New(out.Plaintext), nil
}

// sameKey checks the ARN in an answer where ours is that of a key.
func (k *keeper) sameKey(answered *string) error {
	if strings.HasPrefix(k.key, "arn:") && strings.Contains(k.key, ":key/") && aws.ToString(answered) != k.key {
		return keyring.Failure(keyring.CodeUnavailable, fmt.Errorf("an answer of another key"))
	}
	return nil
}

// Describe names the key.
func (k *keeper) Describe() keyring.Description { return k.desc }
