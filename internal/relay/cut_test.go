package relay_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/gateway/gatewaytest"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/relay"
)

// Fields that the record cuts do not pass in another form of the same answer: a
// range of it, XML, a form, events, an address that is open to whoever has it. A
// range of what echoes the credential does not show it either (U1), and a client
// gets no coding of messages by gRPC's headers.
func TestCutFieldsPassInNoForm(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	const hidden = "pi_3_hidden_XYZ"
	s.Serve("cutting", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := func(media, text string) {
			w.Header().Set("Content-Type", media)
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
		}
		switch path := strings.TrimPrefix(r.URL.Path, "/cutting"); {
		case path == "/me":
			answer("application/json", `{"id":"m1"}`)
		case path == "/intent" && strings.Contains(r.Header.Get("Accept"), "xml"), path == "/xml":
			answer("application/xml", "<intent><client_secret>"+hidden+"</client_secret></intent>")
		case path == "/intent":
			answer("application/json", `{"id":1,"client_secret":"`+hidden+`"}`)
		case path == "/form":
			answer("application/x-www-form-urlencoded", "client_secret="+hidden)
		case path == "/events":
			answer("text/event-stream", `data: {"client_secret":"`+hidden+"\"}\n\n")
		case path == "/content":
			w.Header().Set("Location", "https://files.example/?tempauth="+hidden)
			w.WriteHeader(http.StatusFound)
		case path == "/missing":
			w.Header().Set("Client_secret", hidden)
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, "no such thing as client_secret="+hidden)
		case path == "/picture":
			answer("image/png", "\x89PNG")
		}
	}))
	base := s.Sandbox.URL + "/cutting"
	s.Put(t, "id: cutting\nname: Cutting\nwebsite: "+base+"\nauth: api_key\ninject: {header: Authorization, format: \"Bearer {api_key}\"}\nidentity: {path: /me, id: id, label: id}\ncut: [client_secret]\napi: {base: [\""+base+`"]}
generic: {read: true, write: true}
tools:
  - {name: picture, title: Picture, description: Shows it., effect: read, input: {type: object, properties: {}}, request: {method: GET, path: /picture, headers: {Accept: "image/*"}}}
`)
	s.Connect(t, s.owner, "cutting", false)
	handle := s.Active(t, s.owner, s.bot, "cutting", policy.Read, policy.Write)
	noFollow := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer noFollow.CloseIdleConnections()
	for _, test := range []struct {
		method, path string
		header       []string
		status       int
		holds        string
	}{
		{"GET", "/intent", nil, 200, `{"id":1}`},
		{"GET", "/intent", []string{"Accept", "application/xml"}, 200, `{"id":1}`},
		{"GET", "/intent", []string{"Range", "bytes=24-40"}, 200, `{"id":1}`},
		{"GET", "/intent", []string{"X-Ms-Range", "bytes=24-40"}, 200, `{"id":1}`},
		{"GET", "/xml", nil, 502, `"answer_withheld"`},
		{"GET", "/form", nil, 502, `"answer_withheld"`},
		{"GET", "/events", []string{"Accept", "text/event-stream"}, 502, `"answer_withheld"`},
		{"POST", "/xml", nil, 502, `Do not repeat it`},
		{"GET", "/content", nil, 302, ""},
		{"GET", "/missing", nil, 404, `"answer_withheld"`},
		{"GET", "/picture", nil, 200, "\x89PNG"},
		{"GET", "/picture?size=1", nil, 502, `"answer_withheld"`},
		{"GET", "/intent", []string{"Connection", "Upgrade", "Upgrade", "websocket"}, 403, `"upgrade_refused"`},
	} {
		resp, err := noFollow.Do(s.request(t, test.method, "/relay/cutting"+test.path, nil, append([]string{relay.HeaderSession, handle}, test.header...)...))
		gatewaytest.Must(t, err)
		text, err := io.ReadAll(resp.Body)
		gatewaytest.Must(t, err)
		_ = resp.Body.Close()
		var all bytes.Buffer
		gatewaytest.Must(t, resp.Header.Write(&all))
		if resp.StatusCode != test.status || !strings.Contains(string(text), test.holds) || strings.Contains(all.String()+string(text), hidden) {
			t.Errorf("%s %s %v: %d %s %s", test.method, test.path, test.header, resp.StatusCode, all.String(), text)
		}
	}

	s.Serve("mirrored", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("X-Coding", r.Header.Get("Grpc-Accept-Encoding")+r.Header.Get("Connect-Accept-Encoding"))
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader("you sent: "+r.Header.Get("X-Api-Key")+"."))
	}))
	var shown string
	for _, part := range []string{"bytes=0-15", "bytes=16-20", "bytes=21-200"} {
		resp, text := s.do(t, "GET", "/relay/tracker/mirrored", "", "Range", part, "Grpc-Accept-Encoding", "gzip", "Connect-Accept-Encoding", "gzip")
		if shown += text; resp.StatusCode != 206 || resp.Header.Get("X-Coding") != "" {
			t.Errorf("%s: %d %v", part, resp.StatusCode, resp.Header)
		}
	}
	if want := "you sent: " + strings.Repeat("*", len(gatewaytest.SandboxKey)) + "."; shown != want {
		t.Errorf("the parts show %q", shown)
	}
	if resp, text := s.do(t, "GET", "/relay/tracker/mirrored", "", "Range", "bytes=0-15,16-200"); resp.StatusCode != 200 || strings.Contains(text, gatewaytest.SandboxKey[:8]) {
		t.Errorf("several parts: %d %s", resp.StatusCode, text)
	}
}
