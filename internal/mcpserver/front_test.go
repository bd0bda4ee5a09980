package mcpserver_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/ambit-dev/ambit/internal/mcpserver"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// ping is the cheapest message that passes everything.
const ping = `{"jsonrpc":"2.0","id":1,"method":"ping"}`

// message is one HTTP request to the door. Nil headers stand for those of a
// well-behaved client; a header with no values is left out.
type message struct {
	method string
	header http.Header
	body   string
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
	code   int    // of a JSON-RPC error
	text   string // its message
	id     string
	result map[string]any
}

func (w *world) send(t testing.TB, token string, m message) answer {
	t.Helper()
	if m.method == "" {
		m.method = http.MethodPost
	}
	req := httptest.NewRequest(m.method, "/mcp", strings.NewReader(m.body))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for k, v := range m.header {
		if req.Header[k] = v; len(v) == 0 {
			delete(req.Header, k)
		}
	}
	return w.do(t, req)
}

func (w *world) do(t testing.TB, req *http.Request) answer {
	t.Helper()
	rec := httptest.NewRecorder()
	w.mux.ServeHTTP(rec, req)
	a := answer{status: rec.Code, header: rec.Header(), body: rec.Body.Bytes()}
	if len(a.body) == 0 {
		return a
	}
	var doc struct {
		Version string          `json:"jsonrpc"`
		ID      json.RawMessage `json:"id"`
		Result  map[string]any  `json:"result"`
		Error   *struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := json.Unmarshal(a.body, &doc); err != nil || doc.Version != "2.0" {
		t.Fatalf("the answer is not JSON-RPC: %q", a.body)
	}
	a.id, a.result = string(doc.ID), doc.Result
	if doc.Error != nil {
		a.code, a.text = doc.Error.Code, doc.Error.Message
	}
	return a
}

func (a answer) want(t testing.TB, status, code int) {
	t.Helper()
	if a.status != status || a.code != code {
		t.Errorf("got status %d, code %d (%s), want %d, %d", a.status, a.code, a.text, status, code)
	}
}

// A web page may not drive the door, whoever is signed in (S10), and what a form
// or a plain fetch can send is refused (S11).
func TestRefusesBrowsers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldb.SQLite)
	token := w.agent(t, "builder").token
	for name, test := range map[string]struct {
		header http.Header
		status int
	}{
		"no origin":           {nil, 200},
		"own origin":          {http.Header{"Origin": {"http://localhost:7420"}}, 200},
		"other port":          {http.Header{"Origin": {"http://localhost:7421"}}, 403},
		"other scheme":        {http.Header{"Origin": {"https://localhost:7420"}}, 403},
		"loopback by number":  {http.Header{"Origin": {"http://127.0.0.1:7420"}}, 403},
		"null origin":         {http.Header{"Origin": {"null"}}, 403},
		"empty origin":        {http.Header{"Origin": {""}}, 403},
		"two origins":         {http.Header{"Origin": {"http://localhost:7420", "https://evil.example"}}, 403},
		"cross-site":          {http.Header{"Sec-Fetch-Site": {"cross-site"}}, 403},
		"same-site":           {http.Header{"Sec-Fetch-Site": {"same-site"}}, 403},
		"same-origin":         {http.Header{"Sec-Fetch-Site": {"same-origin"}}, 200},
		"typed by hand":       {http.Header{"Sec-Fetch-Site": {"none"}}, 200},
		"text":                {http.Header{"Content-Type": {"text/plain"}}, 415},
		"form":                {http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, 415},
		"no content type":     {http.Header{"Content-Type": {}}, 415},
		"two content types":   {http.Header{"Content-Type": {"application/json", "text/plain"}}, 415},
		"utf-8":               {http.Header{"Content-Type": {"application/json; charset=UTF-8"}}, 200},
		"utf-7":               {http.Header{"Content-Type": {"application/json; charset=utf-7"}}, 415},
		"looks like json":     {http.Header{"Content-Type": {"application/json+x"}}, 415},
		"compressed":          {http.Header{"Content-Encoding": {"gzip"}}, 415},
		"accepts all":         {http.Header{"Accept": {"*/*"}}, 200},
		"says nothing":        {http.Header{"Accept": {}}, 200},
		"two accept headers":  {http.Header{"Accept": {"application/json", "text/event-stream;q=0.5"}}, 200},
		"accepts no stream":   {http.Header{"Accept": {"application/json"}}, 406},
		"accepts html":        {http.Header{"Accept": {"text/html"}}, 406},
		"authority in cookie": {http.Header{"Authorization": {}, "Cookie": {"login=" + token, "Authorization=Bearer " + token}}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := w.send(t, token, message{header: test.header, body: ping}); got.status != test.status {
				t.Errorf("got %d %s, want %d", got.status, got.text, test.status)
			}
		})
	}
}

