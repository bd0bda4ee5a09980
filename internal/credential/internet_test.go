package credential_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/connection"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
)

// said is one request as a provider on the test's internet received it.
type said struct {
	Method, Host, Path string
	Header             http.Header
	Query, Form        url.Values // Form also of a body of JSON
	Body               string
}

// reply is what such a provider answers.
type reply struct {
	status int    // default 200
	media  string // default application/json
	body   string
	header map[string]string
}

// internet stands for all providers of the catalogue: their records as they are,
// but for "https://HOST", which is a path of the third party on loopback.
type internet struct {
	scene
	hosts map[string]bool
	asked []said
	// answer is called for each request, one at a time.
	answer func(said) reply
}

var host = regexp.MustCompile(`https://([a-z0-9{}.-]+)`)

// here is a text of a record with its hosts led to loopback.
func (n *internet) here(text string) string {
	return host.ReplaceAllString(text, n.Sandbox.URL+"/$1")
}

// provider puts an entry of the catalogue, filled in, as it is.
func (n *internet) provider(t *testing.T, entry string, params map[string]string) provider.Record {
	t.Helper()
	e, err := provider.FindEntry(entry)
	gatewaytest.Must(t, err)
	rec, err := e.Fill(params)
	gatewaytest.Must(t, err)
	return n.put(t, n.here(string(rec.Source())))
}

func (n *internet) put(t *testing.T, text string) provider.Record {
	t.Helper()
	rec, err := provider.Parse([]byte(text))
	if err != nil {
		t.Fatalf("%v: %v\n%s", err, provider.Problems(err), text)
	}
	in := provider.Input{YAML: []byte(text)}
	if rec.NeedsClient() {
		in.ClientID, in.ClientSecret = "our-client", secret.FromString("our-client-secret")
	}
	_, err = n.Providers.Put(t.Context(), n.System.In(n.Environment), in, account.Agreement{})
	gatewaytest.Must(t, err)
	return rec
}

func newInternet(t *testing.T, s scene) *internet {
	n := &internet{scene: s, hosts: map[string]bool{}}
	entries, err := provider.Entries()
	gatewaytest.Must(t, err)
	for _, e := range entries {
		for _, h := range e.Shown.Hosts() {
			n.hosts[h] = true
		}
	}
	for h := range n.hosts {
		n.serve(h)
	}
	return n
}

// serve lets a host be on this internet.
func (n *internet) serve(host string) {
	n.Serve(host, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		first, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		s := said{Method: r.Method, Host: first, Path: "/" + rest, Header: r.Header.Clone(), Query: r.URL.Query(), Body: string(body), Form: url.Values{}}
		var doc map[string]any
		if json.Unmarshal(body, &doc) == nil {
			for k, v := range doc {
				if text, ok := v.(string); ok {
					s.Form.Set(k, text)
				}
			}
		} else if form, err := url.ParseQuery(string(bytes.TrimSpace(body))); err == nil {
			s.Form = form
		}
		n.asked = append(n.asked, s)
		a := n.answer(s)
		for k, v := range a.header {
			w.Header().Set(k, v)
		}
		media := a.media
		if media == "" {
			media = "application/json"
		}
		w.Header().Set("Content-Type", media)
		w.WriteHeader(max(a.status, 200))
		_, _ = io.WriteString(w, a.body)
	}))
}

// give connects without signing in, for the owner.
func (n *internet) give(t *testing.T, slug string, chosen map[string]string, fields map[string]string) (connection.Connection, error) {
	t.Helper()
	st := start(n.World, slug)
	st.Chosen = chosen
	parts := map[string]secret.Value{}
	for k, v := range fields {
		parts[k] = secret.FromString(v)
	}
	return n.Credentials.AddKey(t.Context(), n.me(t), st, n.owner.ID, parts, account.Agreement{})
}

// signIn connects by signing in: the provider sends the person back with back.
func (n *internet) signIn(t *testing.T, slug string, chosen map[string]string, back url.Values) (credential.Connected, url.Values, error) {
	t.Helper()
	st := start(n.World, slug)
	st.Chosen = chosen
	at, err := n.Credentials.Authorize(t.Context(), n.owner.Signed(t), st)
	if err != nil {
		return credential.Connected{}, nil, err
	}
	u, err := url.Parse(at)
	gatewaytest.Must(t, err)
	q := url.Values{"state": {u.Query().Get("state")}, "code": {"a-code-of-" + slug}}
	for k, v := range back {
		q[k] = v
	}
	done, err := n.Credentials.Callback(t.Context(), n.owner.Signed(t), n.Environment, slug, q)
	return done, u.Query(), err
}

// entry is the text of an entry of the catalogue with its examples filled in.
func (n *internet) entry(t *testing.T, entry string) string {
	t.Helper()
	e, err := provider.FindEntry(entry)
	gatewaytest.Must(t, err)
	rec, err := e.Fill(nil)
	gatewaytest.Must(t, err)
	return string(rec.Source())
}
