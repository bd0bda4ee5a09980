package provider

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/ambit-dev/ambit/internal/failpoint"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/telemetry"
)

// Answer is what an agent may see of an upstream's answer.
type Answer struct {
	Status int
	Header http.Header // allow-listed names, redacted values
	// Body has passed the redactor and the cut list. It is JSON when JSON is
	// set, else UTF-8 text, or bytes when Binary is set, of the media type Media if
	// the upstream named one.
	Body      []byte
	JSON      bool
	Binary    bool
	Media     string // type/subtype, lower case
	Truncated bool
	Withheld  string // why there is no body, when the upstream sent one
	// AuthFailed means that the upstream refused the credential (401). What it
	// said is not passed on; the credential room decides what happens next.
	AuthFailed bool
}

// Call sends the request with the credential and cleans the answer. An error is
// outbound's; [outbound.Sent] tells whether the request may have arrived, and
// [outbound.Answered] whether an answer did.
func Call(ctx context.Context, client *outbound.Client, pinned Pinned, rec Record, tool Tool, req *Request, cred Credential) (Answer, error) {
	if tool.plan == nil || req == nil {
		return Answer{}, fault.New(fault.NotFound, "not_found", "No such tool.")
	}
	if err := failpoint.Hit("call: before send"); err != nil {
		return Answer{}, err
	}
	if req.sql != nil || req.mcp != nil {
		run := callSQL
		if req.mcp != nil {
			run = callMCP
		}
		a, err := run(ctx, client, pinned, rec, tool, req, cred)
		if err == nil {
			err = failpoint.Hit("call: answered")
		}
		return a, err
	}
	resp, red, err := rec.send(ctx, client, outbound.Bound{Bases: pinned.API, Party: cred.Party}, pinned.Realm, req, cred, outbound.Limits{})
	if err == nil {
		err = failpoint.Hit("call: answered")
	}
	if err != nil {
		return Answer{}, err
	}
	if p := tool.plan.poll; p != nil && resp.Status == p.status {
		resp = p.follow(ctx, client, pinned, rec, req, cred, resp)
	}
	telemetry.Enter(ctx, telemetry.Redact)
	// Cleaning takes a few times the answer's size, so the process does not do
	// it for any number of answers at once.
	done, err := client.Hold(ctx, len(resp.Body))
	if err != nil {
		return Answer{Status: resp.Status, Header: http.Header{}, AuthFailed: resp.Status == http.StatusUnauthorized, Withheld: tooBusy}, nil
	}
	defer done()
	return clean(resp, req.URL, red, tool), nil
}

const tooBusy = "The server was too busy to read the provider's answer in time (busy). The request has been made."

// send builds the final HTTP request. The credential goes in after everything
// else, so nothing can take its place or see it.
func (r Record) send(ctx context.Context, client *outbound.Client, bound outbound.Bound, realm string, req *Request, cred Credential, lim outbound.Limits) (*outbound.Response, *Redactor, error) {
	u := *req.URL
	if !bound.Contains(&u) {
		return nil, nil, fault.New(fault.Denied, "destination_denied", "The request goes to a place that this connection is not bound to.").
			WithHint("If the provider's record changed, reconnect.")
	}
	out := &http.Request{Method: req.Method, URL: &u, Header: http.Header{}}
	for name, value := range r.DefaultHeaders {
		out.Header.Set(name, value)
	}
	for name, values := range req.Header {
		out.Header[http.CanonicalHeaderKey(name)] = append([]string(nil), values...)
	}
	setDefault(out.Header, "Accept", "application/json")
	if req.Body != nil {
		out.Body = io.NopCloser(bytes.NewReader(req.Body))
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(req.Body)), nil }
		out.ContentLength = int64(len(req.Body))
	}
	cred, err := r.bought(ctx, client, realm, out, cred)
	if err != nil {
		return nil, nil, err
	}
	red, err := r.Inject(out, cred)
	if err != nil {
		return nil, nil, err
	}
	if bound.Certificate, err = r.certificate(cred); err != nil {
		return nil, nil, err
	}
	resp, err := client.Do(ctx, bound, out, lim)
	if status, ok := outbound.Answered(err); ok && status == http.StatusUnauthorized {
		// The credential is refused, however that is written: the text is not passed on.
		resp, err = &outbound.Response{Status: status, Header: http.Header{}, Sent: true}, nil
	}
	return resp, red, err
}

func clean(resp *outbound.Response, at *url.URL, red *Redactor, tool Tool) Answer {
	a := Answer{Status: resp.Status, Header: answerHeader(resp.Header, at, red)}
	switch {
	case resp.Status == http.StatusUnauthorized:
		a.AuthFailed = true
		a.Withheld = "The provider refused the credential; its message is not passed on."
		return a
	case resp.Status >= 300 && resp.Status < 400:
		if loc := resp.Header.Get("Location"); loc != "" {
			a.Header.Set("Location", Redacted)
			if sameHost(loc, at) {
				a.Header.Set("Location", string(red.Text([]byte(loc))))
			}
			a.Withheld = "A redirect is not followed."
		}
		return a
	}
	a.body(resp, red, tool)
	return a
}

func (a *Answer) body(resp *outbound.Response, red *Redactor, tool Tool) {
	text := bytes.TrimPrefix(resp.Body, []byte("\xef\xbb\xbf"))
	if len(bytes.TrimSpace(text)) == 0 {
		return
	}
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	declared := media == "application/json" || strings.HasSuffix(media, "+json") || strings.HasSuffix(media, "json-seq") || strings.HasSuffix(media, "ndjson")
	cut := tool.plan.cut
	if len(tool.plan.decode) > 0 { // before the search, which then reads what is shown
		text = decodeFields(text, tool.plan.decode)
	}
	if resp.Status < http.StatusBadRequest {
		text = tool.plan.keep.of(text)
	}
	switch out, ok := red.JSON(text, cut); {
	case ok && !red.Finds(out):
		a.Body, a.JSON = out, utf8.Valid(out) && !bytes.ContainsRune(out, '\n')
	case ok: // a form that only the whole text shows, across values
		a.Body = red.Text(out)
	case declared && len(cut) > 0:
		a.Withheld = "The provider's answer says it is JSON but is not, so the fields that hold credentials cannot be cut from it."
		return
	case media == "application/x-www-form-urlencoded":
		a.Body = red.form(text, cut)
	default:
		a.Body = red.Text(text)
	}
	if a.Binary = !utf8.Valid(a.Body) || bytes.IndexByte(a.Body, 0) >= 0; a.Binary && plainMedia.MatchString(media) {
		a.Media = media
	}
	if limit := tool.Output.MaxBytes; len(a.Body) > limit {
		a.Body, a.Truncated, a.JSON = bytes.Clone(a.Body[:limit]), true, false // the rest can go
		for n := 0; !a.Binary && n < utf8.UTFMax && !utf8.Valid(a.Body); n++ {
			a.Body = a.Body[:len(a.Body)-1]
		}
	}
}

// plainMedia is a media type that says nothing else.
var plainMedia = regexp.MustCompile(`^[a-z]+/[a-z0-9][a-z0-9.+-]{0,79}$`)

func atEnd(err error) bool { return errors.Is(err, io.EOF) }
