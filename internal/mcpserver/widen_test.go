package mcpserver_test

import (
	"strings"
	"testing"
)

// Issue 6: an agent that is told that its session does not include something adds it to
// the session, by a person's yes, and goes on under the handle that it has. The tool
// says how, in both revisions.
func TestWidenThroughTheDoor(t *testing.T) {
	t.Parallel()
	eachEra(t, func(t *testing.T, w *world, version string) {
		a := w.agent(t, "builder")
		w.connectSandbox(t, a.owner)
		c := w.connect(t, a.token, version)
		req := c.worked("request_session", map[string]any{"providers": []string{"sandbox_key"}, "purpose": "look at issues"})
		w.approve(t, a.owner, req.str("request_id"), nil)
		handle := req.str("session")
		write := map[string]any{"session": handle, "title": "One"}
		if got := c.refused("not_granted", "sandbox_key_create_issue", write); !strings.Contains(got.str("hint"), "widen") {
			t.Errorf("the hint is %q", got.str("hint"))
		}
		more := c.worked("request_session", map[string]any{"tools": []string{"sandbox_key_create_issue"}, "purpose": "file one", "widen": handle})
		if more.str("widens") != req.str("session_id") || more.str("state") != "pending" || !strings.Contains(more.text, "goes on meanwhile") {
			t.Errorf("got %v", more.facts)
		}
		c.worked("sandbox_key_list_issues", map[string]any{"session": handle})
		w.approve(t, a.owner, more.str("request_id"), nil)
		for _, args := range []map[string]any{{"session": more.str("session")}, {"request_id": more.str("request_id")}} {
			if got := c.worked("check_session", args); got.str("session_id") != req.str("session_id") || got.str("state") != "active" {
				t.Errorf("checked with %v: %v", args, got.facts)
			}
		}
		c.worked("sandbox_key_create_issue", write)
		c.refused("nothing_new", "request_session", map[string]any{"tools": []string{"sandbox_key_create_issue"}, "purpose": "again", "widen": handle})
		c.refused("invalid_arguments", "request_session", map[string]any{"providers": []string{"sandbox_key"}, "purpose": "again", "widen": ""})
	})
}
