package mcpserver_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/ambit-dev/ambit/internal/sqldb"
)

// What lists and searches of many tools cost, through the whole door: pages of
// tools/list until there is no more, and search_tools over all.
func BenchmarkManyTools(b *testing.B) {
	for _, n := range []int{1000, 5000} {
		w := newWorld(b, sqldb.SQLite)
		a := w.agent(b, "builder")
		for i := range n / 500 {
			w.provider(b, a.owner, fmt.Sprintf("many%d", i), 500, "tool_%03d")
		}
		ok := func(b *testing.B, m message) answer {
			got := w.send(b, a.token, m)
			if got.status != http.StatusOK || got.result == nil {
				b.Fatalf("got %d %s", got.status, got.body)
			}
			return got
		}
		b.Run(fmt.Sprintf("tools/list of %d", n), func(b *testing.B) {
			pages, size := 0, 0
			for b.Loop() {
				pages, size = 0, 0
				for cursor := ""; ; {
					params := ""
					if cursor != "" {
						params = `"cursor":"` + cursor + `"`
					}
					got := ok(b, current("tools/list", params))
					pages, size = pages+1, size+len(got.body)
					if cursor, _ = got.result["nextCursor"].(string); cursor == "" {
						break
					}
				}
			}
			b.ReportMetric(float64(pages), "pages")
			b.ReportMetric(float64(size)/1024, "KiB")
		})
		b.Run(fmt.Sprintf("search over %d", n), func(b *testing.B) {
			args, err := json.Marshal(map[string]any{"query": "reads tool", "limit": 10})
			must(b, err)
			m := current("tools/call", `"name":"search_tools","arguments":`+string(args)).with("Mcp-Name", "search_tools")
			for b.Loop() {
				ok(b, m)
			}
		})
	}
}
