package mcpserver

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/ambit-dev/ambit/internal/agent"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
)

const pageSize = 500

// Keys of _meta that are ours.
const (
	metaEffect    = "dev.ambit/effect"
	metaEvent     = "dev.ambit/event_id"
	metaContent   = "dev.ambit/content"
	metaTruncated = "dev.ambit/truncated"
	metaStatus    = "dev.ambit/status"
	metaHeaders   = "dev.ambit/headers"
)

type listResult struct {
	stamp
	TTLMs      int         `json:"ttlMs,omitempty"`
	CacheScope string      `json:"cacheScope,omitempty"`
	Tools      []*mcp.Tool `json:"tools"`
	NextCursor string      `json:"nextCursor,omitempty"`
}

// list answers tools/list: our own tools, then those of the accounts that this
// agent could be granted, by name. It depends on who asks and on nothing else,
// so that two agents see nothing of each other (threats.md S14).
func (s *Server) list(ctx context.Context, who agent.Identity, m message, rev revision) (any, *problem) {
	var after string
	if raw, sent := m.params["cursor"]; sent {
		var cursor string
		if !str(raw, &cursor) {
			return nil, badParams("cursor must be a string.")
		}
		if after = nameFrom(cursor); after == "" {
			return nil, badParams("The cursor is not one of this server's.")
		}
	}
	tools, err := s.gateway.Tools(ctx, who)
	if err != nil {
		return nil, s.problem(ctx, "list tools", err)
	}
	out := listResult{stamp: s.stamp(rev), Tools: make([]*mcp.Tool, 0, min(len(s.meta)+len(tools), pageSize))}
	if rev.stateless {
		out.TTLMs, out.CacheScope = cacheMillis, cacheScope
	}
	if after == "" {
		for i := range s.meta {
			out.Tools = append(out.Tools, &s.meta[i].tool)
		}
	}
	for _, t := range s.visible(tools) {
		if t.Name <= after {
			continue
		}
		if len(out.Tools) >= pageSize {
			out.NextCursor = cursorAfter(out.Tools[len(out.Tools)-1].Name)
			break
		}
		tool, err := wireTool(t)
		if err != nil {
			return nil, s.problem(ctx, "describe a tool", err)
		}
		out.Tools = append(out.Tools, tool)
	}
	return out, nil
}

// visible sorts tools and drops what would stand in the place of one of ours
// (threats.md U6): a provider "request" with a tool "session".
func (s *Server) visible(tools []provider.Tool) []provider.Tool {
	tools = slices.DeleteFunc(slices.Clone(tools), func(t provider.Tool) bool { return s.metaTool(t.Name) != nil })
	slices.SortFunc(tools, func(a, b provider.Tool) int { return strings.Compare(a.Name, b.Name) })
	return slices.CompactFunc(tools, func(a, b provider.Tool) bool { return a.Name == b.Name })
}

// A cursor names the tool after which to go on. It is opaque to clients and
// gives nothing: a forged one skips tools of the forger's own list.
func cursorAfter(name string) string {
	return base64.RawURLEncoding.EncodeToString([]byte("1:" + name))
}

func nameFrom(cursor string) string {
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	name, ok := strings.CutPrefix(string(b), "1:")
	if err != nil || !ok {
		return ""
	}
	return name
}

// wireTool is a provider's tool as an agent sees it.
func wireTool(t provider.Tool) (*mcp.Tool, error) {
	schema, err := withHandles(t.Input)
	if err != nil {
		return nil, fmt.Errorf("reading the input schema of %s: %w", t.Name, err)
	}
	description := t.Description
	if t.Untried() {
		description += " Not yet tried live: if its answer does not fit, say so."
	}
	return &mcp.Tool{
		Meta: mcp.Meta{metaEffect: string(t.Effect)}, Name: t.Name, Title: t.Title, Description: description,
		InputSchema: schema, Annotations: annotations(t.Title, t.Effect, true),
	}, nil
}

// annotations are hints for clients. What a call may do is decided by the
// effect and the session, never by these.
func annotations(title string, effect policy.Effect, openWorld bool) *mcp.ToolAnnotations {
	destructive := effect == policy.Destructive || effect == policy.Access
	return &mcp.ToolAnnotations{
		Title: title, ReadOnlyHint: effect == policy.Read, IdempotentHint: effect == policy.Read,
		DestructiveHint: &destructive, OpenWorldHint: &openWorld,
	}
}

// The two arguments that every provider tool has here. Provider records may not
// use their names.
const (
	argSession    = "session"
	argConnection = "connection"
)

// withHandles adds them to an input schema. Neither is required: a call
// without a session is answered with how to get one.
func withHandles(schema json.RawMessage) (json.RawMessage, error) {
	top := object{}
	if len(schema) > 0 {
		if err := json.Unmarshal(schema, &top); err != nil {
			return nil, err
		}
	}
	props, ok := top.object("properties")
	if !ok {
		return nil, fault.New(fault.Internal, "internal", "The properties of an input schema are not an object.")
	}
	props[argSession] = json.RawMessage(`{"type":"string","description":"Session handle from request_session."}`)
	props[argConnection] = json.RawMessage(`{"type":"string","description":"Which account, as a connection id from check_session. Needed only if several could serve."}`)
	doc, err := encode(props)
	if err != nil {
		return nil, err
	}
	top["type"], top["properties"] = json.RawMessage(`"object"`), doc
	return encode(top)
}
