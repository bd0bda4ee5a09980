package proxy_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// tool finds a program that ./check installs.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("AMBIT_REQUIRE_POSTGRES") != "" { // as under ./check
			t.Fatalf("%s is missing", name)
		}
		t.Skipf("%s is not installed", name)
	}
	return path
}

// another finds a program that ./check does not install.
func another(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

// foreign runs programs behind the proxy, as `ambit run` would.
type foreign struct {
	*world
	dir string
	ca  string
}

func newForeign(t *testing.T) *foreign {
	return foreignOf(t, newWorld(t, sqldbtest.Open(t, sqldb.SQLite), gateway.Egress{}))
}

func foreignOf(t *testing.T, w *world) *foreign {
	t.Helper()
	f := &foreign{world: w, dir: t.TempDir()}
	f.ca = filepath.Join(f.dir, "ca.pem")
	must(t, os.WriteFile(f.ca, w.trusted, 0o600))
	return f
}

// run gives what a program prints. The account's key must not be in it.
func (f *foreign) run(t *testing.T, dir string, program string, args ...string) string {
	t.Helper()
	out, err := f.command(t, dir, program, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(program), strings.Join(args, " "), err, out)
	}
	return out
}

func (f *foreign) command(t *testing.T, dir string, program string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + f.dir, "HTTPS_PROXY=" + f.url, "https_proxy=" + f.url, "NO_PROXY=", "no_proxy=", "CURL_CA_BUNDLE=" + f.ca, "GIT_SSL_CAINFO=" + f.ca,
		"SSL_CERT_FILE=" + f.ca, "REQUESTS_CA_BUNDLE=" + f.ca, "NODE_EXTRA_CA_CERTS=" + f.ca, "NODE_USE_ENV_PROXY=1", "NPM_CONFIG_CAFILE=" + f.ca, "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_NOSYSTEM=1"}
	out, err := cmd.CombinedOutput()
	if bytes.Contains(out, []byte(canary)) {
		t.Errorf("%s got the key: %s", filepath.Base(program), out)
	}
	return string(out), err
}

