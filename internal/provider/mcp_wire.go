package provider

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// The client half of the protocol, as little of it as there must be: tools are
// listed and called, and the server gets nothing else of us. It is offered no
// capability, so it may ask for nothing (no sampling, no roots, no forms); what it
// sends beside the one answer is passed over. Each line is opened for one purpose
// and closed after it, and no header of an agent's client is ever on it.

const (
	maxMCPAnswer = 10 << 20  // bytes of one answer to a call
	maxMCPPage   = 4 << 20   // of one page of a list
	maxMCPSmall  = 256 << 10 // of any other
	maxMCPEvents = 10_000    // beside the answer, on one stream
	maxCursor    = 4 << 10
	maxSession   = 1 << 10

	mcpCallTimeout = time.Minute // of a call with all that goes before and after it
	hangUpTimeout  = 2 * time.Second
)

// mcpLine is a conversation with a server under one credential.
type mcpLine struct {
	client   *outbound.Client
	rec      Record
	at       *url.URL
	bound    outbound.Bound
	cred     Credential
	revision string
	session  string // of a server that keeps one; empty: it does not
	red      *Redactor
	next     int
}

// mcpRefusal is a server that answered, and refused. What it said is not in it:
// the credential could be.
type mcpRefusal struct {
	status  int
	code    int // of JSON-RPC; 0: none
	message string
	retry   string

	challenge []string // of a 401, for whoever finds out how to be authorized
}

func (r *mcpRefusal) Error() string { return r.message }

func asRefusal(err error) (*mcpRefusal, bool) { return errors.AsType[*mcpRefusal](err) }

// openMCP begins a line at the place that the connection pins. A server of the
// older revision is greeted first.
func (r Record) openMCP(ctx context.Context, client *outbound.Client, pinned Pinned, cred Credential) (*mcpLine, error) {
	at, err := url.Parse(r.MCP.URL)
	if err != nil {
		return nil, fault.New(fault.Internal, "record_invalid", "The connection has no place to ask.")
	}
	line := &mcpLine{client: client, rec: r, at: at, bound: outbound.Bound{Bases: pinned.API, Party: cred.Party}, cred: cred, revision: r.MCP.Revision}
	switch line.revision {
	case RevisionStateless:
		return line, nil
	case "":
		if known, err := line.discover(ctx); known || err != nil {
			return line, notYet(err)
		}
	}
	return line, notYet(line.greet(ctx))
}

// discover asks a server whether it speaks the stateless revision. One that does
// not know the question does not.
func (m *mcpLine) discover(ctx context.Context) (bool, error) {
	m.revision = RevisionStateless
	result, _, err := m.ask(ctx, "server/discover", "", map[string]any{}, nil)
	if refused, ok := asRefusal(err); ok && refused.status != http.StatusUnauthorized && refused.status != http.StatusForbidden && refused.status != http.StatusTooManyRequests {
		return false, nil
	}
	said := struct {
		Versions []string `json:"supportedVersions"`
	}{}
	if err == nil && json.Unmarshal(result, &said) != nil {
		return false, nil
	}
	return slices.Contains(said.Versions, RevisionStateless), err
}

// notYet is an error of what comes before a call, and so no doubt about the call.
func notYet(err error) error {
	if _, ok := asRefusal(err); ok || err == nil || !outbound.Sent(err) {
		return err
	}
	f := fault.Of(err)
	return fault.New(f.Kind, f.Code, f.Message).WithHint("The tool was not called. Try again later.").WithRetry(f.RetryAfter)
}

