// Package world sets up real Ambits for what measures them or breaks them: nodes
// are processes of the built binary, on SQLite or PostgreSQL, the third party is
// a [Third] that logs each arrival, and people, agents and sessions come about
// through the real pages and doors. [World.New] has one ready; [Node] starts,
// stops and kills; [Load] calls at a set rate and keeps what was answered;
// [World.Ledger] reads afterwards what the audit says of it.
//
// Everything stays on loopback. Nothing here is part of the binary.
package world
