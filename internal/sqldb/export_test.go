package sqldb

import "database/sql"

// Pools shows the pools, for tests that look at each connection.
func (db *DB) Pools() (writer, reader *sql.DB) { return db.writer, db.reader }

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
