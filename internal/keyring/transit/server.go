package transit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/secret"
)

// doer is the part of an HTTP client that is used here.
type doer interface {
	Do(*http.Request) (*http.Response, error)
}

const maxAnswer = 64 << 10

// server is a Vault or OpenBao and our right to ask it.
type server struct {
	place  place
	http   doer
	log    *slog.Logger
	tokens *tokens
}

func newServer(p place, o keyring.Options, c credentials) *server {
	// Redirects are answers: a standby that does not forward would have the token
	// sent to another host.
	client := *o.HTTP
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	s := &server{place: p, http: &client, log: o.Log()}
	s.tokens = newTokens(s, c)
	return s
}

// answer is a refusal by the server, or something that is no answer.
type answer struct {
	status int
	errors []string // what it says; nil: not in its format
	retry  time.Duration
	login  bool // of an attempt to get a token
}

func (a *answer) Error() string {
	text := strings.Join(strings.Fields(strings.ToValidUTF8(strings.Join(a.errors, "; "), "")), " ")
	if len(text) > 200 {
		text = text[:200]
	}
	return fmt.Sprintf("status %d: %q", a.status, text)
}

func (a *answer) says(words ...string) bool {
	for _, e := range a.errors {
		for _, w := range words {
			if strings.Contains(e, w) {
				return true
			}
		}
	}
	return false
}

// tooOld says that a blob's version lies below the key's min_decryption_version.
func (a *answer) tooOld() bool { return a.status == http.StatusBadRequest && a.says("too old") }

// aboutRequest says that something in the request was not accepted.
func (a *answer) aboutRequest() bool {
	return a.errors != nil && (a.status == http.StatusBadRequest && !a.says("key not found", "deleted", "disabled") || a.status == http.StatusInternalServerError && a.says("cipher:", "ciphertext"))
}

// refused says that we may not, or that the key or its engine is gone.
func (a *answer) refused() bool {
	switch a.status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return true
	case http.StatusNotFound:
		return a.errors != nil // otherwise it is not the server that speaks
	case http.StatusBadRequest:
		return a.login || a.says("key not found", "deleted", "disabled")
	}
	return false
}

// classed gives the keeper's failure for an error of ask.
func classed(err error) error {
	var a *answer
	switch {
	case !errors.As(err, &a):
		return keyring.Failure(keyring.CodeUnavailable, err)
	case a.status == http.StatusTooManyRequests:
		return keyring.Failure(keyring.CodeThrottled, err).WithRetry(a.retry)
	case a.refused():
		return keyring.Failure(keyring.CodeDenied, err)
	}
	return keyring.Failure(keyring.CodeUnavailable, err)
}

// ask makes one request with our token. A token that is refused is got anew, once.
func (s *server) ask(ctx context.Context, method, path string, in, out any) error {
	token, err := s.tokens.get(ctx)
	if err != nil {
		return err
	}
	err = s.data(ctx, method, path, token, in, out)
	var a *answer
	if !errors.As(err, &a) || a.status != http.StatusForbidden {
		return err
	}
	fresh, ok := s.tokens.replace(ctx, token)
	if !ok {
		return err
	}
	return s.data(ctx, method, path, fresh, in, out)
}

func (s *server) data(ctx context.Context, method, path string, token secret.Value, in, out any) error {
	var doc struct {
		Data json.RawMessage `json:"data"`
	}
	if err := s.send(ctx, method, path, token, in, &doc); err != nil {
		return err
	}
	if err := json.Unmarshal(doc.Data, out); err != nil {
		return errors.New("the answer cannot be read")
	}
	return nil
}

// send makes one request and reads its answer into out. Its errors quote neither
// what was sent nor, beyond the server's own error texts, what came.
func (s *server) send(ctx context.Context, method, path string, token secret.Value, in, out any) error {
	var body io.Reader
	if in != nil {
		doc, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("writing a request: %w", err)
		}
		defer clear(doc)
		body = bytes.NewReader(doc)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.place.origin+"/v1/"+path, body)
	if err != nil {
		return fmt.Errorf("writing a request: %w", err)
	}
	req.Header.Set("X-Vault-Request", "true")
	if !token.IsZero() {
		req.Header.Set("X-Vault-Token", string(token.Reveal()))
	}
	if s.place.namespace != "" {
		req.Header.Set("X-Vault-Namespace", s.place.namespace)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return fmt.Errorf("asking: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	defer clear(text)
	if resp.StatusCode == http.StatusNoContent {
		return nil
	}
	if resp.StatusCode != http.StatusOK {
		a := &answer{status: resp.StatusCode, login: token.IsZero()}
		var doc struct {
			Errors []string `json:"errors"`
		}
		if json.Unmarshal(text, &doc) == nil {
			a.errors = doc.Errors
		}
		if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 && n < 3600 {
			a.retry = time.Duration(n) * time.Second
		}
		return a
	}
	if err := json.Unmarshal(text, out); err != nil {
		return errors.New("the answer cannot be read") // and what it holds may be a secret
	}
	return nil
}
