package mcpserver

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// JSON-RPC codes. codeServer is of the range that JSON-RPC leaves to servers.
const (
	codeParse    = jsonrpc.CodeParseError
	codeRequest  = jsonrpc.CodeInvalidRequest
	codeMethod   = jsonrpc.CodeMethodNotFound
	codeParams   = jsonrpc.CodeInvalidParams
	codeInternal = jsonrpc.CodeInternalError
	codeServer   = -32000
	codeHeader   = mcp.CodeHeaderMismatch
	codeRevision = mcp.CodeUnsupportedProtocolVersion
)

// message is one JSON-RPC request or notification that has one reading only.
type message struct {
	body   []byte
	id     json.RawMessage // a string or an integer, as it came; nil for a notification
	method string
	params object
	meta   object // params._meta
	trace  string // the caller's traceparent; a name, not a right
}

// object is a JSON object by exact names.
type object map[string]json.RawMessage

const (
	maxID     = 256
	maxMethod = 128
)

// parse reads a body (threats.md S13). With a problem, the message holds the id
// if that much was readable.
func parse(body []byte) (message, *problem) {
	m := message{body: body}
	if err := strictjson.Check(body, strictjson.Limits{Bytes: maxBody}); err != nil {
		f := fault.Of(err)
		p := invalid(http.StatusBadRequest, f.Message)
		if !json.Valid(body) {
			p.code, p.message = codeParse, "The body is not valid JSON."
		}
		return m, p
	}
	if body = bytes.TrimLeft(body, " \t\r\n"); body[0] == '[' {
		return m, invalid(http.StatusBadRequest, "Batches are not taken: send one message a request.")
	}
	members, ok := strictjson.Members(body)
	if !ok {
		return m, invalid(http.StatusBadRequest, "The body is not a JSON-RPC message.")
	}
	envelope := object(members)
	if id, sent := envelope["id"]; sent {
		if !validID(id) {
			return m, invalid(http.StatusBadRequest, "The id of a request is a string or an integer.")
		}
		m.id = id
	}
	for name := range envelope {
		switch name {
		case "jsonrpc", "id", "method", "params":
		case "result", "error":
			return m, invalid(http.StatusBadRequest, "This server asks clients nothing, so it takes no answers.")
		default:
			return m, invalid(http.StatusBadRequest, "The message has a member that JSON-RPC does not know.")
		}
	}
	var version string
	if !str(envelope["jsonrpc"], &version) || version != "2.0" {
		return m, invalid(http.StatusBadRequest, `The message has no "jsonrpc": "2.0".`)
	}
	if !str(envelope["method"], &m.method) || m.method == "" || len(m.method) > maxMethod {
		return m, invalid(http.StatusBadRequest, "The message names no method.")
	}
	if m.id == nil && !strings.HasPrefix(m.method, "notifications/") {
		return m, invalid(http.StatusBadRequest, "The request has no id.")
	}
	if m.id != nil && strings.HasPrefix(m.method, "notifications/") {
		return m, invalid(http.StatusBadRequest, "A notification has no id.")
	}
	if m.params, ok = envelope.object("params"); !ok {
		return m, badParams("params must be an object.")
	}
	if m.meta, ok = m.params.object("_meta"); !ok {
		return m, badParams("_meta must be an object.")
	}
	if m.params.variant("name", "arguments", "cursor", "_meta", "requestState", "inputResponses") || m.meta.variant(mcp.MetaKeyProtocolVersion, mcp.MetaKeyClientCapabilities, mcp.MetaKeyClientInfo) {
		return m, badParams("A parameter's name differs from ours by case only.")
	}
	return m, nil
}

// object gives a member that is an object, or an empty one if there is none.
// Some clients write null for arguments that they do not have.
func (o object) object(name string) (object, bool) {
	raw, sent := o[name]
	if !sent || name == "arguments" && string(raw) == "null" {
		return object{}, true
	}
	members, ok := strictjson.Members(raw)
	return members, ok
}

// variant reports a name that a decoder which folds case would take for one of
// known.
func (o object) variant(known ...string) bool {
	for name := range o {
		for _, k := range known {
			if name != k && strings.EqualFold(name, k) {
				return true
			}
		}
	}
	return false
}

func str(raw json.RawMessage, dst *string) bool {
	return len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, dst) == nil
}

func validID(raw json.RawMessage) bool {
	if len(raw) > maxID {
		return false
	}
	var s string
	if str(raw, &s) {
		return true
	}
	_, err := strconv.ParseInt(string(raw), 10, 64)
	return err == nil
}

// problem is an error of the protocol, below the level of tools.
type problem struct {
	status  int
	code    int
	message string
	data    any
	header  http.Header
}

func invalid(status int, message string) *problem {
	return &problem{status: status, code: codeRequest, message: message}
}

func badParams(message string) *problem {
	return &problem{status: http.StatusBadRequest, code: codeParams, message: message}
}

func retryHeader(wait time.Duration) http.Header {
	return http.Header{"Retry-After": {strconv.Itoa(seconds(wait))}}
}

// seconds rounds up: who waits that long is not told to wait again.
func seconds(wait time.Duration) int {
	return max(int((min(wait, 24*time.Hour)+time.Second-1)/time.Second), 1)
}

// response is what JSON-RPC answers. An error whose request could not be read
// has no id, as MCP writes it.
type response struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id,omitempty"`
	Result  any             `json:"result,omitempty"`
	Error   *wireError      `json:"error,omitempty"`
}

type wireError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Data    any    `json:"data,omitempty"`
}

func (p *problem) write(w http.ResponseWriter, id json.RawMessage) {
	for k, v := range p.header {
		w.Header()[k] = v
	}
	_ = reply(w, p.status, response{Version: "2.0", ID: id, Error: &wireError{Code: p.code, Message: p.message, Data: p.data}})
}

// Refuse writes an error that was found before the message was read, such as a
// wrong Host, in the form of all refusals here. Clients of this endpoint parse
// every body.
func Refuse(w http.ResponseWriter, status int, f *fault.Error) {
	p := &problem{status: status, code: codeServer, message: f.Message}
	switch {
	case status == http.StatusInternalServerError:
		p.code = codeInternal
	case status < http.StatusInternalServerError:
		p.code = codeRequest
	}
	p.data = map[string]string{"code": f.Code, "hint": f.Hint}
	if f.RetryAfter > 0 {
		p.header = retryHeader(f.RetryAfter)
	}
	p.write(w, nil)
}

// encode is json.Marshal without the escapes for HTML, which nobody needs here
// and which would make answers longer.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	return encodeTo(&b, v)
}

func encodeTo(b *bytes.Buffer, v any) ([]byte, error) {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// answers are buffers that answers are encoded in; large ones are not kept.
var answers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

const keptAnswer = 64 << 10

// reply writes a response, or nothing when it cannot be encoded.
func reply(w http.ResponseWriter, status int, v response) error {
	b := answers.Get().(*bytes.Buffer)
	defer func() {
		if b.Cap() <= keptAnswer {
			b.Reset()
			answers.Put(b)
		}
	}()
	doc, err := encodeTo(b, v)
	if err != nil {
		return err
	}
	h := w.Header()
	h["Content-Type"] = jsonType
	h["Content-Length"] = []string{strconv.Itoa(len(doc))}
	w.WriteHeader(status)
	_, _ = w.Write(doc)
	return nil
}

var jsonType = []string{"application/json"}
