package openapi

import (
	"slices"
	"strings"
	"unicode"

	"github.com/ambit-dev/ambit/internal/policy"
)

// What a path's words say about what an operation can do. They are guesses, so
// that each that changed an effect is flagged.
var (
	// secretWords name what is a credential: even reading it is access.
	secretWords = set(`key keys apikey apikeys token tokens secret secrets credential credentials password passwords certificate certificates
		oauth auth login logins sso saml impersonate`)
	// accessWords name what outlives a session once it is made or changed.
	accessWords = set(`permission permissions role roles grant grants acl acls policy policies member members membership memberships
		invite invites invitation invitations collaborator collaborators webhook webhooks hook hooks subscription subscriptions
		admin admins administrator administrators owner owners share shares sharing sharedlinks scim transfer authorization authorizations
		deploykey deploykeys sshkey sshkeys session sessions installation installations integration integrations`)
	// peopleWords do so only where they name what the operation itself makes.
	peopleWords = set(`user users people person team teams group groups account accounts organization organizations`)
	// finalWords name what cannot be taken back.
	finalWords = set(`delete remove destroy purge erase cancel void refund refunds terminate send sends pay payment payments payout payouts charge
		charges transfers archive close revoke reset wipe drop truncate empty merge publish deactivate disable suspend ban block expire uninstall`)
	// bundleWords name requests that hold other requests, which no approval shows.
	bundleWords = set(`batch graphql composite jsonrpc rpc multi`)
	// pageWords make a token one that names a place in a list.
	pageWords = set(`page next prev previous cursor continuation sync skip start end count total max min num`)
)

func set(words string) map[string]bool {
	out := map[string]bool{}
	for _, w := range strings.Fields(words) {
		out[w] = true
	}
	return out
}

// wordsOf splits names such as deploy_keys, deployKeys and $batch.
func wordsOf(s string) []string {
	var out []string
	var word strings.Builder
	end := func() {
		if word.Len() > 0 {
			out = append(out, word.String())
			word.Reset()
		}
	}
	lower := false
	for _, r := range s {
		if !unicode.IsLetter(r) {
			end()
			lower = false
			continue
		}
		if unicode.IsUpper(r) && lower {
			end()
		}
		lower = unicode.IsLower(r)
		word.WriteRune(unicode.ToLower(r))
	}
	end()
	return out
}

// literals lists the segments of a path that are no parameters.
func literals(path string) []string {
	var out []string
	for part := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if part != "" && !strings.ContainsAny(part, "{}") {
			out = append(out, part)
		}
	}
	return out
}

// bundles reports whether a path takes requests inside its request.
func bundles(path string) bool {
	parts := literals(path)
	return len(parts) > 0 && slices.ContainsFunc(wordsOf(parts[len(parts)-1]), func(w string) bool { return bundleWords[w] })
}

// effectOf guesses what an operation can do. why is empty when the method alone
// says it.
func effectOf(method, path, id string) (effect policy.Effect, why string) {
	effect = map[string]policy.Effect{"GET": policy.Read, "HEAD": policy.Read, "DELETE": policy.Destructive}[method]
	if effect == "" {
		effect = policy.Write
	}
	parts := literals(path)
	names := func(words map[string]bool) string {
		for _, part := range parts {
			for _, w := range wordsOf(part) {
				if words[w] {
					return w
				}
			}
		}
		return ""
	}
	if w := names(secretWords); w != "" {
		return policy.Access, "The path speaks of " + w + ", so that each call needs its own approval."
	}
	if effect == policy.Read {
		return effect, ""
	}
	if w := names(accessWords); w != "" {
		return policy.Access, "The path speaks of " + w + ", so that each call needs its own approval."
	}
	if n := len(parts); n > 0 {
		for _, w := range wordsOf(parts[n-1]) {
			if peopleWords[w] {
				return policy.Access, "It changes who is there (" + w + "), so that each call needs its own approval."
			}
		}
	}
	if effect == policy.Destructive {
		return effect, ""
	}
	if w := names(finalWords); w != "" {
		return policy.Destructive, "The path speaks of " + w + ", which may not be taken back."
	}
	for _, w := range wordsOf(id) {
		if finalWords[w] {
			return policy.Destructive, "Its name speaks of " + w + ", which may not be taken back."
		}
	}
	return effect, ""
}

// hidden reports whether a field of an answer is named like a credential.
func hidden(name string) bool {
	words := wordsOf(name)
	if slices.ContainsFunc(words, func(w string) bool { return pageWords[w] }) {
		return false
	}
	joined := strings.Join(words, "")
	for _, w := range []string{"token", "secret", "password", "apikey", "privatekey", "accesskey", "credential", "credentials", "passphrase"} {
		if joined == w || len(words) > 1 && strings.HasSuffix(joined, w) {
			return true
		}
	}
	return false
}
