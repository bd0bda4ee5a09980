package sandbox

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

type issue struct {
	Number    int       `json:"number"`
	Title     string    `json:"title"`
	Body      string    `json:"body"`
	State     string    `json:"state"`
	Author    string    `json:"author"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

func (s *Server) seed() {
	now := s.cfg.Now().UTC()
	for i, text := range [...][3]string{
		{"Checkout button unresponsive on narrow screens", "On a 360 px wide phone the button sits under the cookie bar. Scrolling does not help.", "open"},
		{"Export invoices as CSV", "Accounting wants one file a month instead of forty PDFs.", "open"},
		{"Sign-in mail arrives twice", "Only for addresses with a plus sign. Both links work, the second one logs you out.", "open"},
		{"Raise the upload limit to 50 MB", "Done for paying plans; free plans stay at 10 MB.", "closed"},
		{"Time zone wrong in weekly report", "Reports for Auckland are cut at Sunday noon.", "open"},
	} {
		at := now.Add(time.Duration(i-6) * 19 * time.Hour).Truncate(time.Second)
		s.next++
		s.issues = append(s.issues, &issue{Number: s.next, Title: text[0], Body: text[1], State: text[2],
			Author: accounts[i%len(accounts)].Email, CreatedAt: at, UpdatedAt: at})
	}
}

func (s *Server) me(w http.ResponseWriter, _ *http.Request, who account) {
	answer(w, http.StatusOK, who)
}

// listIssues answers newest first, a page at a time.
func (s *Server) listIssues(w http.ResponseWriter, r *http.Request, _ account) {
	q := r.URL.Query()
	state := q.Get("state")
	page, ok1 := number(q.Get("page"), 1, 1, maxIssues)
	size, ok2 := number(q.Get("per_page"), 20, 1, 100)
	if !ok1 || !ok2 || (state != "" && state != "open" && state != "closed" && state != "all") {
		refuse(w, http.StatusUnprocessableEntity, "invalid_query", "state is open, closed or all; page is from 1; per_page is 1 to 100.")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found := []*issue{}
	for _, i := range slices.Backward(s.issues) {
		if state == "" || state == "all" || i.State == state {
			found = append(found, i)
		}
	}
	out := map[string]any{"total": len(found), "page": page, "per_page": size}
	from := min((page-1)*size, len(found))
	to := min(from+size, len(found))
	if to < len(found) {
		out["next_page"] = page + 1
	}
	out["issues"] = found[from:to]
	answer(w, http.StatusOK, out)
}

func number(text string, otherwise, low, high int) (int, bool) {
	if text == "" {
		return otherwise, true
	}
	n, err := strconv.Atoi(text)
	return n, err == nil && n >= low && n <= high
}

// find answers 404 itself. The caller holds the lock.
func (s *Server) find(w http.ResponseWriter, r *http.Request) (int, bool) {
	n, err := strconv.Atoi(r.PathValue("number"))
	at := slices.IndexFunc(s.issues, func(i *issue) bool { return i.Number == n })
	if err != nil || at < 0 {
		refuse(w, http.StatusNotFound, "not_found", "There is no such issue.")
		return 0, false
	}
	return at, true
}

func (s *Server) getIssue(w http.ResponseWriter, r *http.Request, _ account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, ok := s.find(w, r); ok {
		answer(w, http.StatusOK, s.issues[at])
	}
}

type issueInput struct {
	Title *string `json:"title"`
	Body  *string `json:"body"`
	State *string `json:"state"`
}

// readIssue decodes and checks, and answers 4xx itself.
func readIssue(w http.ResponseWriter, r *http.Request) (issueInput, bool) {
	var in issueInput
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		refuse(w, http.StatusBadRequest, "invalid_json", "The body is not a JSON object of title, body and state.")
		return in, false
	}
	switch {
	case in.Title != nil && (strings.TrimSpace(*in.Title) == "" || len(*in.Title) > 256):
		refuse(w, http.StatusUnprocessableEntity, "invalid_title", "The title has 1 to 256 bytes.")
	case in.State != nil && *in.State != "open" && *in.State != "closed":
		refuse(w, http.StatusUnprocessableEntity, "invalid_state", "The state is open or closed.")
	default:
		return in, true
	}
	return in, false
}

func (i *issue) apply(in issueInput, now time.Time) {
	for _, f := range []struct {
		to   *string
		from *string
	}{{&i.Title, in.Title}, {&i.Body, in.Body}, {&i.State, in.State}} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	i.UpdatedAt = now
}

func (s *Server) createIssue(w http.ResponseWriter, r *http.Request, who account) {
	in, ok := readIssue(w, r)
	if !ok {
		return
	}
	if in.Title == nil {
		refuse(w, http.StatusUnprocessableEntity, "invalid_title", "The title is missing.")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.issues) >= maxIssues {
		refuse(w, http.StatusUnprocessableEntity, "limit_reached", "The sandbox holds at most 1,000 issues; delete some.")
		return
	}
	now := s.cfg.Now().UTC()
	s.next++
	made := &issue{Number: s.next, State: "open", Author: who.Email, CreatedAt: now}
	made.apply(in, now)
	s.issues = append(s.issues, made)
	w.Header().Set("Location", fmt.Sprintf("/issues/%d", made.Number))
	answer(w, http.StatusCreated, made)
}

func (s *Server) updateIssue(w http.ResponseWriter, r *http.Request, _ account) {
	in, ok := readIssue(w, r)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, ok := s.find(w, r); ok {
		s.issues[at].apply(in, s.cfg.Now().UTC())
		answer(w, http.StatusOK, s.issues[at])
	}
}

func (s *Server) deleteIssue(w http.ResponseWriter, r *http.Request, _ account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, ok := s.find(w, r); ok {
		s.issues = slices.Delete(s.issues, at, at+1)
		w.WriteHeader(http.StatusNoContent)
	}
}

// createKey hands out access that outlives whatever session asked for it.
func (s *Server) createKey(w http.ResponseWriter, r *http.Request, who account) {
	var in struct {
		Name string `json:"name"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Name == "" || len(in.Name) > 100 {
		refuse(w, http.StatusUnprocessableEntity, "invalid_name", "The body is a JSON object with a name of 1 to 100 bytes.")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.keys) >= maxKeys {
		refuse(w, http.StatusUnprocessableEntity, "limit_reached", "The sandbox holds at most 100 keys.")
		return
	}
	key := "sbx_" + rand.Text() + rand.Text()
	s.keys[hash(key)] = who
	answer(w, http.StatusCreated, map[string]any{"id": "skey_" + rand.Text()[:12], "name": in.Name, "key": key, "created_at": s.cfg.Now().UTC()})
}

