package scan

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// ignore is what the ignore files from a root down to a folder leave out. The files
// that git reads and the person's own, .ambitignore, have the same form (gitignore(5)).
type ignore struct {
	up    *ignore
	dir   string
	lines []pattern
	all   int // patterns here and above
}

type pattern struct {
	re     *regexp.Regexp
	not    bool // brings back
	folder bool // folders only
	own    bool // from .ambitignore
}

const (
	// maxIgnore bounds an ignore file.
	maxIgnore = 1 << 20
	// maxPatterns bounds the patterns that count in one folder, its own and those of all above
	// it, and maxPattern the length of one: each is an expression, and is tried on every name.
	maxPatterns = 10_000
	maxPattern  = 500
)

// tooManyPatterns is said of an ignore file that does not count in full: more is read than
// it asks for.
const tooManyPatterns = "its patterns are too many or too long, and not all of them count"

// ignoreAbove reads the files of the repository that a root lies in.
func (s *scanner) ignoreAbove(root string) *ignore {
	var dirs []string
	for dir := filepath.Dir(root); ; dir = filepath.Dir(dir) {
		dirs = append(dirs, dir)
		if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			return nil // no repository: what lies above is nobody's rule
		}
	}
	if _, err := os.Lstat(filepath.Join(root, ".git")); err == nil {
		return nil
	}
	var rules *ignore
	for i := len(dirs) - 1; i >= 0; i-- {
		rules = s.ignoreBelow(rules, dirs[i])
	}
	return rules
}

// ignoreBelow adds the files of a folder to what counts above it.
func (s *scanner) ignoreBelow(up *ignore, dir string) *ignore {
	left := maxPatterns
	if up != nil {
		left -= up.all
	}
	var lines []pattern
	for _, name := range []string{".gitignore", ".ambitignore", filepath.Join(".git", "info", "exclude")} {
		more, whole := readIgnore(filepath.Join(dir, name), left)
		if !whole {
			s.skip(filepath.Join(dir, name), tooManyPatterns)
		}
		for i := range more {
			more[i].own = name == ".ambitignore"
		}
		left -= len(more)
		lines = append(lines, more...)
	}
	if len(lines) == 0 {
		return up
	}
	return &ignore{up: up, dir: dir, lines: lines, all: maxPatterns - left}
}

// readIgnore reads so many patterns at most; whole is false where there are more.
func readIgnore(name string, most int) (list []pattern, whole bool) {
	f, _, err := openRegular(name)
	if err != nil {
		return nil, true
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxIgnore+1))
	whole = err == nil && len(b) <= maxIgnore
	for line := range bytes.Lines(b) {
		line = bytes.TrimRight(line, "\r\n")
		if len(list) == most || len(line) > maxPattern {
			whole = false
			continue
		}
		if p, ok := parsePattern(string(line)); ok {
			list = append(list, p)
		}
	}
	return list, whole
}

func parsePattern(line string) (pattern, bool) {
	var p pattern
	for strings.HasSuffix(line, " ") && !strings.HasSuffix(line, `\ `) {
		line = line[:len(line)-1]
	}
	if line == "" || line[0] == '#' {
		return p, false
	}
	if line[0] == '!' {
		p.not, line = true, line[1:]
	}
	if strings.HasSuffix(line, "/") {
		p.folder, line = true, strings.TrimSuffix(line, "/")
	}
	anchored := strings.Contains(line, "/")
	line = strings.TrimPrefix(line, "/")
	if line == "" {
		return p, false
	}
	re := "^"
	if !anchored {
		re = "(?:^|/)"
	}
	for i := 0; i < len(line); i++ {
		switch c := line[i]; c {
		case '*':
			switch {
			case strings.HasPrefix(line[i:], "**/") && (i == 0 || line[i-1] == '/'):
				re += "(?:.*/)?"
				i += 2
			case line[i:] == "**" && i > 0 && line[i-1] == '/':
				re += ".+"
				i++
			case strings.HasPrefix(line[i:], "**"):
				re += "[^/]*"
				i++
			default:
				re += "[^/]*"
			}
		case '?':
			re += "[^/]"
		case '[':
			end := strings.IndexByte(line[i+1:], ']')
			if end < 1 {
				re += `\[`
				continue
			}
			set := line[i+1 : i+1+end]
			if set[0] == '!' {
				set = "^" + set[1:]
			}
			re += "[" + strings.ReplaceAll(set, `\`, `\\`) + "]"
			i += end + 1
		case '\\':
			if i+1 < len(line) {
				i++
				re += regexp.QuoteMeta(line[i : i+1])
			}
		default:
			re += regexp.QuoteMeta(string(c))
		}
	}
	compiled, err := regexp.Compile(re + "$")
	if err != nil {
		return p, false
	}
	p.re = compiled
	return p, true
}

// ignores reports whether a path is left out: the last pattern that fits decides.
func (g *ignore) ignores(path string, folder bool) bool {
	out, _ := g.decide(path, folder)
	return out
}

// own reports whether .ambitignore left it out.
func (g *ignore) own(path string, folder bool) bool {
	out, own := g.decide(path, folder)
	return out && own
}

func (g *ignore) decide(path string, folder bool) (out, own bool) {
	for ; g != nil; g = g.up {
		rel, err := filepath.Rel(g.dir, path)
		if err != nil || strings.HasPrefix(rel, "..") {
			continue
		}
		rel = filepath.ToSlash(rel)
		for i := len(g.lines) - 1; i >= 0; i-- {
			p := g.lines[i]
			if p.folder && !folder || !p.re.MatchString(rel) {
				continue
			}
			return !p.not, p.own
		}
	}
	return false, false
}

var secretFileName = lazily(`(?i)^\.env|\.env$|\.env\.|^env\.|^\.envrc$|^\.dev\.vars$|secret|credential|password|passwd|token|^\.npmrc$|^\.pypirc$|^\.netrc$|^_netrc$|^\.git-credentials$|^\.pgpass$|^\.my\.cnf$|\.pem$|\.key$|\.ppk$|^id_(?:rsa|dsa|ecdsa|ed25519)|\.tfvars(?:\.json)?$|\.tfstate(?:\.backup)?$|service.?account.*\.json$|^\.?mcp.*\.json$|kubeconfig|^auth\.json$|settings\.local\.json$|local\.settings\.json$|appsettings.*\.json$|^application.*\.(?:ya?ml|properties)$|^config\.local\.|\.local\.(?:json|ya?ml|toml|php|py|js|ts)$|^wp-config\.php$|^database\.ya?ml$|^\.vault-token$|history$`)

// secretFile reports whether a name tells of secrets.
func secretFile(name string) bool { return secretFileName.MatchString(name) }

var secretFolders = set(`.aws .ssh .kube .docker .claude .cursor .vscode .gemini .codex .continue .windsurf .zed .amazonq .kiro .opencode .roo .cline .junie .azure .gcloud secrets .secrets credentials private certs keys env .env`)

func secretFolder(name string) bool { return secretFolders[strings.ToLower(name)] }
