package lint

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// The page that describes the folders of this repository, and the sections of it that
// the rule reads.
const (
	architecturePage = "docs/architecture.md"
	roomsSection     = "Rooms"
	changesSection   = "To change X, open Y"
	nothingOfOurs    = "nothing of ours" // the imports of a folder that imports none of ours
)

// architecture compares docs/architecture.md with the code. The table "Rooms" has one
// row for each folder with production code, or one row for several folders if its name
// ends in "/...". The second column of a row holds exactly the rows whose folders that
// code imports. Every file that the page names exists.
func architecture(t *Tree) []Problem {
	text, found := t.Files[architecturePage]
	if !found {
		return []Problem{{Path: architecturePage, Text: fmt.Sprintf("the page is missing: write it, with the sections %q and %q", roomsSection, changesSection)}}
	}
	m := roomMap{rooms: map[string]*room{}}
	for _, row := range table(text, roomsSection) {
		m.add(row)
	}
	m.readImports(t)
	for _, name := range slices.Sorted(maps.Keys(m.rooms)) {
		m.compare(name)
	}
	m.checkFiles(t, text)
	return m.problems
}

// roomMap is what the table "Rooms" says, and what is wrong with the page.
type roomMap struct {
	rooms    map[string]*room // by the name in the first column
	problems []Problem
}

// room is one row of the table, with what the code of its folders imports.
type room struct {
	line     int
	told     string          // the second column
	found    bool            // there is production code in its folders
	imported map[string]bool // the names of other rows whose folders that code imports
	allowed  map[string]bool // those of them that the layers allow
}

func (m *roomMap) report(line int, format string, args ...any) {
	m.problems = append(m.problems, Problem{Path: architecturePage, Line: line, Text: fmt.Sprintf(format, args...)})
}

// add takes in one row.
func (m *roomMap) add(row tableRow) {
	spans := codeSpans(row.cells[0])
	if len(row.cells) < 2 || len(spans) != 1 || row.cells[0] != "`"+spans[0]+"`" {
		m.report(row.line, "a row begins with one folder in backticks and what it imports")
		return
	}
	if first := m.rooms[spans[0]]; first != nil {
		m.report(row.line, "`%s` has a row in line %d already: remove one", spans[0], first.line)
		return
	}
	m.rooms[spans[0]] = &room{line: row.line, told: row.cells[1], imported: map[string]bool{}, allowed: map[string]bool{}}
}

// of returns the row that speaks for a folder: the one of its own name, or the longest
// that ends in "/..." and covers it, or "".
func (m *roomMap) of(dir string) string {
	if m.rooms[dir] != nil {
		return dir
	}
	best := ""
	for name := range m.rooms {
		if folder, wide := strings.CutSuffix(name, "/..."); wide && under(dir, folder) && len(name) > len(best) {
			best = name
		}
	}
	return best
}

// readImports fills the rows with what the code imports, and reports folders without one.
func (m *roomMap) readImports(t *Tree) {
	missing := map[string]bool{}
	for _, f := range t.Go {
		if f.Test {
			continue
		}
		from := m.of(f.Dir)
		if from == "" {
			if !missing[f.Dir] {
				m.report(0, "the folder `%s` has production code and no row in the section \"## %s\": add one", f.Dir, roomsSection)
			}
			missing[f.Dir] = true
			continue
		}
		r := m.rooms[from]
		r.found = true
		l, _ := layerOf(f.Dir)
		for _, s := range f.AST.Imports {
			dir, ours := ownFolder(importPath(s))
			if to := m.of(dir); ours && to != "" && to != from {
				r.imported[to] = true
				r.allowed[to] = r.allowed[to] || l.admits(dir)
			}
		}
	}
}

