// Package scan finds credentials in files: those that agents are given, those
// that lie beside them, and those that went into a transcript or a repository.
//
// It reads and never executes what it reads. What it finds is a [Finding], which
// says what the credential is, where it lies and who can read it there, and
// holds the value only as a [secret.Value]: reports carry a masked tail and a
// keyed fingerprint (threats.md P2, MCP01, MCP09). Nothing leaves the machine
// unless the caller asks to verify.
//
// A file passes three layers. Formats that are known (JSON, YAML, INI, TOML,
// dotenv, XML, and the files of well-known programs) are parsed, so that a
// finding has a key path; what is prose, code or a log is read as text; and the
// rules of gitleaks run on every value around the keywords that they name.
package scan

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
)

// Options say what is scanned and how.
type Options struct {
	// Roots are folders and files, as the user named them.
	Roots []string
	// Home adds the places of [Places] below this home folder; empty adds none.
	Home string
	// OS is the system whose places are meant, as runtime.GOOS names it; empty: of all, since
	// a home folder may have come from another.
	OS string
	// Moved are folders of places, such as ~/.codex, that the environment has elsewhere.
	Moved map[string]string
	// AppData and LocalAppData are the folders that Windows keeps settings in; empty
	// is their usual place below Home.
	AppData, LocalAppData string
	// Processes adds the environment and arguments of running agents.
	Processes bool
	// Git adds every version of every file that repositories remember: those that Roots are,
	// lie in or hold, and with Home those of the projects that agents know.
	Git bool
	// NoIgnore reads what ignore files and the list of folders of other people's code
	// leave out.
	NoIgnore bool
	// Baseline leaves out what was found and accepted before; nil accepts nothing.
	Baseline *Baseline
	// Progress is called now and then with the number of files and bytes read so far, from
	// any goroutine; nil: nobody watches.
	Progress func(files, bytes int64)
	// Now is the time by which a credential has expired; zero is the current time.
	Now time.Time
	// Key keys the fingerprints; nil is a fresh random key, so that the fingerprints of
	// two runs cannot be compared.
	Key []byte
}

// Report is what a scan saw.
type Report struct {
	Findings []Finding `json:"findings"`
	Files    int64     `json:"files"`
	Bytes    int64     `json:"bytes"`
	Skipped  []Skip    `json:"skipped,omitempty"`
	// Complete is false when the scan was interrupted, and when a place was not read in full.
	Complete bool `json:"complete"`
	// Repositories is how many histories were read; nil: none was asked for.
	Repositories *int `json:"repositories,omitempty"`
	// Notes say in sentences what a reader of the report may take for read, and was not.
	Notes []string `json:"notes,omitempty"`
	// LeftOut is how many files and folders ignore files and the list of other people's code
	// kept from being read, as far as the walk met them.
	LeftOut int `json:"left_out"`
	// Accepted is how many findings the baseline and marks in files left out.
	Accepted int `json:"accepted"`

	interrupted bool
}

// Clean reports whether nothing was found though all was read that was to be.
func (r *Report) Clean() bool { return len(r.Findings) == 0 && r.Complete }

// Skip is a place that was not read, and why.
type Skip struct {
	Path string `json:"path"`
	Why  string `json:"why"`
}

// maxFound bounds what one run holds.
const maxFound = 50_000

// maxSkips bounds the list of what was not read.
const maxSkips = 1000

// scanner is one run.
type scanner struct {
	opt   Options
	rules *ruleSet
	jobs  chan job
	files atomic.Int64
	bytes atomic.Int64

	parsing sync.Mutex // of long texts: see doc.alone

	mu       sync.Mutex
	found    []Finding
	skips    []Skip
	accepted int

	leftOut      int
	repositories *int // whose history was read; nil: none was asked for
}

// job is a file to read.
type job struct {
	path  string // to open
	shown string // to tell; empty: path
	place *Place // a known place; nil: none
}

// Run scans. With a context that ends it returns what was found so far, and the
// report says that it is not complete; the error is about what could not be begun.
func Run(ctx context.Context, opt Options) (*Report, error) {
	rules, err := loadRules()
	if err != nil {
		return nil, err
	}
	if opt.Now.IsZero() {
		opt.Now = time.Now()
	}
	if opt.Key == nil {
		opt.Key = make([]byte, 32)
		_, _ = rand.Read(opt.Key) // never fails: crypto/rand aborts the process instead
	}
	s := &scanner{opt: opt, rules: rules, jobs: make(chan job, 256)}
	for _, root := range opt.Roots {
		if err := readable(root); err != nil {
			return nil, fault.New(fault.Invalid, "path_unreadable", "Cannot read "+hidden(root)+": "+reason(err)+".")
		}
	}
	met := s.readAll(ctx)
	if opt.Processes && ctx.Err() == nil {
		s.processes(ctx)
	}
	if opt.Git && ctx.Err() == nil {
		s.histories(ctx, met)
	}
	return s.report(ctx), nil
}

