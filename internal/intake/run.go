package intake

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/fault"
)

// Plan says what Run does.
type Plan struct {
	Source  Source
	Mapping Mapping
	To      *client.Client
	// Apply stores; without it nothing is changed, and the results say what would be.
	Apply bool
	// CurrentOnly takes the newest value of each secret alone.
	CurrentOnly bool
	// Done is called for each path, by one goroutine at a time. May be nil.
	Done func(Result)
}

// State is what became of one path.
type State string

const (
	Taken    State = "taken"    // new values were stored
	Would    State = "would"    // they would be, with Apply
	Same     State = "same"     // the server has all of it
	Skipped  State = "skipped"  // the mapping leaves it where it is, or it has no value
	Conflict State = "conflict" // something else has the name, or it was changed since
	Failed   State = "failed"
)

// Result is what became of one path. It holds no value.
type Result struct {
	Path     string            `json:"path"`
	Name     string            `json:"name,omitempty"` // in Ambit
	Context  map[string]string `json:"key_context,omitempty"`
	SecretID string            `json:"secret_id,omitempty"`
	State    State             `json:"state"`
	Versions int               `json:"versions"`       // that the source has
	New      int               `json:"new"`            // of them that were stored, or would be
	Gone     int               `json:"gone,omitempty"` // versions without a value at the source
	Code     string            `json:"code,omitempty"`
	Message  string            `json:"message,omitempty"` // why, if it is none of taken, would and same
}

// Summary counts results.
type Summary struct {
	Paths  int           `json:"paths"`
	States map[State]int `json:"states"`
	New    int           `json:"new_versions"`
}

// Bad is how many paths need somebody to look at them.
func (s Summary) Bad() int { return s.States[Conflict] + s.States[Failed] }

// What a secret that was brought in says of itself, in its metadata.
const (
	fromMark    = "imported_from"
	versionMark = "imported_version" // the source's name of the last version, or "A>B" while B follows A
	countMark   = "imported_count"   // how many versions came
)

const (
	atOnce    = 4 // secrets
	lookAhead = 16
)

