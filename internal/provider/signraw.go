package provider

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/policy"
)

// A client of AWS signs with keys that open nothing. What it signed is taken off,
// and the request is signed anew when all else is in it.

const unsigned = "UNSIGNED-PAYLOAD"

// signRaw signs a raw request. S3 takes a body that is sent while it arrives, over
// TLS and unsigned; others need its hash first.
func (r Record) signRaw(req *http.Request, c Credential, now time.Time) error {
	scope := r.awsScopeOf(req.URL.Host)
	if err := takeOff(req); err != nil {
		return err
	}
	sum := unsigned
	switch {
	case req.Body == nil || req.GetBody != nil:
		sum = hashOf(req)
	case scope.service != "s3":
		return fault.New(fault.TooLarge, "body_too_large", "A request to this service is signed with its body, which is over 1 MiB.").WithHint("Send less at once.")
	}
	return signWith(req, c.Values, scope, sum, now)
}

func (r Record) awsScopeOf(host string) scope {
	out := scope{r.Injection.Service, r.Injection.Region}
	if s, region, ok := awsScope(host); ok {
		if out.service == "" {
			out.service = s
		}
		if out.region == "" {
			out.region = region
		}
	}
	return out
}

func hashOf(req *http.Request) string {
	hash := sha256.New()
	if req.GetBody != nil {
		if body, err := req.GetBody(); err == nil {
			_, _ = io.Copy(hash, body) // from memory
		}
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// takeOff removes a client's own signature, in headers, query and body: S3 clients
// sign each piece of a body that they stream.
func takeOff(req *http.Request) error {
	h := req.Header
	streamed := strings.HasPrefix(h.Get("X-Amz-Content-Sha256"), "STREAMING-") || strings.Contains(strings.ToLower(h.Get("Content-Encoding")), "aws-chunked")
	length := h.Get("X-Amz-Decoded-Content-Length")
	for _, name := range []string{"X-Amz-Date", "X-Amz-Content-Sha256", "X-Amz-Security-Token", "X-Amz-Decoded-Content-Length", "X-Amz-Trailer", "Authorization", "Date"} {
		h.Del(name)
	}
	var query []string
	for part := range strings.SplitSeq(req.URL.RawQuery, "&") {
		name, _, _ := strings.Cut(part, "=")
		if n, err := url.QueryUnescape(name); err != nil || !slices.Contains([]string{"x-amz-signature", "x-amz-credential", "x-amz-algorithm", "x-amz-date", "x-amz-expires", "x-amz-signedheaders", "x-amz-security-token"}, strings.ToLower(n)) {
			query = append(query, part)
		}
	}
	req.URL.RawQuery = strings.Join(query, "&")
	if !streamed {
		return nil
	}
	var codings []string
	for coding := range strings.SplitSeq(h.Get("Content-Encoding"), ",") {
		if coding = strings.TrimSpace(coding); coding != "" && !strings.EqualFold(coding, "aws-chunked") {
			codings = append(codings, coding)
		}
	}
	if h.Del("Content-Encoding"); len(codings) > 0 {
		h.Set("Content-Encoding", strings.Join(codings, ", "))
	}
	n, err := strconv.ParseInt(length, 10, 64)
	if err != nil || n < 0 {
		return fault.New(fault.Invalid, "request_invalid", "A body in signed pieces needs X-Amz-Decoded-Content-Length.")
	}
	if req.GetBody != nil {
		from, _ := req.GetBody()
		text, err := io.ReadAll(&awsChunks{from: bufio.NewReader(from)})
		if err != nil || int64(len(text)) != n {
			return fault.New(fault.Invalid, "request_invalid", "The body is not in the pieces that it says.")
		}
		setBody(req, text)
		return nil
	}
	if req.Body != nil {
		body := req.Body
		req.Body, req.ContentLength, req.Trailer = struct {
			io.Reader
			io.Closer
		}{&awsChunks{from: bufio.NewReader(body)}, body}, n, nil
	}
	return nil
}

func setBody(req *http.Request, text []byte) {
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }
	req.Body, _ = req.GetBody()
	if req.ContentLength = int64(len(text)); len(text) == 0 {
		req.Body, req.GetBody = nil, nil
	}
}

// awsChunks reads what a body in aws-chunked stands for: pieces behind their size,
// with or without a signature, and after the last perhaps trailers.
type awsChunks struct {
	from *bufio.Reader
	left int64
	done bool
}

var errChunks = fault.New(fault.Invalid, "request_invalid", "The body is not in the pieces that it says.")

func (c *awsChunks) Read(p []byte) (int, error) {
	if c.done {
		return 0, io.EOF
	}
	if c.left == 0 {
		line, err := c.from.ReadSlice('\n')
		if err != nil || len(line) > 4096 {
			return 0, errChunks
		}
		size, _, _ := strings.Cut(strings.TrimSpace(string(line)), ";")
		if c.left, err = strconv.ParseInt(size, 16, 63); err != nil || c.left < 0 {
			return 0, errChunks
		}
		if c.left == 0 {
			c.done = true
			if n, err := io.Copy(io.Discard, io.LimitReader(c.from, 64<<10)); err != nil || n == 64<<10 {
				return 0, errChunks
			}
			return 0, io.EOF
		}
	}
	n, err := c.from.Read(p[:min(int64(len(p)), c.left)])
	if c.left -= int64(n); c.left == 0 && err == nil {
		if end, perr := c.from.Peek(2); perr != nil || string(end) != "\r\n" {
			return n, errChunks
		}
		_, _ = c.from.Discard(2)
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// awsBuilt holds a request that a generic tool built to what awsEffect knows, which the
// method of a request to AWS does not say.
func (in Injection) awsBuilt(req *Request) error {
	d := &dissected{raw: Raw{Method: req.Method, URL: req.URL, Header: req.Header, Body: req.Body, Whole: true}, method: req.Method, base: req.base}
	for _, read := range []func() error{d.place, func() error { return d.parameters("") }, d.content} {
		if err := read(); err != nil {
			return err
		}
	}
	effect, why, ok := in.awsEffect(d)
	switch {
	case ok && effect == policy.Access:
		return accessRefused("This request makes keys, roles or permissions.")
	case ok && policy.Worse(req.Effect, effect) != req.Effect:
		req.Effect, req.Why = effect, why
	}
	return nil
}

// awsEffect tells what a request to AWS changes. Its query and JSON protocols say
// by an action and not by a method; ok is false where neither is used. An action only
// makes little of a request where nothing but the action can decide: elsewhere, as at S3,
// it is a word that the service passes over (threats.md A10).
func (in Injection) awsEffect(d *dissected) (effect policy.Effect, why string, ok bool) {
	if in.Sign != SignAWS {
		return "", "", false
	}
	action := ""
	if len(d.raw.Header.Values("X-Amz-Target")) > 1 {
		return policy.Access, "", true // which of them counts, nobody can tell
	}
	target := d.raw.Header.Get("X-Amz-Target")
	if target != "" {
		_, action, _ = strings.Cut(target, ".")
		if action == "" {
			action = target
		}
	}
	for _, list := range [][]param{d.query, d.form} {
		for _, p := range list {
			if p.name == "Action" {
				if action != "" && action != p.value {
					if awsAccess(action) || awsAccess(p.value) {
						return policy.Access, "", true
					}
					return policy.Destructive, "it names two actions", true
				}
				action = p.value
			}
		}
	}
	smithy := false
	if s := d.many; action == "" && len(s) == 4 && lenient(s[0]) == "service" && lenient(s[2]) == "operation" {
		action, smithy = s[3], true // Smithy RPC v2: POST /service/NAME/operation/ACTION
	}
	named, _, _ := awsScope(d.raw.URL.Host)
	is := func(names ...string) bool { return slices.Contains(names, in.Service) || slices.Contains(names, named) }
	access := is("iam", "sts", "sso", "organizations", "ram", "secretsmanager", "cognito-idp")
	reads := d.method == http.MethodGet || d.method == http.MethodHead
	s3 := is("s3", "s3express", "s3-outposts", "s3-object-lambda")
	decides := action != "" && !s3 && d.awsActs(target != "", smithy)
	switch {
	case action != "" && action != "GetCallerIdentity" && is("sts"), awsAccess(action):
		return policy.Access, "", true
	case !decides && (access && !reads || awsAccessPath(d.many, reads)):
		return policy.Access, "", true
	case decides:
		return awsActionEffect(action, access)
	case action == "" && !s3:
		return "", "", false
	case action != "" && !reads && !s3:
		return policy.Destructive, "whether its action is what it does, nobody can tell", true
	case s3:
		effect, why, ok = d.s3Effect()
	}
	if action == "" || effect == policy.Access {
		return effect, why, ok
	}
	if !ok {
		effect = d.methodEffect()
	}
	if said, because, _ := awsActionEffect(action, access); policy.Worse(effect, said) != effect {
		return said, because, true
	}
	return effect, why, ok
}

// awsActs reports whether a request is of a form in which its action is all that says
// what it does: at the root, with parameters that can be read, or with a target and JSON.
func (d *dissected) awsActs(target, smithy bool) bool {
	if d.opaque != "" || !d.raw.Whole || d.raw.Socket {
		return false
	}
	switch {
	case smithy:
		return d.method == http.MethodPost
	case len(d.one) > 0 || len(d.many) > 0:
		return false
	case target:
		return d.method == http.MethodPost && d.json != nil
	case d.method == http.MethodPost:
		return len(d.raw.Body) == 0 || d.form != nil && !d.encoded
	}
	return d.method == http.MethodGet && len(d.raw.Body) == 0
}

// awsActionEffect is what an action says that makes no access by its name.
func awsActionEffect(action string, access bool) (policy.Effect, string, bool) {
	switch {
	case action == "GetCallerIdentity", begins(action, awsReads...):
		return policy.Read, "", true
	case access:
		return policy.Access, "", true
	case begins(action, "Put", "Create", "Update", "Send", "Publish", "Tag", "Start", "Add", "Invoke"):
		return policy.Write, "", true
	}
	return policy.Destructive, "its action " + quoted(action) + " is not known to do less", true
}

var (
	awsReads = []string{"Get", "List", "Describe", "BatchGet", "Query", "Scan", "Search", "Lookup", "Head", "Check"}
	// awsGives are in the names of actions that hand out what opens something, even
	// where they only read.
	awsGives = []string{"Token", "Credential", "Password", "SecretValue", "ApiKey", "Presigned", "SigninUrl", "EmbedUrl",
		"InstanceAccess", "StartSession", "ResumeSession", "CreateSession", "ExecuteCommand", "Activation"}
	// awsMakes are in those of actions that let somebody do more than before, or again
	// later: who may, as whom, with what, from where.
	awsMakes = []string{"Policy", "Policies", "Permission", "AccessKey", "AccessEntry", "AccessPoint", "Acl", "Grant", "Role", "User", "CreateGroup", "ToGroup", "Principal", "Trust",
		"LoginProfile", "KeyPair", "PublicKey", "Certificate", "Mfa", "MFA", "Saml", "SAML", "OpenID", "Federat", "Assume", "Authoriz", "Invit", "Share", "Sharing",
		"FunctionUrl", "InstanceProfile", "Webhook", "ImageAttribute", "SnapshotAttribute"}
)

// awsAccess reports whether an action makes access, by its name alone: the service
// that a record or a host names may be another than the one that answers.
func awsAccess(action string) bool {
	holds := func(words []string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(action, w) })
	}
	if begins(action, awsReads...) {
		return holds(awsGives) && !begins(action, "List", "Describe")
	}
	return holds(awsGives) || holds(awsMakes) && !begins(action, "Delete", "Remove", "Revoke", "Untag", "Tag")
}

func begins(s string, words ...string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(s, w) })
}

