package scan

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	// wholeMax is the size up to which a file is parsed; beyond it is read as text, in pieces.
	wholeMax = 4 << 20
	piece    = 1 << 20
	// carry is how much of a piece is read again with the next: what stands over the cut.
	carry = 64 << 10
	// inflated bounds what a compressed file may become, and inflates so many times its size
	// and inflatesAtLeast: a megabyte of gzip can hold one of text a thousand times.
	inflated        = 1 << 30
	inflates        = 50
	inflatesAtLeast = 64 << 20
)

// tooDense is said of a file of which a part was read less closely than others.
const tooDense = "a part of it is too dense to be read in full"

// reader reads files, one after the other. It belongs to one goroutine.
type reader struct {
	s    *scanner
	buf  []byte
	free [][]byte // spare buffers for lower
	deep int      // how often what it reads was packed
	room int64    // what that may become, if it was
}

// maxPacked bounds how often a file may be packed: each time takes buffers, and there are
// files that hold themselves.
const maxPacked = 3

func (s *scanner) newReader() *reader { return &reader{s: s} }

// lower is a copy of a text in lower case, of ASCII only, so that places are the same.
func (r *reader) lower(t []byte) []byte {
	var out []byte
	if n := len(r.free); n > 0 {
		out, r.free = r.free[n-1], r.free[:n-1]
	}
	if cap(out) < len(t) {
		out = make([]byte, len(t))
	}
	out = out[:len(t)]
	for i, c := range t {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		out[i] = c
	}
	return out
}

func (r *reader) release(b []byte) {
	if len(r.free) < 8 && cap(b) <= wholeMax+carry {
		r.free = append(r.free, b[:0])
	}
}

// file reads one file.
func (r *reader) file(ctx context.Context, j job) {
	shown := j.shown
	if shown == "" {
		shown = j.path
	}
	d := r.doc(shown)
	d.place, d.ended = j.place, ctx.Err
	defer r.s.hand(d)
	f, size, err := openRegular(j.path)
	if err != nil {
		if !errors.Is(err, errNotRegular) {
			r.s.skip(shown, reason(err))
		}
		return
	}
	defer func() { _ = f.Close() }()
	n, err := r.content(ctx, d, f, size)
	r.s.count(n)
	if err != nil && ctx.Err() == nil {
		r.s.skip(shown, reason(err))
	}
}

func (r *reader) doc(shown string) *doc {
	p := slashed(shown)
	return &doc{r: r, shown: shown, path: p, base: strings.ToLower(path.Base(p))}
}

// content reads what a file holds, which may be compressed.
func (r *reader) content(ctx context.Context, d *doc, f io.Reader, size int64) (int64, error) {
	if r.buf == nil {
		r.buf = make([]byte, piece)
	}
	n, err := io.ReadFull(f, r.buf)
	head := r.buf[:n]
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return int64(n), err
	}
	end := err != nil
	switch {
	case n == 0:
		return 0, nil
	case n > 2 && head[0] == 0x1f && head[1] == 0x8b:
		return r.gzipped(ctx, d, io.MultiReader(bytes.NewReader(append([]byte(nil), head...)), f), size)
	case media(head) && !plainText(head): // OTTO_API_KEY=… begins like a font
		return int64(n), nil
	case n > 1 && (head[0] == 0xff && head[1] == 0xfe || head[0] == 0xfe && head[1] == 0xff):
		if end || size < wholeMax {
			rest, err := io.ReadAll(io.LimitReader(f, wholeMax))
			if err != nil {
				return int64(n), err
			}
			d.whole(fromUTF16(append(append([]byte(nil), head...), rest...)))
			return size, nil
		}
		r.s.skip(d.shown, "it is UTF-16 of over "+strconv.Itoa(wholeMax>>20)+" MiB")
		return int64(n), nil
	}
	if binaryData(head) {
		return r.stream(ctx, d, head, f, true, end)
	}
	if end {
		d.whole(head)
		return int64(n), nil
	}
	if size <= wholeMax {
		rest, err := io.ReadAll(io.LimitReader(f, wholeMax))
		all := append(append(make([]byte, 0, n+len(rest)), head...), rest...)
		if err != nil {
			return int64(len(all)), err
		}
		d.whole(all)
		return int64(len(all)), nil
	}
	return r.stream(ctx, d, head, f, false, end)
}

