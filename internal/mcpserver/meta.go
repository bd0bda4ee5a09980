package mcpserver

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
	"github.com/ambit-dev/ambit/internal/session"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// caller is who calls one of our own tools, and from where.
type caller struct {
	who     agent.Identity
	address string
}

// metaTool is a tool of ours: how access is found, asked for and given back.
type metaTool struct {
	tool mcp.Tool
	most policy.Effect // of a tool that calls others; run is nil
	run  func(ctx context.Context, c caller, args json.RawMessage) (answer, error)
}

func (s *Server) metaTool(name string) *metaTool {
	if i := slices.IndexFunc(s.meta, func(t metaTool) bool { return t.tool.Name == name }); i >= 0 {
		return &s.meta[i]
	}
	return nil
}

// metaTools lists our tools in the order in which an agent needs them. Output
// schemas require nothing, because a refusal has the same place in a result.
func (s *Server) metaTools() []metaTool {
	return []metaTool{
		tool("whoami", "Who am I", policy.Read,
			"Tells which agent you are, for whom you act, and what you may at most be granted.",
			`{}`, ``,
			`{"agent_id":{"type":"string"},"agent":{"type":"string"},"kind":{"type":"string"},"environment_id":{"type":"string"},"organization_id":{"type":"string"},
			"user_id":{"type":"string"},"session_id":{"type":"string"},"token_expires_at":{"type":"string"},"ceiling":{"type":"object"}}`,
			s.whoami),
		tool("list_providers", "List providers", policy.Read,
			"Lists the third parties that can be used here, which accounts are connected at each, and what kinds of effect (read, write, destructive, access) could be granted.",
			`{}`, ``,
			`{"providers":{"type":"array","items":{"type":"object"}}}`,
			s.listProviders),
		tool("search_tools", "Search tools", policy.Read,
			"Finds tools of connected accounts by words of what you want to do. Use describe_tool for the arguments of one.",
			`{"query":{"type":"string","minLength":1,"maxLength":400,"description":"What the tool should do, in a few words."},
			"provider":{"type":"string","description":"Only tools of this provider id."},
			"limit":{"type":"integer","minimum":1,"maximum":50,"default":10}}`, `["query"]`,
			`{"tools":{"type":"array","items":{"type":"object"}},"total":{"type":"integer"}}`,
			s.searchTools),
		tool("describe_tool", "Describe a tool", policy.Read,
			"Gives the description, the effect and the input schema of one tool.",
			`{"name":{"type":"string","description":"Full name of the tool."}}`, `["name"]`, ``,
			s.describeTool),
		tool("request_session", "Request a session", policy.Write,
			"Asks a person for access. Name providers (with effects) or single tools, and say in purpose what for: the person reads it. Ask once for all that the task needs, and for no more. "+
				"The answer has the session handle and an approval URL: show the URL to the person, then call check_session.",
			`{"providers":{"type":"array","items":{"type":"string"},"maxItems":20,"description":"Provider ids."},
			"tools":{"type":"array","items":{"type":"string"},"maxItems":100,"description":"Names of single tools."},
			"effects":{"type":"array","items":{"type":"string","enum":["read","write","destructive","access"]},"description":"Default: what the named tools need, or read."},
			"purpose":{"type":"string","minLength":1,"maxLength":2000,"description":"One or two sentences."},
			"minutes":{"type":"integer","minimum":1,"maximum":1440,"description":"Time limit, counted from the approval; default 30 and at most 480, unless the organization says otherwise."},
			"calls":{"type":"integer","minimum":1,"maximum":10000,"description":"The most calls that you need, if you know."},
			"limits":{"type":"array","maxItems":20,"description":"Arguments that you can do with certain values of. Tools that do not take a limited argument are left out.","items":{"type":"object","properties":{
				"provider":{"type":"string","description":"Where several are asked for."},"argument":{"type":"string"},"equals":{"type":"string"},
				"one_of":{"type":"array","items":{"type":"string"},"maxItems":50},"prefix":{"type":"string"},"max":{"type":"number","minimum":0}},"required":["argument"],"additionalProperties":false}},
			"widen":{"type":"string","description":"Handle of your session that runs, to add this to it: the person sees what would be new. It ends when it would have ended, so leave minutes and calls out."}}`, `["purpose"]`,
			sessionSchema, s.requestSession),
		tool("check_session", "Check a session", policy.Read,
			"Tells the state of your session, or with request_id of the approval of one call, and what the person wrote to you. While it is pending, waits up to wait_seconds for the decision.",
			`{"session":{"type":"string","description":"Session handle from request_session."},
			"request_id":{"type":"string","description":"From an approval_required answer."},
			"wait_seconds":{"type":"integer","minimum":0,"maximum":25,"default":0}}`, ``,
			sessionSchema, s.checkSession),
		tool("end_session", "End a session", policy.Write,
			"Gives access back as soon as the task is done, or withdraws a request that still waits.",
			`{"session":{"type":"string","description":"Session handle from request_session."}}`, `["session"]`,
			sessionSchema, s.endSession),
		tool("connect_provider", "Connect a provider", policy.Read,
			"Gives the URL where a person connects an account at a provider. You never see the credential. Show the URL to the person, then look with list_providers.",
			`{"provider":{"type":"string","description":"Provider id from list_providers."}}`, `["provider"]`,
			`{"provider":{"type":"string"},"connected":{"type":"boolean"},"connect_url":{"type":"string"}}`,
			s.connectProvider),
		callTool("call_read", "Call a tool that reads", policy.Read, "one that only reads"),
		callTool("call_write", "Call a tool that writes", policy.Write, "one that writes or reads"),
		callTool("call_destructive", "Call a tool that destroys", policy.Access, "whatever it does, also what cannot be undone and what gives access"),
	}
}

