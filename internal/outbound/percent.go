package outbound

import "strings"

// DecodeOnce undoes every valid percent escape of s once and leaves the invalid
// ones, as a lenient server would (RFC 3986 §2.1 knows only the valid ones).
// Whoever looks for a step upwards in a path or a value decodes with it until
// nothing changes, so that both look through the same eyes (threats.md U3).
func DecodeOnce(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			hi, lo := Unhex(s[i+1]), Unhex(s[i+2])
			if hi >= 0 && lo >= 0 {
				out.WriteByte(byte(hi<<4 | lo))
				i += 2
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

// Unhex is the value of a hexadecimal digit in either case, or -1.
func Unhex(b byte) int {
	switch {
	case b >= '0' && b <= '9':
		return int(b - '0')
	case b >= 'a' && b <= 'f':
		return int(b-'a') + 10
	case b >= 'A' && b <= 'F':
		return int(b-'A') + 10
	}
	return -1
}
