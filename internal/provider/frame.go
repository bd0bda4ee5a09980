package provider

import (
	"encoding/binary"
	"io"

	"github.com/ambit-dev/ambit/internal/fault"
)

// Frames gives what a WebSocket server sends (RFC 6455 §5.2) without the secrets:
// every message is looked through as one text, across its frames, which keep their
// borders. A frame of an extension ends it: none was asked for.
func (r *Redactor) Frames(src io.Reader) io.Reader {
	return &frames{src: src, red: r, message: sieve{red: r}}
}

type frames struct {
	src     io.Reader
	red     *Redactor
	message sieve
	left    uint64 // of the frame's payload
	last    bool   // the frame ends its message
	heads   []head // that wait for the payload before them
	came    uint64 // payload bytes of messages that were read
	went    uint64 // and given out
	out     []byte
	err     error
}

// head is what stands in the stream once so much payload has gone before it.
type head struct {
	at   uint64
	text []byte
}

func (f *frames) Read(p []byte) (int, error) {
	for len(f.out) == 0 {
		if f.err != nil {
			return 0, f.err
		}
		if f.left == 0 {
			f.err = f.header()
		} else {
			f.err = f.payload()
		}
	}
	n := copy(p, f.out)
	f.out = f.out[n:]
	return n, nil
}

// header reads the head of a frame, and all of one that controls.
func (f *frames) header() error {
	text := make([]byte, 2, 14)
	if _, err := io.ReadFull(f.src, text); err != nil {
		return err
	}
	size := uint64(text[1] & 0x7f)
	if extra := map[uint64]int{126: 2, 127: 8}[size]; extra > 0 {
		text = text[:2+extra]
		if _, err := io.ReadFull(f.src, text[2:]); err != nil {
			return err
		}
		if extra == 2 {
			size = uint64(binary.BigEndian.Uint16(text[2:]))
		} else {
			size = binary.BigEndian.Uint64(text[2:])
		}
	}
	final, control := text[0]&0x80 != 0, text[0]&0x08 != 0
	if text[0]&0x70 != 0 || text[1]&0x80 != 0 || control && (size > 125 || !final) || size > 1<<62 {
		return fault.New(fault.Unavailable, "upstream_broken", "The provider sent a frame that WebSocket does not have.")
	}
	if control {
		body := make([]byte, size)
		if _, err := io.ReadFull(f.src, body); err != nil {
			return err
		}
		whole := sieve{red: f.red}
		text = append(text, whole.next(body, true)...)
	} else {
		f.left, f.last = size, final
	}
	f.heads = append(f.heads, head{f.came, text})
	if !control && size == 0 && final { // an empty end
		f.give(f.message.next(nil, true))
		f.message = sieve{red: f.red}
		return nil
	}
	f.give(nil)
	return nil
}

func (f *frames) payload() error {
	buf := make([]byte, min(f.left, 32<<10))
	n, err := f.src.Read(buf)
	f.left -= uint64(n)
	f.came += uint64(n)
	ends := f.left == 0 && f.last
	if n > 0 {
		f.give(f.message.next(buf[:n], ends))
	}
	if ends {
		f.message = sieve{red: f.red}
	}
	return err
}

// give puts text out, with the heads where they stood.
func (f *frames) give(text []byte) {
	for {
		for len(f.heads) > 0 && f.heads[0].at == f.went {
			f.out = append(f.out, f.heads[0].text...)
			f.heads = f.heads[1:]
		}
		if len(text) == 0 {
			return
		}
		n := len(text)
		if len(f.heads) > 0 {
			n = min(n, int(f.heads[0].at-f.went))
		}
		f.out = append(f.out, text[:n]...)
		f.went += uint64(n)
		text = text[n:]
	}
}