// awsAccessPath is awsAccess for services that speak by paths, such as
// /2015-03-31/functions/NAME/policy.
func awsAccessPath(segments []string, reads bool) bool {
	return slices.ContainsFunc(segments, func(s string) bool {
		s = strings.ReplaceAll(lenient(s), "-", "")
		switch {
		case slices.Contains([]string{"credentials", "authorizationtoken", "token", "tokens", "clitoken", "webtoken"}, s):
			return true
		case reads:
			return false
		}
		return slices.Contains([]string{"policy", "permission", "permissions", "url", "urls", "apikeys", "accesskeys", "accessentries", "accesspolicies", "grants", "roles", "users", "groups",
			"resourcepolicy", "authorizers", "invitations", "shares", "webhooks"}, s)
	})
}

// s3Effect knows the parts of a bucket that make access, and that one request can
// delete many objects.
func (d *dissected) s3Effect() (policy.Effect, string, bool) {
	if slices.ContainsFunc(d.query, func(q param) bool { return strings.EqualFold(q.name, "session") }) {
		return policy.Access, "", true // CreateSession of a directory bucket: temporary credentials
	}
	if d.method == http.MethodGet || d.method == http.MethodHead {
		return "", "", false
	}
	for name := range d.raw.Header {
		if name == "X-Amz-Acl" || strings.HasPrefix(name, "X-Amz-Grant-") {
			return policy.Access, "", true
		}
	}
	for _, q := range d.query {
		switch strings.ToLower(q.name) {
		case "acl", "policy", "publicaccessblock", "ownershipcontrols":
			return policy.Access, "", true
		case "uploadid", "uploads", "partnumber", "tagging", "x-id", "select", "select-type":
		default:
			return policy.Destructive, "it changes a setting of the bucket", true
		}
	}
	if d.method == http.MethodPut { // an object's content, in whatever coding: nothing of it is read there
		return policy.Write, "", true
	}
	return "", "", false
}
