package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/app"
	"github.com/ambit-dev/ambit/internal/fault"
)

// What a server's console refuses keeps its kind: a database that is away was
// told as if the command were wrong, with another exit code than without a server.
func TestConsoleRefusalKeepsItsKind(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(app.Refusal{Kind: fault.Unavailable, Code: "database_unavailable", Message: "It is away.", Hint: "Wait."})
	})}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() { srv.Close(); wg.Wait() })
	_, err = askConsole(t.Context(), socket, http.MethodGet, "/people", nil)
	c := &command{env: map[string]string{}}
	if got := c.failure(err, &cobra.Command{Use: "x"}); got.exit != exitUnavailable || got.code != "database_unavailable" || got.hint != "Wait." {
		t.Errorf("got %+v", got)
	}
}

func TestWhen(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		ago  time.Duration
		want string
	}{
		{0, "just now"}, {30 * time.Second, "30 s ago"}, {90 * time.Second, "1 min ago"}, {47 * time.Hour, "47 h ago"}, {72 * time.Hour, "3 d ago"},
		{-2 * time.Second, "in 2 s"}, {-90 * time.Minute, "in 1 h"},
	} {
		if got := when(now.Add(-row.ago), now); got != row.want {
			t.Errorf("%v before now: got %q, want %q", row.ago, got, row.want)
		}
	}
	if got := when(time.Time{}, now); got != "" {
		t.Errorf("no time: got %q, want nothing", got)
	}
}

func TestParseTime(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"":                     {},
		"90m":                  now.Add(-90 * time.Minute),
		"7d":                   now.AddDate(0, 0, -7),
		"2026-01-31":           time.Date(2026, 1, 31, 0, 0, 0, 0, time.Local),
		"2026-01-31T15:04:05Z": time.Date(2026, 1, 31, 15, 4, 5, 0, time.UTC),
	} {
		got, err := parseTime("--since", text, now)
		if err != nil || !got.Equal(want) {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"yesterday", "-5m", "-1d", "9999999d", "1", "2026-13-01"} {
		if got, err := parseTime("--since", text, now); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}

func FuzzParseTime(f *testing.F) {
	for _, s := range []string{"90m", "7d", "2026-01-31", "2026-01-31T15:04:05Z", "-1h", "d"} {
		f.Add(s)
	}
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseTime("--since", s, now)
		if err != nil && !got.IsZero() {
			t.Errorf("got %v beside an error", got)
		}
	})
}

// What agents and providers wrote cannot steer the terminal.
func FuzzPlain(f *testing.F) {
	for _, s := range []string{"plain", "\x1b[31mred", "a\u202eb", "line\nline", "\x9b31m", "\xff", "ä\u0301 ✓"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range plain(s) {
			if !unicode.IsPrint(r) && r != unicode.ReplacementChar {
				t.Fatalf("%q holds %q", plain(s), r)
			}
		}
		for _, r := range plainLines(s) {
			if !unicode.IsPrint(r) && r != unicode.ReplacementChar && r != '\n' {
				t.Fatalf("%q holds %q", plainLines(s), r)
			}
		}
	})
}

// A revocation is about one thing: half of what was meant is worse than nothing.
func TestAim(t *testing.T) {
	t.Parallel()
	good := []client.Revocation{{SessionID: "s"}, {AgentID: "a"}, {UserID: "u"}, {ConnectionID: "c"}, {Provider: "p"}, {Provider: "p", OrganizationID: "o"}, {UserID: "u", OrganizationID: "o"}, {OrganizationID: "o"}}
	for _, r := range good {
		if _, err := aim(r); err != nil {
			t.Errorf("%+v: got %v, want no error", r, err)
		}
	}
	bad := []client.Revocation{{}, {SessionID: "s", AgentID: "a"}, {AgentID: "a", OrganizationID: "o"}, {Provider: "p", OrganizationID: "o", UserID: "u"}}
	for _, r := range bad {
		var ue usageError
		if _, err := aim(r); !errors.As(err, &ue) {
			t.Errorf("%+v: got %v, want a usage error", r, err)
		}
	}
}

// The outer error is told: what came of the whole matters more than which request
// failed. A logout that could not be told to the server once looked undone.
func TestOuterErrorIsTold(t *testing.T) {
	t.Parallel()
	c := &command{env: map[string]string{}}
	away := &client.Error{Code: "server_unreachable", Message: "The server cannot be reached."}
	told := fault.New(fault.Unavailable, "logout_untold", "The login was forgotten here.").WithCause(away)
	for want, err := range map[string]error{"logout_untold": told, "server_unreachable": fmt.Errorf("asking: %w", away), "internal": errors.New("x")} {
		if got := c.failure(err, &cobra.Command{Use: "x"}); got.code != want || got.message == "" || got.hint == "" && want != "logout_untold" && want != "server_unreachable" {
			t.Errorf("%v: got %+v, want %s", err, got, want)
		}
	}
}

// Complaints about flags do not repeat what was typed.
func TestFlagComplaintsHoldNoValue(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--count=canary"}, {"--count", "can\"ary"}, {"-canary"}, {"-n", "canary"}, {"--yes=canary"}, {"--=canary"}, {"--canary-less"}} {
		cmd := &cobra.Command{Use: "x", RunE: func(*cobra.Command, []string) error { return nil }, SilenceErrors: true, SilenceUsage: true}
		cmd.Flags().IntP("count", "n", 0, "")
		cmd.Flags().Bool("yes", false, "")
		cmd.SetArgs(args)
		err := cmd.Execute()
		if err == nil {
			t.Errorf("%q is taken", args)
			continue
		}
		if got := withoutValue(err).Error(); strings.Contains(got, "canary") && args[0] != "--canary-less" {
			t.Errorf("%q: got %q", args, got)
		}
	}
	if got := masked(`unknown command "sk_abcdefgh1234" for "ambit"`); strings.Contains(got, "abcdefgh") {
		t.Errorf("got %q", got)
	}
}