func TestMethods(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldb.SQLite)
	token := w.agent(t, "builder").token
	for _, method := range []string{"GET", "DELETE", "PUT", "PATCH", "OPTIONS", "HEAD"} {
		got := w.send(t, token, message{method: method})
		if got.status != 405 || got.header.Get("Allow") != "POST" || got.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: got %d, Allow %q, want 405, POST", method, got.status, got.header.Get("Allow"))
		}
	}
}

// Without a valid token there is the challenge that leads a client to our
// authorization server, and nothing else happens (S1).
func TestChallenge(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldb.SQLite)
	const base = `Bearer resource_metadata="http://localhost:7420/.well-known/oauth-protected-resource/mcp", scope="ambit"`
	for name, test := range map[string]struct {
		authorization []string
		status        int
		wantError     bool
	}{
		"none":         {nil, 401, false},
		"other scheme": {[]string{"Basic YTpi"}, 401, false},
		"empty":        {[]string{"Bearer "}, 401, true},
		"unknown":      {[]string{"Bearer amb_at_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}, 401, true},
		"not ours":     {[]string{"Bearer ghp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}, 401, true},
		"two headers":  {[]string{"Bearer a", "Bearer b"}, 400, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := w.send(t, "", message{header: http.Header{"Authorization": test.authorization}, body: ping})
			challenge := got.header.Get("Www-Authenticate")
			if got.status != test.status {
				t.Fatalf("got %d, want %d", got.status, test.status)
			}
			if got.status == 401 && (!strings.HasPrefix(challenge, base) || strings.Contains(challenge, `error="invalid_token"`) != test.wantError) {
				t.Errorf("got challenge %q, want it to begin with %q and invalid_token %v", challenge, base, test.wantError)
			}
		})
	}
	t.Run("the body is not read", func(t *testing.T) {
		t.Parallel()
		req := httptest.NewRequest("POST", "/mcp", iotest.ErrReader(fmt.Errorf("the body was read")))
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer amb_at_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
		if got := w.do(t, req); got.status != 401 {
			t.Errorf("got %d, want 401", got.status)
		}
	})
	t.Run("a token in the URL is none", func(t *testing.T) {
		t.Parallel()
		req := httptest.NewRequest("POST", "/mcp?access_token="+w.agent(t, "careless").token, strings.NewReader(ping))
		req.Header.Set("Content-Type", "application/json")
		if got := w.do(t, req); got.status != 401 {
			t.Errorf("got %d, want 401", got.status)
		}
	})
}

// Nothing but the very token opens the door (S9).
func TestTokenVariations(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldb.SQLite)
	token := w.agent(t, "builder").token
	if got := w.send(t, token, message{body: ping}); got.status != 200 {
		t.Fatalf("the token itself: got %d, want 200", got.status)
	}
	var tries []string
	for i := range len(token) {
		tries = append(tries, token[:i], token[i:][min(1, i):], token[:i]+flip(token[i])+token[i+1:])
	}
	for _, space := range []string{" ", "\t", "\u00a0", "\x0b"} {
		tries = append(tries, space+token, token[:10]+space+token[10:])
	}
	prefix, body := "amb_at_", strings.TrimPrefix(token, "amb_at_")
	raw, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil {
		t.Fatal(err)
	}
	tries = append(tries, prefix+base64.URLEncoding.EncodeToString(raw), token+"=", token+"A", token+token, token+","+token, token+"\x00",
		strings.ToUpper(token), strings.ToLower(token), body, "Bearer "+token, `"`+token+`"`, prefix+prefix+body, "amb_rt_"+body, "sk_"+body)
	for _, try := range tries {
		if try == token { // a flip that changes nothing, or no padding to add
			continue
		}
		if got := w.send(t, try, message{body: ping}); got.status != 401 {
			t.Errorf("%q: got %d, want 401", try, got.status)
		}
	}
}

func flip(c byte) string {
	switch {
	case 'a' <= c && c <= 'z':
		return string(c - 32)
	case 'A' <= c && c <= 'Z':
		return string(c + 32)
	}
	return string(c ^ 1)
}

// Each agent has a budget of its own (S14), whoever shares its address; a dead
// token costs its holder only (W7).
func TestThrottle(t *testing.T) {
	t.Parallel()
	limits := generous
	limits.AgentRate, limits.AgentBurst, limits.FailureRate, limits.FailureBurst = 0.001, 3, 0.001, 3
	w := newWorldWith(t, sqldb.SQLite, limits)
	greedy, modest := w.agent(t, "greedy").token, w.agent(t, "modest").token
	for i := range 4 {
		got := w.send(t, greedy, message{body: ping})
		if want := map[bool]int{true: 200, false: 429}[i < 3]; got.status != want {
			t.Fatalf("request %d: got %d, want %d", i, got.status, want)
		}
		if got.status == 429 && got.header.Get("Retry-After") == "" {
			t.Error("429 without Retry-After")
		}
	}
	for i := range 5 {
		got := w.send(t, "amb_at_nobody", message{body: ping})
		if want := map[bool]int{true: 401, false: 429}[i < 3]; got.status != want {
			t.Fatalf("bad token %d: got %d, want %d", i, got.status, want)
		}
	}
	if got := w.send(t, modest, message{body: ping}); got.status != 200 {
		t.Errorf("the neighbour: got %d, want 200", got.status)
	}
}

// W7: with the limits as shipped, an agent that floods is cut down to its own
// budget and its neighbour behind the same address notices nothing.
func TestFloodingAgentStarvesNobody(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, sqldb.SQLite, mcpserver.Limits{})
	greedy, modest := w.agent(t, "greedy").token, w.agent(t, "modest").token
	refused := 0
	for range 1500 {
		if w.send(t, greedy, message{body: ping}).status == http.StatusTooManyRequests {
			refused++
		}
	}
	if refused == 0 {
		t.Error("the flood was not limited at all")
	}
	if got := w.send(t, modest, message{body: ping}); got.status != 200 {
		t.Errorf("the neighbour: got %d, want 200", got.status)
	}
}

