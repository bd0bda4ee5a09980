package providertest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Stream is a request that arrived over HTTP/2. Streams of one connection play
// side by side.
type Stream struct {
	*link
	id   uint32
	auth string
	gone atomic.Bool // the other side gave it up
}

// link is a connection. Its frames go out one at a time.
type link struct {
	raw    net.Conn
	server *Server

	mu    sync.Mutex
	frame *http2.Framer
	text  bytes.Buffer
	enc   *hpack.Encoder
}

// write sends frames that nothing may come between.
func (l *link) write(fn func(f *http2.Framer) error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fn(l.frame) == nil
}

// block encodes pairs of names and values, exactly as they are. Within write only.
func (l *link) block(pairs ...string) []byte {
	l.text.Reset()
	for i := 0; i+1 < len(pairs); i += 2 {
		_ = l.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return bytes.Clone(l.text.Bytes())
}

// headers sends one block, in frames of a size that is allowed.
func (s *Stream) headers(end bool, pairs ...string) bool {
	const most = 16 << 10
	return !s.gone.Load() && s.write(func(f *http2.Framer) error {
		b := s.block(pairs...)
		first := b[:min(len(b), most)]
		err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: first, EndStream: end, EndHeaders: len(first) == len(b)})
		for b = b[len(first):]; err == nil && len(b) > 0; b = b[min(len(b), most):] {
			err = f.WriteContinuation(s.id, len(b) <= most, b[:min(len(b), most)])
		}
		return err
	})
}

func (s *Stream) data(end bool, text string) bool {
	return !s.gone.Load() && s.write(func(f *http2.Framer) error { return f.WriteData(s.id, end, []byte(text)) })
}

func (s *Stream) answer(body string, pairs ...string) bool {
	return s.headers(false, append([]string{":status", "200"}, pairs...)...) && s.data(true, body)
}

func (s *Stream) reset(code http2.ErrCode) bool {
	return s.write(func(f *http2.Framer) error { return f.WriteRSTStream(s.id, code) })
}

// leave says goodbye and closes the connection.
func (s *Stream) leave(code http2.ErrCode, say string) bool {
	s.write(func(f *http2.Framer) error { return f.WriteGoAway(s.id, code, []byte(say)) })
	return false
}

func (s *Stream) wait(d time.Duration) bool { return (&Conn{server: s.server}).Wait(d) }

// http2 reads requests and plays their rows. A row that reports false closes the
// connection.
func (s *Server) http2(conn net.Conn) {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(conn, preface); err != nil {
		return
	}
	in := http2.NewFramer(nil, conn)
	in.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	l := &link{raw: conn, server: s, frame: http2.NewFramer(conn, nil)}
	l.frame.AllowIllegalWrites = true
	l.enc = hpack.NewEncoder(&l.text)
	if !l.write(func(f *http2.Framer) error { return f.WriteSettings() }) {
		return
	}
	var playing sync.WaitGroup
	defer playing.Wait()
	defer conn.Close()
	open, all := map[uint32]*Stream{}, map[uint32]*Stream{}
	paths := map[uint32]string{}
	for {
		f, err := in.ReadFrame()
		if err != nil {
			return
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() && !l.write(func(w *http2.Framer) error { return w.WriteSettingsAck() }) {
				return
			}
			continue
		case *http2.PingFrame:
			if !f.IsAck() && !l.write(func(w *http2.Framer) error { return w.WritePing(true, f.Data) }) {
				return
			}
			continue
		case *http2.MetaHeadersFrame:
			st := &Stream{link: l, id: f.StreamID}
			for _, h := range f.Fields {
				switch h.Name {
				case ":path":
					paths[f.StreamID] = h.Value
				case strings.ToLower(AuthHeader):
					st.auth = h.Value
				}
			}
			open[f.StreamID], all[f.StreamID] = st, st
			if !f.StreamEnded() {
				continue
			}
		case *http2.DataFrame:
			if !f.StreamEnded() {
				continue
			}
		case *http2.RSTStreamFrame:
			if st := all[f.StreamID]; st != nil {
				st.gone.Store(true)
			}
			continue
		default:
			continue
		}
		st, path := open[f.Header().StreamID], paths[f.Header().StreamID]
		delete(open, f.Header().StreamID)
		delete(paths, f.Header().StreamID)
		if st == nil {
			return
		}
		row, ok := s.row(path)
		if !ok || row.Play2 == nil {
			st.answer(goodBody, "content-type", "application/json")
			continue
		}
		playing.Go(func() {
			if !row.Play2(st) && !st.gone.Load() {
				_ = conn.Close()
			}
		})
	}
}

