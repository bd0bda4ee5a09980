package web

// Route is a line of the table, for tests that walk it.
type Route struct {
	Pattern string
	Open    bool
}

// Routes lists the table.
func (s *Server) Routes() []Route {
	var out []Route
	for _, r := range s.routes() {
		out = append(out, Route{r.pattern, r.open})
	}
	return out
}
