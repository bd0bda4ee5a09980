package provider

import (
	"crypto/sha256"
	"sync"
)

// Library parses records and remembers them under the digest of their text, so
// that a call does not compile what an earlier one did. A digest names one text
// for ever: nothing in a Library can be out of date. The zero Library is ready.
type Library struct {
	mu      sync.Mutex
	records map[[32]byte]Record
}

// maxKept bounds the compiled records in memory; losing one costs a parse.
const maxKept = 512

// Parse is [Parse], remembered.
func (l *Library) Parse(text []byte) (Record, error) {
	digest := sha256.Sum256(text)
	if r, ok := l.Known(digest); ok {
		return r, nil
	}
	r, err := Parse(text)
	if err != nil {
		return Record{}, err
	}
	l.keep(digest, r)
	return r, nil
}

func (l *Library) keep(digest [32]byte, r Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.records == nil {
		l.records = map[[32]byte]Record{}
	}
	for k := range l.records { // any of them: map order is random
		if len(l.records) < maxKept {
			break
		}
		delete(l.records, k)
	}
	l.records[digest] = r
}

// Known finds a record by the digest of its text.
func (l *Library) Known(digest [32]byte) (Record, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, ok := l.records[digest]
	return r, ok
}