// Issue 7, "Foreign judges": real clients work through the proxy with a placeholder
// where their key would be, and none of them is ever shown the key.
func TestForeignClients(t *testing.T) {
	t.Parallel()
	f := newForeign(t)
	f.third2(t)
	echo := f.https("/echo?client=1")

	t.Run("curl", func(t *testing.T) {
		curl := tool(t, "curl")
		for flag, proto := range map[string]string{"--http1.1": "1.1", "--http2": "2"} {
			out := f.run(t, "", curl, "-sS", "-i", flag, "-H", "Authorization: Bearer ambit_placeholder", "-w", "\nspoke %{http_version}", "-d", `{"a":1}`, "-H", "Content-Type: application/json", echo)
			if !strings.Contains(out, `"method":"POST"`) || !strings.Contains(out, "spoke "+proto) || strings.Contains(out, "ambit_placeholder") {
				t.Errorf("%s: %s", flag, out)
			}
		}
		out := f.run(t, "", curl, "-sS", "-N", "--max-time", "20", "-r", "0-7", f.https("/events-few"))
		if out != "data: 0\n\ndata: 1\n\n" {
			t.Errorf("a stream of events: %q", out)
		}
	})

	t.Run("python", func(t *testing.T) {
		python := tool(t, "python3")
		out := f.run(t, "", python, "-c", `import sys, urllib.request
r = urllib.request.Request(sys.argv[1], headers={"Authorization": "Bearer ambit_placeholder"})
print(urllib.request.urlopen(r).read().decode())`, echo)
		if !strings.Contains(out, `"method":"GET"`) {
			t.Errorf("urllib: %s", out)
		}
		out = f.run(t, "", python, "-c", `import sys, requests
s = requests.Session()
print(s.post(sys.argv[1], json={"a": 1}, headers={"Authorization": "Bearer ambit_placeholder"}).text, s.get(sys.argv[1]).status_code)`, echo)
		if !strings.Contains(out, `"method":"POST"`) || !strings.HasSuffix(out, " 200\n") {
			t.Errorf("requests: %s", out)
		}
	})

	t.Run("node", func(t *testing.T) {
		node := os.Getenv("AMBIT_NODE")
		if node == "" {
			t.Skip("AMBIT_NODE names no Node that knows NODE_USE_ENV_PROXY")
		}
		out := f.run(t, "", node, "-e", `const u = process.argv[1];
(async () => {
  const r = await fetch(u, {method: "POST", body: "{\"a\":1}", headers: {authorization: "Bearer ambit_placeholder", "content-type": "application/json"}});
  console.log(r.status, await r.text());
  require("https").get(u, (s) => { s.resume(); console.log("https", s.statusCode); });
})();`, echo)
		if !strings.Contains(out, "200 {") || !strings.Contains(out, `"method":"POST"`) || !strings.Contains(out, "https 200") {
			t.Errorf("fetch and https: %s", out)
		}
		modules := os.Getenv("AMBIT_NODE_MODULES")
		if _, err := os.Stat(filepath.Join(modules, "undici")); modules == "" || err != nil {
			t.Skip("AMBIT_NODE_MODULES holds no undici")
		}
		out = f.run(t, "", node, "-e", `const {request, setGlobalDispatcher, EnvHttpProxyAgent} = require(process.argv[2] + "/undici");
setGlobalDispatcher(new EnvHttpProxyAgent());
(async () => {
  const r = await request(process.argv[1], {method: "PUT", body: "{}", headers: {authorization: "Bearer ambit_placeholder", "content-type": "application/json"}});
  console.log(r.statusCode, await r.body.text());
})();`, echo, modules)
		if !strings.Contains(out, "200 {") || !strings.Contains(out, `"method":"PUT"`) {
			t.Errorf("undici: %s", out)
		}
	})

	t.Run("git", func(t *testing.T) {
		git := tool(t, "git")
		bare, work := filepath.Join(f.dir, "git", "acme", "site.git"), filepath.Join(f.dir, "work")
		host := "https://" + f.repos
		must(t, os.MkdirAll(filepath.Dir(bare), 0o700))
		f.run(t, "", git, "init", "-q", "--bare", "-b", "main", bare)
		f.run(t, "", git, "-C", bare, "config", "http.receivepack", "true")
		f.run(t, "", git, "clone", "-q", host+"/acme/site.git", work)
		f.run(t, work, git, "config", "user.name", "a")
		f.run(t, work, git, "config", "user.email", "a@example.com")
		must(t, os.WriteFile(filepath.Join(work, "README"), bytes.Repeat([]byte("hello\n"), 10_000), 0o600))
		pushed := func(effect string, args ...string) {
			t.Helper()
			f.run(t, work, git, append([]string{"push", "-q", "origin"}, args...)...)
			if e := f.last(t); e.Effect != effect || e.Session != f.live.Session() || e.Detail["host"] != f.repos {
				t.Errorf("push %v is on record as %q at %q", args, e.Effect, e.Detail["host"])
			}
		}
		f.run(t, work, git, "add", ".")
		f.run(t, work, git, "commit", "-q", "-m", "one")
		pushed("write", "HEAD:main")
		f.run(t, work, git, "commit", "-q", "--amend", "-m", "two")
		pushed("destructive", "--force", "HEAD:main")
		again := filepath.Join(f.dir, "again")
		f.run(t, "", git, "clone", "-q", "https://me:ambit_placeholder@"+f.repos+"/acme/site", again)
		if e := f.last(t); e.Effect != "read" || e.Tool != "up_read" {
			t.Errorf("the clone is on record as %q of %q", e.Effect, e.Tool)
		}
		if doc, err := os.ReadFile(filepath.Join(again, "README")); err != nil || len(doc) != 60_000 {
			t.Errorf("the clone has %d bytes, %v", len(doc), err)
		}
		r := f.Ask(t, f.who, "up", policy.Read)
		f.Approve(t, f.owner, r.Session.Approval, func(d *session.Decision) { d.Confirm = policy.ConfirmNone })
		live, err := f.Sessions.Live(t.Context(), f.who, r.Handle)
		must(t, err)
		reader := *f
		reader.url = "http://session:" + f.bind(t, live) + "@" + f.address
		reader.run(t, again, git, "fetch", "-q", "origin")
		if out, err := reader.command(t, again, git, "push", "origin", "HEAD:refs/heads/other"); err == nil || !strings.Contains(out, "403") {
			t.Errorf("a push in a session that reads: %v\n%s", err, out)
		}
		if resp, text := get(t, f.client(t, false), "GET", host+"/acme/site", ""); resp.StatusCode != 403 || resp.Header.Get("X-Ambit-Code") != "not_granted" || !strings.Contains(text, "git") {
			t.Errorf("a page of the host of the repositories: %s %s", resp.Status, text)
		}
	})

	t.Run("npm", func(t *testing.T) {
		npm := tool(t, "npm")
		project := filepath.Join(f.dir, "project")
		must(t, os.MkdirAll(project, 0o700))
		must(t, os.WriteFile(filepath.Join(project, "package.json"), []byte(`{"name":"p","version":"1.0.0"}`), 0o600))
		must(t, os.WriteFile(filepath.Join(project, ".npmrc"), []byte("registry="+f.https("/npm/")+"\n//"+f.place+"/npm/:_authToken=ambit_placeholder\nalways-auth=true\n"), 0o600))
		f.run(t, project, npm, "install", "--no-audit", "--no-fund", "--loglevel", "error", "left")
		if doc, err := os.ReadFile(filepath.Join(project, "node_modules", "left", "index.js")); err != nil || string(doc) != "module.exports = 1\n" {
			t.Errorf("installed %q, %v", doc, err)
		}
	})

	t.Run("pip", func(t *testing.T) {
		python := tool(t, "python3")
		if _, err := f.command(t, "", python, "-m", "pip", "--version"); err != nil {
			t.Skip("pip is not installed")
		}
		for i, index := range []string{f.https("/simple/"), strings.Replace(f.https("/simple/"), "https://", "https://__token__:ambit_placeholder@", 1)} {
			into := filepath.Join(f.dir, fmt.Sprint("site", i))
			f.run(t, "", python, "-m", "pip", "install", "-q", "--no-cache-dir", "--disable-pip-version-check", "--no-deps", "--target", into, "--index-url", index, "left")
			if doc, err := os.ReadFile(filepath.Join(into, "left.py")); err != nil || string(doc) != "right = False\n" {
				t.Errorf("installed %q, %v", doc, err)
			}
		}
	})

	t.Run("kubectl", func(t *testing.T) {
		kubectl := another(t, "kubectl")
		config := filepath.Join(f.dir, "kubeconfig")
		must(t, os.WriteFile(config, fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],
"clusters":[{"name":"c","cluster":{"server":"https://%s","certificate-authority":"%s","proxy-url":"%s"}}],"users":[{"name":"u","user":{"token":"ambit_placeholder"}}]}`, f.place, f.ca, f.url), 0o600)) // Go's clients take no proxy from the environment for localhost
		if out := f.run(t, "", kubectl, "--kubeconfig", config, "get", "--raw", "/echo"); !strings.Contains(out, `"method":"GET"`) {
			t.Errorf("kubectl: %s", out)
		}
		f.run(t, "", kubectl, "--kubeconfig", config, "get", "configmaps", "-n", "default", "-o", "name")
		if e := f.last(t); e.Effect != "read" || e.Provider != "up" {
			t.Errorf("kubectl get is on record as %q of %q", e.Effect, e.Provider)
		}
	})

	t.Run("gcloud", func(t *testing.T) {
		gcloud := another(t, "gcloud")
		token := filepath.Join(f.dir, "access-token")
		must(t, os.WriteFile(token, []byte("ambit_placeholder"), 0o600))
		out := f.run(t, "", "/usr/bin/env", "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE="+f.ca, "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE="+token, "CLOUDSDK_CORE_DISABLE_PROMPTS=1",
			"CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDRESOURCEMANAGER="+f.https("/"), gcloud, "projects", "list", "--format=value(projectId)")
		if !strings.Contains(out, "acme-site") {
			t.Errorf("gcloud: %s", out)
		}
	})

	t.Run("grpc", func(t *testing.T) {
		pool := f.clientTLS()
		conn, err := grpc.NewClient("passthrough:///"+f.place, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool.RootCAs})),
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
				c, status := f.connectTo(t, f.place, "Bearer "+f.token)
				_ = c.SetDeadline(time.Time{})
				if status != "200" {
					return nil, fmt.Errorf("the proxy says %s", status)
				}
				return c, nil
			}))
		must(t, err)
		defer conn.Close()
		c := grpc_health_v1.NewHealthClient(conn)
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer ambit_placeholder"), time.Minute)
		defer cancel()
		var head, trail metadata.MD
		got, err := c.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "up"}, grpc.Header(&head), grpc.Trailer(&trail))
		if err != nil || got.Status != grpc_health_v1.HealthCheckResponse_SERVING || len(head.Get("x-seen")) != 1 || len(trail.Get("x-after")) != 1 {
			t.Fatalf("a call: %v, %v, %v, %v", got, err, head, trail)
		}
		if strings.Contains(fmt.Sprint(head, trail), canary) {
			t.Errorf("the key came back: %v %v", head, trail)
		}
		if _, err := c.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "nobody"}); status.Code(err) != codes.NotFound {
			t.Errorf("an error in the trailer: %v", err)
		}
		stream, err := c.Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: "up"})
		must(t, err)
		if got, err := stream.Recv(); err != nil || got.Status != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Fatalf("a stream: %v, %v", got, err)
		}
		f.revoke(t) // the last of these tests
		if _, err := stream.Recv(); err == nil {
			t.Error("the stream goes on after the revoke")
		}
		if _, err := c.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "up"}); err == nil {
			t.Error("a call after the revoke")
		}
	})
}

// third2 gives the third party a git server, a registry and a gRPC service.
func (f *foreign) third2(t *testing.T) {
	backend := filepath.Join(strings.TrimSpace(f.run(t, "", tool(t, "git"), "--exec-path")), "git-http-backend")
	server := &cgi.Handler{Path: backend, Env: []string{"GIT_PROJECT_ROOT=" + filepath.Join(f.dir, "git"), "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=up"}, Stderr: &bytes.Buffer{}}
	f.code.HandleFunc("/acme/{repo}/", func(w http.ResponseWriter, r *http.Request) { // with or without .git, as the great hosts
		r.URL.Path = "/acme/" + strings.TrimSuffix(r.PathValue("repo"), ".git") + ".git" + strings.TrimPrefix(r.URL.Path, "/acme/"+r.PathValue("repo"))
		server.ServeHTTP(w, r)
	})
	f.mux.HandleFunc("GET /events-few", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 2 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
		}
	})

	var archive bytes.Buffer
	z := gzip.NewWriter(&archive)
	files := tar.NewWriter(z)
	for name, text := range map[string]string{"package/package.json": `{"name":"left","version":"1.0.0"}`, "package/index.js": "module.exports = 1\n"} {
		must(t, files.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}))
		_, err := files.Write([]byte(text))
		must(t, err)
	}
	must(t, files.Close())
	must(t, z.Close())
	sum := sha512.Sum512(archive.Bytes())
	f.mux.HandleFunc("GET /npm/left", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"name": "left", "dist-tags": map[string]string{"latest": "1.0.0"}, "versions": map[string]any{"1.0.0": map[string]any{"name": "left", "version": "1.0.0",
			"dist": map[string]string{"tarball": f.https("/npm/left/-/left-1.0.0.tgz"), "integrity": "sha512-" + base64.StdEncoding.EncodeToString(sum[:])}}}})
	})
	f.mux.HandleFunc("GET /npm/left/-/left-1.0.0.tgz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(archive.Bytes())
	})

	var wheel bytes.Buffer
	zipped := zip.NewWriter(&wheel)
	for name, text := range map[string]string{"left.py": "right = False\n", "left-1.0.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: left\nVersion: 1.0.0\n",
		"left-1.0.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n", "left-1.0.0.dist-info/RECORD": ""} {
		part, err := zipped.Create(name)
		must(t, err)
		_, err = part.Write([]byte(text))
		must(t, err)
	}
	must(t, zipped.Close())
	f.mux.HandleFunc("GET /simple/left/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, `<!DOCTYPE html><html><body><a href="/files/left-1.0.0-py3-none-any.whl">left-1.0.0-py3-none-any.whl</a></body></html>`)
	})
	f.mux.HandleFunc("GET /files/left-1.0.0-py3-none-any.whl", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(wheel.Bytes()) })
	answers := func(pattern, text string) {
		f.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("X-Seen", r.Header.Get("Authorization"))
			fmt.Fprint(w, text)
		})
	}
	answers("GET /api", `{"kind":"APIVersions","versions":["v1"],"serverAddressByClientCIDRs":[]}`)
	answers("GET /apis", `{"kind":"APIGroupList","apiVersion":"v1","groups":[]}`)
	answers("GET /api/v1", `{"kind":"APIResourceList","groupVersion":"v1","resources":[{"name":"configmaps","singularName":"configmap","namespaced":true,"kind":"ConfigMap","verbs":["get","list"]}]}`)
	answers("GET /api/v1/namespaces/default/configmaps", `{"kind":"ConfigMapList","apiVersion":"v1","metadata":{},"items":[{"metadata":{"name":"one","namespace":"default","annotations":{"said":"`+canary+`"}}}]}`)
	answers("GET /v1/projects", `{"projects":[{"projectId":"acme-site","name":"`+canary+`","lifecycleState":"ACTIVE"}]}`)

	checks := health.NewServer()
	checks.SetServingStatus("up", grpc_health_v1.HealthCheckResponse_SERVING)
	service := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		_ = grpc.SetHeader(ctx, metadata.Pairs("x-seen", strings.Join(md.Get("authorization"), " ")))
		_ = grpc.SetTrailer(ctx, metadata.Pairs("x-after", "the key is "+canary))
		return next(ctx, req)
	}))
	grpc_health_v1.RegisterHealthServer(service, checks)
	t.Cleanup(service.Stop)
	f.mux.Handle("/grpc.health.v1.Health/", service)
}
