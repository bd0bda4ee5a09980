package scan

import (
	"context"
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
)

// example is one place of the corpus, with values made up for it.
type example struct {
	path, kind string
	text       string
	values     []made // what must be found in it
}

type made struct {
	value string
	line  int
}

// turns is how many times the corpus is filled with fresh values.
const turns = 3

var alphabets = map[byte]string{
	'A': "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", 'a': "abcdefghijklmnopqrstuvwxyz0123456789", 'h': "0123456789abcdef", 'U': "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 'd': "0123456789",
	'b': "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", 'w': "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", 'P': "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789!^*_+.",
}

var (
	marker = regexp.MustCompile(`⟦([^⟧]*)⟧`)
	made1  = regexp.MustCompile(`^(.*)\|([A-Za-z])(\d+)$`)
)

// signs are n signs of an alphabet; a password ends in what every policy asks for.
func signs(r *rand.Rand, alphabet byte, n int) string {
	set := alphabets[alphabet]
	b := make([]byte, n)
	for i := range b {
		b[i] = set[r.IntN(len(set))]
	}
	switch {
	case alphabet == 'P':
		b[0], b[n-2], b[n-1] = 'K', '7', 'v'
	case n >= 8 && alphabet != 'U' && alphabet != 'd' && alphabet != 'h':
		b[n/2] = '4'
	case alphabet == 'h' && n >= 16:
		b[0], b[1] = 'c', '9'
	}
	return string(b)
}

// base62 writes a number in the signs of A, digits first.
func base62(n uint32) (s string) {
	for digits := alphabets['d'] + alphabets['A'][:52]; n > 0; n /= 62 {
		s = digits[n%62:n%62+1] + s
	}
	return s
}

// fill makes the values of a template. The first character of a value's prefix is ! where
// it stands beside a credential and is none.
func fill(r *rand.Rand, text string) (string, []made) {
	var values []made
	out := marker.ReplaceAllStringFunc(text, func(m string) string {
		spec := strings.TrimSuffix(strings.TrimPrefix(m, "⟦"), "⟧")
		harmless := strings.HasPrefix(spec, "!")
		spec = strings.TrimPrefix(spec, "!")
		encode := strings.HasPrefix(spec, "b64:")
		spec = strings.TrimPrefix(spec, "b64:")
		spec, checked := strings.CutPrefix(spec, "crc:")
		var v, shown string
		word := func(head string) string { return base64.RawURLEncoding.EncodeToString([]byte(head)) }
		switch spec {
		case "uuid":
			v = signs(r, 'h', 8) + "-" + signs(r, 'h', 4) + "-4" + signs(r, 'h', 3) + "-a" + signs(r, 'h', 3) + "-" + signs(r, 'h', 12)
		case "jwt":
			v = word(`{"alg":"RS256","typ":"JWT"}`) + "." + word(fmt.Sprintf(`{"iss":"https://login.example.org","sub":"%s","exp":1890000000}`, signs(r, 'a', 9))) + "." + signs(r, 'w', 86)
		case "jwtanon":
			v = word(`{"alg":"HS256","typ":"JWT"}`) + "." + word(`{"iss":"supabase","ref":"`+signs(r, 'a', 20)+`","role":"anon","exp":1990000000}`) + "." + signs(r, 'w', 43)
		case "jwtio":
			v = word(`{"alg":"HS256","typ":"JWT"}`) + "." + word(`{"sub":"1234567890","name":"John Doe","iat":1516239022}`) + "." + signs(r, 'w', 43)
		case "basic":
			v = base64.StdEncoding.EncodeToString([]byte("ada:" + signs(r, 'P', 15)))
		case "pem", "pemjson", "pemb64", "pemindent", "pembody":
			body := make([]string, 6)
			for i := range body {
				body[i] = signs(r, 'b', 64)
			}
			key := strings.Join([]string{"-----BEGIN ", "PRIVATE KEY-----\n"}, "") + strings.Join(body, "\n") + "\n-----END PRIVATE KEY-----\n"
			v, shown = body[2], key
			switch spec {
			case "pemjson":
				shown = strings.ReplaceAll(key, "\n", `\n`)
			case "pemb64":
				shown = base64.StdEncoding.EncodeToString([]byte(key))
				v = shown
			case "pemindent":
				shown = strings.TrimSpace(strings.ReplaceAll(key, "\n", "\n      "))
			case "pembody":
				shown = strings.Join(body, `\\n`)
			}
		default:
			p := made1.FindStringSubmatch(spec)
			if p == nil {
				panic(spec)
			}
			n, _ := strconv.Atoi(p[3])
			v = p[1] + signs(r, p[2][0], n)
			if checked { // as GitHub and npm end theirs
				sum := strings.Repeat("0", 6) + base62(crc32.ChecksumIEEE([]byte(v[len(p[1]):])))
				v += sum[len(sum)-6:]
			}
		}
		if encode {
			shown = base64.StdEncoding.EncodeToString([]byte(v))
		}
		if shown == "" {
			shown = v
		}
		if !harmless {
			values = append(values, made{value: v})
		}
		return shown
	})
	return out, values
}