// readable reports whether a root that was named can be read, so that a report never calls
// clean what nobody looked at. A pipe or device is not opened.
func readable(root string) error {
	info, err := os.Stat(root)
	if err != nil {
		return err
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return errNotRegular
	}
	f, err := os.Open(root)
	if err != nil {
		return err
	}
	return f.Close()
}

// readAll walks the roots and reads what it meets, a file for each processor at a time. It
// returns the repositories among that.
func (s *scanner) readAll(ctx context.Context) []string {
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			r := s.newReader()
			for j := range s.jobs {
				if ctx.Err() == nil {
					r.file(ctx, j)
				}
			}
		})
	}
	w := &walker{s: s, seen: map[string]bool{}}
	if s.opt.Home != "" { // first: it knows whose the files are
		w.home(ctx)
	}
	for _, root := range s.opt.Roots {
		w.root(ctx, root)
	}
	close(s.jobs)
	workers.Wait()
	s.leftOut = w.leftOut
	return w.repositories
}

// report puts together what was found: the same credential is counted, who can
// read it is looked up, and no text of the report holds any of the values.
func (s *scanner) report(ctx context.Context) *Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.found
	fingerprint(list, s.opt.Key)
	list = merged(list)
	copies(list)
	if s.opt.Baseline != nil {
		before := len(list)
		list = slices.DeleteFunc(list, s.opt.Baseline.accepts())
		s.accepted += before - len(list)
	}
	expose(ctx, list, s.opt.Home)
	for i := range list {
		e, past := &list[i].Exposure, list[i].past
		e.Committed, e.Pushed = e.Committed || past.Committed, e.Pushed || past.Pushed
	}
	h := newHider(s.rules)
	h.words(list) // before sentences are made of them
	for i := range list {
		list[i].weigh(s.opt.Now)
	}
	scrub(list, s.skips, h)
	slices.SortStableFunc(list, byRisk)
	if list == nil {
		list = []Finding{}
	}
	var notes []string
	if n := s.repositories; n != nil && *n == 0 {
		notes = append(notes, "No repository was found where --git looked, so no history was read.")
	}
	if s.leftOut > 0 {
		what := "files and folders were"
		if s.leftOut == 1 {
			what = "file or folder was"
		}
		notes = append(notes, fmt.Sprintf("%d %s left out by ignore files or as other people's code; --no-ignore reads them.", s.leftOut, what))
	}
	return &Report{
		Findings: list, Files: s.files.Load(), Bytes: s.bytes.Load(), Skipped: s.skips,
		Complete: ctx.Err() == nil && len(s.skips) == 0, interrupted: ctx.Err() != nil, LeftOut: s.leftOut, Accepted: s.accepted, Repositories: s.repositories, Notes: notes,
	}
}

func (s *scanner) add(list []Finding, accepted int) {
	if len(list) == 0 && accepted == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accepted += accepted
	if room := maxFound - len(s.found); len(list) > room {
		if len(s.skips) < maxSkips {
			s.skips = append(s.skips, Skip{list[0].File, "too much was found before it, or before a part of it"})
		}
		list = list[:room]
	}
	s.found = append(s.found, list...)
}

// hand gives what was found in a document to the run; it is deferred. A fault of a parser
// is told as a place that could not be read.
func (s *scanner) hand(d *doc) {
	if recover() != nil {
		s.skip(d.shown, "the reader failed on "+d.itself())
	}
	if d.tired {
		s.skip(d.shown, tooDense)
	}
	s.add(d.found, d.accepted)
}

func (s *scanner) skip(path, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.skips) < maxSkips {
		s.skips = append(s.skips, Skip{path, why})
	}
}

func (s *scanner) count(bytes int64) {
	files, all := s.files.Add(1), s.bytes.Add(bytes)
	if s.opt.Progress != nil && files%64 == 0 {
		s.opt.Progress(files, all)
	}
}

// reason says why a file cannot be read, without its path.
func reason(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "no permission"
	case errors.Is(err, errNotRegular):
		return "it is neither a file nor a folder"
	case errors.Is(err, fs.ErrNotExist):
		return "there is no such file"
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err.Error()
	}
	return "it cannot be read"
}

// slashed is a path as rules and lists of names know it.
func slashed(p string) string { return strings.ReplaceAll(filepath.ToSlash(p), "\\", "/") }