func (s *Server) echo(w http.ResponseWriter, r *http.Request, _ account) {
	body, _ := io.ReadAll(r.Body)
	answer(w, http.StatusOK, map[string]any{
		"method": r.Method, "path": r.URL.Path, "query": r.URL.Query(), "host": r.Host, "headers": r.Header, "body": string(body),
	})
}

// whoamiToken gives the credential back in every dress that a careless service
// might put it in.
func (s *Server) whoamiToken(w http.ResponseWriter, r *http.Request, _ account) {
	out := map[string]string{}
	for name, value := range map[string]string{"authorization": r.Header.Get("Authorization"), "api_key": r.Header.Get("X-Api-Key")} {
		if value == "" {
			continue
		}
		bare := strings.TrimPrefix(value, "Bearer ")
		var escaped strings.Builder
		for _, c := range bare {
			fmt.Fprintf(&escaped, `\u%04x`, c)
		}
		out[name] = value
		out[name+"_bare"] = bare
		out[name+"_base64"] = base64.StdEncoding.EncodeToString([]byte(value))
		out[name+"_base64url"] = base64.RawURLEncoding.EncodeToString([]byte(value))
		out[name+"_bare_base64"] = base64.StdEncoding.EncodeToString([]byte(bare))
		out[name+"_bare_base64url"] = base64.RawURLEncoding.EncodeToString([]byte(bare))
		out[name+"_basic_base64"] = base64.StdEncoding.EncodeToString([]byte(bare + ":"))
		out[name+"_urlencoded"] = url.QueryEscape(value)
		out[name+"_pathencoded"] = url.PathEscape(value)
		out[name+"_hex"] = hex.EncodeToString([]byte(bare))
		out[name+"_json_escaped"] = escaped.String()
		w.Header().Add("X-Seen-Authorization", value)
		w.Header().Add("Set-Cookie", "seen_"+name+"="+bare+"; Path=/")
	}
	answer(w, http.StatusOK, out)
}