const sessionSchema = `{"session":{"type":"string"},"session_id":{"type":"string"},"state":{"type":"string"},"reason":{"type":"string"},"request_id":{"type":"string"},
"approval_url":{"type":"string"},"widens":{"type":"string"},"connect_url":{"type":"string"},"code":{"type":"string"},"purpose":{"type":"string"},"minutes":{"type":"integer"},"calls":{"type":"integer"},"calls_used":{"type":"integer"},"pending_until":{"type":"string"},"expires_at":{"type":"string"},
"tool":{"type":"string"},"like":{"type":"object"},"note":{"type":"string"},"next":{"type":"string"},"instructions":{"type":"string"},"deny_reason":{"type":"string"},"grants":{"type":"array","items":{"type":"object"}}}`

// tool makes a tool of ours whose arguments are read strictly into an A.
func tool[A any](name, title string, effect policy.Effect, description, props, required, output string, run func(context.Context, caller, A) (answer, error)) metaTool {
	in := `{"type":"object","properties":` + props
	if required != "" {
		in += `,"required":` + required
	}
	t := mcp.Tool{
		Name: name, Title: title, Description: description, InputSchema: json.RawMessage(in + `,"additionalProperties":false}`),
		Annotations: annotations(title, effect, false),
	}
	if output != "" {
		t.OutputSchema = json.RawMessage(`{"type":"object","properties":` + output + `}`)
	}
	return metaTool{tool: t, run: func(ctx context.Context, c caller, raw json.RawMessage) (answer, error) {
		var args A
		if raw != nil {
			if err := strictjson.Unmarshal(raw, &args, strictjson.Limits{}); err != nil {
				return answer{}, badArguments(misfit[A](name, raw)).WithCause(err)
			}
		}
		return run(ctx, c, args)
	}}
}

// misfit names the argument that does not fit a tool of ours.
func misfit[A any](name string, raw json.RawMessage) string {
	all := "The arguments do not fit the input schema of " + name + "."
	var members map[string]json.RawMessage
	if strictjson.Check(raw, strictjson.Limits{}) != nil || json.Unmarshal(raw, &members) != nil {
		return all
	}
	for _, argument := range slices.Sorted(maps.Keys(members)) {
		one, err := json.Marshal(map[string]json.RawMessage{argument: members[argument]})
		var args A
		if err != nil || strictjson.Unmarshal(one, &args, strictjson.Limits{}) == nil {
			continue
		}
		fields := reflect.VisibleFields(reflect.TypeFor[A]())
		if slices.ContainsFunc(fields, func(f reflect.StructField) bool { return f.Tag.Get("json") == argument }) {
			return "The argument " + argument + " has another type than the input schema of " + name + " says."
		}
		return name + " has no argument " + strconv.QuoteToASCII(argument[:min(len(argument), 40)]) + "."
	}
	return all
}

