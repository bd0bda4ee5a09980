package audit

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/strictjson"
)

// same holds the direct encoding of a body against the general one. It reports
// whether there is a direct one.
func same(t *testing.T, b body) bool {
	t.Helper()
	want, err := strictjson.CanonicalOf(b)
	got, direct := b.appendTo(nil)
	if direct && (err != nil || !bytes.Equal(got, want)) {
		t.Errorf("got  %s\nwant %s, %v", got, want, err)
	}
	if r := encode(b); (r.err != nil) != (err != nil) || err == nil && !bytes.Equal(r.doc, want) {
		t.Errorf("encode gives %s, %v\nwant %s, %v", r.doc, r.err, want, err)
	}
	return direct
}

// fill sets every field of v that can be set, each to a value of its own.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.String:
		v.SetString("text-" + string(rune('a'+*n)))
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"b": "x", "a": "y", "": "z"}))
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1e9, 123_000).UTC()))
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), n)
			}
		}
	}
}

// Every field of an entry and an outcome is written as the general encoding
// writes it, alone and with the others. A field that is added to the types and
// not to the encoder fails here.
func TestDirectEncodingIsTheGeneralOne(t *testing.T) {
	t.Parallel()
	n := 0
	var full Entry
	fill(reflect.ValueOf(&full).Elem(), &n)
	full.Evidence = nil
	var outcome Outcome
	fill(reflect.ValueOf(&outcome).Elem(), &n)
	for _, b := range []body{
		{Kind: KindEvent, Entry: &full, ID: full.ID, Time: 1},
		{Kind: KindIntent, Entry: &Entry{}, Time: -1},
		{Kind: KindOutcome, Ref: "evt_1", Entry: full.columns(), Outcome: &outcome, ID: "evt_2", Time: maxExact},
		{Kind: KindOutcome, Entry: &Entry{}, Outcome: &Outcome{}},
	} {
		if !same(t, b) {
			t.Errorf("%s has no direct encoding", b.Kind)
		}
	}
	v := reflect.ValueOf(full)
	for i := range v.NumField() {
		var one Entry
		reflect.ValueOf(&one).Elem().Field(i).Set(v.Field(i))
		same(t, body{Kind: KindEvent, Entry: &one})
	}
	// The unusual goes the general way.
	for _, b := range []body{
		{Kind: KindEvent},
		{Kind: KindEvent, Entry: &Entry{Evidence: json.RawMessage(`{"b":1,"a":2.50}`)}},
		{Kind: KindEvent, Entry: &Entry{Detail: map[string]string{"\u00e9": "", "\U0001F600": "", "\uFFFD": ""}}},
		{Kind: KindEvent, Entry: &Entry{Time: time.Unix(1, 0).In(time.FixedZone("x", 3600))}},
		{Kind: KindEvent, Entry: &Entry{Time: time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)}},
		{Kind: KindEvent, Entry: &Entry{Object: "\xff"}},
		{Kind: KindOutcome, Entry: &Entry{}, Outcome: &Outcome{Duration: maxExact + 1}},
	} {
		if same(t, b) {
			t.Errorf("%+v has a direct encoding", b)
		}
	}
}

func FuzzEncode(f *testing.F) {
	f.Add("tool.call", "<a&b>\u2028\u007f\"\\/\b\f\n\r\t\x01", "k", "v", int64(1), int64(1), 200)
	f.Fuzz(func(t *testing.T, action, object, k, v string, at, took int64, status int) {
		e := Entry{ID: id.Event(v), Time: time.UnixMicro(at).UTC(), Action: action, Actor: Actor{Kind: k, ID: v}, Object: object, Rule: v, Detail: map[string]string{k: v, v: k}}
		same(t, body{Kind: KindIntent, Entry: &e, ID: e.ID, Time: at})
		e = e.storable()
		same(t, body{Kind: KindOutcome, Ref: e.ID, Entry: &e, Outcome: &Outcome{Status: object, Code: action, UpstreamStatus: status, Duration: time.Duration(took)}, ID: e.ID, Time: at})
	})
}

func BenchmarkEncode(b *testing.B) {
	e := Entry{ID: id.NewEvent(), Time: time.Now().UTC(), Environment: "env_0123456789012345678901234567", Organization: "org_0123456789012345678901234567",
		Actor: Actor{Kind: "agent", ID: "agent_0123456789012345678901234567"}, Agent: "agent_0123456789012345678901234567", Action: "tool.call", Object: "stub_list", Tool: "stub_list",
		Session: "ses_0123456789012345678901234567", Decision: "allow", Rule: "grant.effects", Effect: "read"}
	body := body{Kind: KindIntent, Entry: &e, ID: e.ID, Time: 1}
	b.ReportAllocs()
	for b.Loop() {
		if r := encode(body); r.err != nil {
			b.Fatal(r.err)
		}
	}
}

// What this build chains, an earlier one verifies, and the other way round: the
// hash is that of the parts with their lengths, whatever came before.
func TestLinkIsTheHashOfItsFields(t *testing.T) {
	t.Parallel()
	key := crypt.NewSeed()
	l := newLinks(key)
	for seq, doc := range map[int64]string{1: "", 9: "{}", 1 << 40: strings.Repeat("x", 5000), -1: "\x00"} {
		for _, previous := range [][]byte{nil, bytes.Repeat([]byte{7}, 32)} {
			m := hmac.New(sha256.New, key.Reveal())
			m.Write(crypt.Fields(string(previous), strconv.FormatInt(seq, 10), doc))
			if got := l.link(previous, seq, []byte(doc)); !bytes.Equal(got, m.Sum(nil)) {
				t.Errorf("entry %d of %d bytes: another hash", seq, len(doc))
			}
		}
	}
}
