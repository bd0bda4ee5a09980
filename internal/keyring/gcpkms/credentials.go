package gcpkms

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/auth/credentials"
	"cloud.google.com/go/auth/credentials/impersonate"
	"cloud.google.com/go/auth/httptransport"
	"cloud.google.com/go/compute/metadata"

	"github.com/ambit-dev/ambit/internal/keyring"
)

// scope is all that the tokens are for.
const scope = "https://www.googleapis.com/auth/cloudkms"

// broad is what the service that impersonates asks of whoever asks it.
const broad = "https://www.googleapis.com/auth/cloud-platform"

// authorized gives the way out with the credentials on it. The SDK's own search
// for credentials is used only for a file that is named: the rest of it looks
// around on the machine and asks the metadata service past our gates.
func authorized(o keyring.Options, as string) (keyring.Options, error) {
	want := scope
	if as != "" {
		want = broad
	}
	creds, err := own(o, want)
	if err != nil {
		return o, err
	}
	way, err := carrying(o, creds)
	if err != nil || as == "" {
		return way, err
	}
	creds, err = impersonate.NewCredentials(&impersonate.CredentialsOptions{
		TargetPrincipal: as, Scopes: []string{scope}, Client: way.HTTP, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return o, noCredentials(err)
	}
	return carrying(o, creds)
}

// kinds are those of credentials that a server can have.
var kinds = []credentials.CredType{credentials.ServiceAccount, credentials.ExternalAccount, credentials.ImpersonatedServiceAccount}

func own(o keyring.Options, scope string) (*auth.Credentials, error) {
	file := o.Getenv("GOOGLE_APPLICATION_CREDENTIALS")
	if file == "" {
		tokens := &instance{client: metadata.NewWithOptions(&metadata.Options{Client: o.HTTP}), scope: scope}
		return auth.NewCredentials(&auth.CredentialsOptions{
			TokenProvider: auth.NewCachedTokenProvider(tokens, &auth.CachedTokenProviderOptions{DisableAsyncRefresh: true}),
		}), nil
	}
	doc, err := os.ReadFile(file)
	if err != nil {
		return nil, noCredentials(err)
	}
	var head struct {
		Type credentials.CredType `json:"type"`
	}
	if err := json.Unmarshal(doc, &head); err != nil || !slices.Contains(kinds, head.Type) {
		return nil, noCredentials(err)
	}
	creds, err := credentials.NewCredentialsFromJSON(head.Type, doc, &credentials.DetectOptions{
		Scopes: []string{scope}, Client: o.HTTP, DisableAsyncRefresh: true, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, noCredentials(err)
	}
	return creds, nil
}

// noCredentials says nothing of the file's content.
func noCredentials(err error) error {
	return keyring.Failure(keyring.CodeUnavailable, fmt.Errorf("the file of GOOGLE_APPLICATION_CREDENTIALS cannot be used (%T)", err))
}

// carrying gives o whose client shows the credentials.
func carrying(o keyring.Options, creds *auth.Credentials) (keyring.Options, error) {
	way := *o.HTTP
	if err := httptransport.AddAuthorizationMiddleware(&way, creds); err != nil {
		return o, noCredentials(err)
	}
	o.HTTP = &way
	return o, nil
}

// instance takes tokens from the metadata service of the machine.
type instance struct {
	client *metadata.Client
	scope  string
}

func (i *instance) Token(ctx context.Context) (*auth.Token, error) {
	text, err := i.client.GetWithContext(ctx, "instance/service-accounts/default/token?scopes="+i.scope)
	if err != nil {
		return nil, err
	}
	var t struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
		TokenType   string `json:"token_type"`
	}
	if err := json.Unmarshal([]byte(text), &t); err != nil || t.AccessToken == "" || t.ExpiresIn <= 0 {
		return nil, fmt.Errorf("the metadata service gave no token")
	}
	// The mark keeps the SDK from asking which universe the token is of.
	return &auth.Token{Value: t.AccessToken, Type: t.TokenType, Expiry: time.Now().Add(time.Duration(t.ExpiresIn) * time.Second),
		Metadata: map[string]any{"auth.google.tokenSource": "compute-metadata"}}, nil
}
