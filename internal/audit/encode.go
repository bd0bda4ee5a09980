package audit

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/ambit-dev/ambit/internal/sqldb"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// row is an entry or outcome on its way into the chain, already encoded: the
// chain waits while a row is appended, and one that does not encode must fail
// alone.
type row struct {
	body body
	doc  []byte
	err  error
}

func entryRow(kind string, e Entry) row {
	return encode(body{Kind: kind, Entry: &e, ID: e.ID, Time: sqldb.Micros(e.Time)})
}

// encode gives the canonical JSON of a body (RFC 8785). What calls write is
// written directly; the rest goes the general way, and both give the same bytes.
func encode(b body) row {
	if doc, ok := b.appendTo(make([]byte, 0, 1024)); ok {
		return row{body: b, doc: doc}
	}
	doc, err := strictjson.CanonicalOf(b)
	if err != nil {
		err = fmt.Errorf("encoding an audit entry: %w", err)
	}
	return row{b, doc, err}
}

// appendTo writes b, or reports that it holds something unusual. Names stand in
// their canonical order, which is that of their characters.
func (b body) appendTo(dst []byte) ([]byte, bool) {
	if b.Entry == nil {
		return nil, false
	}
	w := writer{dst: append(dst, '{'), ok: true}
	w.name("entry")
	b.Entry.write(&w)
	if o := b.Outcome; o != nil {
		w.name("outcome")
		w.open()
		w.text("code", o.Code)
		w.number("duration_ns", int64(o.Duration))
		w.text("settled_by", o.SettledBy)
		w.always("status", o.Status)
		if o.UpstreamStatus != 0 {
			w.number("upstream_status", int64(o.UpstreamStatus))
		}
		w.close()
	}
	w.text("ref", string(b.Ref))
	w.always("row", b.Kind)
	w.always("row_id", string(b.ID))
	w.number("row_time", b.Time)
	w.close()
	return w.dst, w.ok
}

func (e *Entry) write(w *writer) {
	w.ok = w.ok && e.Evidence == nil
	w.open()
	w.always("action", e.Action)
	w.name("actor")
	w.open()
	w.always("id", e.Actor.ID)
	w.always("kind", e.Actor.Kind)
	w.close()
	w.text("address", e.Address)
	w.text("agent_id", string(e.Agent))
	w.text("approval_id", string(e.Approval))
	w.text("argument_digest", e.ArgumentDigest)
	w.text("code", e.Code)
	w.text("connection_id", string(e.Connection))
	w.text("decision", e.Decision)
	if len(e.Detail) > 0 {
		w.name("detail")
		w.open()
		var room [12]string // of most
		names := slices.AppendSeq(room[:0], maps.Keys(e.Detail))
		slices.Sort(names)
		for _, k := range names {
			w.ok = w.ok && ascii(k)
			w.comma()
			w.quote(k)
			w.dst = append(w.dst, ':')
			w.quote(e.Detail[k])
		}
		w.close()
	}
	w.text("effect", e.Effect)
	w.text("environment_id", string(e.Environment))
	w.always("id", string(e.ID))
	w.text("object", e.Object)
	w.text("organization_id", string(e.Organization))
	w.text("provider", e.Provider)
	w.text("rule", e.Rule)
	w.text("session_id", string(e.Session))
	w.time("time", e.Time)
	w.text("tool", e.Tool)
	w.text("user_id", string(e.User))
	w.close()
}

// ascii reports whether a name sorts by its bytes as it does in UTF-16.
func ascii(s string) bool {
	return !slices.ContainsFunc([]byte(s), func(c byte) bool { return c >= 0x80 })
}

// writer writes JSON objects. ok is false once there was something that must go
// the general way.
type writer struct {
	dst []byte
	ok  bool
}

func (w *writer) open()  { w.dst = append(w.dst, '{') }
func (w *writer) close() { w.dst = append(w.dst, '}') }

func (w *writer) comma() {
	if w.dst[len(w.dst)-1] != '{' {
		w.dst = append(w.dst, ',')
	}
}

// name begins a member of ours, whose name needs no escape.
func (w *writer) name(name string) {
	w.comma()
	w.dst = append(w.dst, '"')
	w.dst = append(w.dst, name...)
	w.dst = append(w.dst, '"', ':')
}

func (w *writer) quote(s string) {
	var err error
	if w.dst, err = jsontext.AppendQuote(w.dst, s); err != nil {
		w.ok = false
	}
}

// text writes a member unless it is empty, and always also then.
func (w *writer) text(name, value string) {
	if value != "" {
		w.always(name, value)
	}
}

func (w *writer) always(name, value string) {
	w.name(name)
	w.quote(value)
}

// maxExact is the largest integer up to which each has one canonical form.
const maxExact = 1 << 53

func (w *writer) number(name string, n int64) {
	w.ok = w.ok && n <= maxExact && n >= -maxExact
	w.name(name)
	w.dst = strconv.AppendInt(w.dst, n, 10)
}

func (w *writer) time(name string, t time.Time) {
	w.ok = w.ok && t.Year() >= 0 && t.Year() <= 9999 && t.Location() == time.UTC
	w.name(name)
	w.dst = append(w.dst, '"')
	w.dst = t.AppendFormat(w.dst, time.RFC3339Nano)
	w.dst = append(w.dst, '"')
}
