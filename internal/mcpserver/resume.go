package mcpserver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// A client that declares URL elicitation opens the page where a person decides by
// itself: the call is answered with input_required, which names the page, and is made
// again with what that gave. Then it waits for the decision like check_session. All
// other clients, and a call that was asked about once already, get a refusal with the
// page's address, which every model can read (docs/agents.md). What comes back gives no
// access and is taken once; whether the person decided is read from the database.

// inputRequired is a result that asks the client to do something first.
type inputRequired struct {
	stamp
	Requests map[string]inputRequest `json:"inputRequests"`
	State    string                  `json:"requestState"`
}

type inputRequest struct {
	Method string    `json:"method"` // "elicitation/create"
	Params elicitURL `json:"params"`
}

// elicitURL has no id: since this revision a client learns the end by calling again.
type elicitURL struct {
	Mode    string `json:"mode"` // "url"
	Message string `json:"message"`
	URL     string `json:"url"`
}

// askKey names our one input request.
const askKey = "approval"

const maxState = 200 // bytes

// opensURLs reports whether the client declares that it opens addresses for its person.
func (m message) opensURLs(rev revision) bool {
	if !rev.stateless {
		return false
	}
	caps, _ := m.meta.object(mcp.MetaKeyClientCapabilities)
	elicitation, _ := caps.object("elicitation")
	url, ok := elicitation.object("url")
	return ok && url != nil && elicitation["url"] != nil
}

// subject identifies a call for the client that makes it again.
func (m message) subject() (string, error) {
	args := m.params["arguments"]
	if args == nil {
		args = json.RawMessage("{}")
	}
	doc, err := strictjson.CanonicalOf(struct {
		Name      json.RawMessage `json:"name"`
		Arguments json.RawMessage `json:"arguments"`
	}{m.params["name"], args})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(doc)
	return hex.EncodeToString(sum[:]), nil
}

// resumed is a call that was made before, with what the client's person did.
type resumed struct {
	request id.Approval
	handle  string
}

// resume reads a call that is made again, and waits for the decision. It is nil for
// any other call.
func (s *Server) resume(ctx context.Context, c caller, m message, rev revision) (*resumed, *problem) {
	raw, sent := m.params["requestState"]
	_, answers := m.params["inputResponses"]
	if !rev.stateless || !sent && !answers {
		return nil, nil
	}
	var state string
	responses, ok := m.params.object("inputResponses")
	if !str(raw, &state) || len(state) > maxState || !ok {
		return nil, badParams("requestState and inputResponses are those of an answer of ours, together.")
	}
	response, ok := responses.object(askKey)
	var action string
	if !ok || !str(response["action"], &action) {
		return nil, badParams("inputResponses has no action for " + askKey + ".")
	}
	digest, err := m.subject()
	if err != nil {
		return nil, badParams("arguments must be an object.")
	}
	r, err := s.sessions.Resume(ctx, c.who, state, digest)
	if fault.Is(err, "state_unknown") {
		return nil, badParams(fault.Of(err).Message + " " + fault.Of(err).Hint)
	}
	if err != nil {
		return nil, s.problem(ctx, "go on with a call", err)
	}
	if action == "accept" { // the person was shown the page; else nobody is waited for
		ok, end := s.waits.begin(c.who.Agent(), c.who.Organization())
		defer end()
		if ok {
			if err := s.sessions.AwaitDecision(ctx, c.who, r.Request, time.Duration(maxWait)*time.Second); err != nil && ctx.Err() == nil {
				s.log.Warn("a decision could not be waited for", "approval", r.Request, "error", err)
			}
		}
	}
	return &resumed{request: r.Request, handle: r.Handle}, nil
}

// ask turns a refusal that a person can settle into an input request, for a client
// that declares it. It is nil where the refusal stands.
func (s *Server) ask(ctx context.Context, c caller, m message, rev revision, f *fault.Error) any {
	if f.Code != "approval_required" && f.Code != "pending" {
		return nil
	}
	return s.askAt(ctx, c, m, rev, f.Fields["approval_url"], f.Fields["request_id"])
}

func (s *Server) askAt(ctx context.Context, c caller, m message, rev revision, url, request string) any {
	if _, again := m.params["requestState"]; again || url == "" || !m.opensURLs(rev) {
		return nil
	}
	var apr id.Approval
	digest, err := m.subject()
	if err == nil {
		err = parseID(&apr, request)
	}
	var state string
	if err == nil {
		state, err = s.sessions.Suspend(ctx, c.who, apr, digest)
	}
	if err != nil {
		s.log.Warn("a client could not be asked to open a page", "approval", request, "error", err)
		return nil
	}
	stamp := s.stamp(rev)
	stamp.ResultType = "input_required"
	return inputRequired{stamp: stamp, State: state, Requests: map[string]inputRequest{askKey: {Method: "elicitation/create",
		Params: elicitURL{Mode: "url", URL: url, Message: "A person has to decide about this, on Ambit's own page."}}}}
}
