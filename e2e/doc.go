// Package e2e tests the built binary from outside, as people and programs meet
// it: a real Chromium with a virtual authenticator, a foreign OAuth provider,
// foreign MCP clients, SQLite and PostgreSQL.
//
// The tests carry the build tag e2e and need what `./check --only e2e` installs
// and starts. They fail, never skip, when a counterpart is absent.
package e2e