// Run brings in what the plan says. Its error is that of listing the source, or the
// end of ctx; what goes wrong with one path is in its result and stops no other.
func Run(ctx context.Context, p Plan) (Summary, error) {
	r := &run{Plan: p, names: map[string]string{}, sum: Summary{States: map[State]int{}}}
	g, ctx := errgroup.WithContext(ctx)
	paths := make(chan string, lookAhead)
	g.Go(func() error {
		defer close(paths)
		return p.Source.Paths(ctx, func(path string) error {
			select {
			case paths <- path:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	for range atOnce {
		g.Go(func() error {
			for path := range paths {
				res := r.take(ctx, path)
				if err := ctx.Err(); err != nil {
					return err
				}
				r.tell(res)
			}
			return nil
		})
	}
	err := g.Wait()
	return r.sum, err
}

type run struct {
	Plan
	mu    sync.Mutex
	names map[string]string // of secrets, and the paths that come to them
	sum   Summary
}

func (r *run) tell(res Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sum.Paths++
	r.sum.States[res.State]++
	r.sum.New += res.New
	if r.Done != nil {
		r.Done(res)
	}
}

// take does all for one path.
func (r *run) take(ctx context.Context, path string) Result {
	res := Result{Path: path, State: Skipped}
	t, ok, err := r.Mapping.Target(path)
	if err != nil {
		return res.fails(err)
	}
	if !ok {
		res.Message = "the mapping leaves it where it is"
		return res
	}
	res.Name, res.Context = t.Name, t.Context
	if other := r.claim(t.Name, path); other != "" {
		res.State, res.Code, res.Message = Conflict, "name_twice", other+" comes to the same name"
		return res
	}
	item, err := r.Source.Read(ctx, path)
	if err != nil {
		return res.fails(err)
	}
	if len(t.Context) == 0 && len(item.Context) > 0 {
		t.Context, res.Context = item.Context, item.Context
	}
	if r.CurrentOnly && len(item.Versions) > 1 {
		item.Versions = item.Versions[len(item.Versions)-1:]
	}
	res.Versions, res.Gone = len(item.Versions), item.Gone
	if len(item.Versions) == 0 {
		res.Message = "it has no value"
		return res
	}
	return r.bring(ctx, res, t, item)
}

// claim takes a name for a path, and says which path has it already.
func (r *run) claim(name, path string) (other string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if other, ok := r.names[name]; ok {
		return other
	}
	r.names[name] = path
	return ""
}

func (res Result) fails(err error) Result {
	res.State = Failed
	res.Code, res.Message = Told(err)
	return res
}

// Told is what people hear of an error: of ours, of the server's, or that it is another.
func Told(err error) (code, message string) {
	if e, ok := errors.AsType[*client.Error](err); ok {
		return e.Code, strings.TrimSpace(e.Message + " " + e.Hint)
	}
	f := fault.Of(err)
	return f.Code, strings.TrimSpace(f.Message + " " + f.Hint)
}

// bring stores the versions of item that the server does not have.
func (r *run) bring(ctx context.Context, res Result, t Target, item Item) Result {
	org := t.Context["organization_id"]
	from := r.mark(res.Path)
	found, err := r.To.Secrets(ctx, client.SecretFilter{Name: t.Name, OrganizationID: org})
	if err != nil {
		return res.fails(err)
	}
	var s client.Secret
	next := 0 // the first version that the server does not have
	if len(found.Data) > 0 {
		s = found.Data[0]
		res.SecretID = s.ID
		if s.Metadata[fromMark] != from {
			res.State, res.Code, res.Message = Conflict, "name_exists", "another secret has this name"
			return res
		}
		if item.Unnamed {
			if err := r.compare(ctx, s, org, &item); err != nil {
				return res.fails(err)
			}
		}
		if next, err = resume(s, item.Versions); err != nil {
			res.State = Conflict
			res.Code, res.Message = Told(err)
			return res
		}
	}
	res.New = len(item.Versions) - next
	switch {
	case res.New == 0 && !strings.Contains(s.Metadata[versionMark], ">"):
		res.State = Same
		return res
	case !r.Apply:
		res.State = Would
		return res
	}
	res.New = 0
	if s.ID == "" {
		if s, err = r.create(ctx, t, item, from); err != nil {
			return res.fails(err)
		}
		res.SecretID, next = s.ID, 1
		res.New++
	}
	for ; next < len(item.Versions); next++ {
		if s, err = r.follow(ctx, s, org, item.Versions[next]); err != nil {
			return res.fails(err)
		}
		res.New++
	}
	if strings.Contains(s.Metadata[versionMark], ">") {
		if _, err = r.note(ctx, s, org, reached(s)); err != nil {
			return res.fails(err)
		}
	}
	res.State = Taken
	return res
}

// compare gives the version of a source that names none the name of the one that the
// server has, or of the next one, if the value is another.
func (r *run) compare(ctx context.Context, s client.Secret, org string, item *Item) error {
	last := reached(s)
	item.Versions = slices.Clone(item.Versions)
	v := &item.Versions[0]
	v.ID = last
	has, err := r.To.SecretValue(ctx, s.ID, org, "")
	if err != nil {
		return err
	}
	if valueOf(*v).Value != has.Value {
		n, _ := strconv.Atoi(last)
		v.ID = strconv.Itoa(n + 1)
	}
	return nil
}

// mark is how a secret says where it came from: no longer than metadata may be.
func (r *run) mark(path string) string {
	mark := r.Source.Name() + " " + path
	if len(mark) > 400 {
		sum := sha256.Sum256([]byte(mark))
		mark = r.Source.Name()[:min(len(r.Source.Name()), 300)] + " sha256:" + hex.EncodeToString(sum[:])
	}
	return mark
}

// resume finds the first version that the server does not have. A move that was cut
// off counts by how many versions there are: each is noted before and after.
func resume(s client.Secret, versions []Version) (next int, err error) {
	count, cerr := strconv.ParseInt(s.Metadata[countMark], 10, 64)
	last, cut := reached(s), strings.Contains(s.Metadata[versionMark], ">")
	switch {
	case cerr != nil || last == "":
		return 0, fault.New(fault.Conflict, "marks_changed", "What it noted of its import was changed.")
	case s.Version != count && !(cut && s.Version == count+1):
		return 0, fault.New(fault.Conflict, "changed_since", "It was changed in Ambit since it was imported.").WithHint("Decide which value counts; the import leaves it alone.")
	}
	for i, v := range versions {
		if v.ID == last || newer(v.ID, last) {
			if v.ID == last {
				i++
			}
			return i, nil
		}
	}
	// The source has dropped that version: what is newer cannot be told from what is
	// older, unless nothing else is left of it.
	return 0, fault.New(fault.Conflict, "version_gone", "The source no longer has the version that was imported last.").
		WithHint("Import its current value under another name, or store it by hand.")
}

// newer reports whether version a follows b, where the source counts versions.
func newer(a, b string) bool {
	m, aerr := strconv.ParseInt(a, 10, 64)
	n, berr := strconv.ParseInt(b, 10, 64)
	return aerr == nil && berr == nil && m > n
}

func (r *run) create(ctx context.Context, t Target, item Item, from string) (client.Secret, error) {
	n := client.NewSecret{Name: t.Name, SecretValue: valueOf(item.Versions[0]), Context: t.Context, Description: item.Description, Tags: append(item.Tags, t.Tags...), Metadata: map[string]string{}}
	maps.Copy(n.Metadata, item.Metadata)
	n.Metadata[fromMark], n.Metadata[versionMark], n.Metadata[countMark] = from, item.Versions[0].ID, "1"
	return r.To.CreateSecret(ctx, n)
}

// follow stores one more version, which it notes before.
func (r *run) follow(ctx context.Context, s client.Secret, org string, v Version) (client.Secret, error) {
	s, err := r.note(ctx, s, org, reached(s)+">"+v.ID)
	if err != nil {
		return s, err
	}
	return r.To.UpdateSecret(ctx, s.ID, org, valueOf(v), s.VersionID)
}

// reached is the last version that s has, whether or not a move was cut off.
func reached(s client.Secret) string {
	was, moving, cut := strings.Cut(s.Metadata[versionMark], ">")
	if count, _ := strconv.ParseInt(s.Metadata[countMark], 10, 64); cut && s.Version == count+1 {
		return moving
	}
	return was
}

// note writes into s how far its import has come.
func (r *run) note(ctx context.Context, s client.Secret, org, version string) (client.Secret, error) {
	all := maps.Clone(s.Metadata)
	all[versionMark], all[countMark] = version, fmt.Sprint(s.Version)
	return r.To.EditSecret(ctx, s.ID, org, client.SecretEdit{Metadata: &all})
}

// valueOf is a value as the server takes it.
func valueOf(v Version) client.SecretValue {
	out := client.SecretValue{ExpiresAt: v.Expires}
	if v.Binary {
		out.Bytes, out.Content = v.Value.Reveal(), "binary"
		return out
	}
	out.Value = string(v.Value.Reveal())
	return out
}
