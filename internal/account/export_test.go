package account

// ReadCredential runs what reads a browser's credential before any of it is
// believed.
func (s *Service) ReadCredential(doc []byte) (accepted bool) {
	h := holder{user: User{ID: "user_0"}}
	_, state, err := s.beginRegistration(h)
	if err != nil {
		panic(err)
	}
	if _, err := s.finishRegistration(h, state, doc, ""); err == nil {
		return true
	}
	parsed, err := s.parseAssertion(doc)
	if err != nil {
		return false
	}
	h.keys = []passkey{{credential: parsed.RawID, publicKey: parsed.RawID}}
	_, err = s.checkAssertion(h, make([]byte, 32), parsed)
	return err == nil
}
