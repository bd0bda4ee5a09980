package keyringtest

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/keyring"
	"github.com/ambit-dev/ambit/internal/secret"
)

// Bench is a root key whose contract is tested, with the levers of the service
// that holds it. A lever that the service does not have is nil, and what needs it
// is not tested.
type Bench struct {
	// Keeper is the root key. Again opens it once more, as another node does.
	Keeper keyring.Keeper
	Again  func(t testing.TB) keyring.Keeper
	// Other is another root key of the same kind and service.
	Other keyring.Keeper
	// Rotate gives the root key a new version.
	Rotate func()
	// Disable forbids the use of the root key, and Enable allows it again.
	Disable, Enable func()
	// Throttle refuses calls as too many, Silence answers none, Break answers with
	// a failure of the service's own, Garble with nonsense, until Restore.
	Throttle, Silence, Break, Garble, Restore func()
	// Secrets are the credentials with which the service is asked.
	Secrets []secret.Value
}

// patience is what a call may take that must not hang: generous, for a busy
// machine.
const patience = 20 * time.Second

// Contract tests what every keeper promises (issue 4, keepers). open sets a fresh
// root key up for each part.
func Contract(t *testing.T, open func(t *testing.T) *Bench) {
	t.Helper()
	for _, part := range []struct {
		name string
		run  func(*contract)
	}{
		{"RoundTrip", (*contract).roundTrip},
		{"OtherContext", (*contract).otherContext},
		{"ChangedBlob", (*contract).changedBlob},
		{"OtherKey", (*contract).otherKey},
		{"Rotation", (*contract).rotation},
		{"Disabled", (*contract).disabled},
		{"Failures", (*contract).failures},
		{"Silence", (*contract).silence},
		{"Concurrency", (*contract).concurrency},
		{"Description", (*contract).description},
		{"Probe", (*contract).probe},
	} {
		t.Run(part.name, func(t *testing.T) {
			t.Parallel()
			c := &contract{T: t, Bench: open(t), seed: crypt.NewSeed()}
			part.run(c)
			c.leaks()
		})
	}
}

type contract struct {
	*testing.T
	*Bench
	seed secret.Value

	mu   sync.Mutex
	seen []error
}

func place(name string) keyring.Context {
	return keyring.Context{AAD: crypt.Fields("contract", name), Purpose: "kek", Environment: "env_" + name, Organization: "org_1"}
}

func (c *contract) wrap(p keyring.Context) []byte {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), patience)
	defer cancel()
	blob, err := c.Keeper.Wrap(ctx, c.seed, p)
	if err != nil {
		c.Fatalf("wrapping: %v: %v", err, errors.Unwrap(err))
	}
	return blob
}

func (c *contract) opens(k keyring.Keeper, blob []byte, p keyring.Context) {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), patience)
	defer cancel()
	switch seed, err := k.Unwrap(ctx, blob, p); {
	case err != nil:
		c.Errorf("unwrapping: %v: %v", err, errors.Unwrap(err))
	case !seed.Equal(c.seed):
		c.Error("another seed came back")
	}
}

func (c *contract) refuses(what string, k keyring.Keeper, blob []byte, p keyring.Context) {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), patience)
	defer cancel()
	seed, err := k.Unwrap(ctx, blob, p)
	c.note(err)
	if !errors.Is(err, crypt.ErrIntegrity) || keyring.ClassOf(err) != keyring.Fine || !seed.IsZero() {
		c.Errorf("%s: got %v: %v, want crypt.ErrIntegrity", what, err, errors.Unwrap(err))
	}
}

