package sandbox

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/secret"
)

var scopes = [...]string{"issues:read", "issues:write", "issues:delete", "keys:write"}

const (
	codeTTL = time.Minute
	// keptRotations is how many spent refresh tokens of a grant are remembered to
	// notice their reuse.
	keptRotations = 100
	// keptAccess is how many access tokens of a grant work at the same time.
	keptAccess = 20
)

type code struct {
	account     account
	scopes      []string
	redirectURI string
	challenge   string
	expires     time.Time
	grant       *grant // set once exchanged
}

// grant is one consent. Every token of it dies with it.
type grant struct {
	account account
	scopes  []string
	created time.Time
	current [32]byte   // refresh token
	spent   [][32]byte // refresh tokens before it
	access  [][32]byte
}

type accessToken struct {
	grant   *grant
	scopes  []string
	expires time.Time
}

func hash(token string) [32]byte { return sha256.Sum256([]byte(token)) }

func (s *Server) metadata(w http.ResponseWriter, r *http.Request) {
	base := issuer(r)
	methods := []string{"client_secret_basic", "client_secret_post"}
	answer(w, http.StatusOK, map[string]any{
		"issuer":                                         base,
		"authorization_endpoint":                         base + "/oauth/authorize",
		"token_endpoint":                                 base + "/oauth/token",
		"revocation_endpoint":                            base + "/oauth/revoke",
		"scopes_supported":                               scopes,
		"response_types_supported":                       []string{"code"},
		"grant_types_supported":                          []string{"authorization_code", "refresh_token"},
		"code_challenge_methods_supported":               []string{"S256"},
		"token_endpoint_auth_methods_supported":          methods,
		"revocation_endpoint_auth_methods_supported":     methods,
		"authorization_response_iss_parameter_supported": true,
	})
}

// authRequest is what the authorize page was asked for.
type authRequest struct {
	RedirectURI, State, Challenge string
	Scopes                        []string
}

// readAuthRequest answers itself when the request is wrong: on a page while the
// redirect URI is not trusted, by redirect afterwards.
func (s *Server) readAuthRequest(w http.ResponseWriter, r *http.Request, q url.Values) (authRequest, bool) {
	a := authRequest{RedirectURI: q.Get("redirect_uri"), State: q.Get("state"), Challenge: q.Get("code_challenge"), Scopes: strings.Fields(q.Get("scope"))}
	if s.cfg.ClientID == "" || q.Get("client_id") != s.cfg.ClientID {
		http.Error(w, "Sandbox: no client with this client_id.", http.StatusBadRequest)
		return a, false
	}
	if !slices.ContainsFunc(s.cfg.RedirectURIs, func(known string) bool { return sameRedirect(known, a.RedirectURI) }) {
		http.Error(w, "Sandbox: this redirect_uri is not registered for the client.", http.StatusBadRequest)
		return a, false
	}
	wrong := ""
	switch {
	case q.Get("response_type") != "code":
		wrong = "unsupported_response_type"
	case q.Get("code_challenge_method") != "S256" || len(a.Challenge) != 43:
		wrong = "invalid_request"
	case slices.ContainsFunc(a.Scopes, func(scope string) bool { return !slices.Contains(scopes[:], scope) }):
		wrong = "invalid_scope"
	}
	if wrong != "" {
		a.redirect(w, r, url.Values{"error": {wrong}})
		return a, false
	}
	if len(a.Scopes) == 0 {
		a.Scopes = []string{"issues:read"}
	}
	return a, true
}

func sameRedirect(known, given string) bool {
	if known == given {
		return true
	}
	k, err := url.Parse(known)
	g, gerr := url.Parse(given)
	if err != nil || gerr != nil || k.Scheme != "http" || k.Hostname() != g.Hostname() {
		return false
	}
	if ip, err := netip.ParseAddr(k.Hostname()); k.Hostname() != "localhost" && (err != nil || !ip.IsLoopback()) {
		return false
	}
	k.Host, g.Host = k.Hostname(), g.Hostname()
	return k.String() == g.String()
}

func (a authRequest) redirect(w http.ResponseWriter, r *http.Request, v url.Values) {
	u, err := url.Parse(a.RedirectURI)
	if err != nil {
		http.Error(w, "Sandbox: the redirect_uri is not a URL.", http.StatusBadRequest)
		return
	}
	q := u.Query()
	for name := range v {
		q.Set(name, v.Get(name))
	}
	if a.State != "" {
		q.Set("state", a.State)
	}
	q.Set("iss", issuer(r))
	u.RawQuery = q.Encode()
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, u.String(), http.StatusFound)
}

