package cli

import (
	"strings"
	"testing"
)

const sesID = "ses_01m8fadvjtq801xk1a97rw7s49"

func bare(_, s string) string { return s }

func sessions() ([]string, [][]string) {
	return []string{"AGENT", "STATE", "ON", "ID"}, [][]string{
		{"Release notes for the whole company", "active", "github, sandbox", sesID},
		{"夜間レポート", "ended (revoked)", "", "ses_01m8fadvjtq801xk1a97rw7s50"},
	}
}

// In a pipe nothing is cut, however wide; and wide letters count as two cells.
func TestTableInAPipe(t *testing.T) {
	t.Parallel()
	heading, rows := sessions()
	got, cut := layout(heading, rows, 0, bare)
	want := "AGENT                                STATE            ON               ID\n" +
		"Release notes for the whole company  active           github, sandbox  ses_01m8fadvjtq801xk1a97rw7s49\n" +
		"夜間レポート                         ended (revoked)  -                ses_01m8fadvjtq801xk1a97rw7s50\n"
	if got != want || cut {
		t.Errorf("got %v\n%s\nwant\n%s", cut, got, want)
	}
}

// A table fits every terminal: names give way before ids do, and what is left of
// an id still tells it from its neighbour.
func TestTableFits(t *testing.T) {
	t.Parallel()
	for room := 24; room <= 120; room++ {
		heading, rows := sessions()
		got, cut := layout(heading, rows, room, bare)
		for line := range strings.Lines(got) {
			if n := cells(strings.TrimRight(line, "\n")); n > room {
				t.Errorf("in %d cells: %q takes %d", room, line, n)
			}
		}
		whole := strings.Contains(got, sesID)
		if strings.HasPrefix(got, "AGENT  ") && strings.Count(got, "\n") == 3 && whole == cut {
			t.Errorf("in %d cells: cut is %v for\n%s", room, cut, got)
		}
		if !strings.Contains(got, "7s49") || !strings.Contains(got, "7s50") {
			t.Errorf("in %d cells the rows look alike:\n%s", room, got)
		}
		if room >= 80 && !whole {
			t.Errorf("in %d cells the id is cut, and a name could be:\n%s", room, got)
		}
	}
}

func TestTableOnANarrowScreen(t *testing.T) {
	t.Parallel()
	heading, rows := sessions()
	got, _ := layout(heading, rows[:1], 36, bare)
	want := "AGENT  Release notes … whole company\nSTATE  active\nON     github, sandbox\nID     ses_01m8fadvjt…01xk1a97rw7s49\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A column in which nobody has anything takes no room from the others.
func TestTableWithoutEmptyColumns(t *testing.T) {
	t.Parallel()
	got, cut := layout([]string{"WHAT", "SESSION", "ID"}, [][]string{{"agent.registered", "", sesID}, {"signin", "", sesID}}, 50, bare)
	want := "WHAT              ID\nagent.registered  " + sesID + "\nsignin            " + sesID + "\n"
	if got != want || cut {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// What others wrote is painted by us alone, and the paint takes no room.
func TestTablePaint(t *testing.T) {
	t.Parallel()
	got, _ := layout([]string{"NAME", "STATE", "ID"}, [][]string{{"a\x1b[31mb", "denied", "x"}}, 80, func(code, s string) string {
		if code == "" {
			return s
		}
		return "<" + code + ">" + s + "<>"
	})
	want := "<1>NAME<>     <1>STATE<>   <1>ID<>\na\uFFFD[31mb  <31>denied<>  x\n"
	if got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestShorten(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		s    string
		n    int
		want string
	}{
		{"short", 5, "short"}, {"abcdefghij", 5, "ab…ij"}, {"abcdefghij", 6, "ab…hij"}, {"abc", 1, "…"},
		{"夜間レポート", 7, "夜…ート"}, {"夜間レポート", 9, "夜間…ート"}, {"ae\u0301\u0301\u0301bcdefg", 5, "ae\u0301\u0301\u0301…fg"}, {"abcdefe\u0301", 3, "a…e\u0301"},
	} {
		if got := shorten(row.s, row.n); got != row.want || cells(got) > row.n {
			t.Errorf("%q in %d: got %q (%d cells), want %q", row.s, row.n, got, cells(got), row.want)
		}
	}
}

func FuzzShorten(f *testing.F) {
	for _, s := range []string{sesID, "夜間レポート", "e\u0301", "\xff\xfe", "a\U0001F468\u200d\U0001F469"} {
		f.Add(s, 7)
	}
	f.Fuzz(func(t *testing.T, s string, n int) {
		if n < 1 || n > 1000 {
			return
		}
		s = plain(s)
		if got := shorten(s, n); cells(got) > n {
			t.Errorf("%q in %d cells: %q takes %d", s, n, got, cells(got))
		}
	})
}

func TestWrap(t *testing.T) {
	t.Parallel()
	got := strings.Join(wrap("The agent asks for what its task needs. "+sesID+" is whole.", 20), "|")
	if want := "The agent asks for|what its task needs.|" + sesID + "|is whole."; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
