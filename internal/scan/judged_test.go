package scan

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// random40 is a value as AWS makes its secrets.
func random40(seed uint64) string {
	b := make([]byte, 30)
	r := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = r.Read(b)
	return base64.StdEncoding.EncodeToString(b)
}

// A permanent key is not called temporary because another profile's key is; what a profile
// says of the end of its own credentials counts for these alone.
func TestProfilesOfAWS(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	write(t, filepath.Join(home, ".aws", "credentials"), "[default]\naws_access_key_id = AKIA"+"Q7ZL2XKRB4TN6VCJ"+"\naws_secret_access_key = "+random40(1)+
		"\n[work]\naws_access_key_id = ASIA"+"M3PD8HSF5PGYUEWQ"+"\naws_secret_access_key = "+random40(2)+"\naws_session_token = "+random40(3)+random40(4)+random40(5)+"\nx_security_token_expires = 2023-11-14T22:13:20Z\n"+
		"[other]\naws_secret_access_key = "+random40(6)+"\naws_access_key_id = AKIA"+"R9VK4WTNB2XL7QCZ"+"\naws_expiration = 2023-11-14T22:13:20Z\n")
	r, err := Run(t.Context(), Options{Home: home, OS: "linux", Now: time.Unix(1_800_000_000, 0)})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]Finding{}
	for _, f := range r.Findings {
		got[f.Key] = f
	}
	for _, p := range []string{"default", "other"} {
		f := got[p+".aws_secret_access_key"]
		if !strings.HasPrefix(f.Opens, "permanently") || f.Expired || f.Risk != High {
			t.Errorf("%s: opens %q, expired %v, %s", p, f.Opens, f.Expired, f.Risk)
		}
	}
	for _, key := range []string{"work.aws_secret_access_key", "work.aws_session_token"} {
		if f := got[key]; !f.Expired || f.Risk != Low || !strings.HasPrefix(key, "work.aws_secret") == strings.HasPrefix(f.Opens, "temporary") {
			t.Errorf("%s: opens %q, expired %v, %s", key, f.Opens, f.Expired, f.Risk)
		}
	}
	for p, line := range map[string]string{"default": "3", "work": "6", "other": "10"} { // told at its own line
		if f := got[p+".aws_access_key_id"]; f.Kind != awsID || f.Risk != Low || !strings.HasSuffix(f.Opens, "without its secret, at line "+line) {
			t.Errorf("%s: %s, %s, opens %q", p, f.Kind, f.Risk, f.Opens)
		}
	}
	if len(r.Findings) != 7 {
		b, _ := json.MarshalIndent(r.Findings, "", " ")
		t.Errorf("%d findings, want seven\n%s", len(r.Findings), b)
	}
}

// The folder that a shell works in is no password, wherever its variable stands; where PWD
// names a password, as in an ODBC connection, it still is one.
func TestWorkingFolderIsNoPassword(t *testing.T) {
	t.Parallel()
	dir, root := t.TempDir(), t.TempDir()
	folder := "/srv/Kx7/qW3-zR9_b2"
	write(t, filepath.Join(dir, ".env"), "PWD="+folder+"\nOLDPWD="+folder+"/x\nexport OLDPWD=Kx7qW3zR9b2Lm\n")
	write(t, filepath.Join(dir, "env.log"), "PWD="+folder+"\nOLDPWD="+folder+"/x\n")
	write(t, filepath.Join(dir, "snapshot.sh"), "export PWD="+folder+"\ndeclare -x OLDPWD=\""+folder+"/x\"\n")
	write(t, filepath.Join(dir, ".mcp.json"), `{"mcpServers":{"a":{"command":"npx","env":{"PWD":"`+folder+`"}}}}`)
	write(t, filepath.Join(dir, "odbc.ini"), "[dw]\nServer=dw.example.com\nUID=etl\nPWD=Kx7!qW3zR9b2\n")
	if got := filesOf(scanDir(t, dir, Options{}), dir); len(got) != 1 || got[0] != "odbc.ini" {
		t.Errorf("found in %v", got)
	}
	write(t, filepath.Join(root, "41", "cmdline"), "/usr/bin/node\x00/usr/lib/claude\x00")
	write(t, filepath.Join(root, "41", "environ"), "PWD="+folder+"\x00OLDPWD=Kx7qW3zR9b2Lm\x00")
	rules, err := loadRules()
	if err != nil {
		t.Fatal(err)
	}
	s := &scanner{rules: rules, opt: Options{Key: []byte("k"), Now: time.Now()}}
	s.procs(t.Context(), root)
	if r := s.report(t.Context()); len(r.Findings) != 0 {
		b, _ := json.Marshal(r.Findings)
		t.Errorf("%s", b)
	}
}

// opensshKey is a private key in OpenSSH's own form (PROTOCOL.key) under a cipher. What the
// cipher made is random, as it looks to whoever has no passphrase.
func opensshKey(cipher, kdf string) []byte {
	var b bytes.Buffer
	b.WriteString("openssh-key-v1\x00")
	put := func(v []byte) {
		_ = binary.Write(&b, binary.BigEndian, uint32(len(v)))
		b.Write(v)
	}
	r := rand.NewChaCha8([32]byte{7})
	noise := make([]byte, 256)
	_, _ = r.Read(noise)
	put([]byte(cipher))
	put([]byte(kdf))
	if kdf == "none" {
		put(nil)
	} else {
		put(append(append([]byte{0, 0, 0, 16}, noise[:16]...), 0, 0, 0, 24))
	}
	_ = binary.Write(&b, binary.BigEndian, uint32(1))
	public := ed25519.NewKeyFromSeed(noise[:32]).Public().(ed25519.PublicKey)
	put(append([]byte("\x00\x00\x00\x0bssh-ed25519\x00\x00\x00 "), public...))
	put(noise[:144])
	return pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: b.Bytes()})
}

// A private key whose file says that it is encrypted is little risk where it lies, and
// nobody is told to put it under a passphrase: OpenSSH's form tells by its cipher, the
// others by their head. threats.md P2.
func TestPrivateKeyUnderPassphrase(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	sealed := opensshKey("aes256-ctr", "bcrypt")
	noise := opensshKey("none", "none")
	pkcs8 := bytes.ReplaceAll(noise, []byte("OPENSSH PRIVATE"), []byte("ENCRYPTED PRIVATE"))
	for name, text := range map[string][]byte{
		"id_ed25519": sealed, "id_gcm": opensshKey("aes256-gcm@openssh.com", "bcrypt"), "key8": pkcs8, "id_plain": noise,
		"packed.txt":       []byte("key: " + base64.StdEncoding.EncodeToString(sealed) + "\n"),
		"packed-plain.txt": []byte("key: " + base64.StdEncoding.EncodeToString(noise) + "\n"),
		"escaped.json":     []byte(`{"key":"` + strings.ReplaceAll(string(sealed), "\n", `\n`) + `"}`),
	} {
		write(t, filepath.Join(home, ".ssh", name), string(text))
	}
	r, err := Run(t.Context(), Options{Home: home, OS: "linux"})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Findings) != 7 {
		t.Errorf("%d findings", len(r.Findings))
	}
	for _, f := range r.Findings {
		plain := strings.Contains(f.File, "plain")
		if f.Risk == High != plain || f.Risk == Low == plain || strings.Contains(f.Advice, "Put it under") != plain || strings.HasSuffix(f.Title, "under a passphrase") == plain {
			t.Errorf("%s: %s, %s; %s", filepath.Base(f.File), f.Title, f.Risk, f.Advice)
		}
	}
}