func TestThrottleAddress(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, sqldb.SQLite, mcpserver.Limits{AddressRate: 0.001, AddressBurst: 2})
	token := w.agent(t, "builder").token
	for i := range 3 {
		got := w.send(t, token, message{body: ping})
		if want := map[bool]int{true: 200, false: 429}[i < 2]; got.status != want {
			t.Errorf("request %d: got %d, want %d", i, got.status, want)
		}
	}
}

// What two readers could read in two ways is not read at all (S13, W6).
func TestAmbiguousBodies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldb.SQLite)
	token := w.agent(t, "builder").token
	call := func(params string) string {
		return `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":` + params + `}`
	}
	deep := strings.Repeat(`{"a":`, 70) + "1" + strings.Repeat("}", 70)
	for name, test := range map[string]struct {
		body   string
		status int
		code   int
		id     string
	}{
		"empty":                {"", 400, -32700, ""},
		"white space":          {" \n ", 400, -32700, ""},
		"not json":             {`{"jsonrpc":"2.0",`, 400, -32700, ""},
		"two documents":        {ping + ping, 400, -32700, ""},
		"trailing comma":       {`{"jsonrpc":"2.0","id":1,"method":"ping",}`, 400, -32700, ""},
		"byte order mark":      {"\ufeff" + ping, 400, -32700, ""},
		"batch":                {"[" + ping + "]", 400, -32600, ""},
		"empty batch":          {"[]", 400, -32600, ""},
		"string":               {`"ping"`, 400, -32600, ""},
		"null":                 {`null`, 400, -32600, ""},
		"duplicate method":     {`{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}`, 400, -32600, ""},
		"method by case":       {`{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}`, 400, -32600, ""},
		"only the other case":  {`{"jsonrpc":"2.0","id":1,"Method":"ping"}`, 400, -32600, "1"},
		"escaped duplicate":    {`{"jsonrpc":"2.0","id":1,"method":"ping","m\u0065thod":"tools/call"}`, 400, -32600, ""},
		"kelvin sign":          {call(`{"name":"whoami","arguments":{"\u212aey":1,"key":2}}`), 400, -32600, ""},
		"duplicate argument":   {call(`{"name":"whoami","arguments":{"a":1,"a":2}}`), 400, -32600, ""},
		"name by case":         {call(`{"Name":"whoami"}`), 400, -32602, "7"},
		"arguments by case":    {call(`{"name":"whoami","Arguments":{}}`), 400, -32602, "7"},
		"long s in arguments":  {call(`{"name":"whoami","argument\u017f":{}}`), 400, -32602, "7"},
		"invalid utf-8":        {call(`{"name":"who` + "\xff" + `ami"}`), 400, -32600, ""},
		"nul":                  {call(`{"name":"whoami\u0000"}`), 400, -32600, ""},
		"lone surrogate":       {call(`{"name":"\ud800"}`), 400, -32600, ""},
		"deep":                 {call(`{"name":"whoami","arguments":` + deep + `}`), 400, -32600, ""},
		"no version":           {`{"id":1,"method":"ping"}`, 400, -32600, "1"},
		"other version":        {`{"jsonrpc":"1.0","id":1,"method":"ping"}`, 400, -32600, "1"},
		"null id":              {`{"jsonrpc":"2.0","id":null,"method":"ping"}`, 400, -32600, ""},
		"object id":            {`{"jsonrpc":"2.0","id":{},"method":"ping"}`, 400, -32600, ""},
		"fraction as id":       {`{"jsonrpc":"2.0","id":1.5,"method":"ping"}`, 400, -32600, ""},
		"long id":              {`{"jsonrpc":"2.0","id":"` + strings.Repeat("x", 300) + `","method":"ping"}`, 400, -32600, ""},
		"no id":                {`{"jsonrpc":"2.0","method":"tools/call","params":{"name":"whoami"}}`, 400, -32600, ""},
		"no method":            {`{"jsonrpc":"2.0","id":1}`, 400, -32600, "1"},
		"number as method":     {`{"jsonrpc":"2.0","id":1,"method":1}`, 400, -32600, "1"},
		"answer":               {`{"jsonrpc":"2.0","id":1,"result":{}}`, 400, -32600, "1"},
		"stranger":             {`{"jsonrpc":"2.0","id":1,"method":"ping","auth":"x"}`, 400, -32600, "1"},
		"params are a list":    {`{"jsonrpc":"2.0","id":1,"method":"tools/list","params":[]}`, 400, -32602, "1"},
		"params are null":      {`{"jsonrpc":"2.0","id":1,"method":"tools/list","params":null}`, 400, -32602, "1"},
		"meta is a list":       {`{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":[]}}`, 400, -32602, "1"},
		"notification with id": {`{"jsonrpc":"2.0","id":1,"method":"notifications/initialized"}`, 400, -32600, "1"},
		"string id":            {`{"jsonrpc":"2.0","id":"a\u00e9","method":"ping"}`, 200, 0, `"aé"`},
		"number id":            {ping, 200, 0, "1"},
		"notification":         {`{"jsonrpc":"2.0","method":"notifications/initialized"}`, 202, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := w.send(t, token, message{body: test.body})
			got.want(t, test.status, test.code)
			if got.id != test.id {
				t.Errorf("got id %s, want %s", got.id, test.id)
			}
		})
	}
}

