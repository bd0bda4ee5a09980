package provider

import (
	"net/url"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"

	"github.com/ambit-dev/ambit/internal/outbound"
)

// accessRule refuses one method on one path template for generic tools.
type accessRule struct {
	method string // "*" is any
	path   pathTemplate
}

// parseRule reads "METHOD /path/{x}"; "*" is any method and a final "/**" the
// whole subtree.
func parseRule(s string) (accessRule, string) {
	method, path, ok := strings.Cut(s, " ")
	if !ok || method != "*" && !slices.Contains(methods, method) {
		return accessRule{}, "does not start with a method or *."
	}
	t, problem := parsePath(path, true)
	if problem != "" {
		return accessRule{}, problem
	}
	return accessRule{method: method, path: t}, ""
}

// refused reports whether a generic request meets a rule.
func refused(rules []accessRule, bases []string, method string, base string, segments []string) bool {
	return route(method, base, segments).meets(rules, bases)
}

// routed is a request as the most lenient server would route it: its path decoded,
// without case, parameters, trailing slash, blanks and format suffix.
type routed struct {
	method, host string
	segments     []string
	unclear      bool // which nobody can route
}

func route(method, base string, segments []string) routed {
	if method == "HEAD" {
		method = "GET"
	}
	target, err := url.Parse(base)
	if err != nil {
		return routed{unclear: true}
	}
	have := append(pathSegments(target), segments...)
	for i := range have {
		have[i] = lenient(have[i])
	}
	return routed{method: method, host: target.Host, segments: have}
}

// meets reports whether the request meets a rule. Bases may overlap, so each rule is
// held against the whole path below every base on the same host.
func (r routed) meets(rules []accessRule, bases []string) bool {
	if r.unclear {
		return true
	}
	for _, b := range bases {
		u, err := url.Parse(b)
		if err != nil || !strings.EqualFold(u.Host, r.host) {
			continue
		}
		prefix := pathSegments(u)
		for _, rule := range rules {
			if rule.method != "*" && rule.method != r.method && (rule.method != "HEAD" || r.method != "GET") {
				continue
			}
			if matches(rule.path, prefix, r.segments) {
				return true
			}
		}
	}
	return false
}

// bundles reports whether a path takes requests inside its request, or a query
// that may be anything: what a generic tool is held to would not hold there.
func bundles(base string, segments []string) bool {
	all := segments
	if u, err := url.Parse(base); err == nil {
		all = append(pathSegments(u), segments...)
	}
	return slices.ContainsFunc(all, func(s string) bool {
		name, _, _ := strings.Cut(lenient(s), ".")
		return slices.Contains([]string{"batch", "graphql", "composite", "jsonrpc"}, strings.Trim(name, "$_-:"))
	})
}

func pathSegments(u *url.URL) []string {
	path := strings.Trim(u.Path, "/")
	if path == "" {
		return nil
	}
	return strings.Split(path, "/")
}

func matches(t pathTemplate, prefix, have []string) bool {
	n := len(prefix) + len(t.segments)
	if len(have) < n || len(have) > n && !t.subtree {
		return false
	}
	for i := range n {
		if i < len(prefix) {
			if have[i] != lenient(prefix[i]) {
				return false
			}
			continue
		}
		seg := t.segments[i-len(prefix)]
		if seg.arg != "" {
			continue
		}
		want := lenient(seg.before)
		if have[i] == want {
			continue
		}
		if stem, _, ok := cutLast(have[i], "."); i == len(have)-1 && ok && stem == want {
			continue
		}
		return false
	}
	return true
}

func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// lenient maps a segment to what the most forgiving server would route on.
func lenient(s string) string {
	for range maxLayers {
		s = outbound.DecodeOnce(s)
	}
	s = norm.NFKC.String(s)
	s, _, _ = strings.Cut(s, ";")
	s = strings.TrimRight(strings.TrimSpace(s), ". ")
	return strings.ToLower(s)
}
