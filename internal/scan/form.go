package scan

import (
	"regexp"
	"sync"
)

// form is an expression that is compiled when it is used for the first time: every
// command of the program has this package in it, and few of them scan.
type form struct{ get func() *regexp.Regexp }

func lazily(pattern string) form {
	return form{sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })}
}

func (f form) Match(b []byte) bool                  { return f.get().Match(b) }
func (f form) MatchString(s string) bool            { return f.get().MatchString(s) }
func (f form) Find(b []byte) []byte                 { return f.get().Find(b) }
func (f form) FindIndex(b []byte) []int             { return f.get().FindIndex(b) }
func (f form) FindSubmatchIndex(b []byte) []int     { return f.get().FindSubmatchIndex(b) }
func (f form) FindStringSubmatch(s string) []string { return f.get().FindStringSubmatch(s) }
func (f form) FindAllSubmatchIndex(b []byte, n int) [][]int {
	return f.get().FindAllSubmatchIndex(b, n)
}
