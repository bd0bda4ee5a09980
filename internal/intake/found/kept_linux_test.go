package found_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/api/apitest"
	"github.com/ambit-dev/ambit/internal/intake/found"
	"github.com/ambit-dev/ambit/internal/scan"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

func vaultOf(t *testing.T) found.Vault {
	t.Helper()
	w := apitest.New(t, sqldbtest.Open(t, sqldb.SQLite), nil)
	_, key, err := w.People.IssueKey(t.Context(), account.NewKey{Environment: w.Env, Name: "import", Scopes: account.Scopes(), Expires: time.Now().Add(time.Hour)})
	must(t, err)
	return found.Vault{To: client.New(w.URL, string(key.Reveal()))}
}

// A bug: an import lost extended attributes and access lists, and undo gave the file a new
// time, so that what is built from it was built again.
func TestUndoGivesBackAllOfAFile(t *testing.T) {
	t.Parallel()
	v := vaultOf(t)
	file := filepath.Join(t.TempDir(), ".env")
	must(t, os.WriteFile(file, []byte(text), 0o640))
	if err := unix.Setxattr(file, "user.note", []byte("mine"), 0); errors.Is(err, unix.ENOTSUP) {
		t.Skip("the file system has no extended attributes")
	}
	then := time.Unix(1700000000, 123456789)
	must(t, os.Chtimes(file, then, then))
	note := func() string {
		buf := make([]byte, 64)
		n, _ := unix.Getxattr(file, "user.note", buf)
		return string(buf[:max(n, 0)])
	}
	changes := planned(t, file)
	must(t, v.Apply(t.Context(), &changes[0]))
	if now, err := os.Stat(file); err != nil || note() != "mine" || now.ModTime().Equal(then) {
		t.Errorf("after the import: note %q, %v, %v", note(), now.ModTime(), err)
	}
	must(t, v.Undo(t.Context(), file))
	now, err := os.Stat(file)
	must(t, err)
	if doc, _ := os.ReadFile(file); string(doc) != text || note() != "mine" || now.Mode().Perm() != 0o640 || !now.ModTime().Equal(then) {
		t.Errorf("after undo: %q, note %q, %v, %v", doc, note(), now.Mode(), now.ModTime())
	}
}

