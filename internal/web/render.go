package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/policy"
)

//go:embed templates static
var files embed.FS

// page is what a template shows. Each page is a struct of its own with a Frame
// in it; its template is named by its type.
type page interface {
	frame() *Frame
	template() string
}

// Frame is what surrounds every page.
type Frame struct {
	Title   string
	Section string // the entry of the navigation that is lit
	Narrow  bool   // one column for reading and deciding
	Bare    bool   // without navigation, whoever looks
	Plain   bool   // a window of its own, without navigation, for who is signed in
	Viewer  *Viewer
	Note    *Notice
	Problem *Notice
}

func (f *Frame) frame() *Frame { return f }

// Viewer is the signed-in person as the frame shows them.
type Viewer struct {
	Name          string
	Organization  Place
	Organizations []Place
	Pending       int
	Notices       []NoticeRow // what an owner has not dismissed, newest first
	Here          string      // the page that they look at, to come back to
	Query         string      // "?org=…" where the person must be told apart from their first organization
}

// Place is an organization in its environment.
type Place struct{ ID, Name, Environment string }

// Notice is a message at the head of a page.
type Notice struct {
	Kind    string // good, warn or bad
	Message string
	Hint    string
}

// renderer executes templates and knows the addresses of assets.
type renderer struct {
	pages  map[string]*template.Template
	assets map[string]asset  // by address
	hashed map[string]string // address by name
	now    func() time.Time
	log    *slog.Logger
}

type asset struct {
	body []byte
	kind string
}

// newRenderer parses every template once; a fault in one stops the start.
func newRenderer(now func() time.Time, log *slog.Logger) (*renderer, error) {
	r := &renderer{pages: map[string]*template.Template{}, assets: map[string]asset{}, hashed: map[string]string{}, now: now, log: log}
	if err := r.loadAssets(); err != nil {
		return nil, err
	}
	base, err := template.New("").Option("missingkey=error").Funcs(r.funcs()).
		ParseFS(files, "templates/layout/*.html", "templates/partials/*.html")
	if err != nil {
		return nil, fmt.Errorf("parsing the layout: %w", err)
	}
	names, err := fs.Glob(files, "templates/pages/*.html")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		t, err := template.Must(base.Clone()).ParseFS(files, name)
		if err != nil {
			return nil, fmt.Errorf("parsing a page: %w", err)
		}
		r.pages[strings.TrimSuffix(path.Base(name), ".html")] = t
	}
	return r, nil
}

// loadAssets gives each asset an address that changes with its content. The
// modules import each other by plain name, so all of them carry one hash.
func (r *renderer) loadAssets() error {
	var all []string
	sum := sha256.New()
	err := fs.WalkDir(files, "static", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(sum, "%s %d\n", name, len(body))
		sum.Write(body)
		all = append(all, name)
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading assets: %w", err)
	}
	version := hex.EncodeToString(sum.Sum(nil))[:16]
	kinds := map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
	for _, name := range all {
		body, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		short := strings.TrimPrefix(name, "static/")
		address := "/ui/assets/" + version + "/" + short
		r.hashed[short], r.assets[address] = address, asset{body: body, kind: kinds[path.Ext(name)]}
	}
	return nil
}

// render writes a page. It is executed whole before the first byte goes out,
// so that a fault never leaves half an approval page on a screen.
func (r *renderer) render(w http.ResponseWriter, status int, p page) {
	var b bytes.Buffer
	if err := r.pages[p.template()].ExecuteTemplate(&b, "layout", p); err != nil {
		r.log.Error("a page could not be rendered", "page", p.template(), "error", err)
		http.Error(w, "This page could not be shown. Try again; if it stays, tell the operator.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}

func (r *renderer) serveAsset(w http.ResponseWriter, req *http.Request) {
	a, ok := r.assets[req.URL.Path]
	if !ok {
		http.Error(w, "No such file.", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", a.kind)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	_, _ = w.Write(a.body)
}

func (r *renderer) funcs() template.FuncMap {
	return template.FuncMap{
		"asset": func(name string) (string, error) {
			if a, ok := r.hashed[name]; ok {
				return a, nil
			}
			return "", fmt.Errorf("no asset %q", name)
		},
		"ago":     func(t time.Time) moment { return r.moment(t, ago) },
		"left":    func(t time.Time) moment { return r.moment(t, left) },
		"visible": visible,
		"line":    oneLine,
		"exact":   exact,
		"words":   plainWords,
		"verbs":   verbs,
		"plural":  plural,
		"span":    span,
		"times":   times,
		"took":    took,
		"andlist": andList,
		"upper":   upper,
		"odd":     func(i int) bool { return i%2 == 1 },
		"effect":  describe,
	}
}

// moment is a time in the three forms that a page shows it in.
type moment struct{ Machine, Absolute, Relative string }

func (r *renderer) moment(t time.Time, relative func(now, t time.Time) string) moment {
	t = t.UTC()
	return moment{Machine: t.Format(time.RFC3339), Absolute: t.Format("2 January 2006, 15:04:05 UTC"), Relative: relative(r.now(), t)}
}

// effectWords is how pages speak of an effect.
type effectWords struct {
	Title, Detail string
	Risk          bool
}

func describe(e policy.Effect) effectWords {
	switch e {
	case policy.Read:
		return effectWords{Title: "Look at", Detail: "See data. Nothing changes."}
	case policy.Write:
		return effectWords{Title: "Create and change", Detail: "Add and edit data."}
	case policy.Destructive:
		return effectWords{Title: "Delete", Detail: "What is deleted may not come back.", Risk: true}
	}
	return effectWords{Title: "Make keys or permissions", Detail: "Would outlast the session. You are asked before each one.", Risk: true}
}

func upper(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
