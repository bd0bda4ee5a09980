package cli

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ambit-dev/ambit/internal/disk"
	"github.com/ambit-dev/ambit/internal/fault"
)

const defaultServer = "http://localhost:7420"

const (
	envServer = "AMBIT_SERVER"
	envAPIKey = "AMBIT_API_KEY"
)

// logins is the file of stored logins, one a server. The tokens in it are worth
// what their owner may do without a passkey, so only the owner can read it.
type logins struct {
	Current string           `json:"current"` // the server that is used when none is named
	Servers map[string]login `json:"servers"`
}

// login is one stored token.
type login struct {
	Token string `json:"token"`
	Kind  string `json:"kind"` // user or api_key
	Name  string `json:"name"`
}

func (c *command) loginFile() (string, error) {
	dir := c.env["XDG_CONFIG_HOME"]
	if !filepath.IsAbs(dir) { // as its specification demands
		home := c.env["HOME"]
		if home == "" {
			return "", fault.New(fault.Invalid, "no_home", "There is no place for logins.").WithHint("Set HOME, or use AMBIT_API_KEY.")
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "ambit", "login.json"), nil
}

// machine is what only this machine and user know. Without it there is none, unless it
// is to be made.
func (c *command) machine(make bool) (string, error) {
	path, err := c.loginFile()
	if err != nil {
		return "", err
	}
	path = filepath.Join(filepath.Dir(path), "machine")
	for range 2 {
		text, err := os.ReadFile(path)
		if err == nil && len(text) >= 16 {
			return string(text), nil
		}
		if !errors.Is(err, fs.ErrNotExist) { // or it is too short
			return "", fault.New(fault.Invalid, "machine_unreadable", "The name of this machine cannot be read: "+path+".").WithHint("Without it, what was taken out of files here is not found again.").WithCause(err)
		}
		if !make {
			return "", nil
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return "", err
		}
		if err := disk.Create(path, []byte(rand.Text())); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", err
		}
	}
	return "", fault.New(fault.Unavailable, "machine_unreadable", "The name of this machine cannot be kept: "+path+".")
}

func (c *command) readLogins() (logins, error) {
	none := logins{Servers: map[string]login{}}
	path, err := c.loginFile()
	if err != nil {
		return none, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return none, nil
	}
	if err != nil {
		return none, fault.New(fault.Invalid, "login_unreadable", "The stored login cannot be read: "+path+".").WithCause(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return none, fmt.Errorf("looking at the stored login: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return none, fault.New(fault.Invalid, "login_exposed", fmt.Sprintf("Other users can read the stored login (mode %04o).", info.Mode().Perm())).
			WithHint("Run: chmod 600 " + path + " and, if somebody may have read it: ambit logout, ambit login")
	}
	var l logins
	if err := json.NewDecoder(f).Decode(&l); err != nil {
		// The decoder's message could quote what it found.
		return none, fault.New(fault.Invalid, "login_unreadable", "The stored login is damaged: "+path+".").WithHint("Remove the file, and run: ambit login")
	}
	if l.Servers == nil {
		l.Servers = map[string]login{}
	}
	return l, nil
}

func (c *command) writeLogins(l logins) error {
	path, err := c.loginFile()
	if err != nil {
		return err
	}
	doc, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the login: %w", err)
	}
	if err = disk.Folder(filepath.Dir(path)); err == nil {
		err = disk.Replace(path, append(doc, '\n'))
	}
	if err != nil {
		return fmt.Errorf("storing the login: %w", err)
	}
	return nil
}

// serverURL is the server that commands speak to.
func (c *command) serverURL() string {
	stored, _ := c.readLogins() // what is wrong with it is told where it is needed
	return serverName(first(c.server, c.env[envServer], stored.Current, defaultServer))
}

// serverFrom says why commands ask the server that they ask.
func (c *command) serverFrom() string {
	stored, _ := c.readLogins()
	switch {
	case c.server != "":
		return "named with --server"
	case c.env[envServer] != "":
		return "of AMBIT_SERVER"
	case stored.Current != "":
		return "where you logged in last"
	}
	return "the default"
}

// serverName writes an address in one way, so that it finds its login again.
func serverName(raw string) string {
	raw = strings.TrimSpace(raw)
	if raw != "" && !strings.Contains(raw, "://") {
		scheme := "https://"
		if host, _, _ := strings.Cut(raw, ":"); host == "localhost" || strings.HasPrefix(raw, "127.") || strings.HasPrefix(raw, "[::1]") {
			scheme = "http://"
		}
		raw = scheme + raw
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return raw
	}
	u.Scheme, u.Host = strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	return strings.TrimRight(u.String(), "/")
}

// loginAt tells how to sign in to a server.
func (c *command) loginAt(server string) string {
	if server == defaultServer && c.server == "" {
		return "Run: ambit login"
	}
	return "Run: ambit login --server " + word(plain(server))
}

// token is what a command shows to the server: AMBIT_API_KEY if it is set, else
// the login stored for that server.
func (c *command) token(server string) (string, error) {
	if key := strings.TrimSpace(c.env[envAPIKey]); key != "" {
		if strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return "", fault.New(fault.Invalid, "key_malformed", "AMBIT_API_KEY does not hold an API key.")
		}
		return key, nil
	}
	stored, err := c.readLogins()
	if err != nil {
		return "", err
	}
	l, ok := stored.Servers[server]
	if !ok {
		hint := c.loginAt(server) + ", or set AMBIT_API_KEY."
		if len(stored.Servers) > 0 {
			hint += "\nYou are logged in to: " + words(slices.Sorted(maps.Keys(stored.Servers)))
		}
		return "", fault.New(fault.Unauthenticated, "not_logged_in", "You are not logged in to "+plain(server)+".").WithHint(hint)
	}
	return l.Token, nil
}
