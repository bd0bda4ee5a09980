package workos

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/intake"
	"github.com/ambit-dev/ambit/internal/secret"
)

// AccountPlan says which connected accounts come, and where to.
type AccountPlan struct {
	Source *Source
	To     *client.Client
	// Providers are the names in Ambit of integrations that are named otherwise.
	Providers map[string]string
	// Apply connects; without it no credential is read, and nothing is changed.
	Apply bool
	// Done is called for each account, by one goroutine at a time. May be nil.
	Done func(AccountResult)
}

// AccountResult is what became of a connected account. It holds no credential.
type AccountResult struct {
	Provider     string       `json:"provider"` // in Ambit
	User         string       `json:"user_id,omitempty"`
	Organization string       `json:"organization_id,omitempty"`
	Shared       bool         `json:"shared"` // it is the organization's
	Method       string       `json:"auth_method"`
	State        intake.State `json:"state"`
	Until        *time.Time   `json:"until,omitempty"` // when a token that came without a refresh token ends
	Code         string       `json:"code,omitempty"`
	Message      string       `json:"message,omitempty"`
}

// AccountSummary counts them.
type AccountSummary struct {
	Accounts int                  `json:"accounts"`
	States   map[intake.State]int `json:"states"`
}

// Bad is how many need somebody to look at them.
func (s AccountSummary) Bad() int { return s.States[intake.Failed] }

// member of a list of WorkOS' API.
type member struct {
	ID           string `json:"id"`
	Organization string `json:"organization_id"`
	User         string `json:"user_id"`
}

// account as the list of a user's or an organization's providers has it.
type account struct {
	ID     string `json:"id"`
	Role   string `json:"connection_role"`
	Method string `json:"auth_method"`
	State  string `json:"state"`
}

type accountRun struct {
	AccountPlan
	mu  sync.Mutex
	sum AccountSummary
}

// ImportAccounts connects in Ambit what people and organizations have connected at
// WorkOS. Users and organizations keep the ids by which the application knows them.
// What is connected already stays as it is, so that a run that was cut off goes on when
// it is run again; one whose token has ended meanwhile gets the one that WorkOS has.
// WorkOS gives out keys and access tokens, and no refresh token or client secret.
func ImportAccounts(ctx context.Context, p AccountPlan) (AccountSummary, error) {
	r := &accountRun{AccountPlan: p, sum: AccountSummary{States: map[intake.State]int{}}}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	err := each(ctx, p.Source, "list users", "/user_management/users", nil, func(u member) error {
		g.Go(func() error { return r.user(ctx, u.ID) })
		return ctx.Err()
	})
	if err == nil {
		err = each(ctx, p.Source, "list organizations", "/organizations", nil, func(o member) error {
			g.Go(func() error { return r.organization(ctx, o.ID) })
			return ctx.Err()
		})
	}
	if failed := g.Wait(); failed != nil {
		err = failed
	}
	return r.sum, err
}

// user takes the accounts of a user: those beside any organization, and those in each.
func (r *accountRun) user(ctx context.Context, id string) error {
	if err := r.owned(ctx, client.ProductAccount{User: id}, ""); err != nil {
		return err
	}
	return each(ctx, r.Source, "list memberships", "/user_management/organization_memberships", url.Values{"user_id": {id}}, func(m member) error {
		return r.owned(ctx, client.ProductAccount{User: id, Organization: m.Organization}, "")
	})
}

// organization takes what is an organization's own, in the name of a member.
func (r *accountRun) organization(ctx context.Context, id string) error {
	by, enough := "", errors.New("one is enough")
	err := each(ctx, r.Source, "list memberships", "/user_management/organization_memberships", url.Values{"organization_id": {id}}, func(m member) error {
		by = m.User
		return enough
	})
	if by == "" { // nobody can act for it
		return err
	}
	return r.owned(ctx, client.ProductAccount{Organization: id, Shared: true}, by)
}

