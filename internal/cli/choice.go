package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// choice is a flag that takes one of a few words.
type choice struct {
	into *string
	of   []string
}

// notOneOf is what a choice says of another word. It does not repeat the word,
// which may be a secret that was typed at the wrong place.
type notOneOf []string

func (e notOneOf) Error() string { return "is one of " + words(e) }

func (v choice) String() string {
	if v.into == nil { // pflag asks a zero value for its default
		return ""
	}
	return *v.into
}

func (v choice) Type() string { return "word" }

func (v choice) Set(s string) error {
	if !slices.Contains(v.of, s) {
		return notOneOf(v.of)
	}
	*v.into = s
	return nil
}

// choices is a flag that takes several of them, and may be repeated.
type choices struct {
	into *[]string
	of   []string
}

func (v choices) String() string {
	if v.into == nil {
		return ""
	}
	return strings.Join(*v.into, ",")
}

func (v choices) Type() string { return "words" }

func (v choices) Set(s string) error {
	for _, w := range strings.Split(s, ",") {
		if !slices.Contains(v.of, w) {
			return notOneOf(v.of)
		}
		*v.into = append(*v.into, w)
	}
	return nil
}

func oneOf(cmd *cobra.Command, into *string, flag, what string, of ...string) {
	cmd.Flags().Var(choice{into, of}, flag, what)
	completeWith(cmd, flag, of)
}

func someOf(cmd *cobra.Command, into *[]string, flag, what string, of ...string) {
	cmd.Flags().Var(choices{into, of}, flag, what)
	completeWith(cmd, flag, of)
}

func completeWith(cmd *cobra.Command, flag string, of []string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(of, cobra.ShellCompDirectiveNoFileComp))
}
