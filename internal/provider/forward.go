package provider

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/ambit-dev/ambit/internal/failpoint"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
)

// Outgoing is a raw request that was decided on, with what its client sends.
type Outgoing struct {
	Tool    Tool
	Request *Request
	Header  http.Header // of the client, as [ClientHeader] leaves it
	Body    io.Reader   // all of it; nil: none
	Length  int64       // of Body in bytes; -1: not known
	// Whole is the body when it was read whole. It is sent instead of Body, and can
	// be sent again.
	Whole []byte
	// Trailer is filled by the time that Body ends; its names are there before.
	Trailer http.Header
	// Upgrade asks for WebSocket (RFC 6455).
	Upgrade bool
}

// Incoming is an answer that a client may see while it arrives: what is or looks
// like the credential, cookies, and the members that the record cuts are gone.
// Close it.
type Incoming struct {
	Status int
	Header http.Header
	Length int64 // of the body in bytes; -1: not known
	body   io.Reader
	from   *outbound.Stream
	red    *Redactor
	cut    map[string]bool
	fill   func(message []byte) []byte // of what goes up a socket; nil: nothing
}

// Read reads the body.
func (in *Incoming) Read(p []byte) (int, error) { return in.body.Read(p) }

// Close gives up what was not read.
func (in *Incoming) Close() error { return in.from.Close() }

// Trailer is what came after the body, once Read has given io.EOF; before, the
// names that were announced.
func (in *Incoming) Trailer() http.Header { return clientAnswer(in.from.Trailer(), in.red, in.cut) }

// Socket is the connection after a switch to WebSocket; nil: there was none. What
// is read from it has passed the redactor, frame by frame; what is written to it gets
// the credential where the record lets a placeholder stand.
func (in *Incoming) Socket() io.ReadWriter {
	s := in.from.Socket()
	if s == nil {
		return nil
	}
	up := io.Writer(s)
	if in.fill != nil {
		up = &fillingFrames{dst: s, fill: in.fill}
	}
	return struct {
		io.Reader
		io.Writer
	}{in.body, up}
}

// ClientHeader is what of a client's headers may go on: not what belongs to its
// connection with us, what says who it is or where it came from, and no cookie. A
// server may read an underscore as a dash (threats.md W4).
func ClientHeader(h http.Header) http.Header {
	own := map[string]bool{}
	for _, line := range h.Values("Connection") {
		for name := range strings.SplitSeq(line, ",") {
			own[strings.ToLower(strings.TrimSpace(name))] = true
		}
	}
	out := http.Header{}
	for name, values := range h {
		plain := strings.ToLower(strings.ReplaceAll(name, "_", "-"))
		if own[plain] || withheldHeader(plain) {
			continue
		}
		out[http.CanonicalHeaderKey(name)] = slices.Clone(values)
	}
	if httpguts.HeaderValuesContainsToken(h.Values("Te"), "trailers") {
		out.Set("Te", "trailers")
	}
	return out
}

func withheldHeader(name string) bool {
	for _, prefix := range []string{"proxy-", "cookie", "set-cookie", "x-forwarded", "x-original-", "x-rewrite-", "x-relay-", "x-workos-", "x-ambit-", "sec-fetch-", "cf-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	switch name {
	case "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect", "host", "content-length", "forwarded", "via", "x-real-ip",
		"true-client-ip", "x-client-ip", "x-cluster-client-ip", "http2-settings", "alt-used",
		"grpc-accept-encoding", "connect-accept-encoding": // what a message is compressed with could not be looked through
		return true
	}
	return false
}

