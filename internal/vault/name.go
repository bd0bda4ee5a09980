package vault

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/ambit-dev/ambit/internal/fault"
)

// The limits of named secrets.
const (
	MaxName         = 200     // characters of a name
	MaxValue        = 1 << 20 // bytes of a value
	MaxContextItems = 10
	MaxContextName  = 120 // characters of the name of a key context item
	MaxContextValue = 500 // characters of its value
	MaxDescription  = 500 // characters
	MaxTags         = 32
	MaxTag          = 64 // characters
	MaxMetadata     = 32 // entries
	MaxMetadataName = 64 // characters
	MaxMetadataText = 500
)

// canonicalName gives the one form under which a name is stored and looked up,
// so that two spellings of one name never name two secrets (threats.md G8): that
// of Unicode's compatibility forms, without space around it. Upper and lower case
// differ.
func canonicalName(s string) (string, error) {
	name, ok := spelled(s)
	name = strings.TrimSpace(name)
	if n := utf8.RuneCountInString(name); !ok || n < 1 || n > MaxName {
		return "", fault.New(fault.Invalid, "invalid_name", fmt.Sprintf("The name must have 1 to %d characters, none of them a control character.", MaxName))
	}
	return name, nil
}

// folded is the form of a name, or of a part of one, in which it is searched.
func folded(name string) string { return norm.NFC.String(strings.ToLower(name)) }

// otherSpellings are names that other systems have for items that choose a key here.
// Under them a value would lie beside its organization's key and not under it.
var otherSpellings = map[string]string{"organizationId": organizationItem, "userId": userItem}

// canonicalContext gives the one form of a key context that an application
// sent. It refuses one whose names become equal only then.
func canonicalContext(c map[string]string) (map[string]string, error) {
	invalid := func(why string) error {
		return fault.New(fault.Invalid, "invalid_key_context", "The key context is not valid: "+why+".")
	}
	if len(c) > MaxContextItems {
		return nil, invalid(fmt.Sprintf("it has over %d items", MaxContextItems))
	}
	out := make(map[string]string, len(c))
	for k, v := range c {
		name, okName := plain(k)
		value, okValue := plain(v)
		if !okName || !okValue {
			return nil, invalid("it holds a control character")
		}
		if n := utf8.RuneCountInString(name); n < 1 || n > MaxContextName {
			return nil, invalid(fmt.Sprintf("the name of an item must have 1 to %d characters", MaxContextName))
		}
		if utf8.RuneCountInString(value) > MaxContextValue {
			return nil, invalid(fmt.Sprintf("a value has over %d characters", MaxContextValue))
		}
		if ours := otherSpellings[name]; ours != "" && c[ours] == "" {
			return nil, fault.Of(invalid("there is no item " + name)).WithHint("Its name is " + ours + ".")
		}
		if _, twice := out[name]; twice {
			return nil, invalid("two of its names are the same text")
		}
		out[name] = value
	}
	return out, nil
}

// spelled is s as a name, or the beginning of one, is spelled. What nobody can see
// is in none.
func spelled(s string) (string, bool) {
	if _, ok := plain(s); !ok || strings.ContainsFunc(s, func(r rune) bool {
		return unicode.In(r, unicode.Cf, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point)
	}) {
		return "", false
	}
	return norm.NFKC.String(s), true
}

// canonical gives the one form of facts.
func (f Facts) canonical() (Facts, error) {
	invalid := func(why string) error {
		return fault.New(fault.Invalid, "invalid_facts", "What is noted about the secret is not valid: "+why+".")
	}
	out := Facts{}
	var ok bool
	if out.Description, ok = paragraph(f.Description); !ok || utf8.RuneCountInString(out.Description) > MaxDescription {
		return Facts{}, invalid(fmt.Sprintf("the description has over %d characters, or control characters", MaxDescription))
	}
	for _, t := range f.Tags {
		tag, ok := spelled(t)
		tag = folded(strings.TrimSpace(tag))
		if n := utf8.RuneCountInString(tag); !ok || n < 1 || n > MaxTag {
			return Facts{}, invalid(fmt.Sprintf("a tag has 1 to %d characters", MaxTag))
		}
		out.Tags = append(out.Tags, tag)
	}
	slices.Sort(out.Tags)
	if out.Tags = slices.Compact(out.Tags); len(out.Tags) > MaxTags {
		return Facts{}, invalid(fmt.Sprintf("there are over %d tags", MaxTags))
	}
	if len(f.Metadata) > MaxMetadata {
		return Facts{}, invalid(fmt.Sprintf("there are over %d entries of metadata", MaxMetadata))
	}
	for k, v := range f.Metadata {
		name, okName := spelled(k)
		text, okText := paragraph(v)
		if n := utf8.RuneCountInString(name); !okName || !okText || n < 1 || n > MaxMetadataName || utf8.RuneCountInString(text) > MaxMetadataText {
			return Facts{}, invalid(fmt.Sprintf("a name in the metadata has 1 to %d characters and its text at most %d", MaxMetadataName, MaxMetadataText))
		}
		if _, twice := out.Metadata[name]; twice {
			return Facts{}, invalid("two names in the metadata are the same text")
		}
		if out.Metadata == nil {
			out.Metadata = map[string]string{}
		}
		out.Metadata[name] = text
	}
	return out, nil
}

// paragraph is plain, with line breaks.
func paragraph(s string) (string, bool) {
	_, ok := plain(strings.ReplaceAll(s, "\n", ""))
	return norm.NFC.String(s), ok
}

// labelsOf are what a secret is found by, besides its name: its tags and the items
// of its key context. The length in front of an item's name keeps two items apart.
func labelsOf(items map[string]string, tags []string) []string {
	var out []string
	for k, v := range items {
		out = append(out, contextLabel(k, v))
	}
	for _, t := range tags {
		out = append(out, tagLabel(t))
	}
	slices.Sort(out)
	return out
}

func contextLabel(name, value string) string {
	return fmt.Sprintf("c:%d:%s%s", utf8.RuneCountInString(name), name, value)
}

func tagLabel(tag string) string { return "t:" + tag }

// plain is s in normalization form C. It is false for text with control
// characters, line separators or marks that turn the direction of writing: they
// make one name look like another.
func plain(s string) (string, bool) {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp, unicode.Bidi_Control)
	}) {
		return "", false
	}
	return norm.NFC.String(s), true
}
