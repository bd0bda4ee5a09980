package authserver

import (
	"encoding/json"
	"net/http"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/issuer"
)

// serverMetadata is the document of RFC 8414. The same one serves clients that
// look under OpenID Connect's path; we issue no ID tokens.
func (s *Server) serverMetadata() map[string]any {
	iss := s.agents.Issuer()
	methods := []string{agent.AuthNone, agent.AuthBasic, agent.AuthPost, agent.AuthKeys}
	doc := map[string]any{
		"issuer":                                           iss,
		"authorization_endpoint":                           iss + "/oauth/authorize",
		"token_endpoint":                                   iss + "/oauth/token",
		"token_endpoint_auth_methods_supported":            methods,
		"revocation_endpoint":                              iss + "/oauth/revoke",
		"revocation_endpoint_auth_methods_supported":       methods,
		"token_endpoint_auth_signing_alg_values_supported": issuer.Algorithms(),
		"introspection_endpoint":                           iss + "/oauth/introspect",
		"introspection_endpoint_auth_methods_supported":    []string{agent.AuthBasic, agent.AuthPost, agent.AuthKeys},
		"device_authorization_endpoint":                    iss + "/oauth/device_authorization",
		"scopes_supported":                                 []string{agent.Scope},
		"response_types_supported":                         []string{"code"},
		"response_modes_supported":                         []string{"query"},
		"grant_types_supported":                            []string{agent.GrantCode, agent.GrantRefresh, agent.GrantClientCredentials, agent.GrantAssertion, agent.GrantDevice},
		"code_challenge_methods_supported":                 []string{"S256"},
		"authorization_response_iss_parameter_supported":   true,
		"client_id_metadata_document_supported":            !s.agents.NoDocuments(),
		"authorization_details_types_supported":            []string{agent.AsksType},
		"protected_resources":                              []string{s.agents.Resource()},
	}
	if s.sessions != nil {
		doc["grant_types_supported"] = append(doc["grant_types_supported"].([]string), agent.GrantExchange)
	}
	if !s.noRegistration {
		doc["registration_endpoint"] = iss + "/oauth/register"
	}
	return doc
}

// resourceMetadata is the document of RFC 9728.
func (s *Server) resourceMetadata() map[string]any {
	return map[string]any{
		"resource":                 s.agents.Resource(),
		"resource_name":            "Ambit",
		"authorization_servers":    []string{s.agents.Issuer()},
		"bearer_methods_supported": []string{"header"},
		"scopes_supported":         []string{agent.Scope},
	}
}

// public serves a document that holds nothing of anybody, to every origin.
func (s *Server) public(doc map[string]any) http.Handler {
	body, err := json.Marshal(doc)
	if err != nil {
		panic("authserver: metadata of strings does not encode: " + err.Error())
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		switch r.Method {
		case http.MethodGet, http.MethodHead:
			h.Set("Content-Type", "application/json")
			h.Set("Cache-Control", "public, max-age=300")
			h.Set("X-Content-Type-Options", "nosniff")
			_, _ = w.Write(body)
		case http.MethodOptions:
			h.Set("Access-Control-Allow-Methods", "GET")
			h.Set("Access-Control-Allow-Headers", "Accept, MCP-Protocol-Version")
			h.Set("Access-Control-Max-Age", "600")
			w.WriteHeader(http.StatusNoContent)
		default:
			h.Set("Allow", "GET, HEAD, OPTIONS")
			w.WriteHeader(http.StatusMethodNotAllowed)
		}
	})
}
