// Package postgres runs one statement at a PostgreSQL server that a tenant chose.
//
// A statement gets a connection of its own and a transaction of its own: nothing
// that it sets, locks or leaves behind is there for the next one, and a transaction
// that only reads is opened as one, so that the server itself refuses every change.
// The extended protocol takes exactly one statement, whatever its text holds. Where
// the connection goes is decided by [outbound.Line]; there are no sockets of the
// file system, no fallbacks, and nothing comes from the process's environment.
package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/outbound"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Scheme begins the URL of a place: postgres://host[:port]/database[?tls=off].
const Scheme = "postgres://"

// Place is one database at one server.
type Place struct {
	Address  string // host:port
	Host     string
	Database string
	Plain    bool // without TLS, which is for places that the operator listed
}

// ParsePlace reads a place's URL.
func ParsePlace(raw string) (Place, error) {
	bad := func(why string) (Place, error) {
		return Place{}, fault.New(fault.Invalid, "url_invalid", "The database's address "+why+".").
			WithHint("Write postgres://host:5432/database, with ?tls=off for a host of the operator's own network.")
	}
	u, err := url.Parse(raw)
	if err != nil || !strings.HasPrefix(raw, Scheme) || strings.ContainsAny(raw, "\\ #{}") {
		return bad("is not well-formed")
	}
	p := Place{Host: u.Hostname(), Database: strings.TrimPrefix(u.EscapedPath(), "/")}
	port := u.Port()
	if port == "" {
		port = "5432"
	}
	switch {
	case u.User != nil:
		return bad("holds a user name or password")
	case p.Host == "":
		return bad("names no host")
	case p.Database == "" || len(p.Database) > 63 || strings.ContainsFunc(p.Database, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '/' || r == '%' }):
		return bad("names no database of 1 to 63 plain characters")
	}
	switch u.RawQuery {
	case "", "tls=verify":
	case "tls=off":
		p.Plain = true
	default:
		return bad("has a query that is neither tls=verify nor tls=off")
	}
	p.Address = net.JoinHostPort(strings.ToLower(p.Host), port)
	return p, nil
}

// Check judges a place when it is configured.
func (p Place) Check(client *outbound.Client) error { return client.CheckLine(p.Address, !p.Plain) }

// Login is who logs in. Roots are the authorities, in PEM, that vouch for the
// server in place of the system's; nil: the system's.
type Login struct {
	User     string
	Password secret.Value
	Roots    []byte
}

// Statement is what is run.
type Statement struct {
	Text       string
	Parameters []*string // $1, $2, …; nil is null
	ReadOnly   bool      // in a transaction that cannot change anything
	Timeout    time.Duration
	Rows       int // kept at most
	Bytes      int // of the rows' JSON, at most
}

// Refusal is the server's answer to a statement that it did not run to its end. It
// has been rolled back.
type Refusal struct {
	Code     string // SQLSTATE
	Message  string
	Detail   string
	Hint     string
	Position int // in the statement, from 1; 0: not said
}

// Error names the kind of refusal and quotes nothing.
func (r *Refusal) Error() string { return "the database refused the statement: " + r.Code }

// Result is what a statement gave.
type Result struct {
	Columns   []Column
	Rows      [][]byte // each a JSON list in the columns' order
	Truncated bool     // there are more rows than were kept
	Command   string   // such as "UPDATE 3"
	Affected  int64
}

// Column is one column of a result.
type Column struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// ErrLogin says that the server does not take the login.
var ErrLogin = errors.New("the database refused the login")

const (
	maxMessage = 8 << 20 // of the server's, in bytes
	cancelFor  = 3 * time.Second
	closeFor   = time.Second
)

// Run runs one statement. An error is a [*Refusal], [ErrLogin], or a fault as
// [outbound.Client.Do] makes them, of which [outbound.Sent] says whether the
// statement may have run.
func Run(ctx context.Context, client *outbound.Client, p Place, login Login, st Statement) (Result, error) {
	line, err := client.Line(p.Address, !p.Plain)
	if err != nil {
		return Result{}, err
	}
	defer line.Close()
	cfg, err := config(p, login, line)
	if err != nil {
		return Result{}, err
	}
	limited, cancel := context.WithTimeout(ctx, st.Timeout)
	defer cancel()
	server, err := pgconn.ConnectConfig(limited, cfg)
	if err != nil {
		return Result{}, connecting(ctx, limited, line, err)
	}
	defer hangUp(server, line)
	return run(ctx, limited, line, server, st)
}