// compare holds the second column of a row against what the code imports.
func (m *roomMap) compare(name string) {
	r := m.rooms[name]
	if !r.found {
		m.report(r.line, "there is no folder `%s` with production code: remove the row", name)
		return
	}
	told := codeSpans(r.told)
	list := nothingOfOurs
	if len(told) > 0 {
		list = "`" + strings.Join(told, "`, `") + "`"
	}
	if r.told != list {
		m.report(r.line, "the imports of `%s` are %q: write them as %q", name, r.told, list)
	}
	for _, to := range told {
		switch {
		case !r.imported[to]:
			m.report(r.line, "the code of `%s` does not import `%s`: remove it from the row", name, to)
		case !r.allowed[to]:
			m.report(r.line, "the layers do not let `%s` import `%s`: remove the import, or change layers (internal/lint/imports.go) and say why under docs/decisions", name, to)
		}
	}
	for _, to := range slices.Sorted(maps.Keys(r.imported)) {
		if !slices.Contains(told, to) {
			m.report(r.line, "the code of `%s` imports `%s`: add it to the row, or remove the import", name, to)
		}
	}
}

// checkFiles reports the sections that are missing and the files that are gone.
func (m *roomMap) checkFiles(t *Tree, text []byte) {
	for _, section := range []string{roomsSection, changesSection} {
		if len(table(text, section)) == 0 {
			m.report(0, "the section \"## %s\" has no table: write one", section)
		}
	}
	for _, row := range table(text, changesSection) {
		if len(row.cells) < 2 || len(codeSpans(row.cells[1])) == 0 {
			m.report(row.line, "the second column names no file in backticks: name the file to open")
		}
	}
	for i, line := range strings.Split(prose(text), "\n") {
		for _, name := range codeSpans(line) {
			if file := strings.TrimSuffix(name, "/..."); t.namesFile(file) && t.Files[file] == nil && !t.folder(file) {
				m.report(i+1, "there is no `%s`: correct the name", name)
			}
		}
	}
}

var fileName = regexp.MustCompile(`^[\w.-]+(/[\w.-]+)*\.(go|md|mod|sum|work|txt|yml|conf|sh)$`)

// namesFile reports whether a word in backticks means a file or a folder of ours. A word
// with a slash does so only if it begins with a folder at the root, because the path of
// a package of the standard library looks the same.
func (t *Tree) namesFile(word string) bool {
	first, rest, slash := strings.Cut(word, "/")
	return fileName.MatchString(word) || slash && rest != "" && t.folder(first) && !strings.ContainsAny(word, " *<")
}

// tableRow is one row of a Markdown table, without its header.
type tableRow struct {
	line  int
	cells []string // without the space around them; at least one
}

// table returns the rows of the tables in the section of that heading ("## heading").
func table(text []byte, heading string) []tableRow {
	var rows []tableRow
	inside, header := false, true
	for i, line := range strings.Split(prose(text), "\n") {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "## ") || strings.HasPrefix(line, "# "):
			inside = line == "## "+heading
		case !strings.HasPrefix(line, "|"):
			header = true
		case strings.HasPrefix(line, "|--"):
			header = false
		case inside && !header:
			cells := strings.Split(strings.Trim(line, "|"), "|")
			for j := range cells {
				cells[j] = strings.TrimSpace(cells[j])
			}
			rows = append(rows, tableRow{i + 1, cells})
		}
	}
	return rows
}

// codeSpans are the words in backticks of a line.
func codeSpans(line string) []string {
	var spans []string
	for _, span := range mdCode.FindAllString(line, -1) {
		spans = append(spans, strings.Trim(span, "`"))
	}
	return spans
}

// MaxRootFiles and MaxRootLines limit the root package: the number of its production files,
// and the number of lines in all of them together. The root is what users of the library
// read, so it must be short enough to be read from top to bottom. Most of it is what users
// see; decision 0023 says why it may be this long.
const (
	MaxRootFiles = 32
	MaxRootLines = 7600
)

// rootSize checks MaxRootFiles and MaxRootLines.
func rootSize(t *Tree) []Problem {
	files, lines := 0, 0
	for _, f := range t.Go {
		if !f.Test && f.Dir == "." {
			files++
			lines += bytes.Count(t.Files[f.Path], []byte("\n"))
		}
	}
	const fix = "move machinery into a package under internal"
	var all []Problem
	if files > MaxRootFiles {
		all = append(all, Problem{Path: ".", Text: fmt.Sprintf("the root package has %d production files, more than %d: %s", files, MaxRootFiles, fix)})
	}
	if lines > MaxRootLines {
		all = append(all, Problem{Path: ".", Text: fmt.Sprintf("the root package has %d lines of production code, more than %d: %s", lines, MaxRootLines, fix)})
	}
	return all
}
