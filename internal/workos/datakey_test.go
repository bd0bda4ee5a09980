package workos_test

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/vault"
)

// Issue 4: the three routes of data keys, with the shapes that the SDKs read.
func TestDataKeys(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		body := `{"context":{"organization_id":"org_1"}}`
		made := s.do(t, "POST", "/vault/v1/keys/data-key", body, "Idempotency-Key", "retry-1").wants(t, "createDataKey", 200)
		if diff := cmp.Diff([]string{"context", "data_key", "encrypted_keys", "id"}, keys(made.body)); diff != "" {
			t.Errorf("createDataKey: %s", diff)
		}
		raw, err := base64.StdEncoding.DecodeString(fmt.Sprint(made.body["data_key"]))
		if err != nil || len(raw) != 32 || !cmp.Equal(made.body["context"], map[string]any{"organization_id": "org_1"}) {
			t.Errorf("createDataKey: %s", made.raw)
		}
		if again := s.do(t, "POST", "/vault/v1/keys/data-key", body, "Idempotency-Key", "retry-1").wants(t, "a retry", 200); !cmp.Equal(again.body, made.body) {
			t.Errorf("a retry makes another key: %s, %s", made.raw, again.raw)
		}
		if other := s.do(t, "POST", "/vault/v1/keys/data-key", body).wants(t, "another", 200); other.body["data_key"] == made.body["data_key"] {
			t.Error("two keys are the same")
		}
		wrapped := fmt.Sprint(made.body["encrypted_keys"])
		back := s.do(t, "POST", "/vault/v1/keys/decrypt", `{"keys":"`+wrapped+`"}`, "Idempotency-Key", "retry-2").wants(t, "decryptDataKey", 200)
		if diff := cmp.Diff(map[string]any{"id": made.body["id"], "data_key": made.body["data_key"]}, back.body); diff != "" {
			t.Errorf("decryptDataKey: %s", diff)
		}
		rekeyed := s.do(t, "POST", "/vault/v1/keys/rekey", `{"context":{"tier":"1"},"encrypted_keys":"`+wrapped+`"}`, "Idempotency-Key", "retry-3").wants(t, "createRekey", 200)
		if !cmp.Equal(keys(rekeyed.body), keys(made.body)) || rekeyed.body["data_key"] != made.body["data_key"] || rekeyed.body["encrypted_keys"] == wrapped {
			t.Errorf("createRekey: %s", rekeyed.raw)
		}
		for _, x := range []struct {
			path, body string
			status     int
			code       string
		}{
			{"data-key", `{}`, 422, "missing_field"}, {"data-key", `{"context":{"a":1}}`, 422, "invalid_json"}, {"data-key", `{"context":{"":"x"}}`, 422, "invalid_key_context"},
			{"data-key", `{"key_context":{}}`, 422, "invalid_json"}, {"decrypt", `{}`, 400, "invalid_encrypted_keys"}, {"decrypt", `{"keys":"AAAA"}`, 400, "invalid_encrypted_keys"},
			{"decrypt", `{"keys":"!"}`, 400, "invalid_encrypted_keys"}, {"decrypt", `{"keys":7}`, 400, "invalid_json"}, {"rekey", `{"encrypted_keys":"AAAA","context":{}}`, 400, "invalid_encrypted_keys"},
			{"rekey", `{"encrypted_keys":"` + wrapped + `"}`, 422, "missing_field"}, {"rekey", `{"encrypted_keys":"` + wrapped + `","context":{"":"x"}}`, 422, "invalid_key_context"},
		} {
			s.do(t, "POST", "/vault/v1/keys/"+x.path, x.body).fails(t, x.path+" "+x.body, x.status, x.code)
		}
		s.do(t, "GET", "/vault/v1/keys/data-key", "").fails(t, "another method", 404, "not_found")
		reader := s.issue(t, "reader", "", account.ScopeVaultRead)
		writer := s.issue(t, "writer", "", account.ScopeVaultWrite)
		s.as(t, reader, "POST", "/vault/v1/keys/data-key", body).fails(t, "create by a reader", 403, "insufficient_scope")
		s.as(t, writer, "POST", "/vault/v1/keys/decrypt", `{"keys":"`+wrapped+`"}`).fails(t, "decrypt by a writer", 403, "insufficient_scope")
		for _, key := range []string{reader, writer} {
			s.as(t, key, "POST", "/vault/v1/keys/rekey", `{"context":{},"encrypted_keys":"`+wrapped+`"}`).fails(t, "rekey by one with half the scopes", 403, "insufficient_scope")
		}
	})
}