func run(ctx, limited context.Context, line *outbound.Line, server *pgconn.PgConn, st Statement) (Result, error) {
	mode := "read write"
	if st.ReadOnly {
		mode = "read only"
	}
	// The server stops by itself before we give up, and then says what became of it.
	begin := fmt.Sprintf("begin %s; set local statement_timeout = %d", mode, max(st.Timeout-2*time.Second, time.Second).Milliseconds())
	if _, err := server.Exec(limited, begin).ReadAll(); err != nil {
		return Result{}, failed(ctx, limited, line, false, err)
	}
	values := make([][]byte, len(st.Parameters))
	for i, v := range st.Parameters {
		if v != nil {
			values[i] = []byte(*v)
		}
	}
	reader := server.ExecParams(limited, st.Text, values, nil, nil, nil)
	out, err := collect(reader, st)
	if errors.Is(err, errEnough) { // the rest is not waited for
		return out, nil
	}
	if err != nil {
		return Result{}, failed(ctx, limited, line, true, err)
	}
	if st.ReadOnly {
		return out, nil
	}
	if _, err := server.Exec(limited, "commit").ReadAll(); err != nil {
		return Result{}, failed(ctx, limited, line, true, err)
	}
	return out, nil
}

// config says everything that a connection is made with. What the library reads
// from the environment for want of a setting is overwritten.
func config(p Place, login Login, line *outbound.Line) (*pgconn.Config, error) {
	host, port, err := net.SplitHostPort(p.Address)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	cfg, err := pgconn.ParseConfig("host=127.0.0.1 port=1 user=x password=x dbname=x sslmode=disable sslnegotiation=postgres target_session_attrs=any " +
		"connect_timeout=10 channel_binding=prefer require_auth='' min_protocol_version=3.0 max_protocol_version=3.0")
	if err != nil {
		return nil, fault.New(fault.Internal, "database_config", "The connection to the database cannot be prepared.").WithCause(fmt.Errorf("%T", err))
	}
	cfg.Host, cfg.Port, cfg.Database, cfg.User, cfg.Password = host, uint16(n), p.Database, login.User, string(login.Password.Reveal())
	cfg.Fallbacks, cfg.ValidateConnect, cfg.AfterConnect, cfg.AfterNetConnect = nil, nil, nil, nil
	cfg.KerberosSrvName, cfg.KerberosSpn, cfg.ConnectTimeout = "", "", 0
	cfg.RuntimeParams = map[string]string{"application_name": "ambit", "client_encoding": "UTF8"}
	cfg.LookupFunc = func(context.Context, string) ([]string, error) { return []string{host}, nil } // the line resolves
	cfg.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) { return line.Dial(ctx) }
	cfg.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		f := pgproto3.NewFrontend(r, w)
		f.SetMaxBodyLen(maxMessage)
		return f
	}
	cfg.BuildContextWatcherHandler = func(c *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: c, DeadlineDelay: cancelFor}
	}
	if p.Plain {
		cfg.RequireAuth = "scram-sha-256,md5,none" // the password itself never goes out in the clear
		return cfg, nil
	}
	cfg.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if len(login.Roots) > 0 {
		cfg.TLSConfig.RootCAs = x509.NewCertPool()
		if !cfg.TLSConfig.RootCAs.AppendCertsFromPEM(login.Roots) {
			return nil, fault.New(fault.Conflict, "credential_unusable", "The server's certificate authority is not PEM.").WithHint("Reconnect, and give the certificates as PEM.")
		}
	}
	return cfg, nil
}

// hangUp ends a connection and what the library does for it, before Run returns.
func hangUp(server *pgconn.PgConn, line *outbound.Line) {
	ctx, cancel := context.WithTimeout(context.Background(), closeFor)
	defer cancel()
	_ = server.Close(ctx)
	line.Close()
	<-server.CleanupDone()
}

// connecting is a connection that was not made. The login has not been used for
// anything.
func connecting(ctx, limited context.Context, line *outbound.Line, err error) error {
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch {
		case strings.HasPrefix(refused.Code, "28"):
			return ErrLogin
		case refused.Code == "3D000":
			return fault.New(fault.Unavailable, "upstream_error", "The server has no such database.").WithHint("Check the name of the database, and connect it again.")
		}
		return fault.New(fault.Unavailable, "upstream_error", "The database takes no connection now ("+refused.Code+").").WithHint("Nothing was sent. Try again later.")
	}
	return line.Fail(ctx, limited, false, err)
}

// failed is what ended a statement. A refusal of the server has been rolled back.
func failed(ctx, limited context.Context, line *outbound.Line, sent bool, err error) error {
	refused, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok, refused.SeverityUnlocalized != "ERROR" && refused.Severity != "ERROR": // the session ended, perhaps while it committed
	case ctx.Err() == nil:
		return &Refusal{Code: refused.Code, Message: refused.Message, Detail: refused.Detail, Hint: refused.Hint, Position: int(refused.Position)}
	default: // cut, and the server says that it stopped
		sent = false
	}
	return line.Fail(ctx, limited, sent, err)
}
