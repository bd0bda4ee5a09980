package mcpserver

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/gateway"
	"github.com/ambit-dev/ambit/internal/policy"
	"github.com/ambit-dev/ambit/internal/provider"
)

type callResult struct {
	stamp
	Content           []any `json:"content"`
	StructuredContent any   `json:"structuredContent,omitempty"`
	IsError           bool  `json:"isError,omitempty"`
}

// answer is what one of our own tools says: facts for programs, and the same in
// words for models.
type answer struct {
	facts any
	text  string
}

func (s *Server) answer(rev revision, a answer) (any, *problem) {
	doc, err := encode(a.facts)
	if err != nil {
		return nil, &problem{status: http.StatusOK, code: codeInternal, message: "Something went wrong on our side."}
	}
	text := a.text
	if text == "" {
		text = string(doc)
	}
	return callResult{stamp: s.stamp(rev), Content: texts(text), StructuredContent: json.RawMessage(doc)}, nil
}

// upstream is what a provider answered. It is data and marked as such: nothing
// in it is followed, fetched or read here (threats.md U5).
func (s *Server) upstream(rev revision, res gateway.Result) callResult {
	out := callResult{stamp: s.stamp(rev)}
	if out.Meta == nil {
		out.Meta = mcp.Meta{}
	}
	out.Meta[metaEvent], out.Meta[metaStatus], out.Meta[metaContent] = res.Event, res.Status, "third_party"
	if res.Truncated {
		out.Meta[metaTruncated] = true
	}
	if len(res.Header) > 0 {
		out.Meta[metaHeaders] = res.Header
	}
	text, facts := body(res)
	if res.Status >= http.StatusMultipleChoices && res.Status != http.StatusNotModified {
		message := fmt.Sprintf("The provider answered with status %d.", res.Status)
		to := res.Header.Get("Location")
		if to == provider.Redacted { // another host's, which is not passed on
			to = ""
		}
		hint := upstreamHint(res.Effect, res.Status, to != "")
		refused := map[string]any{"code": "upstream_error", "message": message, "hint": hint, "status": res.Status}
		if wait, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && wait >= 0 {
			refused["retry_after"] = wait
		}
		if to != "" {
			refused["location"] = to
		}
		if facts != nil {
			refused["answer"] = facts
		} else if text != "" {
			refused["answer"] = text
		}
		out.Content, out.StructuredContent, out.IsError = texts(message+" (upstream_error) "+hint+"\n"+text), refused, true
		return out.withNote(res.Note)
	}
	if res.Withheld != "" {
		hint := "The provider has carried it out. Do not repeat it; look what came of it with another tool."
		if res.Effect == policy.Read {
			hint = "It only reads, so nothing was changed and it may be repeated."
		}
		out.Content, out.IsError = texts(res.Withheld+" (upstream_answer_refused) "+hint), true
		out.StructuredContent = map[string]any{"code": "upstream_answer_refused", "message": res.Withheld, "hint": hint, "status": res.Status}
		return out.withNote(res.Note)
	}
	if res.Truncated {
		text = fmt.Sprintf("(The answer is longer than this tool gives; these are its first %d bytes. Ask for less.)\n%s", len(res.Body), text)
	}
	if doc, ok := facts.(json.RawMessage); ok && doc[0] != '{' { // clients of the older revisions take objects only
		facts = map[string]any{"result": facts}
	}
	out.Content, out.StructuredContent = texts(text), facts
	if res.Binary && !res.Truncated {
		out.Content = append(out.Content, binary(res))
	}
	return out.withNote(res.Note)
}

// upstreamHint says what to do about an answer that is no success. Many a form is
// answered with a redirect once it has been carried out.
// located says that the place a redirect leads to is on the same host, and told.
func upstreamHint(effect policy.Effect, status int, located bool) string {
	switch {
	case status < http.StatusBadRequest && effect != policy.Read:
		return "The provider redirects, and may have carried the call out. Do not repeat it; look first whether it took effect."
	case status < http.StatusBadRequest && located:
		return "The provider redirects. Redirects are not followed; look for the tool of the place in location."
	case status < http.StatusBadRequest:
		return "The provider redirects to another place, which is not followed and not passed on. The same call will end in the same way; tell the person."
	case status == http.StatusTooManyRequests:
		return "The provider limits how often it is called. Wait, then call again."
	case status == http.StatusTooEarly:
		return "The provider does not take the call yet. Wait, then call again."
	case status == http.StatusRequestTimeout:
		return "The provider gave up waiting for the request. Try again later; after a change, look first whether it took effect."
	case status >= http.StatusInternalServerError:
		return "The provider has a problem of its own. Try again later; after a change, look first whether it took effect."
	}
	return "Read the provider's answer and correct the call."
}