// classed checks that both calls fail with the class, in bounded time.
func (c *contract) classed(want keyring.Class, blob []byte, p keyring.Context, limit time.Duration) {
	c.Helper()
	for name, call := range map[string]func(context.Context) error{
		"wrap":   func(ctx context.Context) error { _, err := c.Keeper.Wrap(ctx, c.seed, p); return err },
		"unwrap": func(ctx context.Context) error { _, err := c.Keeper.Unwrap(ctx, blob, p); return err },
	} {
		ctx, cancel := context.WithTimeout(c.Context(), limit)
		began := time.Now()
		err := call(ctx)
		cancel()
		c.note(err)
		if got := keyring.ClassOf(err); got != want {
			c.Errorf("%s: got %v (%v: %v), want %v", name, got, err, errors.Unwrap(err), want)
		}
		if time.Since(began) > limit+patience {
			c.Errorf("%s took %v, against its context", name, time.Since(began))
		}
	}
}

func (c *contract) note(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.seen = append(c.seen, err)
	}
}

func (c *contract) roundTrip() {
	for _, name := range []string{"a", "", strings.Repeat("long ", 400), "\x00\xff\n\"{}"} {
		p := place(name)
		p.Environment = "env_1"
		blob := c.wrap(p)
		if len(blob) > 8<<10 {
			c.Errorf("a blob of %d bytes", len(blob))
		}
		if strings.Contains(string(blob), string(c.seed.Reveal())) {
			c.Error("the blob shows its seed")
		}
		if string(c.wrap(p)) == string(blob) {
			c.Error("two blobs of one seed are the same")
		}
		c.opens(c.Keeper, blob, p)
		c.opens(c.Again(c.T), blob, p)
	}
	bare := keyring.Context{AAD: []byte("without labels")}
	c.opens(c.Keeper, c.wrap(bare), bare)
	if _, err := c.Keeper.Wrap(c.Context(), secret.FromString("short"), bare); err == nil {
		c.Error("a seed of five bytes was wrapped")
	}
}

// K1: a blob moved to another place does not open there.
func (c *contract) otherContext() {
	p := place("a")
	blob := c.wrap(p)
	for what, other := range map[string][]byte{
		"another": crypt.Fields("contract", "b"), "none": nil, "a longer": append(append([]byte(nil), p.AAD...), 0),
		"a shorter": p.AAD[:len(p.AAD)-1], "one bit changed": append(append([]byte(nil), p.AAD[:len(p.AAD)-1]...), p.AAD[len(p.AAD)-1]^1),
	} {
		q := p
		q.AAD = other
		c.refuses(what+" context", c.Keeper, blob, q)
	}
}

func (c *contract) changedBlob() {
	p := place("a")
	blob := c.wrap(p)
	for i := range blob {
		bad := append([]byte(nil), blob...)
		bad[i] ^= 1 << (i % 8)
		c.refuses(fmt.Sprintf("bit %d of byte %d flipped", i%8, i), c.Keeper, bad, p)
	}
	for _, n := range []int{0, 1, 12, len(blob) / 2, len(blob) - 1} {
		c.refuses(fmt.Sprintf("the first %d bytes", n), c.Keeper, blob[:n], p)
	}
	c.refuses("a byte more", c.Keeper, append(append([]byte(nil), blob...), 0), p)
	c.opens(c.Keeper, blob, p)
}

func (c *contract) otherKey() {
	p := place("a")
	blob := c.wrap(p)
	c.refuses("another root key", c.Other, blob, p)
	if c.Other.Describe().Ref == c.Keeper.Describe().Ref {
		c.Error("two root keys have one name")
	}
}

// K3: what was wrapped before a rotation opens after it.
func (c *contract) rotation() {
	if c.Rotate == nil {
		return
	}
	p, ref := place("a"), c.Keeper.Describe().Ref
	blobs := [][]byte{c.wrap(p)}
	for range 2 {
		c.Rotate()
		blobs = append(blobs, c.wrap(p))
		for _, blob := range blobs {
			c.opens(c.Keeper, blob, p)
			c.opens(c.Again(c.T), blob, p)
		}
	}
	if now := c.Keeper.Describe().Ref; now != ref {
		c.Errorf("the name %s became %s", ref, now)
	}
}

// K4: a disabled key is a refusal, and one that is enabled again is forgiven.
func (c *contract) disabled() {
	if c.Disable == nil {
		return
	}
	p := place("a")
	blob := c.wrap(p)
	c.Disable()
	c.classed(keyring.Denied, blob, p, patience)
	c.Enable()
	c.opens(c.Keeper, blob, p)
	c.opens(c.Keeper, c.wrap(p), p)
}

