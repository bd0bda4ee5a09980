// Package mailtest is a mail server for tests, as far as SMTP goes for one that takes
// everything (RFC 5321): a real client speaks to it over a socket.
package mailtest

import (
	"bufio"
	"fmt"
	"net"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"
)

// Mail is one that arrived.
type Mail struct {
	From, To string
	Data     string // headers and text, as they came
	Login    string // the proof that was given, as base64
}

// Server takes mail.
type Server struct {
	Address string

	mu     sync.Mutex
	mails  []Mail
	refuse string // an answer to RCPT in place of yes
}

// New starts one on loopback.
func New(t testing.TB) *Server {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Address: l.Addr().String()}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { s.serve(c) })
		}
	})
	return s
}

// Refuse has recipients answered so, such as "550 5.1.1 no such user"; empty takes
// them again.
func (s *Server) Refuse(answer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = answer
}

// Mails takes what has arrived.
func (s *Server) Mails() []Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.mails
	s.mails = nil
	return got
}

func (s *Server) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second)) // a client that leaves it open fails its test, and holds up no other
	in := textproto.NewReader(bufio.NewReader(c))
	say := func(text string) { _, _ = fmt.Fprintf(c, "%s\r\n", text) }
	var m Mail
	say("220 mail.test ESMTP")
	for {
		text, err := in.ReadLine()
		if err != nil {
			return
		}
		verb, rest, _ := strings.Cut(text, " ")
		switch strings.ToUpper(verb) {
		case "EHLO":
			say("250-mail.test\r\n250 AUTH PLAIN")
		case "AUTH":
			m.Login = rest
			say("235 2.7.0 yes")
		case "MAIL":
			m.From = rest
			say("250 yes")
		case "RCPT":
			s.mu.Lock()
			no := s.refuse
			s.mu.Unlock()
			if no != "" {
				say(no)
				continue
			}
			m.To = strings.Trim(strings.TrimPrefix(rest, "TO:"), "<>")
			say("250 yes")
		case "DATA":
			say("354 go on")
			data, err := in.ReadDotBytes()
			if err != nil {
				return
			}
			m.Data = string(data)
			s.mu.Lock()
			s.mails = append(s.mails, m)
			s.mu.Unlock()
			say("250 2.0.0 taken")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 yes")
		}
	}
}
