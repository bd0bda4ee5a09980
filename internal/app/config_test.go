package app_test

import (
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/fault"
)

// S17, W3: a server that would send tokens in clear, or that does not know its
// own name, does not start. Each refusal says what mends it.
func TestConfigRefusesWhatIsUnsafe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	rows := map[string]struct {
		cfg  app.Config
		want string
	}{
		"local":                     {app.Config{}, ""},
		"loopback address":          {app.Config{Listen: "127.0.0.1:0"}, ""},
		"no folder":                 {app.Config{DataDir: "-"}, "data_dir_missing"},
		"key inside the data":       {app.Config{RootKey: filepath.Join(dir, "data", "root.key")}, "inside_data_dir"},
		"witness inside the data":   {app.Config{CheckpointDir: filepath.Join(dir, "data", "w")}, "inside_data_dir"},
		"everywhere in clear":       {app.Config{Listen: "0.0.0.0:7420"}, "listen_plain"},
		"every address in clear":    {app.Config{Listen: ":7420"}, "listen_plain"},
		"a network address":         {app.Config{Listen: "192.0.2.7:7420", PublicURL: "https://a.example"}, "listen_plain"},
		"TLS without a name":        {app.Config{Listen: ":443", TLSCert: "c", TLSKey: "k"}, "public_url_missing"},
		"TLS with a name":           {app.Config{Listen: ":443", TLSCert: "c", TLSKey: "k", PublicURL: "https://a.example"}, ""},
		"half of TLS":               {app.Config{TLSCert: "c"}, "tls_incomplete"},
		"behind a proxy":            {app.Config{Listen: ":8080", TrustedProxies: proxies, PublicURL: "https://a.example"}, ""},
		"behind a proxy, plain URL": {app.Config{Listen: ":8080", TrustedProxies: proxies, PublicURL: "http://a.example"}, "public_url_invalid"},
		"URL with a path":           {app.Config{PublicURL: "https://a.example/ambit"}, "public_url_invalid"},
		"URL with a user":           {app.Config{PublicURL: "https://me@a.example"}, "public_url_invalid"},
		"URL by address":            {app.Config{PublicURL: "http://127.0.0.1:7420"}, "public_url_invalid"},
		"no port":                   {app.Config{Listen: "localhost"}, "listen_invalid"},
		"negative rate":             {app.Config{CallRate: -1}, "call_rate_invalid"},
		"sign-in elsewhere":         {app.Config{SignIn: account.OperatorSignIn{Issuer: "https://login.example.com", ClientID: "ambit"}}, ""},
		"sign-in of nobody's":       {app.Config{SignIn: account.OperatorSignIn{ClientID: "ambit"}}, "signin_incomplete"},
		"sign-in as nobody":         {app.Config{SignIn: account.OperatorSignIn{Issuer: "https://login.example.com"}}, "signin_incomplete"},
		"sign-in at no issuer":      {app.Config{SignIn: account.OperatorSignIn{Issuer: "https://login.example.com/#", ClientID: "ambit"}}, "signin_issuer_invalid"},
	}
	for name, row := range rows {
		switch row.cfg.DataDir {
		case "":
			row.cfg.DataDir = filepath.Join(dir, "data")
		case "-":
			row.cfg.DataDir = ""
		}
		err := row.cfg.Validate()
		if row.want == "" && err == nil {
			continue
		}
		if f := fault.Of(err); f == nil || f.Code != row.want || f.Hint == "" {
			t.Errorf("%s: got %v, want %q with a hint", name, err, row.want)
		}
	}
}
