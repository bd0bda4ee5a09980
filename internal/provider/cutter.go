package provider

import (
	"bytes"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/ambit-dev/ambit/internal/fault"
)

// cutter takes the members whose folded name is in names out of a stream of JSON
// values, at any depth. What is not JSON ends it with an error.
type cutter struct {
	dec   *jsontext.Decoder
	enc   *jsontext.Encoder
	out   bytes.Buffer
	names map[string]bool
	err   error
}

func newCutter(src io.Reader, names map[string]bool) *cutter {
	lenient := []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}
	c := &cutter{names: names, dec: jsontext.NewDecoder(src, lenient...)}
	c.enc = jsontext.NewEncoder(&c.out, lenient...)
	return c
}

func (c *cutter) Read(p []byte) (int, error) {
	for c.out.Len() < len(p) && c.err == nil {
		if c.out.Len() > 0 && len(c.dec.UnreadBuffer()) == 0 {
			break // what comes next may be long in coming
		}
		c.err = c.step()
	}
	if c.out.Len() > 0 {
		return c.out.Read(p)
	}
	return 0, c.err
}

func (c *cutter) step() error {
	kind := c.dec.PeekKind()
	if kind == '"' && isName(c.dec) {
		v, err := c.dec.ReadValue()
		if err != nil {
			return c.broken(err)
		}
		name, _ := jsontext.AppendUnquote(nil, v)
		if c.names[strings.ToLower(string(name))] {
			return c.broken(c.dec.SkipValue())
		}
		return c.broken(c.enc.WriteValue(v))
	}
	tok, err := c.dec.ReadToken()
	if err == io.EOF && c.dec.StackDepth() == 0 {
		return io.EOF
	}
	if err != nil {
		return c.broken(err)
	}
	return c.broken(c.enc.WriteToken(tok))
}

// broken keeps what the network said, and else says that the text is no JSON.
func (c *cutter) broken(err error) error {
	if err == nil || fault.KindOf(err) != fault.Internal {
		return err
	}
	return fault.New(fault.Unavailable, "upstream_broken", "The provider's answer says it is JSON but is not, so the fields that hold credentials cannot be cut from it.").WithCause(err)
}
