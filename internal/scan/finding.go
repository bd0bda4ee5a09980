package scan

import (
	"cmp"
	"time"

	"github.com/ambit-dev/ambit/internal/secret"
)

// Risk is how soon somebody should act.
type Risk string

// The risks, from the worst.
const (
	High   Risk = "high"
	Medium Risk = "medium"
	Low    Risk = "low"
)

// rank orders risks: the higher, the worse.
func (r Risk) rank() int {
	switch r {
	case High:
		return 3
	case Medium:
		return 2
	case Low:
		return 1
	}
	return 0
}

// AtLeast reports whether r is as bad as o or worse.
func (r Risk) AtLeast(o Risk) bool { return r.rank() >= o.rank() }

// Finding is one credential in one place.
type Finding struct {
	Kind     string `json:"kind"`     // such as github-pat, database-url or password
	Title    string `json:"title"`    // the kind in words
	Provider string `json:"provider"` // whose it is; empty when nothing tells
	File     string `json:"file"`     // path, or "process 123 (claude)"
	Line     int    `json:"line,omitempty"`
	EndLine  int    `json:"end_line,omitempty"`
	Key      string `json:"key,omitempty"`    // where in the file's structure: mcpServers.github.env.GITHUB_TOKEN
	Commit   string `json:"commit,omitempty"` // the version of the repository that holds it
	Client   string `json:"client,omitempty"` // the program whose file this is, when it is a known place
	// Versions of the file in the repository's history that hold it too.
	Versions []Version `json:"versions,omitempty"`

	Masked      string   `json:"masked"`      // what may be shown of the value
	Fingerprint string   `json:"fingerprint"` // equal for equal values, within one run
	Copies      int      `json:"copies"`      // places that hold the same value, this one included
	Exposure    Exposure `json:"exposure"`

	Expires *time.Time `json:"expires,omitempty"`
	Expired bool       `json:"expired,omitempty"`
	Opens   string     `json:"opens,omitempty"` // how much it opens, where its form or place tells

	Risk   Risk   `json:"risk"`
	Score  int    `json:"score"`  // 0 to 100
	Reason string `json:"reason"` // of the risk, in a sentence
	Advice string `json:"advice"`
	Revoke string `json:"revoke,omitempty"` // the provider's page
	// Live is what the provider said, when it was asked: live, dead or unknown.
	Live string `json:"live,omitempty"`

	// Value is the credential. It prints nowhere.
	Value secret.Value `json:"-"`

	also []secret.Value // other forms of it that stood in the file
	weak bool           // a person may have made it up: a hash of it could be guessed
	base int            // of the score, by kind
	past Exposure       // of its versions
}

// Exposure is who can read a credential where it lies.
type Exposure struct {
	Mode      string `json:"mode,omitempty"`      // such as 0644
	Owner     string `json:"owner,omitempty"`     // of the file
	Readers   string `json:"readers,omitempty"`   // owner, group or everyone
	Links     int    `json:"links,omitempty"`     // other names of the file (hard links), which keep the value when a new file takes the place of this one
	Synced    string `json:"synced,omitempty"`    // the service that copies the folder elsewhere
	Committed bool   `json:"committed,omitempty"` // it is in the repository's current commit or history
	Pushed    bool   `json:"pushed,omitempty"`    // a remote has it, as far as this clone knows
	// Agent says how an agent comes by it: given (its own settings or environment), beside (in a folder that an
	// agent works in), transcript (it has read it already), or readable (by the user that agents run as).
	Agent string `json:"agent,omitempty"`
}

func byRisk(a, b Finding) int {
	return cmp.Or(
		cmp.Compare(b.Risk.rank(), a.Risk.rank()), cmp.Compare(b.Score, a.Score),
		cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Kind, b.Kind),
	)
}
