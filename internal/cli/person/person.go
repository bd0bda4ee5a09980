// Package person plays a human in front of a browser, for `ambit demo --approve auto`
// and for tests: it reads the real pages, fills their forms and holds a software
// passkey. The server knows no difference, and has no branch for it.
package person

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/html"

	"github.com/ambit-dev/ambit/internal/account/softkey"
)

// Person has a cookie jar and a passkey. Make one with [New].
type Person struct {
	// hands are one pair: what the passkey signs must arrive in the order in which
	// it counts, or the server takes it for a copy.
	hands   sync.Mutex
	http    *http.Client
	passkey *softkey.Authenticator
}

// New makes a person whose browser shows pages of origin.
func New(origin string) (*Person, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, fmt.Errorf("making a cookie jar: %w", err)
	}
	return &Person{http: &http.Client{Jar: jar, Timeout: 30 * time.Second}, passkey: softkey.New(origin)}, nil
}

// page is a document that the person looks at.
type page struct {
	url  *url.URL
	root *html.Node
}

// open loads a page. The part behind # stays with the browser, as it must.
func (p *Person) open(ctx context.Context, address string) (*page, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("opening a page: %w", err)
	}
	return p.load(req)
}

// Listen opens a live page's stream, which lasts until ctx ends or it is closed.
func (p *Person) Listen(ctx context.Context, address string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	patient := http.Client{Jar: p.http.Jar, Transport: p.http.Transport}
	resp, err := patient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("listening: the server answered %s", resp.Status)
	}
	return resp.Body, nil
}

func (p *Person) load(req *http.Request) (*page, error) {
	req.Header.Set("Accept", "text/html")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	resp, err := p.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("opening a page: %w", err)
	}
	defer resp.Body.Close()
	root, err := html.Parse(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return nil, fmt.Errorf("reading a page: %w", err)
	}
	doc := &page{url: resp.Request.URL, root: root}
	if resp.StatusCode >= 400 {
		return nil, fmt.Errorf("%s %s answered %d: %s", req.Method, req.URL.Path, resp.StatusCode, strings.Join(strings.Fields(doc.text("main", "body")), " "))
	}
	return doc, nil
}

// form is one form of a page with what it would send.
type form struct {
	page    *page
	node    *html.Node
	values  url.Values
	buttons []*html.Node
}

// form finds the form with this action.
func (d *page) form(action string) (*form, error) {
	for n := range d.root.Descendants() {
		if n.Data != "form" || n.Type != html.ElementNode {
			continue
		}
		if a := attr(n, "action"); a != action && !strings.HasSuffix(a, action) {
			continue
		}
		f := &form{page: d, node: n, values: url.Values{}}
		f.collect()
		return f, nil
	}
	return nil, fmt.Errorf("the page %s has no form for %s", d.url.Path, action)
}

func (f *form) collect() {
	for n := range f.node.Descendants() {
		if n.Type != html.ElementNode || has(n, "disabled") && n.Data != "button" {
			continue
		}
		name := attr(n, "name")
		switch n.Data {
		case "input":
			kind := attr(n, "type")
			if name == "" || (kind == "checkbox" || kind == "radio") && !has(n, "checked") {
				continue
			}
			value := attr(n, "value")
			if value == "" && (kind == "checkbox" || kind == "radio") {
				value = "on"
			}
			f.values.Add(name, value)
		case "textarea":
			f.values.Add(name, strings.TrimPrefix(text(n), "\n"))
		case "select":
			f.values.Add(name, chosen(n))
		case "button":
			f.buttons = append(f.buttons, n)
		}
	}
}

func chosen(sel *html.Node) string {
	value := ""
	for i, o := range slices.Collect(func(yield func(*html.Node) bool) {
		for n := range sel.Descendants() {
			if n.Data == "option" && !yield(n) {
				return
			}
		}
	}) {
		if i == 0 || has(o, "selected") {
			value = attr(o, "value")
		}
	}
	return value
}

// submit sends the form, proving presence with the passkey if the form asks.
func (p *Person) submit(ctx context.Context, f *form) (*page, error) {
	if begin := attr(f.node, "data-begin"); begin != "" {
		p.hands.Lock()
		defer p.hands.Unlock()
		if err := p.prove(ctx, f, begin); err != nil {
			return nil, err
		}
	}
	return p.post(ctx, f.page.url, attr(f.node, "action"), f.values)
}