// authorize takes the form of the page: who signs in, and which of the asked
// scopes they grant.
func (s *Server) authorize(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, "Sandbox: the form could not be read.", http.StatusBadRequest)
		return
	}
	a, ok := s.readAuthRequest(w, r, r.PostForm)
	if !ok {
		return
	}
	i := slices.IndexFunc(accounts[:], func(x account) bool { return x.Email == r.PostForm.Get("account") })
	granted := slices.DeleteFunc(slices.Clone(a.Scopes), func(scope string) bool { return !slices.Contains(r.PostForm["grant"], scope) })
	if i < 0 || r.PostForm.Get("decision") != "allow" || len(granted) == 0 {
		a.redirect(w, r, url.Values{"error": {"access_denied"}})
		return
	}
	now, text := s.cfg.Now(), "sbx_code_"+rand.Text()
	s.mu.Lock()
	for h, c := range s.codes {
		if now.After(c.expires) {
			delete(s.codes, h)
		}
	}
	full := len(s.codes) >= maxCodes
	if !full {
		s.codes[hash(text)] = &code{account: accounts[i], scopes: granted, redirectURI: a.RedirectURI, challenge: a.Challenge, expires: now.Add(codeTTL)}
	}
	s.mu.Unlock()
	if full {
		a.redirect(w, r, url.Values{"error": {"temporarily_unavailable"}})
		return
	}
	a.redirect(w, r, url.Values{"code": {text}})
}

// client authenticates the OAuth client by exactly one of the two methods.
func (s *Server) client(w http.ResponseWriter, r *http.Request) bool {
	id, password, basic := r.BasicAuth()
	if basic {
		// RFC 6749 section 2.3.1 form-encodes both halves.
		id, _ = url.QueryUnescape(id)
		password, _ = url.QueryUnescape(password)
		if r.PostForm.Has("client_secret") {
			refuse(w, http.StatusBadRequest, "invalid_request", "The client authenticates in two ways at once.")
			return false
		}
	} else {
		id, password = r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	}
	if s.cfg.ClientSecret.IsZero() || id != s.cfg.ClientID || !s.cfg.ClientSecret.Equal(secret.FromString(password)) {
		w.Header().Set("WWW-Authenticate", `Basic realm="sandbox"`)
		refuse(w, http.StatusUnauthorized, "invalid_client", "Client id or secret is wrong.")
		return false
	}
	return true
}

func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		refuse(w, http.StatusBadRequest, "invalid_request", "The form could not be read.")
		return
	}
	if !s.client(w, r) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch r.PostForm.Get("grant_type") {
	case "authorization_code":
		s.exchangeCode(w, r.PostForm)
	case "refresh_token":
		s.exchangeRefresh(w, r.PostForm)
	default:
		refuse(w, http.StatusBadRequest, "unsupported_grant_type", "Use authorization_code or refresh_token.")
	}
}

func (s *Server) exchangeCode(w http.ResponseWriter, form url.Values) {
	now := s.cfg.Now()
	c, ok := s.codes[hash(form.Get("code"))]
	if !ok || now.After(c.expires) || c.redirectURI != form.Get("redirect_uri") {
		refuse(w, http.StatusBadRequest, "invalid_grant", "The code is unknown, expired or for another redirect_uri.")
		return
	}
	if c.grant != nil {
		s.stats.Reuses++
		s.kill(c.grant)
		refuse(w, http.StatusBadRequest, "invalid_grant", "The code was used before; its tokens are revoked.")
		return
	}
	sum := sha256.Sum256([]byte(form.Get("code_verifier")))
	if challenge := base64.RawURLEncoding.EncodeToString(sum[:]); subtle.ConstantTimeCompare([]byte(challenge), []byte(c.challenge)) != 1 {
		refuse(w, http.StatusBadRequest, "invalid_grant", "The code_verifier does not match.")
		return
	}
	c.grant = &grant{account: c.account, scopes: c.scopes, created: now}
	s.grants[c.grant] = struct{}{}
	s.stats.Codes++
	s.mint(w, c.grant, c.scopes)
	s.forgetOldestGrant()
}

