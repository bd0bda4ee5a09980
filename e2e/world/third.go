package world

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Third is a third party of which everything is known: an API that answers one
// kilobyte and keeps each arrival. A call chooses with its argument wait_ms how
// long its answer takes.
type Third struct {
	// Refuse, unless nil, gives the status of an answer other than 200; 0 lets
	// the request pass. It is set before the first request.
	Refuse func(r *http.Request) int

	listener net.Listener
	server   *http.Server

	mu       sync.Mutex
	arrivals []Arrival
}

// Arrival is one request that reached the third party.
type Arrival struct {
	ID     string // the argument id of the call
	Method string
	At     time.Time
	Gone   time.Time // when its caller hung up before the answer; zero if it did not
}

const thirdKey = "third-key-0123456789abcdef"

// NewThird starts a third party on loopback.
func NewThird() (*Third, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	t := &Third{listener: l}
	mux := http.NewServeMux()
	mux.HandleFunc("/items", t.items)
	mux.HandleFunc("GET /me", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"id":"1","email":"somebody@third.example"}`)
	})
	t.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = t.server.Serve(l) }()
	return t, nil
}

// Close ends the third party and all its connections.
func (t *Third) Close() { _ = t.server.Close() }

// CloseIdle closes the connections that no request uses now.
func (t *Third) CloseIdle() {
	t.server.SetKeepAlivesEnabled(false)
	t.server.SetKeepAlivesEnabled(true)
}

// Address is its host:port.
func (t *Third) Address() string { return t.listener.Addr().String() }

var kilobyte = `{"items":["` + strings.Repeat("0123456789", 100) + `"]}`

func (t *Third) items(w http.ResponseWriter, r *http.Request) {
	at := time.Now()
	id, wait := r.URL.Query().Get("id"), r.URL.Query().Get("wait_ms")
	if r.Method == http.MethodPost {
		var body struct {
			ID   string `json:"id"`
			Wait int    `json:"wait_ms"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		id, wait = body.ID, strconv.Itoa(body.Wait)
	}
	t.mu.Lock()
	i := len(t.arrivals)
	t.arrivals = append(t.arrivals, Arrival{ID: id, Method: r.Method, At: at})
	t.mu.Unlock()
	if status := t.refused(r); status != 0 {
		w.WriteHeader(status)
		return
	}
	if ms, _ := strconv.Atoi(wait); ms > 0 {
		select {
		case <-time.After(time.Duration(ms) * time.Millisecond):
		case <-r.Context().Done():
			t.mu.Lock()
			t.arrivals[i].Gone = time.Now()
			t.mu.Unlock()
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, kilobyte)
}

func (t *Third) refused(r *http.Request) int {
	if t.Refuse != nil {
		return t.Refuse(r)
	}
	if r.Header.Get("X-Api-Key") != thirdKey {
		return http.StatusUnauthorized
	}
	return 0
}

// Arrivals gives what has arrived so far, in the order of arrival.
func (t *Third) Arrivals() []Arrival {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.arrivals)
}

// Direct is the call that an agent with the key itself would make.
func (t *Third) Direct(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+t.Address()+"/items", nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-Api-Key", thirdKey)
	_, err = expect200(req)
	return err
}

// The tools of a third party, below any way to authorize. Agents see list and
// create with the provider's id in front.
const thirdTools = `api: {base: ["http://%[2]s"]}
tools:
  - name: list
    title: List items
    description: Lists the items.
    effect: read
    input:
      type: object
      properties: {id: {type: string, maxLength: 80}, wait_ms: {type: integer, minimum: 0, maximum: 60000}}
    request: {method: GET, path: /items, query: {id: "{id}", wait_ms: "{wait_ms}"}}
  - name: create
    title: Create an item
    description: Creates an item.
    effect: write
    input:
      type: object
      required: [id]
      properties: {id: {type: string, maxLength: 80}, wait_ms: {type: integer, minimum: 0, maximum: 60000}}
    request: {method: POST, path: /items, body: {id: "{id}", wait_ms: "{wait_ms}"}}
`

// Record is the provider record of the third party under the id slug, connected
// with a key.
func (t *Third) Record(slug string) string {
	return fmt.Sprintf(`id: %[1]s
name: Third %[1]s
website: http://%[2]s
auth: api_key
identity: {path: /me, id: id, label: email}
inject: {header: X-Api-Key, format: "{api_key}"}
`+thirdTools, slug, t.Address())
}

// OAuthRecord is the record of the same API under the id slug, whose tokens come
// from issuer, another server, which rotates refresh tokens.
func (t *Third) OAuthRecord(slug, issuer string) string {
	return t.OAuthRecordVia(slug, issuer, issuer+"/token")
}

// OAuthRecordVia is OAuthRecord with a token endpoint that is reached elsewhere.
// Whoever signs in there is called as the slug.
func (t *Third) OAuthRecordVia(slug, issuer, token string) string {
	return fmt.Sprintf(`id: %[1]s
name: Third %[1]s
website: %[3]s
auth: oauth2
oauth2:
  authorize_url: %[3]s/auth
  token_url: %[4]s
  authorize_params: {login_hint: %[1]s}
  revoke_url: %[3]s/token/revocation
  revoke_style: rfc7009
  issuer: %[3]s
  client_auth: basic
  scopes:
    base: [openid, offline_access, email]
  refresh: {rotates: true}
identity: {url: "%[3]s/me", id: sub, label: email}
inject: {header: Authorization, format: "Bearer {access_token}"}
`+thirdTools, slug, t.Address(), issuer, token)
}
