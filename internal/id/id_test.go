package id_test

import (
	"testing"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
)

func TestParseAcceptsOnlyItsOwnKind(t *testing.T) {
	t.Parallel()
	s := id.NewSession()
	if _, err := id.Parse[id.SessionKind](string(s)); err != nil {
		t.Errorf("own kind refused: %v", err)
	}
	for _, bad := range []string{"", "ses_", string(id.NewAgent()), string(s) + "0", string(s)[:29], "SES_" + string(s)[4:], "ses_" + "!" + string(s)[5:], "ses_z" + string(s)[5:]} {
		if _, err := id.Parse[id.SessionKind](bad); fault.KindOf(err) != fault.NotFound {
			t.Errorf("%q: got %v, want not found", bad, err)
		}
	}
}

func TestBytesRoundTripAndOrder(t *testing.T) {
	t.Parallel()
	for range 1000 {
		k := id.NewKEK()
		if got := id.FromBytes[id.KEKKind](k.Bytes()); got != k {
			t.Fatalf("got %s after a round trip, want %s", got, k)
		}
	}
	seen := map[id.Event]bool{}
	for range 10000 {
		e := id.NewEvent()
		if seen[e] {
			t.Fatalf("%s made twice", e)
		}
		seen[e] = true
	}
}

func FuzzParse(f *testing.F) {
	f.Add(string(id.NewSession()))
	f.Add("ses_0000")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := id.Parse[id.SessionKind](s)
		if err == nil && id.FromBytes[id.SessionKind](p.Bytes()) != p {
			t.Errorf("%q parses but does not survive a round trip", s)
		}
	})
}
