//go:build cgo

package main

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"github.com/ambit-dev/ambit/internal/keyring/pkcs11/wire"
)

// device is a library, a session with a token, and what was found there.
type device struct {
	target  wire.Target
	writes  bool // makes keys
	lib     *pkcs11.Ctx
	slot    uint
	session pkcs11.SessionHandle
	open    bool
	keys    map[string]pkcs11.ObjectHandle // versions that were looked at, by CKA_ID
}

// refusal is an answer that is known without the library's code.
type refusal struct{ code, text string }

func (r *refusal) Error() string { return r.text }

func refuse(code, format string, args ...any) error {
	return &refusal{code, fmt.Sprintf(format, args...)}
}

// answer does what was asked. A session that was lost is opened again, once.
func (d *device) answer(q wire.Request) wire.Answer {
	data, err := d.do(q)
	if err != nil && !settled(err) {
		d.reset()
		data, err = d.do(q)
		if err != nil && !settled(err) {
			d.reset()
		}
	}
	if err != nil {
		return wire.Answer{Code: codeOf(err), Text: err.Error()}
	}
	return wire.Answer{Code: wire.CodeFine, Data: data}
}

func (d *device) do(q wire.Request) ([]byte, error) {
	if err := d.connect(); err != nil {
		return nil, err
	}
	switch q.Op {
	case wire.OpWrap:
		return d.wrap(q.Data, q.AAD)
	case wire.OpUnwrap:
		return d.unwrap(q.Data, q.AAD)
	}
	return nil, refuse(wire.CodeUnavailable, "the helper does not know how to %q", q.Op)
}

// settled errors are about the blob, or about a PIN that must not be tried again. A
// new session may change all others: libraries hold on to what they once saw.
func settled(err error) bool {
	code := codeOf(err)
	return code == wire.CodeIntegrity || code == wire.CodePIN
}

var errNoKey = refuse(wire.CodeDenied, "the token has no such key")

// codeOf says what a library's code means for the keys that were unwrapped.
func codeOf(err error) string {
	var r *refusal
	if errors.As(err, &r) {
		return r.code
	}
	var e pkcs11.Error
	if !errors.As(err, &e) {
		return wire.CodeUnavailable
	}
	switch uint(e) {
	case pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE:
		return wire.CodePIN
	case pkcs11.CKR_PIN_LOCKED, pkcs11.CKR_PIN_EXPIRED, pkcs11.CKR_USER_PIN_NOT_INITIALIZED, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED,
		pkcs11.CKR_ACTION_PROHIBITED, pkcs11.CKR_FUNCTION_REJECTED:
		return wire.CodeDenied
	}
	return wire.CodeUnavailable
}

// connect loads the library, finds the token and logs in.
func (d *device) connect() error {
	if d.open {
		return nil
	}
	if d.lib == nil {
		d.lib = pkcs11.New(d.target.Module)
		if d.lib == nil {
			return refuse(wire.CodeUnavailable, "the library %s cannot be loaded", d.target.Module)
		}
		if err := d.lib.Initialize(); err != nil && err != pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED) {
			d.lib.Destroy()
			d.lib = nil
			return fmt.Errorf("starting the library: %w", err)
		}
	}
	info, err := d.find()
	if err != nil {
		return err
	}
	return d.login(info)
}

// find looks for the one token that the target names.
func (d *device) find() (found pkcs11.TokenInfo, err error) {
	slots, err := d.lib.GetSlotList(true)
	if err != nil {
		return found, fmt.Errorf("listing tokens: %w", err)
	}
	n := 0
	for _, slot := range slots {
		info, err := d.lib.GetTokenInfo(slot)
		if err != nil || !d.matches(slot, info) {
			continue
		}
		n++
		d.slot, found = slot, info
	}
	if n != 1 {
		return found, refuse(wire.CodeUnavailable, "%d tokens are the one that is named", n)
	}
	return found, nil
}

func (d *device) matches(slot uint, info pkcs11.TokenInfo) bool {
	is := func(want, got string) bool { return want == "" || want == strings.TrimRight(got, " \x00") }
	t := d.target
	return is(t.Token, info.Label) && is(t.Serial, info.SerialNumber) && is(t.Manufacturer, info.ManufacturerID) && is(t.Model, info.Model) &&
		(t.Slot == nil || *t.Slot == slot)
}

// login does not use up a token's last try.
func (d *device) login(info pkcs11.TokenInfo) error {
	switch {
	case info.Flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
		return refuse(wire.CodeDenied, "the token's PIN is locked")
	case info.Flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
		return refuse(wire.CodeDenied, "the token allows one more try of its PIN, which is left to people")
	}
	pin, err := readPIN(d.target.PINFile)
	if err != nil {
		return err
	}
	flags := uint(pkcs11.CKF_SERIAL_SESSION)
	if d.writes {
		flags |= pkcs11.CKF_RW_SESSION
	}
	if d.session, err = d.lib.OpenSession(d.slot, flags); err != nil {
		return fmt.Errorf("opening a session: %w", err)
	}
	if err := d.lib.Login(d.session, pkcs11.CKU_USER, pin); err != nil && err != pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN) {
		_ = d.lib.CloseSession(d.session)
		return fmt.Errorf("logging in: %w", err)
	}
	d.open, d.keys = true, map[string]pkcs11.ObjectHandle{}
	return nil
}

