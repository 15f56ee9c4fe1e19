package main

import (
	"bytes"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// machine is what the figures are of, in words that name no host.
func (fs *figures) machine() string {
	parts := []string{fs.config["cpu"]}
	if n := fs.config["procs"]; n != "" {
		parts = append(parts, n+" processors")
	}
	parts = append(parts, fs.config["goos"]+"/"+fs.config["goarch"])
	if v := fs.config["go"]; v != "" {
		parts = append(parts, strings.Replace(v, "go", "Go ", 1))
	}
	if d := fs.config["date"]; d != "" {
		parts = append(parts, d)
	}
	if c := fs.config["commit"]; c != "" {
		parts = append(parts, "commit "+c)
	}
	return strings.Join(parts, ", ")
}

const pageText = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>fob: figures</title>
<style>
:root { color-scheme: light dark; --line: #d5dbe1; --soft: #5c6670; }
@media (prefers-color-scheme: dark) { :root { --line: #3a424a; --soft: #a0abb5; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
p, figcaption { color: var(--soft); }
figure { margin: 2rem 0; }
figure svg { background: #fff; border: 1px solid var(--line); border-radius: 6px; max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; font-variant-numeric: tabular-nums; }
code { font-size: 14px; }
</style>
</head>
<body>
<h1>fob: figures</h1>
<p>{{.Machine}}. Medians. What counts is a ratio within one run; the times are those of this machine.</p>
{{range .Charts}}<figure role="img" aria-label="{{.Title}}: {{.Text}}">
{{.SVG}}
<figcaption>{{.Title}}</figcaption>
</figure>
{{end}}<h2>All of them</h2>
<div class="wide"><table>
<thead><tr>{{range .Columns}}<th scope="col">{{.}}</th>{{end}}</tr></thead>
<tbody>
{{range .Rows}}<tr>{{range .}}<td>{{.}}</td>{{end}}</tr>
{{end}}</tbody>
</table></div>
<h2>Commands</h2>
<ul>{{range .Commands}}<li><code>{{.}}</code></li>{{end}}</ul>
</body>
</html>
`

type drawing struct {
	Title, Text string
	SVG         template.HTML
}

func writePage(to string, fs *figures, t *table, charts []*chart) error {
	var drawings []drawing
	for _, c := range charts {
		svg := c.svg
		if i := bytes.Index(svg, []byte("<svg")); i > 0 {
			svg = svg[i:] // without the XML declaration, which may stand only at the beginning
		}
		drawings = append(drawings, drawing{c.title, c.text, template.HTML(svg)})
	}
	page, err := template.New("page").Parse(pageText)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := page.Execute(&out, map[string]any{
		"Machine": fs.machine(), "Charts": drawings, "Columns": columns, "Rows": t.rows, "Commands": fs.commands,
	}); err != nil {
		return err
	}
	return os.WriteFile(to, out.Bytes(), 0o644)
}

// The lines between which a Markdown page is written anew.
const (
	markBegin = "<!-- begin figures -->"
	markEnd   = "<!-- end figures -->"
)

var errMarks = errors.New("the marks " + markBegin + " and " + markEnd + " are not there, or not in this order")

var between = regexp.MustCompile(`(?s)` + markBegin + `.*` + markEnd)

// refresh writes what stands between the marks of a Markdown page anew, and makes
// the page if there is none.
func refresh(page, images string, fs_ *figures, t *table, charts []*chart) error {
	old, err := os.ReadFile(page)
	if errors.Is(err, fs.ErrNotExist) {
		old = []byte("# Benchmarks\n\n" + markBegin + "\n" + markEnd + "\n")
	} else if err != nil {
		return err
	}
	if !between.Match(old) {
		return fmt.Errorf("%s: %w", filepath.Base(page), errMarks)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n%s.\n\n```sh\n", markBegin, fs_.machine())
	for _, c := range fs_.commands {
		fmt.Fprintln(&b, c)
	}
	fmt.Fprint(&b, "```\n\n")
	if images != "" {
		rel, err := filepath.Rel(filepath.Dir(page), images)
		if err != nil {
			return err
		}
		for _, c := range charts {
			fmt.Fprintf(&b, "![%s](%s)\n\n", c.title, path.Join(filepath.ToSlash(rel), c.name+".svg"))
		}
	}
	fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, row := range t.rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
	}
	fmt.Fprintf(&b, "\n%s", markEnd)
	return os.WriteFile(page, between.ReplaceAllLiteral(old, []byte(b.String())), 0o644)
}
