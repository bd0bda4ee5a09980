package cli

import (
	"strings"
	"testing"
)

// A code is shown for what a phone can open, where it has room.
func TestForPhone(t *testing.T) {
	t.Parallel()
	const path = "/ui/approvals/apr_01m858rd3wgn99gqweq9st1rtn"
	for address, shown := range map[string]bool{
		"https://ambit.example.com" + path:      true,
		"https://ambit.example.com:8443" + path: true,
		"http://192.168.1.20:7420" + path:       true,
		"https://[2001:db8::1]" + path:          true,
		"http://localhost:7420" + path:          false,
		"http://LOCALHOST.:7420" + path:         false,
		"http://ambit.localhost" + path:         false,
		"http://127.0.0.1:7420" + path:          false,
		"http://127.1.2.3" + path:               false,
		"http://[::1]:7420" + path:              false,
		"http://0.0.0.0:7420" + path:            false,
		"javascript:alert(1)":                   false,
		"":                                      false,
		"://":                                   false,
	} {
		if got := forPhone(address, true, 80); (got != "") != shown {
			t.Errorf("%q: shown %v, want %v", address, got != "", shown)
		}
	}
	if forPhone("https://ambit.example.com"+path, true, 30) != "" {
		t.Error("a code was shown that does not fit its terminal")
	}
	if plain := forPhone("https://ambit.example.com"+path, false, 80); plain == "" || strings.Contains(plain, "\x1b") {
		t.Error("without colour there is no code, or one with colour")
	}
}
