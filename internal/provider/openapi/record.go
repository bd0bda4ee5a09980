package openapi

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"go.yaml.in/yaml/v4"

	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
)

var slugs = regexp.MustCompile(`\A[a-z][a-z0-9_]{1,39}\z`)

// methods are those that a tool can have, in the order in which tools are made.
var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}

// Bounds of a record that is made. They leave room for a person's changes.
const (
	maxTools  = 400
	maxYAML   = 220 << 10
	maxValues = 17_000
	maxTells  = 5000 // notes
)

// The record as it is written, in the order in which people read it.
type (
	record struct {
		ID       string       `yaml:"id"`
		Name     string       `yaml:"name"`
		About    about        `yaml:"about"`
		Auth     string       `yaml:"auth"`
		OAuth    *oauth       `yaml:"oauth2,omitempty"`
		Identity *identity    `yaml:"identity,omitempty"`
		API      api          `yaml:"api"`
		Inject   *inject      `yaml:"inject,omitempty"`
		Cut      []string     `yaml:"cut"`
		Tools    []*yaml.Node `yaml:"tools,omitempty"`
	}
	about struct {
		Confidence string   `yaml:"confidence"`
		Notes      []string `yaml:"notes"`
	}
	oauth struct {
		AuthorizeURL string      `yaml:"authorize_url"`
		TokenURL     string      `yaml:"token_url"`
		Scopes       *scopes     `yaml:"scopes,omitempty"`
		Refresh      *refreshing `yaml:"refresh,omitempty"`
	}
	refreshing struct {
		URL string `yaml:"url"`
	}
	scopes struct {
		Catalog []scope `yaml:"catalog,omitempty"`
	}
	scope struct {
		ID    string `yaml:"id"`
		Title string `yaml:"title"`
		Risk  string `yaml:"risk"`
	}
	identity struct {
		Path  string `yaml:"path"`
		ID    string `yaml:"id"`
		Label string `yaml:"label,omitempty"`
	}
	api struct {
		Base []string `yaml:"base"`
	}
	inject struct {
		Header string `yaml:"header,omitempty"`
		Query  string `yaml:"query,omitempty"`
		Format string `yaml:"format,omitempty"`
		Basic  *basic `yaml:"basic,omitempty"`
	}
	basic struct {
		Username string `yaml:"username"`
		Password string `yaml:"password"`
	}
	tool struct {
		Name        string         `yaml:"name"`
		Title       string         `yaml:"title"`
		Description string         `yaml:"description"`
		Effect      string         `yaml:"effect"`
		Scopes      []string       `yaml:"scopes,omitempty"`
		Input       map[string]any `yaml:"input"`
		Request     request        `yaml:"request"`
	}
	request struct {
		Method  string            `yaml:"method"`
		Path    string            `yaml:"path"`
		Query   map[string]string `yaml:"query,omitempty"`
		Headers map[string]string `yaml:"headers,omitempty"`
		Body    any               `yaml:"body,omitempty"`
		Encode  string            `yaml:"encode,omitempty"`
	}
)

// draft is a record in the making.
type draft struct {
	doc     *openapi3.T
	options Options
	out     record
	base    string
	scheme  string // the security scheme that the record holds
	names   map[string]bool
	cut     map[string]bool
	size    int // of the tools, as written
	values  int
	result  Draft
}

func newDraft(doc *openapi3.T, o Options) *draft {
	d := &draft{doc: doc, options: o, names: map[string]bool{"read": true, "write": true, "destroy": true}, cut: map[string]bool{}}
	for _, name := range strings.Fields("access_token refresh_token id_token client_secret password private_key api_key secret") {
		d.cut[name] = true
	}
	return d
}

func (d *draft) left(where, text string) { d.result.Left = tell(d.result.Left, where, text) }
func (d *draft) flag(where, text string) { d.result.Flagged = tell(d.result.Flagged, where, text) }

func tell(list []Note, where, text string) []Note {
	if len(list) >= maxTells {
		return list
	}
	return append(list, Note{where, text})
}

