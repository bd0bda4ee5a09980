package cli

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // the format's own, which Java checks against damage only
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf16"
)

// Java reads neither the variables that name a proxy nor files in PEM. It is given a
// trust store, and its settings in a file, since it prints what stands in
// JAVA_TOOL_OPTIONS itself.

// storePassword is that of every trust store of certificates, which hold no secret.
const storePassword = "changeit"

// javaStore writes certificates as a key store of the type JKS, which every Java reads:
//
//	FEEDFEED, version 2, how many; of each 2 (a certificate), its name, the time, "X.509"
//	and the DER with its length; SHA-1 of the password, "Mighty Aphrodite" and all of it
//
// Numbers are big-endian, of 4 bytes, and of 8 for the time; a text has 2 bytes of
// length before it.
func javaStore(certificates []byte) []byte {
	var entries bytes.Buffer
	text := func(s string) {
		_ = binary.Write(&entries, binary.BigEndian, uint16(len(s)))
		entries.WriteString(s)
	}
	n := uint32(0)
	for block, rest := pem.Decode(certificates); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		_ = binary.Write(&entries, binary.BigEndian, uint32(2))
		text(fmt.Sprint("ca", n))
		_ = binary.Write(&entries, binary.BigEndian, uint64(0))
		text("X.509")
		_ = binary.Write(&entries, binary.BigEndian, uint32(len(block.Bytes)))
		entries.Write(block.Bytes)
		n++
	}
	out := binary.BigEndian.AppendUint32(nil, 0xfeedfeed)
	out = binary.BigEndian.AppendUint32(out, 2)
	out = binary.BigEndian.AppendUint32(out, n)
	out = append(out, entries.Bytes()...)
	h := sha1.New() //nolint:gosec // see above
	_ = binary.Write(h, binary.BigEndian, utf16.Encode([]rune(storePassword)))
	h.Write([]byte("Mighty Aphrodite"))
	h.Write(out)
	return h.Sum(out)
}

// java writes what Java reads into dir and gives the option that names it. trusted is
// a file of certificates in PEM. proxy has the user and the password; past are the
// hosts that are reached without it.
func java(dir, trusted string, proxy *url.URL, past []string) (option string, err error) {
	store, options := filepath.Join(dir, "trust.jks"), filepath.Join(dir, "java.options")
	certificates, err := os.ReadFile(trusted)
	if err != nil {
		return "", fmt.Errorf("reading what Java is to trust: %w", err)
	}
	if err := os.WriteFile(store, javaStore(certificates), 0o600); err != nil {
		return "", fmt.Errorf("writing what Java is to trust: %w", err)
	}
	hosts := make([]string, len(past))
	for i, h := range past {
		if hosts[i] = h; strings.HasPrefix(h, ".") {
			hosts[i] = "*" + h
		}
	}
	password, _ := proxy.User.Password()
	lines := []string{
		"-Djavax.net.ssl.trustStore=" + store, "-Djavax.net.ssl.trustStoreType=JKS", "-Djavax.net.ssl.trustStorePassword=" + storePassword,
		"-Dhttp.nonProxyHosts=" + strings.Join(hosts, "|"),
		"-Djdk.http.auth.tunneling.disabledSchemes=", // Basic is, by default
	}
	for _, scheme := range []string{"http", "https"} {
		lines = append(lines, "-D"+scheme+".proxyHost="+proxy.Hostname(), "-D"+scheme+".proxyPort="+proxy.Port(), "-D"+scheme+".proxyUser="+proxy.User.Username(), "-D"+scheme+".proxyPassword="+password)
	}
	for i, line := range lines {
		lines[i] = `"` + line + `"`
	}
	if err := os.WriteFile(options, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("writing what Java is to trust: %w", err)
	}
	return "-XX:+IgnoreUnrecognizedVMOptions -XX:VMOptionsFile=" + options, nil
}
