// Package issuer reads what others sign: the keys and the metadata that an issuer
// publishes, and JWTs made with those keys. Everything is fetched through outbound,
// kept for a while, and looked at again when a key is not among those that we have,
// seldom enough that nobody can make us hammer another place. Only signatures count
// of which nobody but the issuer can make one: no shared secrets, and not "none"
// (threats.md S15).
//
// It is the relying party of OpenID Connect too: where a person's browser goes, and
// who its answer says has signed in. Whether we know such a one is for package
// account, and which issuers speak for an agent is for package agent.
package issuer
