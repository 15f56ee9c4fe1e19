// Package lint checks the rules of this repository that the compiler cannot check. It
// reads all files with the standard library's parser and reports each violation as a
// Problem whose text says how to fix it. The test of this package runs every rule on the
// repository. It also runs every rule on broken snippets, to show that the rule finds
// something.
//
// A rule that must be broken somewhere has an allow-list beside it, and every entry of that
// list has a reason.
package lint

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Module is the path of the root module. After a rename of the module this is
// the one line here that changes.
const Module = "github.com/fobkit/fob"

// Problem is one violation of one rule.
type Problem struct {
	Rule string // the rule's name in Rules
	Path string // slash-separated, from the root of the repository
	Line int    // 0 when the problem is the file's or the repository's as a whole
	Text string // what is wrong, and the fix
}

// String returns "path:line: rule: text".
func (p Problem) String() string {
	at := p.Path
	if p.Line > 0 {
		at += ":" + strconv.Itoa(p.Line)
	}
	return fmt.Sprintf("%s: %s: %s", at, p.Rule, p.Text)
}

// Rules returns all rules by name. Each reads a Tree and returns its violations.
func Rules() map[string]func(*Tree) []Problem {
	return map[string]func(*Tree) []Problem{
		"imports":      imports,
		"testing":      testingOnly,
		"init":         noInit,
		"globals":      globals,
		"rand":         noMathRand,
		"clock":        clock,
		"digests":      digests,
		"paseto":       paseto,
		"comments":     comments,
		"size":         size,
		"todo":         todo,
		"fuzz":         fuzz,
		"external":     external,
		"links":        links,
		"readme":       readme,
		"portable":     portable,
		"workspace":    workspace,
		"references":   references,
		"architecture": architecture,
		"root":         rootSize,
	}
}

// Check runs every rule and returns all problems, in order of path and line.
func (t *Tree) Check() []Problem {
	var all []Problem
	for name := range Rules() {
		all = append(all, t.CheckRule(name)...)
	}
	slices.SortFunc(all, compare)
	return all
}

// CheckRule runs the rule of that name, which must be one of Rules, and returns its problems
// in order of path and line.
func (t *Tree) CheckRule(name string) []Problem {
	found := Rules()[name](t)
	for i := range found {
		found[i].Rule = name
	}
	slices.SortStableFunc(found, compare)
	return found
}

func compare(a, b Problem) int {
	return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Rule, b.Rule))
}

// Tree is a repository that has been read. It is not changed after Load and
// may be read from several goroutines.
type Tree struct {
	Files map[string][]byte // every file that git would track, by slash-separated path
	Go    []*File           // those that the go command sees, by path
	fset  *token.FileSet
}

// File is one Go file.
type File struct {
	Path string // from the root of the repository
	Dir  string // its folder; "." for the root
	Test bool   // named *_test.go
	AST  *ast.File
	fset *token.FileSet
}

// Load reads a repository. It leaves out what the .gitignore at its root names
// (plain names, *.suffix patterns and /folder/ lines, no more) and git's own
// folder.
func Load(repo fs.FS) (*Tree, error) {
	t := &Tree{Files: map[string][]byte{}, fset: token.NewFileSet()}
	ignored, err := ignore(repo)
	if err != nil {
		return nil, err
	}
	err = fs.WalkDir(repo, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name != "." && ignored(name, d.IsDir()):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case !d.Type().IsRegular():
			return nil
		}
		t.Files[name], err = fs.ReadFile(repo, name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the repository: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(t.Files)) {
		if path.Ext(name) != ".go" || strings.Contains("/"+name, "/testdata/") || strings.Contains("/"+name, "/.") {
			continue // as the go command does
		}
		f, err := parser.ParseFile(t.fset, name, t.Files[name], parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", name, err)
		}
		t.Go = append(t.Go, &File{
			Path: name, Dir: path.Dir(name), Test: strings.HasSuffix(name, "_test.go"), AST: f, fset: t.fset,
		})
	}
	return t, nil
}

func ignore(repo fs.FS) (func(name string, dir bool) bool, error) {
	text, err := fs.ReadFile(repo, ".gitignore")
	if err != nil {
		return nil, fmt.Errorf("read .gitignore: %w", err)
	}
	patterns := strings.Fields(string(text))
	return func(name string, dir bool) bool {
		if path.Base(name) == ".git" { // a folder, or a file in a linked work tree
			return true
		}
		return slices.ContainsFunc(patterns, func(p string) bool {
			if folder, ok := strings.CutSuffix(p, "/"); ok && !dir {
				return false
			} else if ok {
				p = folder
			}
			match, subject := strings.TrimPrefix(p, "/"), name
			if match == p && !strings.Contains(p, "/") {
				subject = path.Base(name)
			}
			ok, err := path.Match(match, subject)
			return ok && err == nil
		})
	}, nil
}

// line is the line of a node of f.
func (f *File) line(n ast.Node) int { return f.fset.Position(n.Pos()).Line }

// problem reports that node n of f breaks a rule.
func (f *File) problem(n ast.Node, format string, args ...any) Problem {
	return Problem{Path: f.Path, Line: f.line(n), Text: fmt.Sprintf(format, args...)}
}

// imported returns the import path of the package whose name, in f, is the expression x, or
// "". It does not see that a local variable has the same name as a package: rename such a
// variable.
func (f *File) imported(x ast.Expr) string {
	id, ok := x.(*ast.Ident)
	if !ok {
		return ""
	}
	for _, s := range f.AST.Imports {
		at := importPath(s)
		switch {
		case s.Name != nil && s.Name.Name == id.Name:
			return at
		case s.Name == nil && baseName(at) == id.Name:
			return at
		}
	}
	return ""
}

// importPath is the unquoted path of an import.
func importPath(s *ast.ImportSpec) string {
	at, err := strconv.Unquote(s.Path.Value)
	if err != nil {
		return s.Path.Value // cannot happen after parsing; no rule matches it
	}
	return at
}

// baseName guesses the package name of an import path: its last element that
// is no major version, without a "go-" in front.
func baseName(at string) string {
	base := path.Base(at)
	if len(base) > 1 && base[0] == 'v' && strings.Trim(base[1:], "0123456789") == "" {
		base = path.Base(path.Dir(at))
	}
	return strings.TrimPrefix(base, "go-")
}

// under reports whether dir is folder or lies below it.
func under(dir, folder string) bool {
	return dir == folder || strings.HasPrefix(dir, folder+"/")
}
