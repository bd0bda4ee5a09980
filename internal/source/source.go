// Package source reads secrets where a team keeps them already, HashiCorp Vault or
// OpenBao and AWS Secrets Manager, at the moment they are used: a connection then holds
// the place of its key and not the key.
//
// Which sources there are, with whose authority each is asked and which organization may
// name what below which prefix is the operator's file, never a tenant's: a source's token
// opens more than one organization's secrets. Nothing is cached: what was taken back or
// changed there counts for the next call, and a source that does not answer is a call that
// is not made. Each source is asked through the client that judges addresses, at the host
// of the file and nowhere else; redirects are not followed.
package source

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Config is one source, as the operator's file has it.
type Config struct {
	Name         string `yaml:"name"`
	Organization string `yaml:"organization"` // the one that may use it
	Kind         string `yaml:"kind"`         // vault or aws
	Prefix       string `yaml:"prefix"`       // everything that is named lies below it; may be empty

	Address   string `yaml:"address"`    // of a Vault, such as https://vault.example.com:8200
	Namespace string `yaml:"namespace"`  // of a Vault; may be empty
	Mount     string `yaml:"mount"`      // of its key-value engine
	Version   int    `yaml:"kv"`         // of that engine, 1 or 2
	TokenFile string `yaml:"token_file"` // read for each use, so that an agent of Vault's can renew it

	Region string `yaml:"region"` // of AWS
}

// Options are what sources may use.
type Options struct {
	Vault Doer // believes the operator's own authorities
	AWS   Doer // may ask for the machine's identity
}

// Doer is the part of an HTTP client that is used here. It follows no redirect.
type Doer interface {
	Do(*http.Request) (*http.Response, error)
}

// Sources are those of one server. The zero value has none. It is safe for concurrent use.
type Sources struct{ byName map[string]named }

type named struct {
	Config
	reader
}

// reader is a back end.
type reader interface {
	// read gives the fields of a secret, or its one value under the name "".
	read(ctx context.Context, path string) (map[string]string, error)
}

// limit is how long a source may take; a call waits for it.
const limit = 10 * time.Second

// Open reads the operator's file. It asks no source yet.
func Open(ctx context.Context, file string, o Options) (*Sources, error) {
	doc, err := os.ReadFile(file)
	if err != nil {
		return nil, invalid("it cannot be read").WithCause(err)
	}
	var list struct {
		Sources []Config `yaml:"sources"`
	}
	if err := yaml.Load(doc, &list, yaml.WithKnownFields()); err != nil {
		return nil, invalid("it is not well-formed: " + strings.TrimPrefix(err.Error(), "yaml: "))
	}
	s := &Sources{byName: map[string]named{}}
	for _, c := range list.Sources {
		if why := c.problem(); why != "" {
			return nil, invalid("the source " + c.Name + ": " + why)
		}
		if _, twice := s.byName[c.Name]; twice {
			return nil, invalid("the name " + c.Name + " stands there twice")
		}
		var r reader = &vaultReader{cfg: c, http: o.Vault}
		if c.Kind == "aws" {
			if r, err = openAWS(ctx, c, o.AWS); err != nil {
				return nil, err
			}
		}
		s.byName[c.Name] = named{c, r}
	}
	return s, nil
}

func invalid(why string) *fault.Error {
	return fault.New(fault.Invalid, "sources_invalid", "The file of sources cannot be used: "+why+".").WithHint("docs/sources.md shows its form. AMBIT_SOURCES names the file.")
}

