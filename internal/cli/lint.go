package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/provider"
)

// linted is what a check of one file found.
type linted struct {
	File string `json:"file"`
	client.Lint

	record   provider.Record
	problems []provider.Problem
}

func (c *command) providerLint() *cobra.Command {
	return &cobra.Command{
		Use: "lint FILE...", Short: "Check provider records on this machine, without a server",
		Long: "Check provider records (- is standard input) and say all that is wrong with them, where, and what mends it. Nothing is\n" +
			"sent anywhere. The exit code is 1 if anything is wrong in any file.\n\n" +
			"Each problem starts with FILE:LINE:COLUMN, as compilers print it, so that editors can go there.",
		Example: "  ambit provider lint acme.yaml\n  ambit provider lint providers/*.yaml\n" +
			"  ambit provider lint acme.yaml --json | jq '.data[].problems[]'",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{fmt.Errorf("%s takes the files of the records, or - for standard input", cmd.CommandPath())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			files, bad := make([]linted, 0, len(args)), 0
			for _, path := range args {
				l := linted{File: path}
				text, err := c.readFile(cmd.Context(), path)
				if cmd.Context().Err() != nil {
					return err
				}
				if err == nil {
					l.record, err = provider.Parse(text)
				}
				l.problems = provider.Problems(err)
				l.Lint = client.Lint{Valid: err == nil, ID: l.record.ID, Problems: recordProblems(l.problems)}
				files, bad = append(files, l), bad+len(l.problems)
			}
			err := c.show(map[string]any{"valid": bad == 0, "data": files}, func() {
				for _, l := range files {
					c.sayLint(l, len(files) == 1)
				}
			})
			if err != nil || bad == 0 {
				return err
			}
			return invalidRecord(bad)
		},
	}
}

func recordProblems(list []provider.Problem) []client.RecordProblem {
	out := make([]client.RecordProblem, len(list))
	for i, p := range list {
		out[i] = client.RecordProblem(p)
	}
	return out
}

func invalidRecord(problems int) *fault.Error {
	return fault.New(fault.Invalid, "record_invalid", "The provider record is not valid: "+count(int64(problems), "problem", "problems")+".").
		WithHint("docs/providers.md explains every field.")
}

// sayProblems prints what is wrong with one file, each problem on a line with its
// place and one with what mends it.
func sayProblems(w io.Writer, path string, list []provider.Problem) {
	for _, p := range list {
		place := path
		if p.Line > 0 {
			place += fmt.Sprintf(":%d:%d", p.Line, p.Column)
		}
		if p.Field != "" {
			place += ": " + p.Field
		}
		fmt.Fprintf(w, "%s: %s\n", plain(place), plain(p.Message))
		if p.Fix != "" {
			fmt.Fprintf(w, "    %s\n", plain(p.Fix))
		}
	}
}

// sayLint prints one file, and, of the only one, its tools.
func (c *command) sayLint(l linted, only bool) {
	if !l.Valid {
		sayProblems(c.stdout, l.File, l.problems)
		return
	}
	tools := l.record.Tools()
	c.say("%s %s: %s is valid, with %s", c.paint(c.stdout, "32", "✓"), plain(l.File), plain(l.ID), count(int64(len(tools)), "tool", "tools"))
	if !only {
		return
	}
	var rows [][]string
	for _, t := range tools {
		rows = append(rows, []string{t.Name, string(t.Effect), t.Title})
	}
	c.table([]string{"TOOL", "EFFECT", "WHAT IT DOES"}, rows, "It has no tools: agents can do nothing with it yet.")
}