// corpus reads one of the files and fills it.
func corpus(t testing.TB, name string, seed uint64) (list []example) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(seed, 8))
	for turn := range turns {
		for _, part := range strings.Split("\n"+string(text), "\n-- ")[1:] {
			head, body, _ := strings.Cut(part, "\n")
			path, kind, _ := strings.Cut(head, " ")
			e := example{path: filepath.Join(strings.TrimSuffix(name, ".txt"), fmt.Sprint("t", turn), strings.ReplaceAll(kind, "/", "_"), fmt.Sprint(len(list)), path), kind: kind}
			line := 1
			var out strings.Builder
			for l := range strings.Lines(body + "\n") {
				filled, values := fill(r, l)
				// Values that touch each other are one.
				if strings.Contains(l, "⟧.⟦") || strings.Contains(l, "⟧_⟦") || strings.Contains(l, "⟧-⟦") || strings.Contains(l, "⟧/⟦") || strings.Contains(l, "⟧:AA⟦") || strings.Contains(l, "⟧.atlasv1.⟦") || strings.Contains(l, "⟧8Q~⟦") || strings.Contains(l, "⟧\"⟦") {
					values = values[len(values)-1:]
				}
				for _, v := range values {
					e.values = append(e.values, made{v.value, line})
				}
				out.WriteString(filled)
				line += strings.Count(filled, "\n")
			}
			e.text = out.String()
			list = append(list, e)
		}
	}
	return list
}

// lay writes examples into a folder.
func lay(t testing.TB, list []example) string {
	t.Helper()
	dir := t.TempDir()
	for _, e := range list {
		name := filepath.Join(dir, e.path)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(e.text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func scanDir(t testing.TB, dir string, opt Options) *Report {
	t.Helper()
	opt.Roots = append(opt.Roots, dir)
	r, err := Run(context.Background(), opt)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// covers reports whether a finding is what was made: it holds its value, at its line.
func covers(f Finding, m made) bool {
	for _, v := range append(f.also[:len(f.also):len(f.also)], f.Value) {
		if s := string(v.Reveal()); strings.Contains(s, m.value) || strings.Contains(m.value, s) && len(s)*3 >= len(m.value) || strings.Contains(strings.ReplaceAll(s, "\n", ""), m.value) {
			return true
		}
		if b, err := base64.StdEncoding.DecodeString(string(v.Reveal())); err == nil && string(b) == m.value {
			return true
		}
	}
	return false
}

// Issue 8: recall and precision over a labelled corpus, by kind. A case is a value that
// must be found, or a file in which nothing may be.
func TestRecallAndPrecision(t *testing.T) {
	t.Parallel()
	cases := append(corpus(t, "true.txt", 1), corpus(t, "true_2026.txt", 3)...)
	dir := lay(t, cases)
	byFile := map[string][]Finding{}
	report := scanDir(t, dir, Options{NoIgnore: true})
	if !report.Complete { // also where a reader failed
		t.Errorf("not read in full: %v", report.Skipped)
	}
	for _, f := range report.Findings {
		byFile[f.File] = append(byFile[f.File], f)
	}
	type tally struct{ want, got, wrong int }
	kinds := map[string]*tally{}
	total := &tally{}
	for _, e := range cases {
		k := kinds[e.kind]
		if k == nil {
			k = &tally{}
			kinds[e.kind] = k
		}
		list := byFile[filepath.Join(dir, e.path)]
		used := make([]bool, len(list))
		for _, m := range e.values {
			i := slices.IndexFunc(list, func(f Finding) bool { return covers(f, m) })
			k.want++
			if i < 0 {
				t.Logf("missed in %s, line %d: %s", e.path, m.line, strings.Split(e.text, "\n")[m.line-1])
				continue
			}
			k.got++
			for j, f := range list {
				used[j] = used[j] || covers(f, m)
			}
			if list[i].Line != m.line && !strings.Contains(e.text, "-----BEGIN") {
				t.Errorf("%s: found at line %d, it is at %d (%s)", e.path, list[i].Line, m.line, list[i].Kind)
			}
		}
		for j, u := range used {
			if !u {
				k.wrong++
				t.Logf("wrong in %s: %s %q at line %d: %s", e.path, list[j].Kind, list[j].Key, list[j].Line, list[j].Value.Reveal())
			}
		}
	}
	falses := append(corpus(t, "false.txt", 2), corpus(t, "false_2026.txt", 4)...)
	dir = lay(t, falses)
	wrong := 0
	for _, f := range scanDir(t, dir, Options{NoIgnore: true}).Findings {
		wrong++
		t.Logf("wrong in %s, line %d: %s %q: %s", strings.TrimPrefix(f.File, dir), f.Line, f.Kind, f.Key, f.Value.Reveal())
	}
	lines := 0
	for _, e := range falses {
		lines += strings.Count(e.text, "\n")
	}
	names := []string{}
	for k, v := range kinds {
		names = append(names, k)
		total.want, total.got, total.wrong = total.want+v.want, total.got+v.got, total.wrong+v.wrong
	}
	sort.Strings(names)
	for _, n := range names {
		v := kinds[n]
		t.Logf("| %s | %d | %.1f %% | %.1f %% |", n, v.want, 100*float64(v.got)/float64(v.want), 100*float64(v.got)/float64(v.got+v.wrong))
	}
	recall := float64(total.got) / float64(total.want)
	precision := float64(total.got) / float64(total.got+total.wrong+wrong)
	t.Logf("recall %.2f %% of %d, precision %.2f %% (%d wrong in %d places and %d lines without a credential)", 100*recall, total.want, 100*precision, total.wrong+wrong, len(falses), lines)
	if total.want < 300 || lines < 300 {
		t.Errorf("the corpus has %d true and %d false cases", total.want, lines)
	}
	if recall < 0.98 || precision < 0.95 {
		t.Error("recall must be 98 % and precision 95 %")
	}
}
