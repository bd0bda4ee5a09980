package provider

import (
	"encoding/json"
	"regexp"
	"strings"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// Limits of one part, in bytes.
const (
	maxPart  = 8 << 10
	maxLines = 32 << 10 // a chain of certificates
)

// Take checks what a person gave against the record's fields, and makes the parts
// of it. Messages name parts and show no value.
func (r Record) Take(given map[string]secret.Value) (map[string]secret.Value, error) {
	fields := r.Given()
	names := strings.Join(r.CredentialFields(), ", ")
	parts, used := map[string]secret.Value{}, 0
	for _, f := range fields {
		v, ok := given[f.Name]
		if ok {
			used++
		}
		if v.IsZero() {
			if !f.Optional {
				return nil, badPart("The " + f.Name + " is missing.").WithHint("Give " + names + ".")
			}
			continue
		}
		if v.Len() > maxPart && !f.Lines || v.Len() > maxLines {
			return nil, badPart("The " + f.Name + " is too long.")
		}
		if err := f.into(parts, v); err != nil {
			return nil, err
		}
	}
	if used != len(given) {
		return nil, badPart("The provider takes " + names + ", and nothing else.")
	}
	return parts, nil
}

func badPart(message string) *fault.Error {
	return fault.New(fault.Invalid, "invalid_credential", message)
}

func (f Part) into(parts map[string]secret.Value, v secret.Value) error {
	text := string(v.Reveal())
	if f.Upper {
		text = strings.ToUpper(text)
		v = secret.FromString(text)
	}
	if f.Pattern != "" {
		if ok, err := regexp.MatchString(`\A(?:`+f.Pattern+`)\z`, text); err != nil || !ok {
			return badPart("The " + f.Name + " does not look like one.").WithHint(f.Help)
		}
	}
	if len(f.Unpack) == 0 {
		parts[f.Name] = v
		return nil
	}
	var doc map[string]any
	if strictjson.Check(v.Reveal(), strictjson.Limits{}) != nil || json.Unmarshal(v.Reveal(), &doc) != nil {
		return badPart("The " + f.Name + " is not a JSON object.").WithHint("Give the whole file as the provider made it.")
	}
	for _, name := range f.Unpack {
		s, _ := doc[name].(string)
		if s == "" {
			return badPart("The " + f.Name + " holds no " + name + ".").WithHint("Give the whole file as the provider made it.")
		}
		parts[name] = secret.FromString(s)
	}
	return nil
}

// Fill renders a template over parts. ok is false when a part is missing.
func Fill(text string, parts map[string]secret.Value) (out string, ok bool) {
	format, _ := parseFormat(text)
	var b strings.Builder
	for _, p := range format {
		if p.arg == "" {
			b.WriteString(p.text)
			continue
		}
		v, there := parts[p.arg]
		if !there || v.IsZero() {
			return "", false
		}
		b.Write(v.Reveal())
	}
	return b.String(), true
}
