package sqldb

import "context"

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
		versions = append(versions, int64(s.version))
		names = append(names, s.name)
	}
	return versions, names, err
}
