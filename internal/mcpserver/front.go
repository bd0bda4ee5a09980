package mcpserver

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/throttle"
)

const (
	maxBody     = 1 << 20 // bytes
	maxArriving = 64      // bodies of one agent at once
)

// ServeHTTP takes one message. Nothing of the inbound request goes further than
// this file but its body, its three MCP headers and the caller's address: no
// header of an agent ever reaches an upstream (threats.md S1), and no cookie is
// looked at (S11).
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if p := s.checkRequest(r); p != nil {
		p.write(w, nil)
		return
	}
	who, p := s.authenticate(r)
	if p != nil {
		p.write(w, nil)
		return
	}
	if err := throttle.Known(w, string(who.Organization()), string(who.Agent())); err != nil {
		overloaded(fault.Of(err)).write(w, nil)
		return
	}
	body, p := s.readBody(w, r, who)
	if p != nil {
		p.write(w, nil)
		return
	}
	m, p := parse(body)
	if p != nil {
		p.write(w, m.id)
		return
	}
	m.trace = traceparent(r.Header, m.meta)
	rev, p := revisionOf(r.Header, m)
	if p != nil {
		p.write(w, m.id)
		return
	}
	s.dispatch(w, r, who, m, rev)
}

// checkRequest refuses what no agent sends: pages of other origins (threats.md
// S10), forms (S11), bodies in a coding that would hide their size.
func (s *Server) checkRequest(r *http.Request) *problem {
	h := r.Header
	if o, sent := h["Origin"]; sent && (len(o) != 1 || strings.ToLower(o[0]) != s.origin) {
		return invalid(http.StatusForbidden, "Requests from web pages of another origin are refused.")
	}
	for _, site := range h["Sec-Fetch-Site"] {
		if !strings.EqualFold(site, "same-origin") && !strings.EqualFold(site, "none") {
			return invalid(http.StatusForbidden, "Requests from web pages of another site are refused.")
		}
	}
	if r.Method != http.MethodPost {
		p := invalid(http.StatusMethodNotAllowed, "This endpoint takes POST only; it keeps no streams and no sessions.")
		p.header = http.Header{"Allow": {http.MethodPost}}
		return p
	}
	if !isJSON(h["Content-Type"]) {
		return invalid(http.StatusUnsupportedMediaType, "Content-Type must be application/json.")
	}
	if coding := h["Content-Encoding"]; len(coding) > 0 && !strings.EqualFold(strings.Join(coding, ","), "identity") {
		return invalid(http.StatusUnsupportedMediaType, "Content-Encoding is not taken.")
	}
	if !accepts(h["Accept"]) {
		return invalid(http.StatusNotAcceptable, "Accept must list application/json and text/event-stream.")
	}
	if r.ContentLength > maxBody {
		return tooLarge()
	}
	if ok, wait := s.byAddress.Allow(throttle.Address(r.RemoteAddr)); !ok {
		return limited("Too many requests come from this address.", wait)
	}
	return nil
}

func isJSON(contentType []string) bool {
	if len(contentType) != 1 {
		return false
	}
	typ, params, err := mime.ParseMediaType(contentType[0])
	if err != nil || typ != "application/json" {
		return false
	}
	for k, v := range params {
		if k != "charset" || !strings.EqualFold(v, "utf-8") {
			return false
		}
	}
	return true
}

// accepts holds Accept against the transport's rule: a client takes both media
// types. No header at all means that it takes anything (RFC 9110 §12.5.1).
func accepts(accept []string) bool {
	if len(accept) == 0 {
		return true
	}
	var doc, stream bool
	for part := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		typ, _, _ := strings.Cut(part, ";")
		switch strings.ToLower(strings.TrimSpace(typ)) {
		case "*/*":
			doc, stream = true, true
		case "application/json", "application/*":
			doc = true
		case "text/event-stream", "text/*":
			stream = true
		}
	}
	return doc && stream
}

