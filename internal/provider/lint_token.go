package provider

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// revokeStyles are the ways in which providers take tokens back.
var revokeStyles = []string{"rfc7009", "rfc7009_json", "bearer", "bearer_delete", "client_delete", SignOAuth1, DeleteOAuth1, "none"}

// authorizeParams are set by the flow itself (RFC 6749 §4.1.1, RFC 7636 §4.3).
var authorizeParams = []string{"client_id", "redirect_uri", "response_type", "state", "scope", "code_challenge", "code_challenge_method"}

// droppable can be left out without loss to the flow's safety.
var droppable = []string{"response_type", "scope"}

// tokens checks how the token endpoint is asked, and its answer read.
func (l *linter) tokens(o *OAuth) {
	if o.ClientIDParam == "" {
		o.ClientIDParam = "client_id"
	}
	switch taken := append([]string{"client_secret", "grant_type", "code", "code_verifier", "refresh_token"}, authorizeParams[1:]...); {
	case !validParam(o.ClientIDParam):
		l.add("oauth2.client_id_param", "Use the parameter's name, such as client_key.", "%s is not a plain parameter name.", quoted(o.ClientIDParam))
	case slices.Contains(taken, o.ClientIDParam):
		l.add("oauth2.client_id_param", "Remove it.", "The flow itself sets this parameter.")
	}
	if o.TokenBody == "" {
		o.TokenBody = "form"
	}
	if o.TokenBody != "form" && o.TokenBody != "json" {
		l.add("oauth2.token_body", "Use form or json.", "%s is not known.", quoted(o.TokenBody))
	}
	for i, name := range o.AuthorizeDrop {
		if !slices.Contains(droppable, name) {
			l.add(fmt.Sprintf("oauth2.authorize_drop[%d]", i), "Only "+strings.Join(droppable, " and ")+" can be dropped.", "The flow needs %s.", quoted(name))
		}
	}
	if at := o.Answer.At; at != "" && (!validParam(at) || at == "error") {
		l.add("oauth2.token_answer.at", "Name the member of the answer, such as authed_user.", "%s is not a member's name.", quoted(at))
	}
	for _, w := range []struct {
		at string
		s  *Swap
	}{{"oauth2.longer", o.Longer}, {"oauth2.refresh.swap", o.Refresh.Swap}} {
		if w.s != nil {
			l.swap(w.at, w.s)
		}
	}
	if o.Refresh.Swap != nil && o.Refresh.URL != "" {
		l.add("oauth2.refresh.url", "Remove it.", "swap has its own.")
	}
	if o.Refresh.URL != "" {
		l.url("oauth2.refresh.url", o.Refresh.URL, true)
	}
}

func (l *linter) swap(at string, s *Swap) {
	l.url(at+".url", s.URL, true)
	if s.Token == "" {
		s.Token = FieldAccessToken
	}
	if s.Client == "" {
		s.Client = "none"
	}
	l.oneOf(at+".client", s.Client, "both", "secret", "none")
	if !validParam(s.Token) || !validParam(s.Grant) || s.Token == "client_secret" || s.Token == "grant_type" {
		l.add(at, "Write grant_type and token_param as the provider spells them.", "%s and %s are no parameters.", quoted(s.Grant), quoted(s.Token))
	}
}

// validParam accepts the names that parameters and members have in practice.
func validParam(s string) bool {
	for i := range len(s) {
		if !isAlnum(s[i]) && s[i] != '_' && s[i] != '-' && s[i] != '.' {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

func (r *Record) lintAbout(l *linter) {
	if r.Pipes != "" && !validWireSlug(r.Pipes) {
		l.add("pipes", "Use 2 to 60 of a-z, 0-9 and -, starting with a letter.", "%s is not a slug of Pipes.", quoted(r.Pipes))
	}
	if c := r.About.Confidence; c != "" && !slices.Contains([]string{"high", "medium", "low"}, c) {
		l.add("about.confidence", "Use high, medium or low.", "%s is not known.", quoted(c))
	}
	l.day("about.tried", r.About.Tried)
	for i, u := range r.About.Docs {
		l.url(fmt.Sprintf("about.docs[%d]", i), u, false)
	}
	for i, n := range r.About.Notes {
		l.text(fmt.Sprintf("about.notes[%d]", i), n, 500, true, false)
	}
}

func (l *linter) day(field, day string) {
	if _, err := time.Parse(time.DateOnly, day); err != nil && day != "" {
		l.add(field, "Write the day as 2006-01-02, or leave it out.", "%s is not a day.", quoted(day))
	}
}

func validWireSlug(s string) bool {
	if len(s) < 2 || len(s) > 60 || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	return !strings.ContainsFunc(s, func(c rune) bool { return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' })
}
