package keyring

import (
	"context"
	"errors"
	"fmt"

	"github.com/ambit-dev/ambit/internal/crypt"
	"github.com/ambit-dev/ambit/internal/fault"
	"github.com/ambit-dev/ambit/internal/secret"
)

// The steps of a [Probe], in their order.
const (
	StepWrap         = "wrap"          // a new seed is wrapped
	StepUnwrap       = "unwrap"        // it comes back as it was
	StepOtherContext = "other_context" // for another context it does not open
	StepOtherBlob    = "other_blob"    // changed, it does not open
)

// Finding is what one step of a probe showed.
type Finding struct {
	Step string
	OK   bool
	Text string // for people; says nothing of where the key lies
	Err  error  // for the log; nil when there is none
}

// Report is what a probe found out about a root key.
type Report struct {
	Key      Description
	Findings []Finding // up to and including the first step that cannot be passed
}

// Err is nil when every step passed. Otherwise it is the failure of the step that
// did not: of the keeper, or the code "root_key_unfit" of a keeper that answers
// and does not keep its contract.
func (r Report) Err() error {
	for _, f := range r.Findings {
		switch {
		case f.OK:
		case f.Err != nil && ClassOf(f.Err) != Fine:
			return said(f.Err)
		default:
			return fault.New(fault.Invalid, "root_key_unfit", "The root key cannot be used: "+f.Text).
				WithHint("Use a symmetric key that is made for encryption, or an RSA key where the service has no other.").WithCause(f.Err)
		}
	}
	return nil
}

// Probe tries a root key before anything is entrusted to it: wrap, unwrap, and
// that neither another context nor a changed blob opens. labels are those of the
// context that the key is meant for; its AAD is not used.
func Probe(ctx context.Context, k Keeper, labels Context) Report {
	p := &probing{ctx: ctx, keeper: k, seed: crypt.NewSeed(), right: probeContext(labels, "ambit set-up probe 1"), wrong: probeContext(labels, "ambit set-up probe 2")}
	r := Report{Key: k.Describe()}
	for _, step := range []func() Finding{p.wrap, p.unwrap, p.otherContext, p.otherBlob} {
		f := step()
		r.Findings = append(r.Findings, f)
		if !f.OK {
			break
		}
	}
	return r
}

func probeContext(labels Context, name string) Context {
	labels.AAD, labels.Purpose = crypt.Fields(name), "probe"
	return labels
}

type probing struct {
	ctx          context.Context
	keeper       Keeper
	seed         secret.Value
	right, wrong Context
	blob         []byte
}

func (p *probing) wrap() Finding {
	blob, err := p.keeper.Wrap(p.ctx, p.seed, p.right)
	if err != nil {
		return Finding{StepWrap, false, "it does not wrap. " + text(err), err}
	}
	if len(blob) == 0 {
		return Finding{StepWrap, false, "what it wraps is nothing.", nil}
	}
	p.blob = blob
	return Finding{StepWrap, true, fmt.Sprintf("It wraps: a seed becomes %d bytes.", len(blob)), nil}
}

func (p *probing) unwrap() Finding {
	seed, err := p.keeper.Unwrap(p.ctx, p.blob, p.right)
	switch {
	case err != nil:
		return Finding{StepUnwrap, false, "it does not unwrap what it wrapped. " + text(err), err}
	case !seed.Equal(p.seed):
		return Finding{StepUnwrap, false, "what it unwraps is not what it wrapped.", nil}
	}
	return Finding{StepUnwrap, true, "It unwraps what it wrapped.", nil}
}

func (p *probing) otherContext() Finding {
	_, err := p.keeper.Unwrap(p.ctx, p.blob, p.wrong)
	return p.refused(StepOtherContext, "for another context", err)
}

func (p *probing) otherBlob() Finding {
	changed := append([]byte(nil), p.blob...)
	changed[len(changed)-1] ^= 1
	_, err := p.keeper.Unwrap(p.ctx, changed, p.right)
	return p.refused(StepOtherBlob, "when it was changed", err)
}

// refused passes only a keeper that looked and said no: one that could not be
// asked has proven nothing.
func (p *probing) refused(step, when string, err error) Finding {
	switch {
	case err == nil:
		return Finding{step, false, "what it wrapped opens " + when + ".", nil}
	case !errors.Is(err, crypt.ErrIntegrity):
		return Finding{step, false, "whether what it wrapped opens " + when + " could not be found out. " + text(err), err}
	}
	return Finding{step, true, "What it wrapped does not open " + when + ".", nil}
}

// said is the failure of a keeper as people are told it.
func said(err error) *fault.Error {
	class := ClassOf(err)
	if f := fault.Of(err); f.Code == codes[class] {
		return f
	}
	return Failure(codes[class], err)
}

// text is what a failure may say to people.
func text(err error) string {
	if ClassOf(err) != Fine {
		f := said(err)
		return f.Message + " " + f.Hint
	}
	return "It says that this is not its own."
}
