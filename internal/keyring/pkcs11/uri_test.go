package pkcs11

import (
	"reflect"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/keyring/pkcs11/wire"
)

const way = "?module-path=/usr/lib/m.so&pin-source=file:/etc/pin"

// RFC 7512, §2.
func TestParse(t *testing.T) {
	t.Parallel()
	slot := uint(7)
	for uri, want := range map[string]wire.Target{
		"pkcs11:token=a;object=b" + way: {Token: "a", Object: "b", Module: "/usr/lib/m.so", PINFile: "/etc/pin"},
		"pkcs11:object=my%20key;serial=0%3b1;manufacturer=x&y;model=z;slot-id=7;type=secret-key;id=%00%FF?pin-source=file:///etc/a%20pin&module-path=/m.so": {
			Serial: "0;1", Manufacturer: "x&y", Model: "z", Slot: &slot, Object: "my key", ID: []byte{0, 0xff}, Module: "/m.so", PINFile: "/etc/a pin"},
	} {
		if got, err := Parse(uri); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v", uri, got, err)
		}
	}
	for _, uri := range []string{
		"", "pkcs11:", "pkcs11:token=a;object=b", "PKCS11:token=a;object=b" + way, "pkcs11:token=a" + way, "pkcs11:object=b" + way,
		"pkcs11:token=a;object=b;token=a" + way, "pkcs11:token=a;object=b;" + way, "pkcs11:token=;object=b" + way, "pkcs11:token;object=b" + way,
		"pkcs11:token=a;object=b;library-version=3" + way, "pkcs11:token=a;object=b;x-mine=3" + way, "pkcs11:token=a;object=b;type=private" + way,
		"pkcs11:token=a;object=b;slot-id=07" + way, "pkcs11:token=a;object=b;slot-id=-1" + way, "pkcs11:token=a;object=b/c" + way,
		"pkcs11:token=a;object=%" + way, "pkcs11:token=a;object=%0a" + way, "pkcs11:token=a;object=%ff" + way, "pkcs11:token=a b;object=b" + way,
		"pkcs11:token=" + strings.Repeat("a", 33) + ";object=b" + way, "pkcs11:token=a;object=b" + way + "&pin-value=1234",
		"pkcs11:token=a;object=b" + way + "&module-name=m", "pkcs11:token=a;object=b?module-path=m.so&pin-source=file:/p",
		"pkcs11:token=a;object=b?module-path=/../m.so&pin-source=file:/p", "pkcs11:token=a;object=b?module-path=/m.so&pin-source=/p",
		"pkcs11:token=a;object=b?module-path=/m.so&pin-source=%7Ccommand", "pkcs11:token=a;object=b?module-path=/m.so&pin-source=file://host/p",
		"pkcs11:token=a;object=b?module-path=/m.so", "pkcs11:token=a;object=b?pin-source=file:/p",
	} {
		if got, err := Parse(uri); err == nil {
			t.Errorf("%q is read as %+v", uri, got)
		} else if strings.Contains(err.Error(), "1234") {
			t.Errorf("the PIN is told: %v", err)
		}
	}
}

// The name is that of the key, however one gets to it, and differs for what is not
// the same key.
func TestName(t *testing.T) {
	t.Parallel()
	ref := func(uri string) string {
		got, err := Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		return name(got)
	}
	a := ref("pkcs11:token=a;object=b" + way)
	for _, same := range []string{"pkcs11:object=b;token=%61" + way, "pkcs11:token=a;object=b;id=%02" + way, "pkcs11:token=a;object=b?module-path=/other.so&pin-source=file:/other"} {
		if ref(same) != a {
			t.Errorf("%s has another name", same)
		}
	}
	for _, other := range []string{"pkcs11:token=b;object=b" + way, "pkcs11:token=a;object=c" + way, "pkcs11:serial=a;object=b" + way} {
		if ref(other) == a {
			t.Errorf("%s has the same name", other)
		}
	}
}

// FuzzParse holds that what is read is what is written, by a reading that shares
// nothing with the code, and that nothing but plain paths is opened.
func FuzzParse(f *testing.F) {
	f.Add("pkcs11:token=a;object=b" + way)
	f.Add("pkcs11:object=my%20key;serial=0%3b1;slot-id=7;id=%00%FF?pin-source=file:///etc/a%20pin&module-path=/m.so")
	f.Fuzz(func(t *testing.T, uri string) {
		got, err := Parse(uri)
		if err != nil {
			return
		}
		for _, v := range []string{got.Token, got.Serial, got.Manufacturer, got.Model, got.Object} {
			if v != "" && !strings.Contains(uri, "="+v) && !strings.Contains(uri, "%") {
				t.Errorf("%q gives %q", uri, v)
			}
		}
		for _, p := range []string{got.Module, got.PINFile} {
			if !strings.HasPrefix(p, "/") || strings.Contains(p, "/../") || strings.HasSuffix(p, "/..") || strings.ContainsAny(p, "\x00\n") {
				t.Errorf("%q opens %q", uri, p)
			}
		}
		if got.Object == "" || got.Token == "" && got.Serial == "" {
			t.Errorf("%q names no key: %+v", uri, got)
		}
		if n := name(got); len(n) > 120 || strings.ContainsAny(n, " /?#\n") {
			t.Errorf("%q has the name %q", uri, n)
		}
	})
}
