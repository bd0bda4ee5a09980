package provider

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1" //nolint:gosec // the name of a commit is its SHA-1; nothing here rests on it being hard to forge
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/ambit-dev/ambit/internal/policy"
)

// gitEffect tells what a request of git's smart HTTP (gitprotocol-http) changes: a
// fetch reads, a push writes, and one that deletes a ref, moves a tag or leaves
// commits behind destroys. The whole path must be that of a repository, as the record
// says: what another request's path ends in is anybody's to choose. There a push is
// at least a write. ok is false for any other request.
func (r Record) gitEffect(d *dissected) (effect policy.Effect, why string, ok bool) {
	switch d.gitService() {
	case "git-upload-pack":
		if d.repository(r.repositories(d.base), len(d.one)-1) {
			return policy.Read, "", true
		}
	case "git-receive-pack":
		if d.encoded {
			return policy.Destructive, "the push is in a coding", true
		}
		effect, why = pushEffect(d.raw.Body)
		return effect, why, true
	}
	return "", "", false
}

// gitService is the service that a request is for, by the end of its path and its media
// type; empty: it is for none.
func (d *dissected) gitService() string {
	if d.method != http.MethodPost || len(d.one) < 2 {
		return ""
	}
	last := d.one[len(d.one)-1]
	if last != "git-upload-pack" && last != "git-receive-pack" || d.media != "application/x-"+last+"-request" {
		return ""
	}
	return last
}

// repositories are the paths of repositories below a base.
func (r Record) repositories(base string) []pathTemplate {
	if r.API.Git.has(base) {
		return r.API.Git.at
	}
	return r.git
}

// repository reports whether the first n segments of the path are those of a
// repository, in the one spelling that every server reads alike.
func (d *dissected) repository(paths []pathTemplate, n int) bool {
	if !slices.Equal(d.one, d.many) {
		return false
	}
	have := d.one[:n]
	return slices.ContainsFunc(paths, func(t pathTemplate) bool {
		if len(have) < len(t.segments) || len(have) > len(t.segments) && !t.subtree {
			return false
		}
		for i, seg := range t.segments {
			if !seg.fits(have[i]) {
				return false
			}
		}
		return true
	})
}

// pushEffect reads the commands of a push. A client does not say that it forces
// one: the new commit must lead back to the old one by the commits in the pack,
// else nobody here can tell.
func pushEffect(body []byte) (policy.Effect, string) {
	p, ok := readPush(body)
	switch {
	case !ok:
		return policy.Destructive, "the push cannot be read"
	case len(p.updates) > maxUpdates:
		return policy.Destructive, "the push moves more than " + strconv.Itoa(maxUpdates) + " refs"
	case len(p.options) > 0: // which a server may take for anything: a merge, a check that is left out
		return policy.Destructive, "it gives the server the option " + p.options[0]
	}
	var parents map[string][]string
	for _, u := range p.updates {
		switch {
		case none(u.to):
			return policy.Destructive, "it deletes " + u.ref
		case none(u.from):
		case strings.HasPrefix(u.ref, "refs/tags/"):
			return policy.Destructive, "it moves the tag " + u.ref
		default:
			if parents == nil {
				parents = commits(p.pack, len(u.to))
			}
			if !leadsTo(parents, u.to, u.from) {
				return policy.Destructive, "it may leave commits of " + u.ref + " behind"
			}
		}
	}
	return policy.Write, ""
}

type update struct{ from, to, ref string }

// words tell a person what becomes of the ref.
func (u update) words() string {
	switch {
	case none(u.to):
		return "deleted, was " + u.from
	case none(u.from):
		return "new, at " + u.to
	}
	return "from " + u.from + " to " + u.to
}

func none(name string) bool { return strings.Trim(name, "0") == "" }

// push is what git sends to receive-pack (gitprotocol-pack): what becomes of which
// refs, options for the server, and the objects.
type push struct {
	updates []update
	options []string
	pack    []byte
}

// maxUpdates is how many refs of a push a person is shown. More are nobody's to judge.
const maxUpdates = 50

// readPush reads a push whole: what stands between the commands and the pack, and is
// not what the commands announce, is not passed over.
func readPush(body []byte) (p push, ok bool) {
	var announced bool
	if p.updates, announced, body, ok = commands(body); ok && announced {
		p.options, body, ok = options(body)
	}
	if !ok {
		return push{}, false
	}
	if len(body) > 0 && !bytes.HasPrefix(body, []byte("PACK")) {
		return push{}, false
	}
	p.pack = body
	return p, true
}

