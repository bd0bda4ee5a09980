package scan

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"path/filepath"
	"strings"
)

// SARIF is the report in the form that code hosts read (SARIF 2.1.0, OASIS). Paths
// are relative to dir where they lie below it.
func SARIF(r *Report, dir, version string) any {
	type text struct {
		Text string `json:"text"`
	}
	type rule struct {
		ID      string         `json:"id"`
		Name    string         `json:"name"`
		Short   text           `json:"shortDescription"`
		HelpURI string         `json:"helpUri,omitempty"`
		Props   map[string]any `json:"properties"`
	}
	index := map[string]int{}
	rules, results := []rule{}, []any{}
	for _, f := range r.Findings {
		if _, ok := index[f.Kind]; !ok {
			index[f.Kind] = len(rules)
			rules = append(rules, rule{f.Kind, f.Title, text{f.Title}, f.Revoke, map[string]any{"tags": []string{"security", "secret"}, "security-severity": severity(f)}})
		}
		place := map[string]any{"artifactLocation": map[string]any{"uri": uri(relative(f.File, dir))}}
		if f.Line > 0 {
			region := map[string]any{"startLine": f.Line}
			if f.EndLine > f.Line {
				region["endLine"] = f.EndLine
			}
			place["region"] = region
		}
		where := map[string]any{"physicalLocation": place}
		if f.Key != "" {
			where["logicalLocations"] = []any{map[string]any{"fullyQualifiedName": f.Key}}
		}
		id := sha256.Sum256([]byte(f.Kind + "\x00" + relative(f.File, dir) + "\x00" + f.Key))
		results = append(results, map[string]any{
			"ruleId": f.Kind, "ruleIndex": index[f.Kind], "level": level(f.Risk), "message": text{f.Reason + " " + f.Advice},
			"locations":           []any{where},
			"partialFingerprints": map[string]string{"ambitPlace/v1": hex.EncodeToString(id[:16])},
			"properties":          map[string]any{"risk": f.Risk, "score": f.Score, "provider": f.Provider, "masked": f.Masked, "copies": f.Copies, "exposure": f.Exposure},
		})
	}
	return map[string]any{
		"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0",
		"runs": []any{map[string]any{
			"tool":        map[string]any{"driver": map[string]any{"name": "ambit scan", "version": version, "semanticVersion": version, "informationUri": "https://github.com/ambit-dev/ambit", "rules": rules}},
			"invocations": []any{map[string]any{"executionSuccessful": !r.interrupted}},
			"results":     results, "columnKind": "utf16CodeUnits",
		}},
	}
}

func level(r Risk) string {
	switch r {
	case High:
		return "error"
	case Medium:
		return "warning"
	}
	return "note"
}

// severity is a number by which GitHub sorts.
func severity(f Finding) string {
	return map[Risk]string{High: "9.0", Medium: "6.0", Low: "3.0"}[f.Risk]
}

// uri is a path as a relative reference, or as a file URI when it is absolute. A colon is
// escaped: what stands before it would be taken for a scheme (RFC 3986 §4.2).
func uri(p string) string {
	parts := strings.Split(filepath.ToSlash(p), "/")
	drive := len(parts) > 1 && driveForm.MatchString(parts[0])
	for i := range parts {
		if i > 0 || !drive {
			parts[i] = strings.ReplaceAll(url.PathEscape(parts[i]), ":", "%3A")
		}
	}
	s := strings.Join(parts, "/")
	switch {
	case drive:
		return "file:///" + s
	case strings.HasPrefix(s, "/"):
		return "file://" + s
	}
	return s
}

var driveForm = lazily(`^[A-Za-z]:$`)
