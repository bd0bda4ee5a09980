//go:build cgo

// Package hsmtest is a hardware security module for tests: SoftHSM2 with a token
// in a temporary folder, and the helper of package pkcs11. Test binaries call
// [Main] from TestMain.
package hsmtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/miekg/pkcs11"
)

// HSM is one SoftHSM2 with one token.
type HSM struct {
	Conf   string // SOFTHSM2_CONF
	Module string // the library
	PIN    string // path of the file with the PIN
	Token  string // its label
	Helper string // path of ambit-pkcs11

	t   testing.TB
	dir string
}

// Pin is the PIN of every token here.
const Pin = "471147-pin"

var modules = []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so", "/usr/lib64/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so"}

// helperDir is where it was built; nil: it was not.
var helperDir atomic.Pointer[string]

var helperBuilt = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "ambit-pkcs11")
	if err != nil {
		return "", err
	}
	helperDir.Store(&dir)
	bin := filepath.Join(dir, "ambit-pkcs11")
	build := exec.Command("go", "build", "-o", bin, "github.com/ambit-dev/ambit/cmd/ambit-pkcs11")
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	if text, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building ambit-pkcs11: %w\n%s", err, text)
	}
	return bin, nil
})

// Remove removes what was built, at the end of a test binary.
func Remove() {
	if dir := helperDir.Load(); dir != nil {
		_ = os.RemoveAll(*dir)
	}
}

// New makes a token. Without SoftHSM2 the test fails: ./check installs it.
func New(t testing.TB) *HSM {
	t.Helper()
	h := &HSM{t: t, dir: t.TempDir(), Token: "ambit-test"}
	for _, m := range modules {
		if _, err := os.Stat(m); err == nil {
			h.Module = m
		}
	}
	if h.Module == "" {
		t.Fatal("SoftHSM2 is missing: apt-get install softhsm2")
	}
	var err error
	if h.Helper, err = helperBuilt(); err != nil {
		t.Fatal(err)
	}
	h.Conf, h.PIN = filepath.Join(h.dir, "softhsm2.conf"), filepath.Join(h.dir, "pin")
	conf := fmt.Sprintf("directories.tokendir = %s/tokens\nobjectstore.backend = file\nlog.level = ERROR\n", h.dir)
	if err := errors.Join(os.Mkdir(h.dir+"/tokens", 0o700), os.WriteFile(h.Conf, []byte(conf), 0o600)); err != nil {
		t.Fatal(err)
	}
	h.SetPIN(Pin)
	h.run("softhsm2-util", "--init-token", "--free", "--label", h.Token, "--so-pin", "87654321", "--pin", Pin)
	return h
}

func (h *HSM) run(name string, args ...string) {
	h.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+h.Conf)
	if out, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// SetPIN writes another PIN into the file. The token's own does not change.
func (h *HSM) SetPIN(pin string) {
	h.t.Helper()
	if err := os.WriteFile(h.PIN, []byte(pin+"\n"), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// URI names a key of the token.
func (h *HSM) URI(object string) string {
	return "pkcs11:token=" + h.Token + ";object=" + object + "?module-path=" + h.Module + "&pin-source=file:" + h.PIN
}

// Env is what the helper needs of the environment.
func (h *HSM) Env(name string) string {
	return map[string]string{"SOFTHSM2_CONF": h.Conf, "AMBIT_PKCS11_HELPER": h.Helper, "PATH": os.Getenv("PATH")}[name]
}

// NewKey makes a key, or its next version.
func (h *HSM) NewKey(object string) { h.t.Helper(); h.run(h.Helper, "new-key", h.URI(object)) }

// Away takes the token out, and Back puts it in again.
func (h *HSM) Away() { h.t.Helper(); h.move("/tokens", "/away", true) }

// Back is the inverse of Away.
func (h *HSM) Back() { h.t.Helper(); h.move("/away", "/tokens", false) }

func (h *HSM) move(from, to string, leave bool) {
	h.t.Helper()
	err := os.Remove(h.dir + to)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	err = errors.Join(err, os.Rename(h.dir+from, h.dir+to))
	if leave {
		err = errors.Join(err, os.Mkdir(h.dir+from, 0o700))
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// change is what another process does with keys.
type change struct {
	Module, Token, Object string
	ID                    []byte // empty: all versions
	Use                   *bool  // may encrypt and decrypt
	Destroy               bool
	Make                  *made
}

// made is a key that ambit-pkcs11 would not make.
type made struct {
	Bits        int
	Extractable bool
}

// Use lets the key be used, or not, as its owner may say in the HSM.
func (h *HSM) Use(object string, may bool) {
	h.t.Helper()
	h.change(change{Object: object, Use: &may})
}

// Destroy removes a version, or with an empty id all.
func (h *HSM) Destroy(object string, id ...byte) {
	h.t.Helper()
	h.change(change{Object: object, ID: id, Destroy: true})
}

// Make makes a key that is not as it should be.
func (h *HSM) Make(object string, bits int, extractable bool, id ...byte) {
	h.t.Helper()
	h.change(change{Object: object, ID: id, Make: &made{bits, extractable}})
}

const envChange = "AMBIT_TEST_HSM_CHANGE"

// change runs this test binary again, as a process of its own with its own view of
// the token.
func (h *HSM) change(c change) {
	h.t.Helper()
	c.Module, c.Token = h.Module, h.Token
	doc, err := json.Marshal(c)
	if err != nil {
		h.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+h.Conf, envChange+"="+string(doc))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		h.t.Fatalf("changing keys: %v\n%s", err, out.String())
	}
}

// Main is the first thing that TestMain calls. In the process that changes keys it
// does not return.
func Main() {
	text := os.Getenv(envChange)
	if text == "" {
		return
	}
	var c change
	err := json.Unmarshal([]byte(text), &c)
	if err == nil {
		err = c.apply()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func (c change) apply() error {
	p := pkcs11.New(c.Module)
	if p == nil {
		return errors.New("the library cannot be loaded")
	}
	defer p.Destroy()
	if err := p.Initialize(); err != nil {
		return err
	}
	defer func() { _ = p.Finalize() }()
	slots, err := p.GetSlotList(true)
	if err != nil {
		return err
	}
	for _, slot := range slots {
		if info, err := p.GetTokenInfo(slot); err != nil || info.Label != c.Token {
			continue
		}
		s, err := p.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			return err
		}
		if err := p.Login(s, pkcs11.CKU_USER, Pin); err != nil {
			return err
		}
		return c.keys(p, s)
	}
	return errors.New("there is no such token")
}

func (c change) keys(p *pkcs11.Ctx, s pkcs11.SessionHandle) error {
	if c.Make != nil {
		_, err := p.GenerateKey(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, c.Make.Bits/8), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
			pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, c.Make.Extractable),
			pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true),
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, c.Object), pkcs11.NewAttribute(pkcs11.CKA_ID, c.ID),
		})
		return err
	}
	template := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, c.Object)}
	if len(c.ID) > 0 {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_ID, c.ID))
	}
	if err := p.FindObjectsInit(s, template); err != nil {
		return err
	}
	found, _, err := p.FindObjects(s, 100)
	if err := errors.Join(err, p.FindObjectsFinal(s)); err != nil || len(found) == 0 {
		return errors.Join(err, fmt.Errorf("%d keys found", len(found)))
	}
	for _, h := range found {
		if c.Destroy {
			err = errors.Join(err, p.DestroyObject(s, h))
			continue
		}
		err = errors.Join(err, p.SetAttributeValue(s, h, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, *c.Use), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, *c.Use),
		}))
	}
	return err
}
