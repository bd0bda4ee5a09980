package outbound

import (
	"compress/flate"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"slices"
)

const (
	// maxRatio is how much a compressed body may grow. Honest text stays far
	// below it; deflate itself reaches 1032.
	maxRatio = 100
	// ratioFrom is the size below which growth does no harm.
	ratioFrom = 256 << 10
)

var (
	errBody     = errors.New("body over the limit")
	errRatio    = errors.New("compressed body grows beyond the ratio limit")
	errHeaders  = errors.New("headers over the limit")
	errEncoding = errors.New("content encoding that was not asked for")
	errSwitched = errors.New("protocol switch that was not asked for")
	errGzip     = errors.New("broken gzip body")
)

// readBody returns the decoded body, at most limit bytes of it, or an error.
// Only gzip was offered; any other or nested encoding is refused, because a
// caller could not look for secrets in what it cannot read.
func readBody(resp *http.Response, limit int64) ([]byte, error) {
	coding, err := codingOf(resp.Header)
	if err != nil {
		return nil, err
	}
	if coding == "" {
		if resp.ContentLength > limit && resp.Request.Method != http.MethodHead {
			return nil, errBody
		}
		return drain(resp.Body, limit, resp.ContentLength, func(int64) error { return nil })
	}
	if coding != "gzip" && coding != "x-gzip" {
		return nil, errEncoding
	}
	in := &counter{r: resp.Body}
	zr, err := gzip.NewReader(in)
	if errors.Is(err, io.EOF) && in.n == 0 {
		return nil, nil // an answer to HEAD, a 204 or a 304
	}
	if err != nil {
		return nil, in.gzipError(err)
	}
	body, err := drain(zr, limit, 0, func(out int64) error {
		if out > ratioFrom && out > maxRatio*in.n {
			return errRatio
		}
		return nil
	})
	return body, in.gzipError(err)
}

// gzipError replaces the decoder's own errors, which carry nothing worth keeping.
// That a body is too short is the decoder's to say only when the network gave it to
// its end.
func (c *counter) gzipError(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) && c.ended {
		return errGzip
	}
	if errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) || isType[flate.CorruptInputError](err) {
		return errGzip
	}
	return err
}

// drain reads r to its end in steps, so that a limit is noticed within one step
// and a length that the upstream merely claims allocates nothing.
func drain(r io.Reader, limit, claimed int64, step func(total int64) error) ([]byte, error) {
	// Not a bytes.Buffer: that doubles, and many large answers at once would
	// hold twice what they need.
	out := make([]byte, 0, max(512, min(claimed, 64<<10, limit)+1))
	stepped := 0
	for {
		switch got := int64(len(out)); {
		case len(out) < cap(out):
		case got >= limit/2:
			out = slices.Grow(out, int(limit+1-got))
		default:
			out = append(out, 0)[:got]
		}
		n, err := r.Read(out[len(out):min(int64(cap(out)), int64(len(out))+64<<10)])
		out = out[:len(out)+n]
		if err != nil && err != io.EOF {
			return nil, err
		}
		if int64(len(out)) > limit {
			return nil, errBody
		}
		if len(out)-stepped >= 64<<10 || err != nil {
			stepped = len(out)
			if err := step(int64(len(out))); err != nil {
				return nil, err
			}
		}
		if err != nil {
			return out, nil
		}
	}
}

type counter struct {
	r      io.Reader
	n      int64
	ended  bool
	failed error // of the network
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.ended = c.ended || err == io.EOF
	if err != nil && err != io.EOF {
		c.failed = err
	}
	return n, err
}
