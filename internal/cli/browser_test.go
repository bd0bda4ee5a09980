package cli_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/html"
)

// agree plays the owner in front of the browser: the page must say sentence,
// and works with their passkey.
func (w *world) agree(page, sentence string) error {
	root, err := w.browse(http.MethodGet, page, nil)
	if err != nil {
		return err
	}
	form, says := url.Values{}, ""
	action, begin := "", ""
	for n := range root.Descendants() {
		switch {
		case n.Data == "h1":
			says = strings.Join(strings.Fields(inside(n)), " ")
		case n.Data == "form" && attribute(n, "data-begin") != "":
			action, begin = attribute(n, "action"), attribute(n, "data-begin")
			for c := range n.Descendants() {
				if c.Data == "input" && attribute(c, "name") != "" {
					form.Add(attribute(c, "name"), attribute(c, "value"))
				}
			}
		}
	}
	if !strings.Contains(says, sentence) || action == "" {
		return fmt.Errorf("%s says %q and asks for %q, want %q", page, says, action, sentence)
	}
	if root, err = w.browse(http.MethodPost, begin, form); err != nil {
		return err
	}
	var begun struct{ Options json.RawMessage }
	if err := json.Unmarshal([]byte(inside(root)), &begun); err != nil {
		return err
	}
	credential, err := w.owner.Assert(begun.Options)
	if err != nil {
		return err
	}
	form.Set("credential", string(credential))
	_, err = w.browse(http.MethodPost, action, form)
	return err
}

// browse sends one request as the owner's browser does.
func (w *world) browse(method, address string, form url.Values) (*html.Node, error) {
	at, err := w.base.Parse(address)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(w.t.ctx, method, at.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	req.AddCookie(&http.Cookie{Name: "ambit", Value: string(w.owner.Token.Reveal())})
	resp, err := http.DefaultTransport.RoundTrip(req) // which follows nothing
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	root, err := html.Parse(resp.Body)
	if err == nil && resp.StatusCode >= 400 {
		err = errors.New(method + " " + at.Path + ": " + resp.Status + ": " + strings.Join(strings.Fields(inside(root)), " "))
	}
	return root, err
}

func inside(n *html.Node) string {
	var out strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode {
			out.WriteString(c.Data)
		}
	}
	return out.String()
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}
