package agent

// CheckRedirect opens the registration rule to the fuzzers.
func CheckRedirect(uri string) error {
	_, err := parseRedirect(uri)
	return err
}

// MaxRequests is how many authorization requests may wait for a person.
const MaxRequests = maxRequests
