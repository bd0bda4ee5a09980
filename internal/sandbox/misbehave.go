package sandbox

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

const (
	maxDelay = time.Minute
	maxFill  = 64 << 20
)

// misbehaviour is the body of POST /_fault. With neither status, body, fill nor
// cut it only delays. The fault that was set first and matches goes first.
type misbehaviour struct {
	Method    string            `json:"method"`     // empty is any
	Path      string            `json:"path"`       // this path and what is below it; "/" is every path
	Times     int               `json:"times"`      // default 1
	After     bool              `json:"after"`      // do the real work first, then answer this: a lost answer
	DelayMS   int               `json:"delay_ms"`   // at most 60,000
	Status    int               `json:"status"`     // default 200, or 302 with redirect
	Headers   map[string]string `json:"headers"`    // set on the answer
	Body      json.RawMessage   `json:"body"`       // a string is sent as it is, anything else as JSON
	FillBytes int               `json:"fill_bytes"` // a body of that many bytes, at most 64 MiB
	Redirect  string            `json:"redirect"`   // Location
	Cut       bool              `json:"cut"`        // drop the connection: within the body if there is one, else before any answer
}

func (m *misbehaviour) matches(r *http.Request) bool {
	if m.Method != "" && m.Method != r.Method {
		return false
	}
	prefix := strings.TrimSuffix(m.Path, "/")
	return r.URL.Path == prefix || strings.HasPrefix(r.URL.Path, prefix+"/")
}

func (m *misbehaviour) answers() bool {
	return m.Status != 0 || len(m.Body) > 0 || m.FillBytes > 0 || m.Redirect != "" || m.Cut
}

func (s *Server) addFault(w http.ResponseWriter, r *http.Request) {
	m := misbehaviour{Times: 1}
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		refuse(w, http.StatusBadRequest, "invalid_fault", "The body is not a fault: "+err.Error())
		return
	}
	if !strings.HasPrefix(m.Path, "/") || m.Times < 1 || m.DelayMS < 0 || m.DelayMS > int(maxDelay/time.Millisecond) ||
		(m.Status != 0 && (m.Status < 200 || m.Status > 599)) || m.FillBytes < 0 || m.FillBytes > maxFill {
		refuse(w, http.StatusUnprocessableEntity, "invalid_fault", "path starts with /, times is from 1, delay_ms to 60000, status 200 to 599, fill_bytes to 64 MiB.")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.faults) >= maxFaults {
		refuse(w, http.StatusUnprocessableEntity, "limit_reached", "At most 100 faults wait; DELETE /_fault clears them.")
		return
	}
	s.faults = append(s.faults, &m)
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) clearFaults(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
	w.WriteHeader(http.StatusNoContent)
}

// takeFault returns a copy of the fault for this request and counts it down.
func (s *Server) takeFault(r *http.Request) (misbehaviour, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, m := range s.faults {
		if !m.matches(r) {
			continue
		}
		if m.Times--; m.Times == 0 {
			s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
		}
		return *m, true
	}
	return misbehaviour{}, false
}

func (s *Server) misbehaving(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/_") {
			next.ServeHTTP(w, r)
			return
		}
		s.count(r)
		m, ok := s.takeFault(r)
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		if m.After {
			next.ServeHTTP(&nowhere{header: http.Header{}}, r)
		}
		if m.DelayMS > 0 {
			select {
			case <-time.After(time.Duration(m.DelayMS) * time.Millisecond):
			case <-r.Context().Done():
				panic(http.ErrAbortHandler)
			}
		}
		if !m.After && !m.answers() {
			next.ServeHTTP(w, r)
			return
		}
		m.write(w)
	})
}

// count counts arrivals at the API, those that a fault answers included.
func (s *Server) count(r *http.Request) {
	switch first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/"); first {
	case "me", "issues", "keys", "echo", "whoami-token":
		s.mu.Lock()
		s.stats.Calls++
		s.mu.Unlock()
	}
}

func (m *misbehaviour) write(w http.ResponseWriter) {
	body := []byte(m.Body)
	var text string
	if json.Unmarshal(body, &text) == nil {
		body = []byte(text)
	} else if len(body) > 0 {
		w.Header().Set("Content-Type", "application/json")
	}
	status := m.Status
	if m.Redirect != "" {
		w.Header().Set("Location", m.Redirect)
		if status == 0 {
			status = http.StatusFound
		}
	}
	if status == 0 {
		status = http.StatusOK
	}
	for name, value := range m.Headers {
		w.Header().Set(name, value)
	}
	if m.Cut && len(body) == 0 {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(status)
	if m.Cut {
		_, _ = w.Write(body[:len(body)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(body)
	filler := []byte(strings.Repeat("sandbox ", 4096))
	for left := m.FillBytes; left > 0; left -= len(filler) {
		if _, err := w.Write(filler[:min(left, len(filler))]); err != nil {
			return
		}
	}
}

// nowhere takes the answer that a fault with "after" withholds.
type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header         { return n.header }
func (n *nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n *nowhere) WriteHeader(int)             {}
