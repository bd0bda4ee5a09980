package outbound

import (
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// decoders make readers of the codings (RFC 9110 §8.4.1, RFC 7932, RFC 8878) that
// a streamed answer may come in.
var decoders = map[string]func(io.Reader) (io.Reader, error){
	"gzip":   func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
	"x-gzip": func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
	"br":     func(r io.Reader) (io.Reader, error) { return brotli.NewReader(r), nil },
	"zstd": func(r io.Reader) (io.Reader, error) {
		// One goroutine: none is left behind by a body that is not read to its end.
		return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderLowmem(true))
	},
}

// decoding gives the body of an answer as it reads decoded. An answer that has no
// body keeps its headers.
func decoding(resp *http.Response) (body io.Reader, decoded bool, err error) {
	coding, err := codingOf(resp.Header)
	switch {
	case err != nil:
		return nil, false, err
	case coding == "" || bodiless(resp):
		return resp.Body, false, nil
	case resp.StatusCode == http.StatusPartialContent:
		return nil, false, errEncoding
	}
	make, ok := decoders[coding]
	if !ok {
		return nil, false, errEncoding
	}
	return &decoder{in: &counter{r: resp.Body}, make: make}, true, nil
}

func bodiless(resp *http.Response) bool {
	return resp.ContentLength == 0 || resp.Request != nil && resp.Request.Method == http.MethodHead || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified
}

// codingOf is the one coding of a body; empty: it has none.
func codingOf(h http.Header) (string, error) {
	coding := ""
	for _, line := range h.Values("Content-Encoding") {
		for e := range strings.SplitSeq(line, ",") {
			if e = strings.ToLower(strings.TrimSpace(e)); e == "" || e == "identity" {
				continue
			}
			if coding != "" {
				return "", errEncoding
			}
			coding = e
		}
	}
	return coding, nil
}

// decoder decodes under the ratio limit. It begins with the first read: the head
// of an answer does not wait for its body.
type decoder struct {
	in   *counter
	make func(io.Reader) (io.Reader, error)
	out  io.Reader
	n    int64
}

func (d *decoder) Read(p []byte) (int, error) {
	if d.out == nil {
		out, err := d.make(d.in)
		if errors.Is(err, io.EOF) && d.in.n == 0 {
			return 0, io.EOF // a body of nothing
		}
		if err != nil {
			return 0, d.broken(err)
		}
		d.out = out
	}
	n, err := d.out.Read(p)
	if d.n += int64(n); d.n > ratioFrom && d.n > maxRatio*d.in.n {
		return 0, errRatio
	}
	if err != nil && err != io.EOF {
		err = d.broken(err)
	}
	return n, err
}

// broken tells a decoder's own complaint from one of the network.
func (d *decoder) broken(err error) error {
	if d.in.failed != nil {
		return d.in.failed
	}
	return errGzip
}
