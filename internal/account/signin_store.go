package account

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"strings"
	"time"

	"github.com/ambit-dev/ambit/internal/id"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// Passkeys.

const (
	insertPasskeySQL = `insert into passkey (id, user_id, credential_id, public_key, sign_count, backup_eligible, backup_state, transports, label, created_at, last_used_at, version)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, 1)`
	passkeyColumns = `select k.id, k.user_id, k.credential_id, k.public_key, k.sign_count, k.backup_eligible, k.backup_state, k.transports, k.label, k.created_at, k.last_used_at
		from passkey k join person p on p.id = k.user_id and p.disabled_at = 0`
	passkeysOfSQL         = passkeyColumns + ` where k.user_id = $1 order by k.id`
	passkeyByCredentialSQ = passkeyColumns + ` where k.credential_id = $1`
	// The counter only rises; authenticators without one stay at 0. A row that
	// does not match is a replay or a clone, also between two nodes.
	usePasskeySQL = `update passkey set sign_count = $1, backup_state = $2, last_used_at = $3, version = version + 1
		where id = $4 and (sign_count < $1 or sign_count = 0)`
	deletePasskeySQL = `delete from passkey where id = $1 and user_id = $2`
	factorsSQL       = `select (select count(*) from passkey where user_id = $1), (select count(*) from totp where user_id = $1), (select count(*) from person_identity where user_id = $1 and provider_id = 'operator' and issuer = $2),
		(select count(*) from person_identity where user_id = $1 and provider_id <> 'operator')`
	lockUserSQL = `update person set version = version + 1 where id = $1 and disabled_at = 0`
)

type passkey struct {
	id             id.Passkey
	user           id.User
	credential     []byte
	publicKey      []byte // COSE
	signCount      uint32
	backupEligible bool
	backupState    bool
	transports     []string
	label          string
	createdAt      time.Time
	lastUsedAt     time.Time
}

func insertPasskey(ctx context.Context, tx *sqldb.Tx, k passkey) error {
	_, err := tx.ExecContext(ctx, insertPasskeySQL, k.id, k.user, k.credential, k.publicKey, int64(k.signCount), number(k.backupEligible), number(k.backupState),
		strings.Join(k.transports, " "), k.label, sqldb.Micros(k.createdAt))
	return err
}

func scanPasskey(row sqldb.Scanner) (passkey, error) {
	var k passkey
	var count, eligible, state, created, used int64
	var transports string
	err := row.Scan(&k.id, &k.user, &k.credential, &k.publicKey, &count, &eligible, &state, &transports, &k.label, &created, &used)
	k.signCount, k.backupEligible, k.backupState, k.transports = uint32(count), eligible != 0, state != 0, strings.Fields(transports)
	k.createdAt, k.lastUsedAt = sqldb.Time(created), sqldb.Time(used)
	return k, err
}

func selectPasskeys(ctx context.Context, q sqldb.Querier, user id.User) ([]passkey, error) {
	return sqldb.Collect(scanPasskey)(q.QueryContext(ctx, passkeysOfSQL, user))
}

func selectPasskeyByCredential(ctx context.Context, q sqldb.Querier, credential []byte) (passkey, error) {
	return scanPasskey(q.QueryRowContext(ctx, passkeyByCredentialSQ, credential))
}

func usePasskey(ctx context.Context, tx *sqldb.Tx, k passkey, at time.Time) (bool, error) {
	return changed(tx.ExecContext(ctx, usePasskeySQL, int64(k.signCount), number(k.backupState), sqldb.Micros(at), k.id))
}

func deletePasskey(ctx context.Context, tx *sqldb.Tx, user id.User, k id.Passkey) (bool, error) {
	return changed(tx.ExecContext(ctx, deletePasskeySQL, k, user))
}

// factors are the ways in which a user can sign in; the confined ones are those at
// their organizations' identity providers.
type factors struct{ passkeys, totp, identities, confined int }