// authenticate finds the agent whose token came in the Authorization header,
// the only place that is looked at, before any other work (threats.md S1).
// Every call asks anew (S4).
func (s *Server) authenticate(r *http.Request) (agent.Identity, *problem) {
	token, p := bearer(r.Header["Authorization"])
	if p == nil {
		who, err := s.agents.Authenticate(r.Context(), token)
		switch {
		case err == nil:
			if ok, wait := s.byToken.Allow(who.Token()); !ok {
				return agent.Identity{}, limited("This token makes too many requests.", wait)
			}
			if ok, wait := s.byAgent.Allow(string(who.Agent())); !ok {
				return agent.Identity{}, limited("This agent makes too many requests.", wait)
			}
			return who, nil
		case fault.KindOf(err) != fault.Unauthenticated:
			s.log.Error("an agent could not be authenticated", "error", err)
			return agent.Identity{}, unavailable(fault.Of(err).RetryAfter)
		}
		p = &problem{status: http.StatusUnauthorized, code: codeServer, message: "The access token is unknown, expired or revoked."}
		p.header = http.Header{"Www-Authenticate": {s.challenge + `, error="invalid_token", error_description="` + p.message + `"`}}
	} else if p.status == http.StatusUnauthorized {
		p.header = http.Header{"Www-Authenticate": {s.challenge}}
	}
	// Only what failed is counted here, so that one agent with a dead token
	// does not lock out its neighbours behind the same address.
	if ok, wait := s.failures.Allow(throttle.Address(r.RemoteAddr)); !ok {
		return agent.Identity{}, limited("Too many requests without a valid token come from this address.", wait)
	}
	return agent.Identity{}, p
}

// bearer reads RFC 6750's header, exactly: one header, one space.
func bearer(authorization []string) (secret.Value, *problem) {
	switch len(authorization) {
	case 0:
		return secret.Value{}, &problem{status: http.StatusUnauthorized, code: codeServer, message: "An access token is required."}
	case 1:
	default:
		return secret.Value{}, invalid(http.StatusBadRequest, "There is more than one Authorization header.")
	}
	scheme, token, _ := strings.Cut(authorization[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return secret.Value{}, &problem{status: http.StatusUnauthorized, code: codeServer, message: "An access token is required."}
	}
	return secret.FromString(token), nil
}

// traceparent is the caller's place in a trace (W3C Trace Context): what the
// message says, else what the request says.
func traceparent(h http.Header, meta object) string {
	var t string
	if str(meta["traceparent"], &t) {
		return t
	}
	return h.Get("Traceparent")
}

// readBody waits for the body. One agent may have a few on their way only: slow
// ones hold places that all agents share (threats.md W5).
func (s *Server) readBody(w http.ResponseWriter, r *http.Request, who agent.Identity) ([]byte, *problem) {
	leave, ok, _ := s.arriving.Enter(string(who.Agent()))
	if !ok {
		return nil, limited("Too many requests of this agent have yet to arrive.", time.Second)
	}
	defer leave()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, tooLarge()
	}
	if err != nil {
		return nil, invalid(http.StatusBadRequest, "The body could not be read.")
	}
	return body, nil
}

func tooLarge() *problem {
	return invalid(http.StatusRequestEntityTooLarge, "The body is over 1 MiB.")
}

func limited(message string, wait time.Duration) *problem {
	return &problem{status: http.StatusTooManyRequests, code: codeServer, message: message, header: retryHeader(wait)}
}

func overloaded(f *fault.Error) *problem {
	if f.Kind == fault.Limited {
		return limited(f.Message, f.RetryAfter)
	}
	return unavailable(f.RetryAfter)
}

func unavailable(wait time.Duration) *problem {
	return &problem{status: http.StatusServiceUnavailable, code: codeInternal, message: "A part of the server is not available. Try again.", header: retryHeader(max(wait, time.Second))}
}
