package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"crypto/rand"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/throttle"
	"github.com/ambit-dev/ambit/internal/vault"
)

const (
	// maxForm bounds a posted form; the largest is a provider's record.
	maxForm = 1 << 20
	// maxUpload bounds one with a file, which is a value of a secret.
	maxUpload = vault.MaxValue + 256<<10
)

// visit is one request and who makes it. here is the organization that the page
// is about: named by ?org=, else the person's first.
type visit struct {
	w      http.ResponseWriter
	r      *http.Request
	person account.Person
	here   account.Membership
	urgent bool // it ends access
}

// briefly runs what only reads, for the words of the page, after something has
// ended: it may take a moment, and then does without.
func (v *visit) briefly(read func()) {
	was := v.r
	ctx, cancel := context.WithTimeout(v.ctx(), time.Second)
	defer cancel()
	v.r = was.WithContext(ctx)
	read()
	v.r = was
}

func (v *visit) ctx() context.Context { return v.r.Context() }

// form gives a field of the form or the query, without space around it.
func (v *visit) form(name string) string { return strings.TrimSpace(v.r.Form.Get(name)) }

// version is of what the form was made; 0 where it does not say.
func (v *visit) version() int64 {
	n, _ := strconv.ParseInt(v.form("version"), 10, 64)
	return n
}

// fields gives those of a posted form that are not empty and begin with prefix,
// without it.
func (v *visit) fields(prefix string) map[string]string {
	out := map[string]string{}
	for name := range v.r.PostForm {
		if field, ok := strings.CutPrefix(name, prefix); ok && v.form(name) != "" {
			out[field] = v.form(name)
		}
	}
	return out
}

func (v *visit) signedIn() bool { return v.person.User() != "" }

// actor is the person acting in the environment of here.
func (v *visit) actor() account.Actor { return v.actorIn(v.here.Environment) }

func (v *visit) actorIn(env id.Environment) account.Actor {
	return account.ByPerson(v.person).In(env).From(v.person.Address())
}

func (v *visit) may(p account.Permission) bool {
	return v.actor().May(v.here.Organization, p) == nil || v.here.Runs && v.actor().May("", p) == nil
}

// at moves here to an organization, if the person is a member of it.
func (v *visit) at(org id.Organization) {
	for _, m := range v.person.Organizations() {
		if m.Organization == org {
			v.here = m
		}
	}
}

// anywhere tries what the person names in each of their environments. What is
// found nowhere is not found, whoever else may have it.
func (v *visit) anywhere(try func(by account.Actor) (id.Organization, error)) error {
	err := error(fault.New(fault.NotFound, "not_found", "There is nothing here for you.").
		WithHint("It may belong to somebody else, or the address is incomplete."))
	seen := map[id.Environment]bool{}
	for _, m := range append([]account.Membership{v.here}, v.person.Organizations()...) {
		if m.Environment == "" || seen[m.Environment] {
			continue
		}
		seen[m.Environment] = true
		org, tried := try(v.actorIn(m.Environment))
		if tried == nil {
			v.at(org)
			return nil
		}
		if fault.KindOf(tried) != fault.NotFound {
			return tried
		}
		err = tried
	}
	return err
}

// proof reads the answer to a challenge from the form.
func (v *visit) proof() account.Proof {
	p := account.Proof{TOTP: strings.ReplaceAll(v.form("code"), " ", "")}
	if c := v.form("credential"); c != "" {
		p = account.Proof{Assertion: []byte(c)}
	}
	return p
}

// answer is what a handler gives.
type answer interface{ send(s *Server, v *visit) }

// show answers with a page.
func show(p page) answer { return shown{http.StatusOK, p} }

type shown struct {
	status int
	page   page
}

func (a shown) send(s *Server, v *visit) {
	f := a.page.frame()
	switch {
	case !v.signedIn() || f.Bare:
	case f.Plain || v.person.Vouched():
		f.Plain, f.Viewer = true, &Viewer{Name: v.person.Name(), Organization: place(v.here)}
	case v.urgent:
		v.briefly(func() { f.Viewer = s.viewer(v) })
	default:
		f.Viewer = s.viewer(v)
	}
	if f.Note == nil {
		f.Note = notes(v.r.URL.Query().Get("done"))
	}
	s.renderer.render(v.w, a.status, a.page)
}