// factors counts the ways in which a user can sign in. Of those at the operator's
// identity provider the ones at its issuer of now count: who was somebody at another
// one is nobody.
func (s *Service) factors(ctx context.Context, q sqldb.Querier, user id.User) (f factors, err error) {
	err = q.QueryRowContext(ctx, factorsSQL, user, s.operator.Issuer).Scan(&f.passkeys, &f.totp, &f.identities, &f.confined)
	return f, err
}

func (f factors) any() bool { return f.own() || f.confined > 0 }

// own reports whether there is one that is not an organization's.
func (f factors) own() bool { return f.passkeys+f.totp+f.identities > 0 }

// lockUser makes changes to a user's ways to sign in wait for each other, and
// reports whether the user is enabled.
func lockUser(ctx context.Context, tx *sqldb.Tx, user id.User) (bool, error) {
	return changed(tx.ExecContext(ctx, lockUserSQL, user))
}

// Authenticator apps.

const (
	putTOTPSQL = `insert into totp (user_id, email, envelope, sealed_version, last_step, created_at, version) values ($1, $2, $3, $4, $5, $6, 1)
		on conflict (user_id) do update set email = excluded.email, envelope = excluded.envelope, sealed_version = excluded.sealed_version,
			last_step = excluded.last_step, created_at = excluded.created_at, version = totp.version + 1`
	totpSQL     = `select t.envelope, t.sealed_version, t.last_step from totp t join person p on p.id = t.user_id and p.disabled_at = 0 where t.user_id = $1`
	totpUserSQL = userColumns + ` join totp t on t.user_id = p.id where t.email = $1 and t.email <> '' and p.disabled_at = 0`
	// A time step is good for one success ever.
	useStepSQL    = `update totp set last_step = $1, version = version + 1 where user_id = $2 and last_step < $1`
	deleteTOTPSQL = `delete from totp where user_id = $1`

	putSetupSQL = `insert into totp_setup (subject, user_id, envelope, sealed_version, expires_at) values ($1, $2, $3, $4, $5)
		on conflict (subject) do update set user_id = excluded.user_id, envelope = excluded.envelope, sealed_version = excluded.sealed_version, expires_at = excluded.expires_at`
	setupSQL       = `select user_id, envelope, sealed_version from totp_setup where subject = $1 and expires_at > $2`
	deleteSetupSQL = `delete from totp_setup where subject = $1 and sealed_version = $2`
	sweepSetupsSQL = `delete from totp_setup where expires_at <= $1`
)

// sealed is a TOTP secret as stored.
type sealed struct {
	user     id.User
	envelope []byte
	version  int64 // of its vault.Place
	lastStep int64
}

func putTOTP(ctx context.Context, tx *sqldb.Tx, t sealed, email string, at time.Time) error {
	_, err := tx.ExecContext(ctx, putTOTPSQL, t.user, email, t.envelope, t.version, t.lastStep, sqldb.Micros(at))
	return err
}

func selectTOTP(ctx context.Context, q sqldb.Querier, user id.User) (sealed, error) {
	t := sealed{user: user}
	err := q.QueryRowContext(ctx, totpSQL, user).Scan(&t.envelope, &t.version, &t.lastStep)
	return t, err
}

func selectTOTPUser(ctx context.Context, q sqldb.Querier, email string) (User, error) {
	return scanUser(q.QueryRowContext(ctx, totpUserSQL, email))
}

func useStep(ctx context.Context, tx *sqldb.Tx, user id.User, step int64) (bool, error) {
	return changed(tx.ExecContext(ctx, useStepSQL, step, user))
}

func deleteTOTP(ctx context.Context, tx *sqldb.Tx, user id.User) (bool, error) {
	return changed(tx.ExecContext(ctx, deleteTOTPSQL, user))
}