// clientAnswer is what of an upstream's headers a client may see. cut holds the
// folded names of fields that are credentials, also as headers.
func clientAnswer(from http.Header, red *Redactor, cut map[string]bool) http.Header {
	own := map[string]bool{}
	for _, line := range from.Values("Connection") {
		for name := range strings.SplitSeq(line, ",") {
			own[strings.ToLower(strings.TrimSpace(name))] = true
		}
	}
	out := http.Header{}
	for name, values := range from {
		plain := strings.ToLower(name)
		switch {
		case own[plain] || strings.HasPrefix(plain, "proxy-") || strings.HasPrefix(plain, "set-cookie") || strings.HasPrefix(plain, "x-relay-") || strings.HasPrefix(plain, "x-ambit-"):
			continue
		case slices.Contains([]string{"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "alt-svc", "strict-transport-security", "public-key-pins", "clear-site-data",
			"nel", "report-to", "reporting-endpoints", "expect-ct", "service-worker-allowed", "sourcemap", "x-sourcemap", "refresh"}, plain):
			continue // of the connection, or of the host, which here is ours
		case cut[plain] || red.Finds([]byte(name)):
			continue
		}
		out[name] = nil // a trailer that is announced has no value yet
		for _, v := range values {
			out[name] = append(out[name], string(red.Text([]byte(v))))
		}
	}
	return out
}

// Forward sends a raw request with the credential, which goes in after everything
// else, and gives the answer while it arrives. An error is outbound's; see [Call].
func Forward(ctx context.Context, client *outbound.Client, pinned Pinned, rec Record, o Outgoing, cred Credential) (*Incoming, error) {
	if err := failpoint.Hit("call: before send"); err != nil {
		return nil, err
	}
	bound := outbound.Bound{Bases: pinned.Raw(""), Party: cred.Party}
	u := *o.Request.URL
	if !bound.Contains(&u) {
		return nil, fault.New(fault.Denied, "destination_denied", "The request goes to a place that this connection is not bound to.").
			WithHint("If the provider's record changed, reconnect.")
	}
	out := &http.Request{Method: o.Request.Method, URL: &u, Header: rec.outgoingHeader(o)}
	o.attach(out)
	if err := rec.restrain(out, o); err != nil { // before anything is signed
		return nil, err
	}
	cred, err := rec.bought(ctx, client, pinned.Realm, out, cred)
	if err != nil {
		return nil, err
	}
	red, err := rec.injectRaw(out, o, cred)
	if err != nil {
		return nil, err
	}
	if !bound.Contains(out.URL) { // with what took a placeholder's place
		return nil, fault.New(fault.Conflict, "credential_unusable", "The credential does not fit into the request's path.").WithHint("Reconnect.")
	}
	if bound.Certificate, err = rec.certificate(cred); err != nil {
		return nil, err
	}
	if rec.API.opens(o.Request.base) {
		bound.Certificate, bound.Party = nil, ""
	}
	from, err := client.Stream(ctx, bound, out, outbound.StreamLimits{})
	if err != nil {
		return nil, err
	}
	if err := failpoint.Hit("call: answered"); err != nil {
		_ = from.Close()
		return nil, err
	}
	in, err := rec.incoming(o, from, red)
	if err == nil && o.Upgrade && len(rec.socketPlaces()) > 0 {
		in.fill = (&filling{rec: rec, cred: cred, forms: &formSet{}}).message
	}
	return in, err
}

// injectRaw is Inject for a request that its client wrote: where there are
// placeholders, the credential goes there, else where the record puts it.
func (r Record) injectRaw(out *http.Request, o Outgoing, c Credential) (*Redactor, error) {
	var forms formSet
	for _, name := range sortedKeys(c.Values) {
		if !r.Public(name) {
			forms.add(c.Values[name].Reveal())
		}
	}
	f := &filling{rec: r, cred: c, forms: &forms}
	var err error
	switch base := o.Request.base; {
	case r.API.opens(base): // the answer that led there may hold what opens it; the credential is nothing to it
	case r.buys(out.URL): // whatever a client was given for the registry
		err = r.put(out, c, &forms)
	case r.Injection.Sign == SignAWS:
		err = r.signRaw(out, c, time.Now())
		forms.add([]byte(out.Header.Get("Authorization")))
		return newRedactor(&forms), err
	case r.API.Git.has(base): // whatever user name and password a client was given
		err = r.API.Git.Basic.put(out, c, &forms)
	default:
		err = f.request(out, o.Header)
		if err == nil && (!f.filled || len(r.Injection.Headers) > 0) { // several headers are the record's together
			err = r.put(out, c, &forms)
		}
	}
	if err == nil {
		err = f.misplaced(out)
	}
	if err != nil {
		return nil, err
	}
	return newRedactor(&forms), nil
}

