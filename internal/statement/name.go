package statement

import "strings"

// maxNames bounds what [Names] gives.
const maxNames = 200

// Names lists what a statement of PostgreSQL may name: tables and other relations,
// each as one to two quoted parts such as "public"."orders", and schemas by their
// names. It tells words from names by nothing but their place, so most of what it
// lists is no table: whoever asks the database which of them are there learns what
// the statement is about. A text that cannot be read names nothing.
func Names(src string) (relations, schemas []string) {
	all, err := lex(src, Postgres)
	if err != nil {
		return nil, nil
	}
	seen := map[string]bool{}
	for i := 0; i < len(all) && len(relations) < maxNames; i++ {
		if !named(all[i]) {
			continue
		}
		if i > 0 && all[i-1].is("SCHEMA") && !all[i].is("IF") || i > 2 && all[i-1].is("EXISTS") && all[i-3].is("SCHEMA") {
			schemas = append(schemas, folded(all[i]))
		}
		parts := []string{folded(all[i])}
		for i+2 < len(all) && all[i+1].op(".") && named(all[i+2]) {
			i += 2
			parts = append(parts, folded(all[i]))
		}
		parts = parts[max(0, len(parts)-2):] // before the schema stands the database
		for j, p := range parts {
			parts[j] = `"` + strings.ReplaceAll(p, `"`, `""`) + `"`
		}
		if full := strings.Join(parts, "."); !seen[full] {
			seen[full] = true
			relations = append(relations, full)
		}
	}
	return relations, schemas
}

func named(t token) bool { return (t.kind == word || t.kind == name) && t.text != "" }

// folded is a name as PostgreSQL stores it.
func folded(t token) string {
	if t.kind == word {
		return strings.ToLower(t.text)
	}
	return t.text
}
