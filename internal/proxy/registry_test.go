package proxy_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/ambit-dev/ambit/internal/audit"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/sqldb/sqldbtest"
)

// registry is a registry of container images with token authentication: its API, its
// realm, and the store that its layers are downloaded from are three hosts.
type registry struct {
	api, realm, store string // host:port

	mu     sync.Mutex
	asked  []string // the scopes of tokens
	tokens map[string]string
	blobs  map[string][]byte // by repository and digest
	tags   map[string][]byte // manifests, by repository and reference
	kinds  map[string]string
	leaks  []string // what the store was sent
}

const layerKey = "presigned-0f3a6d"

func (g *registry) start(t *testing.T, w *world) []string {
	t.Helper()
	g.tokens, g.blobs, g.tags, g.kinds = map[string]string{}, map[string][]byte{}, map[string][]byte{}, map[string]string{}
	g.api, g.realm, g.store = w.secure(t, g.serveAPI), w.secure(t, g.serveRealm), w.secure(t, g.serveStore)
	return []string{g.api, g.realm, g.store}
}

func (g *registry) serveRealm(w http.ResponseWriter, r *http.Request) {
	if user, pass, _ := r.BasicAuth(); user != "robot" || pass != canary {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if r.URL.Query().Get("service") != "registry.test" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	scope := strings.Join(r.URL.Query()["scope"], " ")
	if strings.Contains(scope, "private/") {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	g.asked = append(g.asked, scope)
	token := fmt.Sprintf("eyJhbGciOiJub25lIn0.registry-token-%04d.c2lnbmF0dXJl", len(g.asked))
	g.tokens[token] = scope
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": 60})
}

func (g *registry) serveStore(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.Header.Get("Authorization") != "" || r.Method != http.MethodGet {
		g.leaks = append(g.leaks, r.Method+" "+r.Header.Get("Authorization"))
	}
	if r.URL.Query().Get("key") != layerKey {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	_, _ = w.Write(g.blobs[strings.TrimPrefix(r.URL.Path, "/")])
}

var registryPath = regexp.MustCompile(`^/v2/(.+)/(manifests|blobs|tags)/(uploads/[^/]*|[^/]+)$`)

func (g *registry) serveAPI(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	scope, known := g.tokens[token]
	w.Header().Set("X-Seen", token)
	part := registryPath.FindStringSubmatch(r.URL.Path)
	need := ""
	if part != nil {
		need = "repository:" + part[1] + ":" + map[string]string{"GET": "pull", "HEAD": "pull", "DELETE": "delete"}[r.Method]
		if strings.HasSuffix(need, ":") {
			need += "pull,push"
		}
	}
	if !known || need != "" && !strings.Contains(" "+scope+" ", " "+need+" ") {
		w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="https://%s/token",service="registry.test",scope="%s"`, g.realm, need))
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
		return
	}
	if part == nil {
		if r.URL.Path != "/v2/" {
			w.WriteHeader(http.StatusNotFound)
		}
		return
	}
	repo, kind, ref := part[1], part[2], part[3]
	body, _ := io.ReadAll(r.Body)
	digest := func(b []byte) string { sum := sha256.Sum256(b); return "sha256:" + hex.EncodeToString(sum[:]) }
	switch {
	case kind == "blobs" && r.Method == "POST":
		if from := r.URL.Query().Get("from"); from != "" && strings.Contains(scope, "repository:"+from+":pull") {
			if have, ok := g.blobs[from+"/"+r.URL.Query().Get("mount")]; ok {
				g.blobs[repo+"/"+r.URL.Query().Get("mount")] = have
				w.WriteHeader(http.StatusCreated)
				return
			}
		}
		g.blobs[repo+"/upload"] = nil
		w.Header().Set("Location", "/v2/"+repo+"/blobs/uploads/1")
		w.WriteHeader(http.StatusAccepted)
	case kind == "blobs" && r.Method == "PATCH":
		g.blobs[repo+"/upload"] = append(g.blobs[repo+"/upload"], body...)
		w.Header().Set("Location", "/v2/"+repo+"/blobs/uploads/1")
		w.Header().Set("Range", fmt.Sprintf("0-%d", len(g.blobs[repo+"/upload"])-1))
		w.WriteHeader(http.StatusAccepted)
	case kind == "blobs" && r.Method == "PUT":
		whole := append(g.blobs[repo+"/upload"], body...)
		if digest(whole) != r.URL.Query().Get("digest") {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		g.blobs[repo+"/"+digest(whole)] = whole
		w.WriteHeader(http.StatusCreated)
	case kind == "blobs":
		have, ok := g.blobs[repo+"/"+ref]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		if r.Method == "HEAD" {
			w.Header().Set("Content-Length", fmt.Sprint(len(have)))
			return
		}
		http.Redirect(w, r, "https://"+g.store+"/"+repo+"/"+ref+"?key="+layerKey, http.StatusTemporaryRedirect)
	case kind == "manifests" && r.Method == "PUT":
		for _, name := range []string{ref, digest(body)} {
			g.tags[repo+"/"+name], g.kinds[repo+"/"+name] = body, r.Header.Get("Content-Type")
		}
		w.Header().Set("Docker-Content-Digest", digest(body))
		w.WriteHeader(http.StatusCreated)
	case kind == "manifests" && r.Method == "DELETE":
		delete(g.tags, repo+"/"+ref)
		w.WriteHeader(http.StatusAccepted)
	case kind == "manifests":
		have, ok := g.tags[repo+"/"+ref]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", g.kinds[repo+"/"+ref])
		w.Header().Set("Docker-Content-Digest", digest(have))
		_, _ = w.Write(have)
	default:
		_ = json.NewEncoder(w).Encode(map[string]any{"name": repo, "tags": []string{"latest"}})
	}
}

// images is a session with an account at the registry.
func (w *world) images(t *testing.T, effects ...policy.Effect) {
	t.Helper()
	r := w.Ask(t, w.who, "images", effects...)
	w.Approve(t, w.owner, r.Session.Approval, func(d *session.Decision) { d.Confirm = policy.ConfirmNone })
	live, err := w.Sessions.Live(t.Context(), w.who, r.Handle)
	must(t, err)
	w.live, w.handle, w.url = live, r.Handle, "http://session:"+w.bind(t, live)+"@"+w.address
}

// Issue 7, "Docker registries with their token realm on another host" (threats.md U1,
// U4): the password goes to the realm only, a token for exactly one request to the
// registry only, and neither to the store of the layers or to the client, whichever of
// the two ways of signing in it knows.
func TestRegistry(t *testing.T) {
	t.Parallel()
	g := &registry{}
	w := newWorldWith(t, sqldbtest.Open(t, sqldb.SQLite), gateway.Egress{}, func(w *world) []string { return g.start(t, w) })
	w.Put(t, fmt.Sprintf(`id: images
name: Images
auth: api_key
inject:
  basic: {username: robot, password: "{api_key}"}
  realm: {url: "https://%s/token", service: registry.test}
health: {path: /}
api: {base: ["https://%s/v2"], open: ["https://%s"]}
generic: {read: true, write: true, destructive: true}
`, g.realm, g.api, g.store))
	w.Connect(t, w.owner, "images", false)
	w.images(t, policy.Read, policy.Write, policy.Destructive)
	f := foreignOf(t, w)

	t.Run("skopeo", func(t *testing.T) {
		skopeo := tool(t, "skopeo")
		if strings.HasPrefix(g.api, "127.") {
			t.Skip("this machine has no address but loopback, for which skopeo takes no proxy")
		}
		from, back := filepath.Join(f.dir, "image"), filepath.Join(f.dir, "back")
		layout(t, from)
		image := "docker://" + g.api + "/acme/app:latest"
		f.run(t, "", skopeo, "--insecure-policy", "copy", "--dest-creds", "robot:ambit_placeholder", "oci:"+from+":latest", image)
		if e := w.last(t); e.Effect != "write" || e.Provider != "images" || e.Tool != "images_write" {
			t.Errorf("the push is on record as %q of %q", e.Effect, e.Tool)
		}
		f.run(t, "", skopeo, "--insecure-policy", "copy", image, "oci:"+back+":latest")
		if out := f.run(t, "", skopeo, "inspect", image); !strings.Contains(out, `"latest"`) {
			t.Errorf("inspect: %s", out)
		}
		f.run(t, "", skopeo, "--insecure-policy", "copy", image, "docker://"+g.api+"/acme/other:latest")
		f.run(t, "", skopeo, "delete", image)
		if e := w.last(t); e.Effect != "destructive" {
			t.Errorf("the delete is on record as %q", e.Effect)
		}
		w.images(t, policy.Read)
		reader := &foreign{world: w, dir: f.dir, ca: f.ca}
		if out, err := reader.command(t, "", skopeo, "--insecure-policy", "copy", "oci:"+from+":latest", image); err == nil {
			t.Errorf("a push in a session that reads: %s", out)
		}
		w.images(t, policy.Read, policy.Write, policy.Destructive)
	})

	c := w.client(t, false)
	at := func(path string) string { return "https://" + g.api + path }
	t.Run("scopes", func(t *testing.T) {
		g.mu.Lock()
		g.blobs["acme/app/sha256:00"], g.tags["acme/app/latest"] = []byte("a layer"), []byte(`{}`)
		g.mu.Unlock()
		for _, r := range []struct {
			method, path, scope string
			status              int
		}{
			{"GET", "/v2/", "", 200},
			{"GET", "/v2/acme/app/manifests/latest", "repository:acme/app:pull", 200},
			{"HEAD", "/v2/acme/app/blobs/sha256:00", "repository:acme/app:pull", 200},
			{"GET", "/v2/acme/app/tags/list", "repository:acme/app:pull", 200},
			{"POST", "/v2/acme/new/blobs/uploads/?mount=sha256:00&from=acme/app", "repository:acme/new:pull,push repository:acme/app:pull", 201},
			{"DELETE", "/v2/acme/app/manifests/latest", "repository:acme/app:delete", 202},
			{"GET", "/v2/_catalog", "registry:catalog:*", 404},
			{"GET", "/v2/Acme%20pull,push/manifests/latest", "", 401},
		} {
			resp, text := get(t, c, r.method, at(r.path), "")
			g.mu.Lock()
			asked := g.asked[len(g.asked)-1]
			g.mu.Unlock()
			if resp.StatusCode != r.status || asked != r.scope || strings.Contains(fmt.Sprint(resp.Header, text), "registry-token") {
				t.Errorf("%s %s: %d, asked for %q, %v %s", r.method, r.path, resp.StatusCode, asked, resp.Header, text)
			}
		}
	})

	t.Run("realm", func(t *testing.T) { // of a client that signs in itself
		g.mu.Lock()
		before := len(g.asked)
		g.mu.Unlock()
		resp, text := get(t, c, "GET", "https://"+g.realm+"/token?service=registry.test&scope=repository:acme/app:pull,push", "")
		if resp.StatusCode != 200 || !strings.Contains(text, `"token":"ambit_placeholder"`) || len(g.asked) != before {
			t.Errorf("%d %s", resp.StatusCode, text)
		}
		if page, err := w.Audit.List(t.Context(), audit.Filter{Environment: w.Environment, Actions: []string{"token.stand_in"}, Limit: 2}); err != nil || len(page.Records) != 1 || page.Records[0].Provider != "images" || page.Records[0].Session != w.live.Session() {
			t.Errorf("on record are %+v, %v", page.Records, err)
		}
		if resp, _ := get(t, c, "GET", "https://"+g.realm+"/users", ""); resp.StatusCode != 403 || resp.Header.Get("X-Ambit-Code") != "destination_denied" {
			t.Errorf("another path of the realm: %s", resp.Status)
		}
		req, err := http.NewRequestWithContext(t.Context(), "GET", at("/v2/acme/app/tags/list"), nil)
		must(t, err)
		req.Header.Set("Authorization", "Bearer ambit_placeholder")
		answer, err := c.Do(req)
		must(t, err)
		_ = answer.Body.Close()
		if answer.StatusCode != 200 {
			t.Errorf("with the realm's answer: %s", answer.Status)
		}
	})

	t.Run("refused", func(t *testing.T) {
		if resp, _ := get(t, c, "GET", at("/v2/private/app/manifests/latest"), ""); resp.StatusCode != 502 || resp.Header.Get("X-Ambit-Code") != "upstream_error" {
			t.Errorf("no token for a repository: %s %s", resp.Status, resp.Header.Get("X-Ambit-Code"))
		}
		resp, _ := get(t, c, "GET", at("/v2/acme/app/blobs/sha256:00"), "")
		place := resp.Header.Get("Location")
		if resp.StatusCode != 307 || !strings.HasPrefix(place, "https://"+g.store+"/") {
			t.Fatalf("a layer: %s %q", resp.Status, place)
		}
		if _, text := get(t, c, "GET", place, ""); text != "a layer" {
			t.Errorf("the layer is %q", text)
		}
		for _, method := range []string{"PUT", "DELETE"} {
			if resp, _ := get(t, c, method, place, ""); resp.StatusCode != 403 || resp.Header.Get("X-Ambit-Code") != "not_granted" {
				t.Errorf("%s at the store: %s", method, resp.Status)
			}
		}
		if len(g.leaks) > 0 {
			t.Errorf("the store was sent %q", g.leaks)
		}
		if res, err := w.Call(t, w.who, w.handle, "images_read", map[string]any{"path": "/acme/app/tags/list"}); err != nil || !strings.Contains(string(res.Answer.Body), "latest") {
			t.Errorf("a tool: %v", err)
		}
	})
}

// layout writes an image of one layer as files (OCI image layout).
func layout(t *testing.T, dir string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o700))
	blob := func(kind string, text []byte) map[string]any {
		sum := sha256.Sum256(text)
		name := hex.EncodeToString(sum[:])
		must(t, os.WriteFile(filepath.Join(dir, "blobs", "sha256", name), text, 0o600))
		return map[string]any{"mediaType": kind, "digest": "sha256:" + name, "size": len(text)}
	}
	doc := func(v any) []byte { text, err := json.Marshal(v); must(t, err); return text }
	layer := blob("application/vnd.oci.image.layer.v1.tar", make([]byte, 3<<20)) // an empty archive, of more than is read to decide
	config := blob("application/vnd.oci.image.config.v1+json", doc(map[string]any{"architecture": "amd64", "os": "linux", "config": map[string]any{}, "rootfs": map[string]any{"type": "layers", "diff_ids": []any{layer["digest"]}}}))
	manifest := blob("application/vnd.oci.image.manifest.v1+json", doc(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": []any{layer}}))
	manifest["annotations"] = map[string]any{"org.opencontainers.image.ref.name": "latest"}
	must(t, os.WriteFile(filepath.Join(dir, "index.json"), doc(map[string]any{"schemaVersion": 2, "manifests": []any{manifest}}), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o600))
}
