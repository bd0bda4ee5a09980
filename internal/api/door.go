package api

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/strictjson"
	"github.com/ambit-dev/ambit/internal/throttle"
	"github.com/ambit-dev/ambit/internal/vault"
)

// maxBody bounds a request, in bytes; maxValueBody one that carries a value of the
// vault, of the greatest size in any spelling of JSON.
const (
	maxBody      = 1 << 20
	maxValueBody = 6*vault.MaxValue + 256<<10
)

// humaContext is a name that can be embedded: huma.Context has a method Context.
type humaContext = huma.Context

// call is one request on its way through huma. It carries who calls: handlers
// get that as an argument, see handle.
type call struct {
	humaContext
	w   http.ResponseWriter
	r   *http.Request
	by  account.Actor
	key account.Key // set when an API key calls
}

// SetStatus makes 400 of the 422 that huma gives to input it refuses; no route
// of ours answers 422.
func (c *call) SetStatus(code int) {
	if code == http.StatusUnprocessableEntity {
		code = http.StatusBadRequest
	}
	c.humaContext.SetStatus(code)
}

// SetReadDeadline does nothing: the body has been read, and a deadline left on
// the connection would cut a long answer.
func (c *call) SetReadDeadline(time.Time) error { return nil }

// outside turns away what no route is for: agents, and addresses that send more
// than the database can take. The latter is no limit for whoever calls: many
// callers may sit behind one address. What ends sessions has a ceiling of its
// own, so that no flood elsewhere stands in its way.
func (a *API) outside(r *http.Request) error {
	address := throttle.Address(a.cfg.Address(r))
	if r.URL.Path == revocationsPath {
		address += " revocations"
	}
	if ok, wait := a.addresses.Allow(address); !ok {
		return limited(wait)
	}
	for _, h := range r.Header.Values("Authorization") {
		_, token, _ := strings.Cut(strings.TrimSpace(h), " ")
		for _, prefix := range []string{"amb_at_", "amb_rt_", "amb_cs_", handlePrefix} {
			if strings.HasPrefix(strings.TrimSpace(token), prefix) {
				return fault.New(fault.Denied, "agent_not_allowed", "Agents cannot use the management API.").
					WithHint("An agent works through /mcp, in a session that a person approved.")
			}
		}
	}
	return nil
}

// A session handle is no credential, but whoever sends one is an agent.
const handlePrefix = session.HandlePrefix

// enter is the door of every route: who calls, how often, with which body.
func (a *API) enter(w http.ResponseWriter, r *http.Request, op *huma.Operation, handler func(huma.Context)) {
	c := &call{w: w, r: r}
	if err := a.admit(c, rulesOf(op)); err != nil {
		a.refuse(w, r, err)
		return
	}
	if err := a.readBody(c, op); err != nil {
		a.refuse(w, r, err)
		return
	}
	c.humaContext = humago.NewContext(op, c.r, w)
	handler(c)
}

// admit authenticates the caller of c and holds it against the route's rules.
func (a *API) admit(c *call, rules rules) error {
	address := a.cfg.Address(c.r)
	if err := checkQuery(c.r.URL); err != nil {
		return err
	}
	if rules.open {
		return nil
	}
	if err := a.authenticate(c, address, rules.urgent || rules.ends); err != nil {
		// Counted after the fact: asked before, the failures of one would lock
		// out everybody behind the same address (threats.md W7).
		if fault.KindOf(err) == fault.Unauthenticated {
			if ok, wait := a.failures.Allow(throttle.Address(address)); !ok {
				return limited(wait)
			}
		}
		return err
	}
	group, caller := c.by.Counted()
	if err := throttle.Known(c.w, group, caller); err != nil {
		return err
	}
	if ok, wait := a.callers.Allow(caller); !ok {
		if !rules.urgent {
			return limited(wait)
		}
		if ok, wait := a.revocations.Allow(caller); !ok {
			return limited(wait)
		}
	}
	return rules.check(c)
}

