package mcpserver

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"unicode"

	"github.com/ambit-dev/ambit/internal/provider"
)

// Weights of where a word stands, and the two constants of BM25: how soon a
// repeated word stops counting, and how much long texts are held back.
const (
	weightName, weightTitle, weightText = 4.0, 2.0, 1.0
	saturation, lengthShare             = 1.2, 0.6
	prefixShare                         = 0.5 // of a word that only begins with the query's word
)

// maxWords bounds the work of one search.
const maxWords = 16

type document struct {
	tool   provider.Tool
	weight map[string]float64 // by word
	length float64
}

// search ranks tools by the words of query (BM25 over name, title and
// description), best first. A tool with none of the words is left out.
func search(tools []provider.Tool, query string) []provider.Tool {
	wanted := words(query)
	slices.Sort(wanted)
	if wanted = slices.Compact(wanted); len(wanted) > maxWords {
		wanted = wanted[:maxWords]
	}
	docs := make([]document, len(tools))
	var total float64
	for i, t := range tools {
		d := document{tool: t, weight: map[string]float64{}}
		d.add(t.Name, weightName)
		d.add(t.Title, weightTitle)
		d.add(t.Description, weightText)
		docs[i], total = d, total+d.length
	}
	average := max(total/float64(max(len(docs), 1)), 1)
	score := make([]float64, len(docs))
	for _, w := range wanted {
		strength := make([]float64, len(docs))
		var with int
		for i, d := range docs {
			if strength[i] = d.strength(w); strength[i] > 0 {
				with++
			}
		}
		rarity := math.Log(1 + (float64(len(docs)-with)+0.5)/(float64(with)+0.5))
		for i, d := range docs {
			if f := strength[i]; f > 0 {
				score[i] += rarity * f * (saturation + 1) / (f + saturation*(1-lengthShare+lengthShare*d.length/average))
			}
		}
	}
	order := make([]int, 0, len(docs))
	for i := range docs {
		if score[i] > 0 {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(score[b], score[a]), strings.Compare(docs[a].tool.Name, docs[b].tool.Name))
	})
	out := make([]provider.Tool, len(order))
	for i, at := range order {
		out[i] = docs[at].tool
	}
	return out
}

func (d *document) add(text string, weight float64) {
	for _, w := range words(text) {
		d.weight[w] += weight
		d.length++
	}
}

// strength is how much a word counts in a document. Part of a word counts too,
// so that "issue" finds "issues".
func (d *document) strength(word string) float64 {
	if f := d.weight[word]; f > 0 {
		return f
	}
	var most float64
	for w, f := range d.weight {
		if len(word) >= 3 && strings.HasPrefix(w, word) || len(w) >= 3 && strings.HasPrefix(word, w) {
			most = max(most, f*prefixShare)
		}
	}
	return most
}

func words(text string) []string {
	return strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
}
