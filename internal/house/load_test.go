package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// pkg is one package of this module, without its tests.
type pkg struct {
	path    string // relative to the module
	imports []string
	fset    *token.FileSet
	files   map[string]*ast.File // by path relative to the module
	info    *types.Info
	broken  error // why its types are not known; then info is partial
}

// ours loads every package of the module once for all tests.
func ours(t *testing.T) []pkg {
	t.Helper()
	all, err := loaded()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var loaded = sync.OnceValues(load)

// exported gives the types of whatever our packages import; load fills it.
var exported types.Importer

// load parses our packages and checks their types against the export data that
// the compiler wrote for what they import.
func load() ([]pkg, error) {
	root := filepath.Join("..", "..")
	type listed struct {
		Dir, ImportPath, Export string
		GoFiles, Imports        []string
		Module                  *struct{ Main bool }
		Error                   *struct{ Err string }
	}
	cmd := exec.Command("go", "list", "-e", "-deps", "-export", "-json=Dir,ImportPath,Export,GoFiles,Imports,Module,Error", "./...")
	cmd.Dir = root
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, complaints.String())
	}
	exports := map[string]string{}
	var mine []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var l listed
		if err := dec.Decode(&l); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		exports[l.ImportPath] = l.Export
		if l.Module != nil && l.Module.Main {
			mine = append(mine, l)
		}
	}

	fset := token.NewFileSet()
	imp := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		if exports[path] == "" {
			return nil, fmt.Errorf("no export data for %s", path)
		}
		return os.Open(exports[path])
	})
	exported = imp
	var all []pkg
	for _, l := range mine {
		p := pkg{path: relative(l.ImportPath), fset: fset, files: map[string]*ast.File{}}
		for _, i := range l.Imports {
			if strings.HasPrefix(i, module+"/") {
				p.imports = append(p.imports, relative(i))
			}
		}
		var files []*ast.File
		for _, name := range l.GoFiles {
			f, err := parser.ParseFile(fset, filepath.Join(l.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				return nil, err
			}
			files = append(files, f)
			p.files[p.path+"/"+name] = f
		}
		p.info = newInfo()
		_, p.broken = (&types.Config{Importer: imp, Error: func(error) {}}).Check(l.ImportPath, fset, files, p.info)
		all = append(all, p)
	}
	if len(all) == 0 {
		return nil, errors.New("go list found no package of this module")
	}
	return all, nil
}

func relative(importPath string) string {
	return strings.TrimPrefix(strings.TrimPrefix(importPath, module), "/")
}

// newInfo is what the tests want to know of a package's types.
func newInfo() *types.Info {
	return &types.Info{Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}, Types: map[ast.Expr]types.TypeAndValue{}}
}