// body is a provider's answer in words, and as a value if it is one, neither of
// which speaks as a person.
func body(res gateway.Result) (text string, facts any) {
	switch {
	case res.Withheld != "":
		return res.Withheld, nil
	case res.JSON && len(bytes.TrimSpace(res.Body)) > 0:
		doc, ok := withoutNote(bytes.TrimSpace(res.Body))
		if !ok {
			return attributed(res.Body), nil
		}
		return attributed(doc), json.RawMessage(doc)
	case res.Binary:
		facts := map[string]any{"bytes": len(res.Body)}
		if res.Media != "" {
			facts["media_type"] = res.Media
		}
		if res.Truncated { // nothing could show a part of it
			facts["base64"] = res.Body
		}
		return fmt.Sprintf("The answer is %d bytes of binary data.", len(res.Body)), facts
	}
	return attributed(res.Body), nil
}

// refusal tells a model why its call did not happen and what to do next. The
// stable code is for programs.
func (s *Server) refusal(ctx context.Context, tool string, rev revision, err error) callResult {
	f := fault.Of(err)
	if f.Kind == fault.Internal {
		if ctx.Err() == nil {
			s.log.Error("a tool call went wrong", "tool", tool, "error", err)
		}
		f = fault.New(fault.Internal, "internal", "Something went wrong on our side.").WithHint("Try again later; if it stays, tell the person.")
	}
	facts := map[string]any{}
	for k, v := range f.Fields {
		facts[k] = v
		if n, err := strconv.Atoi(v); err == nil && k == "status" { // of an answer, as in upstream
			facts[k] = n
		}
	}
	facts["code"], facts["message"] = f.Code, f.Message
	if f.Hint != "" {
		facts["hint"] = f.Hint
	}
	if f.RetryAfter > 0 {
		facts["retry_after"] = seconds(f.RetryAfter)
	}
	return callResult{stamp: s.stamp(rev), Content: texts(sentence(f)), StructuredContent: facts, IsError: true}
}

// sentence says a fault in words, with everything that is needed to go on.
func sentence(f *fault.Error) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s)", f.Message, f.Code)
	if f.Hint != "" {
		b.WriteString(" " + f.Hint)
	}
	var names []string
	for name := range f.Fields {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&b, "\n%s: %s", name, f.Fields[name])
	}
	if f.RetryAfter > 0 {
		fmt.Fprintf(&b, "\nretry_after: %d seconds", seconds(f.RetryAfter))
	}
	return b.String()
}

// problem is an error of a method that is not a tool call.
func (s *Server) problem(ctx context.Context, doing string, err error) *problem {
	f := fault.Of(err)
	if ctx.Err() == nil {
		s.log.Error("a request went wrong", "doing", doing, "error", err)
	}
	if f.Kind == fault.Unavailable {
		return unavailable(f.RetryAfter)
	}
	return &problem{status: http.StatusOK, code: codeInternal, message: "Something went wrong on our side."}
}

// textContent is a text for the model. The SDK's own type encodes each by itself
// and then once more.
type textContent struct {
	Type string `json:"type"` // "text"
	Text string `json:"text"`
}

func texts(text string) []any { return []any{textContent{Type: "text", Text: text}} }

// mediaContent is an image or a sound.
type mediaContent struct {
	Type string `json:"type"`
	Data []byte `json:"data"`
	MIME string `json:"mimeType"`
}

// embedded is any other binary answer.
type embedded struct {
	Type     string   `json:"type"` // "resource"
	Resource resource `json:"resource"`
}

type resource struct {
	URI  string `json:"uri"` // a name only: nothing can be read there
	MIME string `json:"mimeType"`
	Blob []byte `json:"blob"`
}

// binary is an answer of bytes as the content that clients show. The provider
// says what it is; what clients run or draw by itself is not among it.
func binary(res gateway.Result) any {
	switch res.Media {
	case "image/png", "image/jpeg", "image/gif", "image/webp":
		return mediaContent{Type: "image", Data: res.Body, MIME: res.Media}
	case "audio/wav", "audio/mpeg", "audio/ogg", "audio/webm", "audio/mp4", "audio/flac", "audio/aac":
		return mediaContent{Type: "audio", Data: res.Body, MIME: res.Media}
	}
	return embedded{Type: "resource", Resource: resource{URI: "ambit:answer/" + string(res.Event), MIME: cmp.Or(res.Media, "application/octet-stream"), Blob: res.Body}}
}
