package house

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"slices"
	"strings"
	"testing"
)

// lasting finds what may live longer than a request in one file of a package:
// channels in fields of structs; maps, slices and lists in those that stand beside a
// lock; all of these in package variables; and functions that start goroutines. A
// name is "room.Type.field", "room.variable"
// or "room.function go".
func lasting(p pkg, file *ast.File) (found []string) {
	room := strings.TrimPrefix(p.path, "internal/")
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				found = append(found, p.lastingIn(room, d.Tok, spec)...)
			}
		case *ast.FuncDecl:
			if n := starts(p, d); n > 0 {
				found = append(found, fmt.Sprintf("%s.%s go", room, funcName(d)))
			}
		}
	}
	return found
}

func (p pkg) lastingIn(room string, tok token.Token, spec ast.Spec) (found []string) {
	switch spec := spec.(type) {
	case *ast.TypeSpec:
		ast.Inspect(spec.Type, func(n ast.Node) bool {
			if s, ok := n.(*ast.StructType); ok {
				shared := slices.ContainsFunc(s.Fields.List, func(f *ast.Field) bool { return guards(p.info.TypeOf(f.Type)) })
				for _, field := range s.Fields.List {
					if t := p.info.TypeOf(field.Type); waits(t) || shared && grows(t) {
						for _, name := range field.Names {
							found = append(found, room+"."+spec.Name.Name+"."+name.Name)
						}
					}
				}
			}
			return true
		})
	case *ast.ValueSpec:
		for _, name := range spec.Names {
			if o := p.info.Defs[name]; tok == token.VAR && o != nil && name.Name != "_" && (waits(o.Type()) || grows(o.Type())) {
				found = append(found, room+"."+name.Name)
			}
		}
	}
	return found
}

// guards reports whether a type is there because several goroutines use what stands
// beside it. What has no such neighbour is one goroutine's own, or never changes.
func guards(t types.Type) bool {
	name := strings.TrimPrefix(types.TypeString(t, nil), "*")
	return strings.HasPrefix(name, "sync.") || strings.HasPrefix(name, "sync/atomic.")
}

func waits(t types.Type) bool {
	_, is := t.Underlying().(*types.Chan)
	return is
}

func grows(t types.Type) bool {
	switch strings.TrimPrefix(types.TypeString(t, nil), "*") {
	case "sync.Map", "container/list.List":
		return true
	}
	switch t.Underlying().(type) {
	case *types.Map, *types.Slice:
		return true
	}
	return false
}

// starts counts the goroutines that a function starts: by go, or by a method Go of
// a group.
func starts(p pkg, f *ast.FuncDecl) (n int) {
	ast.Inspect(f, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.GoStmt:
			n++
		case *ast.CallExpr:
			if sel, ok := node.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Go" {
				n++
			}
		}
		return true
	})
	return n
}

func funcName(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return f.Name.Name
	}
	t := f.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	if id, ok := t.(*ast.Ident); ok {
		return id.Name + "." + f.Name.Name
	}
	return f.Name.Name
}

// W5, W8: nothing outlives a request without a bound and somebody who ends it.
func TestWhatLastsIsBounded(t *testing.T) {
	t.Parallel()
	found := map[string]bool{}
	for _, p := range ours(t) {
		if !strings.HasPrefix(p.path, "internal/") || isApart(p.path) || forTests(p.path) {
			continue
		}
		for name, file := range p.files {
			for _, what := range lasting(p, file) {
				found[what] = true
				if b := bounded[what]; b.bound == "" || b.ends == "" {
					t.Errorf("%s: %s outlives a request: say in bounded_test.go what bounds it and who ends it", name, what)
				}
			}
		}
	}
	for what := range bounded {
		if !found[what] {
			t.Errorf("bounded lists %s, which is not there any more: remove it", what)
		}
	}
}

// The test must see what it is about.
func TestWhatLastsIsSeen(t *testing.T) {
	t.Parallel()
	ours(t)
	const planted = `package planted

import (
	"container/list"
	"sync"
)

type shared struct {
	mu     sync.Mutex
	rows   map[string]int
	queue  []int
	recent *list.List
	done   chan struct{}
	name   string
}

type own struct {
	rows map[string]int
	done <-chan struct{}
}

var table = map[string]int{}

func (s *shared) run() { go func() {}() }

func group(wg *sync.WaitGroup) { wg.Go(func() {}) }

func quiet() { _ = table }
`
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "planted.go", planted, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := pkg{path: "internal/planted", fset: fset, info: newInfo()}
	if _, err := (&types.Config{Importer: exported}).Check("planted", fset, []*ast.File{file}, p.info); err != nil {
		t.Fatal(err)
	}
	got := lasting(p, file)
	want := []string{"planted.shared.rows", "planted.shared.queue", "planted.shared.recent", "planted.shared.done", "planted.own.done",
		"planted.table", "planted.shared.run go", "planted.group go"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
