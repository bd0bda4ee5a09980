package app

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
)

// Someone is a member, as the commands of the server's own machine name people.
type Someone struct {
	ID    string   `json:"id"`
	Name  string   `json:"name"`
	Email string   `json:"email"`
	Roles []string `json:"roles"` // such as "owner of default"
}

// Everyone lists all members of all organizations, owners first. It is for
// whoever may read the data folder: an operator who must help somebody who lost
// their passkeys, and cannot look them up with a login of their own.
func (a *App) Everyone(ctx context.Context) ([]Someone, error) {
	console := account.System("console")
	envs, err := a.People.Environments(ctx, console)
	if err != nil {
		return nil, err
	}
	var all []Someone
	for _, env := range envs {
		by := console.In(env.ID)
		orgs, err := every(func(l account.List) ([]account.Organization, string, error) {
			return a.People.Organizations(ctx, by, env.ID, l)
		})
		if err != nil {
			return nil, err
		}
		for _, org := range orgs {
			members, err := every(func(l account.List) ([]account.Member, string, error) { return a.People.Members(ctx, by, org.ID, l) })
			if err != nil {
				return nil, err
			}
			for _, m := range members {
				all = addRole(all, m, org.Name)
			}
		}
	}
	slices.SortStableFunc(all, func(x, y Someone) int { return y.owns() - x.owns() })
	return all, nil
}

func addRole(all []Someone, m account.Member, org string) []Someone {
	role := string(m.Role) + " of " + org
	for i := range all {
		if id.User(all[i].ID) == m.User.ID {
			all[i].Roles = append(all[i].Roles, role)
			return all
		}
	}
	return append(all, Someone{ID: string(m.User.ID), Name: m.User.Name, Email: m.User.Email, Roles: []string{role}})
}

func (s Someone) owns() int {
	if slices.ContainsFunc(s.Roles, func(r string) bool { return strings.HasPrefix(r, string(account.RoleOwner)+" ") }) {
		return 1
	}
	return 0
}

// every reads all pages of a list.
func every[T any](list func(account.List) ([]T, string, error)) ([]T, error) {
	var all []T
	for after := ""; ; {
		rows, next, err := list(account.List{After: after, Limit: 200})
		if err != nil {
			return nil, err
		}
		if all = append(all, rows...); next == "" {
			return all, nil
		}
		after = next
	}
}

func (a *App) everyone(w http.ResponseWriter, r *http.Request) {
	all, err := a.Everyone(r.Context())
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(all)
}

// Refusal is what the console answers when it does not do what it was asked.
type Refusal struct {
	Kind    fault.Kind `json:"kind"`
	Code    string     `json:"code"`
	Message string     `json:"message"`
	Hint    string     `json:"hint"`
}

func refuse(w http.ResponseWriter, err error) {
	f := fault.Of(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	_ = json.NewEncoder(w).Encode(Refusal{f.Kind, f.Code, f.Message, f.Hint})
}
