package mcpserver

import (
	"bytes"
	"encoding/json"
)

// metaNote is the name under which a person's words stand that came with the
// approval of a call: in _meta, where only we write, and in structuredContent
// too, since some clients show a model nothing else.
const metaNote = "dev.ambit/approver_note"

// withNote adds what the approver wrote to the answer of the approved call. It
// is meant to be followed and the answer is not, so it is a text of its own and
// comes first.
func (r callResult) withNote(note string) callResult {
	if note == "" {
		return r
	}
	r.Meta[metaNote] = note
	r.Content = append(texts("The person who approved this call wrote to you: "+note), r.Content...)
	switch facts := r.StructuredContent.(type) {
	case json.RawMessage:
		fields := object{}
		if json.Unmarshal(facts, &fields) == nil {
			fields[metaNote], _ = encode(note)
			r.StructuredContent = fields
		}
	case map[string]any:
		facts[metaNote] = note
	default:
		r.StructuredContent = map[string]any{metaNote: note, "result": lastText(r.Content)}
	}
	return r
}

func lastText(content []textContent) string { return content[len(content)-1].Text }

// withoutNote drops what a provider says under our name: nobody but a person
// speaks there (threats.md U5). A name can be spelled with escapes.
func withoutNote(doc json.RawMessage) json.RawMessage {
	if !bytes.Contains(doc, []byte("approver_note")) && !bytes.Contains(doc, []byte(`\u`)) {
		return doc
	}
	fields := object{}
	if json.Unmarshal(doc, &fields) != nil {
		return doc
	}
	if _, spoken := fields[metaNote]; !spoken {
		return doc
	}
	delete(fields, metaNote)
	clean, err := encode(fields)
	if err != nil {
		return doc
	}
	return clean
}