func putSetup(ctx context.Context, tx *sqldb.Tx, subject string, t sealed, now time.Time) error {
	if _, err := tx.ExecContext(ctx, sweepSetupsSQL, sqldb.Micros(now)); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, putSetupSQL, subject, t.user, t.envelope, t.version, sqldb.Micros(now.Add(FlowAge)))
	return err
}

func selectSetup(ctx context.Context, q sqldb.Querier, subject string, now time.Time) (sealed, error) {
	var t sealed
	err := q.QueryRowContext(ctx, setupSQL, subject, sqldb.Micros(now)).Scan(&t.user, &t.envelope, &t.version)
	return t, err
}

// deleteSetup reports whether the set-up was still there.
func deleteSetup(ctx context.Context, tx *sqldb.Tx, subject string, t sealed) (bool, error) {
	return changed(tx.ExecContext(ctx, deleteSetupSQL, subject, t.version))
}

// Guesses.

const (
	guessSQL = `insert into guess (subject, since, failures) values ($1, $2, 1) on conflict (subject) do update set
		failures = case when guess.since <= $3 then 1 else guess.failures + 1 end,
		since = case when guess.since <= $3 then excluded.since else guess.since end returning since, failures`
	rightSQL      = `update guess set failures = failures - 1 where subject = $1 and failures > 0`
	sweepGuessSQL = `delete from guess where since <= $1`
)

const (
	maxGuesses  = 5
	guessWindow = 15 * time.Minute
)

// countGuess counts an attempt before its outcome is known, so that parallel
// attempts cannot exceed the limit, and says how many there now are.
func countGuess(ctx context.Context, tx *sqldb.Tx, subject string, now time.Time) (n int64, since time.Time, err error) {
	old := sqldb.Micros(now.Add(-guessWindow))
	key := sha256.Sum256([]byte(subject))
	var us int64
	if err := tx.QueryRowContext(ctx, guessSQL, key[:], sqldb.Micros(now), old).Scan(&us, &n); err != nil {
		return 0, time.Time{}, err
	}
	if n == 1 {
		_, err = tx.ExecContext(ctx, sweepGuessSQL, old)
	}
	return n, sqldb.Time(us), err
}

// uncountGuess takes back an attempt that was right.
func uncountGuess(ctx context.Context, tx *sqldb.Tx, subject string) error {
	key := sha256.Sum256([]byte(subject))
	_, err := tx.ExecContext(ctx, rightSQL, key[:])
	return err
}

// Ceremonies.

const (
	putFlowSQL = `insert into signin_flow (subject, kind, user_id, login_id, state, expires_at) values ($1, $2, $3, $4, $5, $6)
		on conflict (subject) do update set kind = excluded.kind, user_id = excluded.user_id, login_id = excluded.login_id, state = excluded.state, expires_at = excluded.expires_at`
	takeFlowSQL   = `delete from signin_flow where subject = $1 returning kind, user_id, login_id, state, expires_at`
	flowSQL       = `select kind, user_id, login_id, state, expires_at from signin_flow where subject = $1`
	sweepFlowsSQL = `delete from signin_flow where expires_at <= $1`
)

const (
	flowEnroll = "enroll"
	flowAdd    = "add"
	flowGrant  = "add_factor"
)

type flow struct {
	subject string // id of the flow, or of an enrolment's link
	kind    string
	user    id.User
	login   id.Login
	state   []byte
	expires time.Time
}

func putFlow(ctx context.Context, tx *sqldb.Tx, f flow, now time.Time) error {
	if _, err := tx.ExecContext(ctx, sweepFlowsSQL, sqldb.Micros(now)); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, putFlowSQL, f.subject, f.kind, f.user, f.login, f.state, sqldb.Micros(f.expires))
	return err
}

func takeFlow(ctx context.Context, tx *sqldb.Tx, subject string) (flow, error) {
	f := flow{subject: subject}
	var expires int64
	err := tx.QueryRowContext(ctx, takeFlowSQL, subject).Scan(&f.kind, &f.user, &f.login, &f.state, &expires)
	f.expires = sqldb.Time(expires)
	return f, err
}

