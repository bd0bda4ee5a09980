package audit

import (
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/disk"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/secret"
	"github.com/ambit-dev/ambit/internal/sqldb"
)

// A checkpoint is a signed note (golang.org/x/mod/sumdb/note) with the text
//
//	ambit audit checkpoint 1
//	<chain> <seq> <hash in hex>
//	<time, RFC 3339>
//
// in the file <chain>.checkpoint. The key that verifies it is in verifier.pub
// in the same folder, written once, and in the database.
const (
	checkpointTitle  = "ambit audit checkpoint 1"
	checkpointSuffix = ".checkpoint"
	verifierFile     = "verifier.pub"
	signerName       = "ambit-audit"
)

// signer signs checkpoints with a key that the root key wraps.
type signer struct {
	key  secret.Value // Ed25519 seed
	hash uint32
}

func (s *signer) Name() string    { return signerName }
func (s *signer) KeyHash() uint32 { return s.hash }
func (s *signer) Sign(msg []byte) ([]byte, error) {
	return ed25519.Sign(ed25519.NewKeyFromSeed(s.key.Reveal()), msg), nil
}

var signerContext = keyring.Context{AAD: crypt.Fields("ambit audit checkpoint signer 1"), Purpose: "audit-signer"}

// openSigner loads the signing key, or makes it: of several nodes that start at
// once, the first one's key stays.
func openSigner(ctx context.Context, db *sqldb.DB, keeper keyring.Keeper, dir string) (*signer, error) {
	if err := disk.Folder(dir); err != nil {
		return nil, fmt.Errorf("making the folder for audit checkpoints: %w", err)
	}
	seed := crypt.NewSeed()
	verifier, err := verifierOf(seed)
	if err != nil {
		return nil, err
	}
	wrapped, err := keeper.Wrap(ctx, seed, signerContext)
	if err != nil {
		return nil, fmt.Errorf("wrapping the audit checkpoint key: %w", err)
	}
	err = db.Update(ctx, func(ctx context.Context, tx *sqldb.Tx) error {
		if _, err := tx.ExecContext(ctx, insertSignerSQL, keeper.Describe().Ref, wrapped, verifier); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, signerSQL).Scan(&wrapped, &verifier)
	})
	if err != nil {
		return nil, fmt.Errorf("loading the audit checkpoint key: %w", err)
	}
	if seed, err = unwrapSigner(ctx, keeper, wrapped); err != nil {
		return nil, err
	}
	// The root key vouches for the seed; the verifier beside it could be anybody's.
	own, err := verifierOf(seed)
	if err != nil {
		return nil, err
	}
	if own != verifier {
		return nil, fault.New(fault.Unavailable, "audit_key_changed", "The key for audit checkpoints was changed in the database.").
			WithHint("Somebody wrote to the database: run `ambit audit verify`, then restore the table audit_signer from a backup.")
	}
	v, err := note.NewVerifier(own)
	if err != nil {
		return nil, fmt.Errorf("reading the audit checkpoint key: %w", err)
	}
	if err := disk.Create(filepath.Join(dir, verifierFile), []byte(own+"\n")); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("keeping the audit verifier key: %w", err)
	}
	return &signer{key: seed, hash: v.KeyHash()}, nil
}

func unwrapSigner(ctx context.Context, keeper keyring.Keeper, wrapped []byte) (secret.Value, error) {
	seed, err := keeper.Unwrap(ctx, wrapped, signerContext)
	if errors.Is(err, crypt.ErrIntegrity) {
		return secret.Value{}, fault.New(fault.Unavailable, "root_key_mismatch", "The root key is not the one that this database was made with.").
			WithHint("Start the server with that key (AMBIT_ROOT_KEY): every node of a database has the same.").WithCause(err)
	}
	if err != nil {
		return secret.Value{}, fmt.Errorf("unwrapping the audit checkpoint key: %w", err)
	}
	return seed, nil
}

