// Package local keeps the root key in a file of its own, apart from the data
// folder, so that a copy of the data alone is worth nothing.
//
// The file holds one line: "ambit-root-key-1 " and 32 bytes in base64. It must
// belong to the user that runs Ambit and be closed to everybody else (0600).
// What protects it from programs of the same user is only the operating system:
// see docs/threat-model.md.
//
// The file is the keeper: it is read for each call and never kept in memory.
// Taking the file away takes the key away, and putting another one in its place
// is noticed.
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

// Keeper is a root key in a file.
type Keeper struct {
	path string
	desc keyring.Description
}

// Create makes a new root key file and opens it. It never overwrites a file:
// losing a root key loses everything sealed under it.
func Create(path string) (*Keeper, error) {
	if err := disk.Folder(filepath.Dir(path)); err != nil {
		return nil, notMade(path, err)
	}
	line := magic + base64.StdEncoding.EncodeToString(crypt.NewSeed().Reveal()) + "\n"
	if err := disk.Create(path, []byte(line)); err != nil {
		return nil, notMade(path, err)
	}
	return Open(path)
}

func notMade(path string, err error) error {
	return fault.New(fault.Invalid, "root_key_not_made", fmt.Sprintf("The root key %s cannot be made.", path)).
		WithHint("Point AMBIT_ROOT_KEY at a place that this user can write to: " + filepath.Dir(path) + " is none.").WithCause(err)
}

// unreadable is a key that is there and closed to us. One that is missing stays
// fs.ErrNotExist, for the caller to say what that means.
func unreadable(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("looking at the root key: %w", err)
	}
	return fault.New(fault.Invalid, "root_key_unreadable", fmt.Sprintf("The root key %s cannot be read.", path)).
		WithHint("Run this as the user that runs the server, or point AMBIT_ROOT_KEY at the key.").WithCause(err)
}

// Open checks whose file it is and who else can read it, and reads which root key
// it holds. A missing file is an error that wraps fs.ErrNotExist.
func Open(path string) (*Keeper, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("finding the root key: %w", err)
	}
	_, ref, err := read(path)
	if err != nil {
		return nil, err
	}
	return &Keeper{path: path, desc: keyring.Description{Ref: ref, Location: path}}, nil
}

// read gives the root key and its fingerprint.
func read(path string) (root secret.Value, ref string, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return root, "", unreadable(path, err)
	}
	if err := checkPrivate(path, info); err != nil {
		return root, "", err
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return root, "", unreadable(path, err)
	}
	defer clear(raw)
	body, ok := strings.CutPrefix(strings.TrimSuffix(string(raw), "\n"), magic)
	key, err := base64.StdEncoding.DecodeString(body)
	if !ok || err != nil || len(key) != 32 {
		return root, "", fault.New(fault.Invalid, "root_key_invalid", fmt.Sprintf("%s is not an Ambit root key.", path)).
			WithHint("Restore the file from your backup. A new key cannot read what the old one sealed.")
	}
	defer clear(key)
	sum := sha256.Sum256(append([]byte("ambit root key fingerprint"), key...))
	return secret.New(key), "file:" + hex.EncodeToString(sum[:8]), nil
}

// OpenOrCreate opens the key at path. It creates one only where mayCreate is
// true: the caller knows that nothing has been sealed yet.
func OpenOrCreate(path string, mayCreate bool) (*Keeper, error) {
	k, err := Open(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	if !mayCreate {
		return nil, fault.New(fault.NotFound, "root_key_missing", fmt.Sprintf("The root key %s is missing.", path)).
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
		return fault.New(fault.Invalid, "root_key_owner", fmt.Sprintf("The root key %s belongs to another user.", path)).
			WithHint(fmt.Sprintf("Run: chown %d %s", os.Geteuid(), path))
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fault.New(fault.Invalid, "root_key_mode", fmt.Sprintf("Other users can read the root key %s (mode %04o).", path, info.Mode().Perm())).
			WithHint("Run: chmod 600 " + path)
	}
	return nil
}

// root reads the key as it is now. A file that cannot be read, or holds no key,
// may come back; one that holds another key is a mismatch.
func (k *Keeper) root(ctx context.Context) (secret.Value, error) {
	if err := ctx.Err(); err != nil {
		return secret.Value{}, err
	}
	root, ref, err := read(k.path)
	switch {
	case err != nil:
		return secret.Value{}, keyring.Failure(keyring.CodeUnavailable, err)
	case ref != k.desc.Ref:
		return secret.Value{}, keyring.Failure(keyring.CodeMismatch, fmt.Errorf("%s now holds the root key %s instead of %s", k.path, ref, k.desc.Ref))
	}
	return root, nil
}

// Wrap seals a seed.
func (k *Keeper) Wrap(ctx context.Context, seed secret.Value, c keyring.Context) ([]byte, error) {
	root, err := k.root(ctx)
	if err != nil {
		return nil, err
	}
	return crypt.WrapKey(root, seed, c.AAD)
}

// Unwrap is the inverse.
func (k *Keeper) Unwrap(ctx context.Context, blob []byte, c keyring.Context) (secret.Value, error) {
	root, err := k.root(ctx)
	if err != nil {
		return secret.Value{}, err
	}
	return crypt.UnwrapKey(root, blob, c.AAD)
}

// Describe names the key and its file.
func (k *Keeper) Describe() keyring.Description { return k.desc }