// The names that WorkOS' command line gives to two items choose the same key as
// those of everything else (workos.md, key-name trap).
func TestContextAliases(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		org := string(s.org)
		a := s.do(t, "POST", "/vault/v1/kv", `{"name":"a","value":"v","key_context":{"organizationId":"`+org+`"}}`).wants(t, "create", 201)
		b := s.do(t, "POST", "/vault/v1/kv", `{"name":"b","value":"v","key_context":{"organization_id":"`+org+`"}}`).wants(t, "create", 201)
		if a.body["key_id"] != b.body["key_id"] || !cmp.Equal(a.body["context"], b.body["context"]) {
			t.Errorf("two keys: %s %s", a.raw, b.raw)
		}
		both := s.do(t, "POST", "/vault/v1/kv", `{"name":"c","value":"v","key_context":{"organization_id":"`+org+`","organizationId":"x"}}`).wants(t, "both", 201)
		if both.body["key_id"] == b.body["key_id"] {
			t.Error("an item was dropped")
		}
	})
}

// T2: a key that is for some secrets only meets its bounds on every route.
func TestKeyForSomeSecrets(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		made := map[string]string{}
		for _, name := range []string{"prod/db", "test/db"} {
			made[name] = fmt.Sprint(s.do(t, "POST", "/vault/v1/kv", `{"name":"`+name+`","value":"v","key_context":{}}`).wants(t, "create", 201).body["id"])
		}
		_, token, err := s.people.IssueKey(t.Context(), account.NewKey{Environment: s.env, Name: "prod", Scopes: []account.Scope{account.ScopeVaultRead, account.ScopeVaultWrite, account.ScopeVaultDelete, account.ScopeAuditRead},
			Secrets: []vault.Rule{{Verbs: vault.Verbs(), Prefix: " prod/"}}})
		if err != nil {
			t.Fatal(err)
		}
		key := string(token.Reveal())
		s.as(t, key, "GET", "/vault/v1/kv/"+made["prod/db"], "").wants(t, "within", 200)
		for _, x := range [][2]string{{"GET", ""}, {"GET", "/metadata"}, {"GET", "/versions"}, {"PUT", ""}, {"DELETE", ""}} {
			s.as(t, key, x[0], "/vault/v1/kv/"+made["test/db"]+x[1], `{"value":"x"}`).fails(t, x[0]+x[1], 404, "not_found")
		}
		s.as(t, key, "GET", "/vault/v1/kv/name/test%2Fdb", "").fails(t, "by name", 404, "not_found")
		s.as(t, key, "POST", "/vault/v1/kv", `{"name":"test/new","value":"v","key_context":{}}`).fails(t, "create", 403, "not_allowed")
		s.as(t, key, "POST", "/vault/v1/keys/data-key", `{"context":{}}`).fails(t, "data key", 403, "not_allowed")
		if r := s.as(t, key, "GET", "/vault/v1/kv", "").wants(t, "list", 200); len(r.body["data"].([]any)) != 1 || strings.Contains(r.raw, "test/db") {
			t.Errorf("list: %s", r.raw)
		}
		// A bug: it heard of what it may not list.
		if r := s.as(t, key, "GET", "/events?events=vault.data.created,vault.kek.created", "").wants(t, "events", 200); !strings.Contains(r.raw, "prod/db") || strings.Contains(r.raw, "test/db") || strings.Contains(r.raw, "kek.created") {
			t.Errorf("events: %s", r.raw)
		}
		if _, _, err := s.people.IssueKey(t.Context(), account.NewKey{Environment: s.env, Name: "x", Scopes: []account.Scope{account.ScopeAuditRead}, Secrets: []vault.Rule{{Verbs: vault.Verbs()}}}); err == nil {
			t.Error("rules were taken for a key without a scope of the vault")
		}
	})
}

