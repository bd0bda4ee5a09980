package provider

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/outbound"
)

// pollPlan is how an answer that says "not yet" is followed up.
type pollPlan struct {
	status int
	path   pathTemplate // its placeholders are fields of the answer
	most   time.Duration
}

const (
	defaultPoll = 30 * time.Second
	firstPoll   = 500 * time.Millisecond
	lastPoll    = 5 * time.Second
)

func (p *plan) compilePoll(l *linter, field string, s *PollSpec) {
	if s == nil {
		return
	}
	out := &pollPlan{status: s.Status, most: time.Duration(s.Seconds) * time.Second}
	if s.Status == 0 {
		out.status = http.StatusAccepted
	}
	if s.Seconds == 0 {
		out.most = defaultPoll
	}
	if out.status < 200 || out.status > 299 {
		l.add(field+".status", "Use the status of an answer that is no answer yet, such as 202.", "%d cannot be followed up.", s.Status)
	}
	if s.Seconds < 0 || s.Seconds > 60 {
		l.add(field+".seconds", "Use 1 to 60.", "%d is out of range.", s.Seconds)
	}
	path, problem := parsePath(s.Path, false)
	if problem == "" && len(path.segments) > 0 && path.segments[len(path.segments)-1].many {
		problem = "has a {name*}."
	}
	if problem != "" {
		l.add(field+".path", `Write it as "/statements/{statementHandle}".`, "The path %s", problem)
	}
	out.path, p.poll = path, out
}

// follow asks for the outcome of a request that the provider has taken, until
// there is one or the time is up. What cannot be followed stays as it was first
// answered: the agent can go on from there.
func (p *pollPlan) follow(ctx context.Context, client *outbound.Client, pinned Pinned, rec Record, first *Request, cred Credential, resp *outbound.Response) *outbound.Response {
	at, ok := p.place(first, resp.Body)
	if !ok {
		return resp
	}
	ctx, cancel := context.WithTimeout(ctx, p.most)
	defer cancel()
	req := &Request{Method: http.MethodGet, URL: at}
	for wait := firstPoll; ; wait = min(2*wait, lastPoll) {
		select {
		case <-ctx.Done():
			return resp
		case <-time.After(wait):
		}
		next, _, err := rec.send(ctx, client, outbound.Bound{Bases: pinned.API, Party: cred.Party}, pinned.Realm, req, cred, outbound.Limits{})
		if err != nil || next.Status == http.StatusUnauthorized || next.Status == http.StatusTooManyRequests || next.Status >= 500 {
			return resp
		}
		if resp = next; resp.Status != p.status {
			return resp
		}
	}
}

// place builds the URL below the base of the first request. A field of the
// answer becomes one encoded segment, as an argument would.
func (p *pollPlan) place(first *Request, body []byte) (*url.URL, bool) {
	var out strings.Builder
	out.WriteString(strings.TrimRight(first.base, "/"))
	for _, seg := range p.path.segments {
		text := seg.before
		if seg.arg != "" {
			value, ok := fieldOf(body, seg.arg)
			if !ok {
				return nil, false
			}
			text += value + seg.after
		}
		enc, err := encodeSegment(text)
		if err != nil {
			return nil, false
		}
		out.WriteString("/" + enc)
	}
	u, err := url.Parse(out.String())
	return u, err == nil
}