// clientChooses reports whether a header is about the client's answer, and so its to say.
func clientChooses(name string) bool {
	name = strings.ToLower(name)
	return name == "user-agent" || strings.HasPrefix(name, "accept")
}

// ownHeaders are those that the record sets, whatever the client sends: its defaults,
// and where the credential goes.
func (r Record) ownHeaders() []string {
	out := append(sortedKeys(r.DefaultHeaders), sortedKeys(r.Injection.Headers)...)
	if r.Injection.Header != "" {
		out = append(out, r.Injection.Header)
	}
	for _, place := range r.Injection.Placeholder.Places {
		if name, ok := strings.CutPrefix(place, "header:"); ok {
			out = append(out, name)
		}
	}
	return out
}

// outgoingHeader is the client's, below the record's and the tool's.
func (r Record) outgoingHeader(o Outgoing) http.Header {
	out := http.Header{}
	for name, values := range o.Header {
		out[name] = slices.Clone(values)
	}
	for name, value := range r.DefaultHeaders {
		if r.API.Git.has(o.Request.base) || r.API.opens(o.Request.base) {
			break // they are the API's
		}
		if out.Get(name) == "" || !clientChooses(name) {
			out.Set(name, value)
		}
	}
	for name, values := range o.Request.Header {
		// A tool's are those that it was decided on with.
		if name = http.CanonicalHeaderKey(name); out.Get(name) == "" || !o.Tool.Generic && !clientChooses(name) {
			out[name] = slices.Clone(values)
		}
	}
	delete(out, "Authorization") // of the client: it says nothing to the provider
	if o.Upgrade {
		out.Set("Upgrade", o.Header.Get("Upgrade"))
		out.Del("Sec-Websocket-Extensions") // what is compressed could not be looked through
	}
	return out
}

// attach gives a request its body.
func (o Outgoing) attach(out *http.Request) {
	body := o.Whole
	if !o.Tool.Generic && o.Request.Body != nil { // as it was approved
		body = o.Request.Body
		out.Header.Del("Content-Encoding")
	}
	switch {
	case body != nil:
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		out.Body, _ = out.GetBody()
		out.ContentLength = int64(len(body))
		if len(body) == 0 {
			out.Body, out.GetBody = nil, nil
		}
	case o.Body != nil:
		out.Body, out.ContentLength, out.Trailer = io.NopCloser(o.Body), o.Length, o.Trailer
	}
}

// incoming puts the redactor, and what cuts members, before an answer.
func (r Record) incoming(o Outgoing, from *outbound.Stream, red *Redactor) (*Incoming, error) {
	cut := o.Tool.plan.cut
	in := &Incoming{Status: from.Status, Header: clientAnswer(from.Header, red, cut), Length: from.Length, from: from, red: red, cut: cut}
	if s := from.Socket(); s != nil {
		in.body = red.Frames(s)
		return in, nil
	}
	in.guardPlaces(o)
	var src io.Reader = from
	if o.Request.Method == http.MethodHead || from.Length == 0 {
		in.body = src
		return in, nil
	}
	if why := r.withheld(o, from, red); why != "" {
		return in.withhold(why)
	}
	media := mediaOf(from.Header)
	if len(cut) > 0 && jsonMedia(media) {
		src, in.Length = newCutter(src, cut), -1
		in.Header.Del("Content-Length")
	}
	if in.body = red.Reader(src, in.Length); isPart(from) || asksPart(o.Header) {
		in.body = red.Part(src, in.Length)
	}
	if len(red.forms().short) > 0 && (jsonMedia(media) || media == "text/event-stream") {
		in.body = &quotedSecrets{src: in.body, red: red}
	}
	return in, nil
}

func jsonMedia(media string) bool {
	return strings.HasSuffix(media, "/json") || strings.HasSuffix(media, "+json") || strings.HasSuffix(media, "json-seq") || strings.HasSuffix(media, "ndjson")
}