// CheckKey refuses a root key that is not the one of this database. It writes
// nothing, and takes a database that nobody has migrated yet.
func CheckKey(ctx context.Context, db *sqldb.DB, keeper keyring.Keeper) error {
	if made, err := db.HasTable(ctx, "audit_signer"); err != nil || !made {
		return err
	}
	var wrapped []byte
	var verifier string
	err := db.Reader().QueryRowContext(ctx, signerSQL).Scan(&wrapped, &verifier)
	if sqldb.NoRows(err) {
		return nil
	}
	if err != nil {
		return sqldb.Wrap("load the audit checkpoint key", err)
	}
	_, err = unwrapSigner(ctx, keeper, wrapped)
	return err
}

func verifierOf(seed secret.Value) (string, error) {
	v, err := note.NewEd25519VerifierKey(signerName, ed25519.NewKeyFromSeed(seed.Reveal()).Public().(ed25519.PublicKey))
	if err != nil {
		return "", fmt.Errorf("making the audit checkpoint key: %w", err)
	}
	return v, nil
}

// Checkpoint writes one now, for a log that is not started.
func (l *Log) Checkpoint() error { return l.writeCheckpoint(l.chain.current()) }

// checkpoints writes one whenever the head has moved, and a last one at stop. One
// that stands is written again now and then, which says that it still does. A
// folder that hangs holds up nothing but its own checkpoint.
func (l *Log) checkpoints() {
	pace := min(l.every, max(l.witness.overdue/4, time.Millisecond))
	look := time.NewTicker(pace)
	defer look.Stop()
	var last head // witnessed
	type attempt struct {
		head  head
		began time.Time
		err   error
	}
	results := make(chan attempt, 1)
	writing := false
	next := time.Now().Add(l.every - pace/2)
	write := func(h head) {
		writing, next = true, time.Now().Add(l.every-pace/2)
		go func() { // one at a time; a folder that hangs may keep it beyond Stop
			a := attempt{head: h, began: time.Now()}
			a.err = l.writeCheckpoint(h)
			results <- a
		}()
	}
	wrote := func(a attempt) {
		writing = false
		if l.witness.wrote(a.began, a.err); a.err == nil {
			last = a.head
		} else {
			l.log.Error("an audit checkpoint could not be written", "dir", l.dir, "error", a.err)
		}
	}
	for {
		select {
		case a := <-results:
			wrote(a)
		case <-look.C:
			h := l.chain.current()
			l.witness.moved(h.beyond(last))
			now := time.Now()
			if moved := h.beyond(last) > 0; !writing && (moved && !now.Before(next) || !moved && h.chain != "" && now.Sub(next) > l.again) {
				write(h)
			}
			l.alarmIfOverdue()
		case <-l.stop:
			patience := time.After(stopPatience)
			for _, ready := range []chan struct{}{l.committed, l.alarmed} { // cover what they still write
				select {
				case <-ready:
				case <-patience:
				}
			}
			for tries := 0; tries < 2; tries++ {
				if h := l.chain.current(); !writing && h.beyond(last) > 0 {
					write(h)
				}
				if !writing {
					return
				}
				select {
				case a := <-results:
					wrote(a)
				case <-patience:
					l.log.Error("the folder for audit checkpoints hangs; the last checkpoint is left", "dir", l.dir)
					return
				}
			}
			return
		}
	}
}

// stopPatience is how long Stop waits for the log's last entries and checkpoint.
const stopPatience = 30 * time.Second

// beyond is how many entries h has that witnessed has not.
func (h head) beyond(witnessed head) int64 {
	switch {
	case h.chain == "":
		return 0
	case h.chain != witnessed.chain:
		return h.seq
	}
	return h.seq - witnessed.seq
}

func (l *Log) alarmIfOverdue() {
	overdue, changed := l.witness.changed()
	if !changed {
		return
	}
	e := Entry{Actor: Actor{Kind: "system", ID: "server"}, Action: "audit.checkpoint_overdue", Object: l.node, Code: "checkpoint_overdue"}
	if !overdue {
		e.Action, e.Code = "audit.checkpoint_resumed", ""
	}
	l.Alarm(e)
}