// authenticate sets who calls. Only the Authorization header counts: a cookie
// would let any page of the browser act for its owner.
func (a *API) authenticate(c *call, address string, urgent bool) error {
	token, err := bearer(c.r.Header)
	if err != nil {
		return err
	}
	env, named, err := namedEnvironment(c.r)
	if err != nil {
		return err
	}
	if secret.IsToken(token, "amb_login_") {
		authenticate := a.cfg.People.Authenticate
		if urgent {
			authenticate = a.cfg.People.Urgently().Authenticate
		}
		p, err := authenticate(c.r.Context(), token, address)
		if err != nil {
			return err
		}
		if !p.CLI() { // the token of a browser's cookie
			return unauthenticated()
		}
		c.by, c.key = account.ByPerson(p), account.Key{}
		if named {
			if !partIn(p, env) {
				return noEnvironment()
			}
			c.by = c.by.In(env)
		}
		return nil
	}
	k, err := a.keyOf(c, token, address, urgent)
	if err != nil {
		return err
	}
	if named && env != k.Environment() {
		return noEnvironment()
	}
	c.by, c.key = account.ByKey(k).From(address), k
	return nil
}

func (a *API) keyOf(c *call, token secret.Value, address string, urgent bool) (account.Key, error) {
	if urgent {
		return a.cfg.People.Urgently().AuthenticateKey(c.r.Context(), token, address)
	}
	return a.cfg.People.AuthenticateKey(c.r.Context(), token)
}

func bearer(h http.Header) (secret.Value, error) {
	all := h.Values("Authorization")
	if len(all) != 1 {
		return secret.Value{}, unauthenticated()
	}
	scheme, token, ok := strings.Cut(all[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" || len(token) > 512 {
		return secret.Value{}, unauthenticated()
	}
	return secret.FromString(token), nil
}

func unauthenticated() error {
	return fault.New(fault.Unauthenticated, "unauthenticated", "This needs an API key or a command line's login.").
		WithHint("Send it as Authorization: Bearer …; run ambit login to get one.")
}

// namedEnvironment reads in which environment a caller wants to act.
func namedEnvironment(r *http.Request) (env id.Environment, named bool, err error) {
	header, query := r.Header.Values(environmentHeader), r.URL.Query()["environment"]
	raw := append(header[:len(header):len(header)], query...)
	if len(raw) == 0 {
		return "", false, nil
	}
	for _, other := range raw[1:] {
		if other != raw[0] {
			return "", false, fault.New(fault.Invalid, "invalid_request", "The request names two environments.").WithHint("Send " + environmentHeader + " once.")
		}
	}
	if err := parseID(&env, raw[0]); err != nil {
		return "", false, err
	}
	return env, true, nil
}

const environmentHeader = "Ambit-Environment"

func partIn(p account.Person, env id.Environment) bool {
	if p.Environment() == env {
		return true
	}
	for _, m := range p.Organizations() {
		if m.Environment == env {
			return true
		}
	}
	return false
}

func noEnvironment() error { return fault.New(fault.NotFound, "not_found", "No such environment.") }

// checkQuery refuses a query that two readers could understand in two ways.
func checkQuery(u *url.URL) error {
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return fault.New(fault.Invalid, "invalid_request", "The query of the URL is not well formed.")
	}
	for _, values := range q {
		if len(values) > 1 {
			return fault.New(fault.Invalid, "invalid_request", "The query repeats a parameter.")
		}
	}
	return nil
}

// readBody reads the body to its limit and checks it, so that huma decodes only
// what has one meaning (threats.md S13). How long it may take to arrive, and what
// limit is below ours, is for whoever serves this.
func (a *API) readBody(c *call, op *huma.Operation) error {
	tooLarge := fault.New(fault.TooLarge, "body_too_large", "The body is larger than this takes.")
	limit := int64(maxBody)
	if rulesOf(op).value {
		limit = maxValueBody
	}
	if c.r.ContentLength > limit {
		c.w.Header().Set("Connection", "close")
		return tooLarge
	}
	doc, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, limit))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge
	}
	if err != nil {
		return fault.New(fault.Invalid, "invalid_request", "The body could not be read to its end.")
	}
	c.r.Body = io.NopCloser(bytes.NewReader(doc))
	if len(doc) == 0 {
		return nil
	}
	if media, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type")); err != nil || media != "application/json" || c.r.Header.Get("Content-Encoding") != "" {
		return fault.New(fault.Invalid, "unsupported_media_type", "A body must be plain JSON.").WithHint("Send Content-Type: application/json.")
	}
	if err := strictjson.Check(doc, strictjson.Limits{Bytes: int(limit)}); err != nil {
		return err
	}
	if op.RequestBody == nil && string(bytes.TrimSpace(doc)) != "{}" {
		return fault.New(fault.Invalid, "invalid_request", "This route takes no body.")
	}
	return nil
}

func limited(wait time.Duration) error {
	return fault.New(fault.Limited, "rate_limited", "Too many requests.").WithHint("Wait and try again.").WithRetry(wait)
}
