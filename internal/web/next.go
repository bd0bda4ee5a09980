package web

import "strings"

const home = "/ui/"

// safeNext gives where to go after a sign-in: a page of ours in plain letters,
// or home. What a browser could read as another place (two slashes, a
// backslash, an @, anything escaped) is not plain (threats.md G10).
func safeNext(next string) string {
	path, query, _ := strings.Cut(next, "?")
	if len(next) > 512 || !strings.HasPrefix(path, home) || strings.Contains(path, "//") || strings.Contains(path, "..") ||
		!plain(path, "/-_.") || !plain(query, "=&-_.") {
		return home
	}
	return next
}

func plain(s, also string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(also, c) >= 0) {
			return false
		}
	}
	return true
}
