package scan

import "slices"

// Withdrawal is a kind of credential that was found and still opens something, with where
// it is taken back.
type Withdrawal struct {
	Title string `json:"title"`
	Count int    `json:"count"` // of different values
	Page  string `json:"page,omitempty"`
}

// Withdrawals are the kinds of a report that are to be revoked or changed, those of the
// worst findings first. What has expired, or works no more, is not among them, nor is the id
// of a key, which goes with its secret.
func Withdrawals(list []Finding) (kinds []Withdrawal) {
	list = slices.Clone(list)
	slices.SortStableFunc(list, byRisk)
	type kind struct{ title, page string }
	at, seen := map[kind]int{}, map[string]bool{}
	for _, f := range list {
		if f.Expired || f.Live == "dead" || f.Kind == awsID || seen[f.Fingerprint] {
			continue
		}
		seen[f.Fingerprint] = true
		k := kind{f.Title, f.Revoke}
		i, ok := at[k]
		if !ok {
			i = len(kinds)
			at[k] = i
			kinds = append(kinds, Withdrawal{Title: f.Title, Page: f.Revoke})
		}
		kinds[i].Count++
	}
	return kinds
}