// F5: a 429 or 5xx is no answer, and no verdict on the key either.
func (c *contract) failures() {
	p := place("a")
	blob := c.wrap(p)
	for _, row := range []struct {
		name  string
		lever func()
		want  keyring.Class
	}{
		{"throttled", c.Throttle, keyring.Throttled},
		{"broken", c.Break, keyring.Unavailable},
		{"garbled", c.Garble, keyring.Unavailable},
	} {
		if row.lever == nil {
			continue
		}
		row.lever()
		c.classed(row.want, blob, p, patience)
		c.Restore()
		c.opens(c.Keeper, blob, p)
	}
}

// F5: a service that does not answer costs its caller what the caller allows.
func (c *contract) silence() {
	p := place("a")
	blob := c.wrap(p)
	if c.Silence != nil {
		c.Silence()
		c.classed(keyring.Unavailable, blob, p, 300*time.Millisecond)
		c.Restore()
		c.opens(c.Keeper, blob, p)
	}
	ctx, cancel := context.WithCancel(c.Context())
	cancel()
	if _, err := c.Keeper.Unwrap(ctx, blob, p); keyring.ClassOf(err) != keyring.Unavailable {
		c.Errorf("after its caller left: got %v", err)
	}
}

func (c *contract) concurrency() {
	blobs := map[string][]byte{}
	for i := range 4 {
		name := fmt.Sprint(i)
		blobs[name] = c.wrap(place(name))
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for name, blob := range blobs {
				c.opens(c.Keeper, blob, place(name))
				if fresh, err := c.Keeper.Wrap(c.Context(), c.seed, place(name)); err != nil {
					c.Error(err)
				} else {
					c.opens(c.Keeper, fresh, place(name))
				}
			}
		})
	}
	wg.Wait()
}

func (c *contract) description() {
	is, again := c.Keeper.Describe(), c.Again(c.T).Describe()
	c.wrap(place("a"))
	if is != again || is != c.Keeper.Describe() {
		c.Errorf("%+v, then %+v", is, again)
	}
	if is.Ref == "" || is.Location == "" || len(is.Ref) > 120 || !strings.Contains(is.Ref, ":") {
		c.Errorf("the names %q and %q", is.Ref, is.Location)
	}
}

func (c *contract) probe() {
	r := keyring.Probe(c.Context(), c.Keeper, place("a"))
	if err := r.Err(); err != nil || len(r.Findings) != 4 {
		c.Errorf("a good key: %v in %+v", err, r.Findings)
	}
	if c.Disable == nil {
		return
	}
	c.Disable()
	r = keyring.Probe(c.Context(), c.Keeper, place("a"))
	if err := r.Err(); !fault.Is(err, keyring.CodeDenied) || len(r.Findings) != 1 {
		c.Errorf("a disabled key: %v in %+v", err, r.Findings)
	}
	for _, f := range r.Findings {
		c.note(f.Err)
	}
}

// leaks looks for secrets in everything that was said.
func (c *contract) leaks() {
	is := c.Keeper.Describe()
	texts := []string{is.Ref, is.Location}
	for _, err := range c.seen {
		texts = append(texts, spell(err)...)
	}
	for _, s := range append(c.Secrets, c.seed) {
		raw := s.Reveal()
		for _, form := range []string{string(raw), hex.EncodeToString(raw), base64.StdEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw)} {
			for _, text := range texts {
				if strings.Contains(text, form) {
					c.Errorf("a secret was told: %q", text)
				}
			}
		}
	}
}

// spell writes an error and all it wraps in every way.
func spell(err error) (texts []string) {
	texts = []string{err.Error(), fmt.Sprintf("%v %+v %#v", err, err, err)}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			texts = append(texts, spell(inner)...)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			texts = append(texts, spell(inner)...)
		}
	}
	return texts
}
