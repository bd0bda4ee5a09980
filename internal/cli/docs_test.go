package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ambit-dev/ambit/internal/provider"
)

func blocks(t *testing.T, file, language string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```").FindAllSubmatch(text, -1) {
		out = append(out, string(m[1]))
	}
	return out
}

// Every command that the documents show exists, with the flags they give it.
func TestDocumentedCommandsExist(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, file := range append(files, "../../README.md") {
		for _, block := range blocks(t, file, "sh") {
			block = strings.ReplaceAll(block, "\\\n", " ")
			for line := range strings.Lines(block) {
				line, _, _ = strings.Cut(line, " #")
				line, _, _ = strings.Cut(line, " <")
				line, _, _ = strings.Cut(line, " > ")
				args := shellWords(line)
				if len(args) == 0 || args[0] != "ambit" {
					continue
				}
				seen++
				c := &command{env: map[string]string{}, stdin: &bytes.Buffer{}, stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}}
				cmd, rest, err := c.root().Find(args[1:])
				if err == nil {
					err = cmd.ParseFlags(rest)
				}
				if err == nil {
					err = cmd.ValidateArgs(cmd.Flags().Args())
				}
				if err != nil || cmd.HasSubCommands() {
					t.Errorf("%s: %s: %v", filepath.Base(file), strings.TrimSpace(line), err)
				}
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d commands were found", seen)
	}
}

// shellWords splits like a shell, as far as the documents need it.
func shellWords(line string) []string {
	var out []string
	for _, m := range regexp.MustCompile(`(?:[^\s']|'[^']*')+`).FindAllString(line, -1) {
		out = append(out, strings.ReplaceAll(m, "'", ""))
	}
	return out
}

// The records in the documents are valid, and every field of a record is there.
func TestDocumentedRecords(t *testing.T) {
	t.Parallel()
	const file = "../../docs/providers.md"
	records := blocks(t, file, "yaml")
	if len(records) < 2 {
		t.Fatalf("got %d records", len(records))
	}
	for _, text := range records {
		if _, err := provider.Parse([]byte(text)); err != nil {
			t.Errorf("%v\n%s", provider.Problems(err), text)
		}
	}
	doc, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range fields(reflect.TypeFor[provider.Record]()) {
		if !regexp.MustCompile("(?m)`[^`\n]*\\b" + name + "\\b[^`\n]*`").Match(doc) {
			t.Errorf("docs/providers.md does not explain %s", name)
		}
	}
}

func fields(t reflect.Type) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	var out []string
	if t.Kind() != reflect.Struct {
		return nil
	}
	for f := range t.Fields() {
		if name := f.Tag.Get("yaml"); name != "" {
			out = append(append(out, name), fields(f.Type)...)
		}
	}
	return out
}

// Every command has what its help needs.
func TestHelp(t *testing.T) {
	t.Parallel()
	c := &command{env: map[string]string{}, stdin: &bytes.Buffer{}, stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}}
	var look func(cmd *cobra.Command)
	look = func(cmd *cobra.Command) {
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") || len(cmd.Short) > 100 {
			t.Errorf("%s: the short help is %q", cmd.CommandPath(), cmd.Short)
		}
		for line := range strings.Lines(cmd.Long) {
			if len(line) > 125 {
				t.Errorf("%s: a line of the help is too long: %q", cmd.CommandPath(), line)
			}
		}
		if cmd.Runnable() && !cmd.HasSubCommands() && cmd.Args == nil {
			t.Errorf("%s takes any arguments", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			look(sub)
		}
	}
	look(c.root())
}

// A bug: pflag takes what a usage has in backquotes for the name of the flag's
// value, and --if-version took a value called "ambit provider show".
func TestFlagValueNames(t *testing.T) {
	t.Parallel()
	c := &command{env: map[string]string{}, stdin: &bytes.Buffer{}, stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}}
	seen := 0
	var look func(cmd *cobra.Command)
	look = func(cmd *cobra.Command) {
		for _, set := range []*pflag.FlagSet{cmd.LocalFlags(), cmd.PersistentFlags()} {
			set.VisitAll(func(f *pflag.Flag) {
				seen++
				if name, _ := pflag.UnquoteUsage(f); strings.ContainsAny(name, " \t") {
					t.Errorf("%s --%s: the help names its value %q", cmd.CommandPath(), f.Name, name)
				}
			})
		}
		for _, sub := range cmd.Commands() {
			look(sub)
		}
	}
	look(c.root())
	if seen < 100 {
		t.Errorf("only %d flags were seen", seen)
	}
}
