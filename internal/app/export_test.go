package app

import "net/http"

// Client gives tests what the edge takes a request's client to be.
func (a *App) Client(r *http.Request) string { return a.client(r) }