func (r *reader) gzipped(ctx context.Context, d *doc, f io.Reader, size int64) (int64, error) {
	z, err := gzip.NewReader(f)
	if err != nil {
		return 0, nil // it only begins like one
	}
	if r.deep >= maxPacked {
		r.s.skip(d.shown, "it is packed more than "+strconv.Itoa(maxPacked)+" times")
		return 0, nil
	}
	inner := r.s.newReader()
	inner.deep, inner.room = r.deep+1, r.room
	if r.deep == 0 {
		inner.room = min(inflated, inflatesAtLeast+inflates*min(size, inflated))
	}
	d.base = strings.TrimSuffix(strings.TrimSuffix(d.base, ".gz"), ".gzip")
	d.r = inner
	n, err := inner.content(ctx, d, io.LimitReader(z, inner.room), inner.room)
	if r.deep == 0 && n >= inner.room { // what was packed twice counts here too
		r.s.skip(d.shown, "only the first "+strconv.FormatInt(inner.room>>20, 10)+" MiB of what is packed in it were read")
	}
	if errors.Is(err, gzip.ErrChecksum) || errors.Is(err, gzip.ErrHeader) {
		err = nil
	}
	return n, err
}

// media reports whether a file is of a kind that holds no text: pictures, sound, programs.
func media(b []byte) bool {
	for _, m := range []string{"\x89PNG", "\xff\xd8\xff", "GIF8", "RIFF", "\x7fELF", "MZ\x90", "\xca\xfe\xba\xbe", "\xcf\xfa\xed\xfe", "OggS", "ID3", "fLaC", "\x00\x00\x01\x00\x01", "wOFF", "wOF2", "OTTO", "%PDF", "\x00asm", "PACK\x00", "\xfftOc", "BZh9", "\xfd7zXZ", "\x28\xb5\x2f\xfd", "7z\xbc\xaf", "PK\x03\x04", "!<arch>"} {
		if bytes.HasPrefix(b, []byte(m)) {
			return true
		}
	}
	return len(b) > 12 && string(b[4:8]) == "ftyp"
}

// plainText reports whether a file begins with text.
func plainText(b []byte) bool {
	b = b[:min(len(b), 512)]
	for i := 1; i < utf8.UTFMax && i < len(b) && !utf8.Valid(b); i++ { // cut within a letter
		b = b[:len(b)-1]
	}
	return utf8.Valid(b) && !binaryData(b)
}

func binaryData(b []byte) bool { return bytes.IndexByte(b[:min(len(b), 8000)], 0) >= 0 }

// stream reads a file piece by piece, with a little of the piece before. Of data that is
// no text only tokens with a form of their own are looked for.
func (r *reader) stream(ctx context.Context, d *doc, head []byte, f io.Reader, data, end bool) (int64, error) {
	m := prose
	if data {
		m = forms
	} else if d.formatOf(head[:min(len(head), 512)]) == asCode {
		m = code
	}
	lines := !data && d.formatOf(head[:min(len(head), 512)]) == asJSONLines
	buf := make([]byte, 0, piece+carry)
	buf = append(buf, head...)
	line, total := 1, int64(len(head))
	for {
		if ctx.Err() != nil {
			return total, nil
		}
		cut := len(buf)
		if !end {
			// The last line may go on; a key may stand over the cut.
			if i := bytes.LastIndexByte(buf, '\n'); i >= 0 && len(buf)-i < carry {
				cut = i + 1
			} else {
				cut = max(0, len(buf)-4096)
			}
			if i := bytes.LastIndex(buf[:cut], []byte("-----BEGIN")); i >= 0 && len(buf)-i < carry && !bytes.Contains(buf[i:cut], []byte("-----END")) {
				cut = i
			}
		}
		if now := buf[:cut]; !zero(now) {
			d.marks(now, line)
			if lines {
				r.streamLines(d, now, line)
			} else {
				d.text(&unit{text: now, line: line, mode: m})
			}
			line += bytes.Count(now, []byte{'\n'})
		}
		if end {
			d.settle()
			return total, nil
		}
		kept := copy(buf, buf[cut:])
		n, err := io.ReadFull(f, buf[kept:min(cap(buf), kept+piece)])
		buf = buf[:kept+n]
		total += int64(n)
		if n > 0 && r.s.opt.Progress != nil && total%(64<<20) < piece {
			r.s.opt.Progress(r.s.files.Load(), r.s.bytes.Load()+total)
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return total, err
			}
			end = true
		}
	}
}

