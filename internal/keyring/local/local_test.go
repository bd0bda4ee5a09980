package local_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/keyring/keyringtest"
	"github.com/ambit-dev/ambit/internal/keyring/local"
)

var _ keyring.Keeper = (*local.Keeper)(nil)

func TestCreateOnceThenOpen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys", "root.key")
	if _, err := local.Open(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("missing file: got %v", err)
	}
	if _, err := local.OpenOrCreate(path, false); !fault.Is(err, "root_key_missing") {
		t.Fatalf("missing file that must exist: got %v", err)
	}
	k, err := local.OpenOrCreate(path, true)
	if err != nil {
		t.Fatal(err)
	}
	info, _ := os.Stat(path)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %04o, want 0600", info.Mode().Perm())
	}
	if _, err := local.Create(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second Create: got %v, want it refused", err)
	}
	blob, err := k.Wrap(t.Context(), crypt.NewSeed(), keyring.Context{AAD: []byte("a")})
	if err != nil {
		t.Fatal(err)
	}
	again, err := local.Open(path)
	if err != nil || again.Describe() != k.Describe() {
		t.Fatalf("opened again: %v, %v", again.Describe(), err)
	}
	if _, err := again.Unwrap(t.Context(), blob, keyring.Context{AAD: []byte("a")}); err != nil {
		t.Errorf("the same key does not unwrap: %v", err)
	}
	if _, err := again.Unwrap(t.Context(), blob, keyring.Context{AAD: []byte("b")}); !errors.Is(err, crypt.ErrIntegrity) {
		t.Errorf("other context: got %v", err)
	}
}

// Nodes that start together on one key file agree on one key: the slower ones
// used to fail, or to read the file while it was empty and never start again.
func TestNodesThatStartTogetherShareTheKey(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "root.key")
	var wg sync.WaitGroup
	refs := make([]string, 16)
	for i := range refs {
		wg.Go(func() {
			k, err := local.OpenOrCreate(path, true)
			if err != nil {
				t.Error(err)
				return
			}
			refs[i] = k.Describe().Ref
		})
	}
	wg.Wait()
	for _, ref := range refs {
		if ref == "" || ref != refs[0] {
			t.Fatalf("the nodes have the keys %v", refs)
		}
	}
}

func TestRefusesAKeyThatOthersCanReadOrThatIsNone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "root.key")
	if _, err := local.Create(path); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o660, 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := local.Open(path); !fault.Is(err, "root_key_mode") || fault.Of(err).Hint == "" {
			t.Errorf("mode %04o: got %v, want a refusal with the command that mends it", mode, err)
		}
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := local.Open(link); !fault.Is(err, "root_key_invalid") {
		t.Errorf("link: got %v", err)
	}
	for name, content := range map[string]string{"empty": "", "other": "hello\n", "short": "ambit-root-key-1 AAAA\n"} {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := local.Open(p); !fault.Is(err, "root_key_invalid") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if os.Geteuid() == 0 {
		p := filepath.Join(dir, "root.key")
		if err := errors.Join(os.Chmod(p, 0o600), os.Chown(p, 65534, 65534)); err != nil {
			t.Fatal(err)
		}
		if _, err := local.Open(p); !fault.Is(err, "root_key_owner") {
			t.Errorf("foreign owner: got %v", err)
		}
	}
}

// Issue 4, keepers: a file has no levers, and keeps the rest of the contract.
func TestContract(t *testing.T) {
	t.Parallel()
	keyringtest.Contract(t, func(t *testing.T) *keyringtest.Bench {
		dir := t.TempDir()
		create := func(name string) keyring.Keeper {
			k, err := local.Create(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			return k
		}
		return &keyringtest.Bench{
			Keeper: create("root.key"), Other: create("other.key"),
			Again: func(t testing.TB) keyring.Keeper {
				k, err := local.Open(filepath.Join(dir, "root.key"))
				if err != nil {
					t.Fatal(err)
				}
				return k
			},
		}
	})
}
