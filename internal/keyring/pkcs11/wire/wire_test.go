package wire_test

import (
	"bytes"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/ambit-dev/ambit/internal/keyring/pkcs11/wire"
)

// FuzzRead holds that no bytes panic or take more memory than a frame may, and
// that what is read is written as it can be read again.
func FuzzRead(f *testing.F) {
	var good bytes.Buffer
	_ = wire.Write(&good, wire.Request{ID: 7, Op: wire.OpWrap, Data: []byte("data"), AAD: []byte{0}})
	f.Add(good.Bytes())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 'x'})
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Fuzz(func(t *testing.T, b []byte) {
		var first, again wire.Request
		if wire.Read(bytes.NewReader(b), &first) != nil {
			return
		}
		var out bytes.Buffer
		if err := wire.Write(&out, first); err != nil {
			return // longer in our spelling
		}
		if err := wire.Read(&out, &again); err != nil || !reflect.DeepEqual(first, again) {
			t.Errorf("%+v, then %+v: %v", first, again, err)
		}
	})
}

func TestFramesAreBounded(t *testing.T) {
	t.Parallel()
	if err := wire.Write(io.Discard, wire.Request{Op: strings.Repeat("x", wire.MaxFrame)}); err == nil {
		t.Error("a frame over the limit is written")
	}
	var a wire.Answer
	for _, frame := range []string{"\x00\x01\x00\x01{}", "\xff\xff\xff\xff{}", "\x00\x00\x00\x03{}", "\x00\x00\x00\x02[]"} {
		if err := wire.Read(strings.NewReader(frame), &a); err == nil || err == io.EOF {
			t.Errorf("%q: got %v", frame, err)
		}
	}
	if err := wire.Read(strings.NewReader(""), &a); err != io.EOF {
		t.Errorf("at the end: got %v", err)
	}
}