// again answers with the page of a form that was refused, and why.
func again(p page, err error) (answer, error) {
	f := fault.Of(err)
	switch f.Kind {
	case fault.Internal, fault.Unauthenticated, fault.NotFound, fault.Unavailable:
		return nil, err
	}
	p.frame().Problem = &Notice{Kind: "bad", Message: f.Message, Hint: f.Hint}
	return shown{status(f.Kind), p}, nil
}

// goTo answers with a way on, always to a page of ours.
type goTo string

func (to goTo) send(_ *Server, v *visit) { http.Redirect(v.w, v.r, string(to), http.StatusSeeOther) }

// options answers a form that asks for a passkey ceremony.
type options struct {
	Options json.RawMessage `json:"options"`
	Flow    string          `json:"flow,omitempty"`
}

func (o options) send(_ *Server, v *visit) { writeJSON(v.w, http.StatusOK, o) }

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// handle runs a route: who is it, what was sent, then the handler.
func (s *Server) handle(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := &visit{w: w, r: r, urgent: rt.urgent()}
		w.Header().Set("Cache-Control", "no-store")
		if err := s.recognise(v); err != nil && (!rt.open || fault.KindOf(err) != fault.Unauthenticated) {
			s.refuse(v, err)
			return
		}
		if v.person.Vouched() && !rt.open && !connecting(rt.pattern) { // enough to connect, and as good as nothing here
			v.person, v.here = account.Person{}, account.Membership{}
			s.refuse(v, fault.New(fault.Unauthenticated, "unauthenticated", "This needs a sign-in of your own.").WithHint("Sign in."))
			return
		}
		if err := s.parse(v); err != nil {
			s.refuse(v, err)
			return
		}
		a, err := rt.serve(v)
		if err != nil {
			s.refuse(v, err)
			return
		}
		a.send(s, v)
	})
}

// recognise finds the person behind the cookie, and has the request count as
// theirs. What others planted beside it is passed over; two that are good are
// nobody's, as is one that no longer counts, and are taken away (threats.md W2).
func (s *Server) recognise(v *visit) error {
	tokens, sent := s.cookie.tokens(v.r)
	authenticate := s.people.Authenticate
	if v.urgent {
		authenticate = s.people.Urgently().Authenticate
	}
	var good []account.Person
	refused := error(fault.New(fault.Unauthenticated, "unauthenticated", "You are not signed in, or not any more.").WithHint("Sign in."))
	for i, token := range tokens {
		p, err := authenticate(v.ctx(), token, s.address(v.r))
		if err == nil && p.CLI() {
			err = fault.New(fault.Unauthenticated, "unauthenticated", "This sign-in belongs to a command line.")
		}
		switch {
		case err == nil:
			good = append(good, p)
		case fault.KindOf(err) != fault.Unauthenticated:
			return err
		case i == 0:
			refused = err
		}
	}
	if len(good) != 1 {
		if sent {
			s.cookie.clear(v.w)
		}
		return refused
	}
	p := good[0]
	group, caller := account.ByPerson(p).Counted()
	if err := throttle.Known(v.w, group, caller); err != nil {
		return err // said as to anybody: a frame of their own takes work
	}
	v.person = p
	if list := p.Organizations(); len(list) > 0 {
		v.here = list[0]
	}
	return nil
}

// parseForm reads the form into memory, also one with a file: a value is never on
// disk as it is.
func (v *visit) parseForm() error {
	kind, _, _ := mime.ParseMediaType(v.r.Header.Get("Content-Type"))
	if kind != "multipart/form-data" {
		v.r.Body = http.MaxBytesReader(v.w, v.r.Body, maxForm)
		return v.r.ParseForm()
	}
	v.r.Body = http.MaxBytesReader(v.w, v.r.Body, maxUpload)
	return v.r.ParseMultipartForm(maxUpload)
}

// parse reads the form, and the organization that it is about: one that the
// person is in, or one of an environment that they run.
func (s *Server) parse(v *visit) error {
	if err := v.parseForm(); err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return fault.New(fault.TooLarge, "form_too_large", "That is too large: a value has 1 MiB at most.").WithCause(err)
		}
		return fault.New(fault.Invalid, "invalid_form", "The form could not be read.").WithHint("Go back, reload the page and send it again.").WithCause(err)
	}
	if org := v.form("org"); org != "" && v.signedIn() {
		find := s.people.Place
		if v.urgent {
			find = s.people.Urgently().Place
		}
		var err error
		v.here, err = find(v.ctx(), v.person, id.Organization(org))
		return err
	}
	return nil
}

