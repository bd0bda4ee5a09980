package scan

import (
	"bytes"
	"encoding/json"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// told is everything that this room writes about a report.
func told(t *testing.T, r *Report, dir string) string {
	t.Helper()
	var out bytes.Buffer
	for _, v := range []any{r, SARIF(r, dir, "1"), NewBaseline(r.Findings, dir)} {
		if err := json.NewEncoder(&out).Encode(v); err != nil {
			t.Fatal(err)
		}
	}
	if err := HTML(&out, r, time.Unix(1_800_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// A bug: a map whose names are keys (api_tokens: {<key>: who}) had each printed as part of
// the path to what was found there, in JSON, YAML, TOML, INI and plain text, and so had the
// user of an address or of a registry, who may be the token. threats.md P2.
func TestNameThatIsAKey(t *testing.T) {
	t.Parallel()
	names := []string{"f3a9c07bd1e84f2690ab5d7c1e2f8a34", "q8Zr2LmX0vKtY5nWc7Pb", "9f1c2b3a-4d5e-4f60-8a7b-1c2d3e4f5a6b", "Kx7qW3zR"}
	inner := "kT4vvd!9QmZr2"
	for i, name := range names {
		under := "api_tokens"
		if i == 3 {
			under = "passwords"
		}
		for file, text := range map[string]string{
			"a.json": `{"` + under + `": {"` + name + `": {"password": "` + inner + `"}}}`,
			"a.yaml": under + ":\n  " + name + ":\n    password: \"" + inner + "\"\n",
			"a.toml": "[" + under + ".\"" + name + "\"]\npassword = \"" + inner + "\"\n",
		} {
			dir := t.TempDir()
			write(t, filepath.Join(dir, file), text)
			r := scanDir(t, dir, Options{})
			if len(r.Findings) == 0 || strings.Contains(told(t, r, dir), name) || !strings.Contains(r.Findings[0].Key, "password") {
				t.Errorf("%s of %s: %d findings, or it is shown: %s", file, name, len(r.Findings), r.Findings[0].Key)
			}
		}
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.sh"), "curl https://"+names[1]+":Zk4vvd9QmZr2x@api.example.com/\n")
	write(t, filepath.Join(dir, "a.env"), "MCP_SERVER_2_TOKEN="+names[1]+"X\nAZURE_OPENAI_EU2_API_KEY="+names[0]+"\n")
	r := scanDir(t, dir, Options{})
	if len(r.Findings) != 3 || strings.Contains(told(t, r, dir), names[1]) {
		t.Errorf("%d findings, or a user that is a token is shown", len(r.Findings))
	}
	var keys []string
	for _, f := range r.Findings {
		keys = append(keys, f.Key)
	}
	for _, want := range []string{"MCP_SERVER_2_TOKEN", "AZURE_OPENAI_EU2_API_KEY"} { // names that are none stay
		if !slices.Contains(keys, want) {
			t.Errorf("%s is not told: %q", want, keys)
		}
	}
}

// A bug: a file that is called like what it keeps, or like an address with a key in it, was
// named in full. threats.md P2.
func TestFileThatIsCalledLikeAKey(t *testing.T) {
	t.Parallel()
	bare := "q8Zr2LmX0vKtY5nWc7Pb"
	for name, shown := range map[string]string{
		"token-" + bare + ".env":                   bare,
		filepath.Join("tokens", bare+".env"):       bare,
		url.QueryEscape("k="+token(1)) + ".env":    url.QueryEscape(token(1)),
		strings.ReplaceAll(token(2), "_", "%5F"):   token(2)[4:],
		strings.ReplaceAll(token(3), "_", "%255f"): token(3)[4:],
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, name), "DB_PASSWORD=kT4vvd!9QmZr\n")
		r := scanDir(t, dir, Options{})
		if text := told(t, r, dir); len(r.Findings) != 1 || strings.Contains(text, shown) {
			t.Errorf("%d findings, or %s is shown", len(r.Findings), name)
		}
		base, _ := json.Marshal(NewBaseline(r.Findings, dir))
		again, err := ReadBaseline(base)
		if err != nil {
			t.Fatal(err)
		}
		if r := scanDir(t, dir, Options{Baseline: again}); len(r.Findings) != 0 {
			t.Errorf("%s is not accepted by its own baseline", name)
		}
	}
	dir := t.TempDir()
	name := "deploy-key-of-the-staging-cluster.env"
	write(t, filepath.Join(dir, name), "DB_PASSWORD=kT4vvd!9QmZr\n")
	if r := scanDir(t, dir, Options{}); len(r.Findings) != 1 || filepath.Base(r.Findings[0].File) != name {
		t.Errorf("an honest name is hidden: %+v", r.Findings)
	}
}

// A bug: names of files and keys brought signs into reports that a terminal obeys (C1) or
// that turn the order of what is read (bidirectional marks); a file named like an address
// made SARIF's reference one with a scheme.
func TestNamesThatAct(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "javascript:alert(1)", "a\u009b31m\u202etxt.env"), "DB_PASSWORD=kT4vvd!9QmZr\n")
	write(t, filepath.Join(dir, "b.json"), `{"x\u202e\u0007\u2028":{"password":"kT4vvd!9QmZx"}}`)
	r := scanDir(t, dir, Options{})
	if len(r.Findings) != 2 {
		t.Fatalf("%d findings", len(r.Findings))
	}
	for _, f := range r.Findings {
		for _, s := range []string{f.File, f.Key, f.Title, f.Reason, f.Opens} {
			if strings.ContainsAny(s, "\u009b\u202e\u0007\u2028") {
				t.Errorf("%q acts", s)
			}
		}
		u, err := url.Parse(uri(relative(f.File, dir)))
		if err != nil || u.Scheme != "" {
			t.Errorf("the reference is %v, %v", u, err)
		}
	}
	if got := uri(`C:/projects/a.env`); got != "file:///C:/projects/a.env" {
		t.Errorf("a drive is %s", got)
	}
}

// What was hidden stays as it is when it is hidden again: a baseline names a finding by what
// a report shows of it, and is compared with what a file has.
func FuzzHiddenTwice(f *testing.F) {
	for _, s := range []string{"api_tokens.q8Zr2LmX0vKtY5nWc7Pb.password", "a/token-q8Zr2LmX0vKtY5nWc7Pb.env", "k%3Dghp%5Fx/tokens/é\xff", "env › A_B_C.[0]", "passwords.Kx7qW3zR"} {
		f.Add(s)
	}
	h := anyHider()
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 1000 {
			return
		}
		if once := seen(h.name(s)); seen(h.name(once)) != once {
			t.Errorf("name %q: %q, then %q", s, once, seen(h.name(once)))
		}
		if once := seen(h.path(s)); seen(h.path(once)) != once {
			t.Errorf("path %q: %q, then %q", s, once, seen(h.path(once)))
		}
	})
}