// owned takes the accounts of one owner; by acts for an organization.
func (r *accountRun) owned(ctx context.Context, who client.ProductAccount, by string) error {
	path := "/user_management/users/" + url.PathEscape(who.User) + "/data_providers"
	q := url.Values{"supports_multiple_connections": {"true"}}
	if who.Shared {
		path = "/organizations/" + url.PathEscape(who.Organization) + "/data_providers"
	} else if who.Organization != "" {
		q.Set("organization_id", who.Organization)
	}
	var got struct {
		Data []struct {
			Slug      string    `json:"slug"`
			Ownership string    `json:"connection_owner"`
			Account   *account  `json:"connected_account"`
			Accounts  []account `json:"connected_accounts"`
		} `json:"data"`
	}
	if err := r.Source.get(ctx, "list the accounts of "+cmp.Or(who.User, who.Organization), path+"?"+q.Encode(), &got); err != nil {
		return err
	}
	for _, p := range got.Data {
		if p.Ownership == "organization" && !who.Shared {
			continue // it comes with its organization
		}
		if len(p.Accounts) == 0 && p.Account != nil {
			p.Accounts = []account{*p.Account}
		}
		for i, a := range p.Accounts {
			if a.State == "disconnected" {
				continue
			}
			to := who
			to.Provider = cmp.Or(r.Providers[p.Slug], p.Slug)
			res := AccountResult{Provider: to.Provider, User: to.User, Organization: to.Organization, Shared: to.Shared, Method: a.Method, State: intake.Skipped}
			switch {
			case i > 0 && a.Role != "compatibility":
				res.Message = "a further account at the same provider: connect it in Ambit"
			case a.State != "connected":
				res.Message = "it has to be connected anew at WorkOS too"
			case a.Method == "client_credentials":
				res.Message = "WorkOS gives no client secret out: set it in Ambit"
			default:
				r.take(ctx, &res, to, p.Slug, by, a)
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			r.tell(res)
		}
	}
	return nil
}

func (r *accountRun) tell(res AccountResult) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sum.Accounts++
	r.sum.States[res.State]++
	if r.Done != nil {
		r.Done(res)
	}
}

// take connects one account.
func (r *accountRun) take(ctx context.Context, res *AccountResult, to client.ProductAccount, slug, by string, a account) {
	has, err := r.To.ProductAccountState(ctx, to)
	if err == nil && has == "connected" {
		res.State = intake.Same
		return
	}
	if err == nil && !r.Apply {
		res.State = intake.Would
		return
	}
	var c *given
	if err == nil {
		c, err = r.Source.credential(ctx, slug, to, by, a.ID)
	}
	switch {
	case err != nil:
	case c == nil:
		res.Message = "WorkOS has no working credential of it any more"
		return
	case c.method == "api_key":
		err = r.To.SetProductKey(ctx, to, by, string(c.value.Reveal()))
	default:
		res.Until = c.expires
		err = r.To.ImportProductTokens(ctx, to, by, client.ProductTokens{Access: string(c.value.Reveal()), Expires: c.expires, Scopes: c.scopes, Again: has != ""})
	}
	if err != nil {
		res.State = intake.Failed
		res.Code, res.Message = intake.Told(err)
		return
	}
	res.State = intake.Taken
	if c.method != "api_key" {
		res.Message = "without a refresh token: its owner connects it anew when the token ends"
	}
}

// given is a credential that WorkOS gives out.
type given struct {
	method  string
	value   secret.Value
	expires *time.Time
	scopes  []string
}

// credential reads what an account holds; nil if it does not work any more.
func (s *Source) credential(ctx context.Context, slug string, of client.ProductAccount, by, account string) (*given, error) {
	owner := "user"
	if of.Shared {
		owner = "organization"
	}
	body := map[string]any{"user_id": cmp.Or(of.User, by), "connection_owner": owner, "connected_account_id": account, "supports_multiple_connections": true}
	if of.Organization != "" {
		body["organization_id"] = of.Organization
	}
	var got struct {
		Active     bool `json:"active"`
		Credential struct {
			Method  string     `json:"auth_method"`
			Value   string     `json:"value"`
			Expires *time.Time `json:"expires_at"`
			Scopes  []string   `json:"scopes"`
		} `json:"credential"`
	}
	if err := s.ask(ctx, "give the credential of "+slug, http.MethodPost, "/data-integrations/"+url.PathEscape(slug)+"/credentials", body, &got); err != nil {
		return nil, err
	}
	if c := got.Credential; got.Active && c.Value != "" {
		return &given{c.Method, secret.FromString(c.Value), c.Expires, c.Scopes}, nil
	}
	return nil, nil
}
