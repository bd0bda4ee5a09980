// Package kv reads the key-value engines, versions 1 and 2, of HashiCorp Vault and
// OpenBao, through HashiCorp's own client.
//
// A secret there is a set of fields. It comes as one text in JSON, as the engine has
// it, or where Fields is set as one secret a field; a set with the one field "value"
// comes as that value in either case.
package kv

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/intake"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Config says which engine is read, and how.
type Config struct {
	Mount   string // such as "secret"
	Prefix  string // only paths below this; empty: all
	Version int    // of the engine: 1 or 2; 0: the server is asked
	Fields  bool   // each field is a secret of its own, PATH/FIELD
	// Getenv gives VAULT_ADDR, VAULT_TOKEN, VAULT_NAMESPACE, VAULT_CACERT.
	Getenv func(string) string
}

// Source is an engine. It is safe for concurrent use.
type Source struct {
	cfg    Config
	client *api.Client
	name   string
}

const maxPaths = 1_000_000 // in one engine

// Open finds out what engine it is. It sends the token to that server alone.
func Open(ctx context.Context, cfg Config) (*Source, error) {
	address := cfg.Getenv("VAULT_ADDR")
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && !(u.Scheme == "http" && local(u.Hostname())) {
		return nil, fault.New(fault.Invalid, "source_unset", "The address of the Vault is missing, or is not https.").WithHint("Set VAULT_ADDR, for example https://vault.example.com:8200, and VAULT_TOKEN.")
	}
	if cfg.Getenv("VAULT_TOKEN") == "" {
		return nil, fault.New(fault.Invalid, "source_unset", "There is no token for the Vault.").WithHint("Set VAULT_TOKEN to one that may list and read the engine, for example from: vault login -token-only")
	}
	conf := api.DefaultConfig()
	if conf.Error != nil {
		return nil, fault.New(fault.Invalid, "source_unset", "The client of Vault cannot be set up.").WithCause(conf.Error)
	}
	conf.Address, conf.Timeout, conf.MaxRetries, conf.DisableRedirects = address, 30*time.Second, 3, true
	if ca := cfg.Getenv("VAULT_CACERT"); ca != "" {
		if err := conf.ConfigureTLS(&api.TLSConfig{CACert: ca}); err != nil {
			return nil, fault.New(fault.Invalid, "source_unset", "The certificate of VAULT_CACERT cannot be used.").WithCause(err)
		}
	}
	c, err := api.NewClient(conf)
	if err != nil {
		return nil, fault.New(fault.Invalid, "source_unset", "The client of Vault cannot be set up.").WithCause(err)
	}
	c.SetToken(cfg.Getenv("VAULT_TOKEN"))
	if ns := cfg.Getenv("VAULT_NAMESPACE"); ns != "" {
		c.SetNamespace(ns)
	}
	cfg.Mount, cfg.Prefix = strings.Trim(cfg.Mount, "/"), strings.Trim(cfg.Prefix, "/")
	s := &Source{cfg: cfg, client: c, name: "vault " + u.Host + "/" + strings.TrimPrefix(strings.Trim(cfg.Getenv("VAULT_NAMESPACE"), "/")+"/", "/") + cfg.Mount}
	if s.cfg.Version == 0 {
		if s.cfg.Version, err = s.askVersion(ctx); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func local(host string) bool { return host == "localhost" || host == "127.0.0.1" || host == "::1" }

// askVersion asks as the vault command does.
func (s *Source) askVersion(ctx context.Context) (int, error) {
	got, err := s.client.Logical().ReadWithContext(ctx, "sys/internal/ui/mounts/"+s.cfg.Mount)
	if err != nil {
		return 0, said("look at the engine "+s.cfg.Mount, err)
	}
	if got == nil || got.Data["type"] != "kv" && got.Data["type"] != "generic" {
		return 0, fault.New(fault.Invalid, "source_unfit", s.cfg.Mount+" is no key-value engine.").WithHint("Name one with --mount.")
	}
	options, _ := got.Data["options"].(map[string]any)
	if options["version"] == "2" {
		return 2, nil
	}
	return 1, nil
}

// said turns the client's error into ours. What Vault answers may quote the request.
func said(doing string, err error) error {
	f := fault.New(fault.Unavailable, "source_failed", "Vault did not "+doing+".").WithHint("Try again; what was imported stays.")
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, another := errors.AsType[x509.HostnameError](err)
	_, network := errors.AsType[*net.OpError](err)
	switch {
	case unknown || another:
		f = fault.New(fault.Unavailable, "source_failed", "The certificate of the Vault cannot be trusted.").WithHint("Set VAULT_CACERT to the certificate of your own authority, and VAULT_ADDR to the name that it is for.")
	case network:
		f = f.WithHint("It does not answer: look at VAULT_ADDR, at the network, and at whether Vault runs. What was imported stays.")
	}
	if e, ok := errors.AsType[*api.ResponseError](err); ok {
		switch {
		case e.StatusCode == http.StatusForbidden:
			f = fault.New(fault.Denied, "source_denied", "Vault does not let this token "+doing+".").WithHint("It needs the capabilities list and read on the engine's paths, and may have ended: vault token lookup")
		case e.StatusCode == http.StatusServiceUnavailable:
			f = f.WithHint("It is sealed, or in maintenance: vault status. Run this again when it is not; what was imported stays.")
		case e.StatusCode == http.StatusNotFound:
			f = fault.New(fault.NotFound, "source_missing", "Vault has nothing there: it could not "+doing+".")
		}
		return f.WithCause(fmt.Errorf("vault answered %d", e.StatusCode))
	}
	return f.WithCause(fmt.Errorf("asking vault (%T)", err))
}

// Name says which engine of which server it is.
func (s *Source) Name() string { return s.name }

// Paths walks the tree of the engine.
func (s *Source) Paths(ctx context.Context, fn func(path string) error) error {
	n := 0
	return s.walk(ctx, s.cfg.Prefix, func(path string) error {
		if n++; n > maxPaths {
			return fault.New(fault.TooLarge, "too_many", "The engine has over a million secrets.").WithHint("Import it in parts, by a path below it.")
		}
		if !s.cfg.Fields {
			return fn(path)
		}
		item, err := s.read(ctx, path)
		if err != nil {
			return fn(path) // which tells the failure of this path
		}
		for _, field := range item.fields() {
			if err := fn(path + "/" + field); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Source) walk(ctx context.Context, below string, fn func(string) error) error {
	at := s.cfg.Mount
	if s.cfg.Version == 2 {
		at += "/metadata"
	}
	got, err := s.client.Logical().ListWithContext(ctx, join(at, below)+"/")
	if err != nil {
		return said("list "+join(s.cfg.Mount, below), err)
	}
	if got == nil { // a secret, or nothing
		if below == "" {
			return nil
		}
		return fn(below)
	}
	keys, _ := got.Data["keys"].([]any)
	for _, k := range keys {
		key, _ := k.(string)
		if dir, ok := strings.CutSuffix(key, "/"); ok {
			if err := s.walk(ctx, join(below, dir), fn); err != nil {
				return err
			}
		} else if err := fn(join(below, key)); err != nil {
			return err
		}
	}
	return nil
}

func join(a, b string) string { return strings.Trim(a+"/"+b, "/") }

// item is a secret with all its versions, as sets of fields.
type item struct {
	versions []version
	gone     int
	metadata map[string]string
}

type version struct {
	id     string
	fields map[string]any
}

// fields are the names of those that any version has.
func (i item) fields() []string {
	names := map[string]bool{}
	for _, v := range i.versions {
		for name := range v.fields {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// Read gives a secret, or one field of it.
func (s *Source) Read(ctx context.Context, path string) (intake.Item, error) {
	field := ""
	if s.cfg.Fields {
		i := strings.LastIndexByte(path, '/')
		if i < 0 {
			return intake.Item{}, fault.New(fault.Invalid, "source_failed", "The fields of this secret could not be read.")
		}
		path, field = path[:i], path[i+1:]
	}
	got, err := s.read(ctx, path)
	if err != nil {
		return intake.Item{}, err
	}
	out := intake.Item{Gone: got.gone, Metadata: got.metadata}
	var last string
	for _, v := range got.versions {
		value, ok := v.text(field)
		if !ok || field != "" && len(out.Versions) > 0 && value == last {
			continue // this field did not change then
		}
		last = value
		out.Versions = append(out.Versions, intake.Version{ID: v.id, Value: secret.FromString(value)})
	}
	return out, nil
}

// text is a version as a value.
func (v version) text(field string) (string, bool) {
	if field == "" {
		if only, ok := v.fields["value"].(string); ok && len(v.fields) == 1 {
			return only, true
		}
		return jsonText(v.fields)
	}
	switch x := v.fields[field].(type) {
	case nil:
		return "", false
	case string:
		return x, true
	default:
		return jsonText(x)
	}
}

// jsonText is a value in JSON, with its characters as they are.
func jsonText(v any) (string, bool) {
	var doc strings.Builder
	e := json.NewEncoder(&doc)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return strings.TrimSuffix(doc.String(), "\n"), err == nil
}

func (s *Source) read(ctx context.Context, path string) (item, error) {
	if s.cfg.Version == 1 {
		got, err := s.client.Logical().ReadWithContext(ctx, join(s.cfg.Mount, path))
		if err != nil {
			return item{}, said("read "+join(s.cfg.Mount, path), err)
		}
		if got == nil {
			return item{}, nil
		}
		return item{versions: []version{{"1", got.Data}}}, nil
	}
	meta, err := s.client.Logical().ReadWithContext(ctx, join(s.cfg.Mount+"/metadata", path))
	if err != nil || meta == nil {
		return item{}, said("read "+join(s.cfg.Mount, path), cmpErr(err))
	}
	out := item{metadata: map[string]string{}}
	custom, _ := meta.Data["custom_metadata"].(map[string]any)
	for name, v := range custom {
		if text, ok := v.(string); ok {
			out.metadata[name] = text
		}
	}
	all, _ := meta.Data["versions"].(map[string]any)
	var numbers []int
	for n := range all {
		if i, err := strconv.Atoi(n); err == nil {
			numbers = append(numbers, i)
		}
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		about, _ := all[strconv.Itoa(n)].(map[string]any)
		if deleted, _ := about["deletion_time"].(string); deleted != "" && past(deleted) || about["destroyed"] == true {
			out.gone++
			continue
		}
		got, err := s.client.Logical().ReadWithDataWithContext(ctx, join(s.cfg.Mount+"/data", path), url.Values{"version": {strconv.Itoa(n)}})
		if err != nil {
			return item{}, said("read "+join(s.cfg.Mount, path), err)
		}
		if got == nil {
			out.gone++
			continue
		}
		fields, ok := got.Data["data"].(map[string]any)
		if !ok {
			out.gone++ // deleted between the two questions
			continue
		}
		out.versions = append(out.versions, version{strconv.Itoa(n), fields})
	}
	return out, nil
}

func past(stamp string) bool {
	t, err := time.Parse(time.RFC3339Nano, stamp)
	return err != nil || !t.After(time.Now())
}

// cmpErr is err, or that there was no answer.
func cmpErr(err error) error {
	if err != nil {
		return err
	}
	return &api.ResponseError{StatusCode: http.StatusNotFound}
}
