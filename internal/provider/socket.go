package provider

import (
	"encoding/binary"
	"io"
	"strings"

	"github.com/ambit-dev/ambit/internal/fault"
)

// maxFilled is how large a text message over a WebSocket may be in which placeholders
// are replaced. What signs in is small; what is larger passes as it is.
const maxFilled = 64 << 10

// socketPlaces are the members of a message, each by its path, in which the record
// lets placeholders stand over a WebSocket.
func (r Record) socketPlaces() [][]string {
	var out [][]string
	for _, place := range r.Injection.Placeholder.Places {
		if path, ok := strings.CutPrefix(place, "socket:"); ok {
			out = append(out, strings.Split(path, "."))
		}
	}
	return out
}

// message replaces the placeholders in a text message of JSON; nil: there are none.
func (f *filling) message(text []byte) []byte {
	if !strings.Contains(string(text), placeholderMark) {
		return nil
	}
	f.filled = false
	for _, path := range f.rec.socketPlaces() {
		text = f.member(text, path)
	}
	if !f.filled {
		return nil
	}
	return text
}

// fillingFrames is the client's side of a WebSocket (RFC 6455 §5.2): text messages
// are held until they are whole, whatever their frames, and go on with the credential
// where they had a placeholder. Everything else passes as it comes.
type fillingFrames struct {
	dst     io.Writer
	fill    func(message []byte) []byte // nil when nothing is to be replaced
	in      []byte                      // of a frame whose head, or all of it, is still to come
	left    uint64                      // of a payload that passes as it is
	holding bool                        // a text message is under way
	raw     []byte                      // its frames as they came
	text    []byte                      // what they say
}

func (f *fillingFrames) Write(p []byte) (int, error) {
	f.in = append(f.in, p...)
	for len(f.in) > 0 {
		more, err := f.frame()
		if err != nil {
			return 0, err
		}
		if !more {
			break
		}
	}
	return len(p), nil
}

// frame deals with what is there of one frame; more reports whether it got anywhere.
func (f *fillingFrames) frame() (more bool, err error) {
	if f.left > 0 {
		n := min(f.left, uint64(len(f.in)))
		f.left -= n
		return true, f.pass(int(n))
	}
	if len(f.in) < 2 {
		return false, nil
	}
	final, opcode := f.in[0]&0x80 != 0, f.in[0]&0x0f
	head, size, ok := frameHead(f.in)
	if f.in[0]&0x70 != 0 || f.in[1]&0x80 == 0 || opcode >= 8 && (f.in[1]&0x7f > 125 || !final) || ok && size > 1<<62 {
		return false, fault.New(fault.Invalid, "frame_invalid", "The client sent a frame that WebSocket does not have.")
	}
	if !ok {
		return false, nil
	}
	if len(f.raw) > 0 && (opcode == 1 || opcode == 2) { // a message within a message (RFC 6455 §5.4)
		return false, fault.New(fault.Invalid, "frame_invalid", "The client began a message before the one before it had ended.")
	}
	if opcode == 1 {
		f.holding, f.raw, f.text = true, nil, nil
	}
	if f.holding && opcode < 8 && uint64(len(f.raw)+head)+size > maxFilled { // what was held goes first
		held := f.raw
		f.holding, f.raw, f.text = false, nil, nil
		if _, err := f.dst.Write(held); err != nil {
			return false, err
		}
	}
	if opcode < 8 && !f.holding {
		f.left = size
		return true, f.pass(head)
	}
	if uint64(len(f.in)) < uint64(head)+size {
		return false, nil
	}
	whole := head + int(size)
	if opcode >= 8 { // which may come between the frames of a message
		return true, f.pass(whole)
	}
	mask := f.in[head-4 : head]
	for i, b := range f.in[head:whole] {
		f.text = append(f.text, b^mask[i%4])
	}
	f.raw = append(f.raw, f.in[:whole]...)
	f.in = f.in[whole:]
	if !final {
		return true, nil
	}
	out := f.raw
	if filled := f.fill(f.text); filled != nil {
		out = maskedFrame(filled, [4]byte(mask))
	}
	f.holding, f.raw, f.text = false, nil, nil
	_, err = f.dst.Write(out)
	return true, err
}

func (f *fillingFrames) pass(n int) error {
	_, err := f.dst.Write(f.in[:n])
	f.in = f.in[n:]
	return err
}

// frameHead reads the length of a client's frame's head, mask included, and of its
// payload; ok is false while the head is not all there.
func frameHead(b []byte) (head int, size uint64, ok bool) {
	head, size = 6, uint64(b[1]&0x7f)
	switch {
	case size == 126 && len(b) >= 4:
		head, size = 8, uint64(binary.BigEndian.Uint16(b[2:]))
	case size == 127 && len(b) >= 10:
		head, size = 14, binary.BigEndian.Uint64(b[2:])
	case size > 125:
		return 0, 0, false
	}
	return head, size, len(b) >= head
}

// maskedFrame is a whole text message in one frame of a client's.
func maskedFrame(text []byte, mask [4]byte) []byte {
	out := []byte{0x81}
	switch n := len(text); {
	case n <= 125:
		out = append(out, 0x80|byte(n))
	case n <= 0xffff:
		out = binary.BigEndian.AppendUint16(append(out, 0x80|126), uint16(n))
	default:
		out = binary.BigEndian.AppendUint64(append(out, 0x80|127), uint64(n))
	}
	out = append(out, mask[:]...)
	for i, b := range text {
		out = append(out, b^mask[i%4])
	}
	return out
}
