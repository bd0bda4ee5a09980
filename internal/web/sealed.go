package web

import (
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
)

// SealedConfig is what a Sealed needs. All but Address and Logger are required.
type SealedConfig struct {
	People    *account.Service
	PublicURL *url.URL
	Why       func() *fault.Error // for people: why the server is sealed
	Waiting   *account.Waiting    // keeps sign-ins until they can be put on record
	Address   func(*http.Request) string
	Logger    *slog.Logger
}

// Sealed is the pages of a server whose root key cannot be used: signing in by
// passkey, and for everything else the reason. A sign-in is checked and then held;
// its cookie opens something once the server goes on.
type Sealed struct {
	cfg  SealedConfig
	site *Server // the parts that need no other room
}

// NewSealed makes a Sealed.
func NewSealed(cfg SealedConfig) (*Sealed, error) {
	if cfg.People == nil || cfg.PublicURL == nil || cfg.Why == nil || cfg.Waiting == nil {
		return nil, errors.New("web: the configuration of a sealed site is incomplete")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Address == nil {
		cfg.Address = peer
	}
	r, err := newRenderer(time.Now, cfg.Logger)
	if err != nil {
		return nil, err
	}
	return &Sealed{cfg: cfg, site: &Server{people: cfg.People, address: cfg.Address, log: cfg.Logger, renderer: r, cookie: newCookie(cfg.PublicURL), now: time.Now}}, nil
}

// Mount adds the pages to a server's routes.
func (s *Sealed) Mount(mux *http.ServeMux) {
	ui := http.NewServeMux()
	ui.HandleFunc("GET /ui/assets/", s.site.renderer.serveAsset)
	for pattern, serve := range map[string]func(*visit) (answer, error){
		"GET /ui/signin": s.signInPage, "POST /ui/signin": s.signInByCode, "POST /ui/signin/begin": s.site.signInBegin, "POST /ui/signin/passkey": s.signInByPasskey,
		"/": s.closed,
	} {
		ui.Handle(pattern, s.handle(serve))
	}
	mux.Handle("/ui/", s.site.guarded(ui))
	mux.Handle("GET /{$}", s.site.guarded(ui))
}

// handle runs a route. Nobody is recognised: what a cookie would open is closed.
func (s *Sealed) handle(serve func(*visit) (answer, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := &visit{w: w, r: r}
		w.Header().Set("Cache-Control", "no-store")
		err := s.site.parse(v)
		var a answer
		if err == nil {
			a, err = serve(v)
		}
		if err != nil {
			s.site.refuse(v, err)
			return
		}
		a.send(s.site, v)
	})
}

func (s *Sealed) signIn(v *visit, code int, problem *Notice) answer {
	why := s.cfg.Why()
	return shown{code, &SignInPage{Next: safeNext(v.form("next")), Email: v.form("email"), Frame: Frame{Title: "Sign in", Bare: true, Problem: problem,
		Note: &Notice{Kind: "warn", Message: why.Message, Hint: "You can sign in with a passkey; it counts as soon as the server goes on."}}}}
}

func (s *Sealed) signInPage(v *visit) (answer, error) { return s.signIn(v, http.StatusOK, nil), nil }

// signInByCode: what a code is held against is sealed.
func (s *Sealed) signInByCode(v *visit) (answer, error) {
	retryAfter(v.w, s.cfg.Why())
	return s.signIn(v, http.StatusServiceUnavailable, &Notice{Kind: "bad", Message: "Codes cannot be checked while the server is sealed.", Hint: "Use a passkey, or wait."}), nil
}

func (s *Sealed) signInByPasskey(v *visit) (answer, error) {
	token, err := s.cfg.People.HoldSignIn(v.ctx(), s.cfg.Waiting, v.form("flow"), []byte(v.form("credential")), s.site.address(v.r))
	if f := fault.Of(err); err != nil && f.Kind != fault.Internal && f.Kind != fault.Unavailable {
		return s.signIn(v, status(f.Kind), &Notice{Kind: "bad", Message: f.Message, Hint: f.Hint}), nil
	}
	if err != nil {
		return nil, err
	}
	s.site.cookie.set(v.w, token)
	return goTo(safeNext(v.form("next"))), nil
}

// closed says why, and looks again by itself.
func (s *Sealed) closed(v *visit) (answer, error) {
	if v.r.Method == http.MethodGet {
		v.w.Header().Set("Refresh", "5")
	}
	why := s.cfg.Why()
	if tokens, _ := s.site.cookie.tokens(v.r); len(tokens) == 0 {
		why = why.WithHint(why.Hint + " You can sign in meanwhile at " + s.cfg.PublicURL.JoinPath("/ui/signin").String() + ".")
	}
	return nil, why
}
