package scan

import (
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/ambit-dev/ambit/internal/secret"
)

// node is a value of a parsed file. All formats become the same tree.
type node struct {
	key   string
	text  string
	line  int
	kind  nodeKind
	lines bool // the text goes over lines of the file, from line on
	inner []*node
}

type nodeKind int

const (
	scalar  nodeKind = iota // a string
	other                   // a number, true, false or null
	object                  // with keys
	list                    // without
	comment                 // text
)

func (n *node) child(key string) *node {
	if n == nil {
		return nil
	}
	for _, c := range n.inner {
		if strings.EqualFold(c.key, key) {
			return c
		}
	}
	return nil
}

func (n *node) string(key string) string {
	if c := n.child(key); c != nil && c.kind == scalar {
		return c.text
	}
	return ""
}

const maxDepth = 60

// tree walks what a file holds, with the path of each value.
func (d *doc) tree(n *node, path []string, depth int) {
	if depth > maxDepth {
		d.tired = true
		return
	}
	if d.stopped() {
		return
	}
	switch n.kind {
	case object:
		d.object(n, path, depth)
	case list:
		d.list(n, path, depth)
	case scalar:
		d.lines = n.lines
		d.leaf(path, n.text, n.line, depth)
		d.lines = false
	case comment:
		d.text(&unit{text: []byte(n.text), line: n.line, mode: config})
	case other:
		if classOf(lastName(path)) == password {
			d.leaf(path, n.text, n.line, depth)
		}
	}
}

// pairs are the keys with which lists name their entries: {name: A, value: B}.
var pairs = [][2]string{{"name", "value"}, {"key", "value"}, {"name", "default"}, {"variable", "value"}, {"header", "value"}, {"field", "value"}, {"id", "value"}, {"label", "value"}}

func (d *doc) object(n *node, path []string, depth int) {
	done := map[*node]bool{}
	if strings.EqualFold(n.string("kind"), "secret") && n.string("apiVersion") != "" {
		d.sealedData(n, path, done)
	}
	if key := n.string("private_key"); n.string("type") == "service_account" && strings.Contains(key, "PRIVATE KEY") {
		at := n.child("private_key")
		before := len(d.found)
		d.leaf(append(path, "private_key"), key, at.line, depth)
		if len(d.found) > before {
			f := &d.found[len(d.found)-1]
			f.Kind, f.Title, f.Provider, f.base, f.Opens = "gcp-service-account", "Google service account key", "google", 85, n.string("client_email")
		}
		done[at] = true
		done[n.child("private_key_id")] = true
	}
	if n.string("type") == "random_password" {
		d.randomPassword(n, path, done)
	}
	if key := n.child("d"); n.string("kty") != "" && key != nil && key.kind == scalar && random(key.text, 40) && !placeholder(key.text) {
		d.addParsed(found{kind: "private-key", title: "Private key (JWK)", base: 80, value: key.text, key: strings.Join(append(path[:len(path):len(path)], "d"), "."), line: key.line, opens: n.string("kty") + " key"})
		for _, part := range []string{"d", "p", "q", "dp", "dq", "qi"} {
			done[n.child(part)] = true
		}
	}
	d.noteEnd(n, path)
	for _, p := range pairs {
		name, val := n.child(p[0]), n.child(p[1])
		if name != nil && val != nil && name.kind == scalar && val.kind == scalar && !done[val] && len(name.text) < 100 {
			d.leaf(append(path[:len(path):len(path)], name.text), val.text, val.line, depth)
			done[val] = true
		}
	}
	for _, c := range n.inner {
		if c.kind == comment {
			d.tree(c, path, depth+1)
		} else if !done[c] {
			d.tree(c, append(path[:len(path):len(path)], c.key), depth+1)
		}
	}
}

// randomPassword reads what Terraform made and keeps in its state.
func (d *doc) randomPassword(n *node, path []string, done map[*node]bool) {
	all := n.child("instances")
	if all == nil {
		return
	}
	for _, i := range all.inner {
		if v := i.child("attributes").child("result"); v != nil && v.kind == scalar && len(v.text) >= 4 {
			d.addParsed(found{kind: "password", title: "Password that Terraform made", base: 60, weak: !random(v.text, 12), value: v.text, key: strings.Join(append(path[:len(path):len(path)], n.string("name"), "result"), "."), line: v.line})
			done[v] = true
		}
	}
}

