package audit

import (
	"context"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// DecodeBody reads a stored entry, and Remarshal what it says.
func DecodeBody(doc []byte) (Record, error) {
	b, err := decodeBody(doc)
	r := Record{Kind: b.Kind, Ref: b.Ref, Outcome: b.Outcome}
	if b.Entry != nil {
		r.Entry = *b.Entry
		_ = compareColumns(stored{}, b)
	}
	return r, err
}

// ParseHead reads the head of a chain and gives its text again.
func ParseHead(s string) (string, error) {
	h, err := parseHead(s)
	return h.String(), err
}

// ParseCursor reports whether s is a cursor.
func ParseCursor(s string) error {
	_, _, err := sqldb.ParseCursor(s)
	return err
}

// FinishAgain is what follows a commit of this outcome that looked failed: the
// outcome waits once more, under the id that it had.
func (l *Log) FinishAgain(in *Intent, o Outcome, e id.Event) {
	l.commits.finish(encode(body{Kind: KindOutcome, Ref: in.Event, Outcome: &o, Entry: in.row.body.Entry.columns(), ID: e, Time: 1, again: true}))
}

// Abandon leaves the chain, as after a commit of which nobody knows whether it
// took place.
func (l *Log) Abandon() {
	defer l.chain.lock()()
	l.chain.head.chain = ""
}

// Unlink makes every append to the chain panic, until it is abandoned.
func (l *Log) Unlink() {
	defer l.chain.lock()()
	l.chain.links = nil
}

// Hang makes the checkpoint folder hang, as a dead mount does, until release.
func (l *Log) Hang() (release func()) {
	gate := make(chan struct{})
	publish := l.publish
	l.publish = func(path string, content []byte) error { <-gate; return publish(path, content) }
	return func() { close(gate) }
}

// Spares is how many keys of chains are ready.
func (l *Log) Spares() int { return len(l.spares.ready) }

// Run names the run of this log.
func (l *Log) Run() string { return l.chain.running() }

// Session is that of the call.
func (in *Intent) Session() id.Session { return in.row.body.Entry.Session }

// FenceFunc is a fence that is a function.
type FenceFunc func(ctx context.Context, tx *sqldb.Tx) error

func (FenceFunc) Check(ctx context.Context, tx *sqldb.Tx, all []Fence) []error {
	out := make([]error, len(all))
	for i, f := range all {
		out[i] = f.(FenceFunc)(ctx, tx)
	}
	return out
}
