package web

import (
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/session"
)

// Calls of one tool are told apart in the inbox by what is in them, whatever they
// become: a request, a tool of an MCP server, or a statement (threats.md A1).
func TestInboxTellsCallsApart(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]session.CallSubject{
		"POST api.sandbox.example/v1/issues?x=1 title=Broken":                     {Method: "POST", URL: "https://api.sandbox.example/v1/issues?x=1", Fields: []session.Field{{Name: "query x", Value: "1"}, {Name: "header Accept", Value: "text/plain"}, {Name: "body title", Value: "Broken"}}},
		"CALL notes.example/mcp tool=add-note text=milk":                          {Method: "CALL", URL: "https://notes.example/mcp", Fields: []session.Field{{Name: "tool", Value: "add-note"}, {Name: "argument text", Value: "milk"}}},
		"EXECUTE db.example/shop statement=delete from orders where id = $1 $1=7": {Method: "EXECUTE", URL: "https://db.example/shop", Fields: []session.Field{{Name: "statement on shop", Value: "delete from orders where id = $1"}, {Name: "$1", Value: "7"}}},
	} {
		if got := target(session.Approval{Call: &c}); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Nobody says yes to an update without having read all of what it replaces: what is
// cut of that is opened as well, and the mark of one is not that of another (A1).
func TestWhatStandsIsReadInFull(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("A word. ", 100)
	update := func(name, stands string) session.Approval {
		return session.Approval{ID: "apr_1", Stands: []session.Field{{Name: name, Value: stands}},
			Call: &session.CallSubject{Method: "PATCH", URL: "https://api.sandbox.example/v1/issues/42", Arguments: []byte(`{}`), Fields: []session.Field{{Name: "body labels[0]", Value: "bug"}, {Name: "body text", Value: "Short."}}}}
	}
	for name, want := range map[string]string{"body text": "text, now", "body labels[0]": "labels, which is taken out"} {
		a, b := update(name, long+"The end."), update(name, long+"Another end.")
		view := callView(a)
		if len(view.More) != 1 || view.More[0].Name != want || !strings.HasSuffix(view.More[0].Value, "The end.") {
			t.Errorf("%s: to be opened is %+v", name, view.More)
		}
		first, _ := unread(a, view)
		second, _ := unread(b, callView(b))
		if first == "" || first == second {
			t.Errorf("%s: the marks are %q and %q", name, first, second)
		}
	}
	if mark, _ := unread(update("body text", "Shorter."), callView(update("body text", "Shorter."))); mark != "" {
		t.Error("there is something to open of a short one")
	}
}
