package mcpserver

import (
	"context"
	"encoding/json"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// callTool is a tool that calls any other tool by its name, for lists that are too
// long for a client. There is one for each class of effect, so that a client can
// let its person allow reading once and ask about the rest: what a call may do is
// held to the class by the gateway, whatever the client believes.
func callTool(name, title string, most policy.Effect, does string) metaTool {
	in := `{"type":"object","properties":{
		"name":{"type":"string","description":"Full name of the tool, from search_tools."},
		"arguments":{"type":"object","description":"Its arguments, by the schema that describe_tool gives."},
		"session":{"type":"string","description":"Session handle from request_session."},
		"connection":{"type":"string","description":"Which account, as a connection id from check_session. Needed only if several could serve."}},
		"required":["name"],"additionalProperties":false}`
	return metaTool{most: most, tool: mcp.Tool{
		Name: name, Title: title, InputSchema: json.RawMessage(in), Annotations: annotations(title, most, true),
		Description: "Calls a tool of a connected account by name, " + does + ". Use it for tools that your list does not show; the others are better called by themselves.",
	}}
}

type callArgs struct {
	Name       string          `json:"name"`
	Arguments  json.RawMessage `json:"arguments"`
	Session    json.RawMessage `json:"session"`
	Connection json.RawMessage `json:"connection"`
}

// indirect reads which tool is called, and with what.
func (s *Server) indirect(by string, raw json.RawMessage) (name string, args object, err error) {
	var a callArgs
	if raw == nil || strictjson.Unmarshal(raw, &a, strictjson.Limits{}) != nil {
		return "", nil, badArguments(misfit[callArgs](by, raw))
	}
	if a.Name == "" {
		return "", nil, badArguments(by + " needs the name of a tool.")
	}
	if s.metaTool(a.Name) != nil {
		return "", nil, badArguments(a.Name + " is a tool of Ambit's own: call it by itself.")
	}
	args = object{}
	if a.Arguments != nil {
		var ok bool
		if args, ok = strictjson.Members(a.Arguments); !ok {
			return "", nil, badArguments("arguments must be an object.")
		}
	}
	for name, value := range map[string]json.RawMessage{argSession: a.Session, argConnection: a.Connection} {
		if value == nil {
			continue
		}
		if _, twice := args[name]; twice {
			return "", nil, badArguments(name + " stands beside arguments and in them: say it once.")
		}
		args[name] = value
	}
	return a.Name, args, nil
}

// invoke calls a provider's tool.
func (s *Server) invoke(ctx context.Context, c caller, m message, rev revision, again *resumed, name string, args object, most policy.Effect) (any, *problem) {
	call, err := target(args)
	if err != nil {
		return s.refusal(ctx, name, rev, err), nil
	}
	call.Identity, call.Tool, call.Address, call.Traceparent, call.AtMost = c.who, name, c.address, m.trace, most
	if again != nil && call.Handle == "" { // the session that was asked for by this very call
		call.Handle = again.handle
	}
	res, err := s.gateway.Invoke(ctx, call)
	if err != nil {
		if asked, p := s.ask(ctx, c, m, rev, again, fault.Of(err)); asked != nil || p != nil {
			return asked, p
		}
		if again != nil && again.handle != "" && call.Handle == again.handle && fault.KindOf(err) != fault.Internal {
			err = fault.Of(err).With("session", again.handle) // to go on with
		}
		return s.noTool(ctx, name, rev, most, err)
	}
	return s.upstream(rev, res), nil
}
