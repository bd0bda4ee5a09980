package vault

import "github.com/ambit-dev/ambit/internal/id"

// Canonical is the encoding of a key context from which its key is found.
func Canonical(environment id.Environment, items map[string]string) []byte {
	return keyContext{environment: environment, items: items}.canonical()
}

// CanonicalName and CanonicalContext are the forms decided at the edge.
var (
	CanonicalName    = canonicalName
	CanonicalContext = canonicalContext
)

// Held is how many unwrapped keys are in memory.
func (v *Vault) Held() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.byID) + len(v.byHash)
}
