package file

import (
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/ambit-dev/ambit/internal/intake"
)

// Infisical reads what `infisical export` wrote, in any of its forms: FOLDER/KEY of JSON,
// KEY of YAML, CSV and dotenv, which have no folders.
func Infisical(file string) (*Source, error) {
	doc, err := read(file)
	if err != nil {
		return nil, err
	}
	const what = "an export of Infisical (JSON, YAML, CSV or dotenv)"
	s := newSource("infisical", file)
	text := strings.ReplaceAll(strings.TrimPrefix(string(doc), "\ufeff"), "\r\n", "\n")
	switch {
	case strings.HasPrefix(strings.TrimSpace(text), "["):
		var all []struct {
			Key     string `json:"key"`
			Value   string `json:"value"`
			Path    string `json:"secretPath"`
			Comment string `json:"comment"`
		}
		if err := json.Unmarshal([]byte(text), &all); err != nil {
			return nil, unreadable(file, what, err)
		}
		for _, e := range all {
			if e.Key == "" {
				return nil, unreadable(file, what, errors.New("an entry has no key"))
			}
			s.add(strings.TrimPrefix(strings.Trim(e.Path, "/")+"/"+e.Key, "/"), e.Value, intake.Item{Description: clip(e.Comment)})
		}
	case assigned.MatchString(text):
		for _, e := range infisicalDotenv(text) {
			s.add(e.name, e.value, intake.Item{})
		}
	default:
		if table, ok := readTable([]byte(text), "Key", "Value"); ok {
			for _, row := range table {
				s.add(row["Key"], row["Value"], intake.Item{})
			}
			break
		}
		var all yaml.Node
		if err := yaml.Unmarshal([]byte(text), &all); err != nil || len(all.Content) != 1 || all.Content[0].Kind != yaml.MappingNode {
			return nil, unreadable(file, what, err)
		}
		for pair := range slices.Chunk(all.Content[0].Content, 2) {
			if pair[0].Kind != yaml.ScalarNode || pair[1].Kind != yaml.ScalarNode {
				return nil, unreadable(file, what, errors.New("a value is no text"))
			}
			s.add(pair[0].Value, pair[1].Value, intake.Item{}) // as it is written: 007 is no number here
		}
	}
	return s, nil
}

// assigned begins an entry of Infisical's dotenv forms. They escape nothing, so a value
// ends where the next entry begins, whatever marks are in it.
var assigned = regexp.MustCompile(`\A(?:export )?[A-Za-z_][\w.-]*='`)

var nextAssigned = regexp.MustCompile(`'\n(?:export )?[A-Za-z_][\w.-]*='`)

func infisicalDotenv(text string) (out []entry) {
	for text != "" {
		name, rest, _ := strings.Cut(strings.TrimPrefix(text, "export "), "='")
		value := strings.TrimSuffix(strings.TrimSuffix(rest, "\n"), "'")
		text = ""
		if next := nextAssigned.FindStringIndex(rest); next != nil {
			value, text = rest[:next[0]], rest[next[0]+2:]
		}
		out = append(out, entry{name: name, value: value})
	}
	return out
}
