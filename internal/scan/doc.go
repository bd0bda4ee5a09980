package scan

import (
	"bytes"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/ambit-dev/ambit/internal/secret"
)

// doc is one file while it is read.
type doc struct {
	r      *reader
	shown  string // path as reports have it
	path   string // with slashes, for rules about names
	base   string // its last part, in lower case
	place  *Place
	commit string

	accept   map[int]bool  // lines that accept what they hold
	onLine   map[int][]int // places in found, by line
	found    []Finding
	accepted int

	ended  func() error // of the run: not nil when it is to stop
	asked  uint
	over   bool
	awsEnd map[string]time.Time // by group, when its temporary credentials end
	lines  bool                 // the value that is judged goes over lines of the file
	tired  bool                 // a part of it was too dense to be read in full
}

// maxOnLine bounds what is found on one line.
const maxOnLine = 1000

// maxInFile bounds what is found in one file.
const maxInFile = 10_000

// itself is what a report calls the document beside its path.
func (d *doc) itself() string {
	if d.commit != "" {
		return "a version of it"
	}
	return "it"
}

// stopped reports whether the run is to end; it is asked often, and looks now and then.
func (d *doc) stopped() bool {
	if d.asked++; d.asked%64 == 1 && d.ended != nil {
		d.over = d.over || d.ended() != nil
	}
	return d.over
}

// add makes a finding of what was found in a text.
func (d *doc) add(u *unit, f found) {
	f.line = u.lineAt(f.at)
	end := f.line
	if f.end > 0 && !u.flat {
		end += bytes.Count(u.text[f.at:f.end], []byte{'\n'})
	}
	if f.key == "" {
		f.key = u.path
	}
	d.put(f, end)
}

// addParsed makes a finding of a value that has a line already.
func (d *doc) addParsed(f found) { d.put(f, f.line) }

func (d *doc) put(f found, end int) {
	if strings.HasPrefix(f.value, "ambit_") {
		return
	}
	v := secret.FromString(f.value)
	here := d.onLine[f.line]
	if len(here) >= maxOnLine || len(d.found) >= maxInFile {
		d.tired = true
		return
	}
	for _, i := range here { // the same value on the same line was told already, perhaps in part
		if o := &d.found[i]; o.Value.Equal(v) || within(o.Value, v) || f.kind == "private-key" && (o.Kind == f.kind || o.Kind == "gcp-service-account") {
			return
		}
	}
	if d.allowed(f.line) {
		d.accepted++
		return
	}
	own := Finding{
		Kind: f.kind, Title: f.title, Provider: f.provider, File: d.shown, Line: f.line, Key: f.key, Commit: d.commit,
		Value: v, weak: f.weak, base: f.base, Opens: f.opens,
	}
	if end > f.line {
		own.EndLine = end
	}
	if f.also != "" {
		own.also = append(own.also, secret.FromString(f.also))
	}
	if !f.expires.IsZero() {
		own.Expires = &f.expires
	}
	if d.place != nil {
		own.Client = d.place.Client
	}
	if d.onLine == nil {
		d.onLine = map[int][]int{}
	}
	d.onLine[f.line] = append(here, len(d.found))
	d.found = append(d.found, own)
}

// marks notes which lines of a text accept what they hold, by a mark on them or on the
// line above. The mark is ambit:allow; gitleaks' own counts too.
func (d *doc) marks(b []byte, line int) {
	if !bytes.Contains(b, []byte(":allow")) {
		return
	}
	if d.accept == nil {
		d.accept = map[int]bool{}
	}
	for l := range bytes.Lines(b) {
		if bytes.Contains(l, []byte("ambit:allow")) || bytes.Contains(l, []byte("gitleaks:allow")) {
			d.accept[line] = true
			d.accept[line+1] = d.accept[line+1] || bytes.Contains(l, []byte("ambit:allow-next-line"))
		}
		line++
	}
}

func (d *doc) allowed(line int) bool { return d.accept[line] }

// format is how a file is read.
type format int

const (
	asText format = iota
	asConfigText
	asJSON
	asJSONLines
	asYAML
	asTOML
	asINI
	asXML
	asCode
	asTokens // only what has a form of its own
	asNetrc
	asWhole // the file is one token
)

