package scan

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/ambit-dev/ambit/internal/outbound"
)

// revoker is a provider's call that takes a key back from whoever has it: it needs no
// other authority than the key.
type revoker struct {
	provider    string
	prefixes    []string // of the keys that it takes
	method, url string
	header      func(h http.Header, value string)
	body        func(values []string) (text []byte, kind string)
	most        int // keys in one request
	// done reads the answer where a status of 2xx does not tell; nil: it does.
	done func(status int, body []byte) string
}

// What became of a key.
const (
	Revoked  = "revoked"
	Accepted = "accepted" // the provider will, and does not say when it has
	Dead     = "dead"     // it took it no longer
	Kept     = "kept"     // the provider refused, or gave no clear answer
)

var revokers = []revoker{
	// Anonymous: an authenticated request is refused. Whose key it was is told by mail.
	{provider: "github", prefixes: []string{"ghp_", "github_pat_", "gho_", "ghu_", "ghr_"}, url: "https://api.github.com/credentials/revoke", most: 1000,
		header: func(h http.Header, _ string) { h.Set("Accept", "application/vnd.github+json") },
		body:   func(values []string) ([]byte, string) { return jsonBody("credentials", values) },
		done: func(status int, _ []byte) string {
			if status == http.StatusAccepted {
				return Accepted
			}
			return Kept
		}},
	{provider: "slack", prefixes: []string{"xoxb-", "xoxp-", "xoxe.xox"}, url: "https://slack.com/api/auth.revoke", header: bearer, done: func(status int, body []byte) string {
		switch ok, revoked, dead := slackSaid(status, body); {
		case ok && revoked:
			return Revoked
		case dead:
			return Dead
		}
		return Kept
	}},
	// Of gitlab.com: a key does not tell which server gave it out.
	{provider: "gitlab", prefixes: []string{"glpat-"}, method: http.MethodDelete, url: "https://gitlab.com/api/v4/personal_access_tokens/self", header: func(h http.Header, v string) { h.Set("Private-Token", v) }},
	{provider: "google", prefixes: []string{"ya29.", "1//"}, url: "https://oauth2.googleapis.com/revoke", header: func(http.Header, string) {},
		body: func(values []string) ([]byte, string) {
			return []byte(url.Values{"token": values}.Encode()), "application/x-www-form-urlencoded"
		},
		done: func(status int, body []byte) string {
			switch {
			case status == http.StatusOK:
				return Revoked
			case status == http.StatusBadRequest && bytes.Contains(body, []byte("invalid_token")):
				return Dead
			}
			return Kept
		}},
	{provider: "doppler", prefixes: []string{"dp."}, url: "https://api.doppler.com/v3/auth/revoke", header: func(http.Header, string) {},
		body: func(values []string) ([]byte, string) { return jsonBody("token", values[0]) }},
	{provider: "dropbox", prefixes: []string{"sl."}, url: "https://api.dropboxapi.com/2/auth/token/revoke", header: bearer},
	{provider: "buildkite", prefixes: []string{"bkua_"}, method: http.MethodDelete, url: "https://api.buildkite.com/v2/access-token", header: bearer},
	{provider: "perplexity", prefixes: []string{"pplx-"}, url: "https://api.perplexity.ai/revoke_auth_token", header: bearer,
		body: func(values []string) ([]byte, string) { return jsonBody("auth_token", values[0]) }},
}

func jsonBody(name string, v any) ([]byte, string) {
	text, _ := json.Marshal(map[string]any{name: v})
	return text, "application/json"
}

// slackSaid reads an answer of Slack's, whose status tells nothing of the token.
func slackSaid(status int, body []byte) (ok, revoked, dead bool) {
	var got struct {
		OK, Revoked bool
		Error       string
	}
	if status != http.StatusOK || json.Unmarshal(body, &got) != nil {
		return false, false, false
	}
	return got.OK, got.Revoked, !got.OK && slices.Contains([]string{"invalid_auth", "token_revoked", "token_expired", "account_inactive"}, got.Error)
}

func revokerOf(f Finding) (revoker, bool) {
	i := slices.IndexFunc(revokers, func(r revoker) bool {
		return r.provider == f.Provider && slices.ContainsFunc(r.prefixes, func(p string) bool { return strings.HasPrefix(string(f.Value.Reveal()), p) })
	})
	if i < 0 {
		return revoker{}, false
	}
	return revokers[i], true
}

// RevokedAt is the host that a key is sent to when it is revoked; empty where its provider
// has no call that revokes a key by the key alone.
func RevokedAt(f Finding) string {
	r, ok := revokerOf(f)
	if !ok {
		return ""
	}
	u, _ := url.Parse(r.url)
	return u.Host
}

// Revoke has the providers take these keys back, each once however often it was found. It
// says by fingerprint what became of them; what cannot be revoked so is not among them. It
// cannot be undone.
func Revoke(ctx context.Context, c *outbound.Client, list []Finding) map[string]string {
	return revoke(ctx, c, list, func(u string) string { return u })
}

func revoke(ctx context.Context, c *outbound.Client, list []Finding, at func(string) string) map[string]string {
	out := map[string]string{}
	waiting := map[string][]Finding{} // by provider
	for _, f := range list {
		r, ok := revokerOf(f)
		if !ok || out[f.Fingerprint] != "" {
			continue
		}
		out[f.Fingerprint] = Kept
		waiting[r.provider] = append(waiting[r.provider], f)
	}
	for _, r := range revokers {
		for part := range slices.Chunk(waiting[r.provider], max(r.most, 1)) {
			values := make([]string, len(part))
			for i, f := range part {
				values[i] = string(f.Value.Reveal())
			}
			state := r.ask(ctx, c, at(r.url), values)
			for _, f := range part {
				out[f.Fingerprint] = state
			}
		}
	}
	return out
}

func (r revoker) ask(ctx context.Context, c *outbound.Client, at string, values []string) string {
	header, text := http.Header{}, []byte(nil)
	r.header(header, values[0])
	if r.body != nil {
		var kind string
		text, kind = r.body(values)
		header.Set("Content-Type", kind)
	}
	resp, err := send(ctx, c, cmp.Or(r.method, http.MethodPost), at, header, text)
	switch {
	case err != nil:
		return Kept
	case r.done != nil:
		return r.done(resp.Status, resp.Body)
	case resp.Status >= 200 && resp.Status < 300:
		return Revoked
	case resp.Status == http.StatusUnauthorized:
		return Dead
	}
	return Kept
}
