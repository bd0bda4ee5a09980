package app_test

import (
	"context"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
)

// T7, issue 4 (keepers): the identity of the machine is for the operator's root keys
// in a cloud, for customers' only where the operator said so, and never for a
// service whose address a customer writes.
func TestMachineIdentity(t *testing.T) {
	t.Parallel()
	client, err := outbound.New(outbound.Policy{})
	must(t, err)
	t.Cleanup(client.Close)
	// A caller who has left keeps the test from asking for real: what is not
	// allowed is refused all the same.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://169.254.169.254/latest/meta-data/", nil)
	must(t, err)
	for _, row := range []struct {
		scheme             string
		ours, allowed, may bool
	}{
		{"awskms", true, false, true}, {"gcpkms", true, false, true}, {"azurekv", true, false, true}, {"transit+http", true, true, false},
		{"awskms", false, false, false}, {"gcpkms", false, false, false}, {"azurekv", false, false, false},
		{"awskms", false, true, true}, {"transit+http", false, true, false}, {"transit+https", false, true, false},
	} {
		resp, err := app.Keepers(app.Config{MachineIdentity: row.allowed}, client, row.scheme, row.ours).RoundTrip(req)
		if resp != nil {
			_ = resp.Body.Close()
		}
		if want := map[bool]string{true: "upstream_cancelled", false: "destination_denied"}[row.may]; !fault.Is(err, want) {
			t.Errorf("%+v: got %v, want %s", row, err, want)
		}
	}
}

// A user found that the samples of URIs in the docs were refused as they stood.
func TestKeyURIsInTheDocs(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "keys.md"))
	must(t, err)
	client, err := outbound.New(outbound.Policy{})
	must(t, err)
	t.Cleanup(client.Close)
	found := regexp.MustCompile(`(?m)^(gcpkms|azurekv)://\S+$`).FindAllString(string(doc), -1)
	if len(found) < 3 {
		t.Fatalf("only these samples: %v", found)
	}
	for _, uri := range found {
		if _, err := app.OpenBrought(t.Context(), client, uri); fault.Is(err, "root_key_uri_invalid") {
			t.Errorf("%s: %v", uri, err)
		}
	}
}

// Issue 4: a Vault whose certificate comes from an authority of one's own is believed
// where the operator names that authority, and for transit keys alone.
func TestTransitCA(t *testing.T) {
	t.Parallel()
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {}))
	t.Cleanup(srv.Close)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	dir := t.TempDir()
	file := filepath.Join(dir, "ca.pem")
	must(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600))
	cfg := app.Config{OutboundAllow: []string{srv.Listener.Addr().String()}}
	asks := func(cfg app.Config, scheme string) error {
		client, err := cfg.NewOutbound()
		must(t, err)
		defer client.Close()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, nil)
		must(t, err)
		resp, err := app.Keepers(cfg, client, scheme, true).RoundTrip(req)
		if resp != nil {
			_ = resp.Body.Close()
		}
		return err
	}
	if err := asks(cfg, "transit+https"); err == nil {
		t.Error("an unknown authority was believed")
	}
	cfg.TransitCA = file
	if err := asks(cfg, "transit+https"); err != nil {
		t.Errorf("with the authority named: %v", err)
	}
	for _, scheme := range []string{"awskms", "gcpkms", "azurekv"} {
		if err := asks(cfg, scheme); err == nil {
			t.Errorf("the authority was believed for %s", scheme)
		}
	}
	for name, text := range map[string]string{"empty": "", "no PEM": "hello", "a key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}))} {
		bad := filepath.Join(dir, name)
		must(t, os.WriteFile(bad, []byte(text), 0o600))
		for _, path := range []string{bad, bad + ".none"} {
			if _, err := (app.Config{TransitCA: path}).NewOutbound(); !fault.Is(err, "transit_ca_invalid") {
				t.Errorf("%s: got %v", name, err)
			}
		}
	}
}
