package provider

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/legible"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// Limits of what a server may list.
const (
	maxListPages  = 50
	maxListBytes  = 2 << 20  // of all definitions together
	maxDefinition = 64 << 10 // of one
	listTimeout   = 20 * time.Second
)

// CodeListRefused is the code of a list that is not taken, because of what is in it.
const CodeListRefused = "mcp_list_refused"

// Definition is a tool as its server describes it: name, title, description,
// schemas and annotations, and nothing else of what the server says.
type Definition struct {
	Name        string
	Title       string
	Description string
	Input       json.RawMessage
	ReadOnly    bool // the server says that it only reads; a hint

	text []byte // all of it, in canonical form
	pin  string // its digest
}

// Text is the definition in canonical form: what is compared, digested and shown.
func (d Definition) Text() []byte { return d.text }

// Pin is the digest of the definition.
func (d Definition) Pin() string { return d.pin }

// pinned are the members of a definition that count.
var pinned = [...]string{"name", "title", "description", "inputSchema", "outputSchema", "annotations"}

// parseDefinition reads a tool of tools/list, or of a record. What is no text where
// there must be text, or too large, is an error.
func parseDefinition(doc []byte) (Definition, error) {
	bad := func(what string) (Definition, error) {
		return Definition{}, fault.New(fault.Invalid, "mcp_tool_invalid", "The definition of a tool "+what+".")
	}
	if len(doc) > maxDefinition {
		return bad(fmt.Sprintf("is over %d KiB", maxDefinition>>10))
	}
	if strictjson.Check(doc, strictjson.Limits{Bytes: maxDefinition, Depth: 28}) != nil {
		return bad("is not plain JSON, or nested too deep")
	}
	top, ok := strictjson.Members(doc)
	if !ok {
		return bad("is not an object")
	}
	d := Definition{}
	kept := map[string]json.RawMessage{}
	for _, name := range pinned {
		v, has := top[name]
		if !has || string(v) == "null" {
			continue
		}
		kept[name] = v
		switch name {
		case "name", "title", "description":
			to := map[string]*string{"name": &d.Name, "title": &d.Title, "description": &d.Description}[name]
			if json.Unmarshal(v, to) != nil {
				return bad("has a " + name + " that is no text")
			}
		default:
			if jsontext.Value(v).Kind() != '{' {
				return bad("has " + name + " that is no object")
			}
			sorted, err := sortRequired(jsontext.Value(v))
			if err != nil {
				return bad("has " + name + " that cannot be read")
			}
			kept[name] = json.RawMessage(sorted)
		}
	}
	if d.Name == "" || len(d.Name) > 128 || strings.ContainsFunc(d.Name, func(r rune) bool { return r < '!' || r > '~' }) {
		return bad("has no name of 1 to 128 plain characters")
	}
	if d.Input = kept["inputSchema"]; d.Input == nil {
		return bad("has no inputSchema")
	}
	if hints, ok := strictjson.Members(kept["annotations"]); ok {
		d.ReadOnly = string(hints["readOnlyHint"]) == "true"
		if d.Title == "" {
			_ = json.Unmarshal(hints["title"], &d.Title) // no text: there is none
		}
	}
	var err error
	if d.text, err = strictjson.CanonicalOf(kept); err != nil {
		return bad("has no canonical form")
	}
	if hides(string(d.text)) {
		return bad("holds letters that nobody sees")
	}
	sum := sha256.Sum256(d.text)
	d.pin = hex.EncodeToString(sum[:])
	return d, nil
}

// hides reports whether words for agents could hide from people in a text. One
// selector or joiner behind a picture is how an emoji is written, and hides nothing.
func hides(text string) bool {
	var before, last rune
	for _, r := range text {
		picture := unicode.Is(unicode.So, last)
		switch {
		case before != 0 && last == joiner && !unicode.Is(unicode.So, r):
			return true // it joined a picture to nothing
		case r == asPicture && picture:
		case r == joiner && (picture || last == asPicture):
		case legible.Hidden(r) && !unicode.Is(unicode.Zs, r):
			return true
		}
		before, last = last, r
	}
	return last == joiner
}

