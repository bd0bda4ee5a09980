package scan

import (
	"go/ast"
	"go/constant"
	"go/parser"
	gotoken "go/token"
	"go/types"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A form is compiled when a scan comes to it. One that does not compile would be told by
// nobody before: this compiles each, also those of other systems, and holds that none is
// compiled when the program starts.
func TestEveryFormCompiles(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		at := gotoken.NewFileSet()
		file, err := parser.ParseFile(at, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			vars, ok := decl.(*ast.GenDecl)
			if !ok || vars.Tok != gotoken.VAR {
				continue
			}
			ast.Inspect(vars, func(x ast.Node) bool {
				call, ok := x.(*ast.CallExpr)
				if !ok {
					return true
				}
				switch types.ExprString(call.Fun) {
				case "regexp.MustCompile":
					t.Errorf("%s: an expression is compiled at the start", at.Position(call.Pos()))
				case "lazily":
					n++
					pattern, err := types.Eval(at, nil, gotoken.NoPos, types.ExprString(call.Args[0]))
					if err != nil {
						t.Errorf("%s: not a constant: %v", at.Position(call.Pos()), err)
					} else if _, err := regexp.Compile(constant.StringVal(pattern.Value)); err != nil {
						t.Errorf("%s: %v", at.Position(call.Pos()), err)
					}
				}
				return true
			})
		}
	}
	if n < 45 {
		t.Errorf("found %d forms", n)
	}
}
