package cli

import (
	"bytes"
	"log"
	"log/slog"
	"os"
	"strings"
	"testing"
)

// U1: what net/http logs of an answer that nobody asked for may hold a credential
// that the upstream echoes. It is not parallel: the standard log is one for all.
func TestLibrariesLogNoQuotation(t *testing.T) {
	var out bytes.Buffer
	giveBack := borrowLog(slog.New(slog.NewTextHandler(&out, nil)))
	log.Printf("Unsolicited response received on idle HTTP channel starting with %q; err=%v", "HTTP/1.1 200 OK\r\nX: row-key-canary", nil)
	giveBack()
	if text := out.String(); strings.Contains(text, "canary") || !strings.Contains(text, "Unsolicited response") {
		t.Errorf("got %s", text)
	}
	before := out.Len()
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	log.SetOutput(&bytes.Buffer{})
	log.Print("afterwards")
	if out.Len() != before {
		t.Error("the log was not given back")
	}
}
