package file

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"context"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/fault"
)

func TestDotenv(t *testing.T) {
	t.Parallel()
	text := "\ufeff# a comment\r\nA=1\n\n  export B = two words # not this\nC='as $it \\n # stands\nhere'\nD=\"a\\nb \\\"c\\\" \\$d $e \\q\" # x\nE=\nF=pa$$w#rd\nG=#nothing\nH=\"\"\nA=last"
	got, err := dotenv(text)
	if err != nil {
		t.Fatal(err)
	}
	want := []entry{{"A", "1", 2}, {"B", "two words", 4}, {"C", "as $it \\n # stands\nhere", 5}, {"D", "a\nb \"c\" $d $e \\q", 7}, {"E", "", 8}, {"F", "pa$$w#rd", 9}, {"G", "", 10}, {"H", "", 11}, {"A", "last", 12}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(entry{})); d != "" {
		t.Error(d)
	}
	_, err = dotenv("OK=1\nnot one\nB='x' y\nC=2\nD='never closed\nE=3\n")
	if !fault.Is(err, "source_unreadable") || !strings.Contains(err.Error(), "line 2 (") || !strings.Contains(err.Error(), "line 3 (") || !strings.Contains(err.Error(), "line 5 (") || strings.Contains(err.Error(), "line 6") {
		t.Errorf("a bug: only the first bad line was told: %v", err)
	}
	for _, bad := range []string{"A", "1A=x", "A='x", "A=\"x\\\"", "A='x' y", "=x", "A B=x"} {
		if _, err := dotenv("OK=1\n" + bad); !fault.Is(err, "source_unreadable") || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// What a value was is what it is read as, whatever it holds; nothing makes it panic.
func FuzzDotenv(f *testing.F) {
	f.Add("A=1\nB='x\n'\n", "v\"\\$\n#")
	f.Fuzz(func(t *testing.T, text, value string) {
		_, _ = dotenv(text)
		if strings.ContainsAny(value, "'\r") {
			return
		}
		got, err := dotenv("X='" + value + "'\nY=1")
		if err != nil || len(got) != 2 || got[0].value != value || got[1].value != "1" {
			t.Errorf("%q became %+v, %v", value, got, err)
		}
	})
}

// Nothing that is given for an export makes reading it panic, and a value that stands in
// one of Infisical's dotenv forms comes as it was.
func FuzzExports(f *testing.F) {
	f.Add("Key,Value\nA,1\n", "it's")
	f.Add("A: 1\nB: |\n  x\n", "x")
	f.Add("Title,Password,Archived\n\"a,b\n", "y")
	f.Fuzz(func(t *testing.T, text, value string) {
		file := write(t, "export", []byte(text))
		_, _ = Infisical(file)
		_, _ = OnePassword(file)
		if strings.Contains(value, "'\n") || strings.Contains(value, "\r") {
			return
		}
		got := infisicalDotenv("A='" + value + "'\nB='1'\n")
		if len(got) != 2 || got[0].value != value || got[1].value != "1" {
			t.Errorf("%q became %+v", value, got)
		}
	})
}

func write(t testing.TB, name string, doc []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, doc, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func holds(t *testing.T, s *Source, err error) map[string]string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	err = s.Paths(t.Context(), func(path string) error {
		item, err := s.Read(context.Background(), path)
		for _, v := range item.Versions {
			out[path] += string(v.Value.Reveal())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Issue 8: exports of Infisical and 1Password, as these write them.
func TestExports(t *testing.T) {
	t.Parallel()
	s, err := Infisical(write(t, "export.json", []byte(`[{"key":"A","workspace":"w","value":"1","type":"shared","_id":"x","tags":null,"comment":"c","secretPath":"/app/"},{"key":"A","value":"2","secretPath":"/"},{"key":"E","value":""}]`)))
	if d := cmp.Diff(map[string]string{"app/A": "1", "A": "2"}, holds(t, s, err)); d != "" {
		t.Error(d)
	}
	forms := map[string]string{ // as its command line writes them: it escapes nothing in dotenv
		"yaml":   "A: \"007\"\nB: 007\nC: |-\n    one\n    two\n",
		"csv":    "Key,Value\nA,007\nB,007\nC,\"one\ntwo\"\n",
		"dotenv": "A='007'\nB='007'\nC='one\ntwo'\n",
		"export": "export A='007'\nexport B='007'\nexport C='one\ntwo'\n",
	}
	for form, text := range forms {
		s, err = Infisical(write(t, "export."+form, []byte(text)))
		if d := cmp.Diff(map[string]string{"A": "007", "B": "007", "C": "one\ntwo"}, holds(t, s, err)); d != "" {
			t.Errorf("%s: %s", form, d)
		}
	}
	s, err = Infisical(write(t, ".env", []byte("A='it's 'quoted''\nB='x=\n'y'\n")))
	if d := cmp.Diff(map[string]string{"A": "it's 'quoted'", "B": "x=\n'y"}, holds(t, s, err)); d != "" {
		t.Error(d)
	}
	s, err = OnePassword(write(t, "export.csv", []byte("Title,Url,Username,Password,OTPAuth,Favorite,Archived,Tags,Notes\nProd/DB,https://db.example,me,\"p,1\",otpauth://totp/x?secret=ABC,false,false,a;b,\"no\nte\"\nOld,,me,p2,,false,true,,\nEmpty,,me,,,false,false,,\n")))
	if d := cmp.Diff(map[string]string{"Prod-DB/password": "p,1", "Prod-DB/otp": "otpauth://totp/x?secret=ABC"}, holds(t, s, err)); d != "" {
		t.Error(d)
	}
	var archive bytes.Buffer
	z := zip.NewWriter(&archive)
	w, err := z.Create("export.data")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write([]byte(`{"accounts":[{"vaults":[{"attrs":{"name":"Work"},"items":[
		{"state":"active","overview":{"title":"Prod/DB","tags":["t"]},"details":{"loginFields":[{"value":"me","designation":"username","fieldType":"T"},{"value":"p1","designation":"password","fieldType":"P"}],
		 "sections":[{"title":"s","fields":[{"title":"token","value":{"concealed":"p2"}},{"title":"token","value":{"concealed":"p3"}},{"title":"note","value":{"string":"no"}},{"title":"","id":"k","value":{"sshKey":{"privateKey":"pem"}}}]}]}},
		{"state":"active","overview":{"title":""},"details":{"password":"p4"}},
		{"state":"archived","overview":{"title":"Old"},"details":{"password":"no"}}]}]}]}`))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	s, err = OnePassword(write(t, "x.1pux", archive.Bytes()))
	want := map[string]string{"Work/Prod-DB/password": "p1", "Work/Prod-DB/token": "p2", "Work/Prod-DB/token (2)": "p3", "Work/Prod-DB/k": "pem", "Work/untitled/password": "p4"}
	if d := cmp.Diff(want, holds(t, s, err)); d != "" {
		t.Error(d)
	}
	s, err = Dotenv(write(t, ".env", []byte("A=1\nB=2\nA=3\n")))
	if d := cmp.Diff(map[string]string{"A": "3", "B": "2"}, holds(t, s, err)); d != "" {
		t.Error(d)
	}
	for _, open := range []func(string) (*Source, error){Infisical, OnePassword} {
		if _, err := open(write(t, "bad", []byte("canary"))); !fault.Is(err, "source_unreadable") || strings.Contains(err.Error(), "canary") {
			t.Errorf("got %v", err)
		}
	}
	if _, err := Dotenv(t.TempDir()); err == nil {
		t.Error("a folder was read")
	}
}

// A bug: a small archive that unpacks to hundreds of megabytes took three times as many of
// memory, and was called no export. threats.md F14.
func TestArchiveThatUnpacksToTooMuch(t *testing.T) {
	t.Parallel()
	var archive bytes.Buffer
	z := zip.NewWriter(&archive)
	// One mebibyte is packed, and stands there so often: packing each would take a minute.
	zeros, pieces := make([]byte, 1<<20), MaxFile>>20+1
	var piece, content bytes.Buffer
	d, err := flate.NewWriter(&piece, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = d.Write(zeros)
	_ = d.Flush() // to a whole byte, with nothing of what stood before it
	sum := crc32.NewIEEE()
	for range pieces {
		content.Write(piece.Bytes())
		_, _ = sum.Write(zeros)
	}
	content.WriteString("\x03\x00") // the last block, which is empty
	w, err := z.CreateRaw(&zip.FileHeader{Name: "export.data", Method: zip.Deflate, CRC32: sum.Sum32(), CompressedSize64: uint64(content.Len()), UncompressedSize64: uint64(pieces) << 20})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = content.WriteTo(w)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := OnePassword(write(t, "x.1pux", archive.Bytes())); fault.KindOf(err) != fault.TooLarge || !strings.Contains(err.Error(), "256 MiB") {
		t.Errorf("%v", err)
	}
}