// A body over 1 MiB is refused by its declared length, and without one as soon
// as it is over.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldb.SQLite)
	token := w.agent(t, "builder").token
	big := `{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"x":"` + strings.Repeat("x", 10<<20) + `"}}}`
	for name, body := range map[string]io.Reader{"declared": strings.NewReader(big), "chunked": io.MultiReader(strings.NewReader(big))} {
		req := httptest.NewRequest("POST", "/mcp", body)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+token)
		if name == "chunked" && req.ContentLength != -1 {
			t.Fatalf("the length is known: %d", req.ContentLength)
		}
		got := w.do(t, req)
		got.want(t, 413, -32600)
	}
	fits := `{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"x":"` + strings.Repeat("x", 1<<20-100) + `"}}}`
	if got := w.send(t, token, message{body: fits}); got.status != 200 {
		t.Errorf("a body just below the limit: got %d %s, want 200", got.status, got.text)
	}
}

// W5, and a bug: an agent could have as many requests wait for their bodies as its
// rate allowed, and took most of the server's places with them.
func TestUnfinishedBodiesOfOneAgentAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldb.SQLite)
	slow, other := w.agent(t, "slow").token, w.agent(t, "other").token
	var wg sync.WaitGroup
	var ends []*io.PipeWriter
	for range 64 {
		r, end := io.Pipe()
		ends = append(ends, end)
		req := httptest.NewRequest("POST", "/mcp", r)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+slow)
		wg.Go(func() { w.mux.ServeHTTP(httptest.NewRecorder(), req) })
		_, err := end.Write([]byte("{")) // returns when it is read
		must(t, err)
	}
	if got := w.send(t, slow, message{body: ping}); got.status != http.StatusTooManyRequests || got.header.Get("Retry-After") == "" {
		t.Errorf("one more: got %d, Retry-After %q", got.status, got.header.Get("Retry-After"))
	}
	if got := w.send(t, other, message{body: ping}); got.status != http.StatusOK {
		t.Errorf("another agent: got %d", got.status)
	}
	for _, end := range ends {
		_ = end.Close()
	}
	wg.Wait()
	if got := w.send(t, slow, message{body: ping}); got.status != http.StatusOK {
		t.Errorf("with the bodies there: got %d", got.status)
	}
}

