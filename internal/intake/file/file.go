// Package file reads secrets from files: dotenv files, and the exports of Infisical
// (JSON, YAML, CSV, dotenv) and 1Password (1PUX, CSV). A file is read once, whole, and
// never written. Which form an export has, its content says.
package file

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/intake"
	"github.com/ambit-dev/ambit/internal/secret"
)

// MaxFile bounds a file, and what an export unpacks to, in bytes.
const MaxFile = 256 << 20

// Source is the content of a file. It is safe for concurrent use.
type Source struct {
	name  string
	paths []string
	items map[string]intake.Item
}

// Name says which file it was, and of which kind. One of another folder is another
// source, whatever its name.
func (s *Source) Name() string { return s.name }

// Paths gives what the file holds, in its order.
func (s *Source) Paths(_ context.Context, fn func(path string) error) error {
	for _, p := range s.paths {
		if err := fn(p); err != nil {
			return err
		}
	}
	return nil
}

// Read gives one.
func (s *Source) Read(_ context.Context, path string) (intake.Item, error) { return s.items[path], nil }

func newSource(kind, file string) *Source {
	if full, err := filepath.Abs(file); err == nil {
		file = full
	}
	return &Source{name: kind + " " + file, items: map[string]intake.Item{}}
}

// add takes a secret. A second one of the same path gets a number.
func (s *Source) add(path, value string, item intake.Item) {
	if value == "" {
		return
	}
	free := path
	for i := 2; ; i++ {
		if _, taken := s.items[free]; !taken {
			break
		}
		free = fmt.Sprintf("%s (%d)", path, i)
	}
	item.Unnamed, item.Versions = true, []intake.Version{{ID: "1", Value: secret.FromString(value)}}
	s.items[free], s.paths = item, append(s.paths, free)
}

// Dotenv reads a dotenv file: one secret a variable, of which the last line counts.
func Dotenv(file string) (*Source, error) {
	doc, err := read(file)
	if err != nil {
		return nil, err
	}
	all, err := dotenv(string(doc))
	if err != nil {
		return nil, err
	}
	s, last := newSource("dotenv", file), map[string]entry{}
	for _, e := range all {
		last[e.name] = e
	}
	for _, e := range all {
		if last[e.name] == e {
			s.add(e.name, e.value, intake.Item{})
		}
	}
	return s, nil
}

// pux is what a 1PUX archive holds of use here.
type pux struct {
	Accounts []struct {
		Vaults []struct {
			Attrs struct {
				Name string `json:"name"`
			} `json:"attrs"`
			Items []puxItem `json:"items"`
		} `json:"vaults"`
	} `json:"accounts"`
}

type puxItem struct {
	State    string `json:"state"`
	Overview struct {
		Title string   `json:"title"`
		URL   string   `json:"url"`
		Tags  []string `json:"tags"`
	} `json:"overview"`
	Details struct {
		LoginFields []struct {
			Value       string `json:"value"`
			Name        string `json:"name"`
			Designation string `json:"designation"`
			FieldType   string `json:"fieldType"`
		} `json:"loginFields"`
		Password string `json:"password"`
		Sections []struct {
			Title  string `json:"title"`
			Fields []struct {
				Title string                     `json:"title"`
				ID    string                     `json:"id"`
				Value map[string]json.RawMessage `json:"value"`
			} `json:"fields"`
		} `json:"sections"`
	} `json:"details"`
}

// concealed are the kinds of fields whose value 1Password hides.
var concealed = []string{"concealed", "totp", "sshKey", "privateKey"}

// OnePassword reads a 1PUX archive: VAULT/ITEM/FIELD for each field that 1Password
// hides; or its CSV, which has logins alone: ITEM/password and ITEM/otp. Archived items,
// attachments and what is no secret stay behind.
func OnePassword(file string) (*Source, error) {
	raw, err := read(file)
	if err != nil {
		return nil, err
	}
	const what = "an export of 1Password (1PUX or CSV)"
	if table, ok := readTable(raw, "Title", "Password"); ok {
		return onePasswordCSV(file, table), nil
	}
	archive, err := zip.NewReader(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		return nil, unreadable(file, what, err)
	}
	i := slices.IndexFunc(archive.File, func(f *zip.File) bool { return f.Name == "export.data" })
	if i < 0 {
		return nil, unreadable(file, what, errors.New("there is no export.data in it"))
	}
	size := archive.File[i].UncompressedSize64 // the reader holds it to that
	if size > MaxFile {
		return nil, fault.New(fault.TooLarge, "source_unreadable", file+" unpacks to over 256 MiB.")
	}
	f, err := archive.File[i].Open()
	if err != nil {
		return nil, unreadable(file, what, err)
	}
	defer f.Close()
	doc := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead)) // grown, it would take three times as much
	if _, err := doc.ReadFrom(io.LimitReader(f, MaxFile)); err != nil {
		return nil, unreadable(file, what, err)
	}
	var all pux
	if err := json.Unmarshal(doc.Bytes(), &all); err != nil {
		return nil, unreadable(file, what, err)
	}
	s := newSource("1password", file)
	for _, a := range all.Accounts {
		for _, v := range a.Vaults {
			for _, item := range v.Items {
				if item.State != "archived" {
					s.addItem(segment(v.Attrs.Name), item)
				}
			}
		}
	}
	return s, nil
}

func (s *Source) addItem(vault string, it puxItem) {
	at := vault + "/" + segment(it.Overview.Title) + "/"
	about := intake.Item{Description: clip(it.Overview.URL), Tags: it.Overview.Tags}
	s.add(at+"password", it.Details.Password, about)
	for _, f := range it.Details.LoginFields {
		if f.Designation == "password" || f.FieldType == "P" {
			name := f.Designation
			if name == "" {
				name = f.Name
			}
			s.add(at+segment(name), f.Value, about)
		}
	}
	for _, section := range it.Details.Sections {
		for _, f := range section.Fields {
			for _, kind := range concealed {
				if value := puxValue(f.Value[kind]); value != "" {
					name := f.Title
					if name == "" {
						name = f.ID
					}
					s.add(at+segment(name), value, about)
				}
			}
		}
	}
}

// puxValue is a hidden value: a text, or an object with a private key.
func puxValue(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	var key struct {
		PrivateKey string `json:"privateKey"`
	}
	_ = json.Unmarshal(raw, &key)
	return key.PrivateKey
}

// segment is a title as one part of a path.
func segment(s string) string {
	s = strings.TrimSpace(strings.ReplaceAll(s, "/", "-"))
	if s == "" {
		return "untitled"
	}
	return s
}

func clip(s string) string {
	if r := []rune(s); len(r) > 400 {
		return string(r[:400])
	}
	return s
}

func read(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fault.New(fault.NotFound, "source_missing", "The file cannot be read: "+file+".").WithCause(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && !info.Mode().IsRegular() {
		return nil, fault.New(fault.Invalid, "source_unreadable", file+" is no file.")
	}
	doc, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, fault.New(fault.NotFound, "source_missing", "The file cannot be read: "+file+".").WithCause(err)
	}
	if len(doc) > MaxFile {
		return nil, fault.New(fault.TooLarge, "source_unreadable", file+" has over 256 MiB.")
	}
	return doc, nil
}

// unreadable says nothing of what stands in the file; err is for the log.
func unreadable(file, what string, err error) error {
	return fault.New(fault.Invalid, "source_unreadable", file+" is not "+what+".").WithCause(fmt.Errorf("reading it (%T)", err))
}