// refuse answers an error: to a script as JSON, to a browser as a page. Whoever
// is not signed in is sent to do that first.
func (s *Server) refuse(v *visit, err error) {
	f := fault.Of(err)
	request := v.w.Header().Get("X-Request-Id")
	if (f.Kind == fault.Internal || f.Kind == fault.Unavailable) && f.Code != audit.CodeSealed { // that one anybody could fill the log with
		s.log.Error("a page failed", "request_id", request, "method", v.r.Method, "path", v.r.Pattern, "error", err)
	}
	retryAfter(v.w, f)
	switch {
	case strings.Contains(v.r.Header.Get("Accept"), "application/json"):
		writeJSON(v.w, status(f.Kind), map[string]string{"code": f.Code, "message": f.Message, "hint": f.Hint, "request_id": request})
	case f.Kind == fault.Unauthenticated && v.r.Method == http.MethodGet && !strings.HasPrefix(v.r.URL.Path, "/ui/signin"):
		next := safeNext(v.r.URL.RequestURI())
		if strings.HasPrefix(v.r.URL.Path, "/ui/callback/") {
			next = "/ui/connections" // a provider's answer does not travel in an address of ours
		}
		http.Redirect(v.w, v.r, "/ui/signin?next="+url.QueryEscape(next), http.StatusSeeOther)
	default:
		title := map[fault.Kind]string{fault.NotFound: "Nothing here", fault.Denied: "Not allowed", fault.Expired: "Too late", fault.Limited: "Too many attempts",
			fault.Internal: "Something went wrong", fault.Unavailable: "Not available right now", fault.Unauthenticated: "Please sign in"}[f.Kind]
		if title == "" {
			title = "That did not work"
		}
		p := &ErrorPage{Frame: Frame{Title: title, Narrow: true}, Message: f.Message, Hint: f.Hint, Request: request}
		switch {
		case f.Kind == fault.Unauthenticated:
			p.Back, p.BackLabel = "/ui/signin?next=/ui/account", "Sign in again"
		case fault.Is(err, "unlock_required"):
			p.Back, p.BackLabel = "/ui/account", "Your account"
		case strings.HasPrefix(v.r.URL.Path, "/ui/callback/"):
			p.Back, p.BackLabel = "/ui/connections/new?provider="+url.QueryEscape(v.r.PathValue("provider")), "Start again"
		}
		shown{status(f.Kind), p}.send(s, v)
	}
}

func retryAfter(w http.ResponseWriter, f *fault.Error) {
	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(f.RetryAfter.Seconds())+1))
	}
}

func status(k fault.Kind) int {
	switch k {
	case fault.Invalid:
		return http.StatusUnprocessableEntity
	case fault.Unauthenticated:
		return http.StatusUnauthorized
	case fault.Denied:
		return http.StatusForbidden
	case fault.NotFound:
		return http.StatusNotFound
	case fault.Conflict:
		return http.StatusConflict
	case fault.Expired:
		return http.StatusGone
	case fault.Limited:
		return http.StatusTooManyRequests
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	case fault.TooLarge:
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusInternalServerError
}

func (s *Server) absent(*visit) (answer, error) {
	return nil, fault.New(fault.NotFound, "not_found", "There is no such page.").WithHint("Check the address.")
}

// policy is the Content-Security-Policy of every answer: our own script and
// style only, and no way for script to make markup from text.
const policyHeader = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; " +
	"base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// guarded puts the headers on every answer and refuses forms that another
// origin sent (threats.md A6, A7).
func (s *Server) guarded(next http.Handler) http.Handler {
	same := http.NewCrossOriginProtection()
	same.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.refuse(&visit{w: w, r: r}, fault.New(fault.Denied, "cross_origin", "This form came from another site.").WithHint("Open Ambit itself and do it there."))
	}))
	inner := same.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		for name, value := range map[string]string{
			"Content-Security-Policy":      policyHeader,
			"Cross-Origin-Opener-Policy":   "same-origin",
			"Cross-Origin-Resource-Policy": "same-origin",
			"X-Frame-Options":              "DENY",
			"X-Content-Type-Options":       "nosniff",
			"Referrer-Policy":              "no-referrer",
			"Permissions-Policy":           "publickey-credentials-get=(self), publickey-credentials-create=(self), camera=(), geolocation=(), microphone=(), payment=(), usb=()",
			"Cache-Control":                "no-store",
		} {
			h.Set(name, value)
		}
		if h.Get("X-Request-Id") == "" {
			h.Set("X-Request-Id", "req_"+strings.ToLower(rand.Text()[:18]))
		}
		inner.ServeHTTP(w, r)
	})
}

