package workos_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
)

// Issue 5, workos.md 2.5: what happens to connected accounts goes by the names and in
// the shape of Pipes for who asks for those, and by Ambit's own for who asks for them.
func TestPipesEvents(t *testing.T) {
	eachProduct(t, func(t *testing.T, p *product) {
		key := p.issue(t, "events", "", account.ScopeAuditRead)
		made := p.do(t, "PUT", "/data-integrations/sandbox_key/api-key", userKey).wants(t, "connect", 200)
		p.do(t, "POST", "/data-integrations/sandbox_key/api-key", strings.Replace(userKey, gatewaytest.SandboxKey, "a-key-that-is-wrong", 1))
		p.do(t, "PUT", "/data-integrations/sandbox_key/api-key", strings.Replace(strings.Replace(userKey, gatewaytest.SandboxKey, "a-key-that-is-wrong", 1), "u-1", "u-2", 1))
		if got := p.bare(t, "DELETE", "/user_management/users/u-1/connected_accounts/sandbox_key?organization_id=acme"); got != 204 {
			t.Fatalf("disconnect: %d", got)
		}
		got := map[string]map[string]any{}
		const names = "pipes.connected_account.connected,pipes.connected_account.disconnected,pipes.connected_account.connection_failed"
		for _, e := range p.as(t, key, "GET", "/events?events="+url.QueryEscape(names), "").wants(t, "events", 200).list(t) {
			got[e["event"].(string)] = e["data"].(map[string]any)
		}
		for state, data := range map[string]map[string]any{"connected": got["pipes.connected_account.connected"], "disconnected": got["pipes.connected_account.disconnected"]} {
			if data["object"] != "connected_account" || data["id"] != made.body["id"] || data["state"] != state || data["provider_slug"] != "sandbox_key" ||
				data["user_id"] != made.body["user_id"] || data["organization_id"] != made.body["organization_id"] || data["created_at"] != made.body["created_at"] || data["scopes"] == nil {
				t.Errorf("%s: %v", state, data)
			}
		}
		if failed := got["pipes.connected_account.connection_failed"]; failed["object"] != "connection_failed" || failed["provider_slug"] != "sandbox_key" || failed["error_code"] == "" {
			t.Errorf("failed: %v", failed)
		}
		own := p.as(t, key, "GET", "/events?events=connection.connected", "").wants(t, "events", 200)
		if strings.Contains(own.raw, "pipes.") || !strings.Contains(own.raw, `"event":"connection.connected"`) {
			t.Errorf("by our own name: %s", own.raw)
		}
	})
}
