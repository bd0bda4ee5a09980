// Package workos reads the objects of a WorkOS Vault through its API, with an API key, and
// brings the accounts over that people have connected at WorkOS. WorkOS gives the value of
// an object's current version only.
package workos

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/intake"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Config says where the API is.
type Config struct {
	BaseURL string // empty: WorkOS' own
	Key     secret.Value
	Out     *outbound.Client
}

const (
	usual     = "https://api.workos.com"
	maxAnswer = 8 << 20
	page      = 100
)

// Source is the vault of one environment of WorkOS. It is safe for concurrent use.
type Source struct {
	cfg  Config
	base *url.URL
}

// Open checks the settings. It asks nothing yet.
func Open(cfg Config) (*Source, error) {
	if cfg.BaseURL == "" {
		cfg.BaseURL = usual
	}
	u, err := url.Parse(strings.TrimRight(cfg.BaseURL, "/"))
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Hostname() != "localhost" && u.Hostname() != "127.0.0.1" {
		return nil, fault.New(fault.Invalid, "source_unset", "The address of the API is not one of https.").WithHint("Leave it out for WorkOS' own.")
	}
	if cfg.Key.Len() == 0 {
		return nil, fault.New(fault.Invalid, "source_unset", "There is no API key of WorkOS.").WithHint("Set WORKOS_API_KEY.")
	}
	return &Source{cfg: cfg, base: u}, nil
}

// Name says which API it is.
func (s *Source) Name() string { return "workos " + s.base.Host }

// Paths lists the names of all objects.
func (s *Source) Paths(ctx context.Context, fn func(path string) error) error {
	type object struct {
		Name string `json:"name"`
	}
	return each(ctx, s, "list objects", "/vault/v1/kv", url.Values{"order": {"asc"}}, func(o object) error { return fn(o.Name) })
}

// each calls fn with every entry of a list of the API.
func each[T any](ctx context.Context, s *Source, doing, path string, q url.Values, fn func(T) error) error {
	q = maps.Clone(q)
	if q == nil {
		q = url.Values{}
	}
	q.Set("limit", strconv.Itoa(page))
	for {
		var got struct {
			Data []T `json:"data"`
			List struct {
				After string `json:"after"`
			} `json:"list_metadata"`
		}
		if err := s.get(ctx, doing, path+"?"+q.Encode(), &got); err != nil {
			return err
		}
		for _, entry := range got.Data {
			if err := fn(entry); err != nil {
				return err
			}
		}
		if got.List.After == "" || got.List.After == q.Get("after") {
			return nil
		}
		q.Set("after", got.List.After)
	}
}

// Read gives the current value of an object, and its key context.
func (s *Source) Read(ctx context.Context, path string) (intake.Item, error) {
	var got struct {
		Value    string `json:"value"`
		Metadata struct {
			Context map[string]string `json:"context"`
			Version string            `json:"version_id"`
		} `json:"metadata"`
	}
	if err := s.get(ctx, "read "+path, "/vault/v1/kv/name/"+url.PathEscape(path), &got); err != nil {
		return intake.Item{}, err
	}
	if got.Metadata.Version == "" {
		got.Metadata.Version = "1"
	}
	return intake.Item{Context: got.Metadata.Context, Versions: []intake.Version{{ID: got.Metadata.Version, Value: secret.FromString(got.Value)}}}, nil
}

func (s *Source) get(ctx context.Context, doing, path string, into any) error {
	return s.ask(ctx, doing, http.MethodGet, path, nil, into)
}

// ask asks once. What the API says in a refusal is not passed on.
func (s *Source) ask(ctx context.Context, doing, method, path string, body, into any) error {
	failed := fault.New(fault.Unavailable, "source_failed", "WorkOS did not "+doing+".").WithHint("Try again; what was imported stays.")
	var doc io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return failed.WithCause(err)
		}
		doc = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.base.String()+path, doc)
	if err != nil {
		return failed.WithCause(err)
	}
	if doc != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Authorization", "Bearer "+string(s.cfg.Key.Reveal()))
	req.Header.Set("Accept", "application/json")
	resp, err := s.cfg.Out.Do(ctx, outbound.Bound{Bases: []string{s.base.String()}, Party: "import"}, req, outbound.Limits{Body: maxAnswer})
	switch {
	case err != nil:
		return failed.WithHint("It does not answer: look at the network. What was imported stays.").WithCause(fmt.Errorf("asking WorkOS: %w", err))
	case resp.Status == http.StatusUnauthorized:
		return fault.New(fault.Denied, "source_denied", "WorkOS does not know this API key: it did not "+doing+".").WithHint("Set WORKOS_API_KEY to a key (sk_…) of the environment that is to be read.")
	case resp.Status == http.StatusForbidden:
		return fault.New(fault.Denied, "source_denied", "WorkOS does not let this API key "+doing+".").WithHint("Use a key of that environment, with the permissions for this.")
	case resp.Status != http.StatusOK:
		return failed.WithCause(fmt.Errorf("WorkOS answered %d", resp.Status))
	}
	if err := json.Unmarshal(resp.Body, into); err != nil {
		return failed.WithCause(fmt.Errorf("reading the answer (%T)", err))
	}
	return nil
}
