package web

import (
	"crypto/rand"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
)

// change is what a form would change, where that may raise somebody's
// authority. Lowering it is done at once; raising it takes the person's
// agreement, for which a page asks that says in plain words what will change.
type change struct {
	// try makes the change, or with account.Asking says what must be agreed to.
	try func(account.Agreement) (answer, error)
	// ask is the page that asks for it. A ConfirmPage is given the form's fields.
	ask func(account.Raise) (page, error)
	// form is the form that the change came from, as it was filled in, for what
	// is refused. Nil: an error page.
	form func() (page, error)
	back string // where somebody goes who does not want it
}

// confirmed are the routes of one change. A GET asks and changes nothing, so
// that a command line can name the page; its address carries no authority.
func (s *Server) confirmed(path string, of func(*visit) (change, error)) []route {
	with := func(run func(*visit, change) (answer, error)) func(*visit) (answer, error) {
		return func(v *visit) (answer, error) {
			c, err := of(v)
			if err != nil {
				return nil, err
			}
			return run(v, c)
		}
	}
	return []route{
		{"GET " + path, false, with(s.confirmPage)},
		{"POST " + path, false, with(s.confirm)},
		{"POST " + path + "/challenge", false, with(s.confirmChallenge)},
	}
}

// asked gives what a change needs agreed to; needed is false if nothing.
func (c change) asked() (r account.Raise, needed bool, err error) {
	_, err = c.try(account.Asking())
	if need, ok := errors.AsType[*account.Unproven](err); ok {
		return need.Raise, true, nil
	}
	if fault.Is(err, "nothing_to_confirm") {
		return account.Raise{}, false, nil
	}
	if err == nil {
		err = fault.New(fault.Internal, "not_asked", "A change was made that was only asked about.")
	}
	return account.Raise{}, false, err
}

func (s *Server) confirmPage(v *visit, c change) (answer, error) {
	r, needed, err := c.asked()
	switch {
	case err != nil:
		return c.refused(err)
	case !needed:
		return goTo(c.back), nil
	}
	p, err := s.asking(v, c, r)
	if err != nil {
		return nil, err
	}
	return show(p), nil
}

func (s *Server) confirmChallenge(v *visit, c change) (answer, error) {
	r, needed, err := c.asked()
	if err == nil && !needed {
		err = fault.New(fault.Conflict, "nothing_to_confirm", "This is so already, or needs no confirmation.").WithHint("Go back and look.")
	}
	if err != nil {
		return nil, err
	}
	return s.challenge(v, s.people.RaiseDigest(v.person, r, v.form("nonce")))
}

func (s *Server) confirm(v *visit, c change) (answer, error) {
	r, needed, err := c.asked()
	if err != nil {
		return c.refused(err)
	}
	var ag account.Agreement
	if needed {
		p, err := s.asking(v, c, r)
		if err != nil {
			return nil, err
		}
		proof := v.proof()
		if len(proof.Assertion) == 0 && proof.TOTP == "" {
			switch p.(type) {
			case *ConfirmPage, *ShredPage:
				return show(p), nil
			}
			return again(p, fault.New(fault.Invalid, "proof_required", "This needs your passkey or a code of your authenticator app."))
		}
		if ag, err = s.people.Agree(v.ctx(), v.person, r, v.form("nonce"), proof); err != nil {
			return again(p, err)
		}
	}
	a, err := c.try(ag)
	if err != nil {
		return c.refused(err)
	}
	return a, nil
}

// refused leads back to the form, with what was typed and why it was refused.
func (c change) refused(err error) (answer, error) {
	if c.form == nil {
		return nil, err
	}
	p, broken := c.form()
	if broken != nil {
		return nil, err
	}
	return again(p, err)
}

// asking is the page that asks for r, which carries the fields of the form.
func (s *Server) asking(v *visit, c change, r account.Raise) (page, error) {
	p, err := c.ask(r)
	if err != nil {
		return nil, err
	}
	if ask, ok := p.(*ConfirmPage); ok {
		ask.Action = strings.TrimSuffix(v.r.URL.Path, "/challenge")
		ask.Begin, ask.Back, ask.Nonce = ask.Action+"/challenge", c.back, rand.Text()
		ask.TOTP, ask.Fields = s.codeAllowed(v), carried(v)
	}
	return p, nil
}

// carried are the fields that a form was sent with, but for the proof.
func carried(v *visit) []Fact {
	from := v.r.PostForm
	if v.r.Method == http.MethodGet {
		from = v.r.Form
	}
	values := url.Values{"org": {string(v.here.Organization)}}
	for name, list := range from {
		if !slices.Contains([]string{"credential", "flow", "code", "nonce", "with", "org"}, name) {
			values[name] = list
		}
	}
	var out []Fact
	for _, name := range slices.Sorted(maps.Keys(values)) {
		for _, value := range values[name] {
			out = append(out, Fact{Name: name, Value: value})
		}
	}
	return out
}
