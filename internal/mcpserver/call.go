package mcpserver

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/policy"
)

// call answers tools/call. A refusal is a result that a model can read; only a
// call of no tool at all is an error of the protocol.
func (s *Server) call(ctx context.Context, who agent.Identity, m message, rev revision, address string) (any, *problem) {
	var name string
	if !str(m.params["name"], &name) {
		return nil, badParams("tools/call needs the name of a tool.")
	}
	args, ok := m.params.object("arguments")
	if !ok {
		return nil, badParams("arguments must be an object.")
	}
	c := caller{who: who, address: address}
	again, p := s.resume(ctx, c, m, rev)
	if p != nil {
		return nil, p
	}
	t := s.metaTool(name)
	switch {
	case t == nil:
		return s.invoke(ctx, c, m, rev, again, name, args, "")
	case t.most != "":
		called, args, err := s.indirect(name, m.params["arguments"])
		if err != nil {
			return s.refusal(ctx, name, rev, err), nil
		}
		return s.invoke(ctx, c, m, rev, again, called, args, t.most)
	case again != nil && name != "request_session":
		return nil, badParams("This tool asks for nothing, so there is no requestState of it.")
	case again != nil:
		a, err := s.requested(ctx, c, *again)
		if err != nil {
			return s.refusal(ctx, name, rev, err), nil
		}
		return s.answer(rev, a)
	}
	a, err := t.run(ctx, c, m.params["arguments"])
	if err != nil {
		return s.refusal(ctx, name, rev, err), nil
	}
	if v, ok := a.facts.(sessionView); ok && name == "request_session" {
		if asked, p := s.askAt(ctx, c, m, rev, v.ApprovalURL, string(v.Request)); asked != nil || p != nil {
			return asked, p
		}
	}
	return s.answer(rev, a)
}

// noTool refuses a call. One of no tool at all is an error of the protocol, unless
// the name was an argument.
func (s *Server) noTool(ctx context.Context, name string, rev revision, most policy.Effect, err error) (any, *problem) {
	if most == "" && fault.Is(err, "tool_not_found") {
		return nil, &problem{status: http.StatusBadRequest, code: codeParams, message: "There is no such tool."}
	}
	return s.refusal(ctx, name, rev, err), nil
}

// target takes our two arguments away from the tool's own.
func target(args object) (gateway.Call, error) {
	var call gateway.Call
	if raw, sent := args[argSession]; sent && !str(raw, &call.Handle) {
		return call, badArguments("session must be the handle that request_session gave you.")
	}
	if raw, sent := args[argConnection]; sent {
		var text string
		if !str(raw, &text) {
			return call, badArguments("connection must be a connection id.")
		}
		if err := parseID(&call.Connection, text); err != nil {
			return call, badArguments("connection is not a connection id.")
		}
	}
	delete(args, argSession)
	delete(args, argConnection)
	doc, err := encode(args)
	call.Arguments = json.RawMessage(doc)
	return call, err
}

// parseID is id.Parse for the kind that dst has.
func parseID[K id.Kind](dst *id.ID[K], text string) (err error) {
	*dst, err = id.Parse[K](text)
	return err
}

func badArguments(message string) *fault.Error {
	return fault.New(fault.Invalid, "invalid_arguments", message).WithHint("Read the tool's input schema and correct the arguments.")
}
