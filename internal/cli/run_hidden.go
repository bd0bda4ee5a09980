package cli

import (
	"path/filepath"
	"slices"

	"github.com/ambit-dev/ambit/internal/app"
)

// hidden lists what a program must not see: the data of a server of this user, its
// root key and checkpoints, the stored logins, and where services have sockets.
func (r *run) hidden() []string {
	var out []string
	add := func(path string) {
		if path = filepath.Clean(path); filepath.IsAbs(path) && !slices.Contains(out, path) {
			out = append(out, path)
		}
	}
	home := filepath.Dir(r.defaultDataDir())
	add(home)
	for _, data := range []string{r.defaultDataDir(), first(r.env[envDataDir], r.defaultDataDir())} {
		add(data)
		add(data + ".key")
		add(data + ".checkpoints")
	}
	for _, path := range append(list(r.env[envRootKeysOther]), r.env[envRootKey]) {
		if path != "" {
			add(app.RootFile(path))
		}
	}
	if path := r.env[envCheckpoints]; path != "" {
		add(path)
	}
	if path, err := r.loginFile(); err == nil {
		add(filepath.Dir(path))
	}
	add("/run")
	add(first(r.env["XDG_RUNTIME_DIR"], "/run"))
	add("/tmp/.X11-unix")
	return out
}
