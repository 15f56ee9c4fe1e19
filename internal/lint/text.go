package lint

import (
	"bytes"
	"fmt"
	"go/ast"
	"path"
	"regexp"
	"slices"
	"strings"
)

// trailingAllowed are files in which a comment at the end of the line of a declaration counts
// as its documentation.
var trailingAllowed = map[string]string{
	"backend/backend.go": "the whole contract stays under 200 lines, to be read in one sitting by who writes a store",
}

// comments demands documentation of every exported name: a comment that starts with the name,
// with or without A, An or The before it. The comment of a group of constants or variables
// also documents its members. The comment of an interface also documents its methods if there
// are one or two.
func comments(t *Tree) []Problem {
	var all []Problem
	for _, f := range t.Go {
		if f.Test {
			continue
		}
		trailing := func(n ast.Node) bool {
			return trailingAllowed[f.Path] != "" && commentOnLine(f, f.fset.Position(n.End()).Line)
		}
		want := func(n ast.Node, name string, doc, line *ast.CommentGroup) {
			if ast.IsExported(name) && !startsWith(doc, name) && line == nil && !trailing(n) {
				all = append(all, f.problem(n, "%s is exported and has no comment that starts with its name: write one that states meaning, units, defaults, errors and concurrency, or unexport it", name))
			}
		}
		for _, d := range f.AST.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil || ast.IsExported(root(receiver(d))) {
					want(d, d.Name.Name, d.Doc, nil)
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.TypeSpec:
						doc := s.Doc
						if doc == nil && !d.Lparen.IsValid() {
							doc = d.Doc
						}
						want(s, s.Name.Name, doc, nil)
						if face, ok := s.Type.(*ast.InterfaceType); ok && s.Name.IsExported() && face.Methods.NumFields() > 2 {
							for _, m := range face.Methods.List {
								for _, name := range m.Names {
									want(m, name.Name, m.Doc, m.Comment)
								}
							}
						}
					case *ast.ValueSpec:
						switch {
						case !d.Lparen.IsValid():
							want(s, s.Names[0].Name, d.Doc, nil)
						case d.Doc == nil:
							want(s, s.Names[0].Name, s.Doc, nil)
						}
					}
				}
			}
		}
	}
	return all
}

func receiver(d *ast.FuncDecl) ast.Expr {
	x := d.Recv.List[0].Type
	for {
		switch y := x.(type) {
		case *ast.StarExpr:
			x = y.X
		case *ast.IndexExpr:
			x = y.X
		case *ast.IndexListExpr:
			x = y.X
		default:
			return x
		}
	}
}

func startsWith(doc *ast.CommentGroup, name string) bool {
	if doc == nil {
		return false
	}
	words := strings.Fields(doc.Text())
	if len(words) > 1 && words[0] != name && slices.Contains([]string{"A", "An", "The"}, words[0]) {
		words = words[1:]
	}
	return len(words) > 0 && strings.TrimSuffix(strings.TrimRight(words[0], ",:;."), "'s") == name
}

func commentOnLine(f *File, line int) bool {
	return slices.ContainsFunc(f.AST.Comments, func(c *ast.CommentGroup) bool { return f.line(c) == line })
}

// The largest number of lines in one file.
const (
	maxLines     = 400
	maxTestLines = 700
)

// size limits the length of a file, so that it can be read at once.
func size(t *Tree) []Problem {
	var all []Problem
	for _, f := range t.Go {
		most := maxLines
		if f.Test {
			most = maxTestLines
		}
		if n := bytes.Count(t.Files[f.Path], []byte("\n")); n > most {
			all = append(all, Problem{Path: f.Path, Text: fmt.Sprintf("%d lines, more than %d: split it by subject", n, most)})
		}
	}
	return all
}

var unfinished = regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)

// todo forbids comments about unfinished work. Such work is done at once or gets an issue.
func todo(t *Tree) []Problem {
	var all []Problem
	for _, f := range t.Go {
		for _, group := range f.AST.Comments {
			for _, c := range group.List {
				if word := unfinished.FindString(c.Text); word != "" && f.Dir != "internal/lint" {
					all = append(all, f.problem(c, "a %s comment: do it now, or open an issue and remove the comment", word))
				}
			}
		}
	}
	return all
}