var (
	envName  = lazily(`(?i)(?:^|[._-])env(?:\.[\w.-]+)?$|^\.?envrc$|^\.env|\.env$|^\.flaskenv$|^\.dev\.vars$|^secrets?\.env`)
	lockName = set(`package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml cargo.lock poetry.lock pipfile.lock composer.lock gemfile.lock go.sum go.mod go.work.sum deno.lock bun.lock flake.lock uv.lock gradle.lockfile packages.lock.json podfile.lock mix.lock pubspec.lock paket.lock conan.lock .terraform.lock.hcl cdk.lock gradle-wrapper.properties verification-metadata.xml chart.lock`)
	byExt    = map[string]format{
		".json": asJSON, ".jsonc": asJSON, ".json5": asJSON, ".ipynb": asJSON, ".tfstate": asJSON, ".code-workspace": asJSON, ".har": asJSON, ".webmanifest": asJSON, ".jsonl": asJSONLines, ".ndjson": asJSONLines,
		".yaml": asYAML, ".yml": asYAML, ".toml": asTOML, ".ini": asINI, ".cfg": asINI, ".properties": asINI, ".conf": asConfigText, ".cnf": asINI, ".xml": asXML, ".config": asXML, ".plist": asXML, ".csproj": asXML, ".props": asXML, ".resx": asXML,
		".tfvars": asConfigText, ".hcl": asConfigText, ".tf": asConfigText, ".sh": asConfigText, ".bash": asConfigText, ".zsh": asConfigText, ".fish": asConfigText, ".ps1": asConfigText, ".bat": asConfigText, ".cmd": asConfigText, ".nomad": asConfigText, ".service": asINI, ".desktop": asINI, ".pgpass": asConfigText,
		".md": asText, ".txt": asText, ".log": asText, ".rst": asText, ".adoc": asText, ".html": asText, ".htm": asText, ".csv": asText, ".tsv": asText, ".sql": asText, ".out": asText, ".diff": asText, ".patch": asText, ".eml": asText, ".map": asTokens, ".svg": asTokens, ".lock": asTokens, ".sum": asTokens, ".css": asTokens, ".scss": asTokens, ".less": asTokens, ".po": asTokens, ".pot": asTokens, ".strings": asTokens,
	}
	byName = map[string]format{
		".npmrc": asINI, ".pypirc": asINI, ".netrc": asNetrc, "_netrc": asNetrc, ".authinfo": asNetrc, ".git-credentials": asConfigText, "credentials": asINI, "config": asINI, ".gitconfig": asINI, ".pgpass": asConfigText, "pgpass.conf": asConfigText, ".my.cnf": asINI, ".mylogin.cnf": asINI,
		".terraformrc": asConfigText, "terraform.rc": asConfigText, ".dockerconfigjson": asJSON, ".dockercfg": asJSON, ".s3cfg": asINI, ".boto": asINI, "rclone.conf": asINI, ".pip.conf": asINI, "pip.conf": asINI, ".yarnrc": asConfigText, ".yarnrc.yml": asYAML, ".condarc": asYAML, ".gemrc": asYAML, ".curlrc": asConfigText, ".wgetrc": asINI, ".mcp.json": asJSON, ".claude.json": asJSON,
		".bashrc": asConfigText, ".bash_profile": asConfigText, ".zshrc": asConfigText, ".zshenv": asConfigText, ".zprofile": asConfigText, ".profile": asConfigText, ".bash_history": asConfigText, ".zsh_history": asConfigText, "fish_history": asConfigText, "consolehost_history.txt": asConfigText, ".bash_aliases": asConfigText, ".zsh_sessions": asConfigText,
		"dockerfile": asConfigText, "containerfile": asConfigText, "makefile": asConfigText, "jenkinsfile": asCode, "vagrantfile": asCode, "procfile": asConfigText, "caddyfile": asConfigText, ".htpasswd": asTokens, ".vault-token": asWhole, ".sentryclirc": asINI, ".databrickscfg": asINI, ".snowsql": asINI, ".oci": asINI, ".cargo": asTOML, "kubeconfig": asYAML, ".kube": asYAML, "hosts": asConfigText, ".mailrc": asConfigText, ".msmtprc": asConfigText, ".fetchmailrc": asConfigText, ".python_history": asCode, ".node_repl_history": asCode, ".psql_history": asText, ".mysql_history": asText, ".rediscli_history": asText,
		"token": asWhole, "application_default_credentials.json": asJSON, "known_hosts": asTokens, "authorized_keys": asTokens,
	}
	codeExt = set(`.go .py .js .mjs .cjs .ts .tsx .jsx .java .kt .kts .scala .rb .php .cs .fs .vb .c .h .cc .cpp .hpp .m .mm .swift .rs .dart .lua .pl .pm .r .jl .ex .exs .erl .hs .clj .groovy .gradle .vue .svelte .astro .sol .zig .nim .proto .graphql .gql .erb .ejs .hbs .tmpl .twig .jinja .j2`)
)