const (
	asPicture = '\ufe0f' // variation selector 16
	joiner    = '\u200d'
)

// sortRequired puts the lists named required, which are sets, into one order:
// servers that make their schemas of maps write them in a new one each time.
func sortRequired(v jsontext.Value) (jsontext.Value, error) {
	switch v.Kind() {
	case '{':
		list, err := members(v)
		if err != nil {
			return nil, err
		}
		out := map[string]json.RawMessage{}
		for _, m := range list {
			part, err := sortRequired(m.value)
			if err != nil {
				return nil, err
			}
			var names []string
			if m.name == "required" && unmarshal(part, &names) == nil {
				slices.Sort(names)
				if part, err = json.Marshal(names); err != nil {
					return nil, err
				}
			}
			out[m.name] = json.RawMessage(part)
		}
		return json.Marshal(out)
	case '[':
		var list []jsontext.Value
		if err := unmarshal(v, &list); err != nil {
			return nil, err
		}
		out := make([]json.RawMessage, len(list))
		for i, item := range list {
			part, err := sortRequired(item)
			if err != nil {
				return nil, err
			}
			out[i] = json.RawMessage(part)
		}
		return json.Marshal(out)
	}
	return v, nil
}

// Upstream is the definition that the tool was taken from; ok is false when it is
// not a tool of an MCP server.
func (t Tool) Upstream() (d Definition, ok bool) {
	if t.plan == nil || t.plan.mcp == nil {
		return Definition{}, false
	}
	return t.plan.mcp.def, true
}

// Listing is what a server lists, by name, and the revision of the protocol in
// which it did.
type Listing struct {
	Revision string
	Tools    []Definition
}

// Pins are the digests of its tools, by their names.
func (l Listing) Pins() map[string]string {
	pins := make(map[string]string, len(l.Tools))
	for _, d := range l.Tools {
		pins[d.Name] = d.pin
	}
	return pins
}

// ListMCP asks the server which tools it has, with the credential of a connection.
// How many pages and bytes it may take for that is bounded, a page that leads back
// ends it, and so does an answer that holds the credential: what comes back is
// stored and shown. Before the first request and before each further page still is
// asked whether the credential may be used there, unless it is nil.
func (r Record) ListMCP(ctx context.Context, client *outbound.Client, at Pinned, cred Credential, still func(context.Context) error) (Listing, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	if still == nil {
		still = func(context.Context) error { return nil }
	}
	if err := still(ctx); err != nil {
		return Listing{}, err
	}
	line, err := r.openMCP(ctx, client, at, cred)
	if err != nil {
		return Listing{}, listFailed(err)
	}
	defer line.hangUp(ctx)
	tools, err := line.list(ctx, still)
	return Listing{Revision: line.era(), Tools: tools}, err
}

// era is the revision that a record would name.
func (m *mcpLine) era() string {
	if m.revision == RevisionStateless {
		return RevisionStateless
	}
	return RevisionHandshake
}

// Probe is what a server says to somebody without a credential.
type Probe struct {
	Listing   Listing
	Refused   bool     // it wants one (401)
	Challenge []string // and says this about it, as WWW-Authenticate
}

// ProbeMCP asks a server which tools it has, with no credential.
func ProbeMCP(ctx context.Context, client *outbound.Client, address string) (Probe, error) {
	r := Record{Auth: None, MCP: &MCP{URL: address}}
	listed, err := r.ListMCP(ctx, client, Pinned{API: []string{strings.TrimRight(address, "/")}}, Credential{Kind: None}, nil)
	if refused, ok := asRefusal(err); ok && refused.status == http.StatusUnauthorized {
		return Probe{Refused: true, Challenge: refused.challenge}, nil
	}
	return Probe{Listing: listed}, err
}

