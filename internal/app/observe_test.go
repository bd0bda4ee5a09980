package app_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/secret"
)

// The metrics open to the operator's token alone, by whatever name the node is
// scraped, and without a token set there is no such page.
func TestMetricsTakeTheToken(t *testing.T) {
	t.Parallel()
	const token = "0123456789abcdef"
	c := plainClient(t)
	for name, cfg := range map[string]app.Config{"set": {MetricsToken: secret.FromString(token)}, "not set": {}} {
		a := run(t, cfg)
		page := "http://127.0.0.1:" + a.PublicURL().Port() + "/metrics"
		for shown, want := range map[string]int{
			"": 404, "Bearer ": 404, "Bearer": 404, "Basic " + token: 404, "Bearer " + token[:15]: 404, "Bearer " + token + "0": 404, "Bearer " + token: 200,
		} {
			if name == "not set" {
				want = 404
			}
			header := http.Header{}
			if shown != "" {
				header.Set("Authorization", shown)
			}
			resp, body := get(t, c, page, "", header)
			if resp.StatusCode != want {
				t.Errorf("token %s, %q: got %d, want %d", name, shown, resp.StatusCode, want)
			}
			if want == 200 && !strings.Contains(body, "ambit_build_info") {
				t.Error("the answer holds no metrics")
			}
		}
		if resp, _ := get(t, c, "http://127.0.0.1:"+a.PublicURL().Port()+"/debug/pprof/heap", "", http.Header{"Authorization": {"Bearer " + token}}); resp.StatusCode == 200 {
			t.Error("a profile was on the network")
		}
	}
}

// consoleClient speaks to the socket in a data folder.
func consoleClient(t *testing.T, dataDir string) *http.Client {
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(dataDir, app.ConsoleSocket))
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// Whoever owns the data folder reads metrics and profiles without a token.
// Dashboard and documentation name every metric of ours, and none that is not.
func TestDashboardAndDocsKnowEveryMetric(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	a := run(t, app.Config{DataDir: dir, Version: "0.0.1"})
	get(t, plainClient(t), a.PublicURL().String()+"/healthz", "", nil) // so that requests have a series
	console := consoleClient(t, dir)
	if resp, body := get(t, console, "http://console/debug/pprof/goroutine?debug=1", "", nil); resp.StatusCode != 200 || !strings.Contains(body, "goroutine profile") {
		t.Errorf("the console gave no profile: %d", resp.StatusCode)
	}
	_, text := get(t, console, "http://console/metrics", "", nil)
	var have []string
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (ambit_\w+)`).FindAllStringSubmatch(text, -1) {
		have = append(have, m[1])
	}
	have = append(have, "ambit_calls_total") // has no series before the first call
	if len(have) < 10 {
		t.Fatalf("only %d metrics: %v", len(have), have)
	}
	for _, file := range []string{"../../docs/monitoring.md", "../../docs/grafana/ambit.json"} {
		doc, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var named []string
		for _, name := range regexp.MustCompile(`ambit_[a-z_]+`).FindAllString(string(doc), -1) {
			named = append(named, strings.TrimSuffix(name, "_bucket"))
		}
		for _, name := range have {
			if !slices.Contains(named, name) {
				t.Errorf("%s does not name %s", file, name)
			}
		}
		for _, name := range named {
			if !slices.Contains(have, name) {
				t.Errorf("%s names %s, which there is not", file, name)
			}
		}
	}
}

// K11: what only the operator may do, such as changing the root key, making links for
// people, copying the database and reading memory, is on the socket of the data
// folder's owner, and nowhere on the network, whatever is shown there.
func TestK11OperationsAreOnTheSocketOnly(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	a := run(t, app.Config{DataDir: dir})
	info, err := os.Stat(filepath.Join(dir, app.ConsoleSocket))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}
	client, console := plainClient(t), consoleClient(t, dir)
	for _, path := range []string{"/about", "/people", "/debug/pprof/", "/debug/pprof/goroutine?debug=1"} {
		if resp, _ := get(t, console, "http://console"+path, "", nil); resp.StatusCode != http.StatusOK {
			t.Fatalf("%s is not on the socket: this proves nothing", path)
		}
	}
	for _, op := range []string{"GET /about", "GET /people", "POST /recover", "POST /backup", "POST /keys/root", "GET /debug/pprof/", "GET /debug/pprof/goroutine?debug=1", "POST /v1/sys/rotate", "POST /v1/keys/root"} {
		method, path, _ := strings.Cut(op, " ")
		req, err := http.NewRequestWithContext(t.Context(), method, a.PublicURL().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode < 400 || resp.StatusCode == http.StatusInternalServerError {
			t.Errorf("%s over the network: %d", op, resp.StatusCode)
		}
	}
}