func (p *Person) post(ctx context.Context, from *url.URL, action string, values url.Values) (*page, error) {
	target, err := from.Parse(action)
	if err != nil {
		return nil, fmt.Errorf("reading a form's address: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), strings.NewReader(values.Encode()))
	if err != nil {
		return nil, fmt.Errorf("sending a form: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", from.Scheme+"://"+from.Host)
	return p.load(req)
}

// prove answers the WebAuthn challenge that the server makes over the form.
func (p *Person) prove(ctx context.Context, f *form, begin string) error {
	target, err := f.page.url.Parse(begin)
	if err != nil {
		return fmt.Errorf("reading a form's address: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), strings.NewReader(f.values.Encode()))
	if err != nil {
		return fmt.Errorf("asking for a challenge: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Origin", f.page.url.Scheme+"://"+f.page.url.Host)
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	resp, err := p.http.Do(req)
	if err != nil {
		return fmt.Errorf("asking for a challenge: %w", err)
	}
	defer resp.Body.Close()
	var begun struct {
		Options json.RawMessage `json:"options"`
		Flow    string          `json:"flow"`
		Message string          `json:"message"`
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err = errors.Join(err, json.NewDecoder(bytes.NewReader(body)).Decode(&begun)); err != nil || resp.StatusCode != http.StatusOK {
		return errors.Join(fmt.Errorf("asking for a challenge: status %d %s", resp.StatusCode, begun.Message), err)
	}
	answer := p.passkey.Assert
	if attr(f.node, "data-passkey") == "create" {
		answer = p.passkey.Register
	}
	credential, err := answer(begun.Options)
	if err != nil {
		return err
	}
	f.values.Set("credential", string(credential))
	f.values.Set("flow", begun.Flow)
	return nil
}

// Enroll opens a sign-in link and registers a passkey.
func (p *Person) Enroll(ctx context.Context, link string) error {
	u, err := url.Parse(link)
	if err != nil {
		return fmt.Errorf("reading the sign-in link: %w", err)
	}
	// The page's script puts the part behind # into the form.
	_, err = p.Submit(ctx, u.Scheme+"://"+u.Host+u.Path, "/ui/enroll", func(v url.Values) { v.Set("token", u.Fragment) })
	return err
}

// Seen is a page as a person sees it.
type Seen struct {
	Address *url.URL
	Heading string
	Text    string // all of it, without the frame
	Link    string // the one that leads out of Ambit, if there is one
}

func (d *page) seen() Seen {
	return Seen{Address: d.url, Heading: line(d.text("h1")), Text: line(d.text("main", "body")), Link: d.link("rel", "noreferrer")}
}

func line(s string) string { return strings.Join(strings.Fields(s), " ") }

// Look opens a page.
func (p *Person) Look(ctx context.Context, address string) (Seen, error) {
	doc, err := p.open(ctx, address)
	if err != nil {
		return Seen{}, err
	}
	return doc.seen(), nil
}

// Submit opens a page and sends its form with this action, with a proof of
// presence if the form asks for one. change, unless nil, alters what is sent. It
// gives the page's heading, which says what the person decided on.
func (p *Person) Submit(ctx context.Context, address, action string, change func(url.Values)) (heading string, err error) {
	asked, _, err := p.Do(ctx, address, action, change)
	return asked.Heading, err
}

// Do is Submit for those who want both pages: the one with the form, and the one
// that follows.
func (p *Person) Do(ctx context.Context, address, action string, change func(url.Values)) (asked, after Seen, err error) {
	doc, err := p.open(ctx, address)
	if err != nil {
		return Seen{}, Seen{}, err
	}
	asked = doc.seen()
	f, err := doc.form(action)
	if err != nil {
		return asked, Seen{}, err
	}
	if change != nil {
		change(f.values)
	}
	if doc, err = p.submit(ctx, f); err != nil {
		return asked, Seen{}, err
	}
	return asked, doc.seen(), nil
}

// Approve opens the page of a request and approves it, as it stands when change
// is nil. It gives the sentence that was decided on.
func (p *Person) Approve(ctx context.Context, address string, change func(url.Values)) (sentence string, err error) {
	return p.Submit(ctx, address, "/approve", change)
}

// Deny opens the page of a request and denies it.
func (p *Person) Deny(ctx context.Context, address string) error {
	doc, err := p.open(ctx, address)
	if err != nil {
		return err
	}
	f, err := doc.form("/approve")
	if err != nil {
		return err
	}
	_, err = p.post(ctx, f.page.url, strings.TrimSuffix(attr(f.node, "action"), "/approve")+"/deny", f.values)
	return err
}

// Connect goes to a provider, signs in there as account if it asks who, and
// gives everything that is asked for. base is the server's address.
func (p *Person) Connect(ctx context.Context, base *url.URL, provider, account string) error {
	doc, err := p.open(ctx, base.JoinPath("ui", "connections", "new").String()+"?provider="+url.QueryEscape(provider))
	if err != nil {
		return err
	}
	f, err := doc.form("/ui/connections")
	if err != nil {
		return err
	}
	if doc, err = p.submit(ctx, f); err != nil {
		return err
	}
	there := doc.link("rel", "noreferrer")
	if there == "" {
		return fmt.Errorf("the page has no link to the provider")
	}
	if doc, err = p.open(ctx, there); err != nil || doc.url.Host == base.Host {
		return err // a provider that asks nothing has sent us back already
	}
	if f, err = doc.formOf(account); err != nil {
		return err
	}
	_, err = p.submit(ctx, f)
	return err
}

// formOf finds the form of one account on the sandbox's page and presses Allow.
func (d *page) formOf(account string) (*form, error) {
	for n := range d.root.Descendants() {
		if n.Data != "form" {
			continue
		}
		f := &form{page: d, node: n, values: url.Values{}}
		f.collect()
		if f.values.Get("account") != account && !strings.Contains(text(n), account) {
			continue
		}
		for _, b := range f.buttons {
			if name := attr(b, "name"); name != "" && attr(b, "value") != "deny" {
				f.values.Set(name, attr(b, "value"))
				break
			}
		}
		return f, nil
	}
	return nil, fmt.Errorf("the provider's page has no account %s", account)
}

func (d *page) link(name, value string) string {
	for n := range d.root.Descendants() {
		if n.Data == "a" && attr(n, name) == value {
			return attr(n, "href")
		}
	}
	return ""
}

// text gives what the first of these elements says.
func (d *page) text(elements ...string) string {
	for _, e := range elements {
		for n := range d.root.Descendants() {
			if n.Type == html.ElementNode && n.Data == e {
				return text(n)
			}
		}
	}
	return ""
}

func text(n *html.Node) string {
	var out strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode {
			out.WriteString(c.Data)
		}
	}
	return out.String()
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func has(n *html.Node, name string) bool {
	return slices.ContainsFunc(n.Attr, func(a html.Attribute) bool { return a.Key == name })
}