// greet is the handshake of the revisions before 2026-07-28.
func (m *mcpLine) greet(ctx context.Context) error {
	m.revision = RevisionHandshake
	result, header, err := m.ask(ctx, "initialize", "", map[string]any{
		"protocolVersion": RevisionHandshake, "capabilities": map[string]any{}, "clientInfo": clientInfo(),
	}, nil)
	if err != nil {
		return err
	}
	said := struct {
		Revision string `json:"protocolVersion"`
	}{}
	if json.Unmarshal(result, &said) != nil || said.Revision < revisionOldest || said.Revision > RevisionHandshake || len(said.Revision) != len(revisionOldest) {
		return &mcpRefusal{status: http.StatusBadGateway, message: "The server speaks no revision of MCP that is understood here."}
	}
	m.revision = said.Revision
	m.session = header.Get("Mcp-Session-Id")
	if len(m.session) > maxSession || strings.ContainsFunc(m.session, func(r rune) bool { return r < 0x21 || r > 0x7e }) {
		return &mcpRefusal{status: http.StatusBadGateway, message: "The server's session id is not one."}
	}
	return m.tell(ctx, "notifications/initialized")
}

// clientInfo is who calls, which is no agent.
func clientInfo() map[string]string { return map[string]string{"name": "ambit", "version": "1"} }

// hangUp lets a server forget its session. Nothing depends on it, and nobody waits
// long for it.
func (m *mcpLine) hangUp(ctx context.Context) {
	if m.session == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, hangUpTimeout)
	defer cancel()
	_, _, _ = m.send(ctx, http.MethodDelete, "", "", nil, nil)
}

// call calls a tool.
func (m *mcpLine) call(ctx context.Context, c *mcpCall) (*mcpResult, error) {
	doc, _, err := m.ask(ctx, "tools/call", c.name, map[string]any{"name": c.name, "arguments": c.args}, c.headers)
	if err != nil {
		return nil, err
	}
	return readResult(doc)
}

// tell sends a notification.
func (m *mcpLine) tell(ctx context.Context, method string) error {
	body, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "method": method})
	if err != nil {
		return err
	}
	resp, _, err := m.send(ctx, http.MethodPost, method, "", body, nil)
	if err == nil && (resp.Status < 200 || resp.Status > 299) {
		err = refusedStatus(resp)
	}
	return err
}

// ask sends a request and gives the result that answers it.
func (m *mcpLine) ask(ctx context.Context, method, name string, params map[string]any, more http.Header) (json.RawMessage, http.Header, error) {
	m.next++
	if m.revision == RevisionStateless {
		params["_meta"] = map[string]any{
			"io.modelcontextprotocol/protocolVersion": m.revision, "io.modelcontextprotocol/clientCapabilities": map[string]any{},
			"io.modelcontextprotocol/clientInfo": clientInfo(),
		}
	}
	body, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": m.next, "method": method, "params": params})
	if err != nil {
		return nil, nil, err
	}
	resp, red, err := m.send(ctx, http.MethodPost, method, name, body, more)
	if err != nil {
		return nil, nil, err
	}
	m.red = red
	done, err := m.client.Hold(ctx, 3*len(resp.Body)) // reading takes a few times the answer's size
	if err != nil {
		return nil, nil, &mcpRefusal{status: http.StatusOK, message: tooBusy}
	}
	defer done()
	result, err := m.answer(resp)
	return result, resp.Header, err
}

func (m *mcpLine) send(ctx context.Context, httpMethod, method, name string, body []byte, more http.Header) (*outbound.Response, *Redactor, error) {
	h := http.Header{"Accept": {"application/json, text/event-stream"}}
	if body != nil {
		h.Set("Content-Type", "application/json")
	}
	if method != "initialize" {
		h.Set("Mcp-Protocol-Version", m.revision)
	}
	if m.session != "" {
		h.Set("Mcp-Session-Id", m.session)
	}
	if m.revision == RevisionStateless {
		h.Set("Mcp-Method", method)
		if name != "" {
			h.Set("Mcp-Name", HeaderText(name))
		}
		for k, v := range more {
			h[k] = v
		}
	}
	limit := int64(maxMCPSmall)
	switch method {
	case "tools/call":
		limit = maxMCPAnswer
	case "tools/list":
		limit = maxMCPPage
	}
	at := *m.at
	return m.rec.send(ctx, m.client, m.bound, "", &Request{Method: httpMethod, URL: &at, Header: h, Body: body}, m.cred, outbound.Limits{Body: limit})
}

