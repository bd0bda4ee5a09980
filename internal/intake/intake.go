// Package intake brings the secrets that a team keeps elsewhere into the vault of an
// Ambit server: from HashiCorp Vault or OpenBao, AWS Secrets Manager, WorkOS, dotenv
// files and the exports of password managers.
//
// A [Source] lists and reads what is there; a [Mapping] says under which name and key
// context each path comes; [Run] compares that with what the server has, and stores
// what is missing, all versions in their order. It reads the source only.
//
// There is no list of what was done. Each secret that was brought in says in its
// metadata where it came from and how far, and the next run goes on from there: after
// a kill, after a refusal, and when the source has newer versions. What somebody has
// changed in Ambit meanwhile is left alone and told.
package intake

import (
	"context"
	"time"

	"github.com/ambit-dev/ambit/internal/secret"
)

// Source is where secrets are read from. It is used by several goroutines.
type Source interface {
	// Name says which source this is, the same at each run, without a secret.
	Name() string
	// Paths calls fn with the path of each secret. Paths are separated by slashes and
	// do not begin with one. An error of fn ends it.
	Paths(ctx context.Context, fn func(path string) error) error
	// Read gives a secret and the values of it that can still be read.
	Read(ctx context.Context, path string) (Item, error)
}

// Item is a secret as its source has it.
type Item struct {
	Versions []Version // oldest first; the last one is current
	Gone     int       // versions that the source has no value of any more
	// Unnamed says that the source does not name its versions: whether the value is
	// another one is told by comparing it.
	Unnamed     bool
	Description string
	Context     map[string]string // the key context there; counts where the mapping gives none
	Tags        []string
	Metadata    map[string]string
}

// Version is one value of a secret.
type Version struct {
	ID      string // as the source names it
	Value   secret.Value
	Binary  bool
	Expires time.Time // zero: never
}