// Issue 4: what happens in the vault is told as WorkOS' events, with whose agent,
// person and session it was where there are any; what was refused is not.
func TestEvents(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *server) {
		reader := s.issue(t, "auditor", "", account.ScopeAuditRead)
		org := string(s.org)
		sid := fmt.Sprint(s.do(t, "POST", "/vault/v1/kv", `{"name":"k","value":"canary-value","key_context":{"organization_id":"`+org+`"}}`).wants(t, "create", 201).body["id"])
		s.do(t, "GET", "/vault/v1/kv/"+sid, "")
		s.do(t, "GET", "/vault/v1/kv/"+string(id.NewSecret()), "")
		s.do(t, "GET", "/vault/v1/kv/"+sid+"/metadata", "")
		s.do(t, "GET", "/vault/v1/kv", "")
		s.do(t, "PUT", "/vault/v1/kv/"+sid, `{"value":"canary-value"}`)
		wrapped := fmt.Sprint(s.do(t, "POST", "/vault/v1/keys/data-key", `{"context":{}}`).body["encrypted_keys"])
		s.do(t, "POST", "/vault/v1/keys/decrypt", `{"keys":"`+wrapped+`"}`)
		s.do(t, "DELETE", "/vault/v1/kv/"+sid, "")
		all := "vault.data.created,vault.data.read,vault.data.updated,vault.data.deleted,vault.metadata.read,vault.names.listed,vault.kek.created,vault.dek.read,vault.dek.decrypted,pipes.connected_account.connected"
		list := func(query string) (names []string, data []map[string]any, after any) {
			t.Helper()
			r := s.as(t, reader, "GET", "/events?"+query, "").wants(t, query, 200)
			if r.body["object"] != "list" || strings.Contains(r.raw, "canary-value") {
				t.Errorf("%s: %s", query, r.raw)
			}
			for _, x := range r.body["data"].([]any) {
				e := x.(map[string]any)
				if diff := cmp.Diff([]string{"context", "created_at", "data", "event", "id", "object"}, keys(e)); diff != "" || e["object"] != "event" {
					t.Errorf("event: %s", diff)
				}
				names = append(names, fmt.Sprint(e["event"]))
				data = append(data, e["data"].(map[string]any))
			}
			return names, data, r.body["list_metadata"].(map[string]any)["after"]
		}
		want := []string{"vault.kek.created", "vault.data.created", "vault.data.read", "vault.metadata.read", "vault.names.listed", "vault.data.updated", "vault.kek.created", "vault.dek.read", "vault.dek.decrypted", "vault.data.deleted"}
		names, data, after := list("limit=50&events=" + url.QueryEscape(all))
		if diff := cmp.Diff(want, names); diff != "" || after != nil {
			t.Fatalf("after %v: %s", after, diff)
		}
		read := data[2]
		if read["kv_name"] != "k" || read["actor_name"] != "backend" || read["actor_source"] != "api" || !strings.HasPrefix(fmt.Sprint(read["actor_id"]), "key_") ||
			!strings.HasPrefix(fmt.Sprint(read["key_id"]), "kek_") || read["organization_id"] != org || read["kv_id"] != sid {
			t.Errorf("read: %v", read)
		}
		if created := data[1]; !cmp.Equal(created["key_context"], map[string]any{"organization_id": org}) {
			t.Errorf("created: %v", created)
		}
		if dek := data[7]; len(dek["key_ids"].([]any)) != 1 {
			t.Errorf("dek: %v", dek)
		}
		// Page by page, by the ids of events.
		var paged []string
		for query := "limit=3&events=" + url.QueryEscape(all); ; {
			names, _, after := list(query)
			paged = append(paged, names...)
			if after == nil {
				break
			}
			query = "limit=3&events=" + url.QueryEscape(all) + "&after=" + fmt.Sprint(after)
		}
		if diff := cmp.Diff(want, paged); diff != "" {
			t.Errorf("paged: %s", diff)
		}
		if names, _, _ := list("events=vault.data.read&order=desc&range_start=2020-01-01T00:00:00Z&organization_id=" + org); !cmp.Equal(names, []string{"vault.data.read"}) {
			t.Errorf("reads: %v", names)
		}
		if names, _, _ := list("events=pipes.connected_account.connected"); len(names) != 0 {
			t.Errorf("of another product: %v", names)
		}
		for query, status := range map[string]int{"": 422, "events=vault.data.read&limit=x": 400, "events=vault.data.read&after=evt_x": 400, "events=vault.data.read&range_end=x": 400, "events=vault.data.read&order=x": 400} {
			if r := s.as(t, reader, "GET", "/events?"+query, ""); r.status != status {
				t.Errorf("%s: %d %s", query, r.status, r.raw)
			}
		}
		s.do(t, "GET", "/events?events=vault.data.read", "").fails(t, "without the scope", 403, "insufficient_scope")
		confined := s.issue(t, "confined", s.org, account.ScopeAuditRead)
		if r := s.as(t, confined, "GET", "/events?events=vault.dek.read,vault.data.read", ""); strings.Contains(r.raw, "vault.dek.read") || !strings.Contains(r.raw, "vault.data.read") {
			t.Errorf("confined to an organization: %s", r.raw)
		}
	})
}
