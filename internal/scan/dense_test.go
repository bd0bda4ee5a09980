package scan

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Threat F14: a line made so that every word of it sees the same kilobytes must not hold the
// scan. 3.6 MB of "password=" ran for more than ten minutes and could not be interrupted.
func TestDenseLines(t *testing.T) {
	t.Parallel()
	for i, piece := range []string{"password=", "token=\"", "eyJ-", "-----BEGIN PRIVATE KEY-----", "LS0tLS1CRUdJTi+", "a://b@c:", "Bearer ", "secret=x\\\n", "-u a:bcde "} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "a.txt"), "GITHUB_TOKEN="+token(i)+"\n"+strings.Repeat(piece, 100_000/len(piece))+"\nGITHUB_TOKEN="+token(i+50)+"\n")
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // catches a hang
		r, err := Run(ctx, Options{Roots: []string{dir}})
		cancel()
		if err != nil || r.interrupted || len(filesOf(r, dir)) < 2 {
			t.Errorf("%q: %v, complete %v, %d findings", piece, err, r.Complete, len(r.Findings))
		}
	}
}

// Threat F14: many values on one line are told up to a bound, and the report says that there
// are more.
func TestManyOnOneLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var b strings.Builder
	for i := range maxOnLine + 5 {
		fmt.Fprintf(&b, "%s ", token(i))
	}
	write(t, filepath.Join(dir, "a.txt"), b.String())
	r := scanDir(t, dir, Options{})
	if len(r.Findings) != maxOnLine || len(r.Skipped) != 1 || r.Skipped[0].Why != tooDense || r.Complete {
		t.Errorf("%d findings, skipped %v", len(r.Findings), r.Skipped)
	}
}

// endsSoon is a context that ends when it was asked some times: in the midst of a file.
type endsSoon struct {
	context.Context
	left int
}

func (e *endsSoon) Err() error {
	if e.left--; e.left < 0 {
		return context.Canceled
	}
	return nil
}

// Issue 8: an interrupt ends a scan within a file, and what was found of it is reported.
func TestInterruptedWithinAFile(t *testing.T) {
	t.Parallel()
	r := &reader{s: &scanner{rules: must(loadRules())}}
	d := r.doc("a.env")
	d.ended = (&endsSoon{t.Context(), 4}).Err
	d.whole([]byte("GITHUB_TOKEN=" + token(1) + "\n" + strings.Repeat("NAME=value\nTOKEN=x\n", 1000) + "GITHUB_TOKEN=" + token(2) + "\n"))
	if len(d.found) != 1 || !d.stopped() {
		t.Errorf("%d findings, stopped %v", len(d.found), d.stopped())
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