// sealedData opens the values of a Kubernetes secret, which are only encoded.
func (d *doc) sealedData(n *node, path []string, done map[*node]bool) {
	data := n.child("data")
	if data == nil || data.kind != object {
		return
	}
	for _, c := range data.inner {
		if c.kind != scalar {
			continue
		}
		done[data] = true
		b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(c.text), ""))
		if err != nil || len(b) == 0 || !printable(b) {
			continue
		}
		v := string(b)
		before := len(d.found)
		d.leaf(append(path[:len(path):len(path)], "data", c.key), strings.TrimSpace(v), c.line, 0)
		for i := before; i < len(d.found); i++ {
			d.found[i].also = append(d.found[i].also, secret.FromString(c.text))
		}
		if len(d.found) == before && !placeholder(v) && classOf(c.key) == plain && random(v, 12) {
			f := kindOf(c.key, telling, v)
			f.value, f.key, f.line, f.also = v, strings.Join(append(path[:len(path):len(path)], "data", c.key), "."), c.line, c.text
			d.addParsed(f)
		}
	}
}

func printable(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\n' && c != '\r' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// list walks entries: a text that was cut into lines is read as one, and flags are read
// with what follows them.
func (d *doc) list(n *node, path []string, depth int) {
	name := lastName(path)
	if (name == "source" || name == "text" || name == "lines") && len(n.inner) > 0 {
		var b strings.Builder
		for _, c := range n.inner {
			if c.kind == scalar {
				b.WriteString(c.text)
			}
		}
		first, last := n.inner[0].line, n.inner[len(n.inner)-1].line
		d.text(&unit{text: []byte(b.String()), line: first, flat: first == last, path: strings.Join(path, "."), mode: code})
		return
	}
	flag := ""
	for i, c := range n.inner {
		own := append(path[:len(path):len(path)], "["+strconv.Itoa(i)+"]")
		if c.kind == scalar {
			if flag != "" && !strings.HasPrefix(c.text, "-") {
				before := len(d.found)
				d.leaf(append(own, flag), c.text, c.line, depth)
				flag = ""
				if len(d.found) > before {
					continue
				}
			}
			flag = ""
			if t := c.text; strings.HasPrefix(t, "-") && !strings.ContainsAny(t, "= ") {
				flag = strings.TrimLeft(t, "-")
				continue
			}
		}
		d.tree(c, own, depth+1)
	}
}

// general are names that only repeat what stands above them.
var general = set(`value values default data content contents stringvalue text _ raw plain string secretstring #text current val`)

// lastName is the name under which a value stands.
func lastName(path []string) string {
	for i := len(path) - 1; i >= 0; i-- {
		p := path[i]
		if strings.HasPrefix(p, "[") || i > 0 && general[strings.ToLower(p)] {
			continue
		}
		return p
	}
	return ""
}

var (
	givenTo = lazily(`(?i)^(?:env|environment|envs|headers|http_headers|extra_headers|static_headers|env_vars|environmentvariables|requestheaders)$`)
	servers = lazily(`(?i)^(?:mcp|mcp_?servers|servers|context_servers|extensions|amp\.mcpServers|mcp\.servers|tools|clients|agents)$`)
)

// given reports whether a path lies in the block with which an agent's settings hand
// values to a server.
func given(path []string) bool {
	for i := range path {
		if i > 0 && i < len(path)-1 && givenTo.MatchString(path[i]) {
			for _, p := range path[:i] {
				if servers.MatchString(p) {
					return true
				}
			}
		}
	}
	return false
}

// joinPath is a path as reports show it.
func joinPath(path []string) string { return strings.ReplaceAll(strings.Join(path, "."), ".[", "[") }

// leaf judges one value of a parsed file.
func (d *doc) leaf(path []string, v string, line, depth int) {
	if d.lines { // what is cut off above it
		line += strings.Count(v[:len(v)-len(strings.TrimLeft(v, " \t\r\n"))], "\n")
	}
	v = strings.TrimSpace(v)
	name := lastName(path)
	if len(v) < 5 {
		return
	}
	key := joinPath(path)
	if (v[0] == '{' || v[0] == '[') && len(v) > 12 && depth < 8 {
		if n := parseJSON([]byte(v), line); n != nil {
			if !d.lines {
				setLine(n, line)
			}
			d.tree(n, path, depth+4)
			return
		}
	}
	if reference.MatchString(v) && !strings.Contains(v, "\n") && !strings.Contains(v, "@") {
		return
	}
	before := len(d.found)
	u := &unit{text: []byte(v), line: line, flat: !d.lines, path: key, mode: prose}
	if !strings.ContainsAny(v, "\n") {
		u.mode = config
	}
	if !strings.ContainsAny(v, " \n=:") {
		u.mode = forms
	}
	c := classOf(name)
	if len(v) >= 8 {
		d.text(u)
	}
	if len(d.found) > before {
		return
	}
	if d.bundler(name, key, v, line) || strings.HasSuffix(strings.ToLower(name), "cookie") && d.cookie(u, 0, v) {
		return
	}
	inEnv := len(path) == 1 && envName.MatchString(d.base) || len(path) > 1 && givenTo.MatchString(path[len(path)-2])
	if workingFolder(name, v, inEnv) || key == "user.signingkey" { // which git names, and others may know
		return
	}
	if d.wallet(name, key, v, line) || d.serverURL(path, name, key, v, line) {
		return
	}
	if d.dockerAuth(path, name, v, line) || strings.ContainsAny(v, "\n") {
		return
	}
	inGiven := given(path)
	if c == plain && len(path) > 1 && strings.EqualFold(path[len(path)-2], "passwords") && !harmlessEnd(name) {
		c = password
	}
	switch {
	case c == plain && (inGiven || secretParent(key)) && !harmlessEnd(name) && random(v, 16) && !hexOnly.MatchString(v):
		c = hinting
	case c == hinting && inGiven:
		c = telling
	}
	if c == plain {
		return
	}
	ok := plausible(c, v, config, true)
	if !ok && c == hinting && envKey.MatchString(name) && hexOnly.MatchString(v) && random(v, 32) && !placeholder(v) {
		ok = true // SOMEBODY_KEY: in an environment it is theirs, not a digest
	}
	if !ok && inGiven && c >= telling && len(v) >= 8 && !placeholder(v) && !wordy(v) && !strings.ContainsAny(v, " /") {
		ok = true
	}
	if !ok && c == hinting && secretParent(key) && random(v, 16) && !placeholder(v) {
		ok = true
	}
	if !ok && c == password && envName.MatchString(d.base) && (phraseForm.MatchString(v) || spacedPassword(v)) && !prosaic.MatchString(v) {
		ok = true
	}
	if !ok || d.public(path, v) || echoes(name, v) || siteKey(name, v) {
		return
	}
	f := kindOf(name, c, v)
	if f.provider == "" {
		for i := len(path) - 2; i >= 0 && f.provider == ""; i-- {
			if f.provider = providerOf(nameWords(path[i])); f.provider != "" && !servers.MatchString(path[i]) {
				f.base = max(f.base, issuers[f.provider].base)
			} else {
				f.provider = ""
			}
		}
	}
	f.value, f.key, f.line = v, key, line
	d.addParsed(f)
}

// bundler reads a login of Bundler, whose name is that of a host: BUNDLE_GEMS__ACME__COM.
func (d *doc) bundler(name, key, v string, line int) bool {
	if !strings.HasPrefix(name, "BUNDLE_") || !strings.Contains(name, "__") {
		return false
	}
	user, pass, ok := strings.Cut(v, ":")
	if !ok {
		user, pass = "", v
	}
	if placeholder(pass) || !random(pass, 12) && !(ok && passwordLike(pass, config)) {
		return false
	}
	d.addParsed(found{kind: "registry-login", title: "Login of a registry", base: 65, value: pass, weak: !random(pass, 20), key: key, line: line, opens: user})
	return true
}

// envKey matches the name of a variable that holds a key of somebody.
var envKey = lazily(`^[A-Z][A-Z0-9]*_KEY$`)

var (
	phraseForm = lazily(`^[A-Za-z0-9]{2,12}(?: [A-Za-z0-9]{2,12}){2,9}$`)
	// prosaic are words of sentences, and of no passphrase.
	prosaic = lazily(`(?i)\b(?:the|your|you|is|are|an|to|for|please|enter|use|used|of|and|or|not|with|from|must|here|this|that|set|change|password|passphrase|secret|example|in)\b`)
)

// spacedPassword reports whether some words hold all that rules for passwords ask for.
func spacedPassword(v string) bool {
	return len(v) >= 10 && len(v) <= 40 && len(strings.Fields(v)) <= 6 && classes(strings.ReplaceAll(v, " ", "")) == 4 && strings.ContainsAny(v, "!?#$%&*+@^~") && !placeholder(v)
}

var seedWords = lazily(`^(?:[a-z]{3,8} ){11}(?:(?:[a-z]{3,8} ){3}){0,4}[a-z]{3,8}$`)

// wallet reads the words from which a wallet is made (BIP 39).
func (d *doc) wallet(name, key, v string, line int) bool {
	w := nameWords(name)
	if len(w) == 0 || w[len(w)-1] != "mnemonic" && w[len(w)-1] != "phrase" && w[len(w)-1] != "seed" || !seedWords.MatchString(v) {
		return false
	}
	seen := map[string]bool{}
	for _, x := range strings.Fields(v) {
		seen[x] = true
	}
	if len(seen) < 9 || strings.HasPrefix(v, "legal winner") || strings.HasPrefix(v, "letter advice") || strings.HasPrefix(v, "test ") { // examples of the standard
		return false
	}
	d.addParsed(found{kind: "wallet-words", title: "Words of a wallet", base: 85, weak: true, value: v, key: key, line: line})
	return true
}

// serverURL reads the address of a server whose path is its key, in an agent's settings.
func (d *doc) serverURL(path []string, name, key, v string, line int) bool {
	low := strings.ToLower(name)
	if low != "url" && low != "serverurl" && low != "httpurl" && low != "endpoint" || !strings.HasPrefix(v, "http") {
		return false
	}
	inside := false
	for _, p := range path {
		inside = inside || servers.MatchString(p)
	}
	if !inside {
		return false
	}
	_, rest, _ := strings.Cut(v, "://")
	rest, _, _ = strings.Cut(rest, "?")
	parts := strings.Split(rest, "/")
	for _, p := range parts[1:] {
		if random(p, 30) && !placeholder(p) && !(hexOnly.MatchString(p) && len(p) == 40) {
			d.addParsed(found{kind: "url-credential", title: "Address that is its own key", provider: providerOfHost(parts[0]), base: 55, value: p, key: key, line: line, opens: parts[0]})
			return true
		}
	}
	return false
}

// harmlessEnd reports whether a name ends as those of public things do.
func harmlessEnd(name string) bool {
	w := nameWords(name)
	return len(w) > 0 && (harmless[w[len(w)-1]] || known[w[0]])
}

// public reports whether what stands around a value says that it is no secret: a schema,
// a translation, or a list of examples.
func (d *doc) public(path []string, v string) bool {
	for _, p := range path {
		for _, w := range nameWords(p) {
			if w == "encrypted" || w == "sealed" || w == "sops" || w == "ciphertext" {
				return true
			}
		}
		switch strings.ToLower(p) {
		case "properties", "definitions", "$defs", "components", "translations", "messages", "i18n", "locales", "examples", "placeholder", "integrity", "checksums", "hashes", "digests":
			return wordy(v) || hexOnly.MatchString(v) || p == "examples"
		}
	}
	return false
}

// dockerAuth opens auths.*.auth of Docker's settings and what imitates them.
func (d *doc) dockerAuth(path []string, name, v string, line int) bool {
	if name != "auth" && name != "_auth" || len(path) < 1 {
		return false
	}
	user, pass, ok := basicPair(v)
	if !ok {
		return false
	}
	if placeholder(pass) {
		return true
	}
	host := ""
	if len(path) >= 2 {
		host = path[len(path)-2]
	}
	d.addParsed(found{kind: "registry-login", title: "Login of a registry", provider: providerOfHost(strings.TrimPrefix(host, "https://")), base: 65, value: v, also: pass, weak: true, key: strings.Join(path, "."), line: line, opens: user})
	return true
}

func setLine(n *node, line int) {
	n.line = line
	for _, c := range n.inner {
		setLine(c, line)
	}
}
