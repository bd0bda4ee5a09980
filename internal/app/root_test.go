package app_test

import (
	"context"
	"net/http"
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
