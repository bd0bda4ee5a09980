package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/session"
)

// standIn answers a client that would refresh its placeholder at the provider's
// token endpoint, or buy a token with it at the realm of a registry: with the
// placeholder again, good for an hour. Sent on, it would be refused, and the client
// would try again and again. Nothing is sent; what keeps the account's own token fresh
// is package credential, and what a registry takes is bought for each request. It is
// nil for anything else.
func (g *Gateway) standIn(ctx context.Context, live session.Live, r *Raw, entry audit.Entry) (*Exchange, error) {
	if r.URL.Host == "" {
		return nil, nil
	}
	at := r.URL.String()
	realm, _, _ := strings.Cut(at, "?")
	for _, c := range live.Reach(r.Provider, r.Connection) {
		pinned := c.Pinned()
		if pinned.Realm != "" && realm == pinned.Realm {
			token := c.Record().Placeholder("")
			return g.ours(ctx, entry, c, map[string]any{"token": token, "access_token": token, "expires_in": 3600, "issued_at": g.now().UTC().Format(time.RFC3339)})
		}
		if r.Method != http.MethodPost || r.Body == nil || at != pinned.Token && at != pinned.Refreshing() {
			continue
		}
		const most = 16 << 10
		text, err := io.ReadAll(io.LimitReader(r.Body, most))
		r.Body = io.MultiReader(bytes.NewReader(text), r.Body) // for whoever takes it, whole
		grant, token := refreshOf(r.Header, text)
		if err != nil || grant != "refresh_token" || !provider.IsPlaceholder(token) {
			return nil, nil
		}
		return g.ours(ctx, entry, c, map[string]any{"access_token": c.Record().Placeholder(provider.FieldAccessToken), "token_type": "Bearer", "expires_in": 3600, "refresh_token": token})
	}
	return nil, nil
}

// ours answers in a provider's place, on record.
func (g *Gateway) ours(ctx context.Context, entry audit.Entry, c session.Reached, said map[string]any) (*Exchange, error) {
	answer, err := json.Marshal(said)
	if err != nil {
		return nil, err
	}
	entry.Action, entry.Connection, entry.Provider, entry.Decision, entry.Rule = "token.stand_in", c.Connection(), c.Provider(), string(policy.Allow), "placeholder"
	if err := g.audit.Record(ctx, entry); err != nil {
		return nil, g.refuse(ctx, entry, "placeholder", err)
	}
	running, done := context.WithCancel(ctx)
	header := http.Header{"Content-Type": {"application/json"}, "Cache-Control": {"no-store"}}
	return &Exchange{Status: http.StatusOK, Header: header, Length: int64(len(answer)), effect: policy.Read, Ours: true, gateway: g, ctx: running,
		in: ours{bytes.NewReader(answer)}, started: g.now(), release: []func(){done}}, nil
}

// refreshOf reads the two parameters of RFC 6749 §6 from a form or JSON.
func refreshOf(h http.Header, text []byte) (grant, token string) {
	media, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	if strings.HasSuffix(media, "json") {
		var doc struct {
			Grant string `json:"grant_type"`
			Token string `json:"refresh_token"`
		}
		_ = json.Unmarshal(text, &doc)
		return doc.Grant, doc.Token
	}
	form, _ := url.ParseQuery(string(text))
	return form.Get("grant_type"), form.Get("refresh_token")
}

// ours is an answer that came from no provider.
type ours struct{ *bytes.Reader }

func (ours) Close() error          { return nil }
func (ours) Trailer() http.Header  { return nil }
func (ours) Socket() io.ReadWriter { return nil }
