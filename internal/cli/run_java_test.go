package cli

import (
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Issue 7: Java trusts the proxy's authority and goes through the proxy. Whoever reads
// what Java prints of its options sees no token.
func TestJava(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("java")
	if err != nil {
		t.Skip("java is not installed")
	}
	up := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello from the other side") }))
	defer up.Close()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Proxy-Authorization") != "Basic c2Vzc2lvbjphbWJfYXRfc2VjcmV0" {
			w.Header().Set("Proxy-Authenticate", `Basic realm="ambit"`)
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		to, err := net.Dial("tcp", up.Listener.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		defer to.Close()
		w.WriteHeader(http.StatusOK)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		go func() { _, _ = io.Copy(to, conn) }()
		_, _ = io.Copy(conn, to)
		_ = conn.Close()
	}))
	defer proxy.Close()
	via, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	via.User = url.UserPassword("session", "amb_at_secret")
	dir := t.TempDir()
	trusted := filepath.Join(dir, "all.pem")
	if err := os.WriteFile(trusted, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: up.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	option, err := java(dir, trusted, via, []string{"localhost", ".cursor.sh"})
	if err != nil {
		t.Fatal(err)
	}
	probe := filepath.Join(dir, "Probe.java")
	if err := os.WriteFile(probe, []byte(`import java.net.*;
public class Probe {
  public static void main(String[] args) throws Exception {
    Authenticator.setDefault(new Authenticator() {
      protected PasswordAuthentication getPasswordAuthentication() {
        return new PasswordAuthentication(System.getProperty("https.proxyUser"), System.getProperty("https.proxyPassword").toCharArray());
      }
    });
    var c = (HttpURLConnection) new URL(args[0]).openConnection();
    System.out.println(c.getResponseCode() + " " + new String(c.getInputStream().readAllBytes()) + " " + System.getProperty("http.nonProxyHosts"));
  }
}`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(up.Listener.Addr().String())
	cmd := exec.CommandContext(t.Context(), program, probe, "https://example.com:"+port+"/")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "JAVA_TOOL_OPTIONS=" + option}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "200 hello from the other side localhost|*.cursor.sh") || strings.Contains(string(out), "amb_at_secret") {
		t.Errorf("%v\n%s", err, out)
	}
}