func (r *reader) streamLines(d *doc, b []byte, line int) {
	for l := range bytes.Lines(b) {
		if d.stopped() {
			return
		}
		d.jsonLine(l, line, forms)
		line++
	}
}

var zeros = make([]byte, 64<<10)

// zero reports whether there is nothing in a piece, as in the holes of a sparse file.
func zero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeros))
		if !bytes.Equal(b[:n], zeros[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

func fromUTF16(b []byte) []byte {
	order := binary.ByteOrder(binary.LittleEndian)
	if b[0] == 0xfe {
		order = binary.BigEndian
	}
	units := make([]uint16, 0, len(b)/2)
	for i := 2; i+1 < len(b); i += 2 {
		units = append(units, order.Uint16(b[i:]))
	}
	return []byte(string(utf16.Decode(units)))
}

var errNotRegular = errors.New("not a regular file")

// openRegular opens a file for reading, and nothing else: a pipe that nobody writes to, a
// socket or a device would hang the scan or do worse.
func openRegular(name string) (*os.File, int64, error) {
	f, err := openNow(name)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		_ = f.Close()
		if err == nil {
			err = errNotRegular
		}
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// walker meets files and hands them to the readers.
type walker struct {
	s            *scanner
	seen         map[string]bool // places and roots that were read already
	repositories []string        // met, as absolute paths
	leftOut      int             // files and folders, by ignore files and as other people's code
}

// others are folders of code that others wrote, of caches and of version control.
var others = set(`node_modules bower_components jspm_packages site-packages dist-packages __pycache__ .tox .nox .mypy_cache .pytest_cache .ruff_cache .cargo-registry .terragrunt-cache .yarn .pnpm-store .next .nuxt .svelte-kit .parcel-cache .turbo .hg .svn .bzr .venv virtualenv .eggs`)

// shallow reports whether a folder holds caches, and settings with logins beside them.
func shallow(name string) bool { return name == ".m2" || name == ".gradle" }

// root walks one root. A root is read whatever it is called, and through a link.
func (w *walker) root(ctx context.Context, root string) {
	real, err := filepath.EvalSymlinks(root)
	if err != nil {
		w.s.skip(root, reason(err))
		return
	}
	info, err := os.Stat(real)
	if err != nil {
		w.s.skip(root, reason(err))
		return
	}
	if !info.IsDir() {
		if info.Mode().IsRegular() {
			w.send(ctx, job{path: real, shown: root})
		} else {
			w.s.skip(root, "neither a file nor a folder")
		}
		return
	}
	var rules *ignore
	if !w.s.opt.NoIgnore {
		rules = w.s.ignoreAbove(real)
	}
	w.folder(ctx, real, root, rules, 0)
}

// folder walks a folder; shown is how reports call it.
func (w *walker) folder(ctx context.Context, dir, shown string, rules *ignore, depth int) {
	if ctx.Err() != nil {
		return
	}
	if depth > maxDeep {
		w.s.skip(shown, "it lies over "+strconv.Itoa(maxDeep)+" folders deep")
		return
	}
	f, err := os.Open(dir)
	if err != nil {
		w.s.skip(shown, reason(err))
		return
	}
	if !w.s.opt.NoIgnore {
		rules = w.s.ignoreBelow(rules, dir)
	}
	if w.s.opt.Git && bare(dir) {
		w.meet(dir)
	}
	var below []string
	for {
		entries, err := f.ReadDir(1024) // a folder may hold a million files
		for _, e := range entries {
			name := e.Name()
			if name == ".git" && w.s.opt.Git { // a file, in work trees of their own and submodules
				w.meet(dir)
			}
			switch {
			case e.IsDir():
				below = append(below, name)
			case e.Type().IsRegular():
				own := filepath.Join(dir, name)
				switch {
				case dull[strings.ToLower(filepath.Ext(name))]:
				case w.wanted(name, own, rules):
					w.send(ctx, job{path: own, shown: filepath.Join(shown, name)})
				default:
					w.leftOut++
				}
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				w.s.skip(shown, reason(err))
			}
			break
		}
		if ctx.Err() != nil {
			break
		}
	}
	_ = f.Close()
	if !w.s.opt.NoIgnore && shallow(filepath.Base(dir)) && depth > 0 {
		w.leftOut += len(below)
		below = nil
	}
	for _, name := range below {
		own := filepath.Join(dir, name)
		switch {
		case name == ".git":
			w.gitFolder(ctx, own, filepath.Join(shown, name))
		case !w.s.opt.NoIgnore && (others[name] || name == "vendor" && isVendored(own)):
			w.leftOut++
		case !w.s.opt.NoIgnore && rules.ignores(own, true) && (!secretFolder(name) || rules.own(own, true)):
			w.leftOut++
		default:
			w.folder(ctx, own, filepath.Join(shown, name), rules, depth+1)
		}
	}
}

// maxDeep is how many folders may lie in one another.
const maxDeep = 200

// meet notes a repository.
func (w *walker) meet(dir string) {
	if own, err := filepath.Abs(dir); err == nil {
		w.repositories = append(w.repositories, own)
	}
}

// gitFolder reads what a repository knows about its remotes; --git reads the rest.
func (w *walker) gitFolder(ctx context.Context, dir, shown string) {
	for _, name := range []string{"config", "credentials", "FETCH_HEAD"} {
		if info, err := os.Lstat(filepath.Join(dir, name)); err == nil && info.Mode().IsRegular() {
			w.send(ctx, job{path: filepath.Join(dir, name), shown: filepath.Join(shown, name)})
		}
	}
}

func isVendored(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, "modules.txt"))
	if err != nil {
		_, err = os.Lstat(filepath.Join(dir, "autoload.php"))
	}
	return err == nil
}

// dull are files that hold no text.
var dull = set(`.png .jpg .jpeg .gif .bmp .ico .webp .avif .tif .tiff .heic .mp3 .mp4 .mov .avi .mkv .webm .wav .ogg .flac .woff .woff2 .ttf .otf .eot .pdf .exe .dll .so .dylib .a .o .obj .class .jar .war .pyc .pyo .wasm .zip .7z .rar .bz2 .xz .zst .lz4 .iso .dmg .deb .rpm .apk .pack .idx .rev .psd .ai .sketch .blend .glb .gltf .parquet .onnx .safetensors .npy .npz .h5 .pt .pth .gguf .keras .tflite`)

// wanted reports whether a file is read. What version control leaves out is where secrets
// lie, so a file whose name tells of them is read all the same; .ambitignore is the
// person's own word.
func (w *walker) wanted(name, own string, rules *ignore) bool {
	if w.s.opt.NoIgnore || !rules.ignores(own, false) {
		return true
	}
	return secretFile(name) && !rules.own(own, false)
}

func (w *walker) send(ctx context.Context, j job) {
	if w.s.opt.Home != "" || len(w.s.opt.Roots) > 1 {
		key, err := filepath.Abs(j.path)
		if err != nil {
			key = j.path
		}
		if w.seen[key] {
			return
		}
		if j.place != nil || len(w.seen) < 100_000 {
			w.seen[key] = true
		}
	}
	select {
	case w.s.jobs <- j:
	case <-ctx.Done():
	}
}
