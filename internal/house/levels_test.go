package house

import (
	"slices"
	"strings"
	"testing"
)

// module is the path that every package of ours begins with.
const module = "github.com/ambit-dev/ambit"

// levels says how high each room lies. A package imports lower levels only.
// The parts of a room (internal/keyring/local) lie where the room lies.
var levels = map[string]int{
	"internal/secret":      0,
	"internal/id":          0,
	"internal/failpoint":   0,
	"internal/disk":        0,
	"internal/fault":       0,
	"internal/strictjson":  0,
	"internal/throttle":    0,
	"internal/legible":     0,
	"internal/crypt":       0,
	"internal/outbound":    0,
	"internal/qr":          0,
	"internal/telemetry":   0,
	"internal/sqldb":       1,
	"internal/policy":      1,
	"internal/keyring":     1,
	"internal/issuer":      1,
	"internal/mail":        1,
	"internal/audit":       2,
	"internal/scan":        2,
	"internal/intake":      2,
	"internal/source":      2,
	"internal/statement":   2,
	"internal/vault":       3,
	"internal/provider":    3,
	"internal/account":     3,
	"internal/agent":       3,
	"internal/authority":   4,
	"internal/connection":  4,
	"internal/custody":     4,
	"internal/webhook":     4,
	"internal/session":     5,
	"internal/credential":  6,
	"internal/gateway":     7,
	"internal/integration": 7,
	"internal/web":         8,
	"internal/api":         8,
	"internal/workos":      8,
	"internal/mcpserver":   8,
	"internal/authserver":  8,
	"internal/rawhttp":     8,
	"internal/relay":       8,
	"internal/proxy":       8,
	"internal/app":         9,
	"internal/cli":         10,
	"cmd/ambit":            11,
	"cmd/ambit-pkcs11":     11,

	// The public client speaks HTTP and knows nothing of the rooms.
	"client": 0,

	// A third party that the binary carries for demo and tests. It knows no
	// room above the kernel, so that it stays foreign.
	"internal/sandbox": 1,
}

// apart lists what stands beside the levels: nothing in the binary imports it.
var apart = []string{"bench", "e2e", "internal/house"}

// beside lists imports within one level that the code showed to be right.
var beside = map[string]string{
	"internal/id -> internal/fault":                           "a malformed id is a typed fault, said in one place",
	"internal/strictjson -> internal/fault":                   "bad input is a typed fault, said in one place",
	"internal/outbound -> internal/fault":                     "a refused destination is a typed fault, said in one place",
	"internal/crypt -> internal/secret":                       "the envelope takes and gives values that do not print",
	"internal/disk -> internal/failpoint":                     "a process dies between a file's content and its name",
	"internal/intake/awssm -> internal/intake":                "a source gives what its room defines",
	"internal/intake/file -> internal/intake":                 "a source gives what its room defines",
	"internal/intake/found -> internal/scan":                  "what a scan found is what comes out of files",
	"internal/intake/kv -> internal/intake":                   "a source gives what its room defines",
	"internal/intake/workos -> internal/intake":               "a source gives what its room defines",
	"internal/keyring/awskms -> internal/keyring":             "a back end returns the description that its room defines",
	"internal/keyring/azurekv -> internal/keyring":            "a back end returns the description that its room defines",
	"internal/keyring/gcpkms -> internal/keyring":             "a back end returns the description that its room defines",
	"internal/keyring/local -> internal/keyring":              "a back end returns the description that its room defines",
	"internal/keyring/pkcs11 -> internal/keyring":             "a back end returns the description that its room defines",
	"internal/keyring/pkcs11 -> internal/keyring/pkcs11/wire": "what is said to the helper is said in one place, for both",
	"internal/keyring/transit -> internal/keyring":            "a back end returns the description that its room defines",
	"internal/provider/discovery -> internal/account":         "who asks a server how it is authorized is checked where it is asked",
	"internal/provider/discovery -> internal/provider":        "what is found out is a provider's record",
	"internal/provider/openapi -> internal/account":           "the server reads an address on somebody's authority",
	"internal/provider/openapi -> internal/provider":          "what it drafts is held against the linter",
	"internal/proxy -> internal/rawhttp":                      "what both doors for raw HTTP do with a client's connection is done in one place",
	"internal/relay -> internal/rawhttp":                      "what both doors for raw HTTP do with a client's connection is done in one place",
	"internal/provider -> internal/account":                   "a record is stored on somebody's authority",
	"internal/provider -> internal/vault":                     "the client secret of a record is sealed",
	"internal/account -> internal/vault":                      "the shared secret of an authenticator is sealed",
	"internal/agent -> internal/account":                      "an agent has an owner, and is changed on somebody's authority",
	"internal/agent -> internal/vault":                        "redirect state is sealed",
}

// room returns the key of levels that p belongs to.
func room(p string) (string, bool) {
	for p != "." && p != "" {
		if _, ok := levels[p]; ok {
			return p, true
		}
		i := strings.LastIndex(p, "/")
		if i < 0 {
			break
		}
		p = p[:i]
	}
	return "", false
}

// forTests reports whether p is a room's test kit (sqldbtest and its like).
func forTests(p string) bool { return strings.HasSuffix(p, "test") && strings.Count(p, "/") > 1 }

func isApart(p string) bool {
	return slices.ContainsFunc(apart, func(a string) bool { return p == a || strings.HasPrefix(p, a+"/") })
}

func TestLevels(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	for _, pkg := range ours(t) {
		from := pkg.path
		if isApart(from) || forTests(from) {
			continue
		}
		fromRoom, ok := room(from)
		if !ok {
			t.Errorf("%s has no level: add it to levels and to docs/architecture.md", from)
			continue
		}
		for _, to := range pkg.imports {
			if isApart(to) || forTests(to) {
				t.Errorf("%s imports %s, which stands apart from the binary", from, to)
				continue
			}
			toRoom, ok := room(to)
			if !ok {
				continue // named above when its turn comes
			}
			edge := from + " -> " + to
			switch {
			case levels[toRoom] < levels[fromRoom]:
			case levels[toRoom] > levels[fromRoom]:
				t.Errorf("%s (level %d) imports %s (level %d): a room knows only what lies below it", from, levels[fromRoom], to, levels[toRoom])
			case beside[edge] != "":
				used[edge] = true
			case toRoom == fromRoom && from == fromRoom && strings.HasPrefix(to, from+"/"):
				// a room may use its own parts
			default:
				t.Errorf("%s imports %s on the same level %d: list it in beside with its reason, or cut it", from, to, levels[fromRoom])
			}
		}
	}
	for edge := range beside {
		if !used[edge] {
			t.Errorf("beside lists %q, which no code needs any more: remove it", edge)
		}
	}
}
