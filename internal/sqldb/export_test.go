package sqldb

import (
	"context"
	"time"
)

// EachConnection calls fn for every connection of a SQLite database: with what
// its query_only must be, and with a way to read its settings.
func (db *DB) EachConnection(ctx context.Context, fn func(queryOnly string, setting func(name string) (string, error))) {
	s := db.store.(*sqlite)
	for queryOnly, p := range map[string]*connPool{"0": s.writer, "1": s.readers} {
		for range p.size {
			c := <-p.idle
			defer p.give(c)
			fn(queryOnly, func(name string) (got string, err error) { return got, first(ctx, c, "pragma "+name, &got) })
		}
	}
}

// Pragmas are the settings that a connection must have.
func Pragmas(queryOnly string) map[string]string {
	want := make(map[string]string)
	for _, p := range pragmas(queryOnly) {
		want[p.name] = p.want
	}
	return want
}

// AtLeast compares versions.
func AtLeast(version, floor string) bool { return atLeast(version, floor) }

// Steps lists the migrations that are part of the binary.
func Steps(engine Engine) (versions []int64, names []string, err error) {
	all, err := steps(engine)
	for _, s := range all {
		versions = append(versions, int64(s.Version))
		names = append(names, s.Name)
	}
	return versions, names, err
}

// Binary is a binary that knows the steps of this one and some more, or only
// some of them.
type Binary struct{ all []step }

// NewBinary knows our first steps, all when first is 0, and those of files, by
// name and text.
func NewBinary(engine Engine, first int, files ...[2]string) (Binary, error) {
	all, err := steps(engine)
	if err != nil {
		return Binary{}, err
	}
	if first > 0 {
		all = all[:first]
	}
	for _, f := range files {
		s, err := parseStep(f[0], f[1])
		if err != nil {
			return Binary{}, err
		}
		all = append(all, s)
	}
	return Binary{all}, nil
}

// Migrate does what that binary would.
func (b Binary) Migrate(ctx context.Context, db *DB) error { return db.migrate(ctx, b.all) }

// Join does what that binary would.
func (b Binary) Join(ctx context.Context, db *DB, name string) (*Membership, error) {
	return db.join(ctx, Node{Name: name, Binary: "test"}, b.all, func([]Node) error { return nil })
}

// Renew is what a node does now and then.
func (m *Membership) Renew(ctx context.Context) error { return m.renew(ctx) }

// Doubt is as if the node had not reached the database for d.
func (m *Membership) Doubt(d time.Duration) { m.renewed(time.Now().Add(-d)) }

// Die leaves the node's row behind, as a kill does.
func (m *Membership) Die() {
	if m.cancel != nil {
		m.cancel()
	}
	m.wg.Wait()
}

// StepText is a step with its statements.
type StepText struct {
	Step
	Text string
}

// StepTexts lists our steps.
func StepTexts(engine Engine) (list []StepText, err error) {
	all, err := steps(engine)
	for _, s := range all {
		list = append(list, StepText{s.Step, s.text})
	}
	return list, err
}
