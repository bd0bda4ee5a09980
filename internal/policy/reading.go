package policy

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/cedar-policy/cedar-go"
	publicast "github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

const (
	maxLikeText    = 2 << 10 // bytes of an argument that patterns are held against
	maxLikePattern = 4 << 10 // bytes of all patterns together
)

// reading is what policies look at of the arguments, by path.
type reading struct {
	names   map[string]bool
	numbers map[string]bool // those of names that count only as whole numbers
	liked   map[string]bool // those that patterns are held against
	like    int             // bytes of the patterns
	// scopes are those policies that read, without their conditions: they permit
	// what the policies could have a say in.
	scopes cedar.PolicyMap
}

func newReading() reading {
	return reading{names: map[string]bool{}, numbers: map[string]bool{}, liked: map[string]bool{}, scopes: cedar.PolicyMap{}}
}

// add notes what one policy reads. Only tags hold arguments, and a name that is
// worked out could be any: such a policy is refused.
func (r *reading) add(name cedar.PolicyID, tree *ast.Policy) error {
	var err error
	note := func(left, right ast.IsNode) {
		value, _ := right.(ast.NodeValue)
		tag, ok := value.Value.(types.String)
		if !ok {
			err = errors.New("the name of an argument is written out")
			return
		}
		r.names[string(tag)] = true
		if !isTexts(left) {
			r.numbers[string(tag)] = true
		}
		if r.scopes[name] == nil {
			scope := *tree
			scope.Effect, scope.Conditions = ast.EffectPermit, nil
			r.scopes[name] = cedar.NewPolicyFromAST((*publicast.Policy)(&scope))
		}
	}
	for _, c := range tree.Conditions {
		ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
			switch n := n.(type) {
			case ast.NodeTypeGetTag:
				note(n.Left, n.Right)
			case ast.NodeTypeHasTag:
				note(n.Left, n.Right)
			case ast.NodeTypeLike:
				r.like += len(n.Value.MarshalCedar())
				r.likes(n.Arg)
			}
			return true
		})
	}
	if err == nil && r.like > maxLikePattern {
		err = fmt.Errorf("the patterns after like are over %d bytes together", maxLikePattern)
	}
	return err
}

// likes notes the arguments that what stands before a like may be.
func (r *reading) likes(arg ast.IsNode) {
	ast.Inspect(ast.NewNode(arg), func(n ast.IsNode) bool {
		if get, ok := n.(ast.NodeTypeGetTag); ok {
			value, _ := get.Right.(ast.NodeValue)
			tag, _ := value.Value.(types.String)
			r.liked[string(tag)] = true
		}
		return true
	})
}

// isTexts reports whether a node is the arguments as text. What else has tags is
// the numbers, or may be.
func isTexts(n ast.IsNode) bool {
	switch n := n.(type) {
	case ast.NodeTypeAccess:
		return n.Value == "arguments"
	case ast.NodeValue:
		uid, ok := n.Value.(types.EntityUID)
		return ok && uid.Type == "Arguments"
	}
	return false
}

// sees reports whether what policies read of a call shows as what it is: text not
// too long for them, whole numbers where they read numbers, and no list or object
// with more in it where they read one value.
func (r *reading) sees(texts, numbers types.RecordMap) bool {
	for at, value := range texts {
		path := string(at)
		if !r.names[path] {
			for name := range r.names {
				if rest, below := strings.CutPrefix(path, name); below && strings.IndexAny(rest, ".[") == 0 {
					return false
				}
			}
			continue
		}
		if _, whole := numbers[at]; r.numbers[path] && !whole {
			return false
		}
		text, _ := value.(types.String)
		if len(text) > maxArgumentText || r.liked[path] && len(text) > maxLikeText {
			return false
		}
	}
	return true
}

// wholeText is a whole number as text, for tools that take amounts so.
var wholeText = regexp.MustCompile(`^([0-9]{1,15})(\.0{1,15})?$`)
