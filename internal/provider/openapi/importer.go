package openapi

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
)

// fetchTimeout is how long a description may take to arrive.
const fetchTimeout = 20 * time.Second

// Importer reads descriptions for the people of a server: one at a time, for a
// large one takes many times its size in memory. It stores nothing.
type Importer struct {
	client  *outbound.Client
	reading *semaphore.Weighted
}

// NewImporter makes one that reads addresses through client.
func NewImporter(client *outbound.Client) *Importer {
	return &Importer{client: client, reading: semaphore.NewWeighted(1)}
}

// Import drafts a record from text, or else from what o.Source, a URL, answers
// with. It takes the permission to manage providers, since the server makes the
// request. Redirects are not followed: where to read is for the person to say.
func (i *Importer) Import(ctx context.Context, by account.Actor, text []byte, o Options) (Draft, error) {
	if err := by.May("", account.ManageProviders); err != nil {
		return Draft{}, err
	}
	if (len(text) == 0) == (o.Source == "") {
		return Draft{}, fault.New(fault.Invalid, "invalid_request", "Give the description, or the address where it is.")
	}
	if err := i.reading.Acquire(ctx, 1); err != nil {
		return Draft{}, fault.New(fault.Unavailable, "busy", "The server is reading other descriptions.").WithHint("Try again in a moment.").WithCause(err)
	}
	defer i.reading.Release(1)
	if o.Source != "" {
		var err error
		if text, err = i.fetch(ctx, o.Source); err != nil {
			return Draft{}, err
		}
	}
	return Read(ctx, text, o)
}

func (i *Importer) fetch(ctx context.Context, address string) ([]byte, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Fragment != "" {
		return nil, fault.New(fault.Invalid, "url_invalid", "The address of the description is not well-formed.").WithHint("Write it in full, such as https://api.example.com/openapi.json.")
	}
	req := &http.Request{Method: http.MethodGet, URL: u, Header: http.Header{"Accept": {"application/json, application/yaml, */*;q=0.5"}}}
	resp, err := i.client.Do(ctx, outbound.Bound{Bases: []string{u.Scheme + "://" + u.Host}}, req, outbound.Limits{Body: MaxBytes, Timeout: fetchTimeout})
	if err != nil {
		return nil, err
	}
	if resp.Status != http.StatusOK {
		hint := "Open it in a browser, and give the address at which the description itself is."
		if resp.Status >= 300 && resp.Status < 400 {
			hint = "It leads elsewhere, where Ambit does not follow: give that address."
		}
		return nil, fault.New(fault.Invalid, "description_unavailable", "The address answers with "+http.StatusText(resp.Status)+" and no description.").WithHint(hint)
	}
	return resp.Body, nil
}