func (d *draft) record() (Draft, error) {
	title := ""
	if d.doc.Info != nil {
		title = oneLine(d.doc.Info.Title, 80)
	}
	if title == "" {
		title = "Imported"
	}
	d.out.Name, d.out.ID = title, d.options.ID
	if d.out.ID == "" {
		d.out.ID = slug(title)
	}
	if !slugs.MatchString(d.out.ID) {
		return Draft{}, invalid("The id "+quoted(d.out.ID)+" is no slug.", "Use 2 to 40 of a-z, 0-9 and _, starting with a letter.")
	}
	if err := d.server(d.options.Server); err != nil {
		return Draft{}, err
	}
	d.out.API.Base = []string{d.base}
	d.auth()
	if d.out.Identity == nil {
		if d.out.Identity = d.whoAmI(); d.out.Identity != nil {
			d.flag("identity", "Whose account it is was guessed to be told by "+d.out.Identity.Path+".")
		}
	}
	for _, path := range d.paths() {
		d.path(path, d.doc.Paths.Value(path))
	}
	if len(d.out.Tools) == 0 {
		return Draft{}, invalid("No operation of the description can become a tool.", leftHint(d.result.Left))
	}
	d.out.Cut = slices.Sorted(maps.Keys(d.cut))
	d.out.About = about{Confidence: "low", Notes: []string{
		fmt.Sprintf("Drafted from an OpenAPI description (%s). Effects were guessed from methods, paths and names.", oneLine(d.doc.OpenAPI, 20)),
	}}
	text, err := d.settle()
	if err != nil {
		return Draft{}, err
	}
	d.result.YAML, d.result.ID, d.result.Tools = string(text), d.out.ID, len(d.out.Tools)
	return d.result, nil
}

// settle writes the record. A tool that does what another one of effect access
// does, with some value for that one's argument, has that effect, too: the linter
// names such tools.
func (d *draft) settle() ([]byte, error) {
	for {
		text, err := yaml.Dump(d.out)
		if err != nil {
			return nil, fmt.Errorf("write a record: %w", err)
		}
		_, err = provider.Parse(text)
		if err == nil {
			return text, nil
		}
		raised := false
		for _, p := range provider.Problems(err) {
			var at int
			if n, scanErr := fmt.Sscanf(p.Field, "tools[%d].effect", &at); n == 1 && scanErr == nil && at < len(d.out.Tools) {
				raised = d.raise(d.out.Tools[at]) || raised
			}
		}
		if !raised {
			return nil, err
		}
	}
}

// raise makes a tool's effect access. It reports whether it was another.
func (d *draft) raise(n *yaml.Node) bool {
	name := ""
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch n.Content[i].Value {
		case "name":
			name = n.Content[i+1].Value
		case "effect":
			if n.Content[i+1].Value == string(policy.Access) {
				return false
			}
			const why = "Its path is one that a tool of effect access reaches with some argument, so that each call needs its own approval."
			n.Content[i+1].Value, n.HeadComment = string(policy.Access), "# Review: "+why
			d.flag("tool "+name, why)
			return true
		}
	}
	return false
}

func leftHint(left []Note) string {
	if len(left) == 0 {
		return ""
	}
	return left[len(left)-1].Where + ": " + left[len(left)-1].Text
}

// paths lists those that are asked for, in their order.
func (d *draft) paths() []string {
	var out []string
	for _, path := range slices.Sorted(maps.Keys(d.doc.Paths.Map())) {
		if len(d.options.Only) == 0 || slices.ContainsFunc(d.options.Only, func(p string) bool { return strings.HasPrefix(path, p) }) {
			out = append(out, path)
		}
	}
	return out
}

func (d *draft) path(path string, item *openapi3.PathItem) {
	if item == nil {
		return
	}
	for _, method := range methods {
		op := item.GetOperation(method)
		if op == nil {
			continue
		}
		where := method + " " + oneLine(path, 200)
		if method == "HEAD" {
			d.left(where, "GET says the same and more.")
			continue
		}
		if why := d.operation(where, method, path, item, op); why != "" {
			d.left(where, why)
		}
	}
	for _, method := range []string{"OPTIONS", "TRACE"} {
		if item.GetOperation(method) != nil {
			d.left(method+" "+oneLine(path, 200), "A tool has no such method.")
		}
	}
}

// operation adds a tool, or says why it cannot.
func (d *draft) operation(where, method, path string, item *openapi3.PathItem, op *openapi3.Operation) (why string) {
	switch {
	case op.Deprecated:
		return "The description calls it deprecated."
	case bundles(path):
		return "It takes requests inside its request, which nobody could approve one by one."
	case len(item.Servers) > 0 || op.Servers != nil && len(*op.Servers) > 0:
		return "It goes to a server of its own."
	case len(d.out.Tools) >= maxTools:
		return "The record is full. Import a part of the paths."
	}
	t := &tool{Title: oneLine(op.Summary, 100), Description: oneLine(op.Description, 1000)}
	b := &builder{draft: d, where: where, input: map[string]any{}, names: map[string]bool{"session": true, "connection": true}, method: method}
	t.Request = request{Method: method}
	if why := b.path(path); why != "" {
		return why
	}
	if why := b.parameters(item.Parameters, op.Parameters); why != "" {
		return why
	}
	if why := b.body(op.RequestBody); why != "" {
		return why
	}
	if b.shape.forbids {
		return "Part of its input takes no value at all."
	}
	effect, guess := effectOf(method, path, op.OperationID, op.Summary)
	t.Effect = string(effect)
	t.Name = d.name(op.OperationID, method, path)
	if t.Title == "" {
		t.Title = titleOf(t.Name)
	}
	if t.Description == "" {
		t.Description = t.Title
	}
	t.Scopes = d.scopes(op)
	t.Request.Path, t.Request.Query, t.Request.Headers, t.Request.Body, t.Request.Encode = b.route, b.query, b.headers, b.content, b.encode
	t.Input = map[string]any{"type": "object"}
	if len(b.input) > 0 {
		t.Input["properties"] = b.input
	}
	if len(b.needs) > 0 {
		t.Input["required"] = b.needs
	}
	if why = d.add(t, guess); why == "" {
		if guess != "" {
			d.flag(where, guess)
		}
		if b.shape.loose {
			d.flag(where, fmt.Sprintf("Its input is described down to %d levels only.", maxLevels))
		}
		eachAnswer(op, func(name string) {
			if hidden(name) && len(d.cut) < 200 && oneLine(name, 100) == name {
				d.cut[strings.ToLower(name)] = true
			}
		})
		return ""
	}
	delete(d.names, t.Name)
	return why
}

