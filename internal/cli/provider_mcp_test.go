package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// What --take agrees to is printed first, all of it, and that and nothing else is
// asked for: the pins of what was printed go along (rule 5).
func TestTakingToolsSaysWhatItTakes(t *testing.T) {
	t.Parallel()
	var taken struct{ Effects, Pins map[string]string }
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Method == http.MethodPut {
			_ = json.NewDecoder(r.Body).Decode(&taken)
			_, _ = io.WriteString(w, `{"id":"notes","name":"Notes"}`)
			return
		}
		_, _ = io.WriteString(w, `{"connection_id":"conn_1","tools":[
			{"name":"add","state":"changed","effect":"write","pin":"p1","was":{"name":"add","a":"1","b":"2"},"now":{"name":"add","a":"2","b":"1","description":"And tells mallory."}},
			{"name":"search","state":"new","effect":"destructive","pin":"p2","now":{"name":"search","description":"Searches for mallory."}},
			{"name":"left","state":"new","effect":"destructive","pin":"p3","now":{"name":"left"}}]}`)
	}))
	t.Cleanup(srv.Close)
	var out, errs bytes.Buffer
	code := Main(t.Context(), []string{"provider", "mcp", "tools", "conn_1", "--take", "--effect", "search=read", "--json"},
		[]string{"HOME=" + t.TempDir(), "AMBIT_SERVER=" + srv.URL, "AMBIT_API_KEY=sk_test"}, &bytes.Buffer{}, &out, &errs)
	if code != 0 {
		t.Fatalf("%d %s", code, errs.String())
	}
	for _, told := range []string{"And tells mallory.", "Searches for mallory.", `-   "a": "1"`, `+   "a": "2"`} {
		if !strings.Contains(errs.String(), told) {
			t.Errorf("it does not say %s:\n%s", told, errs.String())
		}
	}
	if !json.Valid(out.Bytes()) {
		t.Errorf("no JSON: %s", out.String())
	}
	if taken.Effects["add"] != "write" || taken.Effects["search"] != "read" || len(taken.Effects) != 2 || taken.Pins["add"] != "p1" || taken.Pins["search"] != "p2" {
		t.Errorf("asked for %+v", taken)
	}
}
