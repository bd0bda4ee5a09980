package vault

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// ListOptions selects named secrets. The zero value is the first page of all.
type ListOptions struct {
	Limit         int    // 1 to 100; default 10
	Before, After string // cursors of a [ListPage]; at most one of them
	Order         string // by time of update: "desc" (default) or "asc"
	Search        string // part of the name or of the description, in any case
	Prefix        string // of the name, exactly
	Tags          []string
	Context       map[string]string // items of the key context, all of them
	UpdatedAfter  time.Time
	Deleted       bool // those that are deleted and can be taken back, and no others
}

// ListPage is a part of a list. A cursor is empty where the list ends.
type ListPage struct {
	Objects       []Object
	Before, After string
}

// List gives the secrets that c sees, by the time of their last update.
func (v *Vault) List(ctx context.Context, c Caller, o ListOptions) (ListPage, error) {
	if o.Limit == 0 {
		o.Limit = 10
	}
	switch {
	case o.Limit < 1 || o.Limit > 100:
		return ListPage{}, fault.New(fault.Invalid, "invalid_limit", "A page has 1 to 100 secrets.")
	case o.Order != "" && o.Order != "asc" && o.Order != "desc":
		return ListPage{}, fault.New(fault.Invalid, "invalid_order", `The order is "asc" or "desc".`)
	case o.Before != "" && o.After != "":
		return ListPage{}, fault.New(fault.Invalid, "invalid_cursor", "A page comes before a cursor or after one, not both.")
	case utf8.RuneCountInString(o.Search) > MaxName:
		return ListPage{}, fault.New(fault.Invalid, "invalid_search", fmt.Sprintf("The search has over %d characters.", MaxName))
	}
	from, err := parsePosition(o.Before + o.After)
	if err != nil {
		return ListPage{}, err
	}
	if err := o.canonical(); err != nil {
		return ListPage{}, err
	}
	// A page before a cursor is read backwards from it.
	backwards := o.Before != ""
	objects, err := listObjects(ctx, v.db.Lists(cmp.Or(string(c.Organization), string(c.Environment))), c, o, from, (o.Order != "asc") != backwards, o.Limit+1)
	if errors.Is(err, crypt.ErrIntegrity) {
		return ListPage{}, v.integrity(Place{Kind: "secret", Object: "of " + string(c.Environment)})
	}
	if err != nil {
		return ListPage{}, sqldb.Wrap("list secrets", err)
	}
	more := len(objects) > o.Limit
	if more {
		objects = objects[:o.Limit]
	}
	if backwards {
		slices.Reverse(objects)
	}
	page := ListPage{Objects: objects}
	if len(objects) > 0 {
		if first := objects[0]; backwards && more || o.After != "" {
			page.Before = position{sqldb.Micros(first.UpdatedAt), string(first.ID)}.String()
		}
		if last := objects[len(objects)-1]; backwards || more {
			page.After = position{sqldb.Micros(last.UpdatedAt), string(last.ID)}.String()
		}
	}
	e := c.entry("secret.listed", Object{})
	e.Detail = map[string]string{"count": strconv.Itoa(len(objects)), "actor_name": c.Name}
	if err := v.record(ctx, e); err != nil {
		return ListPage{}, err
	}
	return page, nil
}

// canonical puts what selects into the forms in which secrets have it.
func (o *ListOptions) canonical() error {
	prefix, ok := spelled(o.Prefix)
	if o.Prefix = strings.TrimLeft(prefix, " "); !ok || utf8.RuneCountInString(prefix) > MaxName {
		return fault.New(fault.Invalid, "invalid_prefix", "That cannot begin a name.")
	}
	facts, err := Facts{Tags: o.Tags}.canonical()
	if err != nil {
		return err
	}
	o.Tags = facts.Tags
	o.Context, err = canonicalContext(o.Context)
	return err
}

// position is a point between two secrets of a list.
type position struct {
	updated int64
	id      string
}

func (p position) String() string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(p.updated, 10) + " " + p.id))
}

func parsePosition(cursor string) (*position, error) {
	if cursor == "" {
		return nil, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	micros, last, ok := strings.Cut(string(raw), " ")
	updated, perr := strconv.ParseInt(micros, 10, 64)
	var s id.Secret
	if err != nil || perr != nil || !ok || parseID(&s, last) != nil {
		return nil, fault.New(fault.Invalid, "invalid_cursor", "That is not a cursor of this list.").
			WithHint("Use a cursor that an earlier page gave, or none.")
	}
	return &position{updated, string(s)}, nil
}
