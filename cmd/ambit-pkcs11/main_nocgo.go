//go:build !cgo

// Command ambit-pkcs11 loads a C library, and was built without cgo.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "ambit-pkcs11 was built without cgo: build it with CGO_ENABLED=1")
	os.Exit(1)
}