// A key in two files is one thing to do, until it is closed, which it stays when the
// import runs again.
func TestTodoCountsKeysNotPlaces(t *testing.T) {
	t.Parallel()
	v := vaultOf(t)
	v.Machine = "a machine"
	dir := t.TempDir()
	for _, name := range []string{"a.env", "b.env"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	apply := func() {
		for _, c := range plannedAs(t, dir, found.Options{Risk: scan.Low, Machine: v.Machine}) {
			must(t, v.Apply(t.Context(), &c))
		}
	}
	apply()
	todo, err := v.Todo(t.Context())
	must(t, err)
	if len(todo) != 2 || len(todo[0].Places) != 2 {
		t.Fatalf("to do: %+v", todo)
	}
	f, err := v.Finding(t.Context(), todo[0])
	must(t, err)
	if !f.Value.Equal(secret.FromString("canaryQ7w9E2r4T6y8U1i3O5p7A9s1")) && !f.Value.Equal(secret.FromString("canaryZ1x3C5v7B9n2M4k6J8h1G3f5")) {
		t.Error("the vault has another value")
	}
	must(t, v.Close(t.Context(), todo[0].Secrets[1], found.ByHand))
	must(t, v.Undo(t.Context(), filepath.Join(dir, "a.env")))
	rest, err := v.Todo(t.Context())
	must(t, err)
	if len(rest) != 1 || len(rest[0].Places) != 1 || !strings.Contains(rest[0].Places[0], "b.env") {
		t.Errorf("a bug: what was put back is still to be done: %+v", rest)
	}
	must(t, v.Undo(t.Context(), filepath.Join(dir, "b.env")))
	must(t, v.Undo(t.Context(), filepath.Join(dir, "b.env"))) // again, as after one that was cut off
	if rest, err := v.Todo(t.Context()); err != nil || len(rest) != 0 {
		t.Errorf("all was put back, and there is to do: %+v, %v", rest, err)
	}
	apply()
	again, err := v.Todo(t.Context())
	must(t, err)
	if len(again) != 1 || again[0].Secrets[0] != todo[1].Secrets[0] {
		t.Errorf("to do: %+v, after %+v", again, todo)
	}
	other := v
	other.Machine = "another"
	if none, err := other.Todo(t.Context()); err != nil || len(none) != 0 {
		t.Errorf("another machine: %+v, %v", none, err)
	}
}

// A bug: the key of a service account, whose line ends JSON escapes, was left as encoded, as
// was a password with a quote in it; and a file lost its setuid bit. Issue 8.
func TestEscapedValuesAreTakenAndSpecialBitsAreLeft(t *testing.T) {
	t.Parallel()
	v := vaultOf(t)
	dir := t.TempDir()
	var body strings.Builder
	for i := range 16 {
		body.WriteString(`kV3Zq7Lw2Xk9Rb4Tn6Vc1Jd8Hs3Mf5Pg0YaQe8Wr7Ty6Ui5Op4As3Df2Gh1Jk` + strconv.Itoa(i + 10)[1:] + `\n`)
	}
	doc := `{"type": "service_account", "project_id": "shop", "private_key": "-----BEGIN PRIVATE KEY-----\n` + body.String() + `-----END PRIVATE KEY-----\n", "client_email": "a@shop.iam.gserviceaccount.com"}`
	for name, text := range map[string]string{
		"account.json":  doc,
		"password.json": `{"db": {"password": "kV3\"Zq7\\Lw2Xk9"}, "twice": "{\"password\": \"kV3\\\"Zq7\\\\Lw2Xk9\"}"}`,
	} {
		file := filepath.Join(dir, name)
		must(t, os.WriteFile(file, []byte(text), 0o600))
		changes := planned(t, file)
		if len(changes) != 1 {
			t.Fatalf("%s: %d changes", name, len(changes))
		}
		must(t, v.Apply(t.Context(), &changes[0]))
		now, err := os.ReadFile(file)
		must(t, err)
		if strings.Contains(string(now), "kV3") || !json.Valid(now) || !strings.Contains(string(now), "ambit_secret_") || len(planned(t, file)) != 0 {
			t.Errorf("%s is now %s", name, now)
		}
		must(t, v.Undo(t.Context(), file))
		if back, _ := os.ReadFile(file); string(back) != text {
			t.Errorf("%s is back as %s", name, back)
		}
	}
	odd := filepath.Join(dir, ".env")
	must(t, os.WriteFile(odd, []byte(text), 0o640))
	must(t, os.Chmod(odd, 0o640|os.ModeSetuid))
	if c := planned(t, odd); len(c) != 0 {
		t.Errorf("a file with a special bit would be replaced: %+v", c)
	}
}

// A bug: a password that is the name of a user and of a host too was replaced in all these
// places, and the list told one. Issue 8.
func TestOtherLinesOfAValueAreTold(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), ".env")
	must(t, os.WriteFile(file, []byte("DB_USER=shopadmin1\nDB_HOST=shopadmin1.db.internal\nDB_PASSWORD=shopadmin1\nPLAIN=1\nROOT=/srv/shopadmin1/x\n"+
		"A_TOKEN=canaryQ7w9E2r4T6y8U1i3O5p7A9s1\nB_TOKEN=canaryQ7w9E2r4T6y8U1i3O5p7A9s1XX77\n"), 0o600))
	got := map[string][]int{}
	for _, take := range planned(t, file)[0].Takes {
		got[take.Key] = take.Also
	}
	if len(got) != 3 || !slices.Equal(got["DB_PASSWORD"], []int{1, 2, 5}) || len(got["A_TOKEN"]) != 0 || len(got["B_TOKEN"]) != 0 {
		t.Errorf("told: %v", got)
	}
}