func selectFlow(ctx context.Context, q sqldb.Querier, subject string) (flow, error) {
	f := flow{subject: subject}
	var expires int64
	err := q.QueryRowContext(ctx, flowSQL, subject).Scan(&f.kind, &f.user, &f.login, &f.state, &expires)
	f.expires = sqldb.Time(expires)
	return f, err
}

// Keys for challenges.

const (
	insertChallengeKeySQL = `insert into challenge_key (id, key, made_at) values ($1, $2, $3)`
	challengeKeySQL       = `select key from challenge_key where id = $1`
	sweepChallengeKeysSQL = `delete from challenge_key where made_at <= $1`
)

// insertChallengeKey forgets those that no challenge can still be of.
func insertChallengeKey(ctx context.Context, tx *sqldb.Tx, k challengeKey) error {
	if _, err := tx.ExecContext(ctx, sweepChallengeKeysSQL, sqldb.Micros(k.made.Add(-2*challengeKeyAge))); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, insertChallengeKeySQL, k.id, k.key, sqldb.Micros(k.made))
	return err
}

func selectChallengeKey(ctx context.Context, q sqldb.Querier, key string) (challengeKey, error) {
	k := challengeKey{id: key}
	err := q.QueryRowContext(ctx, challengeKeySQL, key).Scan(&k.key)
	return k, err
}

// Proofs.

const (
	insertProofSQL = `insert into spent_proof (digest, spent_at) values ($1, $2) on conflict (digest) do nothing`
	spentSQL       = `select count(*) from spent_proof where digest = $1`
	sweepProofsSQL = `delete from spent_proof where spent_at <= $1`
)

func isSpent(ctx context.Context, q sqldb.Querier, digest [32]byte) (bool, error) {
	var n int
	err := q.QueryRowContext(ctx, spentSQL, digest[:]).Scan(&n)
	return n > 0, err
}

// insertProof reports whether the digest was not there yet.
func insertProof(ctx context.Context, tx *sqldb.Tx, digest [32]byte, at time.Time) (bool, error) {
	return changed(tx.ExecContext(ctx, insertProofSQL, digest[:], sqldb.Micros(at)))
}

func sweepProofs(ctx context.Context, tx *sqldb.Tx, old time.Time) error {
	_, err := tx.ExecContext(ctx, sweepProofsSQL, sqldb.Micros(old))
	return err
}

// Links.

const (
	insertLinkSQL  = `insert into enroll_link (id, user_id, token_hash, created_at, expires_at) values ($1, $2, $3, $4, $5)`
	deleteLinksSQL = `delete from enroll_link where user_id = $1`
	sweepLinksSQL  = `delete from enroll_link where user_id = $1 and expires_at <= $2`
	linkSQL        = `select l.id, l.user_id, l.token_hash, l.expires_at from enroll_link l join person p on p.id = l.user_id and p.disabled_at = 0
		where l.token_hash = $1 and l.expires_at > $2`
	linkByIDSQL = `select l.id, l.user_id, l.token_hash, l.expires_at from enroll_link l join person p on p.id = l.user_id and p.disabled_at = 0
		where l.id = $1 and l.expires_at > $2`
	takeLinkSQL = `delete from enroll_link where id = $1 and expires_at > $2`
)

type link struct {
	id      string
	user    id.User
	expires time.Time
}

func insertLink(ctx context.Context, tx *sqldb.Tx, l link, hash [32]byte, now time.Time) error {
	_, err := tx.ExecContext(ctx, insertLinkSQL, l.id, l.user, hash[:], sqldb.Micros(now), sqldb.Micros(l.expires))
	return err
}

func deleteLinks(ctx context.Context, tx *sqldb.Tx, user id.User) error {
	_, err := tx.ExecContext(ctx, deleteLinksSQL, user)
	return err
}

