// Package fire holds the product's rules while processes die, databases go away
// and hundreds of calls race a revocation (threats.md §4.2). Nodes are processes
// of the built binary, kills are SIGKILL, and the caller keeps the list of what
// was acknowledged; package world has the tools.
//
// The tests carry the build tag e2e and run by `./check --only fire`, with a
// tenth of the rounds, or by `./check --long`, which sets AMBIT_LONG=1, with all
// and for ten minutes of soak. What only holds on a quiet machine, such as how long
// a revoke takes, is told always and held only then. Tests that measure run alone,
// all others side by side: those mostly wait.
package fire