func readPIN(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", refuse(wire.CodeUnavailable, "the file of the PIN cannot be read: %v", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return "", refuse(wire.CodeUnavailable, "the file of the PIN is open to other users: chmod 600 %s", path)
	}
	raw, err := io.ReadAll(io.LimitReader(f, 257))
	defer clear(raw)
	pin := strings.TrimRight(string(raw), "\r\n")
	if err != nil || pin == "" || len(raw) > 256 {
		return "", refuse(wire.CodeUnavailable, "%s holds no PIN", path)
	}
	return pin, nil
}

// reset lets go of everything, so that the next attempt sees tokens and objects as
// they are now.
func (d *device) reset() {
	if d.lib != nil {
		if d.open {
			_ = d.lib.Logout(d.session)
			_ = d.lib.CloseSession(d.session)
		}
		_ = d.lib.Finalize()
		d.lib.Destroy()
	}
	*d = device{target: d.target, writes: d.writes}
}

// versions lists the CKA_IDs of the key, the newest last.
func (d *device) versions() ([][]byte, error) {
	handles, err := d.objects(nil)
	if err != nil {
		return nil, err
	}
	var ids [][]byte
	for _, h := range handles {
		a, err := d.lib.GetAttributeValue(d.session, h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ID, nil)})
		if err != nil {
			return nil, fmt.Errorf("reading the id of a key: %w", err)
		}
		ids = append(ids, a[0].Value)
	}
	slices.SortFunc(ids, compareIDs)
	return ids, nil
}

// compareIDs compares ids as numbers, and those of one value by their length.
func compareIDs(a, b []byte) int {
	x, y := bytes.TrimLeft(a, "\x00"), bytes.TrimLeft(b, "\x00")
	return cmp.Or(cmp.Compare(len(x), len(y)), bytes.Compare(x, y), cmp.Compare(len(a), len(b)))
}

// objects finds the secret keys with our label, and with the id if one is given.
func (d *device) objects(id []byte) (all []pkcs11.ObjectHandle, err error) {
	template := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_LABEL, d.target.Object),
	}
	if id != nil {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_ID, id))
	}
	if err := d.lib.FindObjectsInit(d.session, template); err != nil {
		return nil, fmt.Errorf("looking for keys: %w", err)
	}
	defer func() { err = errors.Join(err, d.lib.FindObjectsFinal(d.session)) }()
	for {
		some, _, err := d.lib.FindObjects(d.session, 100)
		if err != nil {
			return nil, fmt.Errorf("looking for keys: %w", err)
		}
		if all = append(all, some...); len(some) == 0 || len(all) > 10_000 {
			return all, nil
		}
	}
}

// version gives the key of one id, when it is one that we trust: AES with 256 bits
// that cannot leave the token.
func (d *device) version(id []byte) (pkcs11.ObjectHandle, error) {
	if h, ok := d.keys[string(id)]; ok {
		return h, nil
	}
	handles, err := d.objects(id)
	switch {
	case err != nil:
		return 0, err
	case len(handles) == 0:
		return 0, errNoKey
	case len(handles) > 1:
		return 0, refuse(wire.CodeUnavailable, "%d keys share the label and the id %x", len(handles), id)
	}
	if err := d.suits(handles[0]); err != nil {
		return 0, err
	}
	d.keys[string(id)] = handles[0]
	return handles[0], nil
}

func (d *device) suits(h pkcs11.ObjectHandle) error {
	for _, want := range []struct {
		attribute uint
		value     any
		text      string
	}{
		{pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES, "is not of the type AES"},
		{pkcs11.CKA_VALUE_LEN, 32, "has not 256 bits"},
		{pkcs11.CKA_EXTRACTABLE, false, "can be extracted from the token"},
		{pkcs11.CKA_SENSITIVE, true, "can be read from the token"},
		{pkcs11.CKA_TOKEN, true, "goes with its session"},
	} {
		is := pkcs11.NewAttribute(want.attribute, want.value)
		a, err := d.lib.GetAttributeValue(d.session, h, []*pkcs11.Attribute{pkcs11.NewAttribute(want.attribute, nil)})
		if err != nil {
			return fmt.Errorf("reading what the key is: %w", err)
		}
		if !bytes.Equal(a[0].Value, is.Value) {
			return refuse(wire.CodeUnavailable, "the key %s", want.text)
		}
	}
	return nil
}