// reply is a message of a server.
type reply struct {
	id, result json.RawMessage
	code       *int // of an error; nil: it is none
}

// answer finds the answer to the last request, in a document or on a stream.
func (m *mcpLine) answer(resp *outbound.Response) (json.RawMessage, error) {
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.Status == http.StatusUnauthorized || resp.Status >= 300 && resp.Status < 400 {
		return nil, refusedStatus(resp)
	}
	var found *reply
	switch media {
	case "application/json":
		found = readReply(resp.Body)
	case "text/event-stream":
		n := 0
		eachEvent(resp.Body, func(data []byte) bool {
			if r := readReply(data); r != nil && m.answers(r) {
				found = r
			}
			n++
			return found == nil && n < maxMCPEvents
		})
	}
	switch {
	case found != nil && found.code != nil:
		return nil, refusedCode(resp, *found.code)
	case resp.Status < 200 || resp.Status > 299:
		return nil, refusedStatus(resp)
	case found == nil || !m.answers(found):
		return nil, garbled()
	}
	return found.result, nil
}

// answers reports whether r is the answer to the last request.
func (m *mcpLine) answers(r *reply) bool {
	var id int
	return (r.result != nil || r.code != nil) && json.Unmarshal(r.id, &id) == nil && id == m.next
}

// mcpLimits bound a message. What a tool answers is held against its own limit later.
var mcpLimits = strictjson.Limits{Bytes: maxMCPAnswer, Depth: 64, Items: 1_000_000}

func readReply(doc []byte) *reply {
	if strictjson.Check(doc, mcpLimits) != nil {
		return nil
	}
	top, ok := strictjson.Members(doc)
	if !ok || string(top["jsonrpc"]) != `"2.0"` {
		return nil
	}
	r := &reply{id: top["id"], result: top["result"]}
	if raw, has := top["error"]; has {
		fields, _ := strictjson.Members(raw)
		r.code = new(int)
		if json.Unmarshal(fields["code"], r.code) != nil {
			*r.code = -32603
		}
	}
	return r
}

// eachEvent gives the data of each event of a stream (Server-Sent Events) to do,
// until that gives false.
func eachEvent(body []byte, do func(data []byte) bool) {
	var data []byte
	some := false
	for line := range bytes.Lines(body) {
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			if some && !do(data) {
				return
			}
			data, some = nil, false
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		if string(field) == "data" {
			value = bytes.TrimPrefix(value, []byte(" "))
			if some {
				data = append(append(slices.Clip(data), '\n'), value...)
			} else {
				data, some = slices.Clip(value), true
			}
		}
	}
	if some {
		do(data)
	}
}

// garbled is an answer that is none of the protocol.
func garbled() *mcpRefusal {
	return &mcpRefusal{status: http.StatusBadGateway, message: notOfMCP}
}

const notOfMCP = "The server's answer is not one of MCP."

func refusedStatus(resp *outbound.Response) error {
	r := &mcpRefusal{status: resp.Status, retry: resp.Header.Get("Retry-After"), challenge: resp.Header.Values("Www-Authenticate"), message: "The server refused the request; what it said is not passed on."}
	switch {
	case resp.Status < 300:
		r.status, r.message = http.StatusBadGateway, notOfMCP
	case resp.Status < 400:
		r.message = "The server redirects. Redirects are not followed."
	}
	if len(r.retry) > 10 {
		r.retry = ""
	}
	return r
}

