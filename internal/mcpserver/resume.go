package mcpserver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
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
//
// On 2025-11-25 the answer is the error -32042 with the page. Its clients say what they
// can do in the handshake only, and just make the call again; so one that declares it
// gets an Mcp-Session-Id, which tells us so, and together with the call names what waits.

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

// elicitURL has an id on 2025-11-25 only: since then a client learns the end by calling
// again, as it may there too.
type elicitURL struct {
	Mode    string `json:"mode"` // "url"
	ID      string `json:"elicitationId,omitempty"`
	Message string `json:"message"`
	URL     string `json:"url"`
}

// askKey names our one input request.
const askKey = "approval"

const maxState = 200 // bytes

// opensURLs reports whether the client declares that it opens addresses for its person.
func (m message) opensURLs(rev revision) bool {
	if !rev.stateless {
		return rev.window != ""
	}
	caps, _ := m.meta.object(mcp.MetaKeyClientCapabilities)
	return declaresURLs(caps)
}

// opensWindow reports whether a handshake is one of a client that does.
func (m message) opensWindow() bool {
	var version string
	caps, _ := m.params.object("capabilities")
	return m.method == "initialize" && str(m.params["protocolVersion"], &version) && version == handshake && declaresURLs(caps)
}

func declaresURLs(caps object) bool {
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
	if rev.window != "" {
		return s.resumeWindow(ctx, c, m, rev)
	}
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
		s.awaitDecision(ctx, c, r.Request)
	}
	return &resumed{request: r.Request, handle: r.Handle}, nil
}

// resumeWindow is resume for a client of 2025-11-25: the same call, of the same window.
func (s *Server) resumeWindow(ctx context.Context, c caller, m message, rev revision) (*resumed, *problem) {
	digest, err := m.subject()
	if err != nil {
		return nil, badParams("arguments must be an object.")
	}
	state := rev.state(c.who, digest)
	waits, err := s.sessions.Waits(ctx, state)
	if err != nil {
		return nil, s.problem(ctx, "go on with a call", err)
	}
	if !waits {
		return nil, nil
	}
	r, err := s.sessions.Resume(ctx, c.who, state, digest)
	if fault.Is(err, "state_unknown") { // another's, or too old: a call like any other
		return nil, nil
	}
	if err != nil {
		return nil, s.problem(ctx, "go on with a call", err)
	}
	s.awaitDecision(ctx, c, r.Request)
	return &resumed{request: r.Request, handle: r.Handle}, nil
}

func (s *Server) awaitDecision(ctx context.Context, c caller, request id.Approval) {
	ok, end := s.waits.begin(c.who.Agent(), c.who.Organization())
	defer end()
	if !ok {
		return
	}
	if err := s.sessions.AwaitDecision(ctx, c.who, request, time.Duration(maxWait)*time.Second); err != nil && ctx.Err() == nil {
		s.log.Warn("a decision could not be waited for", "approval", request, "error", err)
	}
}

// ask turns a refusal that a person can settle into what has the client open the page,
// where it declares that it does. Nothing: the refusal stands.
func (s *Server) ask(ctx context.Context, c caller, m message, rev revision, again *resumed, f *fault.Error) (any, *problem) {
	if f.Code != "approval_required" && f.Code != "pending" || again != nil {
		return nil, nil
	}
	return s.askAt(ctx, c, m, rev, f.Fields["approval_url"], f.Fields["request_id"])
}

func (s *Server) askAt(ctx context.Context, c caller, m message, rev revision, url, request string) (any, *problem) {
	if url == "" || !m.opensURLs(rev) {
		return nil, nil
	}
	var apr id.Approval
	digest, err := m.subject()
	if err == nil {
		err = parseID(&apr, request)
	}
	state := rev.state(c.who, digest)
	if err == nil {
		err = s.sessions.Suspend(ctx, c.who, apr, state, digest)
	}
	if err != nil {
		s.log.Warn("a client could not be asked to open a page", "approval", request, "error", err)
		return nil, nil
	}
	const message = "A person has to decide about this, on Ambit's own page."
	if !rev.stateless {
		return nil, &problem{status: http.StatusOK, code: mcp.CodeURLElicitationRequired, message: message + " It is " + url + "; then make the call again.",
			data: map[string]any{"elicitations": []elicitURL{{Mode: "url", ID: request, URL: url, Message: message}}}}
	}
	stamp := s.stamp(rev)
	stamp.ResultType = "input_required"
	return inputRequired{stamp: stamp, State: state, Requests: map[string]inputRequest{askKey: {Method: "elicitation/create",
		Params: elicitURL{Mode: "url", URL: url, Message: message}}}}, nil
}
