package provider

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
)

// asksPart reports whether a request asks for a part of an answer, in any of the
// ways that servers know, for the name of which an underscore may stand for a dash.
func asksPart(h http.Header) bool {
	for name := range h {
		if partHeader(name) {
			return true
		}
	}
	return false
}

func partHeader(name string) bool {
	switch strings.ToLower(strings.ReplaceAll(name, "_", "-")) {
	case "range", "if-range", "request-range", "x-ms-range":
		return true
	}
	return false
}

func dropPart(h http.Header) {
	for name := range h {
		if partHeader(name) {
			delete(h, name)
		}
	}
}

// restrain keeps a request from asking for an answer that could not be looked
// through: several parts at once, and, where the record cuts fields, anything but
// whole JSON. Its error means that nothing may be sent.
func (r Record) restrain(out *http.Request, o Outgoing) error {
	for name, values := range out.Header {
		if partHeader(name) && (len(values) > 1 || strings.Contains(strings.Join(values, ""), ",")) {
			dropPart(out.Header)
			break
		}
	}
	if len(o.Tool.plan.cut) == 0 {
		return nil
	}
	if o.Upgrade {
		return fault.New(fault.Denied, "upgrade_refused", "The provider's record names fields that hold credentials, and they cannot be cut from what a WebSocket says.").
			WithHint("Nothing was sent. Use the provider's plain HTTP.")
	}
	dropPart(out.Header)
	if accept := out.Header.Values("Accept"); len(accept) > 0 && !slices.ContainsFunc(mediaRanges(accept), func(m string) bool { return !jsonMedia(m) }) {
		return nil
	}
	accept := r.accepts(o)
	if len(accept) == 0 {
		accept = []string{"application/json"}
	}
	out.Header["Accept"] = accept
	return nil
}

// accepts is what the record, and nobody else, says of the media types of an answer.
func (r Record) accepts(o Outgoing) []string {
	if !o.Tool.Generic {
		for name, values := range o.Request.Header {
			if strings.EqualFold(name, "Accept") {
				return slices.Clone(values)
			}
		}
	}
	for name, value := range r.DefaultHeaders {
		if strings.EqualFold(name, "Accept") {
			return []string{value}
		}
	}
	return nil
}

// mediaRanges are the media types of an Accept field (RFC 9110 §12.5.1), without
// their parameters.
func mediaRanges(accept []string) []string {
	var out []string
	for part := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		media, _, _ := strings.Cut(part, ";")
		out = append(out, strings.ToLower(strings.TrimSpace(media)))
	}
	return out
}

// opaqueMedia reports whether nothing of a media type has named fields.
func opaqueMedia(media string) bool {
	kind, sub, _ := strings.Cut(media, "/")
	switch kind {
	case "image", "audio", "video", "font":
		return sub != "" && !strings.Contains(sub, "xml") && !strings.Contains(sub, "json")
	case "application":
		return slices.Contains([]string{"pdf", "zip", "gzip", "octet-stream"}, sub)
	}
	return false
}

// withheld tells why the body of an answer may not be passed on; empty: it may.
func (r Record) withheld(o Outgoing, from *outbound.Stream, red *Redactor) string {
	media := mediaOf(from.Header)
	part := isPart(from)
	switch wanted := mediaRanges(r.accepts(o)); {
	case media == "multipart/byteranges":
		return "it is in several parts, over whose borders the credential could lie"
	case part && jsonMedia(media) && len(red.forms().short) > 0:
		return "it is a part of JSON, in which a short secret cannot be told from other text"
	case len(o.Tool.plan.cut) == 0, jsonMedia(media) && !part:
	case strings.HasPrefix(media, "application/x-git-"): // git's own protocol
	case opaqueMedia(media) && !part && slices.ContainsFunc(wanted, func(m string) bool {
		kind, _, _ := strings.Cut(media, "/")
		return m == media || m == kind+"/*" || m == "*/*"
	}):
	default:
		return "it is not whole JSON, so the fields that hold credentials cannot be cut from it"
	}
	return ""
}

// isPart reports whether an answer says that it is a part of a longer one.
func isPart(from *outbound.Stream) bool {
	return from.Status == http.StatusPartialContent || from.Header.Get("Content-Range") != ""
}

// withhold gives an answer without its body. What was refused or redirected keeps
// its status, which tells what happened, and says in place of its body what became
// of it; else the lack of the body is an error, which [outbound.Answered] knows.
func (in *Incoming) withhold(why string) (*Incoming, error) {
	f := fault.New(fault.Unavailable, "answer_withheld", "The provider's answer was withheld: "+why+".").
		WithHint("Ask for JSON. A download passes where the provider's record asks for its media type in Accept.")
	if in.Status < http.StatusMultipleChoices {
		err := in.from.Refuse(f)
		_ = in.Close()
		return nil, err
	}
	text, err := json.Marshal(map[string]string{"code": f.Code, "message": f.Message, "hint": f.Hint})
	if err != nil {
		return nil, err
	}
	for name := range in.Header {
		if strings.HasPrefix(name, "Content-") || name == "Etag" || name == "Accept-Ranges" || strings.HasSuffix(name, "Digest") {
			delete(in.Header, name)
		}
	}
	in.Header.Set("Content-Type", "application/json")
	in.Header.Set("Content-Length", strconv.Itoa(len(text)))
	in.Length, in.body = int64(len(text)), bytes.NewReader(text)
	return in, nil
}

// guardPlaces takes out, where the record cuts fields, what may be such a field in a
// header: an address of another host, or with a query, may be open to whoever has it.
func (in *Incoming) guardPlaces(o Outgoing) {
	for _, name := range []string{"Location", "Content-Location"} {
		v := in.from.Header.Get(name)
		open := len(o.Tool.plan.cut) > 0 && (!sameHost(v, o.Request.URL) || strings.Contains(v, "?"))
		if v != "" && (open || in.red.Finds([]byte(v))) {
			in.Header.Set(name, Redacted)
		}
	}
	if v := in.from.Header.Values("Link"); len(o.Tool.plan.cut) > 0 && slices.ContainsFunc(v, func(v string) bool { return !sameHostLinks(v, o.Request.URL) }) {
		in.Header.Del("Link")
	}
}
