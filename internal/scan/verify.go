package scan

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/outbound"
)

// question is how a provider is asked whether a credential works: a call that reads
// nothing but whose it is.
type question struct {
	method, url string
	header      func(h http.Header, value string)
	// live reads the answer where the status does not tell; nil: it does.
	live func(status int, body []byte) string
}

func bearer(h http.Header, v string) { h.Set("Authorization", "Bearer "+v) }

// questions are by provider; askable narrows them to the kinds that the call takes.
var questions = map[string]question{
	"github":       {url: "https://api.github.com/user", header: bearer},
	"openai":       {url: "https://api.openai.com/v1/models", header: bearer},
	"anthropic":    {url: "https://api.anthropic.com/v1/models", header: func(h http.Header, v string) { h.Set("X-Api-Key", v); h.Set("Anthropic-Version", "2023-06-01") }},
	"stripe":       {url: "https://api.stripe.com/v1/balance", header: bearer},
	"huggingface":  {url: "https://huggingface.co/api/whoami-v2", header: bearer},
	"digitalocean": {url: "https://api.digitalocean.com/v2/account", header: bearer},
	"sendgrid":     {url: "https://api.sendgrid.com/v3/scopes", header: bearer},
	"notion":       {url: "https://api.notion.com/v1/users/me", header: func(h http.Header, v string) { bearer(h, v); h.Set("Notion-Version", "2022-06-28") }},
	"groq":         {url: "https://api.groq.com/openai/v1/models", header: bearer},
	"openrouter":   {url: "https://openrouter.ai/api/v1/key", header: bearer},
	"slack": {method: http.MethodPost, url: "https://slack.com/api/auth.test", header: bearer, live: func(status int, body []byte) string {
		switch ok, _, dead := slackSaid(status, body); {
		case ok:
			return "live"
		case dead:
			return "dead"
		}
		return "unknown"
	}},
}

// askable reports whether a finding is of a kind that the provider's call takes.
func askable(f Finding) bool {
	_, ok := questions[f.Provider]
	return ok && f.IsKey() && f.formTells()
}

// formTells reports whether the form of a value says who gave it out. What only its name
// says may be another's: a key of a server that speaks like OpenAI, a token of a company's
// own GitHub. It is sent to nobody.
func (f Finding) formTells() bool {
	switch f.Kind {
	case "api-key", "token", "secret", "bearer":
		return false
	case "openai-key":
		text := string(f.Value.Reveal())
		return strings.HasPrefix(text, "sk-proj-") || strings.HasPrefix(text, "sk-svcacct-") || strings.HasPrefix(text, "sk-admin-") || strings.Contains(text, "T3BlbkFJ")
	}
	name := strings.ToLower(f.Key)
	return !strings.Contains(name, "enterprise") && !strings.Contains(name, "ghes") && !strings.Contains(name, "self_hosted")
}

// IsKey reports whether a finding is what a client of its provider sends as its key, and
// not a part of a credential, or another kind of it.
func (f Finding) IsKey() bool {
	switch f.Kind {
	case "password", "url-credential", "database-url", "client-secret", "basic-auth", "refresh-token", "slack-webhook", "stripe-webhook-secret", "registry-login", "private-key", "github-refresh-token", "slack-app-token", "command-password":
		return false
	}
	return f.Provider != ""
}

// maxAsked bounds how many credentials one run asks about.
const maxAsked = 200

// Verify asks the providers which credentials work, each once however often it was found,
// and weighs the findings anew. It is the only part of a scan that uses the network, and
// it sends each credential only to the provider that gave it out.
func Verify(ctx context.Context, c *outbound.Client, r *Report, now time.Time) {
	verify(ctx, c, r, now, func(u string) string { return u })
}

func verify(ctx context.Context, c *outbound.Client, r *Report, now time.Time, at func(string) string) {
	known := map[string]string{}
	for i := range r.Findings {
		f := &r.Findings[i]
		if !askable(*f) || ctx.Err() != nil {
			continue
		}
		live, ok := known[f.Fingerprint]
		if !ok {
			live = "unknown"
			if len(known) < maxAsked {
				q := questions[f.Provider]
				q.url = at(q.url)
				live = ask(ctx, c, q, *f)
			}
			known[f.Fingerprint] = live
		}
		f.Live = live
		f.weigh(now)
	}
	scrub(r.Findings, r.Skipped, nil)
}

// send makes one request to a provider. No redirect is followed.
func send(ctx context.Context, c *outbound.Client, method, at string, header http.Header, body []byte) (*outbound.Response, error) {
	u, err := url.Parse(at)
	if err != nil {
		return nil, err
	}
	req := &http.Request{Method: method, URL: u, Header: header}
	if body != nil {
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	return c.Do(ctx, outbound.Bound{Bases: []string{u.Scheme + "://" + u.Host}}, req, outbound.Limits{Body: 256 << 10, Timeout: 15 * time.Second})
}

func ask(ctx context.Context, c *outbound.Client, q question, f Finding) string {
	header := http.Header{}
	q.header(header, string(f.Value.Reveal()))
	resp, err := send(ctx, c, cmp.Or(q.method, http.MethodGet), q.url, header, nil)
	if err != nil {
		return "unknown"
	}
	if q.live != nil {
		return q.live(resp.Status, resp.Body)
	}
	switch resp.Status {
	case http.StatusOK, http.StatusForbidden: // known, and not allowed this call
		return "live"
	case http.StatusUnauthorized:
		return "dead"
	}
	return "unknown"
}