// newKey makes the first or the next version.
func (d *device) newKey() ([]byte, error) {
	if err := d.connect(); err != nil {
		return nil, err
	}
	ids, err := d.versions()
	if err != nil {
		return nil, err
	}
	id := []byte{1}
	if len(ids) > 0 {
		id = successor(ids[len(ids)-1])
	}
	_, err = d.lib.GenerateKey(d.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true),
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, false), pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, false),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, d.target.Object), pkcs11.NewAttribute(pkcs11.CKA_ID, id),
	})
	if err != nil {
		return nil, fmt.Errorf("making the key: %w", err)
	}
	return id, nil
}

// successor is the next number.
func successor(id []byte) []byte {
	next := slices.Clone(id)
	for i := len(next) - 1; i >= 0; i-- {
		if next[i]++; next[i] != 0 {
			return next
		}
	}
	return append([]byte{1}, next...)
}

const (
	blobFormat = 1
	ivLength   = 12
	tagLength  = 16
	seedLength = 32
	maxID      = 64
)

// wrap gives 1, the length of the version's id and the id, the IV and what the
// token made. The IV is ours unless the token insists on its own.
func (d *device) wrap(seed, aad []byte) ([]byte, error) {
	id := d.target.ID
	if len(id) == 0 {
		ids, err := d.versions()
		if err != nil {
			return nil, err
		}
		if len(ids) == 0 {
			return nil, errNoKey
		}
		id = ids[len(ids)-1]
	}
	if len(id) > maxID {
		return nil, refuse(wire.CodeUnavailable, "the id of the key is longer than %d bytes", maxID)
	}
	return d.encrypt(id, seed, aad)
}

func (d *device) encrypt(id, seed, aad []byte) ([]byte, error) {
	key, err := d.version(id)
	if err != nil {
		return nil, err
	}
	iv := make([]byte, ivLength)
	_, _ = rand.Read(iv)
	params := pkcs11.NewGCMParams(iv, aad, tagLength*8)
	defer params.Free()
	if err := d.lib.EncryptInit(d.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, key); err != nil {
		return nil, fmt.Errorf("encrypting: %w", err)
	}
	sealed, err := d.lib.Encrypt(d.session, seed)
	if err != nil {
		return nil, fmt.Errorf("encrypting: %w", err)
	}
	iv = params.IV()
	if len(iv) != ivLength || len(sealed) != len(seed)+tagLength {
		return nil, refuse(wire.CodeUnavailable, "the token's AES-GCM gives %d bytes with an IV of %d", len(sealed), len(iv))
	}
	blob := append([]byte{blobFormat, byte(len(id))}, id...)
	return append(append(blob, iv...), sealed...), nil
}

var errBlob = refuse(wire.CodeIntegrity, "the blob does not belong here, or was changed")

// unwrap opens a blob. Which codes mean that the tag is wrong, libraries do not
// agree on; so when decrypting fails, the key is tried with something of our own
// before the blob is called bad.
func (d *device) unwrap(blob, aad []byte) ([]byte, error) {
	if len(blob) < 2 || blob[0] != blobFormat || int(blob[1]) > maxID || len(blob) != 2+int(blob[1])+ivLength+seedLength+tagLength {
		return nil, errBlob
	}
	id, rest := blob[2:2+blob[1]], blob[2+blob[1]:]
	key, err := d.version(id)
	if err == errNoKey {
		return nil, d.gone()
	}
	if err != nil {
		return nil, err
	}
	seed, err := d.decrypt(key, rest, aad)
	if err == nil {
		return seed, nil
	}
	if code := codeOf(err); code != wire.CodeUnavailable {
		return nil, err
	}
	if err := d.try(id); err != nil {
		return nil, err
	}
	return nil, errBlob
}

// gone says what it means that a blob's version is not there: that the blob was
// never one, or that the version was removed, or that the whole key was.
func (d *device) gone() error {
	ids, err := d.versions()
	switch {
	case err != nil:
		return err
	case len(ids) == 0:
		return errNoKey
	}
	return refuse(wire.CodeRetired, "the version of the key that wrapped the blob is not there")
}

func (d *device) decrypt(key pkcs11.ObjectHandle, sealed, aad []byte) ([]byte, error) {
	params := pkcs11.NewGCMParams(sealed[:ivLength], aad, tagLength*8)
	defer params.Free()
	if err := d.lib.DecryptInit(d.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, key); err != nil {
		return nil, fmt.Errorf("decrypting: %w", err)
	}
	seed, err := d.lib.Decrypt(d.session, sealed[ivLength:])
	if err != nil {
		return nil, fmt.Errorf("decrypting: %w", err)
	}
	return seed, nil
}

// try is nil when the key encrypts and decrypts.
func (d *device) try(id []byte) error {
	probe := make([]byte, seedLength)
	blob, err := d.encrypt(id, probe, []byte("ambit pkcs11 trial 1"))
	if err != nil {
		return err
	}
	key, err := d.version(id)
	if err != nil {
		return err
	}
	got, err := d.decrypt(key, blob[2+len(id):], []byte("ambit pkcs11 trial 1"))
	if err == nil && !bytes.Equal(got, probe) {
		err = refuse(wire.CodeUnavailable, "the token does not decrypt what it encrypted")
	}
	return err
}
