package throttle_test

import (
	"slices"
	"testing"

	"github.com/ambit-dev/ambit/internal/throttle"
)

// W5, W8: who fills the lobby cuts themselves off, and nobody else.
func TestLobbyCutsTheFullestFirst(t *testing.T) {
	t.Parallel()
	l := throttle.NewLobby(6, 3)
	var cut []string
	enter := func(key, name string) func() {
		return l.Enter(key, func() { cut = append(cut, name) })
	}
	want := func(what string, names ...string) {
		t.Helper()
		if !slices.Equal(cut, names) {
			t.Errorf("%s: cut %v, want %v", what, cut, names)
		}
		cut = nil
	}
	leaveOther := enter("other", "other")
	a := enter("a", "a1")
	enter("a", "a2")
	enter("a", "a3")
	want("room for all")
	enter("a", "a4")
	want("over the share of a key", "a1")
	a() // of one who was cut: nothing
	enter("b", "b1")
	enter("b", "b2")
	want("exactly full")
	enter("c", "c1")
	want("full: the oldest of the fullest", "a2")
	enter("d", "d1")
	want("full: among equals, of the key that was there first", "a3")
	leaveOther()
	leaveOther()
	if n, keys := l.Waiting(); n != 5 || keys != 4 {
		t.Errorf("got %d waiting of %d keys", n, keys)
	}
	enter("e", "e1")
	want("room after one left")
}

func TestLobbyForgetsWhoLeft(t *testing.T) {
	t.Parallel()
	l := throttle.NewLobby(2, 2)
	for i := range 1000 {
		l.Enter(string(rune('a'+i%26)), func() { t.Error("cut") })()
	}
	if n, keys := l.Waiting(); n != 0 || keys != 0 {
		t.Errorf("got %d waiting of %d keys", n, keys)
	}
}