// pktLine cuts one pkt-line off body. A flush has no line.
func pktLine(body []byte) (line, rest []byte, flush, ok bool) {
	if len(body) < 4 {
		return nil, nil, false, false
	}
	n, err := strconv.ParseUint(string(body[:4]), 16, 16)
	switch {
	case err != nil || n > 0 && n < 4 || int(n) > len(body):
		return nil, nil, false, false
	case n == 0:
		return nil, body[4:], true, true
	}
	return body[4:n], body[n:], false, true
}

// options reads the push options that the commands announced, up to their flush.
func options(body []byte) (out []string, rest []byte, ok bool) {
	for {
		line, rest, flush, ok := pktLine(body)
		if !ok || flush {
			return out, rest, ok
		}
		out, body = append(out, strings.TrimSuffix(string(line), "\n")), rest
	}
}

// commands reads pkt-lines up to the first flush.
func commands(body []byte) (out []update, announced bool, rest []byte, ok bool) {
	for {
		pkt, rest, flush, ok := pktLine(body)
		if !ok || flush {
			return out, announced, rest, ok
		}
		line, capabilities, _ := bytes.Cut(pkt, []byte{0})
		announced = announced || slices.Contains(strings.Fields(string(capabilities)), "push-options")
		body = rest
		parts := strings.SplitN(strings.TrimSuffix(string(line), "\n"), " ", 3)
		if len(parts) != 3 || len(parts[0]) != len(parts[1]) || len(parts[0]) != 40 && len(parts[0]) != 64 || !isHex(parts[0]) || !isHex(parts[1]) {
			if strings.HasPrefix(string(line), "shallow ") {
				continue
			}
			return nil, false, nil, false
		}
		out = append(out, update{parts[0], parts[1], parts[2]})
	}
}

func isHex(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil
}

// commits reads the parents of the commits that stand whole in what there is of a
// pack (gitformat-pack). digits is the length of a commit's name.
func commits(rest []byte, digits int) map[string][]string {
	const kindCommit, kindOffset, kindName = 1, 6, 7
	out := map[string][]string{}
	if len(rest) < 12 {
		return out
	}
	count := binary.BigEndian.Uint32(rest[8:])
	r := bytes.NewReader(rest[12:])
	budget := int64(16 << 20) // of all that is inflated: small packs can hold much
	for range min(count, 100_000) {
		kind, size, err := objectHead(r)
		if budget -= size; err != nil || size > MaxRead || budget < 0 {
			return out
		}
		switch kind {
		case kindOffset:
			for c := byte(0x80); c&0x80 != 0; {
				if c, err = r.ReadByte(); err != nil {
					return out
				}
			}
		case kindName:
			if _, err := r.Seek(int64(digits/2), io.SeekCurrent); err != nil {
				return out
			}
		}
		zr, err := zlib.NewReader(r)
		if err != nil {
			return out
		}
		text, err := io.ReadAll(io.LimitReader(zr, size+1))
		if err != nil || int64(len(text)) != size {
			return out
		}
		if kind == kindCommit {
			name, from := readCommit(text, digits)
			out[name] = from
		}
	}
	return out
}

func objectHead(r *bytes.Reader) (kind byte, size int64, err error) {
	c, err := r.ReadByte()
	if err != nil {
		return 0, 0, err
	}
	kind, size = c>>4&7, int64(c&15)
	for shift := 4; c&0x80 != 0; shift += 7 {
		if c, err = r.ReadByte(); err != nil || shift > 40 {
			return 0, 0, io.ErrUnexpectedEOF
		}
		size |= int64(c&0x7f) << shift
	}
	return kind, size, nil
}

func readCommit(text []byte, digits int) (name string, parents []string) {
	whole := append([]byte(fmt.Sprintf("commit %d\x00", len(text))), text...)
	if digits == 64 {
		sum := sha256.Sum256(whole)
		name = hex.EncodeToString(sum[:])
	} else {
		sum := sha1.Sum(whole) //nolint:gosec // see above
		name = hex.EncodeToString(sum[:])
	}
	for line := range strings.Lines(string(text)) {
		if line == "\n" {
			break
		}
		if p, ok := strings.CutPrefix(line, "parent "); ok {
			parents = append(parents, strings.TrimSpace(p))
		}
	}
	return name, parents
}

// leadsTo reports whether old is among the ancestors of name that are known.
func leadsTo(parents map[string][]string, name, old string) bool {
	seen, next := map[string]bool{}, []string{name}
	for len(next) > 0 {
		at := next[len(next)-1]
		if next = next[:len(next)-1]; at == old {
			return true
		}
		if !seen[at] {
			seen[at] = true
			next = append(next, parents[at]...)
		}
	}
	return false
}
