package provider

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v4"

	"github.com/ambit-dev/ambit/internal/fault"
)

//go:embed known/*.yaml
var knownFiles embed.FS

// Entry is a provider that the catalogue knows. It is no [Record] yet: its
// tenant's parameters are blanks, and it has no OAuth client of ours. Filling it
// in makes a record like any other, whose places are then pinned.
type Entry struct {
	Template
	Category string
	Shown    Record // filled with examples, to show what it is; never to be used
}

// Tried says when the entry was tried with the provider itself.
func (e Entry) Tried() string {
	if e.Shown.About.Tried == "" {
		return "not yet tried live"
	}
	return "tried live on " + e.Shown.About.Tried
}

// knownEntries reads the whole catalogue, once, when it is first asked for: a server that
// only brokers calls never pays for it.
var knownEntries = sync.OnceValues(func() ([]Entry, error) { return readEntries(knownFiles) })

func readEntries(files fs.FS) ([]Entry, error) {
	paths, err := fs.Glob(files, "known/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list the catalogue: %w", err)
	}
	all := make([]Entry, 0, len(paths))
	wires := map[string]string{}
	for _, p := range paths {
		e, err := readEntry(files, strings.TrimSuffix(path.Base(p), ".yaml"))
		if err != nil {
			return nil, err
		}
		if other, twice := wires[e.Shown.Wire()]; twice {
			return nil, fmt.Errorf("the catalogue's %s and %s have one slug", other, e.ID)
		}
		wires[e.Shown.Wire()] = e.ID
		all = append(all, e)
	}
	return all, nil
}

// Entries lists the catalogue, by id.
func Entries() ([]Entry, error) { return knownEntries() }

// Search lists the entries that have all words of query in their id, name,
// category or slug, in any case.
func Search(query string) ([]Entry, error) {
	all, err := Entries()
	words := strings.Fields(strings.ToLower(query))
	var found []Entry
	for _, e := range all {
		text := strings.ToLower(e.ID + " " + e.Name + " " + e.Category + " " + e.Shown.Wire())
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) }) {
			found = append(found, e)
		}
	}
	return found, err
}

// FindEntry reads one entry of the catalogue, by id or by slug of Pipes.
func FindEntry(id string) (Entry, error) {
	if validSlug(id) {
		if e, err := readEntry(knownFiles, id); !errors.Is(err, fs.ErrNotExist) {
			return e, err
		}
	}
	all, err := Entries()
	if err != nil {
		return Entry{}, err
	}
	at := slices.IndexFunc(all, func(e Entry) bool { return e.ID == id || e.Shown.Wire() == id })
	if at < 0 {
		return Entry{}, fault.New(fault.NotFound, "not_found", "The catalogue has no such provider.").WithHint("Search it, or describe the provider yourself.")
	}
	return all[at], nil
}

func readEntry(files fs.FS, id string) (Entry, error) {
	name := "known/" + id + ".yaml"
	fail := func(err error) (Entry, error) { return Entry{}, fmt.Errorf("read the catalogue's %s: %w", name, err) }
	text, err := fs.ReadFile(files, name)
	if err != nil {
		return fail(err)
	}
	doc, err := readYAML(text)
	if err != nil {
		return fail(err)
	}
	var t struct {
		Category string    `yaml:"category"`
		Params   []Param   `yaml:"params"`
		Record   yaml.Node `yaml:"record"`
	}
	if err := doc.Load(&t, yaml.WithKnownFields()); err != nil {
		return fail(badYAML(err, text))
	}
	t.Record.Content = append([]*yaml.Node{textNode("id"), textNode("{{id}}")}, t.Record.Content...)
	e := Entry{Category: t.Category, Template: Template{ID: id, record: &t.Record}}
	e.Params = append([]Param{{Name: "id", Title: "Short name", Help: "Prefix of its tools; another one for a second of its kind", Kind: "slug", Default: id, Required: true}}, t.Params...)
	examples := map[string]string{}
	for i, p := range e.Params {
		if p.Kind == "" {
			e.Params[i].Kind = "text"
		}
		if p.Default == "" && p.Example != "" {
			examples[p.Name] = p.Example
		}
	}
	if problem := looseBlank(e.Template); problem != "" {
		return Entry{}, fmt.Errorf("read the catalogue's %s: %s", name, problem)
	}
	filled, err := e.Fill(examples)
	if err != nil {
		return fail(err)
	}
	e.Shown = filled.withExamples()
	if e.Name = e.Shown.Name; e.Shown.About.Confidence == "" {
		return Entry{}, fmt.Errorf("read the catalogue's %s: it does not say how sure it is", name)
	}
	return e, nil
}

// looseBlank finds a parameter that could put anything at all into a record's
// hosts: each is held to a pattern or to options. A pattern's characters are for
// the test that tries to get out of them.
func looseBlank(t Template) string {
	for _, p := range t.Params[1:] {
		if p.Pattern == "" && len(p.Options) == 0 {
			return "the parameter " + p.Name + " has neither pattern nor options"
		}
	}
	return ""
}

// Fill fills the blanks; see [Template.Record].
func (e Entry) Fill(params map[string]string) (Record, error) { return e.Template.Record(params) }
