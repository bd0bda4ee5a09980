package scan

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"path/filepath"

	"github.com/ambit-dev/ambit/internal/fault"
)

// Baseline is a list of findings that somebody accepted. It holds no value: an entry is a
// keyed hash of where the finding lies and, unless a person may have made the value up,
// of the value. The key stands in the file, so that it works for everyone who has it; a
// password could be guessed against it, which is why passwords go by their place alone.
type Baseline struct {
	Version int             `json:"version"`
	Key     string          `json:"key"` // hex
	Entries []BaselineEntry `json:"findings"`

	known map[string]bool
}

// BaselineEntry is one accepted finding.
type BaselineEntry struct {
	ID   string `json:"id"`
	Kind string `json:"kind"` // for people
	File string `json:"file"`
	Line int    `json:"line"`
}

const baselineVersion = 1

// NewBaseline accepts what a report found. Paths are told relative to dir.
func NewBaseline(list []Finding, dir string) *Baseline {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails: crypto/rand aborts the process instead
	b := &Baseline{Version: baselineVersion, Key: hex.EncodeToString(key), Entries: []BaselineEntry{}}
	seen, name := map[string]bool{}, b.namer()
	for _, f := range list {
		id := name(f)
		if !seen[id] {
			seen[id] = true
			b.Entries = append(b.Entries, BaselineEntry{ID: id, Kind: f.Kind, File: relative(f.File, dir), Line: f.Line})
		}
	}
	return b
}

// ReadBaseline reads what NewBaseline made.
func ReadBaseline(text []byte) (*Baseline, error) {
	var b Baseline
	if err := json.Unmarshal(text, &b); err != nil || b.Version != baselineVersion || len(b.Key) != 64 {
		return nil, fault.New(fault.Invalid, "baseline_invalid", "The baseline is not one that `ambit scan --write-baseline` wrote.")
	}
	b.known = map[string]bool{}
	for _, e := range b.Entries {
		b.known[e.ID] = true
	}
	return &b, nil
}

// accepts tells of findings whether they were accepted. It belongs to one goroutine.
func (b *Baseline) accepts() func(Finding) bool {
	name := b.namer()
	return func(f Finding) bool { return b.known[name(f)] }
}

// namer names findings: by their value where that cannot be guessed, else by their place.
func (b *Baseline) namer() func(Finding) string {
	key, _ := hex.DecodeString(b.Key)
	h := anyHider()
	return func(f Finding) string {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(f.Kind + "\x00" + filepath.Base(seen(h.path(f.File))) + "\x00" + seen(h.name(f.Key)) + "\x00"))
		if !f.weak {
			addValue(mac, f)
		}
		return hex.EncodeToString(mac.Sum(nil)[:16])
	}
}

func relative(path, dir string) string {
	if dir == "" {
		return path
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(dir, abs); err == nil && !filepath.IsAbs(rel) && (len(rel) < 2 || rel[:2] != "..") {
		return filepath.ToSlash(rel)
	}
	return path
}
