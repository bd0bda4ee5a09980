package mcpserver

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/session"
)

// The revisions of the protocol that are served. Older ones know batches and
// are refused (threats.md S15); on those below nothing is checked less.
const (
	stateless = "2026-07-28"
	handshake = "2025-11-25"
)

func revisions() []string { return []string{stateless, handshake, "2025-06-18"} }

// revision is how one message is to be answered.
type revision struct {
	version   string // of the header; may be empty
	stateless bool
	window    string // of a client of the older revision that opens addresses; empty: it does not
}

// windowPrefix starts the Mcp-Session-Id of a client that declared in its handshake that
// it opens addresses. It says so, and tells its calls from others'; it is no authority.
const (
	windowPrefix = "window_"
	maxWindow    = 64
)

// state names a call of an agent that waits for a person.
func (r revision) state(who agent.Identity, subject string) string {
	if r.window != "" { // which the client says: another agent's call of the same one is another
		return r.window + " " + string(who.Agent()) + " " + subject
	}
	return session.NewState()
}

// revisionOf finds the revision of a message and holds its headers against its
// body (threats.md S12). Whatever stands in a header, what is done is what the
// body says. Headers that only the newer revision requires must agree in the
// older ones too if they are sent.
func revisionOf(h http.Header, m message) (revision, *problem) {
	version, sent, ok := single(h, "Mcp-Protocol-Version")
	var inBody string
	bodyHas := str(m.meta[mcp.MetaKeyProtocolVersion], &inBody)
	switch {
	case !ok:
		return revision{}, mismatch("There is more than one MCP-Protocol-Version header.")
	case sent && !slices.Contains(revisions(), version):
		return revision{}, unsupported(version)
	case bodyHas && !sent:
		return revision{}, mismatch("The MCP-Protocol-Version header is missing.")
	case bodyHas && version != inBody:
		return revision{}, mismatch("The MCP-Protocol-Version header differs from the body.")
	}
	rev := revision{version: version, stateless: version == stateless}
	if w, _, ok := single(h, "Mcp-Session-Id"); ok && version == handshake && len(w) <= maxWindow && strings.HasPrefix(w, windowPrefix) {
		rev.window = w
	}
	if rev.stateless && m.id != nil {
		if !bodyHas {
			return rev, badParams("_meta has no " + mcp.MetaKeyProtocolVersion + ".")
		}
		if _, ok := m.meta.object(mcp.MetaKeyClientCapabilities); !ok || m.meta[mcp.MetaKeyClientCapabilities] == nil {
			return rev, badParams("_meta has no " + mcp.MetaKeyClientCapabilities + ".")
		}
	}
	if p := agree(h, "Mcp-Method", m.method, rev.stateless); p != nil {
		return rev, p
	}
	var name string
	switch m.method {
	case "tools/call", "prompts/get":
		str(m.params["name"], &name)
	case "resources/read":
		str(m.params["uri"], &name)
	}
	if p := agree(h, "Mcp-Name", name, rev.stateless && name != ""); p != nil {
		return rev, p
	}
	return rev, agreeParams(h, m)
}

// agree holds one header against the body's value.
func agree(h http.Header, name, value string, required bool) *problem {
	got, sent, ok := single(h, name)
	if !sent && !required {
		return nil
	}
	if decoded, fits := decodeHeader(got); !ok || !sent || !fits || decoded != value {
		return mismatch("The " + name + " header is missing or differs from the body.")
	}
	return nil
}

// agreeParams holds Mcp-Param-* headers against the arguments. Our tools ask
// for none, but whoever stands between may have decided by one.
func agreeParams(h http.Header, m message) *problem {
	const prefix = "Mcp-Param-"
	for key := range h {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		value, _, ok := single(h, key)
		decoded, fits := decodeHeader(value)
		if !ok || !fits || m.method != "tools/call" || !hasArgument(m, key[len(prefix):], decoded) {
			return mismatch("A Mcp-Param header differs from the body.")
		}
	}
	return nil
}

func hasArgument(m message, name, value string) bool {
	args, _ := m.params.object("arguments")
	for k, raw := range args {
		if textproto.CanonicalMIMEHeaderKey(k) == name && primitive(raw) == value {
			return true
		}
	}
	return false
}

// primitive is how the transport writes a value in a header. Other kinds of
// value have no such form; NUL, which no header holds, stands for that.
func primitive(raw json.RawMessage) string {
	var s string
	if str(raw, &s) {
		return s
	}
	switch text := string(raw); text {
	case "true", "false":
		return text
	default:
		if _, err := strconv.ParseInt(text, 10, 64); err == nil {
			return text
		}
	}
	return "\x00"
}

// decodeHeader undoes the transport's base64 form for values that a header
// cannot hold as they are.
func decodeHeader(v string) (string, bool) {
	inner, ok := strings.CutPrefix(v, "=?base64?")
	if !ok {
		return v, true
	}
	if inner, ok = strings.CutSuffix(inner, "?="); !ok {
		return v, true
	}
	b, err := base64.StdEncoding.Strict().DecodeString(inner)
	return string(b), err == nil
}

func single(h http.Header, name string) (value string, sent, ok bool) {
	switch v := h[name]; len(v) {
	case 0:
		return "", false, true
	case 1:
		return v[0], true, true
	default:
		return "", true, false
	}
}

func mismatch(message string) *problem {
	return &problem{status: http.StatusBadRequest, code: codeHeader, message: message}
}

func unsupported(version string) *problem {
	if len(version) > 32 {
		version = version[:32]
	}
	return &problem{status: http.StatusBadRequest, code: codeRevision, message: "This protocol version is not served.",
		data: mcp.UnsupportedProtocolVersionData{Supported: revisions(), Requested: strings.ToValidUTF8(version, "?")}}
}
