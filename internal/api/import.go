package api

import (
	"context"
	"net/http"

	"github.com/ambit-dev/ambit/internal/account"
	"github.com/ambit-dev/ambit/internal/provider/openapi"
)

// ImportedRecord is a record that was drafted from a description.
type ImportedRecord struct {
	YAML    string       `json:"yaml"`
	ID      string       `json:"id"`
	Tools   int          `json:"tools"`
	Left    []ImportNote `json:"left_out" nullable:"false" doc:"What of the description is not in the record."`
	Flagged []ImportNote `json:"flagged" nullable:"false" doc:"What a person should look at, for it was guessed."`
}

// ImportNote says one thing about one place of the description.
type ImportNote struct {
	Where string `json:"where" doc:"Such as DELETE /pets/{id}."`
	Text  string `json:"text"`
}

type importInput struct {
	Caller
	Body struct {
		URL      string   `json:"url,omitempty" maxLength:"2000" doc:"Where the server reads the description; or"`
		Document string   `json:"document,omitempty" doc:"the description itself, in JSON or YAML."`
		ID       string   `json:"id,omitempty" maxLength:"40" doc:"Of the record; made of the title when it is left out."`
		Server   string   `json:"server,omitempty" maxLength:"2000" doc:"Where calls go; the first server of the description when it is left out."`
		Only     []string `json:"only,omitempty" maxItems:"50" nullable:"false" doc:"Beginnings of the paths to take."`
	}
}

func (a *API) importRoutes() {
	handle(a, route{id: "import-provider", method: http.MethodPost, path: "/v1/providers/import", tag: "providers", summary: "Draft a record from an OpenAPI description",
		detail: "Takes OpenAPI 3.0 and 3.1. The record is given back for review, with what was left out and what was guessed, and not stored: put it as any other.",
		rules:  rules{scopes: []account.Scope{account.ScopeProvidersWrite}}}, a.importProvider)
}

func (a *API) importProvider(ctx context.Context, by account.Actor, in *importInput) (ImportedRecord, error) {
	d, err := a.cfg.Importer.Import(ctx, by, []byte(in.Body.Document), openapi.Options{ID: in.Body.ID, Server: in.Body.Server, Source: in.Body.URL, Only: in.Body.Only})
	if err != nil {
		return ImportedRecord{}, err
	}
	return ImportedRecord{YAML: d.YAML, ID: d.ID, Tools: d.Tools, Left: importNotes(d.Left), Flagged: importNotes(d.Flagged)}, nil
}

func importNotes(list []openapi.Note) []ImportNote {
	out := make([]ImportNote, 0, len(list))
	for _, n := range list {
		out = append(out, ImportNote(n))
	}
	return out
}
