package throttle

import "net/http"

// Known tells whoever serves w who asks, once that is known: caller, an agent, a
// person or an application, which belongs to group, an organization or what runs
// several. From then on the request counts as theirs and not as that of an
// address. The error is a refusal, for which the door's answer is the only work
// left to do. A door does so before it waits for the request's body.
//
// The writer is asked and not the context, so that nobody takes what travels
// there for an identity. One that counts nothing lets everybody in.
func Known(w http.ResponseWriter, group, caller string) error {
	for {
		switch v := w.(type) {
		case interface {
			Known(group, caller string) error
		}:
			return v.Known(group, caller)
		case interface{ Unwrap() http.ResponseWriter }:
			w = v.Unwrap()
		default:
			return nil
		}
	}
}