func (l *Log) writeCheckpoint(h head) error {
	text := fmt.Sprintf("%s\n%s\n%s\n", checkpointTitle, h, l.now().UTC().Format(time.RFC3339))
	signed, err := note.Sign(&note.Note{Text: text}, l.chain.signer)
	if err != nil {
		return fmt.Errorf("signing a checkpoint: %w", err)
	}
	if err := l.publish(filepath.Join(l.dir, h.chain+checkpointSuffix), signed); err != nil {
		return fmt.Errorf("writing a checkpoint: %w", err)
	}
	return nil
}

const otherVerifier = "the checkpoint key in the database is not the one that was published in " + verifierFile

// checkpoint is one read back.
type checkpoint struct {
	head
	time time.Time
}

// readCheckpoints loads and verifies every checkpoint in dir. Those that do not
// verify come back as problems. verifierInDatabase is empty if it is not there.
func readCheckpoints(dir, verifierInDatabase string) (found map[string]checkpoint, problems []Problem, err error) {
	found = map[string]checkpoint{}
	key := verifierInDatabase
	outside, err := os.ReadFile(filepath.Join(dir, verifierFile))
	switch {
	case errors.Is(err, os.ErrNotExist):
		problems = append(problems, Problem{What: "the checkpoint folder " + dir + " has no " + verifierFile + ": its checkpoints are verified with the key in the database, which whoever changed the database could have changed too"})
	case err != nil:
		return nil, nil, fmt.Errorf("reading the audit verifier key: %w", err)
	default:
		if key = strings.TrimSpace(string(outside)); verifierInDatabase != "" && key != verifierInDatabase {
			problems = append(problems, Problem{What: otherVerifier})
		}
	}
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return found, append(problems, Problem{What: "there is no key to verify checkpoints with"}), nil
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"+checkpointSuffix))
	if err != nil {
		return nil, nil, fmt.Errorf("listing checkpoints: %w", err)
	}
	for _, path := range files {
		cp, err := readCheckpoint(path, verifier)
		if err != nil {
			problems = append(problems, Problem{Chain: strings.TrimSuffix(filepath.Base(path), checkpointSuffix), What: "its checkpoint does not verify"})
			continue
		}
		found[cp.chain] = cp
	}
	return found, problems, nil
}

func readCheckpoint(path string, verifier note.Verifier) (checkpoint, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return checkpoint{}, err
	}
	n, err := note.Open(raw, note.VerifierList(verifier))
	if err != nil {
		return checkpoint{}, err
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) != 4 || lines[0] != checkpointTitle {
		return checkpoint{}, errors.New("not a checkpoint")
	}
	h, err := parseHead(lines[1])
	if err != nil {
		return checkpoint{}, err
	}
	at, err := time.Parse(time.RFC3339, lines[2])
	if err != nil {
		return checkpoint{}, err
	}
	if h.chain+checkpointSuffix != filepath.Base(path) {
		return checkpoint{}, errors.New("filed under another chain")
	}
	return checkpoint{head: h, time: at}, nil
}

// Vouch proves that a server with this database's root key has written fields, for
// rows that must not be believed because they stand in the database. what names
// the kind of row. The key is derived from that of the checkpoints, which nobody
// opens without the root key, and which follows that one when it is replaced.
func (l *Log) Vouch(what string, fields ...string) []byte {
	key, err := hkdf.Key(sha256.New, l.chain.signer.key.Reveal(), nil, "ambit vouch 1", sha256.Size)
	if err != nil {
		panic("audit: deriving a key of fixed length failed: " + err.Error())
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(crypt.Fields(append([]string{what}, fields...)...))
	return mac.Sum(nil)
}

// Vouches reports whether proof is what Vouch gave for the same fields.
func (l *Log) Vouches(proof []byte, what string, fields ...string) bool {
	return hmac.Equal(proof, l.Vouch(what, fields...))
}