// Streams are what only HTTP/2 can do wrong.
func Streams() []Row {
	const at = HTTP2
	lost := func(name string, play func(*Stream) bool) Row {
		return Row{Name: name, At: at, Play2: play, Code: unknown, Outcome: "unknown"}
	}
	no := func(name string, play func(*Stream) bool) Row {
		return Row{Name: name, At: at, Play2: play, Code: refused, Refused: 200, Outcome: "ok"}
	}
	slow := func(name string, play func(*Stream) bool) Row {
		r := lost(name, play)
		r.Slow = true
		return r
	}
	fine := func(name, has string, play func(*Stream) bool) Row {
		return Row{Name: name, At: at, Play2: play, Status: 200, Outcome: "ok", Has: has}
	}
	const good = `{"good":true}`
	_ = gigabyte() // before the time of its call runs
	return []Row{
		lost("h2 goes away instead of an answer", func(s *Stream) bool { return s.leave(http2.ErrCodeNo, "") }),
		lost("h2 goes away with an echo", func(s *Stream) bool { return s.leave(http2.ErrCodeEnhanceYourCalm, s.auth) }),
		lost("h2 goes away in the answer", func(s *Stream) bool {
			s.headers(false, ":status", "200", "content-length", "1000")
			return s.leave(http2.ErrCodeInternal, s.auth)
		}),
		fine("h2 goes away after the answer", "good", func(s *Stream) bool {
			s.answer(good)
			s.write(func(f *http2.Framer) error { return f.WriteGoAway(s.id, http2.ErrCodeNo, nil) })
			return s.wait(50*time.Millisecond) && false
		}),
		lost("h2 resets the stream", func(s *Stream) bool { return s.reset(http2.ErrCodeInternal) }),
		lost("h2 cancels in the body", func(s *Stream) bool {
			return s.headers(false, ":status", "200") && s.data(false, "half") && s.reset(http2.ErrCodeCancel)
		}),
		lost("h2 ends short of its length", func(s *Stream) bool {
			return s.headers(false, ":status", "200", "content-length", "1000") && s.data(true, "half")
		}),
		slow("h2 never answers", func(s *Stream) bool { s.wait(time.Hour); return false }),
		slow("h2 stops after the headers", func(s *Stream) bool { s.headers(false, ":status", "200"); s.wait(time.Hour); return false }),
		slow("h2 empty frames without end", func(s *Stream) bool {
			s.headers(false, ":status", "200")
			for s.data(false, "") && s.wait(time.Millisecond) {
			}
			return false
		}),
		lost("h2 a gigabyte against the window", func(s *Stream) bool {
			s.headers(false, ":status", "200")
			for part := strings.Repeat("x", 16<<10); s.data(false, part); {
			}
			return false
		}),
		no("h2 a bomb", func(s *Stream) bool {
			s.headers(false, ":status", "200", "content-encoding", "gzip")
			for b := gigabyte(); len(b) > 0; b = b[min(len(b), 16<<10):] {
				if !s.data(len(b) <= 16<<10, b[:min(len(b), 16<<10)]) {
					return false
				}
			}
			return true
		}),
		lost("h2 headers of a megabyte", func(s *Stream) bool {
			pairs := []string{":status", "200"}
			for i := range 256 {
				pairs = append(pairs, fmt.Sprintf("x-many-%d", i), strings.Repeat("v", 4<<10))
			}
			return s.headers(true, pairs...)
		}),
		lost("h2 continuations without end", func(s *Stream) bool {
			return s.write(func(f *http2.Framer) error {
				err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: s.block(":status", "200")})
				for err == nil {
					err = f.WriteContinuation(s.id, false, s.block("x-more", strings.Repeat("v", 8<<10)))
				}
				return err
			})
		}),
		lost("h2 no status", func(s *Stream) bool { return s.headers(true, "content-type", "text/plain") }),
		lost("h2 two statuses", func(s *Stream) bool { return s.headers(true, ":status", "200", ":status", "500") }),
		lost("h2 a name in capitals", func(s *Stream) bool { return s.headers(true, ":status", "200", "X-Upper", s.auth) }),
		lost("h2 a frame that is none", func(s *Stream) bool {
			return s.write(func(*http2.Framer) error {
				_, err := s.raw.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"))
				return err
			})
		}),
		lost("h2 data for nobody", func(s *Stream) bool {
			return s.write(func(f *http2.Framer) error { return f.WriteData(0, true, []byte("x")) })
		}),
		lost("h2 a push", func(s *Stream) bool {
			return s.write(func(f *http2.Framer) error {
				return f.WritePushPromise(http2.PushPromiseParam{StreamID: s.id, PromiseID: 2, BlockFragment: s.block(":method", "GET", ":path", "/"), EndHeaders: true})
			})
		}),
		lost("h2 early hints without end", func(s *Stream) bool {
			for s.headers(false, ":status", "103", "link", "</a>; rel=preload") {
			}
			return false
		}),
		fine("h2 settings, a hundred times", "good", func(s *Stream) bool {
			for range 100 {
				if !s.write(func(f *http2.Framer) error { return f.WriteSettings() }) {
					return false
				}
			}
			return s.answer(good)
		}),
		fine("h2 pings, a hundred times", "good", func(s *Stream) bool {
			for i := range 100 {
				if !s.write(func(f *http2.Framer) error { return f.WritePing(false, [8]byte{byte(i)}) }) {
					return false
				}
			}
			return s.answer(good)
		}),
		fine("h2 an echo in a trailer", "good", func(s *Stream) bool {
			return s.headers(false, ":status", "200") && s.data(false, good) && s.headers(true, "x-late", s.auth)
		}),
		fine("h2 an echo in headers", "good", func(s *Stream) bool {
			return s.answer(good, "x-auth", s.auth, "etag", s.auth, "set-cookie", "a="+s.auth)
		}),
		fine("h2 more after the end", "good", func(s *Stream) bool { return s.answer(good) && s.data(true, "EVIL") }),
	}
}

// Rows are all of them.
func Rows() []Row {
	var out []Row
	for _, some := range [][]Row{Broken(), Garbled(), Contents(), Echoes(), Streams(), Unreachable()} {
		out = append(out, some...)
	}
	// Over TLS too, what does not depend on how the socket ends.
	for _, r := range Garbled() {
		r.Name, r.At = "tls: "+r.Name, TLS
		out = append(out, r)
	}
	return out
}