// viewer is the signed-in person as the frame shows them.
func (s *Server) viewer(v *visit) *Viewer {
	out := &Viewer{Name: v.person.Name(), Organization: place(v.here)}
	list := v.person.Organizations()
	for _, m := range list {
		out.Organizations = append(out.Organizations, place(m))
	}
	if len(list) > 1 && list[0].Organization != v.here.Organization {
		out.Query = "?org=" + string(v.here.Organization)
	}
	open, err := s.sessions.Inbox(v.ctx(), v.person)
	if err != nil {
		s.log.Warn("open requests could not be counted", "error", err)
	}
	out.Pending = len(open)
	if out.Notices, err = s.notices(v); err != nil {
		s.log.Warn("notices could not be read", "error", err)
	}
	out.Here = home
	if v.r.Method == http.MethodGet {
		out.Here = safeNext(v.r.URL.RequestURI())
	}
	return out
}

func place(m account.Membership) Place {
	return Place{ID: string(m.Organization), Name: m.OrganizationName, Environment: m.EnvironmentName}
}

// codeAllowed says whether a page may offer a code in place of a passkey.
func (s *Server) codeAllowed(v *visit) bool {
	has, err := s.people.HasCode(v.ctx(), v.person)
	if err != nil || !has || v.here.Organization == "" {
		return has
	}
	org, err := s.people.Organization(v.ctx(), v.here.Environment, v.here.Organization)
	return err == nil && !org.RequirePasskey
}

// challenge answers a form with a challenge over exactly digest.
func (s *Server) challenge(v *visit, digest [32]byte) (answer, error) {
	o, err := s.people.Challenge(v.ctx(), v.person, digest)
	return options{Options: o}, err
}

// notes are the messages that a page may be opened with. The address carries a
// code, never the text.
func notes(code string) *Notice {
	text := map[string]string{
		"saved": "Saved.", "role": "The role was changed.", "removed": "Removed.", "added": "Added.", "disabled": "Disabled. Its sessions have ended.", "muted": "Muted. Its requests are refused.", "unmuted": "It may ask again.",
		"enabled": "Enabled again.", "key_revoked": "The key no longer works.", "passkey": "The passkey was added.", "passkey_removed": "The passkey was removed.",
		"authenticator": "The authenticator app is set up.", "user_disabled": "They are shut out, and what acted for them has ended.", "user_enabled": "They can sign in again.",
		"environment": "The environment is there, and you own it. It stands in the menu.", "signed_out": "Signed out there.", "identity": "From now on you can sign in there too.", "identity_gone": "That sign-in is no longer yours here.",
		"signin_added": "Added. Tell the provider the redirect address below, then give members theirs.", "signin_removed": "Removed. Whoever signed in there is signed out.", "second": "You are in. Add a second passkey now: on another device, or a security key.",
		"webhook_off": "It is off. What happens meanwhile is kept for a month.", "webhook_test": "A trial is on its way.", "webhook_replay": "Sent again, with the same ids.",
		"stored": "Stored.", "restored": "The old value is the current one again.", "secret_deleted": "Deleted. It can be taken back for 30 days.", "undeleted": "It is back.",
		"key_rotated": "The key has another version. What is under the old one follows by itself.", "key_reencrypted": "The key has another version. Every value is encrypted anew under it, by itself.",
		"migrating": "What is not under the root key yet is moved now.", "doubted": "Forgotten on every node. The keeper is asked before this root key is used again.",
		"unbound": "Taken out. Keep the key usable until nothing is under it.", "bound": "Bound. What is sealed from now on is under this root key, and what was sealed before follows by itself.",
	}[code]
	if text == "" {
		return nil
	}
	return &Notice{Kind: "good", Message: text}
}

func logFailure(log *slog.Logger, what string, err error) {
	if err != nil {
		log.Warn(fmt.Sprintf("%s failed", what), "error", err)
	}
}