// formatOf tells how to read a file by its name, and by how it begins.
func (d *doc) formatOf(head []byte) format {
	if d.place != nil && d.place.format != asText {
		return d.place.format
	}
	ext := strings.ToLower(path.Ext(d.base))
	if f, ok := byName[d.base]; ok {
		switch {
		case d.base == "config" && strings.Contains(d.path, ".kube"):
			return asYAML
		case d.base == "config" && strings.Contains(d.path, ".ssh"), d.base == "hosts" && !strings.Contains(d.path, "gh/"):
			return asConfigText
		case d.base == "token" && len(head) > 4096:
			return asText
		case f == asINI && looksJSON(head):
			return asJSON
		}
		return f
	}
	switch {
	case lockName[d.base] || strings.HasSuffix(d.base, ".min.js") || strings.HasSuffix(d.base, ".min.css"):
		return asTokens
	case envName.MatchString(d.base) && (strings.HasPrefix(d.base, ".env") || byExt[ext] == asText && !codeExt[ext]):
		return asINI
	case strings.HasPrefix(d.base, "dockerfile"), strings.HasPrefix(d.base, ".bash"), strings.HasPrefix(d.base, ".zsh"):
		return asConfigText
	case codeExt[ext]:
		return asCode
	}
	if (ext == ".key" || classOf(strings.TrimSuffix(d.base, ext)) >= telling) && oneWord(head) {
		return asWhole // Rails' master.key, openai_api_key.txt
	}
	if ext == ".key" || ext == ".pem" {
		return asText
	}
	if bytes.HasPrefix(head, []byte("machine ")) && bytes.Contains(head, []byte(" password ")) {
		return asNetrc
	}
	for _, suffix := range []string{".bak", ".backup", ".old", ".orig", ".save", ".swp", "~", ".example", ".sample", ".dist", ".template", ".tmpl"} {
		if b, ok := strings.CutSuffix(d.base, suffix); ok && b != "" {
			inner := *d
			inner.base, inner.place = b, nil
			return inner.formatOf(head)
		}
	}
	if f, ok := byExt[ext]; ok {
		if f == asXML && !bytes.Contains(head, []byte("<")) || f == asINI && looksJSON(head) {
			f = asINI
			if looksJSON(head) {
				f = asJSON
			}
		}
		return f
	}
	switch {
	case looksJSON(head):
		return asJSON
	case bytes.HasPrefix(head, []byte("<?xml")):
		return asXML
	case bytes.HasPrefix(head, []byte("#!")):
		if line, _, _ := bytes.Cut(head, []byte{'\n'}); bytes.Contains(line, []byte("sh")) {
			return asConfigText
		}
		return asCode
	case ext == "" || strings.HasPrefix(d.base, "."):
		return asConfigText
	}
	return asText
}

// oneWord reports whether a file begins, and ends, with one short word.
func oneWord(head []byte) bool {
	t := bytes.TrimSpace(head)
	return len(head) < 512 && len(t) >= 16 && !bytes.ContainsAny(t, " \t\n\r\"'=:")
}

func looksJSON(head []byte) bool {
	t := bytes.TrimLeft(head, " \t\r\n\xef\xbb\xbf")
	return len(t) > 1 && (t[0] == '{' && (bytes.IndexByte(t[:min(len(t), 200)], '"') > 0 || bytes.HasPrefix(bytes.TrimSpace(t[1:]), []byte("//"))) || t[0] == '[' && bytes.HasPrefix(bytes.TrimSpace(t[1:]), []byte("{")))
}

// whole reads a file that fits into memory.
func (d *doc) whole(b []byte) {
	d.marks(b, 1)
	f := d.formatOf(b[:min(len(b), 512)])
	var n *node
	m := config
	done := d.alone(len(b))
	defer done() // also where the reader fails
	switch f {
	case asJSON:
		if n = parseJSON(b, 1); n == nil && (bytes.Count(b[:min(len(b), 1<<16)], []byte("\n{")) > 0) {
			done()
			d.jsonLines(b)
			return
		}
		m = code
	case asJSONLines:
		done()
		d.jsonLines(b)
		return
	case asYAML:
		if looksJSON(b[:min(len(b), 512)]) {
			n = parseJSON(b, 1)
		}
		if n == nil && len(b) < 2<<20 {
			n = parseYAML(b)
		}
	case asTOML:
		n = parseLines(b, true)
	case asINI:
		n = parseLines(b, false)
	case asXML:
		n = parseXML(b)
		m = code
	case asNetrc:
		d.netrc(b)
	case asWhole:
		d.oneToken(b)
	case asText:
		m = prose
	case asCode:
		m = code
	case asTokens:
		m = forms
	}
	if n != nil {
		d.tree(n, nil, 0)
		n, m = nil, forms // what parsing misses: keys of objects, odd comments
	}
	done()
	d.text(&unit{text: b, line: 1, mode: m})
	d.special(b)
	d.settle()
}

// muchToParse is the length from which texts are parsed one at a time: a tree takes many
// times as much.
const muchToParse = 256 << 10

// alone waits until no other long text is parsed. The caller calls done.
func (d *doc) alone(length int) (done func()) {
	if length < muchToParse {
		return func() {}
	}
	d.r.s.parsing.Lock()
	return sync.OnceFunc(d.r.s.parsing.Unlock)
}

// jsonLines reads a transcript: one value a line, each with texts inside.
func (d *doc) jsonLines(b []byte) {
	line := 1
	for l := range bytes.Lines(b) {
		if d.stopped() {
			break
		}
		d.jsonLine(l, line, prose)
		line++
	}
	d.settle()
}

// jsonLine reads a line that holds a value, or text.
func (d *doc) jsonLine(l []byte, line int, otherwise mode) {
	done := d.alone(len(l))
	defer done() // also where the reader fails
	if n := parseJSON(l, line); n != nil {
		d.tree(n, nil, 0)
		otherwise = forms
	}
	done()
	d.text(&unit{text: l, line: line, mode: otherwise})
}
