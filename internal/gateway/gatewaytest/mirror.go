package gatewaytest

import (
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// MirrorRecord is a provider below /mirror of the sandbox's host, a careless
// service that takes any credential and gives it back in every way it can.
// inject is the record's line of that name.
func (w *World) MirrorRecord(slug, inject string) string {
	base := w.Sandbox.URL + "/mirror"
	return fmt.Sprintf(`id: %s
name: Mirror by %s
website: %s
auth: api_key
inject: %s
identity: {path: /me, id: id, label: id}
api:
  base: [%q]
generic: {read: true, write: true}
tools:
  - name: look
    title: Look
    description: Shows what arrived.
    effect: read
    input: {type: object, required: [id], properties: {id: {type: string, maxLength: 200}, q: {type: string, maxLength: 200}}}
    request: {method: GET, path: "/items/{id}", query: {q: "{q}"}}
`, slug, slug, base, inject, base)
}

// Mirrors lists the paths at which a mirror shows what it was called with, each
// in its own way.
func Mirrors() []string {
	return []string{"/echo", "/forms", "/redirect", "/away", "/headers", "/error", "/text", "/html", "/gzip", "/refused", "/malformed", "/status", "/half", "/trailer", "/json-lines", "/names"}
}

// mirror answers with the credential of the request.
func mirror(w http.ResponseWriter, r *http.Request) {
	var held []string // every text of the request that may be or hold a credential
	for name, values := range r.Header {
		if name != "User-Agent" && name != "Accept" && name != "Accept-Encoding" && name != "Content-Length" && name != "Content-Type" {
			held = append(held, values...)
		}
	}
	for _, values := range r.URL.Query() {
		held = append(held, values...)
	}
	if user, password, ok := r.BasicAuth(); ok {
		held = append(held, password, user+":"+password)
	}
	all := strings.Join(held, " ")
	quick := func(contentType, body string) {
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write([]byte(body))
	}
	doc := func(v any) {
		text, _ := json.Marshal(v)
		quick("application/json", string(text))
	}
	switch path := strings.TrimPrefix(r.URL.Path, "/mirror"); path {
	case "/me":
		doc(map[string]string{"id": "mirror-1"})
	case "/echo":
		doc(map[string]any{"headers": r.Header, "query": r.URL.Query(), "url": r.URL.String(), "held": held})
	case "/forms":
		forms := map[string][]string{}
		for _, h := range held {
			var escaped strings.Builder
			for _, c := range h {
				fmt.Fprintf(&escaped, `\u%04X`, c)
			}
			forms["raw"] = append(forms["raw"], h)
			forms["query"] = append(forms["query"], url.QueryEscape(h))
			forms["path"] = append(forms["path"], url.PathEscape(h))
			forms["hex"] = append(forms["hex"], hex.EncodeToString([]byte(h)), strings.ToUpper(hex.EncodeToString([]byte(h))))
			forms["base64"] = append(forms["base64"], base64.StdEncoding.EncodeToString([]byte(h)), base64.RawURLEncoding.EncodeToString([]byte("x "+h)))
			forms["escaped"] = append(forms["escaped"], escaped.String(), "before "+h+" after")
		}
		doc(forms)
	case "/redirect":
		w.Header().Set("Location", "/mirror/landed?token="+url.QueryEscape(all))
		w.WriteHeader(http.StatusFound)
	case "/away":
		w.Header().Set("Location", "https://elsewhere.example/?token="+url.QueryEscape(all))
		w.WriteHeader(http.StatusTemporaryRedirect)
	case "/headers":
		for _, name := range []string{"X-Request-Id", "Etag", "Link", "Content-Disposition", "X-Ratelimit-Policy", "X-Auth", "Www-Authenticate"} {
			w.Header().Set(name, oneLine(all))
		}
		http.SetCookie(w, &http.Cookie{Name: "session", Value: hex.EncodeToString([]byte(all))})
		w.Header().Add("Set-Cookie", "raw="+oneLine(all))
		doc(map[string]string{"ok": "yes"})
	case "/error":
		w.WriteHeader(http.StatusInternalServerError)
		doc(map[string]string{"error": "cannot authenticate " + all})
	case "/text":
		quick("text/plain", "you sent "+all)
	case "/html":
		w.WriteHeader(http.StatusBadGateway)
		quick("text/html", "<p>you sent "+strings.NewReplacer("&", "&amp;", `"`, "&quot;", "<", "&lt;").Replace(all))
	case "/gzip":
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Type", "application/json")
		z := gzip.NewWriter(w)
		_ = json.NewEncoder(z).Encode(held)
		_ = z.Close()
	case "/refused":
		w.Header().Set("Www-Authenticate", `Bearer error_description="`+oneLine(all)+`"`)
		w.WriteHeader(http.StatusUnauthorized)
		quick("text/plain", all)
	case "/status", "/malformed":
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		if path == "/status" {
			_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 %s\r\nContent-Length: 2\r\n\r\n{}", oneLine(all))
			return
		}
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nthis is %s no header\r\n\r\n", oneLine(all))
	case "/half":
		w.Header().Set("Content-Length", "10000")
		quick("text/plain", all)
	case "/trailer":
		w.Header().Set("Trailer", "X-Request-Id")
		doc(map[string]string{"ok": "yes"})
		w.Header().Set("X-Request-Id", oneLine(all))
	case "/json-lines":
		quick("application/x-ndjson", fmt.Sprintf("{\"a\":%q}\n{\"b\":%q}\n", all, "x"+all))
	case "/bomb":
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Type", "application/json")
		z := gzip.NewWriter(w)
		for zeros := make([]byte, 1<<20); ; {
			if _, err := z.Write(zeros); err != nil {
				return
			}
		}
	case "/fat":
		for i := range 150 {
			w.Header().Set(fmt.Sprintf("X-Fat-%d", i), strings.Repeat("x", 500))
		}
		doc(held)
	case "/names":
		doc(map[string]int{all: 1, "nested " + all: 2})
	default:
		doc(map[string]any{"path": r.URL.EscapedPath(), "query": r.URL.RawQuery})
	}
}

func oneLine(s string) string { return strings.NewReplacer("\r", "", "\n", "").Replace(s) }
