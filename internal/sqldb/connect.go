package sqldb

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ambit-dev/ambit/internal/fault"
)

// cannotConnect turns the failure of a first connection into what whoever set the
// URL must do. Later failures are [Wrap]'s: a server that was reached once is away,
// and nobody who meets that has a URL to correct.
func cannotConnect(config *pgx.ConnConfig, op string, err error) error {
	if _, ok := errors.AsType[*pgconn.ConnectError](err); !ok {
		return Wrap(op, err)
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		if f := refusedBy(config, e); f != nil {
			return f.WithCause(err)
		}
	}
	why := ""
	hint := "Is PostgreSQL running there, and does it listen on that address? Try: pg_isready " + pointing(config)
	switch {
	case isA[*net.DNSError](err):
		why, hint = "no machine has that name", "Correct the host in AMBIT_DATABASE_URL."
	case isA[*tls.CertificateVerificationError](err):
		why, hint = "its certificate is not valid for this machine", "Name the authority that signed it in AMBIT_DATABASE_URL with sslrootcert=FILE."
	case isA[*pgconn.PgError](err):
		why, hint = lastOf(err), "Try again; if it stays, PostgreSQL's log says more."
	case pgconn.Timeout(err), errors.Is(err, context.DeadlineExceeded):
		why = "it did not answer in time"
	default:
		if why = lastOf(err); strings.Contains(why, "TLS") {
			hint = "The server does not do TLS. Switch it on there (ssl = on); on this machine alone sslmode=disable in AMBIT_DATABASE_URL does too."
		}
	}
	return fault.New(fault.Unavailable, codeUnavailable, "The database at "+places(config)+" cannot be reached: "+why+".").
		WithHint(hint).WithCause(err).WithRetry(retryAfter)
}

// refusedBy is what a server says to a connection that will not be let in however
// often it tries; nil is anything else.
func refusedBy(config *pgx.ConnConfig, e *pgconn.PgError) *fault.Error {
	switch e.Code {
	case "3D000":
		return fault.New(fault.NotFound, "database_missing", "PostgreSQL at "+places(config)+" has no database "+config.Database+".").
			WithHint("Make it, as a superuser: createdb " + pointing(config) + " --owner=" + quote(config.User) + " --encoding=UTF8 --template=template0 " + quote(config.Database) +
				"\nOr correct its name in AMBIT_DATABASE_URL.")
	case "28P01":
		return fault.New(fault.Unauthenticated, "database_login_refused", "PostgreSQL at "+places(config)+" refuses the password of the user "+config.User+".").
			WithHint("Correct it in AMBIT_DATABASE_URL (with % and / written as %25 and %2F), or set it, as a superuser: psql " + pointing(config) + " -c " + quote(`\password `+pgx.Identifier{config.User}.Sanitize()))
	case "28000":
		return fault.New(fault.Unauthenticated, "database_login_refused", "PostgreSQL at "+places(config)+" refuses the user "+config.User+": "+e.Message+".").
			WithHint("If there is no such user, make one, as a superuser: createuser " + pointing(config) + " --pwprompt " + quote(config.User) + "\nOtherwise look at its pg_hba.conf, or correct the user in AMBIT_DATABASE_URL.")
	case "42501":
		return fault.New(fault.Denied, "database_denied", "The user "+config.User+" may not connect to the database "+config.Database+" at "+places(config)+".").
			WithHint("Run as its owner: grant connect on database " + pgx.Identifier{config.Database}.Sanitize() + " to " + pgx.Identifier{config.User}.Sanitize())
	}
	return nil
}

// lastOf is the innermost part of what err says.
func lastOf(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+2:]
	}
	return strings.TrimSpace(text)
}

func isA[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// places are the addresses that were tried, each once.
func places(config *pgx.ConnConfig) string {
	list := []string{place(config.Host, config.Port)}
	for _, f := range config.Fallbacks {
		if p := place(f.Host, f.Port); p != list[len(list)-1] {
			list = append(list, p)
		}
	}
	return strings.Join(list, ", ")
}

func place(host string, port uint16) string {
	if strings.HasPrefix(host, "/") {
		return host // the folder of a socket
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// pointing are the flags with which PostgreSQL's own programs go to the same server.
func pointing(config *pgx.ConnConfig) string {
	return "-h " + quote(config.Host) + " -p " + strconv.Itoa(int(config.Port))
}
