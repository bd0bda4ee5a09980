// Package wire is what a server and its helper ambit-pkcs11 say to each other over
// the helper's standard input and output: frames of a length in four bytes and a
// JSON document. It needs no cgo.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// MaxFrame bounds a frame's document, in bytes.
const MaxFrame = 64 << 10

// Target says which key of which token. Empty fields match everything.
type Target struct {
	Module       string `json:"module"`   // path of the PKCS#11 library
	PINFile      string `json:"pin_file"` // path; only the helper reads it
	Token        string `json:"token,omitempty"`
	Serial       string `json:"serial,omitempty"`
	Manufacturer string `json:"manufacturer,omitempty"`
	Model        string `json:"model,omitempty"`
	Slot         *uint  `json:"slot,omitempty"`
	Object       string `json:"object"`       // CKA_LABEL of all versions of the key
	ID           []byte `json:"id,omitempty"` // CKA_ID of the version that wraps; empty: the newest
}

// The operations of a request.
const (
	OpTarget = "target" // the first one; it is not answered
	OpWrap   = "wrap"
	OpUnwrap = "unwrap"
)

// Request is what the server asks.
type Request struct {
	ID     uint64  `json:"id"`
	Op     string  `json:"op"`
	Target *Target `json:"target,omitempty"`
	Data   []byte  `json:"data,omitempty"` // a seed, or a blob
	AAD    []byte  `json:"aad,omitempty"`
	Millis int64   `json:"millis,omitempty"` // how long somebody waits for the answer
}

// The codes of an answer.
const (
	CodeFine        = "fine"
	CodeIntegrity   = "integrity" // the blob does not belong here, or was changed
	CodeRetired     = "retired"   // the version that wrapped the blob is no longer there
	CodeDenied      = "denied"
	CodePIN         = "pin" // denied; and the PIN must not be tried again
	CodeUnavailable = "unavailable"
)

// Answer is what the helper answers.
type Answer struct {
	ID   uint64 `json:"id"`
	Code string `json:"code"`
	Text string `json:"text,omitempty"` // for the log
	Data []byte `json:"data,omitempty"`
}

// Write writes one frame.
func Write(w io.Writer, v any) error {
	doc, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("writing a frame: %w", err)
	}
	defer clear(doc)
	if len(doc) > MaxFrame {
		return errors.New("a frame is too long")
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(doc)), uint32(len(doc)))
	frame = append(frame, doc...)
	defer clear(frame)
	_, err = w.Write(frame)
	return err
}

// Read reads one frame into v. At the end between two frames it gives io.EOF.
func Read(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > MaxFrame {
		return errors.New("a frame is too long")
	}
	doc := make([]byte, n)
	defer clear(doc)
	if _, err := io.ReadFull(r, doc); err != nil {
		return io.ErrUnexpectedEOF
	}
	if err := json.Unmarshal(doc, v); err != nil {
		return errors.New("a frame cannot be read") // and what it holds may be a secret
	}
	return nil
}
