package cli

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// insideChecks try, from inside, what a program that `ambit run --isolate` started
// must not be able to do.
func insideChecks() []check {
	return []check{
		{"network", insideNetwork},
		{"way out", insideWayOut},
		{"proxy", insideProxy},
		{"hidden files", insideFiles},
		{"undoing", insideUndoing},
		{"processes", insideProcesses},
		{"services", insideServices},
	}
}

func held(ok bool, good, bad string) []finding {
	if ok {
		return []finding{{Level: fine, Says: good}}
	}
	return []finding{{Level: problem, Says: bad, Why: "A program here could go around the proxy, or read what opens accounts.", Mend: "ambit run --isolate -- COMMAND"}}
}

func insideNetwork(context.Context, *patient) []finding {
	all, err := net.Interfaces()
	var others []string
	for _, i := range all {
		if i.Flags&net.FlagLoopback == 0 {
			others = append(others, i.Name)
		}
	}
	return held(err == nil && len(others) == 0, "there is no interface but loopback", "there are other interfaces: "+words(others))
}

// insideWayOut tries the server, and addresses that are kept for documentation (RFC
// 5737), for which a system with a network has a route.
func insideWayOut(ctx context.Context, p *patient) []finding {
	var reached []string
	places := []string{"192.0.2.1:443", "[2001:db8::1]:443"}
	if u, err := url.Parse(p.server); err == nil {
		places = append(places, u.Host)
	}
	for _, place := range places {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", place)
		late := ctx.Err() != nil // a packet left, and nobody answered
		cancel()
		if err == nil {
			_ = conn.Close()
		}
		if err == nil || late {
			reached = append(reached, place)
		}
	}
	return held(len(reached) == 0, "nothing is reached but by the proxy", "there is a way to "+words(reached))
}

func insideProxy(ctx context.Context, p *patient) []finding {
	u, err := url.Parse(p.env["HTTPS_PROXY"])
	if err != nil || u.Host == "" {
		return held(false, "", "no proxy is named in HTTPS_PROXY")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+u.Host+"/", nil)
	if err != nil {
		return held(false, "", "the proxy's address cannot be used")
	}
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return held(false, "", "the proxy does not answer")
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	first := make([]byte, 12)
	if err = req.Write(conn); err == nil {
		_, err = conn.Read(first)
	}
	return held(err == nil && strings.HasPrefix(string(first), "HTTP/1."), "the proxy answers", "the proxy does not answer")
}

// insideFiles tries to see what is hidden. An empty folder in its place is as good
// as none.
func insideFiles(_ context.Context, p *patient) []finding {
	var seen []string
	hidden := strings.Split(p.env[envHidden], ":")
	if p.env[envHidden] == "" {
		hidden = (&run{command: p.command}).hidden()
	}
	for _, path := range hidden {
		info, err := os.Stat(path)
		switch {
		case err != nil:
		case info.IsDir():
			entries, err := os.ReadDir(path)
			wrote := os.WriteFile(filepath.Join(path, ".ambit-isolation"), nil, 0o600) == nil
			if wrote {
				_ = os.Remove(filepath.Join(path, ".ambit-isolation"))
			}
			if err == nil && len(entries) > 0 || wrote {
				seen = append(seen, path)
			}
		default:
			if doc, err := os.ReadFile(path); err == nil && len(doc) > 0 {
				seen = append(seen, path)
			}
		}
	}
	return held(len(seen) == 0, fmt.Sprintf("none of %d places of Ambit's and the system's can be seen", len(hidden)), "can be seen: "+words(seen))
}

func insideServices(context.Context, *patient) []finding {
	var found []string
	for _, s := range []string{"/run/docker.sock", "/var/run/docker.sock", "/run/systemd/private", "/run/dbus/system_bus_socket", "/run/containerd/containerd.sock"} {
		if _, err := os.Stat(s); err == nil {
			found = append(found, s)
		}
	}
	return held(len(found) == 0, "no service of the system can be spoken to", "services can be spoken to: "+words(found))
}