// fuzz demands a committed corpus for each fuzz target. go test runs the inputs of the corpus
// without fuzzing, so that an error that was found once is found again.
func fuzz(t *Tree) []Problem {
	var all []Problem
	for _, f := range t.Go {
		for _, d := range f.AST.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !f.Test || fn.Recv != nil || !strings.HasPrefix(fn.Name.Name, "Fuzz") {
				continue
			}
			corpus := path.Join(f.Dir, "testdata/fuzz", fn.Name.Name)
			found := false
			for name, text := range t.Files {
				found = found || path.Dir(name) == corpus && bytes.HasPrefix(text, []byte("go test fuzz v1\n"))
			}
			if !found {
				all = append(all, f.problem(fn, "%s has no corpus: commit at least one input that reaches deep code, and one for each bug found, under %s", fn.Name.Name, corpus))
			}
		}
	}
	return all
}

// externalAllowed are test files that may be inside the package that they test.
var externalAllowed = map[string]string{
	"bench/report/report_test.go":   "a command has no outside to test from",
	"bench/report/outlines_test.go": "the same",
	"tools/mutants/mutants_test.go": "the same",
}

// external demands that tests are outside the package that they test, as its users are. Only
// export_test.go may give them access to unexported names.
func external(t *Tree) []Problem {
	var all []Problem
	for _, f := range t.Go {
		name := f.AST.Name.Name
		if f.Test && !strings.HasSuffix(name, "_test") && path.Base(f.Path) != "export_test.go" && externalAllowed[f.Path] == "" {
			all = append(all, f.problem(f.AST.Name, "this test is inside package %s: make it package %s_test and let it use the public API; what it must reach goes through export_test.go, or the file into externalAllowed (internal/lint/text.go) with its reason", name, name))
		}
	}
	return all
}

var (
	mdLink    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	mdHeading = regexp.MustCompile(`(?m)^#{1,6} +(.+?) *#*$`)
	mdFence   = regexp.MustCompile("(?ms)^```.*?^```[ \t]*$")
	mdCode    = regexp.MustCompile("`[^`\n]*`")
)

// links checks that each link between our Markdown files leads somewhere.
func links(t *Tree) []Problem {
	var all []Problem
	for name, text := range t.Files {
		if path.Ext(name) != ".md" || strings.Contains("/"+name, "/testdata/") {
			continue
		}
		for i, line := range strings.Split(prose(text), "\n") {
			for _, m := range mdLink.FindAllStringSubmatch(mdCode.ReplaceAllString(line, ""), -1) {
				if strings.Contains(m[1], ":") { // a scheme: not ours to check
					continue
				}
				file, anchor, _ := strings.Cut(m[1], "#")
				to := name
				if file != "" {
					to = path.Join(path.Dir(name), file)
				}
				target, isFile := t.Files[to]
				switch {
				case !isFile && !t.folder(to):
					all = append(all, Problem{Path: name, Line: i + 1, Text: "the link to " + m[1] + " leads nowhere: correct it, or write that file"})
				case anchor != "" && isFile && path.Ext(to) == ".md" && !slices.Contains(anchors(target), anchor):
					all = append(all, Problem{Path: name, Line: i + 1, Text: "the link to " + m[1] + " names no heading of " + to + ": take the heading in lower case with '-' for spaces"})
				}
			}
		}
	}
	return all
}

// prose returns a Markdown text without the contents of fenced blocks. The number of lines
// stays the same.
func prose(text []byte) string {
	return mdFence.ReplaceAllStringFunc(string(text), func(block string) string {
		return strings.Repeat("\n", strings.Count(block, "\n"))
	})
}

// anchors are the names that hosting platforms give to the headings of a text.
func anchors(text []byte) []string {
	var names []string
	for _, m := range mdHeading.FindAllStringSubmatch(prose(text), -1) {
		var b strings.Builder
		for _, r := range strings.ToLower(m[1]) {
			switch {
			case r == ' ':
				b.WriteByte('-')
			case r == '-' || r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r > 0x7f:
				b.WriteRune(r)
			}
		}
		names = append(names, b.String())
	}
	return names
}

// folder reports whether any file lies below dir.
func (t *Tree) folder(dir string) bool {
	for name := range t.Files {
		if dir == "." || strings.HasPrefix(name, dir+"/") {
			return true
		}
	}
	return false
}

var (
	readmeMarker = regexp.MustCompile("(?m)^<!-- command: ([a-z]+) -->\n+```[a-z]*\n((?s:.*?))^```")
	shellFence   = regexp.MustCompile("(?ms)^```(?:sh|bash|shell|console)\n(.*?)^```")
	makeTarget   = regexp.MustCompile(`(?m)^([a-z][a-z-]*):`)
)

