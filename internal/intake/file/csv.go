package file

import (
	"bytes"
	"encoding/csv"
	"strings"

	"github.com/ambit-dev/ambit/internal/intake"
)

// readTable reads a CSV file whose heading has these columns, as rows by the names of the
// columns. Another file is none.
func readTable(doc []byte, columns ...string) ([]map[string]string, bool) {
	r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(doc, []byte("\ufeff"))))
	r.FieldsPerRecord = -1
	all, err := r.ReadAll()
	if err != nil || len(all) == 0 {
		return nil, false
	}
	out := make([]map[string]string, 0, len(all)-1)
	for _, row := range all[1:] {
		named := map[string]string{}
		for i, text := range row {
			if i < len(all[0]) {
				named[strings.TrimSpace(all[0][i])] = text
			}
		}
		out = append(out, named)
	}
	heading := map[string]bool{}
	for _, name := range all[0] {
		heading[strings.TrimSpace(name)] = true
	}
	for _, name := range columns {
		if !heading[name] {
			return nil, false
		}
	}
	return out, true
}

// onePasswordCSV reads Title, Url, Username, Password, OTPAuth, Favorite, Archived, Tags
// and Notes, as far as they are there.
func onePasswordCSV(file string, rows []map[string]string) *Source {
	s := newSource("1password", file)
	for _, row := range rows {
		if strings.EqualFold(row["Archived"], "true") {
			continue
		}
		about := intake.Item{Description: clip(row["Url"])}
		for _, tag := range strings.FieldsFunc(row["Tags"], func(r rune) bool { return r == ';' || r == ',' }) {
			about.Tags = append(about.Tags, strings.TrimSpace(tag))
		}
		at := segment(row["Title"]) + "/"
		s.add(at+"password", row["Password"], about)
		s.add(at+"otp", row["OTPAuth"], about)
	}
	return s
}