func sweepLinks(ctx context.Context, tx *sqldb.Tx, user id.User, now time.Time) error {
	_, err := tx.ExecContext(ctx, sweepLinksSQL, user, sqldb.Micros(now))
	return err
}

func selectLink(ctx context.Context, q sqldb.Querier, token secret.Value, now time.Time) (link, bool, error) {
	var l link
	var stored []byte
	var expires int64
	hash := token.Hash()
	err := q.QueryRowContext(ctx, linkSQL, hash[:], sqldb.Micros(now)).Scan(&l.id, &l.user, &stored, &expires)
	if sqldb.NoRows(err) {
		return link{}, false, nil
	}
	l.expires = sqldb.Time(expires)
	return l, err == nil && subtle.ConstantTimeCompare(stored, hash[:]) == 1, err
}

// selectLinkByID is selectLink for one that its holder has shown before.
func selectLinkByID(ctx context.Context, q sqldb.Querier, linkID string, now time.Time) (link, bool, error) {
	var l link
	var stored []byte
	var expires int64
	err := q.QueryRowContext(ctx, linkByIDSQL, linkID, sqldb.Micros(now)).Scan(&l.id, &l.user, &stored, &expires)
	if sqldb.NoRows(err) {
		return link{}, false, nil
	}
	l.expires = sqldb.Time(expires)
	return l, err == nil, err
}

// takeLink uses a link up; it reports false if it was used or has expired.
func takeLink(ctx context.Context, tx *sqldb.Tx, l link, now time.Time) (bool, error) {
	return changed(tx.ExecContext(ctx, takeLinkSQL, l.id, sqldb.Micros(now)))
}

// Logins.

const (
	// Nobody reads first any more; it has no default.
	insertLoginSQL = `insert into login (id, user_id, token_hash, method, first, passkey_id, address, authenticated_at, last_seen_at, expires_at, revoked_at, version, organization_id, providers, provider_id)
		values ($1, $2, $3, $4, 0, $5, $6, $7, $7, $8, 0, 1, $9, $10, $11)`
	sweepLoginsSQL = `delete from login where user_id = $1 and expires_at <= $2`
	// One row a membership; a person without one still has one row.
	authenticateSQL = `select l.id, l.user_id, l.token_hash, l.method, l.authenticated_at, l.last_seen_at, l.expires_at, l.organization_id, l.providers, l.provider_id,
			p.name, p.email, p.environment_id,
			coalesce(m.role, ''), coalesce(o.id, ''), coalesce(o.name, ''), coalesce(o.environment_id, ''), coalesce(o.require_passkey, 0),
			coalesce(e.name, ''), coalesce(e.operator_id, '')
		from login l join person p on p.id = l.user_id and p.disabled_at = 0
			left join membership m on m.user_id = l.user_id
			left join organization o on o.id = m.organization_id
			left join environment e on e.id = o.environment_id
		where l.token_hash = $1 and l.revoked_at = 0 and l.expires_at > $2 order by o.name, o.id`
	seenSQL   = `update login set last_seen_at = $1 where id = $2 and last_seen_at < $1`
	loginsSQL = `select id, method, address, authenticated_at, last_seen_at, expires_at from login
		where user_id = $1 and revoked_at = 0 and expires_at > $2 and (method = 'cli' or last_seen_at > $3) order by id desc`
	revokeLoginsSQL = `update login set revoked_at = $1, version = version + 1
		where user_id = $2 and revoked_at = 0 and ($3 = '' or id = $3) and ($4 = '' or passkey_id = $4)`
)

func insertLogin(ctx context.Context, tx *sqldb.Tx, l loginRow) error {
	if _, err := tx.ExecContext(ctx, sweepLoginsSQL, l.user, sqldb.Micros(l.at)); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, insertLoginSQL, l.id, l.user, l.hash[:], l.method, l.passkey, l.address, sqldb.Micros(l.at), sqldb.Micros(l.expires), l.organization, l.providers, l.provider)
	return err
}

