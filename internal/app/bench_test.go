//go:build unix

package app_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/account/accounttest"
	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/credential"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// BenchmarkServer is what one request costs the process, over real sockets: a
// bare handler of net/http for comparison, a trivial tool (whoami), and a
// brokered call with the third party that answers it. The client sends bytes
// that were made before and reads the answer without decoding it. cpu-us/op is
// the processor time of everything in the process, which other work on the
// machine disturbs less than the time on the clock.
func BenchmarkServer(b *testing.B) {
	b.Run("bare", func(b *testing.B) {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":{}}`)
		}))
		defer srv.Close()
		c := caller{address: srv.Listener.Addr().String(), requests: [][]byte{[]byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")}}
		c.measure(b, 1)
	})
	for _, engine := range []sqldb.Engine{sqldb.SQLite, sqldb.PostgreSQL} {
		b.Run(engine.String(), func(b *testing.B) {
			w := newServed(b, engine)
			b.Run("whoami", func(b *testing.B) { w.caller("whoami", map[string]any{}).measure(b, 1) })
			for _, n := range []int{1, 16} {
				b.Run(fmt.Sprintf("call-%d", n), func(b *testing.B) {
					w.caller("stub_list", map[string]any{"session": w.handle}).measure(b, n)
				})
			}
		})
	}
}

// caller sends requests in turn, again and again.
type caller struct {
	address  string
	requests [][]byte
	commits  func() uint64 // of the server's database so far; nil: they do not matter
}

// measure sends b.N requests over n connections.
func (c caller) measure(b *testing.B, n int) {
	conns := make([]*wire, n)
	for i := range conns {
		conn, err := net.Dial("tcp", c.address)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		conns[i] = &wire{conn: conn, in: bufio.NewReader(conn)}
		for range 20 { // what is kept is kept from here on
			conns[i].send(b, c.requests[0])
		}
	}
	work := make(chan []byte, n)
	b.ReportAllocs()
	var committed uint64
	if c.commits != nil {
		committed = c.commits()
	}
	before := cpuTime()
	b.ResetTimer()
	done := make(chan struct{})
	for _, w := range conns {
		go func() {
			defer func() { done <- struct{}{} }()
			for request := range work {
				w.send(b, request)
			}
		}()
	}
	for i := range b.N {
		work <- c.requests[i%len(c.requests)]
	}
	close(work)
	for range conns {
		<-done
	}
	b.StopTimer()
	if c.commits != nil {
		b.ReportMetric(float64(c.commits()-committed)/float64(b.N), "commits/op")
	}
	b.ReportMetric(float64((cpuTime()-before).Microseconds())/float64(b.N), "cpu-us/op")
}

// wire is one connection of a client.
type wire struct {
	conn net.Conn
	in   *bufio.Reader
	body []byte
}

