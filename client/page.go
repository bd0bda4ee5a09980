package client

import (
	"context"
	"net/url"
	"strconv"
)

// Page is a part of a list. Next is what to pass as After for the part that
// follows, and empty at the end.
type Page[T any] struct {
	Data []T    `json:"data"`
	Next string `json:"next"`
}

// Paging asks for a part of a list.
type Paging struct {
	Limit int // 0: the server's default
	After string
}

func (p Paging) add(q url.Values) url.Values {
	if p.Limit != 0 {
		q.Set("limit", strconv.Itoa(p.Limit))
	}
	set(q, "after", p.After)
	return q
}

func set(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}

func read[T any](ctx context.Context, c *Client, path string, query url.Values) (out T, err error) {
	err = c.do(ctx, get(path, query), &out)
	return out, err
}

// send makes a change; repeat says whether making it twice is making it once.
func send[T any](ctx context.Context, c *Client, method, path string, body any, repeat bool) (out T, err error) {
	err = c.do(ctx, call{method: method, path: path, body: body, repeat: repeat}, &out)
	return out, err
}

// All reads every page of a list. list reads the one that starts after a cursor.
func All[T any](ctx context.Context, list func(ctx context.Context, after string) (Page[T], error)) ([]T, error) {
	var out []T
	for after := ""; ; {
		p, err := list(ctx, after)
		if err != nil {
			return nil, err
		}
		out = append(out, p.Data...)
		if p.Next == "" || p.Next == after {
			return out, nil
		}
		after = p.Next
	}
}

func ofOrganization(id string) url.Values {
	q := url.Values{}
	set(q, "organization_id", id)
	return q
}