// current is a message of the stateless revision, complete.
func current(method, params string) message {
	m := `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}`
	if params != "" {
		m += "," + params
	}
	return message{
		header: http.Header{"Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Method": {method}},
		body:   `{"jsonrpc":"2.0","id":1,"method":"` + method + `","params":{` + m + `}}`,
	}
}

func (m message) with(key string, values ...string) message {
	h := m.header.Clone()
	if h == nil {
		h = http.Header{}
	}
	h[key] = values
	m.header = h
	return m
}

func (m message) without(text string) message {
	if !strings.Contains(m.body, text) {
		panic("the body has no " + text)
	}
	m.body = strings.Replace(m.body, text, "", 1)
	return m
}

// What the headers say and what the body says is one thing (S12), and a
// revision that is not served is refused, never served with less (S15).
func TestHeadersAgree(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldb.SQLite)
	token := w.agent(t, "builder").token
	whoami := current("tools/call", `"name":"whoami","arguments":{"a":"x y","n":7,"b":true,"o":{}}`).with("Mcp-Name", "whoami")
	legacy := message{body: `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"whoami"}}`}
	encoded := "=?base64?" + base64.StdEncoding.EncodeToString([]byte("whoami")) + "?="
	for name, test := range map[string]struct {
		m      message
		status int
		code   int
	}{
		"agree":                     {whoami, 200, 0},
		"list":                      {current("tools/list", ""), 200, 0},
		"encoded name":              {whoami.with("Mcp-Name", encoded), 200, 0},
		"broken encoding":           {whoami.with("Mcp-Name", "=?base64?d2hvYW1p!?="), 400, -32020},
		"no version header":         {whoami.with("Mcp-Protocol-Version"), 400, -32020},
		"older version header":      {whoami.with("Mcp-Protocol-Version", "2025-11-25"), 400, -32020},
		"two version headers":       {whoami.with("Mcp-Protocol-Version", "2026-07-28", "2025-11-25"), 400, -32020},
		"no version in the body":    {whoami.without(`"io.modelcontextprotocol/protocolVersion":"2026-07-28",`), 400, -32602},
		"version by case":           {message{whoami.method, whoami.header, strings.Replace(whoami.body, "protocolVersion", "ProtocolVersion", 1)}, 400, -32602},
		"no capabilities":           {whoami.without(`,"io.modelcontextprotocol/clientCapabilities":{}`), 400, -32602},
		"no method header":          {whoami.with("Mcp-Method"), 400, -32020},
		"other method header":       {whoami.with("Mcp-Method", "tools/list"), 400, -32020},
		"method header by case":     {whoami.with("Mcp-Method", "Tools/Call"), 400, -32020},
		"two method headers":        {whoami.with("Mcp-Method", "tools/call", "tools/call"), 400, -32020},
		"no name header":            {whoami.with("Mcp-Name"), 400, -32020},
		"other name header":         {whoami.with("Mcp-Name", "end_session"), 400, -32020},
		"name for a list":           {current("tools/list", "").with("Mcp-Name", "whoami"), 400, -32020},
		"parameter":                 {whoami.with("Mcp-Param-A", "x y"), 200, 0},
		"encoded parameter":         {whoami.with("Mcp-Param-A", "=?base64?eCB5?="), 200, 0},
		"number parameter":          {whoami.with("Mcp-Param-N", "7"), 200, 0},
		"truth parameter":           {whoami.with("Mcp-Param-B", "true"), 200, 0},
		"other parameter":           {whoami.with("Mcp-Param-A", "x"), 400, -32020},
		"unknown parameter":         {whoami.with("Mcp-Param-Z", ""), 400, -32020},
		"object parameter":          {whoami.with("Mcp-Param-O", "{}"), 400, -32020},
		"unknown version":           {whoami.with("Mcp-Protocol-Version", "2099-01-01"), 400, -32022},
		"version before batches":    {whoami.with("Mcp-Protocol-Version", "2025-03-26"), 400, -32022},
		"empty version":             {legacy.with("Mcp-Protocol-Version", ""), 400, -32022},
		"legacy without header":     {legacy, 200, 0},
		"legacy":                    {legacy.with("Mcp-Protocol-Version", "2025-11-25"), 200, 0},
		"legacy, one before":        {legacy.with("Mcp-Protocol-Version", "2025-06-18"), 200, 0},
		"legacy, agreeing method":   {legacy.with("Mcp-Method", "tools/call"), 200, 0},
		"legacy, other method":      {legacy.with("Mcp-Method", "ping"), 400, -32020},
		"legacy, other name":        {legacy.with("Mcp-Name", "x"), 400, -32020},
		"unknown method":            {current("tools/delete", ""), 404, -32601},
		"listening, older revision": {message{body: `{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{"notifications":{}}}`}, 200, -32601},
		"legacy, unknown method":    {message{body: `{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{"level":"debug"}}`}, 200, -32601},
		"ping is gone":              {current("ping", ""), 404, -32601},
		"unknown tool":              {current("tools/call", `"name":"nothing"`).with("Mcp-Name", "nothing"), 400, -32602},
		"legacy, unknown tool":      {message{body: `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"nothing"}}`}, 200, -32602},
		"call without a name":       {current("tools/call", ""), 400, -32602},
		"name is a number":          {current("tools/call", `"name":1`), 400, -32602},
		"arguments are a list":      {current("tools/call", `"name":"whoami","arguments":[]`).with("Mcp-Name", "whoami"), 400, -32602},
		"cursor that is not ours":   {current("tools/list", `"cursor":"AAAA"`), 400, -32602},
		"cursor that is no string":  {current("tools/list", `"cursor":7`), 400, -32602},
		"discover":                  {current("server/discover", ""), 200, 0},
		"discover, older revision":  {message{body: `{"jsonrpc":"2.0","id":1,"method":"server/discover"}`}, 200, -32601},
		"no resources":              {current("resources/list", ""), 404, -32601},
		"no prompts":                {current("prompts/list", ""), 404, -32601},
		"legacy, no resources":      {message{body: `{"jsonrpc":"2.0","id":1,"method":"resources/list"}`}, 200, 0},
		"no handshake":              {current("initialize", ""), 404, -32601},
		"resource that is not here": {message{body: `{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///etc/passwd"}}`}, 200, -32601},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w.send(t, token, test.m).want(t, test.status, test.code)
		})
	}
}

