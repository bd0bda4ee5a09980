package app

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/ambit-dev/ambit/internal/sqldb"
)

// settings are those that must be the same on every node of a database, or a
// request would fare differently from one to the next. None is a secret.
type settings struct {
	PublicURL      string   `json:"public_url"`
	NoRegistration bool     `json:"no_registration"`
	Documents      []string `json:"client_documents,omitempty"`
	AllowVend      bool     `json:"allow_vend"`
	CallRate       float64  `json:"call_rate"`
	OutboundAllow  []string `json:"outbound_allow"`
	KeyGrace       string   `json:"key_grace"`
	SignIn         string   `json:"sign_in,omitempty"` // issuer and client id
}

func (a *App) settings() settings {
	allow := slices.Clone(a.cfg.OutboundAllow)
	slices.Sort(allow)
	return settings{PublicURL: a.public.String(), NoRegistration: a.cfg.NoRegistration, Documents: slices.Sorted(slices.Values(a.cfg.ClientDocuments)), AllowVend: a.cfg.AllowVend, CallRate: a.cfg.CallRate,
		OutboundAllow: allow, KeyGrace: a.cfg.KeyGrace.String(), SignIn: strings.TrimSpace(a.cfg.SignIn.Issuer + " " + a.cfg.SignIn.ClientID)}
}

// join makes this process a node of the database. It is refused under another
// public URL than that of the nodes that live: passkeys, tokens and links of the
// one would not count at the other.
func (a *App) join(ctx context.Context) (err error) {
	mine := a.settings()
	doc, err := json.Marshal(mine)
	if err != nil {
		return fmt.Errorf("encoding the settings of this node: %w", err)
	}
	var notes []string
	a.member, err = a.db.Join(ctx, sqldb.Node{Name: a.cfg.Node, Binary: a.cfg.Version, Settings: string(doc)}, func(others []sqldb.Node) error {
		notes = nil
		for _, o := range others {
			var theirs settings
			if json.Unmarshal([]byte(o.Settings), &theirs) != nil {
				continue // of a binary that writes them in another way
			}
			if theirs.PublicURL != mine.PublicURL {
				return invalid("public_url_differs", "The node "+o.Name+" serves this database as "+theirs.PublicURL+", and this one would as "+mine.PublicURL+".",
					"Set AMBIT_PUBLIC_URL to the same on every node. To change it, stop all nodes first; one that died is forgotten after 20 seconds.")
			}
			if d := mine.differ(theirs); len(d) > 0 {
				notes = append(notes, o.Name+": "+strings.Join(d, ", "))
			}
		}
		return nil
	})
	for _, n := range notes {
		a.log.Warn("another node has other settings, so requests fare differently there", "node", n)
	}
	a.joined = err == nil
	return err
}

// differ names the settings that are not the same.
func (s settings) differ(o settings) (names []string) {
	for name, same := range map[string]bool{
		"AMBIT_NO_REGISTRATION": s.NoRegistration == o.NoRegistration, "AMBIT_CLIENT_DOCUMENTS": slices.Equal(s.Documents, o.Documents), "AMBIT_ALLOW_VEND": s.AllowVend == o.AllowVend, "AMBIT_CALL_RATE": s.CallRate == o.CallRate,
		"AMBIT_OUTBOUND_ALLOW": slices.Equal(s.OutboundAllow, o.OutboundAllow), "AMBIT_KEY_GRACE": s.KeyGrace == o.KeyGrace, "AMBIT_SIGNIN_ISSUER": s.SignIn == o.SignIn,
	} {
		if !same {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// mayCall refuses calls while this node must not make any.
func (a *App) mayCall() error {
	if err := a.member.Ready(); err != nil {
		return err
	}
	return a.clock.Ready()
}