var (
	nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,39}$`)
	// pathForm leaves out what a server could read in another way: escapes, queries, and
	// segments that are empty or of dots alone.
	pathForm = regexp.MustCompile(`^[A-Za-z0-9_+=@.-]+(?:/[A-Za-z0-9_+=@.-]+)*$`)
	dots     = regexp.MustCompile(`(?:^|/)\.+(?:/|$)`)
)

func (c Config) problem() string {
	u, err := url.Parse(c.Address)
	switch {
	case !nameForm.MatchString(c.Name):
		return "a name is 1 to 40 of a-z, 0-9, _ and -"
	case !strings.HasPrefix(c.Organization, "org_") || !fits(c.Organization):
		return "organization is the id of one, org_…"
	case c.Prefix != "" && !fits(strings.Trim(c.Prefix, "/")):
		return "prefix is a path"
	case c.Kind == "aws" && c.Region == "":
		return "region is missing"
	case c.Kind == "aws":
		return ""
	case c.Kind != "vault":
		return "kind is vault or aws"
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || strings.Trim(u.Path, "/") != "" || u.Scheme != "https" && !(u.Scheme == "http" && (u.Hostname() == "localhost" || u.Hostname() == "127.0.0.1")):
		return "address is https://host[:port]"
	case !fits(c.Mount):
		return "mount is the path of the engine"
	case c.Version != 1 && c.Version != 2:
		return "kv is 1 or 2"
	case c.TokenFile == "":
		return "token_file is missing"
	}
	return ""
}

func fits(path string) bool {
	return len(path) <= 400 && pathForm.MatchString(path) && !dots.MatchString(path)
}

// Read gives the secret at ref, SOURCE/PATH or SOURCE/PATH#FIELD, for an organization. A
// source that is not the organization's looks like one that does not exist.
func (s *Sources) Read(ctx context.Context, org id.Organization, ref string) (secret.Value, error) {
	place, field, _ := strings.Cut(ref, "#")
	name, path, _ := strings.Cut(place, "/")
	var n named
	if s != nil {
		n = s.byName[name]
	}
	if n.reader == nil || n.Organization != string(org) {
		return secret.Value{}, fault.New(fault.NotFound, "source_unknown", "There is no such source of secrets.").WithHint("The operator lists them in the file that AMBIT_SOURCES names, for one organization each.")
	}
	if !fits(path) || len(field) > 200 {
		return secret.Value{}, fault.New(fault.Invalid, "source_path_invalid", "The place in the source is not SOURCE/PATH or SOURCE/PATH#FIELD.").WithHint("A path has letters, digits and _ + = @ . - between slashes.")
	}
	if p := strings.Trim(n.Prefix, "/"); p != "" {
		path = p + "/" + path
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	fields, err := n.read(ctx, path)
	if err != nil {
		return secret.Value{}, err
	}
	return pick(fields, field)
}

// pick is the field that was named, or the only one that there is.
func pick(fields map[string]string, field string) (secret.Value, error) {
	if whole, ok := fields[""]; ok && field != "" {
		var all map[string]any
		if json.Unmarshal([]byte(whole), &all) != nil {
			return secret.Value{}, missing()
		}
		fields = texts(all)
	}
	if field == "" && len(fields) == 1 {
		for field = range fields {
		}
	}
	if field == "" && fields["value"] != "" {
		field = "value"
	}
	v := fields[field]
	if v == "" {
		return secret.Value{}, missing()
	}
	return secret.FromString(v), nil
}

// texts are the members of a JSON object that are texts.
func texts(all map[string]any) map[string]string {
	out := map[string]string{}
	for k, v := range all {
		if text, ok := v.(string); ok && k != "" {
			out[k] = text
		}
	}
	return out
}

// The classes of failure. What a source says in its own words is not passed on: it may
// quote what was asked.

func missing() error {
	return fault.New(fault.Unavailable, "source_missing", "The source has no such secret, or not this field of it.").WithHint("Look at the path and the field in the source, then connect the account again if they have changed.")
}

func denied(cause error) error {
	return fault.New(fault.Unavailable, "source_denied", "The source of this secret does not let Ambit read it.").WithHint("The operator looks at the source's policy and at the token or role in the file of sources.").WithCause(cause)
}

func unavailable(cause error) error {
	return fault.New(fault.Unavailable, "source_unavailable", "The source of this secret does not answer.").WithHint("Try again in a moment.").WithRetry(5 * time.Second).WithCause(cause)
}

// vaultReader asks the key-value engine of a Vault.
type vaultReader struct {
	cfg  Config
	http Doer
}

func (v *vaultReader) read(ctx context.Context, path string) (map[string]string, error) {
	token, err := os.ReadFile(v.cfg.TokenFile)
	if err != nil || len(bytes.TrimSpace(token)) == 0 {
		return nil, denied(fmt.Errorf("reading the token of %s (%T)", v.cfg.Name, err))
	}
	at := "/v1/" + v.cfg.Mount + "/" + path
	if v.cfg.Version == 2 {
		at = "/v1/" + v.cfg.Mount + "/data/" + path
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(v.cfg.Address, "/")+at, nil)
	if err != nil {
		return nil, unavailable(err)
	}
	req.Header.Set("X-Vault-Token", string(bytes.TrimSpace(token)))
	req.Header.Set("X-Vault-Request", "true")
	if v.cfg.Namespace != "" {
		req.Header.Set("X-Vault-Namespace", v.cfg.Namespace)
	}
	resp, err := v.http.Do(req)
	if err != nil {
		return nil, unavailable(fmt.Errorf("asking %s (%T)", v.cfg.Name, err))
	}
	defer resp.Body.Close()
	var got struct {
		Data map[string]any `json:"data"`
	}
	switch {
	case resp.StatusCode == http.StatusForbidden:
		return nil, denied(fmt.Errorf("%s answered 403", v.cfg.Name))
	case resp.StatusCode == http.StatusNotFound:
		return nil, missing()
	case resp.StatusCode != http.StatusOK:
		return nil, unavailable(fmt.Errorf("%s answered %d", v.cfg.Name, resp.StatusCode))
	case json.NewDecoder(http.MaxBytesReader(nil, resp.Body, 1<<20)).Decode(&got) != nil:
		return nil, unavailable(fmt.Errorf("%s gave an answer that cannot be read", v.cfg.Name))
	}
	data := got.Data
	if v.cfg.Version == 2 {
		data, _ = got.Data["data"].(map[string]any)
	}
	return texts(data), nil
}
