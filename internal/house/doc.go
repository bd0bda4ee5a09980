// Package house holds the plan of this house as tests: which room may import
// which, where secrets are revealed, where SQL drivers, HTTP clients and
// standard output may be touched, and that each direct dependency has a reason
// written down in docs/decisions.
//
// The rules are data in levels_test.go and bans_test.go. A rule that is in the
// way is changed there, with its reason beside it, in the same commit as the
// picture in docs/architecture.md; it is never worked around.
package house
