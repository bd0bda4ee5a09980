package outbound_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
)

// A bug: whatever kept an answer from coming, a streamed request was said to have
// been cancelled, since its context was ended before the error was looked at
// (threats.md U4: an error says what is known).
func TestStreamSaysWhatFailed(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/breaks":
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_ = conn.Close()
		case "/waits":
			<-r.Context().Done()
		}
	}, false)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	_ = l.Close()
	nobody := newClient(t, outbound.Policy{Allow: []string{closed, up.Listener.Addr().String()}})
	stop, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		name   string
		ctx    context.Context
		client *outbound.Client
		url    string
		code   string
		sent   bool
	}{
		{"nobody listens", t.Context(), nobody, "https://" + closed, "upstream_unreachable", false},
		{"another authority", t.Context(), nobody, up.URL + "/", "upstream_unreachable", false},
		{"it breaks off", t.Context(), up.client, up.URL + "/breaks", "upstream_broken", true},
		{"it says nothing", t.Context(), up.client, up.URL + "/waits", "upstream_timeout", true},
		{"the caller is gone", stop, up.client, up.URL + "/waits", "upstream_cancelled", false},
	} {
		bound := outbound.Bound{Bases: []string{test.url}, Party: "test"}
		s, err := test.client.Stream(test.ctx, bound, request(t, "POST", test.url, nil), outbound.StreamLimits{Head: 100 * time.Millisecond})
		if err == nil {
			_ = s.Close()
		}
		if fault.Of(err).Code != test.code || outbound.Sent(err) != test.sent {
			t.Errorf("%s: %v (%s), sent %v; want %s, %v", test.name, err, fault.Of(err).Code, outbound.Sent(err), test.code, test.sent)
		}
	}
}

// A bug: an answer that began before its request was sent whole, as in a talk over
// gRPC, was cut once the time for a head had passed after the end of the request.
func TestStreamOutlivesTheSendingOfItsRequest(t *testing.T) {
	t.Parallel()
	const head = 100 * time.Millisecond
	up := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.Flush()
		_, _ = io.Copy(io.Discard, r.Body)
		time.Sleep(5 * head)
		_, _ = io.WriteString(w, "the end")
	}, true)
	r, w := io.Pipe()
	s, err := up.client.Stream(t.Context(), up.bound, request(t, "POST", up.URL, r), outbound.StreamLimits{Head: head})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, _ = io.WriteString(w, "the last word")
	_ = w.Close()
	if text, err := io.ReadAll(s); err != nil || string(text) != "the end" {
		t.Errorf("the answer is %q, %v", text, err)
	}
}