// refusedCode is an error of JSON-RPC as the status of HTTP that says the same.
// The server's message stays out: it is free text that nobody agreed to.
func refusedCode(resp *outbound.Response, code int) error {
	r := &mcpRefusal{code: code, status: http.StatusInternalServerError, message: "The server refused the call with an error of its own."}
	switch {
	case code == -32602 || code == -32600:
		r.status, r.message = http.StatusBadRequest, "The server does not take these arguments, or has no tool of this name."
	case code == -32601:
		r.status, r.message = http.StatusNotFound, "The server does not know this method."
	case code == -32022:
		r.status, r.message = http.StatusBadRequest, "The server no longer speaks the revision of MCP that it did. Its provider record must be made anew."
	case resp.Status >= 400:
		r.status = resp.Status
	}
	return r
}

// HeaderText is a value as the protocol writes it in a header: as it is, or in
// Base64 where a header would not carry it unchanged.
func HeaderText(s string) string {
	plain := s != "" && strings.TrimSpace(s) == s && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) && !strings.HasPrefix(s, "=?")
	if plain {
		return s
	}
	return "=?base64?" + base64.StdEncoding.EncodeToString([]byte(s)) + "?="
}

// mcpResult is what a tool gave.
type mcpResult struct {
	doc        json.RawMessage
	content    []mcpContent
	structured json.RawMessage
	failed     bool
	asks       bool // it wants something of the person before it goes on
}

type mcpContent struct {
	raw                    json.RawMessage
	kind, text, data, mime string
}

func readResult(doc json.RawMessage) (*mcpResult, error) {
	top, ok := strictjson.Members(doc)
	if !ok {
		return nil, garbled()
	}
	r := &mcpResult{doc: doc, structured: top["structuredContent"], failed: string(top["isError"]) == "true", asks: string(top["resultType"]) == `"input_required"`}
	var list []json.RawMessage
	if raw, has := top["content"]; has && json.Unmarshal(raw, &list) != nil {
		return nil, garbled()
	}
	for _, raw := range list {
		fields, ok := strictjson.Members(raw)
		if !ok {
			return nil, garbled()
		}
		c := mcpContent{raw: raw}
		for name, to := range map[string]*string{"type": &c.kind, "text": &c.text, "data": &c.data, "mimeType": &c.mime} {
			if v, has := fields[name]; has {
				_ = json.Unmarshal(v, to) // of another type: it stays empty, and the content is shown as it is
			}
		}
		r.content = append(r.content, c)
	}
	return r, nil
}

// response is the result as an answer of HTTP says it: the value alone where there
// is one, one text or one picture as such, else all that there is.
func (r *mcpResult) response() (resp *outbound.Response, withheld string) {
	resp = &outbound.Response{Status: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Sent: true}
	if r.failed {
		resp.Status = http.StatusUnprocessableEntity
	}
	texts := true
	for _, c := range r.content {
		texts = texts && c.kind == "text"
	}
	switch {
	case r.asks:
		resp.Status = http.StatusUnprocessableEntity
		return resp, "The server asks for something more of the person, which is not passed on. The call has not been finished."
	case r.structured != nil && texts:
		resp.Body = r.structured
	case r.structured == nil && len(r.content) == 1 && texts:
		resp.Header.Set("Content-Type", "text/plain")
		resp.Body = []byte(r.content[0].text)
	case r.structured == nil && len(r.content) == 1 && (r.content[0].kind == "image" || r.content[0].kind == "audio"):
		data, err := base64.StdEncoding.DecodeString(r.content[0].data)
		if err != nil {
			resp.Status = http.StatusBadGateway
			return resp, notOfMCP
		}
		resp.Header.Set("Content-Type", cmp.Or(r.content[0].mime, "application/octet-stream"))
		resp.Body = data
	default:
		list := make([]json.RawMessage, len(r.content))
		for i, c := range r.content {
			list[i] = c.raw
		}
		all := map[string]any{"content": list}
		if r.structured != nil {
			all["structuredContent"] = r.structured
		}
		resp.Body, _ = json.Marshal(all) // parts of a document that was read
	}
	return resp, ""
}
