package scan

import (
	"html/template"
	"io"
	"sync"
	"time"
)

// page is the report as one file: no script, nothing loaded, and it prints.
var page = sync.OnceValue(func() *template.Template { return template.Must(template.New("report").Parse(pageText)) })

const pageText = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Credentials found by Ambit</title>
<style>
:root{color-scheme:light dark;--ink:#1c1f24;--soft:#5b6270;--line:#d9dde3;--back:#fff;--high:#b3261e;--medium:#9a6200;--low:#3d6b4f}
@media (prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#a3abb8;--line:#3a4048;--back:#16181c;--high:#ff8a80;--medium:#ffc46b;--low:#8fd1a8}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);max-width:62rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin:0 0 .25rem}h2{font-size:1.15rem;margin:2rem 0 .5rem}h3{font-size:1rem;margin:0}
p{margin:.25rem 0}.soft{color:var(--soft)}code{font:.9em ui-monospace,monospace;overflow-wrap:anywhere}
article{border:1px solid var(--line);border-left:.35rem solid var(--c);border-radius:.4rem;padding:.75rem 1rem;margin:.6rem 0;break-inside:avoid}
.high{--c:var(--high)}.medium{--c:var(--medium)}.low{--c:var(--low)}.tag{color:var(--c);font-weight:600}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;margin:.5rem 0 0}dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
@media print{body{margin:0;max-width:none}:root{--ink:#000;--back:#fff}}
</style></head><body>
<h1>Credentials found</h1>
<p class="soft">{{.When}} · {{.Report.Files}} files read{{if not .Report.Complete}} · <strong>interrupted: not everything was read</strong>{{end}}. Values are not in this report.</p>
{{if not .Report.Findings}}<p>Nothing was found.</p>{{end}}
{{range .Groups}}{{if .List}}<h2>{{.Title}} ({{len .List}})</h2>
{{range .List}}<article class="{{.Risk}}"><h3>{{.Title}} <code>{{.Masked}}</code></h3>
<p>{{.Reason}}</p>
<dl><dt>Risk</dt><dd><span class="tag">{{.Risk}}</span>, {{.Score}} of 100</dd>
<dt>Where</dt><dd><code>{{.File}}{{if .Line}}:{{.Line}}{{end}}</code>{{if .Commit}} in commit <code>{{.Commit}}</code>{{end}}</dd>
{{if .Versions}}<dt>Also</dt><dd>in {{len .Versions}} {{if eq (len .Versions) 1}}version{{else}}versions{{end}} of the file in the repository's history</dd>{{end}}
{{if .Key}}<dt>Name</dt><dd><code>{{.Key}}</code></dd>{{end}}
{{if .Exposure.Mode}}<dt>Readable by</dt><dd>{{.Exposure.Readers}} ({{.Exposure.Mode}}, {{.Exposure.Owner}}){{if .Exposure.Synced}}, {{.Exposure.Synced}}{{end}}{{if .Exposure.Pushed}}, whoever has the repository{{end}}</dd>{{end}}
{{if .Expires}}<dt>Expires</dt><dd>{{.Expires.Format "2006-01-02 15:04"}} UTC{{if .Expired}} (over){{end}}</dd>{{end}}
<dt>Fingerprint</dt><dd><code>{{.Fingerprint}}</code>, in {{.Copies}} {{if eq .Copies 1}}place{{else}}places{{end}}</dd>
<dt>What to do</dt><dd>{{.Advice}}{{if .Revoke}} <a href="{{.Revoke}}" rel="noreferrer">{{.Revoke}}</a>{{end}}</dd></dl></article>
{{end}}{{end}}{{end}}
{{if .Withdrawals}}<h2>To revoke or change</h2><ul>{{range .Withdrawals}}<li>{{.Title}}{{if gt .Count 1}} ({{.Count}}){{end}}: {{if .Page}}<a href="{{.Page}}" rel="noreferrer">{{.Page}}</a>{{else}}where it is used{{end}}</li>{{end}}</ul>{{end}}
{{if .Report.Skipped}}<h2>Not read ({{len .Report.Skipped}})</h2><ul>{{range .Report.Skipped}}<li><code>{{.Path}}</code>: {{.Why}}</li>{{end}}</ul>{{end}}
</body></html>
`

// HTML writes the report as a page that can be kept and printed.
func HTML(w io.Writer, r *Report, now time.Time) error {
	type group struct {
		Title string
		List  []Finding
	}
	groups := []group{{Title: "High: act now"}, {Title: "Medium: act soon"}, {Title: "Low"}}
	for _, f := range r.Findings {
		i := High.rank() - f.Risk.rank()
		groups[i].List = append(groups[i].List, f)
	}
	return page().Execute(w, map[string]any{"Report": r, "Groups": groups, "Withdrawals": Withdrawals(r.Findings), "When": now.UTC().Format("2006-01-02 15:04 MST")})
}
