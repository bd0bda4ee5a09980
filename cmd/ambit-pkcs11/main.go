//go:build cgo

// Command ambit-pkcs11 is the helper that speaks to hardware security modules for
// ambit. It loads the PKCS#11 library that it is told to, logs in with the PIN from
// a file, and encrypts and decrypts seeds with one key, which never leaves the
// module. It speaks to its parent over standard input and output, and ends when
// that does. "ambit-pkcs11 new-key URI" makes a key, or its next version.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/ambit-dev/ambit/internal/keyring/pkcs11"
	"github.com/ambit-dev/ambit/internal/keyring/pkcs11/wire"
)

func main() {
	// What the memory of this process holds must not be written to a disk.
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
	switch {
	case len(os.Args) == 3 && os.Args[1] == "new-key":
		if err := newKey(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "ambit-pkcs11:", err)
			os.Exit(1)
		}
	case len(os.Args) == 1:
		serve(os.Stdin, os.Stdout)
	default:
		fmt.Fprintln(os.Stderr, "ambit-pkcs11 is started by ambit. To make a key: ambit-pkcs11 new-key 'pkcs11:…'")
		os.Exit(2)
	}
}

func newKey(uri string) error {
	t, err := pkcs11.Parse(uri)
	if err != nil {
		return err
	}
	d := &device{target: t, writes: true}
	defer d.reset()
	id, err := d.newKey()
	if err != nil {
		return err
	}
	fmt.Printf("made %s with the id %x\n", t.Object, id)
	return nil
}

// asked is a request and when nobody waits for its answer any more.
type asked struct {
	wire.Request
	until time.Time
}

// serve answers until the parent is gone. That ends the process at once, even in
// the middle of a call into the library, which nothing else can end.
func serve(in io.Reader, out io.Writer) {
	r := bufio.NewReader(in)
	var first wire.Request
	if err := wire.Read(r, &first); err != nil || first.Op != wire.OpTarget || first.Target == nil {
		os.Exit(1)
	}
	questions := make(chan asked, 64)
	go func() {
		for {
			q := asked{until: time.Now().Add(time.Hour)}
			if err := wire.Read(r, &q.Request); errors.Is(err, io.EOF) {
				os.Exit(0)
			} else if err != nil {
				os.Exit(1)
			}
			if q.Millis > 0 {
				q.until = time.Now().Add(time.Duration(q.Millis) * time.Millisecond)
			}
			questions <- q
		}
	}()
	d := &device{target: *first.Target}
	for q := range questions {
		a := wire.Answer{Code: wire.CodeUnavailable, Text: "it came too late"}
		if time.Now().Before(q.until) {
			a = d.answer(q.Request)
		}
		a.ID = q.ID
		err := wire.Write(out, a)
		clear(a.Data)
		clear(q.Data)
		if err != nil {
			os.Exit(1)
		}
	}
}