// send makes one exchange. Anything but a success ends the benchmark: a refusal
// is quicker than the work.
func (w *wire) send(b *testing.B, request []byte) {
	if _, err := w.conn.Write(request); err != nil {
		b.Error(err)
		return
	}
	status, err := w.in.ReadSlice('\n')
	ok := bytes.HasPrefix(status, []byte("HTTP/1.1 20"))
	length := 0
	for err == nil {
		var line []byte
		if line, err = w.in.ReadSlice('\n'); len(line) <= 2 {
			break
		}
		if value, is := bytes.CutPrefix(line, []byte("Content-Length: ")); is {
			length, _ = strconv.Atoi(string(bytes.TrimSpace(value)))
		}
	}
	if cap(w.body) < length {
		w.body = make([]byte, length)
	}
	w.body = w.body[:length]
	if err == nil {
		_, err = io.ReadFull(w.in, w.body)
	}
	if err != nil || !ok || bytes.Contains(w.body, []byte(`"isError":true`)) {
		b.Errorf("%v: %s", err, w.body)
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// served is a server with an agent that has a session.
type served struct {
	app           *app.App
	token, handle string
}

const stubRecord = `id: stub
name: Stub
website: %[1]s
auth: api_key
identity: {path: /me, id: id, label: email}
api: {base: [%[1]q]}
inject: {header: X-Api-Key, format: "{api_key}"}
tools:
  - name: list
    title: List items
    description: Lists the items.
    effect: read
    input: {type: object, properties: {}}
    request: {method: GET, path: /items}
`

func newServed(b *testing.B, engine sqldb.Engine) *served {
	b.Helper()
	items := []byte(`{"items":["` + strings.Repeat("0123456789", 100) + `"]}`)
	stub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/me" {
			_, _ = io.WriteString(w, `{"id":"1","email":"stub@bench.example"}`)
			return
		}
		_, _ = w.Write(items)
	}))
	b.Cleanup(stub.Close)
	cfg := app.Config{OutboundAllow: []string{stub.Listener.Addr().String()}, CallRate: 1e6}
	if engine == sqldb.PostgreSQL {
		own := sqldbtest.Migrated(b, engine)
		cfg.DatabaseURL = own.URL + "&search_path=" + own.Schema
	}
	a := run(b, cfg)
	s := &served{app: a}
	ctx, system := context.WithoutCancel(b.Context()), account.System("test")
	env, err := a.People.CreateEnvironment(ctx, system, "production", account.Agreement{})
	must(b, err)
	p := accounttest.Join(b, a.People, env.ID, env.Operator, account.RoleApprover, "mia@example.com")
	_, err = a.Providers.Put(ctx, system.In(env.ID), provider.Input{YAML: fmt.Appendf(nil, stubRecord, stub.URL)}, account.Agreement{})
	must(b, err)
	_, err = a.Credentials.AddKey(ctx, account.ByPerson(p.Person).In(env.ID), credential.Start{Environment: env.ID, Organization: env.Operator, Provider: "stub"},
		p.User(), map[string]secret.Value{provider.FieldAPIKey: secret.FromString("stub-key-0123456789abcdef")}, account.Agreement{})
	must(b, err)
	_, client, key, err := a.Agents.Register(ctx, system.In(env.ID), agent.NewAgent{Environment: env.ID, Organization: env.Operator, Name: "Bot", Kind: agent.Delegated, Owner: p.User()})
	must(b, err)
	by, err := a.Agents.AuthenticateClient(ctx, agent.ClientAuth{ID: string(client), Secret: key})
	must(b, err)
	tokens, err := a.Agents.ClientCredentials(ctx, by, "")
	must(b, err)
	s.token = string(tokens.Access.Reveal())
	who, err := a.Agents.Authenticate(ctx, tokens.Access)
	must(b, err)
	asked, err := a.Sessions.Request(ctx, who, session.Ask{Providers: []string{"stub"}, Purpose: "Measure."}, "127.0.0.1")
	must(b, err)
	s.handle = asked.Handle
	waiting, err := a.Sessions.Approval(ctx, p.Person, asked.Session.Approval)
	must(b, err)
	d := a.Sessions.DefaultDecision(waiting)
	digest, err := a.Sessions.Digest(ctx, p.Person, asked.Session.Approval, d)
	must(b, err)
	_, err = a.Sessions.Approve(ctx, p.Person, asked.Session.Approval, d, p.Proof(b, digest))
	must(b, err)
	return s
}

// caller makes the request of a call of tool, in the stateless revision.
func (s *served) caller(tool string, args map[string]any) caller {
	body, _ := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": map[string]any{
		"name": tool, "arguments": args, "_meta": map[string]any{
			"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": map[string]any{},
			"io.modelcontextprotocol/clientInfo": map[string]any{"name": "bench", "version": "1"},
		},
	}})
	return caller{address: s.app.Addresses()[0], requests: [][]byte{fmt.Appendf(nil, "POST /mcp HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nContent-Length: %d\r\nContent-Type: application/json\r\n"+
		"Accept: application/json, text/event-stream\r\nAuthorization: Bearer %s\r\nMcp-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: %s\r\nAccept-Encoding: gzip\r\n\r\n%s",
		s.app.PublicURL().Host, len(body), s.token, tool, body)}}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
