package world

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/ambit-dev/ambit/client"
	"github.com/ambit-dev/ambit/internal/cli/person"
)

// Config says what to set up. Dir, Binary and Third are required.
type Config struct {
	Dir      string   // an empty folder for everything
	Disk     string   // the folder of data, root key and checkpoints; default Dir
	Binary   string   // from [Build]
	Database string   // URL of an empty PostgreSQL database; empty for SQLite
	Nodes    int      // default 1, the most that SQLite can have
	Env      []string // further settings of each node
	Allow    []string // private host:port that providers may have, beside Third's
	Third    *Third
}

// World is a set of nodes on one database, with an owner, an application's key
// and the provider "third".
type World struct {
	Ready
	Third *Third
	Nodes []*Node        // `ambit serve`; the first has the public URL
	API   *client.Client // of the first node, with every scope
	Owner *Tenant        // the first owner, connected to third
}

// New has `ambit dev` make the first owner, has her register a passkey and
// connect an account, and starts the nodes. Stop it, also after an error.
func New(ctx context.Context, cfg Config) (*World, error) {
	w := &World{Third: cfg.Third}
	nodes := max(cfg.Nodes, 1)
	if cfg.Database == "" && nodes > 1 {
		return w, errors.New("SQLite has one node")
	}
	public, disk := "", cmp.Or(cfg.Disk, cfg.Dir)
	for i := range nodes {
		port, err := FreePort()
		if err != nil {
			return w, err
		}
		if i == 0 {
			public = "localhost:" + port
		}
		w.Nodes = append(w.Nodes, &Node{Binary: cfg.Binary, Command: "serve", Home: filepath.Join(cfg.Dir, fmt.Sprintf("node%d", i)), Listen: "localhost:" + port,
			Data:   filepath.Join(disk, fmt.Sprintf("data%d", i)),
			Public: public, Database: cfg.Database, Env: append([]string{
				"AMBIT_ROOT_KEY=" + filepath.Join(disk, "root.key"), "AMBIT_CHECKPOINT_DIR=" + filepath.Join(disk, "checkpoints"),
				"AMBIT_PUBLIC_URL=http://" + public, "AMBIT_OUTBOUND_ALLOW=" + strings.Join(append(cfg.Allow, cfg.Third.Address()), ","), "AMBIT_CALL_RATE=100000",
			}, cfg.Env...)})
	}
	first := w.Nodes[0]
	first.Command = "dev"
	var err error
	if w.Ready, err = first.Start(ctx); err != nil {
		return w, err
	}
	w.API = client.New(w.URL, w.APIKey)
	w.Owner = &Tenant{w: w, Organization: w.OrganizationID, User: w.UserID}
	if err := w.Owner.enroll(ctx, w.LoginURL); err != nil {
		return w, err
	}
	if _, err := w.API.PutProvider(ctx, "third", client.PutProvider{YAML: w.Third.Record("third")}); err != nil {
		return w, fmt.Errorf("storing the provider: %w", err)
	}
	if _, err := w.Owner.Connect(ctx, "third"); err != nil {
		return w, err
	}
	if err := first.Stop(); err != nil {
		return w, err
	}
	first.Command = "serve"
	return w, w.Start(ctx)
}