// Answers for a machine only: not cached, not sniffed, and in a stateless world
// without a session id.
func TestAnswerHeaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldb.SQLite)
	got := w.send(t, w.agent(t, "builder").token, current("tools/list", ""))
	for k, want := range map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Mcp-Session-Id": "", "Set-Cookie": ""} {
		if v := got.header.Get(k); v != want {
			t.Errorf("%s: got %q, want %q", k, v, want)
		}
	}
	if got.result["cacheScope"] != "private" || got.result["resultType"] != "complete" {
		t.Errorf("got cacheScope %v, resultType %v, want private, complete", got.result["cacheScope"], got.result["resultType"])
	}
}

// A body that fits in 1 MiB costs little, however it is built (W6).
func TestCostOfBodies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sqldb.SQLite)
	token := w.agent(t, "builder").token
	var names bytes.Buffer
	for i := 0; names.Len() < 1<<20-200; i++ {
		fmt.Fprintf(&names, `"%d":0,`, i)
	}
	for name, inner := range map[string]string{
		"names":    names.String() + `"z":0`,
		"brackets": `"a":` + strings.Repeat("[", 500_000) + strings.Repeat("]", 500_000),
		"commas":   `"a":[` + strings.Repeat("0,", 500_000) + `0]`,
		"escapes":  `"a":"` + strings.Repeat(`\u0041`, 170_000) + `"`,
	} {
		body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"whoami","arguments":{` + inner + `}}}`
		start := time.Now()
		got := w.send(t, token, message{body: body})
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
		if got.status == 500 {
			t.Errorf("%s: got 500", name)
		}
	}
}
