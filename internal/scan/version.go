package scan

import "path/filepath"

// Version is a version of a finding's file in the history of its repository.
type Version struct {
	Commit string `json:"commit"` // that brought it
	Line   int    `json:"line,omitempty"`
}

// maxVersions bounds how many are told of one finding.
const maxVersions = 50

// merged makes one finding of a value that a file holds in its work tree and in versions
// that its repository remembers, or in several of these. It stays what it is in the work
// tree; without that it is what the oldest version is. Values are equal where their
// fingerprints are.
func merged(list []Finding) []Finding {
	type place struct{ file, fingerprint string }
	files := map[string]string{}
	placeOf := func(f *Finding) place {
		file, ok := files[f.File]
		if !ok {
			file = f.File
			if abs, err := filepath.Abs(file); err == nil {
				file = abs
			}
			if real, err := filepath.EvalSymlinks(file); err == nil {
				file = real
			}
			files[f.File] = file
		}
		return place{file, f.Fingerprint}
	}
	first, past := map[place]int{}, false
	for i := range list {
		if past = past || list[i].Commit != ""; list[i].Commit != "" {
			continue
		}
		if p := placeOf(&list[i]); first[p] == 0 {
			first[p] = i + 1
		}
	}
	if !past {
		return list
	}
	gone := make([]bool, len(list))
	for i := range list {
		f := &list[i]
		if f.Commit == "" {
			continue
		}
		p := placeOf(f)
		at := first[p]
		if at == 0 {
			first[p] = i + 1
			continue
		}
		into := &list[at-1]
		version := Version{f.Commit, f.Line}
		if into.Commit != "" { // git lists children before their parents
			version = Version{into.Commit, into.Line}
			into.Commit, into.Line, into.EndLine, into.Key = f.Commit, f.Line, f.EndLine, f.Key
		}
		if len(into.Versions) < maxVersions {
			into.Versions = append(into.Versions, version)
		}
		into.past.Committed = true
		into.past.Pushed = into.past.Pushed || f.Exposure.Pushed
		into.Exposure.Pushed = into.Exposure.Pushed || f.Exposure.Pushed
		gone[i] = true
	}
	kept := list[:0]
	for i := range list {
		if !gone[i] {
			kept = append(kept, list[i])
		}
	}
	clear(list[len(kept):])
	return kept
}