// readme checks the commands in README.md. The commands for the story and for the tests are
// marked and have one line each, because .ci/run takes them from there. The files and the
// targets of make that a shell block names must exist.
func readme(t *Tree) []Problem {
	const name = "README.md"
	text := string(t.Files[name])
	var all []Problem
	report := func(format string, args ...any) {
		all = append(all, Problem{Path: name, Text: fmt.Sprintf(format, args...)})
	}
	marked := map[string][]string{}
	for _, m := range readmeMarker.FindAllStringSubmatch(text, -1) {
		marked[m[1]] = append(marked[m[1]], strings.TrimSpace(m[2]))
	}
	for _, want := range []string{"story", "test"} {
		if c := marked[want]; len(c) != 1 || c[0] == "" || strings.Contains(c[0], "\n") {
			report("there must be exactly one line <!-- command: %s --> with a fenced block of one command below it", want)
		}
	}
	blocks := shellFence.FindAllStringSubmatch(text, -1)
	for _, block := range blocks {
		for line := range strings.SplitSeq(block[1], "\n") {
			line, _, _ = strings.Cut(line, " #")
			words := strings.Fields(line)
			if len(words) > 0 && words[0] == "$" {
				words = words[1:]
			}
			for i, w := range words {
				switch file := strings.TrimSuffix(strings.TrimPrefix(w, "./"), "/..."); {
				case strings.HasPrefix(w, "./") && w != "./..." && t.Files[file] == nil && !t.folder(path.Clean(file)):
					report("the command %q names %s, which does not exist", line, w)
				case i == 1 && words[0] == "make" && !slices.Contains(targets(t), w):
					report("the command %q names a target that the Makefile does not have", line)
				case w == "work" && words[0] == "go" && t.Files["go.work"] == nil:
					report("the command %q needs a go.work", line)
				}
			}
		}
	}
	return all
}

func targets(t *Tree) []string {
	var names []string
	for _, m := range makeTarget.FindAllSubmatch(t.Files["Makefile"], -1) {
		names = append(names, string(m[1]))
	}
	return names
}

var (
	machinePath  = regexp.MustCompile(`(?:^|[\s"'=(\x60:,])(/(?:home|Users|root|work)/[\w.-]+)`)
	registryHost = regexp.MustCompile(`\b(?:(?:proxy|sum|index)\.golang\.\w+|goproxy\.(?:io|cn)|registry\.npmjs\.\w+|pypi\.\w+|deb\.debian\.\w+|registry-1\.docker\.\w+)\b`)
)

// portable forbids paths and settings that are right on one machine only.
func portable(t *Tree) []Problem {
	var all []Problem
	for name, text := range t.Files {
		if bytes.IndexByte(text, 0) >= 0 { // no text
			continue
		}
		for i, line := range strings.Split(string(text), "\n") {
			if m := machinePath.FindStringSubmatch(line); m != nil {
				all = append(all, Problem{Path: name, Line: i + 1, Text: m[1] + " exists on one machine only: use a relative path, or a temporary folder"})
			}
			if m := registryHost.FindString(line); m != "" {
				all = append(all, Problem{Path: name, Line: i + 1, Text: m + ": whose registry is used is a setting of each machine: leave it to go env"})
			}
		}
	}
	return all
}

var workUse = regexp.MustCompile(`(?m)^\s*(?:use\s+)?(\.\S*)\s*$`)

// workspace demands that go.work lists every module, because the README's test command does
// not test a module that is missing there.
func workspace(t *Tree) []Problem {
	used := map[string]bool{}
	for _, m := range workUse.FindAllSubmatch(t.Files["go.work"], -1) {
		used[path.Clean(string(m[1]))] = true
	}
	var all []Problem
	for name := range t.Files {
		if dir := path.Dir(name); path.Base(name) == "go.mod" && !used[dir] && !strings.Contains("/"+name, "/testdata/") {
			all = append(all, Problem{Path: name, Text: "go.work does not list this module: add it (go work use " + dir + ")"})
		}
	}
	return all
}

var pageName = regexp.MustCompile(`\b[\w/-]+\.md\b`)

// references checks that the pages named in comments exist, as seen from the folder of the
// file or from the root.
func references(t *Tree) []Problem {
	var all []Problem
	for _, f := range t.Go {
		if f.Dir == "internal/lint" { // names pages as examples
			continue
		}
		for _, group := range f.AST.Comments {
			for _, c := range group.List {
				for _, page := range pageName.FindAllString(c.Text, -1) {
					if t.Files[page] == nil && t.Files[path.Join(f.Dir, page)] == nil && t.Files[path.Join("docs", page)] == nil {
						all = append(all, f.problem(c, "there is no %s here: say what it says, or write it under docs/", page))
					}
				}
			}
		}
	}
	return all
}