func (s *Server) exchangeRefresh(w http.ResponseWriter, form url.Values) {
	h := hash(form.Get("refresh_token"))
	g, ok := s.refresh[h]
	if !ok {
		refuse(w, http.StatusBadRequest, "invalid_grant", "The refresh token is unknown or revoked.")
		return
	}
	if g.current != h {
		s.stats.Reuses++
		s.kill(g)
		refuse(w, http.StatusBadRequest, "invalid_grant", "The refresh token was used before; all tokens of this grant are revoked.")
		return
	}
	narrowed := g.scopes
	if form.Has("scope") {
		narrowed = strings.Fields(form.Get("scope"))
		if slices.ContainsFunc(narrowed, func(scope string) bool { return !slices.Contains(g.scopes, scope) }) {
			refuse(w, http.StatusBadRequest, "invalid_scope", "More scope than the account granted.")
			return
		}
	}
	s.stats.Refreshes++
	s.mint(w, g, narrowed)
}

// mint answers with a fresh pair of tokens and retires the refresh token before.
func (s *Server) mint(w http.ResponseWriter, g *grant, granted []string) {
	access, refresh := "sbx_at_"+rand.Text()+rand.Text(), "sbx_rt_"+rand.Text()+rand.Text()
	if g.current != ([32]byte{}) {
		g.spent = append(g.spent, g.current)
		if len(g.spent) > keptRotations {
			delete(s.refresh, g.spent[0])
			g.spent = g.spent[1:]
		}
	}
	g.current = hash(refresh)
	s.refresh[g.current] = g
	g.access = append(g.access, hash(access))
	s.access[hash(access)] = &accessToken{grant: g, scopes: granted, expires: s.cfg.Now().Add(s.cfg.AccessTTL)}
	if len(g.access) > keptAccess {
		delete(s.access, g.access[0])
		g.access = g.access[1:]
	}
	answer(w, http.StatusOK, map[string]any{
		"access_token": access, "token_type": "Bearer", "expires_in": int(s.cfg.AccessTTL / time.Second),
		"refresh_token": refresh, "scope": strings.Join(granted, " "),
	})
}

func (s *Server) kill(g *grant) {
	delete(s.grants, g)
	for _, h := range append(g.spent, g.current) {
		delete(s.refresh, h)
	}
	for _, h := range g.access {
		delete(s.access, h)
	}
}

func (s *Server) forgetOldestGrant() {
	if len(s.grants) <= maxGrants {
		return
	}
	var oldest *grant
	for g := range s.grants {
		if oldest == nil || g.created.Before(oldest.created) {
			oldest = g
		}
	}
	s.kill(oldest)
}

// revoke is RFC 7009: a refresh token takes its grant with it, an access token
// only itself, and an unknown token is no error.
func (s *Server) revoke(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		refuse(w, http.StatusBadRequest, "invalid_request", "The form could not be read.")
		return
	}
	if !s.client(w, r) {
		return
	}
	if r.PostForm.Get("token") == "" {
		refuse(w, http.StatusBadRequest, "invalid_request", "The token is missing.")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h := hash(r.PostForm.Get("token"))
	if g, ok := s.refresh[h]; ok {
		s.kill(g)
		s.stats.Revocations++
	} else if _, ok := s.access[h]; ok {
		delete(s.access, h)
		s.stats.Revocations++
	}
	w.WriteHeader(http.StatusOK)
}

// authenticate answers 401 or 403 itself. A bearer token must carry scope; API
// keys carry every scope.
func (s *Server) authenticate(w http.ResponseWriter, r *http.Request, scope string) (account, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if key := r.Header.Get("X-Api-Key"); key != "" {
		if s.cfg.APIKey.Equal(secret.FromString(key)) {
			return accounts[0], true
		}
		if who, ok := s.keys[hash(key)]; ok {
			return who, true
		}
	} else if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		if t, ok := s.access[hash(token)]; ok && s.cfg.Now().Before(t.expires) {
			if scope != "" && !slices.Contains(t.scopes, scope) {
				w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_scope", scope="`+scope+`"`)
				refuse(w, http.StatusForbidden, "insufficient_scope", "This needs the scope "+scope+".")
				return account{}, false
			}
			return t.grant.account, true
		}
	}
	s.stats.Unauthorized++
	w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	refuse(w, http.StatusUnauthorized, "invalid_token", "The credential is missing, unknown, expired or revoked.")
	return account{}, false
}
