package openapi

import (
	"slices"
	"strings"
	"unicode"

	"github.com/ambit-dev/ambit/internal/policy"
)

// What the words of a path, of an operation's name and at the beginning of its
// summary say about what it can do. They are guesses, so that each that changed
// an effect is flagged.
var (
	// secretWords name what is a credential: even reading it is access.
	secretWords = set(`key keys apikey apikeys token tokens secret secrets credential credentials password passwords certificate certificates
		oauth auth login logins sso saml impersonate`)
	// accessWords name what outlives a session once it is made or changed.
	accessWords = set(`permission permissions role roles grant grants acl acls policy policies member members membership memberships
		invite invites invitation invitations collaborator collaborators webhook webhooks hook hooks subscription subscriptions
		admin admins administrator administrators owner owners ownership share shares sharing sharedlinks scim transfer authorize authorization
		authorizations delegate delegates delegation delegations mfa
		deploykey deploykeys sshkey sshkeys session sessions installation installations integration integrations`)
	// peopleWords do so only where they name what the operation itself makes.
	peopleWords = set(`user users people person team teams group groups account accounts organization organizations`)
	// finalWords say that something is done which cannot be taken back.
	finalWords = set(`delete remove destroy purge erase cancel void refund terminate send pay charge archive close revoke reset wipe drop
		truncate empty merge publish deactivate disable suspend ban block expire uninstall clear flush kill prune discard shred trash withdraw`)
	// finalNouns say so only of a method that is not for reading: such things are listed, too.
	finalNouns = set(`refunds sends payment payments payout payouts charges transfers`)
	// actWords say that something is done, whatever the method.
	actWords = set(`create add set update edit post put insert upsert save write run execute start stop restart trigger approve reject accept
		enable activate install register grant invite share transfer assign authorize delegate move rename upload import order book subscribe`)
	// nounWords are those of them that are as often the name of a thing, as in getRefund.
	nounWords = set(`refund pay charge archive close drop empty merge ban block trash add set update post put run start stop trigger
		grant invite share transfer delegate import order book upload register`)
	// readWords say of an operation that it reads.
	readWords = set(`get list read fetch find search show view describe retrieve lookup query count check download export`)
	// gluedWords are found in names without a sign between the words, too.
	gluedWords = strings.Fields(`delete remove destroy purge erase revoke send create`)
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

// wordsOf splits names such as deploy_keys, deployKeys, SSOConfig and $batch.
func wordsOf(s string) []string { return split(s, unicode.IsLetter, true) }

// split gives the parts of s that are of the characters it is asked for, in lower
// case, and parts them where a capital follows a small letter; with runs also before
// the last capital of several.
func split(s string, of func(rune) bool, runs bool) []string {
	var out []string
	var word strings.Builder
	end := func() {
		if word.Len() > 0 {
			out = append(out, word.String())
			word.Reset()
		}
	}
	lower := false
	all := []rune(s)
	for i, r := range all {
		if !of(r) {
			end()
			lower = false
			continue
		}
		if unicode.IsUpper(r) && (lower || runs && i+1 < len(all) && unicode.IsLower(all[i+1])) {
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

// said is one word of an operation.
type said struct {
	word  string
	where string // "The path speaks of ", …
	doing bool   // it stands where a verb stands
}

// wordsAbout lists the words of an operation: of its path, of its name, and the
// one that its summary begins with.
func wordsAbout(path, id, summary string) []said {
	var out []said
	segments := strings.Split(strings.Trim(path, "/"), "/")
	for i, segment := range segments {
		words := wordsOf(segment)
		if strings.ContainsAny(segment, "{}") {
			continue
		}
		// As in /jobs/{id}/start.
		action := i > 0 && i == len(segments)-1 && len(words) == 1 && strings.HasSuffix(segments[i-1], "}")
		for _, w := range words {
			out = append(out, said{glued(w), "The path speaks of ", action})
		}
	}
	for i, w := range wordsOf(id) {
		out = append(out, said{glued(w), "Its name speaks of ", i == 0})
	}
	if words := wordsOf(summary); len(words) > 0 {
		// As in "Deletes a user" and "Publishes it".
		for _, w := range []string{words[0], strings.TrimSuffix(words[0], "s"), strings.TrimSuffix(words[0], "es")} {
			out = append(out, said{w, "Its summary begins with ", true})
		}
	}
	return out
}

// glued finds the verb of a name such as deleteuser.
func glued(word string) string {
	for _, verb := range gluedWords {
		if rest, ok := strings.CutPrefix(word, verb); ok && len(rest) > 2 && rest != "ing" && rest != "ers" {
			return verb
		}
	}
	return word
}

// saysItReads reports whether the operation's name, or else its summary, has a word
// for reading. A name that was made of method and path says nothing of its own.
func saysItReads(method, path, id, summary string) bool {
	words := wordsOf(id)
	if len(words) == 0 {
		words = wordsOf(summary)
		words = words[:min(1, len(words))]
	} else if slices.Equal(words, append([]string{strings.ToLower(method)}, wordsOf(path)...)) {
		return false
	}
	return slices.ContainsFunc(words, func(w string) bool { return readWords[w] || readWords[strings.TrimSuffix(w, "s")] })
}

// changesPeople finds who is made or changed: what the path ends with, or what a
// name such as createUser says.
func changesPeople(path, id string) string {
	var last []string
	if parts := literals(path); len(parts) > 0 {
		last = wordsOf(parts[len(parts)-1])
	}
	if words := wordsOf(id); len(words) == 2 {
		last = append(last, words[1])
	}
	if i := slices.IndexFunc(last, func(w string) bool { return peopleWords[w] }); i >= 0 {
		return last[i]
	}
	return ""
}

// effectOf guesses what an operation can do: what its method says, or something
// stricter that its words say. why is empty when the method alone says it.
func effectOf(method, path, id, summary string) (effect policy.Effect, why string) {
	const approval = ", so that each call needs its own approval."
	effect = map[string]policy.Effect{"GET": policy.Read, "HEAD": policy.Read, "DELETE": policy.Destructive}[method]
	if effect == "" {
		effect = policy.Write
	}
	words, byRead, reads := wordsAbout(path, id, summary), effect == policy.Read, saysItReads(method, path, id, summary)
	// atLeast makes the effect stricter, never milder.
	atLeast := func(e policy.Effect, because string) {
		if slices.Index(policy.Effects(), e) > slices.Index(policy.Effects(), effect) {
			effect, why = e, because
		}
	}
	raise := func(e policy.Effect, because string, is func(said) bool) {
		if i := slices.IndexFunc(words, is); i >= 0 {
			atLeast(e, words[i].where+words[i].word+because)
		}
	}
	does := func(s said) bool { return !byRead || s.doing || !nounWords[s.word] || !reads }
	raise(policy.Write, ", so that it may do more than read.", func(s said) bool { return actWords[s.word] && does(s) })
	raise(policy.Destructive, ", which may not be taken back.", func(s said) bool {
		return finalWords[s.word] && does(s) || finalNouns[s.word] && !byRead
	})
	if effect != policy.Read {
		raise(policy.Access, approval, func(s said) bool { return accessWords[s.word] })
		if who := changesPeople(path, id); who != "" {
			atLeast(policy.Access, "It changes who is there ("+who+")"+approval)
		}
	}
	raise(policy.Access, approval, func(s said) bool { return secretWords[s.word] })
	return effect, why
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
