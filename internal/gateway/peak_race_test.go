//go:build race

package gateway_test

const raceDetector = true

// peak only runs f: the race detector keeps more memory than the code does.
func peak(f func()) uint64 { f(); return 0 }
