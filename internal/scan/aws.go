package scan

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// beside is how many lines may part the id of an AWS key from its secret.
const beside = 8

// awsID is the kind of the id of an access key, which opens nothing alone.
const awsID = "aws-access-key-id"

// settle puts right what only the whole file tells: the id of an AWS key opens nothing
// without its secret, and when temporary credentials end stands beside them. On a line with
// its secret an id is a part of that; on a line of its own it is told there, with where the
// secret stands.
func (d *doc) settle() {
	d.onLine = nil
	slices.SortStableFunc(d.found, func(a, b Finding) int { return cmp.Compare(a.Line, b.Line) })
	ids := map[int]int{}         // by secret, the id that is taken for its own
	whole := map[int]int{}       // by id, the line of its secret
	grouped := map[string]bool{} // groups that have an id
	near := func(i int) (list []int) {
		line := d.found[i].Line
		from, _ := slices.BinarySearchFunc(d.found, line-beside, func(f Finding, line int) int { return cmp.Compare(f.Line, line) })
		for j := from; j < len(d.found) && d.found[j].Line <= line+beside; j++ {
			if s := &d.found[j]; s.Kind == "aws-secret-key" || s.Kind == "secret-key" && s.Value.Len() == 40 {
				list = append(list, j)
			}
		}
		return list
	}
	for i := range d.found {
		if d.found[i].Kind == awsID {
			grouped[group(d.found[i].Key)] = true
		}
	}
	// The secret of a key stands in the same profile; where a file has no such groups,
	// and where the group of a secret has no id, it is the nearest.
	for i := range d.found {
		if d.found[i].Kind != awsID {
			continue
		}
		for _, j := range near(i) {
			its := group(d.found[j].Key)
			if its != group(d.found[i].Key) && grouped[its] {
				continue
			}
			if line, ok := whole[i]; !ok || distance(d.found[j].Line, d.found[i].Line) < distance(line, d.found[i].Line) {
				whole[i] = d.found[j].Line
			}
			if o, ok := ids[j]; !ok || distance(d.found[j].Line, d.found[i].Line) < distance(d.found[j].Line, d.found[o].Line) {
				ids[j] = i
			}
		}
	}
	for j, i := range ids {
		s, id := &d.found[j], d.found[i].Value
		s.Kind, s.Title, s.Provider, s.base = "aws-secret-key", "AWS secret access key", "aws", 85
		if whole[i] == d.found[i].Line { // which is told of no more
			s.also = append(s.also, id)
		}
		s.Opens = awsOpens(id, awsAccount)
	}
	for i := range d.found {
		switch f := &d.found[i]; {
		case f.Kind != awsID:
		case whole[i] == f.Line && f.Line > 0:
			f.Kind = ""
		case whole[i] > 0:
			f.Title, f.base, f.Opens = "AWS access key id", 25, "nothing without its secret, at line "+strconv.Itoa(whole[i])
		default:
			f.Title, f.base, f.Opens = "AWS access key id without its secret", 40, awsOpens(f.Value, "nothing by itself")
		}
		d.ends(&d.found[i])
	}
	d.found = slices.DeleteFunc(d.found, func(f Finding) bool { return f.Kind == "" })
}

func distance(a, b int) int { return max(a-b, b-a) }

// group is what stands around a value in its file, such as a profile; the place in a list
// parts nothing, since variables are often listed with name and value.
func group(key string) string {
	i := strings.LastIndexByte(key, '.')
	if i < 0 {
		return ""
	}
	key = key[:i]
	if n := strings.LastIndexByte(key, '['); n >= 0 && strings.HasSuffix(key, "]") {
		key = key[:n]
	}
	return key
}

// noteEnd keeps what a profile of AWS says of the end of its credentials, under the names
// that programs which fetch temporary ones give it.
func (d *doc) noteEnd(n *node, path []string) {
	for _, name := range []string{"x_security_token_expires", "aws_expiration"} {
		v := strings.TrimSpace(n.string(name))
		if v == "" {
			continue
		}
		for _, form := range []string{time.RFC3339, time.DateTime} {
			if at, err := time.Parse(form, v); err == nil {
				if d.awsEnd == nil {
					d.awsEnd = map[string]time.Time{}
				}
				d.awsEnd[group(joinPath(append(path[:len(path):len(path)], name)))] = at.UTC()
				break
			}
		}
	}
}

// ends tells when temporary credentials end. A permanent key has no end, whatever an earlier
// one left beside it.
func (d *doc) ends(f *Finding) {
	at, ok := d.awsEnd[group(f.Key)]
	if ok && f.Expires == nil && (f.Kind == "aws-session-token" || f.Opens == awsTemporary) {
		f.Expires = &at
	}
}