func (s *Server) whoami(_ context.Context, c caller, _ struct{}) (answer, error) {
	return answer{facts: struct {
		Agent        id.Agent        `json:"agent_id"`
		Label        string          `json:"agent"`
		Kind         agent.Kind      `json:"kind"`
		Environment  id.Environment  `json:"environment_id"`
		Organization id.Organization `json:"organization_id"`
		User         id.User         `json:"user_id,omitempty"`
		Session      id.Session      `json:"session_id,omitempty"`
		Expires      string          `json:"token_expires_at"`
		Ceiling      policy.Ceiling  `json:"ceiling"`
	}{c.who.Agent(), c.who.Label(), c.who.Kind(), c.who.Environment(), c.who.Organization(), c.who.User(), c.who.Session(), stampOf(c.who.Expires()), c.who.Ceiling()}}, nil
}

func (s *Server) listProviders(ctx context.Context, c caller, _ struct{}) (answer, error) {
	list, err := s.gateway.Providers(ctx, c.who)
	if list == nil {
		list = []gateway.ProviderInfo{}
	}
	return answer{facts: struct {
		Providers []gateway.ProviderInfo `json:"providers"`
	}{list}}, err
}

type searchArgs struct {
	Query    string `json:"query"`
	Provider string `json:"provider"`
	Limit    int    `json:"limit"`
}

// found is a tool as a search shows it.
type found struct {
	Name        string        `json:"name"`
	Title       string        `json:"title"`
	Provider    string        `json:"provider"`
	Effect      policy.Effect `json:"effect"`
	Description string        `json:"description"`
}

func (s *Server) searchTools(ctx context.Context, c caller, args searchArgs) (answer, error) {
	if args.Limit == 0 {
		args.Limit = 10
	}
	if args.Limit < 1 || args.Limit > 50 {
		return answer{}, badArguments("limit is 1 to 50.")
	}
	if strings.TrimSpace(args.Query) == "" || len(args.Query) > 400 {
		return answer{}, badArguments("query is 1 to 400 characters.")
	}
	tools, err := s.gateway.Tools(ctx, c.who)
	if err != nil {
		return answer{}, err
	}
	tools = slices.DeleteFunc(s.visible(tools), func(t provider.Tool) bool { return args.Provider != "" && t.Provider != args.Provider })
	hits := search(tools, args.Query)
	total := len(hits)
	out := make([]found, 0, min(total, args.Limit))
	for _, t := range hits[:min(total, args.Limit)] {
		out = append(out, found{Name: t.Name, Title: t.Title, Provider: t.Provider, Effect: t.Effect, Description: t.Description})
	}
	return answer{facts: struct {
		Tools []found `json:"tools"`
		Total int     `json:"total"`
	}{out, total}}, nil
}

type nameArgs struct {
	Name string `json:"name"`
}

func (s *Server) describeTool(ctx context.Context, c caller, args nameArgs) (answer, error) {
	if t := s.metaTool(args.Name); t != nil {
		return answer{facts: t.tool}, nil
	}
	tools, err := s.gateway.Tools(ctx, c.who)
	if err != nil {
		return answer{}, err
	}
	for _, t := range tools {
		if t.Name == args.Name {
			w, err := wireTool(t)
			return answer{facts: w}, err
		}
	}
	return answer{}, s.gateway.NoTool(ctx, c.who, args.Name)
}

type requestArgs struct {
	Providers []string        `json:"providers"`
	Tools     []string        `json:"tools"`
	Effects   []policy.Effect `json:"effects"`
	Purpose   string          `json:"purpose"`
	Minutes   *int            `json:"minutes"`
	Calls     *int            `json:"calls"`

	Limits []session.AskedLimit `json:"limits"`
	Widen  *string              `json:"widen"`
}