type loginRow struct {
	id           id.Login
	user         id.User
	hash         [32]byte
	method       string
	passkey      id.Passkey
	address      string
	organization id.Organization // the only one in which it counts; empty: wherever the user is a member
	providers    string          // of a vouched login: where it connects; empty: everywhere
	provider     id.IdentityProvider
	at           time.Time
	expires      time.Time
}

// loginState is what authenticating reads beside the Person.
type loginState struct {
	hash     []byte
	lastSeen time.Time
	found    bool
}

func selectPerson(ctx context.Context, q sqldb.Querier, hash [32]byte, now time.Time) (Person, loginState, error) {
	var p Person
	var st loginState
	_, err := sqldb.Collect(func(row sqldb.Scanner) (struct{}, error) {
		var m Membership
		var operator string
		var require, at, seen, expires int64
		var env, org, providers string
		var only id.Organization
		err := row.Scan(&p.login, &p.user, &st.hash, &p.method, &at, &seen, &expires, &only, &providers, &p.provider, &p.name, &p.email, &p.home,
			&m.Role, &org, &m.OrganizationName, &env, &require, &m.EnvironmentName, &operator)
		if err != nil {
			return struct{}{}, err
		}
		p.providers = strings.Fields(providers)
		st.found, p.authenticatedAt, st.lastSeen = true, sqldb.Time(at), sqldb.Time(seen)
		if !p.Vouched() {
			p.confined = only
		}
		// Running the environment reaches into every organization, which a login that
		// counts in one does not.
		if org != "" && (only == "" || id.Organization(org) == only) && (!p.Vouched() || only != "" && vouchable(m.Role)) {
			m.Organization, m.Environment, m.requirePasskey, m.operates = id.Organization(org), id.Environment(env), require != 0, operator == org && only == ""
			p.memberships = append(p.memberships, m)
		}
		return struct{}{}, nil
	})(q.QueryContext(ctx, authenticateSQL, hash[:], sqldb.Micros(now)))
	return p, st, err
}

func touchLogin(ctx context.Context, tx *sqldb.Tx, l id.Login, at time.Time) error {
	_, err := tx.ExecContext(ctx, seenSQL, sqldb.Micros(at), l)
	return err
}

func selectLogins(ctx context.Context, q sqldb.Querier, user id.User, now time.Time) ([]Login, error) {
	return sqldb.Collect(func(row sqldb.Scanner) (Login, error) {
		var l Login
		var at, seen, expires int64
		err := row.Scan(&l.ID, &l.Method, &l.Address, &at, &seen, &expires)
		l.AuthenticatedAt, l.LastSeenAt, l.ExpiresAt = sqldb.Time(at), sqldb.Time(seen), sqldb.Time(expires)
		return l, err
	})(q.QueryContext(ctx, loginsSQL, user, sqldb.Micros(now), sqldb.Micros(now.Add(-LoginIdle))))
}

// endLogins signs a user out everywhere, and forgets the command lines that they let
// in and that have not come for their logins.
func endLogins(ctx context.Context, tx *sqldb.Tx, user id.User, at time.Time) (bool, error) {
	if _, err := lockUser(ctx, tx, user); err != nil { // as whatever makes a login or lets a command line in
		return false, err
	}
	if _, err := tx.ExecContext(ctx, forgetUsersSQL, user); err != nil {
		return false, err
	}
	return revokeLogins(ctx, tx, user, "", "", at)
}

// revokeLogins ends a user's logins: one, those of one passkey, or all.
func revokeLogins(ctx context.Context, tx *sqldb.Tx, user id.User, only id.Login, of id.Passkey, at time.Time) (bool, error) {
	return changed(tx.ExecContext(ctx, revokeLoginsSQL, sqldb.Micros(at), user, only, of))
}