// Start starts every node that does not run, at the same time.
func (w *World) Start(ctx context.Context) error {
	errs := make([]error, len(w.Nodes))
	var wg sync.WaitGroup
	for i, n := range w.Nodes {
		if n.Running() {
			continue
		}
		wg.Go(func() { _, errs[i] = n.Start(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Stop stops the nodes that run and wants each to end well.
func (w *World) Stop() error {
	errs := make([]error, len(w.Nodes))
	var wg sync.WaitGroup
	for i, n := range w.Nodes {
		if !n.Running() {
			n.Kill() // to reap it
			continue
		}
		wg.Go(func() {
			if errs[i] = n.Stop(); errs[i] != nil {
				errs[i] = fmt.Errorf("node %d: %w\n%s", i, errs[i], n.Log())
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Tenant is a person with a passkey in an organization, connected to third.
type Tenant struct {
	Organization string
	User         string
	Person       *person.Person

	w *World
}

// NewTenant makes an organization and an approver in it.
func (w *World) NewTenant(ctx context.Context, name string) (*Tenant, error) {
	org, err := w.API.CreateOrganization(ctx, client.NewOrganization{Name: name})
	if err != nil {
		return nil, fmt.Errorf("making an organization: %w", err)
	}
	t := &Tenant{Organization: org.ID, w: w}
	return t, t.join(ctx, name)
}

// Colleague makes another approver of the tenant's organization.
func (t *Tenant) Colleague(ctx context.Context, name string) (*Tenant, error) {
	c := &Tenant{Organization: t.Organization, w: t.w}
	return c, c.join(ctx, name)
}

func (t *Tenant) join(ctx context.Context, name string) error {
	user, err := t.w.API.CreateUser(ctx, client.NewUser{Name: name, OrganizationID: t.Organization, Role: "approver"})
	if err != nil {
		return fmt.Errorf("making a user: %w", err)
	}
	t.User = user.ID
	link, err := t.w.recover(ctx, user.ID)
	if err != nil {
		return err
	}
	if err := t.enroll(ctx, link); err != nil {
		return err
	}
	_, err = t.Connect(ctx, "third")
	return err
}

// recover has the operator make a sign-in link, as `ambit recover` on the
// machine of the first node.
func (w *World) recover(ctx context.Context, user string) (string, error) {
	n := w.Nodes[0]
	cmd := exec.CommandContext(ctx, n.Binary, "recover", user, "--json", "--data", n.DataDir())
	cmd.Env = append([]string{"HOME=" + n.Home, "AMBIT_DATABASE_URL=" + n.Database}, n.Env...)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("making a sign-in link: %w %s", err, &complaints)
	}
	var made struct {
		Link string `json:"link"`
	}
	return made.Link, json.Unmarshal(out, &made)
}

func (t *Tenant) enroll(ctx context.Context, link string) error {
	var err error
	if t.Person, err = person.New(t.w.URL); err != nil {
		return err
	}
	if err := t.Person.Enroll(ctx, link); err != nil {
		return fmt.Errorf("registering a passkey: %w", err)
	}
	return nil
}

// Connect connects the tenant's account at a provider that takes a key, and
// gives the connection's id.
func (t *Tenant) Connect(ctx context.Context, slug string) (string, error) {
	made, err := t.w.API.Connect(ctx, client.NewConnection{OrganizationID: t.Organization, Provider: slug, OwnerID: t.User, Fields: map[string]string{"api_key": thirdKey}})
	if err != nil {
		return "", fmt.Errorf("connecting %s: %w", slug, err)
	}
	return made.Connection.ID, nil
}

// SignInAt connects the tenant's account at a provider with OAuth, in the
// browser, and gives the connection's id. account is whom to sign in as there.
func (t *Tenant) SignInAt(ctx context.Context, slug, account string) (string, error) {
	base, err := url.Parse(t.w.URL)
	if err != nil {
		return "", err
	}
	if err := t.Person.Connect(ctx, base, slug, account); err != nil {
		return "", fmt.Errorf("connecting %s: %w", slug, err)
	}
	page, err := t.w.API.Connections(ctx, client.ConnectionFilter{OrganizationID: t.Organization, OwnerID: t.User, Provider: slug, State: "connected"})
	if err != nil {
		return "", err
	}
	if len(page.Data) == 0 {
		return "", fmt.Errorf("connecting %s: it is not listed afterwards", slug)
	}
	return page.Data[0].ID, nil
}

// Revoke revokes at one node and gives its answer.
func (w *World) Revoke(ctx context.Context, n *Node, r client.Revocation) (client.Revoked, error) {
	var out client.Revoked
	doc, err := json.Marshal(r)
	if err != nil {
		return out, err
	}
	body, err := w.post(ctx, n, "/v1/revocations", "application/json", string(doc))
	if err != nil {
		return out, err
	}
	return out, json.Unmarshal(body, &out)
}

// post sends something to one node with the application's key.
func (w *World) post(ctx context.Context, n *Node, path, kind, body string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.URL()+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Host = n.host()
	req.Header.Set("Content-Type", kind)
	req.Header.Set("Authorization", "Bearer "+w.APIKey)
	return expect200(req)
}