func (s *Server) requestSession(ctx context.Context, c caller, args requestArgs) (answer, error) {
	ask := session.Ask{Providers: args.Providers, Tools: args.Tools, Effects: args.Effects, Purpose: args.Purpose, Limits: args.Limits}
	if args.Minutes != nil {
		if ask.Minutes = *args.Minutes; ask.Minutes == 0 { // which would mean the default, and was not asked for
			return answer{}, badArguments(fmt.Sprintf("minutes is 1 to %d.", policy.Longest))
		}
	}
	if args.Calls != nil {
		if ask.Calls = *args.Calls; ask.Calls == 0 { // which would mean no limit, and was not asked for
			return answer{}, badArguments(fmt.Sprintf("calls is 1 to %d.", session.MaxCalls))
		}
	}
	if args.Widen != nil {
		if ask.Widen = *args.Widen; ask.Widen == "" {
			return answer{}, badArguments("widen is the handle of a session that runs.")
		}
	}
	got, err := s.gateway.Request(ctx, c.who, ask, c.address)
	if err != nil {
		return answer{}, err
	}
	v := view(got.Session)
	v.Handle, v.ApprovalURL = got.Handle, got.ApprovalURL
	text := fmt.Sprintf("The request waits for a person until %s. Show them this URL: %s\nThen call check_session with session %s and wait_seconds 25.", v.PendingUntil, got.ApprovalURL, got.Handle)
	if ask.Widen != "" {
		text += " Your session goes on meanwhile. Once it is approved, this handle and the one that you have both name it."
	}
	return answer{facts: v, text: text}, nil
}

// requested is what became of a request for a session, for the client that opened the
// page itself.
func (s *Server) requested(ctx context.Context, c caller, again resumed) (answer, error) {
	ses, err := s.sessions.CheckRequest(ctx, c.who, again.request, 0)
	if err != nil {
		return answer{}, err
	}
	a := s.seen(ses)
	if v, ok := a.facts.(sessionView); ok {
		v.Handle = again.handle
		a.facts = v
	}
	a.text += "\nIts handle is " + again.handle + "."
	return a, nil
}

type checkArgs struct {
	Session string `json:"session"`
	Request string `json:"request_id"`
	Wait    int    `json:"wait_seconds"`
}

const maxWait = int(session.MaxWait / time.Second)

func (s *Server) checkSession(ctx context.Context, c caller, args checkArgs) (answer, error) {
	if args.Wait < 0 || args.Wait > maxWait {
		return answer{}, badArguments(fmt.Sprintf("wait_seconds is 0 to %d.", maxWait))
	}
	if args.Wait > 0 {
		ok, end := s.waits.begin(c.who.Agent(), c.who.Organization())
		defer end()
		if !ok {
			args.Wait = 0
		}
	}
	if args.Session == "" && args.Request == "" && c.who.Session() == "" {
		return answer{}, badArguments("check_session needs a session handle or a request_id.")
	}
	wait := time.Duration(args.Wait) * time.Second
	if args.Request != "" {
		return s.checkCall(ctx, c, args, wait)
	}
	ses, err := s.sessions.Check(ctx, c.who, args.Session, wait)
	if err != nil {
		return answer{}, err
	}
	return s.seen(ses), nil
}

func (s *Server) checkCall(ctx context.Context, c caller, args checkArgs, wait time.Duration) (answer, error) {
	var request id.Approval
	if err := parseID(&request, args.Request); err != nil {
		return answer{}, badArguments("request_id is the request_id of an approval_required answer.")
	}
	r, err := s.sessions.CheckCall(ctx, c.who, args.Session, request, wait)
	if fault.Is(err, "request_not_found") { // then it may be the request for a session
		if ses, serr := s.sessions.CheckRequest(ctx, c.who, request, wait); serr == nil {
			return s.seen(ses), nil
		}
	}
	if err != nil {
		return answer{}, err
	}
	v := callView(r)
	return answer{facts: v, text: describeCall(v)}, nil
}

type sessionArgs struct {
	Session string `json:"session"`
}

func (s *Server) endSession(ctx context.Context, c caller, args sessionArgs) (answer, error) {
	ses, err := s.sessions.Complete(ctx, c.who, args.Session)
	if err != nil {
		return answer{}, err
	}
	return s.seen(ses), nil
}

type providerArgs struct {
	Provider string `json:"provider"`
}

func (s *Server) connectProvider(ctx context.Context, c caller, args providerArgs) (answer, error) {
	p, u, err := s.gateway.Connect(ctx, c.who, args.Provider)
	if err != nil {
		return answer{}, err
	}
	text := "Ask the person to connect an account at " + p.Name + " here: " + u
	if !p.Connected && len(p.Accounts) > 0 {
		text = "The account at " + p.Name + " must be connected again. Ask the person to do it here: " + u
	}
	return answer{
		facts: struct {
			Provider  string `json:"provider"`
			Connected bool   `json:"connected"`
			URL       string `json:"connect_url"`
		}{p.ID, p.Connected, u},
		text: text,
	}, nil
}
