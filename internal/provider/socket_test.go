package provider_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/provider"
)

// clientFrame is a frame as a client sends it.
func clientFrame(first byte, text string) []byte {
	out := []byte{first}
	switch n := len(text); {
	case n <= 125:
		out = append(out, 0x80|byte(n))
	case n <= 0xffff:
		out = binary.BigEndian.AppendUint16(append(out, 0x80|126), uint16(n))
	default:
		out = binary.BigEndian.AppendUint64(append(out, 0x80|127), uint64(n))
	}
	mask := []byte{1, 2, 3, 4}
	out = append(out, mask...)
	for i := range len(text) {
		out = append(out, text[i]^mask[i%4])
	}
	return out
}

// said reads the frames that arrived, unmasked.
func said(t testing.TB, b []byte) []string {
	t.Helper()
	var out []string
	for len(b) > 0 {
		first, n, head := b[0], int(b[1]&0x7f), 2
		switch n {
		case 126:
			n, head = int(binary.BigEndian.Uint16(b[2:])), 4
		case 127:
			n, head = int(binary.BigEndian.Uint64(b[2:])), 10
		}
		if b[1]&0x80 == 0 || len(b) < head+4+n {
			t.Fatalf("a frame is not masked, or not whole: %x", b[:min(len(b), 20)])
		}
		text := make([]byte, n)
		for i := range text {
			text[i] = b[head+4+i] ^ b[head+i%4]
		}
		out = append(out, fmt.Sprintf("%02x %s", first, text))
		b = b[head+4+n:]
	}
	return out
}

const socketRecord = `id: demo
name: Demo
auth: api_key
api: {base: ["https://host.example"]}
generic: {read: true, write: true}
inject: {header: X-Api-Key, format: "{api_key}", placeholder: {prefix: "bot-", places: ["socket:d.token", "socket:token"]}}
`

// Issue 7: a placeholder in a text message over a WebSocket becomes the credential
// where the record lets one stand, over the borders of frames and of what is read at
// once. Anywhere else it stays what it is: the provider may show it to everybody.
func TestPlaceholdersInSockets(t *testing.T) {
	t.Parallel()
	rec := parse(t, socketRecord)
	cred := credential(provider.APIKey, "api_key", rawKey)
	mark := rec.Placeholder("")
	identify := `{"op":2,"d":{"token":"` + mark + `","n":1.0}}`
	filled := `81 {"op":2,"d":{"token":"` + rawKey + `","n":1.0}}`
	long := strings.Repeat("long ", 30_000)
	for _, test := range []struct {
		name   string
		frames [][]byte
		want   []string
	}{
		{"one frame", [][]byte{clientFrame(0x81, identify)}, []string{filled}},
		{"three frames, with a ping between", [][]byte{clientFrame(0x01, identify[:22]), clientFrame(0x00, identify[22:30]), clientFrame(0x89, "ping"), clientFrame(0x80, identify[30:])}, []string{"89 ping", filled}},
		{"two messages", [][]byte{clientFrame(0x81, `{"token":"`+mark+`"}`), clientFrame(0x81, "hello")}, []string{`81 {"token":"` + rawKey + `"}`, "81 hello"}},
		{"a field where none may stand", [][]byte{clientFrame(0x81, `{"d":{"text":"`+mark+`"},"content":"`+mark+`"}`)}, []string{`81 {"d":{"text":"` + mark + `"},"content":"` + mark + `"}`}},
		{"no JSON", [][]byte{clientFrame(0x81, mark)}, []string{"81 " + mark}},
		{"bytes", [][]byte{clientFrame(0x82, identify)}, []string{"82 " + identify}},
		{"more than is held", [][]byte{clientFrame(0x01, `{"token":"`+mark+`","x":"`), clientFrame(0x80, long), clientFrame(0x81, identify)}, []string{`01 {"token":"` + mark + `","x":"`, "80 " + long, filled}},
		{"nothing", [][]byte{clientFrame(0x01, ""), clientFrame(0x80, "")}, []string{"01 ", "80 "}},
	} {
		all := bytes.Join(test.frames, nil)
		for _, step := range []int{1, 2, 3, 7, 100, len(all)} {
			var out bytes.Buffer
			w := provider.FillFrames(rec, cred, &out)
			for from := 0; from < len(all); from += step {
				if _, err := w.Write(all[from:min(from+step, len(all))]); err != nil {
					t.Fatalf("%s: %v", test.name, err)
				}
			}
			if got := said(t, out.Bytes()); strings.Join(got, "\n") != strings.Join(test.want, "\n") {
				t.Errorf("%s, %d bytes at once: %.200q, want %.200q", test.name, step, got, test.want)
			}
		}
	}
	for _, bad := range [][]byte{append(clientFrame(0x01, mark), clientFrame(0x02, mark)...), append(clientFrame(0x01, mark), clientFrame(0x81, mark)...), {0x81, 1, 'x'}, clientFrame(0xc1, "compressed"), clientFrame(0x09, "a ping in pieces"), clientFrame(0x89, long[:200])} {
		if _, err := provider.FillFrames(rec, cred, &bytes.Buffer{}).Write(bad); code(err) != "frame_invalid" {
			t.Errorf("%x: %v", bad[:3], err)
		}
	}
}

// Whatever a client sends, in whatever pieces: what goes on is the same.
func FuzzFillFrames(f *testing.F) {
	f.Add(clientFrame(0x81, `{"token":"bot-ambit_placeholder"}`), uint8(3))
	f.Add(append(clientFrame(0x01, `{"token":`), clientFrame(0x80, `"x"}`)...), uint8(1))
	f.Add([]byte{0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 1}, uint8(2))
	rec, err := provider.Parse([]byte(socketRecord))
	if err != nil {
		f.Fatal(err)
	}
	cred := credential(provider.APIKey, "api_key", rawKey)
	f.Fuzz(func(t *testing.T, all []byte, step uint8) {
		var whole, pieces bytes.Buffer
		_, err := provider.FillFrames(rec, cred, &whole).Write(all)
		many := provider.FillFrames(rec, cred, &pieces)
		var perr error
		for from := 0; from < len(all) && perr == nil; from += int(step) + 1 {
			_, perr = many.Write(all[from:min(from+int(step)+1, len(all))])
		}
		if (err == nil) != (perr == nil) || !bytes.Equal(whole.Bytes(), pieces.Bytes()) {
			t.Fatalf("whole %x, %v; in pieces %x, %v", whole.Bytes(), err, pieces.Bytes(), perr)
		}
	})
}
