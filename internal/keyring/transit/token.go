package transit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/secret"
)

// EnvCredentials names the folder with the credentials for transit engines. Each
// host has a folder there, named as the URI writes it with its port, and below it,
// if the URI says as=NAME, one for each NAME. In it are the files "token", or
// "role-id" and "secret-id", or "role" and "jwt"; without "jwt" the token of the
// pod's own service account is shown. They are read again for each use.
const EnvCredentials = "AMBIT_TRANSIT_CREDENTIALS"

const (
	podToken      = "/var/run/secrets/kubernetes.io/serviceaccount/token"
	maxCredential = 16 << 10
)

// credentials is where to find what gives us a token.
type credentials struct {
	folder string
	fixed  secret.Value // a token from the environment
}

func findCredentials(p place, o keyring.Options) (credentials, error) {
	if folder := o.Getenv(EnvCredentials); folder != "" {
		dir := filepath.Join(folder, p.host, p.as)
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return credentials{folder: dir}, nil
		}
	}
	if token := o.Getenv("VAULT_TOKEN"); token != "" && p.auth == authToken && p.as == "" && strings.TrimSuffix(o.Getenv("VAULT_ADDR"), "/") == p.origin {
		return credentials{fixed: secret.FromString(token)}, nil
	}
	return credentials{}, fault.New(fault.Invalid, "root_key_credentials", "This server has no credentials for the host of the transit key.").
		WithHint(fmt.Sprintf("Put them into the folder %s below the one that %s names.", filepath.Join(p.host, p.as), EnvCredentials))
}

func (c credentials) read(file string) (secret.Value, error) {
	path := filepath.Join(c.folder, file)
	if file == "jwt" {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			path = podToken
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return secret.Value{}, fmt.Errorf("reading credentials: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return secret.Value{}, fmt.Errorf("reading credentials: %s is no file", path)
	}
	// A pod's own token is open to all in the pod, which is one user.
	if (file == "token" || file == "secret-id") && info.Mode().Perm()&0o007 != 0 {
		return secret.Value{}, fmt.Errorf("reading credentials: every user can read %s (mode %04o): chmod 600 it", path, info.Mode().Perm())
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxCredential))
	defer clear(raw)
	if err != nil {
		return secret.Value{}, fmt.Errorf("reading credentials: %w", err)
	}
	text := strings.TrimSpace(string(raw))
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return secret.Value{}, fmt.Errorf("reading credentials: %s does not hold one word", path)
	}
	return secret.FromString(text), nil
}

// tokens holds the token that we show, renews it, and gets another.
type tokens struct {
	server *server
	from   credentials
	turn   chan struct{} // held by who gets or renews a token

	// Behind turn:
	token secret.Value
	until time.Time // end of the lease; zero: none is known
	renew time.Time // when to ask for a longer one
}

func newTokens(s *server, from credentials) *tokens {
	return &tokens{server: s, from: from, turn: make(chan struct{}, 1)}
}

func (t *tokens) lock(ctx context.Context) error {
	select {
	case t.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *tokens) unlock() { <-t.turn }

// get gives a token that should be good. One that somebody puts into the file is
// taken as it is; the others are got by logging in, shortly before the last one
// ends.
func (t *tokens) get(ctx context.Context) (secret.Value, error) {
	if err := t.lock(ctx); err != nil {
		return secret.Value{}, err
	}
	defer t.unlock()
	if t.server.place.auth == authToken {
		if err := t.reread(); err != nil {
			return secret.Value{}, err
		}
		t.extend(ctx)
		return t.token, nil
	}
	if !t.token.IsZero() {
		t.extend(ctx)
	}
	if t.token.IsZero() || !t.until.IsZero() && time.Now().After(t.until) {
		if err := t.login(ctx); err != nil {
			return secret.Value{}, err
		}
	}
	return t.token, nil
}

// replace gives another token than the one that was refused, if there may be one.
func (t *tokens) replace(ctx context.Context, refused secret.Value) (secret.Value, bool) {
	if t.lock(ctx) != nil {
		return secret.Value{}, false
	}
	defer t.unlock()
	if t.token.Equal(refused) {
		if t.server.place.auth == authToken {
			if t.reread() != nil {
				return secret.Value{}, false
			}
		} else if t.login(ctx) != nil {
			return secret.Value{}, false
		}
	}
	return t.token, !t.token.Equal(refused)
}

func (t *tokens) reread() error {
	now := t.from.fixed
	if now.IsZero() {
		var err error
		if now, err = t.from.read("token"); err != nil {
			return err
		}
	}
	if !now.Equal(t.token) {
		t.token, t.renew, t.until = now, time.Time{}, time.Time{}
	}
	return nil
}

// lease is what the server says of a token.
type lease struct {
	Auth struct {
		Token     string `json:"client_token"`
		Seconds   int64  `json:"lease_duration"`
		Renewable bool   `json:"renewable"`
	} `json:"auth"`
}

// forLong is how late we look again after a token that cannot be renewed.
const forLong = time.Hour

func (t *tokens) note(l lease) {
	now := time.Now()
	seconds := min(max(l.Auth.Seconds, 0), 1<<31)
	t.until, t.renew = time.Time{}, now.Add(forLong)
	if seconds > 0 {
		t.until = now.Add(time.Duration(seconds) * time.Second * 9 / 10)
		t.renew = now.Add(time.Duration(seconds) * time.Second / 2)
	}
	if !l.Auth.Renewable {
		t.renew = now.Add(forLong)
	}
}

// extend renews the token when half of its time is over. A refusal is no failure:
// the token may be one that does not end.
func (t *tokens) extend(ctx context.Context) {
	if time.Now().Before(t.renew) {
		return
	}
	var l lease
	err := t.server.send(ctx, "POST", "auth/token/renew-self", t.token, map[string]any{}, &l)
	if err == nil && l.Auth.Token != "" {
		t.note(l)
		return
	}
	t.renew = time.Now().Add(10 * time.Second)
	if a := (*answer)(nil); errors.As(err, &a) && a.status < 500 && a.status != 429 {
		t.renew = time.Now().Add(forLong)
		t.server.log.Info("a token for the transit engine cannot be renewed", "host", t.server.place.host, "error", err)
	}
}

func (t *tokens) login(ctx context.Context) error {
	in, err := t.proof()
	if err != nil {
		return err
	}
	var l lease
	if err := t.server.send(ctx, "POST", "auth/"+t.server.place.authMount+"/login", secret.Value{}, in, &l); err != nil {
		return fmt.Errorf("logging in by %s: %w", t.server.place.auth, err)
	}
	if l.Auth.Token == "" || len(l.Auth.Token) > maxCredential {
		return errors.New("logging in gave no token")
	}
	t.token = secret.FromString(l.Auth.Token)
	t.note(l)
	return nil
}

// proof is what a login shows.
func (t *tokens) proof() (map[string]string, error) {
	files := map[string]string{"role_id": "role-id", "secret_id": "secret-id"}
	if t.server.place.auth == authKubernetes {
		files = map[string]string{"role": "role", "jwt": "jwt"}
	}
	proof := map[string]string{}
	for field, file := range files {
		v, err := t.from.read(file)
		if err != nil {
			return nil, err
		}
		proof[field] = string(v.Reveal())
	}
	return proof, nil
}
