// Package local keeps the root key in a file of its own, apart from the data
// folder, so that a copy of the data alone is worth nothing.
//
// The file holds one line: "ambit-root-key-1 " and 32 bytes in base64. It must
// belong to the user that runs Ambit and be closed to everybody else (0600).
// What protects it from programs of the same user is only the operating system:
// see docs/threat-model.md.
package local

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/disk"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/secret"
)

const magic = "ambit-root-key-1 "

// Keeper is a root key read from a file.
type Keeper struct {
	root secret.Value
	desc keyring.Description
}

// Create makes a new root key file and opens it. It never overwrites a file:
// losing a root key loses everything sealed under it.
func Create(path string) (*Keeper, error) {
	if err := disk.Folder(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("making the folder of the root key: %w", err)
	}
	line := magic + base64.StdEncoding.EncodeToString(crypt.NewSeed().Reveal()) + "\n"
	if err := disk.Create(path, []byte(line)); err != nil {
		return nil, fmt.Errorf("creating the root key file: %w", err)
	}
	return Open(path)
}

// Open reads the root key, after checking whose file it is and who else can
// read it. A missing file is an error that wraps fs.ErrNotExist.
func Open(path string) (*Keeper, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("looking at the root key: %w", err)
	}
	if err := checkPrivate(path, info); err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the root key: %w", err)
	}
	defer clear(raw)
	body, ok := strings.CutPrefix(strings.TrimSuffix(string(raw), "\n"), magic)
	key, err := base64.StdEncoding.DecodeString(body)
	if !ok || err != nil || len(key) != 32 {
		return nil, fault.New(fault.Invalid, "root_key_invalid", fmt.Sprintf("%s is not an Ambit root key.", path)).
			WithHint("Restore the file from your backup. A new key cannot read what the old one sealed.")
	}
	defer clear(key)
	sum := sha256.Sum256(append([]byte("ambit root key fingerprint"), key...))
	return &Keeper{root: secret.New(key), desc: keyring.Description{
		Ref: "file:" + hex.EncodeToString(sum[:8]), Location: path,
	}}, nil
}

// OpenOrCreate opens the key at path. It creates one only where mayCreate is
// true: the caller knows that nothing has been sealed yet.
func OpenOrCreate(path string, mayCreate bool) (*Keeper, error) {
	k, err := Open(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	if !mayCreate {
		return nil, fault.New(fault.Unavailable, "root_key_missing", fmt.Sprintf("The root key %s is missing.", path)).
			WithHint("Restore it from your backup, or point AMBIT_ROOT_KEY at it. Nothing can be read without it.")
	}
	k, err = Create(path)
	if errors.Is(err, fs.ErrExist) {
		return Open(path) // another node that starts was faster
	}
	return k, err
}

func checkPrivate(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fault.New(fault.Invalid, "root_key_invalid", fmt.Sprintf("%s is not a regular file.", path)).
			WithHint("Point AMBIT_ROOT_KEY at the key file itself, not at a link or a folder.")
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fault.New(fault.Denied, "root_key_owner", fmt.Sprintf("The root key %s belongs to another user.", path)).
			WithHint(fmt.Sprintf("Run: chown %d %s", os.Geteuid(), path))
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fault.New(fault.Denied, "root_key_mode", fmt.Sprintf("Other users can read the root key %s (mode %04o).", path, info.Mode().Perm())).
			WithHint("Run: chmod 600 " + path)
	}
	return nil
}

func (k *Keeper) Wrap(_ context.Context, seed secret.Value, aad []byte) ([]byte, error) {
	return crypt.WrapKey(k.root, seed, aad)
}

func (k *Keeper) Unwrap(_ context.Context, blob, aad []byte) (secret.Value, error) {
	return crypt.UnwrapKey(k.root, blob, aad)
}

func (k *Keeper) Describe() keyring.Description { return k.desc }