func (m *mcpLine) list(ctx context.Context, still func(context.Context) error) ([]Definition, error) {
	var all []Definition
	seen, cursors := map[string]bool{}, map[string]bool{}
	size, cursor := 0, ""
	for range maxListPages {
		params := map[string]any{}
		if cursor != "" {
			if err := still(ctx); err != nil {
				return nil, err
			}
			params["cursor"] = cursor
		}
		doc, _, err := m.ask(ctx, "tools/list", "", params, nil)
		if err != nil {
			return nil, listFailed(err)
		}
		if size += len(doc); size > maxListBytes {
			return nil, tooMany()
		}
		if m.red.Finds(doc) {
			return nil, fault.New(fault.Unavailable, CodeListRefused, "The server put the credential into its list of tools, so the list is not taken.").WithHint("Do not use this server, and revoke the credential there.")
		}
		top, ok := strictjson.Members(doc)
		var page []json.RawMessage
		if !ok || json.Unmarshal(top["tools"], &page) != nil {
			return nil, listFailed(garbled())
		}
		if len(all)+len(page) > maxTools {
			return nil, tooMany()
		}
		for _, raw := range page {
			d, err := parseDefinition(raw)
			if err != nil {
				continue // one odd tool is as good as not listed, and the others stay
			}
			if seen[d.Name] {
				return nil, fault.New(fault.Unavailable, CodeListRefused, "The server lists two tools of one name, so the list is not taken.").WithHint("Ask whoever runs the server.")
			}
			seen[d.Name] = true
			all = append(all, d)
		}
		cursor = ""
		if raw, has := top["nextCursor"]; has && string(raw) != "null" {
			if json.Unmarshal(raw, &cursor) != nil || len(cursor) > maxCursor || cursors[cursor] {
				return nil, tooMany()
			}
			cursors[cursor] = true
		}
		if cursor == "" {
			slices.SortFunc(all, func(a, b Definition) int { return strings.Compare(a.Name, b.Name) })
			return all, nil
		}
	}
	return nil, tooMany()
}

func tooMany() error {
	return fault.New(fault.TooLarge, CodeListRefused, fmt.Sprintf("The server's list of tools has no end within %d tools, %d pages and %d MiB, so it is not taken.", maxTools, maxListPages, maxListBytes>>20)).
		WithHint("Ask whoever runs the server to list less.")
}

// listFailed is an error of a list, for whoever asked for it.
func listFailed(err error) error {
	refused, ok := asRefusal(err)
	switch {
	case !ok:
		return err
	case refused.status == http.StatusUnauthorized || refused.status == http.StatusForbidden:
		return fault.New(fault.Denied, CodeRefused, "The MCP server refused the credential.").WithHint("Check that it is complete and still valid, and reconnect.").WithCause(refused)
	}
	return fault.New(fault.Unavailable, "upstream_error", refused.message).WithCause(refused).WithHint("Check the address of the MCP server, and try again later.").With("status", fmt.Sprint(refused.status))
}

// toolName is the name that a server's tool gets in a record, without the prefix
// of the provider. Names that are used already get a number.
func toolName(slug, upstream string, used map[string]bool) string {
	plain := strings.Map(func(r rune) rune {
		if r < 0x80 && (isAlnum(byte(r)) || r == '_') {
			return r
		}
		return '_'
	}, upstream)
	room := maxToolName - len(slug) - 1
	if len(plain) > room { // two long names may begin alike
		sum := sha256.Sum256([]byte(upstream))
		plain = plain[:room-9] + "_" + hex.EncodeToString(sum[:4])
	}
	name := plain
	for n := 2; used[strings.ToLower(name)]; n++ {
		name = fmt.Sprintf("%.*s_%d", room-4, plain, n)
	}
	used[strings.ToLower(name)] = true
	return name
}

// Words are the server's description of a tool, as far as agents read it: plain
// printable text of bounded length. Cut text says so.
func (d Definition) words() string {
	const limit = 2000
	s := strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\r':
			return ' '
		case r != '\n' && unprintable(r):
			return -1
		}
		return r
	}, d.Description))
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit-4], "") + " ..."
	}
	return cmp.Or(s, "The server does not describe it.")
}
