package sandbox

import "strings"

// Record is the provider record (YAML) of the sandbox reached by OAuth at baseURL.
func Record(baseURL string) string {
	head := `id: sandbox
name: Sandbox
website: {base}
auth: oauth2
oauth2:
  authorize_url: {base}/oauth/authorize
  token_url: {base}/oauth/token
  revoke_url: {base}/oauth/revoke
  revoke_style: rfc7009
  issuer: {base}
  client_auth: basic
  scopes:
    base: [issues:read]
    catalog:
      - {id: "issues:read", title: Read issues, risk: read}
      - {id: "issues:write", title: Create and change issues, risk: write}
      - {id: "issues:delete", title: Delete issues, risk: write}
      - {id: "keys:write", title: Make API keys, risk: admin}
  refresh: {rotates: true}
inject: {header: Authorization, format: "Bearer {access_token}"}
`
	return record(head, baseURL, true)
}

// KeyRecord is the provider record (YAML) of the sandbox reached with an API key.
func KeyRecord(baseURL string) string {
	head := `id: sandbox_key
name: Sandbox with a key
website: {base}
auth: api_key
inject: {header: X-Api-Key, format: "{api_key}"}
variables: {SANDBOX_API_KEY: sbx_}
`
	return record(head, baseURL, false)
}

func record(head, baseURL string, scopes bool) string {
	text := strings.ReplaceAll(head+recordBody, "{base}", strings.TrimRight(baseURL, "/"))
	if !scopes {
		var kept []string
		for line := range strings.Lines(text) { // only OAuth has scopes
			if !strings.HasPrefix(line, "    scopes:") {
				kept = append(kept, line)
			}
		}
		text = strings.Join(kept, "")
	}
	return text
}

const recordBody = `identity: {path: /me, id: id, label: email}
api:
  base: ["{base}"]
health: {path: /me}
cut: [key, api_key, access_token, refresh_token]
generic: {read: true, write: true, destructive: true}
access: ["* /keys/**"]
tools:
  - name: list_issues
    title: List issues
    description: Lists the issues of the account, newest first.
    effect: read
    scopes: ["issues:read"]
    input:
      type: object
      properties:
        state: {type: string, enum: [open, closed, all], description: Default open.}
        limit: {type: integer, minimum: 1, maximum: 100}
    request: {method: GET, path: /issues, query: {state: "{state}", per_page: "{limit}"}}
  - name: get_issue
    title: Read an issue
    description: Reads one issue by its number.
    effect: read
    scopes: ["issues:read"]
    input:
      type: object
      required: [number]
      properties:
        number: {type: integer, minimum: 1}
    request: {method: GET, path: "/issues/{number}"}
  - name: create_issue
    title: Create an issue
    description: Creates an issue.
    effect: write
    scopes: ["issues:write"]
    input:
      type: object
      required: [title]
      properties:
        title: {type: string, minLength: 1, maxLength: 200}
        body: {type: string, maxLength: 10000}
        labels: {type: array, items: {type: string}, maxItems: 20}
    request:
      method: POST
      path: /issues
      body: {title: "{title}", body: "{body}", labels: "{labels}"}
  - name: update_issue
    title: Change an issue
    description: Changes title, body or state of an issue.
    effect: write
    scopes: ["issues:write"]
    input:
      type: object
      required: [number]
      properties:
        number: {type: integer, minimum: 1}
        title: {type: string, minLength: 1, maxLength: 200}
        body: {type: string, maxLength: 10000}
        state: {type: string, enum: [open, closed]}
    request:
      method: PATCH
      path: "/issues/{number}"
      body: {title: "{title}", body: "{body}", state: "{state}"}
    target: {tool: get_issue, name: [title]}
  - name: delete_issue
    title: Delete an issue
    description: Deletes an issue for good.
    effect: destructive
    scopes: ["issues:delete"]
    input:
      type: object
      required: [number]
      properties:
        number: {type: integer, minimum: 1}
    request: {method: DELETE, path: "/issues/{number}"}
  - name: create_key
    title: Make an API key
    description: Makes an API key of the account. The key itself is not shown.
    effect: access
    scopes: ["keys:write"]
    input:
      type: object
      required: [name]
      properties:
        name: {type: string, minLength: 1, maxLength: 100}
    request:
      method: POST
      path: /keys
      body: {name: "{name}"}
  - name: echo
    title: Echo
    description: Answers with the headers that the sandbox received.
    effect: read
    request: {method: GET, path: /echo}
  - name: me
    title: Account
    description: Tells whose account this is.
    effect: read
    request: {method: GET, path: /me}
  - name: whoami_token
    title: Whoami with token
    description: Answers with the token that was used, as a leaky service would. Ambit takes it out.
    effect: read
    request: {method: GET, path: /whoami-token}
`
