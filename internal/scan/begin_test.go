package scan

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A bug: a text that began with the sign of a picture or a font, such as OTTO_API_KEY=…,
// was taken for one, not read, and called clean. threats.md F14.
func TestTextThatBeginsLikeAPicture(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "otto.env"), "OTTO_API_KEY=x9Kq2mZp8vLw4nRt6bYs3cHd\n")
	write(t, filepath.Join(dir, "riff.py"), "RIFF = \""+token(3)+"\"\n")
	write(t, filepath.Join(dir, "long.env"), "ID3_NAME="+strings.Repeat("ä", 400)+"\nID3_TOKEN="+token(4)+"\n") // cut within a letter
	write(t, filepath.Join(dir, "font"), "OTTO\x00\x0b\x00\x80"+strings.Repeat("\x01\xfe", 200)+token(5))
	r := scanDir(t, dir, Options{})
	got := map[string]bool{}
	for _, f := range r.Findings {
		got[filepath.Base(f.File)] = true
	}
	if len(got) != 3 || !got["otto.env"] || !got["riff.py"] || !got["long.env"] {
		t.Errorf("found in %v", got)
	}
}

// A bug: two megabytes of gzip became a gibibyte of text, which took minutes to read. What is
// left is told. threats.md F14.
func TestPackedTextIsBoundedByItsSize(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// Zeros behind a beginning that is text: a reader passes them over, and counts them.
	long := func(mebibytes int, end string) []byte {
		return append(append(bytes.Repeat([]byte("\n"), 1<<20), make([]byte, (mebibytes-1)<<20)...), end...)
	}
	bomb := packed(long(110, token(1)), 1)
	write(t, filepath.Join(dir, "bomb.log.gz"), bomb)
	write(t, filepath.Join(dir, "twice.log.gz"), packed([]byte(bomb), 1))
	write(t, filepath.Join(dir, "fine.log.gz"), packed(long(30, token(2)), 1))
	r := scanDir(t, dir, Options{})
	if got := filesOf(r, dir); len(got) != 1 || got[0] != "fine.log.gz" {
		t.Errorf("found in %v", got)
	}
	if len(r.Skipped) != 2 {
		t.Errorf("skipped %v", r.Skipped)
	}
}

// Bugs: a session among other cookies, or in the header of a server in an agent's settings,
// was not seen, nor a password of three words in a dotenv file. threats.md F14.
func TestCookiesAndSpacedPasswords(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	session := "xN5GUNXYX7AkWdDco8gmGI74fB9sO2x1"
	write(t, filepath.Join(dir, "mcp.json"), `{"mcpServers":{"a":{"url":"https://a.example/mcp","headers":{"Cookie":"theme=dark; session=`+session+`; lang=de"}},
"b":{"url":"https://b.example/mcp","headers":{"Cookie":"theme=dark; csrf_session=`+session+`a; session_count=12"}}}}`)
	write(t, filepath.Join(dir, ".env"), "DB_PASS=\"h4lt Dich fest!\"\nSMTP_PASSWORD='Kaffee um 9 Uhr!'\nPASSWORD=\"Please enter 4 Digits!\"\nPASSWORD_LABEL=\"Ihr Passwort mit 8 Zeichen!\"\n")
	var got []string
	for _, f := range scanDir(t, dir, Options{}).Findings {
		got = append(got, fmt.Sprint(filepath.Base(f.File), f.Line, " ", f.Key))
		if strings.Contains(f.Masked, session) {
			t.Error("it is shown")
		}
	}
	slices.Sort(got)
	if want := []string{".env1 DB_PASS", ".env2 SMTP_PASSWORD", "mcp.json1 mcpServers.a.headers.Cookie › session"}; !slices.Equal(got, want) {
		t.Errorf("found %q", got)
	}
}

// A bug: the token of anybody whose role was service_role was called one of Supabase, with
// its page to revoke it.
func TestRoleAloneIsNotSupabase(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	enc := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	for name, claims := range map[string]string{
		"own":      `{"sub":"worker","role":"service_role","exp":1999999999}`,
		"supabase": `{"iss":"supabase","ref":"kqzvwmxbtnrldhgp","role":"service_role","iat":1700000000,"exp":1999999999}`,
	} {
		write(t, filepath.Join(dir, name+".env"), "TOKEN="+enc(`{"alg":"HS256","typ":"JWT"}`)+"."+enc(claims)+".kV3Zq7Lw2Xk9Rb4Tn6Vc1Jd8Hs3Mf5Pg0YaQe8Wr7T\n")
	}
	got := map[string]string{}
	for _, f := range scanDir(t, dir, Options{}).Findings {
		got[filepath.Base(f.File)] = f.Provider
	}
	if len(got) != 2 || got["own.env"] != "" || got["supabase.env"] != "supabase" {
		t.Errorf("providers %q", got)
	}
}

// A bug: what lay in more than two hundred folders was not read, and called clean.
func TestTooDeepIsTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, strings.Repeat("d/", maxDeep-1), "a.env"), "A_TOKEN="+token(1)+"\n")
	if r := scanDir(t, dir, Options{}); len(r.Findings) != 1 || len(r.Skipped) != 0 {
		t.Errorf("%d findings, skipped %v", len(r.Findings), r.Skipped)
	}
	write(t, filepath.Join(dir, strings.Repeat("d/", maxDeep+2), "b.env"), "B_TOKEN="+token(2)+"\n")
	if r := scanDir(t, dir, Options{}); len(r.Findings) != 1 || len(r.Skipped) != 1 {
		t.Errorf("%d findings, skipped %v", len(r.Findings), r.Skipped)
	}
}

// A bug: UTF-16 of over 4 MiB was taken for data, and called clean.
func TestLargeUTF16IsTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text := "\xff\xfe" + strings.Repeat("A\x00\n\x00", wholeMax/4+1)
	for _, c := range token(1) {
		text += string(c) + "\x00"
	}
	write(t, filepath.Join(dir, "a.env"), text)
	if r := scanDir(t, dir, Options{}); len(r.Skipped) != 1 {
		t.Errorf("%d findings, skipped %v", len(r.Findings), r.Skipped)
	}
}
