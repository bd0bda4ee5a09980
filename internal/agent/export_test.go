package agent

// CheckRedirect opens the registration rule to the fuzzers.
func CheckRedirect(uri string) error {
	_, err := parseRedirect(uri)
	return err
}

// MaxRequests is how many authorization requests may wait for a person.
const MaxRequests = maxRequests

// Have is whether a document may lie at an address.
func (h Hosts) Have(address string) bool { return h.have(address) }

// AllowDocuments is as a server that is started with these hosts.
func (s *Service) AllowDocuments(h Hosts) { s.allowed = h }