// add writes a tool, unless the record has no room or the linter finds what this
// package has not foreseen.
func (d *draft) add(t *tool, guess string) (why string) {
	var n yaml.Node
	text, err := yaml.Dump(t)
	if err == nil {
		err = yaml.Load(text, &n)
	}
	if err != nil || n.Kind != yaml.DocumentNode {
		return "It cannot be written down."
	}
	values := count(n.Content[0])
	if d.size+len(text)+200 > maxYAML || d.values+values > maxValues {
		return "The record is full. Import a part of the paths."
	}
	probe := d.out
	probe.About, probe.Cut, probe.Tools = about{Confidence: "low", Notes: []string{"-"}}, nil, []*yaml.Node{n.Content[0]}
	whole, err := yaml.Dump(probe)
	if err != nil {
		return "It cannot be written down."
	}
	if _, err := provider.Parse(whole); err != nil {
		problem := provider.Problems(err)[0]
		return "A record does not take it: " + oneLine(problem.Field+": "+problem.Message, 200)
	}
	if guess != "" {
		n.Content[0].HeadComment = "# Review: " + guess
	}
	d.out.Tools, d.size = append(d.out.Tools, n.Content[0]), d.size+len(text)+2*strings.Count(string(text), "\n")
	d.values += values
	return ""
}

func count(n *yaml.Node) int {
	sum := 1
	for _, c := range n.Content {
		sum += count(c)
	}
	return sum
}

// scopes lists what the operation needs of the scheme that the record holds.
func (d *draft) scopes(op *openapi3.Operation) []string {
	if d.out.Auth != "oauth2" {
		return nil
	}
	requirements := d.doc.Security
	if op.Security != nil {
		requirements = *op.Security
	}
	for _, r := range requirements {
		if list, ok := r[d.scheme]; ok {
			return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return !plainScope(s) })
		}
	}
	return nil
}

// name makes a tool's name, which no other tool of the record has.
func (d *draft) name(id, method, path string) string {
	limit := 64 - len(d.out.ID) - len("_") - len("_999")
	name := ""
	for _, words := range [][]string{wordsAndNumbers(id), append(wordsAndNumbers(method), wordsAndNumbers(path)...)} {
		name = strings.Join(words, "_")
		name = strings.TrimRight(name[:min(len(name), limit)], "_")
		if name != "" && !d.names[name] {
			d.names[name] = true
			return name
		}
	}
	base := name
	for n := 2; d.names[name]; n++ {
		name = fmt.Sprintf("%s_%d", base, n)
	}
	d.names[name] = true
	return name
}

func titleOf(name string) string {
	s := strings.ReplaceAll(name, "_", " ")
	return strings.ToUpper(s[:1]) + s[1:]
}

// eachAnswer names the fields of a good answer, some levels deep.
func eachAnswer(op *openapi3.Operation, name func(string)) {
	if op.Responses == nil {
		return
	}
	rest := 2000
	var walk func(ref *openapi3.SchemaRef, level int)
	walk = func(ref *openapi3.SchemaRef, level int) {
		if rest--; ref == nil || ref.Value == nil || level > 4 || rest < 0 {
			return
		}
		s := ref.Value
		for _, key := range slices.Sorted(maps.Keys(s.Properties)) {
			name(key)
			walk(s.Properties[key], level+1)
		}
		walk(s.Items, level+1)
		for _, list := range []openapi3.SchemaRefs{s.AllOf, s.AnyOf, s.OneOf} {
			for _, part := range list {
				walk(part, level)
			}
		}
	}
	for _, status := range slices.Sorted(maps.Keys(op.Responses.Map())) {
		r := op.Responses.Value(status)
		if !strings.HasPrefix(status, "2") || r == nil || r.Value == nil {
			continue
		}
		for _, media := range slices.Sorted(maps.Keys(r.Value.Content)) {
			if m := r.Value.Content[media]; m != nil {
				walk(m.Schema, 0)
			}
		}
	}
}
